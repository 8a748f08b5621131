"""The stand-in of ID Contact's core, with the website of a municipality that does not exist.

It starts the communication plugin (idbellen) and an authentication plugin as the core does: see the repositories
``core`` and ``docs`` of ID Contact. As some cores do, it puts a page of its own around a ``tel:`` address.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from pydantic import BaseModel
from yarl import URL

from idbellen.demo.remember import Remembered
from idbellen.demo.services import TEL, Answer, AwayError, ClientAddress, Services, WebAddress
from idbellen.demo.texts import form_field, language_of, new_app, page
from idbellen.domain.codes import in_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger()

MOST_VISITS = 1000
# The first of each is what a form without that field means.
CHANNELS = ("page", "tel")
DELIVERIES = ("attr_url", "result", "start", "late")
NO_LOGIN = "none"


@dataclass(frozen=True, slots=True)
class Purpose:
    """A reason to call: its name in the protocol, its names on the page, and the attributes it needs.

    ``admit_unverified``: one may call without logging in. ``hint``: in Dutch and English, for whoever gives the
    demonstration: what is special here.
    """

    tag: str
    title_nl: str
    title_en: str
    attributes: tuple[str, ...]
    admit_unverified: bool = False
    hint: tuple[str, str] = ("", "")

    def title(self, language: str) -> str:
        """Give the name on a page in this language."""
        return self.title_nl if language == "nl" else self.title_en

    def hint_in(self, language: str) -> str:
        """Give the hint in this language; empty when there is none."""
        return self.hint[0] if language == "nl" else self.hint[1]


@dataclass(frozen=True, slots=True)
class LoginMethod:
    """An authentication plugin: its name in forms and on pages, its address without a slash, its dialect's name."""

    key: str
    name: str
    url: str
    dialect: str


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Where browsers reach the core, where idbellen's internal API answers, and what citizens can choose.

    ``demo_phone``: ``POST /phone`` is there too, and lets the demo's phone call (see :mod:`idbellen.demo.remote`).
    """

    public_url: str
    plugin_url: str
    methods: tuple[LoginMethod, ...]
    purposes: tuple[Purpose, ...]
    demo_phone: bool = False


class _Destination(BaseModel):
    client_url: ClientAddress


class _Communication(_Destination):
    attr_url: WebAddress


class _Authentication(BaseModel):
    client_url: WebAddress


@dataclass(frozen=True, slots=True)
class _Visit:
    """What a citizen chose. ``method``: None is without logging in."""

    purpose: Purpose
    channel: str
    method: LoginMethod | None
    delivery: str


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that a citizen can make from our page: the ``tel:`` address, and what it holds."""

    visit: _Visit
    address: str = field(repr=False)
    number: str
    code: str = field(repr=False)


