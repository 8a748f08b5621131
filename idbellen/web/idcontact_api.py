"""The internal interface: ID Contact's core starts a communication, auth plugins deliver auth results.

It has its own address, which citizens and agents cannot reach. The shapes of requests, answers and errors are
those of the reference implementation of ID Contact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from idbellen.domain.codes import new_handle
from idbellen.domain.idcontact import LARGEST_TOKEN, TokenOpener, TokenRefusedError
from idbellen.ports import Session

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiohttp.typedefs import Handler

    from idbellen.ports import Clock, SessionStore

log = structlog.get_logger()

LARGEST_BODY = LARGEST_TOKEN + 4096


@dataclass(frozen=True, slots=True)
class InternalSite:
    """What the interface needs. ``url``: its address for auth plugins; ``page_url``: the citizen's page."""

    url: str
    page_url: str
    purposes: Collection[str]
    sessions: SessionStore
    opener: TokenOpener
    clock: Clock


class StartCommunication(BaseModel):
    """The core's request. Fields that a later protocol adds are let pass."""

    model_config = ConfigDict(strict=True)

    purpose: str
    auth_result: str | None = None


def internal_app(site: InternalSite) -> web.Application:
    """Build the interface."""
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_json_errors])
    handlers = _Handlers(site)
    app.router.add_post("/start_communication", handlers.start_communication)
    app.router.add_post("/auth_result/{handle}", handlers.auth_result)
    return app


class _BadRequestError(Exception):
    """The request is refused; the message is the detail of the answer."""


@web.middleware
async def _json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except _BadRequestError as fault:
        # The path can hold a handle, so the log names the route.
        log.warning("request refused", route=_route(request), reason=str(fault))
        return web.json_response({"error": "BadRequest", "detail": str(fault)}, status=400)
    except web.HTTPNotFound:
        return web.json_response({"error": "NotFound"}, status=404)
    except web.HTTPException as fault:
        return web.json_response({"error": fault.reason.replace(" ", "")}, status=fault.status)
    except Exception:
        log.exception("request failed", route=_route(request))
        return web.json_response({"error": "InternalError"}, status=500)


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unknown"


class _Handlers:
    def __init__(self, site: InternalSite) -> None:
        self._site = site

    async def start_communication(self, request: web.Request) -> web.Response:
        try:
            start = StartCommunication.model_validate_json(await request.text())
        except (ValidationError, UnicodeDecodeError):
            raise _BadRequestError('expected {"purpose": "...", "auth_result": "..." if there is one}') from None
        if start.purpose not in self._site.purposes:
            raise _BadRequestError("unknown purpose: it is not in idbellen's configuration")
        now = self._site.clock()
        if start.auth_result is not None:
            self._verify(start.auth_result, now)
        session = Session(new_handle(), start.purpose, start.auth_result)
        attr_handle, page_handle = new_handle(), new_handle()
        await self._site.sessions.start(session, attr_handle=attr_handle, page_handle=page_handle, now=now)
        log.info("session started", session=session.reference, purpose=session.purpose)
        answer = {"client_url": f"{self._site.page_url}/start/{page_handle}"}
        if start.auth_result is None:
            answer["attr_url"] = f"{self._site.url}/auth_result/{attr_handle}"
        return web.json_response(answer)

    async def auth_result(self, request: web.Request) -> web.Response:
        session = await self._site.sessions.by_attr_handle(request.match_info["handle"])
        if session is None:
            raise web.HTTPNotFound
        if request.content_type != "application/jwt":
            raise _BadRequestError("expected Content-Type: application/jwt")
        try:
            token = (await request.text()).strip()
        except UnicodeDecodeError:
            raise _BadRequestError("auth result refused: not text") from None
        self._verify(token, self._site.clock())
        if not await self._site.sessions.attach_result(session.reference, token):
            log.warning("second auth result refused", session=session.reference)
            raise web.HTTPConflict
        log.info("auth result received", session=session.reference)
        return web.Response()

    def _verify(self, token: str, now: float) -> None:
        try:
            self._site.opener.receive(token, now)
        except TokenRefusedError as fault:
            raise _BadRequestError(f"auth result refused: {fault}") from None
