"""The agents' dashboard: login, the page, and the attributes for the agent who is in the call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from idbellen.calls.audit import on_record
from idbellen.domain.idcontact import AuthStatus
from idbellen.domain.ids import QueueName, Secret  # noqa: TC001 - pydantic looks for it
from idbellen.ports import Role
from idbellen.web.dashboard.live import Live
from idbellen.web.forms import read_text
from idbellen.web.login.logins import forget_login, to_login
from idbellen.web.messages import Titles
from idbellen.web.pages import STATIC, Pages
from idbellen.web.security import harden
from idbellen.web.wallboard.pages import add_supervisor_routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.calls.desk import Desk
    from idbellen.calls.staff import Staff
    from idbellen.domain.languages import Language
    from idbellen.ports import Account, AuditTrail, Clock, Session, SessionStore
    from idbellen.web.login.logins import Logins, WayIn
    from idbellen.web.wallboard.live import SupervisorLive
    from idbellen.web.wallboard.site import SupervisorSite

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PurposeView:
    """How a purpose is shown: its title, and the attributes with their labels, in order."""

    title: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DashboardSite:
    """What the dashboard needs.

    ``queues``, ``methods`` (of citizens' login, by the issuer of the auth result) and ``pause_reasons``: how they are
    called in the dashboard's language.
    ``masked``: the attributes whose value is given only when the agent asks for it.
    """

    url: str
    language: Language
    purposes: Mapping[str, PurposeView]
    queues: Mapping[QueueName, str]
    methods: Mapping[str, str]
    pause_reasons: Mapping[str, str]
    masked: frozenset[str]
    logins: Logins
    way_in: WayIn
    sessions: SessionStore
    audit: AuditTrail
    staff: Staff
    desk: Desk
    clock: Clock


class AttributesRequest(BaseModel):
    """What the page sends to fetch the attributes of the call in hand."""

    model_config = ConfigDict(strict=True, extra="forbid")

    secret: Secret


class RevealRequest(AttributesRequest):
    """What the page sends when the agent asks for a masked attribute."""

    name: str


Asked = TypeVar("Asked", bound=AttributesRequest)


def dashboard_app(site: DashboardSite, supervisors: SupervisorSite | None = None) -> web.Application:
    """Build the site, with the supervisors' part if there is one."""
    app = web.Application(client_max_size=16 * 1024)
    harden(app, site.url)
    handlers = _Handlers(site)
    app.router.add_get("/", handlers.page)
    app.router.add_post("/logout", handlers.log_out)
    app.router.add_get("/live", handlers.live)
    app.router.add_post("/attributes", handlers.attributes)
    app.router.add_post("/reveal", handlers.reveal)
    app.router.add_static("/static/", STATIC)
    site.way_in.add_to(app, site.logins)
    app.on_shutdown.append(handlers.close)
    if supervisors:
        handlers.add_supervisors(app, supervisors)
    return app


class _Handlers:
    def __init__(self, site: DashboardSite) -> None:
        self._site = site
        self._pages = Pages()
        self._pages.load(site.language, "base.html", "dashboard.html")
        titles = Titles({tag: purpose.title for tag, purpose in site.purposes.items()}, site.queues)
        self._live = Live(site.staff, site.desk, titles, site.pause_reasons, site.clock)
        self._wallboards: SupervisorLive | None = None

    def add_supervisors(self, app: web.Application, site: SupervisorSite) -> None:
        self._wallboards = add_supervisor_routes(app, site, self._site.logins.of)

    async def close(self, _: web.Application) -> None:
        await self._live.sockets.close()

    async def log_out(self, request: web.Request) -> web.Response:
        login, account = await self._site.logins.of(request)
        if login and account:
            await self._site.logins.end(login)
            await self._live.sockets.end_login(login)
            if self._wallboards:
                await self._wallboards.sockets.end_login(login)
            # Other dashboards of this agent may still be open; without one they are soon offline.
            self._site.staff.pause(account.name, "")
            log.info("logged out", agent=account.name)
        return forget_login(to_login())

    # The page

    async def page(self, request: web.Request) -> web.Response:
        _, account = await self._site.logins.of(request)
        if account is None:
            return to_login()
        return self._pages.render(
            "dashboard.html",
            self._site.language,
            agent=account.name,
            pause_reasons=self._site.pause_reasons,
            supervisor=account.role is Role.SUPERVISOR,
        )

    async def live(self, request: web.Request) -> web.StreamResponse:
        login, account = await self._site.logins.of(request)
        if account is None:
            raise web.HTTPForbidden(text="Log in first.")

        async def still_logged_in() -> bool:
            return await self._site.logins.account(login) is not None

        return await self._live.serve(request, login, account, still_logged_in)

    async def attributes(self, request: web.Request) -> web.Response:
        """Give the attributes of a secret to the agent who is in that call at this moment, and to nobody else."""
        account, _, session = await self._asked(request, AttributesRequest)
        result = session.result
        if result is None:
            return web.json_response({"status": "pending", "attributes": []})
        if result.status is not AuthStatus.SUCCESS:
            return web.json_response({"status": "failed", "attributes": []})
        shown: list[dict[str, str | bool]] = []
        labels = self._site.purposes[session.purpose].attributes
        for name, label in labels.items():
            if name in result.attributes:
                masked = name in self._site.masked
                value: dict[str, str | bool] = {"masked": True} if masked else {"value": result.attributes[name]}
                shown.append({"name": name, "label": label, **value})
        names = ",".join(str(attribute["name"]) for attribute in shown if "value" in attribute)
        log.info("attributes shown", agent=account.name, session=session.reference, attributes=names)
        await on_record(self._site.audit, account.name, "attributes shown", session.reference, attributes=names)
        method = self._site.methods.get(result.issuer or "")
        missing = [labels[name] for name in result.missing(labels)]
        return web.json_response({"status": "verified", "attributes": shown, "method": method, "missing": missing})

    async def reveal(self, request: web.Request) -> web.Response:
        """Give the value of one masked attribute to the agent who is in that call; not without a note of it."""
        account, asked, session = await self._asked(request, RevealRequest)
        result = session.result
        if (
            result is None
            or asked.name not in result.attributes
            or asked.name not in self._site.purposes[session.purpose].attributes
        ):
            raise web.HTTPNotFound(text="There is no such attribute.")
        noted = await on_record(
            self._site.audit, account.name, "attribute revealed", session.reference, attributes=asked.name
        )
        if not noted:
            raise web.HTTPServiceUnavailable(text="This cannot be shown, because it cannot be recorded.")
        return web.json_response({"value": result.attributes[asked.name]})

    async def _asked(self, request: web.Request, form: type[Asked]) -> tuple[Account, Asked, Session]:
        """Give who asks what of which session; nobody but who may see it gets past this."""
        _, account = await self._site.logins.of(request)
        if account is None:
            raise web.HTTPForbidden(text="Log in first.")
        try:
            asked = form.model_validate_json(await read_text(request))
        except ValidationError:
            raise web.HTTPBadRequest(text='expected {"secret": "..."}') from None
        if not self._site.desk.may_see(account.name, asked.secret):
            log.warning("attributes refused", agent=account.name)
            raise web.HTTPForbidden(text="This is not the call that you are in.")
        session = await self._site.sessions.by_secret(asked.secret)
        if session is None:
            raise web.HTTPNotFound(text="The data of this call have been deleted.")
        return account, asked, session