class _Core:
    def __init__(self, settings: CoreSettings, services: Services) -> None:
        self._settings = settings
        self._services = services
        self._public_url, self._plugin_url = settings.public_url.rstrip("/"), settings.plugin_url.rstrip("/")
        self._purposes = {purpose.tag: purpose for purpose in settings.purposes}
        self._methods = {method.key: method for method in settings.methods}
        self._logging_in = Remembered[_Visit](MOST_VISITS)
        self._calls = Remembered[_Call](MOST_VISITS)

    async def show_start(self, request: web.Request) -> web.Response:
        return self._start_page(request)

    def _start_page(self, request: web.Request, *, purpose_missing: bool = False) -> web.Response:
        language = language_of(request)
        purposes = self._settings.purposes
        return page(
            request,
            "core_start.html",
            status=400 if purpose_missing else 200,
            here="/",
            purposes=[(purpose.tag, purpose.title(language)) for purpose in purposes],
            hints=[(purpose.title(language), hint) for purpose in purposes if (hint := purpose.hint_in(language))],
            methods=self._settings.methods,
            purpose_missing=purpose_missing,
        )

    async def choose_purpose(self, request: web.Request) -> web.Response:
        purpose = self._purposes.get(await form_field(request, "purpose"))
        if purpose is None:
            return self._start_page(request, purpose_missing=True)
        raise web.HTTPSeeOther(f"/start/{purpose.tag}")

    async def show_options(self, request: web.Request) -> web.Response:
        purpose = self._purposes.get(request.match_info["purpose"])
        if purpose is None:
            return _lost(request)
        return page(
            request,
            "core_options.html",
            title=purpose.title(language_of(request)),
            channels=CHANNELS,
            methods=self._settings.methods,
            no_login=NO_LOGIN if purpose.admit_unverified else "",
            deliveries=DELIVERIES,
        )

    async def start(self, request: web.Request) -> web.Response:
        purpose = self._purposes.get(request.match_info["purpose"])
        if purpose is None:
            return _lost(request)
        logins = [*self._methods, *([NO_LOGIN] if purpose.admit_unverified else [])]
        visit = _Visit(
            purpose,
            channel=await _choice(request, "channel", CHANNELS),
            method=self._methods.get(await _choice(request, "login", logins)),
            delivery=await _choice(request, "delivery", DELIVERIES),
        )
        try:
            if visit.method is None:
                client_url = await self._start_communication(visit)
            else:
                client_url = await self._start_login(visit, visit.method)
        except AwayError as fault:
            return _away(request, visit, fault)
        raise web.HTTPSeeOther(URL(client_url, encoded=True))

    async def resume(self, request: web.Request) -> web.Response:
        """Go on after a login that came first: the plugin sent the citizen back here, with the auth result."""
        token = request.query.get("result", "")
        # Taken out: each visit gets one session of idbellen.
        visit = self._logging_in.take(request.match_info["handle"]) if token else None
        if visit is None:
            return _lost(request)
        try:
            client_url = await self._start_communication(visit, token)
        except AwayError as fault:
            return _away(request, visit, fault)
        raise web.HTTPSeeOther(URL(client_url, encoded=True))

    async def show_call(self, request: web.Request) -> web.Response:
        call = self._calls.get(request.match_info["handle"])
        if call is None:
            return _lost(request)
        return page(
            request,
            "core_call.html",
            title=call.visit.purpose.title(language_of(request)),
            call=call,
            groups=in_groups(call.code),
            fell_back=call.visit.method is not None and call.visit.delivery == "result",
            demo_phone=self._settings.demo_phone,
        )

    async def _start_communication(self, visit: _Visit, token: str | None = None) -> str:
        """Start idbellen without a login, or after one; gives the address for the citizen."""
        body: dict[str, object] = {"purpose": visit.purpose.tag}
        if token is not None:
            body["auth_result"] = token
        answer = await self._ask_plugin(visit, body, _Destination)
        return self._continuation(visit, answer.client_url)

    async def _start_login(self, visit: _Visit, method: LoginMethod) -> str:
        """Start a login, and before it idbellen, unless that comes later; gives the address for the citizen."""
        wish: dict[str, object] = {"attributes": list(visit.purpose.attributes)}
        if visit.delivery == "start":
            wish["continuation"] = f"{self._public_url}/continue/{self._logging_in.add(visit)}"
        else:
            communication = await self._ask_plugin(visit, {"purpose": visit.purpose.tag}, _Communication)
            wish["continuation"] = self._continuation(visit, communication.client_url)
            if visit.delivery != "result" or TEL.fullmatch(communication.client_url):
                wish["attr_url"] = communication.attr_url
            if visit.delivery == "late":
                wish["delivery"] = "late"
        url = f"{method.url}/start_authentication"
        return (await self._services.ask("auth", url, wish, _Authentication)).client_url

    def _continuation(self, visit: _Visit, client_url: str) -> str:
        """Give where the citizen's browser goes: around a ``tel:`` address we put a page of our own."""
        dial = TEL.fullmatch(client_url)
        if dial is None:
            return client_url
        return f"{self._public_url}/call/{self._calls.add(_Call(visit, client_url, dial['number'], dial['code']))}"

    async def _ask_plugin(self, visit: _Visit, body: dict[str, object], answer: type[Answer]) -> Answer:
        return await self._services.ask(
            "plugin", f"{self._plugin_url}/{visit.channel}/start_communication", body, answer
        )


async def _choice(request: web.Request, name: str, known: Sequence[str]) -> str:
    """Give what was chosen in a field of a form; its first choice when the field is not there."""
    chosen = await form_field(request, name) or known[0]
    if chosen not in known:
        raise web.HTTPBadRequest(text=f"unknown {name}")
    return chosen


def _away(request: web.Request, visit: _Visit, fault: AwayError) -> web.Response:
    log.warning("demo.core.away", service=fault.service, purpose=visit.purpose.tag, reason=str(fault))
    return _message(request, 502, "away_title", f"away_{fault.service}")


def _lost(request: web.Request) -> web.Response:
    return _message(request, 404, "lost_title", "lost_text")


def _message(request: web.Request, status: int, title: str, sentence: str) -> web.Response:
    return page(
        request,
        "message.html",
        status=status,
        here="/",
        site="core.html",
        title=title,
        sentence=sentence,
        retry="/",
    )


def core_app(settings: CoreSettings) -> web.Application:
    """Make the application: ``GET /`` is the municipality's start page, from which the citizen goes to ``/start/...``.

    The form there holds ``channel`` (``page`` of idbellen, or ``tel``), ``login`` (a method's key, or ``none``) and
    ``delivery``, how the auth result gets to idbellen: ``attr_url`` (from server to server), ``result`` (with the
    citizen's browser; not with ``tel:`` addresses, which fall back on ``attr_url``), ``start`` (the login comes first,
    and its result goes along when idbellen is started) or ``late`` (``attr_url``, when somebody delivers it by hand).
    """
    services = Services()
    core = _Core(settings, services)
    app = new_app()
    app.cleanup_ctx.append(services.client)
    app.router.add_get("/", core.show_start)
    app.router.add_post("/start", core.choose_purpose)
    app.router.add_get("/start/{purpose}", core.show_options)
    app.router.add_post("/start/{purpose}", core.start)
    app.router.add_get("/continue/{handle}", core.resume, allow_head=False)
    app.router.add_get("/call/{handle}", core.show_call)
    return app
