"""The stand-in of ID Contact's core, with the website of a municipality that does not exist.

It starts the communication plugin (idbellen) and the authentication plugin as the core does: see the
repositories ``core`` and ``docs`` of ID Contact. Citizens choose no authentication method here: there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError
from yarl import URL

from idbellen.demo.texts import WebAddress, form_field, language_of, new_app, page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = structlog.get_logger()

ANSWER_SECONDS = 5.0
DELIVERIES = ("attr_url", "result")


@dataclass(frozen=True, slots=True)
class Purpose:
    """A reason to call: its name in the protocol, its names on the page, and the attributes it needs."""

    tag: str
    title_nl: str
    title_en: str
    attributes: tuple[str, ...]

    def title(self, language: str) -> str:
        """Give the name on a page in this language."""
        return self.title_nl if language == "nl" else self.title_en


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Where idbellen's internal API and the authentication plugin's answer, and what citizens can choose."""

    plugin_url: str
    auth_url: str
    purposes: tuple[Purpose, ...]


class _Communication(BaseModel):
    client_url: WebAddress
    attr_url: WebAddress


class _Authentication(BaseModel):
    client_url: WebAddress


_Answer = TypeVar("_Answer", _Communication, _Authentication)


class _AwayError(Exception):
    """A service did not answer, or not properly; the message gives the reason."""


class _Core:
    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._purposes = {purpose.tag: purpose for purpose in settings.purposes}
        self._http: aiohttp.ClientSession

    async def client(self, _app: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as self._http:
            yield

    async def show_start(self, request: web.Request) -> web.Response:
        return self._start_page(request)

    def _start_page(self, request: web.Request, *, purpose_missing: bool = False) -> web.Response:
        language = language_of(request)
        return page(
            request,
            "core_start.html",
            status=400 if purpose_missing else 200,
            here="/",
            purposes=[(purpose.tag, purpose.title(language)) for purpose in self._settings.purposes],
            deliveries=DELIVERIES,
            purpose_missing=purpose_missing,
        )

    async def start(self, request: web.Request) -> web.Response:
        purpose = self._purposes.get(await form_field(request, "purpose"))
        if purpose is None:
            return self._start_page(request, purpose_missing=True)
        delivery = await form_field(request, "delivery") or DELIVERIES[0]
        if delivery not in DELIVERIES:
            raise web.HTTPBadRequest(text="unknown delivery")
        step = "plugin"
        try:
            communication = await self._ask(
                self._settings.plugin_url, "start_communication", {"purpose": purpose.tag}, _Communication
            )
            step = "auth"
            wish: dict[str, object] = {
                "attributes": list(purpose.attributes),
                "continuation": communication.client_url,
            }
            if delivery == "attr_url":
                wish["attr_url"] = communication.attr_url
            login = await self._ask(self._settings.auth_url, "start_authentication", wish, _Authentication)
        except _AwayError as fault:
            log.warning("demo.core.away", service=step, purpose=purpose.tag, reason=str(fault))
            return page(
                request,
                "message.html",
                status=502,
                here="/",
                site="core.html",
                title="away_title",
                sentence=f"away_{step}",
                retry="/",
            )
        raise web.HTTPSeeOther(URL(login.client_url, encoded=True))

    async def _ask(self, base: str, call: str, body: dict[str, object], answer: type[_Answer]) -> _Answer:
        try:
            async with self._http.post(f"{base.rstrip('/')}/{call}", json=body, allow_redirects=False) as response:
                if response.status != web.HTTPOk.status_code:
                    raise _AwayError(f"status {response.status}")
                return answer.model_validate_json(await response.read())
        except TimeoutError:
            raise _AwayError(f"no answer within {ANSWER_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as fault:
            raise _AwayError(type(fault).__name__) from None
        except ValidationError as fault:
            # What it answered may hold a session's secret addresses: only say where it is wrong.
            wrong = {".".join(map(str, error["loc"])) or "body" for error in fault.errors()}
            raise _AwayError(f"wrong in the answer: {', '.join(sorted(wrong))}") from None


def core_app(settings: CoreSettings) -> web.Application:
    """Make the application: ``GET /`` is the municipality's start page, its form goes to ``POST /start``.

    ``delivery`` in that form is how the auth result gets to idbellen: ``attr_url`` (server to server) or
    ``result`` (with the citizen's browser; then the authentication plugin gets no ``attr_url``).
    """
    core = _Core(settings)
    app = new_app()
    app.cleanup_ctx.append(core.client)
    app.router.add_get("/", core.show_start)
    app.router.add_post("/start", core.start)
    return app
