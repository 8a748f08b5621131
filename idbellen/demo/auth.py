"""The stand-in of an authentication plugin: whoever visits may choose which made-up citizen to be.

Speaks the interface of ID Contact's authentication plugins (see the repositories ``auth-test`` and ``docs``), in
either dialect. It posts to any address that it is told to, so let only the demo's core reach it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ValidationError, model_validator
from yarl import URL

from idbellen.demo.backstage import add_backstage
from idbellen.demo.identities import DEMO_IDENTITIES, Identity
from idbellen.demo.remember import Remembered, new_handle
from idbellen.demo.results import Result, Results, UndeliveredError
from idbellen.demo.services import WebAddress, wrong_parts
from idbellen.demo.texts import Brand, attribute_label, form_field, language_of, new_app, page
from idbellen.demo.tokens import ID_CONTACT, Dialect

MOST_LOGINS = 1000
DEMOID = Brand("DemoID", "demoid")
VOORBEELDPAS = Brand("VoorbeeldPas", "voorbeeldpas")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Where browsers reach the plugin, its private key, idbellen's public one (both PEM), its brand, its people."""

    public_url: str
    signing_key: str = field(repr=False)
    encryption_key: str
    brand: Brand = DEMOID
    dialect: Dialect = ID_CONTACT
    identities: tuple[Identity, ...] = DEMO_IDENTITIES


class _Start(BaseModel):
    attributes: list[str]
    continuation: WebAddress
    attr_url: WebAddress | None = None
    # Of the demo's core only: keep the result until somebody delivers it by hand.
    delivery: Literal["late"] | None = None

    @model_validator(mode="after")
    def _late_has_address(self) -> Self:
        if self.delivery and self.attr_url is None:
            raise ValueError("late delivery needs an attr_url")
        return self


@dataclass(slots=True)
class _Login:
    asked: _Start
    session: str
    identity: Identity | None = None


class _Auth:
    def __init__(self, settings: AuthSettings, results: Results) -> None:
        self._public_url = settings.public_url.rstrip("/")
        self._brand = settings.brand
        self._results = results
        self._identities = {identity.key: identity for identity in settings.identities}
        self._known = frozenset.intersection(*(frozenset(i.attributes) for i in settings.identities))
        self._logins = Remembered[_Login](MOST_LOGINS)

    async def start_authentication(self, request: web.Request) -> web.Response:
        try:
            asked = _Start.model_validate_json(await request.read())
        except ValidationError as fault:
            return _bad_request(f"wrong: {wrong_parts(fault)}")
        if not self._known.issuperset(asked.attributes):
            return _bad_request("unknown attribute")
        handle = self._logins.add(_Login(asked, new_handle()))
        return web.json_response({"client_url": f"{self._public_url}/login/{handle}"})

    async def show_choice(self, request: web.Request) -> web.Response:
        login = self._logins.get(request.match_info["handle"])
        return self._choice_page(request, login) if login else self._gone(request)

    def _choice_page(self, request: web.Request, login: _Login, *, identity_missing: bool = False) -> web.Response:
        return page(
            request,
            "auth_choose.html",
            status=400 if identity_missing else 200,
            identities=[(key, identity.name) for key, identity in self._identities.items()],
            chosen=login.identity.key if login.identity else "",
            identity_missing=identity_missing,
            brand=self._brand,
        )

    async def choose(self, request: web.Request) -> web.Response:
        login = self._logins.get(request.match_info["handle"])
        if login is None:
            return self._gone(request)
        identity = self._identities.get(await form_field(request, "identity"))
        if identity is None:
            return self._choice_page(request, login, identity_missing=True)
        login.identity = identity
        raise web.HTTPSeeOther(f"{request.path}/consent")

    async def show_consent(self, request: web.Request) -> web.Response:
        login = self._logins.get(request.match_info["handle"])
        if login is None:
            return self._gone(request)
        if login.identity is None:
            raise web.HTTPSeeOther(_choice_path(request))
        language, values = language_of(request), login.identity.attributes
        shared = [(attribute_label(language, name), values[name]) for name in login.asked.attributes]
        return page(request, "auth_consent.html", shared=shared, choice=_choice_path(request), brand=self._brand)

    async def answer(self, request: web.Request) -> web.Response:
        consent = await form_field(request, "consent")
        if consent not in {"yes", "no"}:
            raise web.HTTPBadRequest(text="consent is yes or no")
        # Taken out first: what is sent twice at once is delivered once.
        handle = request.match_info["handle"]
        login = self._logins.take(handle)
        if login is None:
            return self._gone(request)
        if consent == "yes" and login.identity is None:
            self._logins.put(handle, login)
            raise web.HTTPSeeOther(_choice_path(request))
        result = _result(login, consent=consent == "yes")
        self._results.add(result)
        if result.attr_url is None:
            result.state = "browser"
            address = with_result(login.asked.continuation, self._results.token(result))
            raise web.HTTPSeeOther(URL(address, encoded=True))
        if login.asked.delivery != "late":
            try:
                await self._results.deliver(result)
            except UndeliveredError:
                # The citizen decides what is next, so nobody shall deliver this one by hand.
                result.state = "undelivered"
                self._logins.put(handle, login)
                return page(request, "auth_undelivered.html", status=502, consent=consent, brand=self._brand)
        raise web.HTTPSeeOther(URL(login.asked.continuation, encoded=True))

    def _gone(self, request: web.Request) -> web.Response:
        return page(
            request,
            "message.html",
            status=404,
            site="auth.html",
            title="gone_title",
            sentence="gone_text",
            retry=None,
            brand=self._brand,
        )


