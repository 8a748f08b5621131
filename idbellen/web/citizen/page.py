"""The citizen's page: the phone number and the code, and then how far the call is.

The address that the core gets leads one browser to the page, once. From then on a signed cookie tells who it
is, so that neither that address nor a code in it is worth anything to whoever finds it later.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import segno
import structlog
from aiohttp import web
from yarl import URL

from idbellen.calls.results import SECOND
from idbellen.domain.codes import in_groups
from idbellen.domain.idcontact import TokenRefusedError
from idbellen.domain.languages import LANGUAGES
from idbellen.ports import Attached
from idbellen.web.citizen.hours import clock_time, hours_view
from idbellen.web.citizen.live import LivePages
from idbellen.web.citizen.state import Cookies, Known, Situation, find
from idbellen.web.issuing import NoFreeCodeError, dial_address
from idbellen.web.pages import STATIC, Pages, preferred_language, wanted_language
from idbellen.web.security import harden, origin_of, set_cookie

if TYPE_CHECKING:
    from idbellen.domain.languages import Language
    from idbellen.web.citizen.site import CitizenSite

log = structlog.get_logger()

COOKIE = "idbellen_citizen"
# Of the messages that are no good news.
STATUSES = {"used": 410, "over": 410, "refused": 400, "busy": 503}


def citizen_app(site: CitizenSite) -> web.Application:
    """Build the site."""
    app = web.Application(client_max_size=64 * 1024)
    targets = (origin_of(site.demo_phone_url),) if site.demo_phone_url else ()
    harden(app, site.url, form_targets=targets)
    handlers = _Handlers(site)
    # A page works once, and a HEAD request of some preview shall not use it up, nor its code.
    app.router.add_get("/start/{handle}", handlers.start, allow_head=False)
    app.router.add_get("/", handlers.page, allow_head=False)
    app.router.add_get("/live", handlers.live, allow_head=False)
    app.router.add_post("/new-code", handlers.new_code)
    app.router.add_post("/end", handlers.end)
    if site.theme_file:
        app.router.add_get("/theme.css", handlers.theme)
    app.router.add_static("/static/", STATIC)
    app.on_shutdown.append(handlers.close)
    return app


class _Handlers:
    def __init__(self, site: CitizenSite) -> None:
        self._site = site
        self._pages = Pages()
        self._cookies = Cookies(site.cookie_key)
        self._live = LivePages(site)

    async def close(self, app: web.Application) -> None:
        await self._live.close(app)

    # The way to the page

    async def start(self, request: web.Request) -> web.StreamResponse:
        handle, token = request.match_info["handle"], request.query.get("result")
        session = await self._site.sessions.by_page_handle(handle)
        if session is None:
            return self._message(request, None, "used")
        known = self._known(request)
        if known and known.session == session.reference:
            # A reload of this address brings the same result again, perhaps long after it came.
            if token is not None and session.result is not None:
                self._site.results.refused(session, SECOND)
                token = None
        else:
            known = None
        # Before the page counts as opened: a result that somebody spoilt on the way shall not use it up.
        received = None
        if token is not None:
            try:
                # ID Contact's second way of delivery: the result comes along with the citizen's browser.
                received = self._site.results.receive(token, session.purpose)
            except TokenRefusedError as fault:
                self._site.results.refused(session, str(fault))
                return self._message(request, known, "refused")
        if known is None:
            if await self._site.sessions.open_page(handle) is None:
                return self._message(request, None, "used")
            known = Known(session.reference, language=wanted_language(request))
        # After it: only the browser to which the page belongs delivers.
        if received and await self._site.results.attach(session, received) is Attached.REPLAYED:
            return self._remember(self._message(request, known, "refused"), known)
        return self._remember(_to_page(), known)

    # The page

    async def page(self, request: web.Request) -> web.StreamResponse:
        known, wanted = self._known(request), wanted_language(request)
        if known is None:
            return self._message(request, None, "over")
        if wanted:
            return self._remember(_to_page(), replace(known, language=wanted))
        situation = await find(self._site, known)
        if situation.kind != "new":
            return await self._show(request, known, situation)
        try:
            known = await self._with_new_code(known)
        except NoFreeCodeError:
            return self._message(request, known, "busy")
        situation = await find(self._site, known)
        return self._remember(await self._show(request, known, situation), known)

    async def new_code(self, request: web.Request) -> web.StreamResponse:
        known = self._known(request)
        if known is None or not (await find(self._site, known)).renewable:
            return _to_page()
        try:
            known = await self._with_new_code(known)
        except NoFreeCodeError:
            return self._message(request, known, "busy")
        return self._remember(_to_page(), known)

    async def end(self, request: web.Request) -> web.StreamResponse:
        """Delete the session, unless a call holds it; the page shows which of both."""
        known = self._known(request)
        session = await self._site.sessions.discard(known.session) if known else None
        if known is None or session is None:
            return _to_page()
        log.info("ended by citizen", session=session.reference)
        self._site.feedback.logout(session)
        self._site.progress.end(session.reference)
        return self._remember(_to_page(), replace(known, code="", until=0.0))

    async def live(self, request: web.Request) -> web.StreamResponse:
        known = self._known(request)
        language = self._language(request, known)

        def html(known: Known, situation: Situation) -> str:
            if situation.kind != "code":
                return ""
            return self._pages.text("_live.html", language, **self._live_values(known, situation, language))

        return await self._live.serve(request, known, html)

    async def theme(self, _: web.Request) -> web.StreamResponse:
        assert self._site.theme_file, "no route without it"  # noqa: S101
        return web.FileResponse(self._site.theme_file, headers={"Content-Type": "text/css; charset=utf-8"})

    async def _with_new_code(self, known: Known) -> Known:
        try:
            return known.with_code(await self._site.issuer.issue(known.session))
        except NoFreeCodeError as fault:
            log.error(str(fault), session=known.session)  # noqa: TRY400 - it is no fault of the program
            raise

    async def _show(self, request: web.Request, known: Known, situation: Situation) -> web.Response:
        language, session = self._language(request, known), situation.session
        if session is None:
            stopped = situation.kind == "ended" and not known.code
            return self._message(request, known, "stopped" if stopped else situation.kind)
        if session.language != language:
            await self._site.sessions.set_language(session.reference, language)
        purpose = self._site.purposes[session.purpose]
        if situation.kind != "code":
            hours = hours_view(purpose.hours, self._site.clock(), language) if situation.kind == "closed" else None
            return self._message(request, known, situation.kind, hours=hours)
        dial = dial_address(purpose.phone_number, known.code)
        return self._pages.render(
            "citizen.html",
            language,
            **self._frame(request, language),
            **self._live_values(known, situation, language),
            kind=situation.kind,
            purpose_title=purpose.titles[language],
            phone_number=purpose.phone_number,
            spoken_number=_readable(purpose.phone_number),
            code=known.code,
            groups=in_groups(known.code),
            dial=dial,
            qr=segno.make(dial, error="m", micro=False).svg_inline(scale=4, border=2, omitsize=True),
            demo_phone_url=self._site.demo_phone_url,
            url=self._site.url,
        )

    def _live_values(self, known: Known, situation: Situation, language: Language) -> dict[str, Any]:
        """Give what the parts of the page that change live are made of."""
        assert situation.session, "a code belongs to a session"  # noqa: S101
        result, purpose = situation.session.result, self._site.purposes[situation.session.purpose]
        return {
            "stage": situation.view.stage.value,
            "view": situation.view,
            "login": result.status.value if result else "awaited",
            "admit_unverified": purpose.admit_unverified,
            "begin_url": self._site.begin_url,
            "valid_until": clock_time(known.until, purpose.hours, language),
            "ends_soon": situation.ends_soon,
            "renewable": situation.renewable,
        }

    def _message(self, request: web.Request, known: Known | None, kind: str, **values: Any) -> web.Response:  # noqa: ANN401
        language = self._language(request, known)
        return self._pages.render(
            "message.html",
            language,
            status=STATUSES.get(kind, 200),
            **self._frame(request, language),
            kind=kind,
            live=known is not None and kind in ("expired", "closed"),
            endable=known is not None and kind in ("expired", "closed", "failed"),
            begin_url=self._site.begin_url,
            **{"hours": None} | values,
        )

    def _frame(self, request: web.Request, language: Language) -> dict[str, Any]:
        """Give what every page has around it."""
        here = request.rel_url if request.method == "GET" else URL("/")
        return {
            "site_name": self._site.name[language],
            "themed": self._site.theme_file is not None,
            "addresses": {tag: str(here.update_query(lang=tag)) for tag in LANGUAGES},
        }

    def _language(self, request: web.Request, known: Known | None) -> Language:
        chosen = wanted_language(request) or (known.language if known else None)
        return chosen or preferred_language(request, self._site.language)

    # The cookie

    def _known(self, request: web.Request) -> Known | None:
        return self._cookies.load(request.cookies.get(COOKIE, ""))

    def _remember(self, response: web.Response, known: Known) -> web.Response:
        set_cookie(response, COOKIE, self._cookies.dump(known), url=self._site.url)
        return response


def _to_page() -> web.Response:
    return web.Response(status=303, headers={"Location": "/"})


def _readable(number: str) -> str:
    """Group a phone number as people in the Netherlands write it: +31 20 123 4567."""
    if number.startswith("+31") and len(number) == 12:  # noqa: PLR2004 - +31 and nine digits
        return f"{number[:3]} {number[3:5]} {number[5:8]} {number[8:]}"
    return number
