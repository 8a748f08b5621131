"""DemoID, the stand-in of an authentication plugin: whoever visits may choose which made-up citizen to be.

Speaks the interface of ID Contact's authentication plugins (see the repositories ``auth-test`` and ``docs``).
It posts to any address that it is told to, so let only the demo's core reach it.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import structlog
from aiohttp import web
from joserfc.jwk import RSAKey
from pydantic import BaseModel, ValidationError
from yarl import URL

from idbellen.demo.texts import WebAddress, attribute_label, form_field, language_of, new_app, page
from idbellen.demo.tokens import ID_CONTACT, auth_result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

log = structlog.get_logger()

DELIVERY_SECONDS = 5.0
MOST_LOGINS = 1000


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody to be; ``key`` names them in the form. Every identity has the same attributes."""

    key: str
    attributes: Mapping[str, str]


# The numbers pass the 11-test and lie in 99999xxxx, which is kept for tests: nobody has them.
DEMO_IDENTITIES = (
    Identity(
        "sanne",
        MappingProxyType(
            {
                "fullname": "Sanne Voorbeeld",
                "bsn": "999990007",
                "birthdate": "14-02-1986",
                "address": "Dorpsstraat 12, 1234 AB Voorbeeld",
            }
        ),
    ),
    Identity(
        "joris",
        MappingProxyType(
            {
                "fullname": "Joris van Probeersel",
                "bsn": "999993318",
                "birthdate": "30-09-1951",
                "address": "Molenweg 3 A, 1234 CD Voorbeeld",
            }
        ),
    ),
    Identity(
        "noor",
        MappingProxyType(
            {
                "fullname": "Noor Demir-Schijn",
                "bsn": "999996605",
                "birthdate": "07-05-2001",
                "address": "Stationsplein 101, 1234 EF Voorbeeld",
            }
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Where browsers reach DemoID, its private RSA key, idbellen's public one (both PEM), and its people."""

    public_url: str
    signing_key: str = field(repr=False)
    encryption_key: str
    identities: tuple[Identity, ...] = DEMO_IDENTITIES


class _Start(BaseModel):
    attributes: list[str]
    continuation: WebAddress
    attr_url: WebAddress | None = None


@dataclass(slots=True)
class _Login:
    asked: _Start
    identity: Identity | None = None


class _UndeliveredError(Exception):
    """The auth result did not arrive; the message gives the reason."""


class _Auth:
    def __init__(self, settings: AuthSettings) -> None:
        self._public_url = settings.public_url.rstrip("/")
        self._signing_key = RSAKey.import_key(settings.signing_key)
        self._encryption_key = RSAKey.import_key(settings.encryption_key)
        self._identities = {identity.key: identity for identity in settings.identities}
        self._known = frozenset.intersection(*(frozenset(i.attributes) for i in settings.identities))
        self._logins: OrderedDict[str, _Login] = OrderedDict()
        self._http: aiohttp.ClientSession

    async def client(self, _app: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=DELIVERY_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as self._http:
            yield

    async def start_authentication(self, request: web.Request) -> web.Response:
        try:
            asked = _Start.model_validate_json(await request.read())
        except ValidationError as fault:
            wrong = {".".join(map(str, error["loc"])) or "body" for error in fault.errors()}
            return _bad_request(f"wrong: {', '.join(sorted(wrong))}")
        if not self._known.issuperset(asked.attributes):
            return _bad_request("unknown attribute")
        handle = secrets.token_urlsafe(16)
        while len(self._logins) >= MOST_LOGINS:
            self._logins.popitem(last=False)
        self._logins[handle] = _Login(asked)
        return web.json_response({"client_url": f"{self._public_url}/login/{handle}"})

    async def show_choice(self, request: web.Request) -> web.Response:
        login = self._logins.get(request.match_info["handle"])
        return self._choice_page(request, login) if login else _gone(request)

    def _choice_page(self, request: web.Request, login: _Login, *, identity_missing: bool = False) -> web.Response:
        return page(
            request,
            "auth_choose.html",
            status=400 if identity_missing else 200,
            identities=[(key, _introduction(identity)) for key, identity in self._identities.items()],
            chosen=login.identity.key if login.identity else "",
            identity_missing=identity_missing,
        )

    async def choose(self, request: web.Request) -> web.Response:
        login = self._logins.get(request.match_info["handle"])
        if login is None:
            return _gone(request)
        identity = self._identities.get(await form_field(request, "identity"))
        if identity is None:
            return self._choice_page(request, login, identity_missing=True)
        login.identity = identity
        raise web.HTTPSeeOther(f"{request.path}/consent")

    async def show_consent(self, request: web.Request) -> web.Response:
        login = self._logins.get(request.match_info["handle"])
        if login is None:
            return _gone(request)
        if login.identity is None:
            raise web.HTTPSeeOther(_choice_path(request))
        language, values = language_of(request), login.identity.attributes
        shared = [(attribute_label(language, name), values[name]) for name in login.asked.attributes]
        return page(request, "auth_consent.html", shared=shared, choice=_choice_path(request))

    async def answer(self, request: web.Request) -> web.Response:
        consent = await form_field(request, "consent")
        if consent not in {"yes", "no"}:
            raise web.HTTPBadRequest(text="consent is yes or no")
        # Taken out first: what is sent twice at once is delivered once.
        handle = request.match_info["handle"]
        login = self._logins.pop(handle, None)
        if login is None:
            return _gone(request)
        if consent == "yes" and login.identity is None:
            self._logins[handle] = login
            raise web.HTTPSeeOther(_choice_path(request))
        token = self._result(login, consent=consent == "yes")
        if login.asked.attr_url is None:
            raise web.HTTPSeeOther(URL(with_result(login.asked.continuation, token), encoded=True))
        try:
            await self._deliver(login.asked.attr_url, token)
        except _UndeliveredError as fault:
            log.warning("demo.auth.undelivered", reason=str(fault))
            self._logins[handle] = login
            return page(request, "auth_undelivered.html", status=502, consent=consent)
        raise web.HTTPSeeOther(URL(login.asked.continuation, encoded=True))

    def _result(self, login: _Login, *, consent: bool) -> str:
        shared = None
        if consent and login.identity:
            shared = {name: login.identity.attributes[name] for name in login.asked.attributes}
        return auth_result(
            shared,
            status="failed" if shared is None else "succes",
            subject=ID_CONTACT,
            signing_key=self._signing_key,
            encryption_key=self._encryption_key,
            now=time.time(),
        )

    async def _deliver(self, attr_url: str, token: str) -> None:
        try:
            async with self._http.post(
                URL(attr_url, encoded=True),
                data=token,
                headers={"Content-Type": "application/jwt"},
                allow_redirects=False,
            ) as response:
                if not web.HTTPOk.status_code <= response.status < web.HTTPMultipleChoices.status_code:
                    raise _UndeliveredError(f"status {response.status}")
        except TimeoutError:
            raise _UndeliveredError(f"no answer within {DELIVERY_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as fault:
            raise _UndeliveredError(type(fault).__name__) from None


def _bad_request(detail: str) -> web.Response:
    return web.json_response({"error": "BadRequest", "detail": detail}, status=400)


def _gone(request: web.Request) -> web.Response:
    return page(
        request,
        "message.html",
        status=404,
        site="auth.html",
        title="gone_title",
        sentence="gone_text",
        retry=None,
    )


def _choice_path(request: web.Request) -> str:
    return f"/login/{request.match_info['handle']}"


def _introduction(identity: Identity) -> str:
    return identity.attributes.get("fullname", identity.key)


def with_result(continuation: str, token: str) -> str:
    """Add the token as ``result`` to an address and leave all else in it as it is."""
    parts = urlsplit(continuation)
    query = f"{parts.query}&result={token}" if parts.query else f"result={token}"
    return parts._replace(query=query).geturl()


def auth_app(settings: AuthSettings) -> web.Application:
    """Make the application: ``POST /start_authentication`` for the core, ``/login/...`` for the citizen.

    A login ends with the citizen's answer: the auth result goes to the ``attr_url``, or without one as
    ``result`` along with the browser, and the browser goes to the ``continuation``.

    Raises:
        ValueError: one of the keys is not an RSA key in PEM.

    """
    auth = _Auth(settings)
    app = new_app()
    app.cleanup_ctx.append(auth.client)
    app.router.add_post("/start_authentication", auth.start_authentication)
    app.router.add_get("/login/{handle}", auth.show_choice)
    app.router.add_post("/login/{handle}", auth.choose)
    app.router.add_get("/login/{handle}/consent", auth.show_consent)
    app.router.add_post("/login/{handle}/consent", auth.answer)
    return app