def _bad_request(detail: str) -> web.Response:
    return web.json_response({"error": "BadRequest", "detail": detail}, status=400)


def _choice_path(request: web.Request) -> str:
    return f"/login/{request.match_info['handle']}"


def _result(login: _Login, *, consent: bool) -> Result:
    identity, shared = login.identity, None
    if identity and consent:
        shared = {name: identity.attributes[name] for name in login.asked.attributes}
    return Result(login.session, identity.name if identity else "", shared, login.asked.attr_url)


def with_result(continuation: str, token: str) -> str:
    """Add the token as ``result`` to an address and leave all else in it as it is."""
    parts = urlsplit(continuation)
    query = f"{parts.query}&result={token}" if parts.query else f"result={token}"
    return parts._replace(query=query).geturl()


def auth_app(settings: AuthSettings) -> web.Application:
    """Make the application: ``POST /start_authentication`` for the core, ``/login/...`` for the citizen.

    A login ends with the citizen's answer: the auth result goes to the ``attr_url``, or without one as
    ``result`` along with the browser, and the browser goes to the ``continuation``. With ``"delivery": "late"`` the
    result waits until somebody delivers it from ``/backstage``, which shows what became of the last logins.
    ``POST /session/...?type=user_active|logout`` is the ``session_url`` of a result.

    Raises:
        ValueError: a key is not written as PEM.
        JoseError: a key is not of the kind that the dialect uses.

    """
    results = Results(
        settings.dialect,
        issuer=settings.brand.theme,
        signing_key=settings.signing_key,
        encryption_key=settings.encryption_key,
        sessions_url=f"{settings.public_url.rstrip('/')}/session",
    )
    auth = _Auth(settings, results)
    app = new_app()
    app.cleanup_ctx.append(results.client)
    app.router.add_post("/start_authentication", auth.start_authentication)
    app.router.add_get("/login/{handle}", auth.show_choice)
    app.router.add_post("/login/{handle}", auth.choose)
    app.router.add_get("/login/{handle}/consent", auth.show_consent)
    app.router.add_post("/login/{handle}/consent", auth.answer)
    add_backstage(app, results, settings.brand)
    return app
