"""The internal interface: ID Contact's core starts a communication, auth plugins deliver auth results.

It has its own address, which citizens and agents cannot reach. The shapes of requests, answers and errors are
those of the reference implementation of ID Contact; ``docs/openapi.yaml`` describes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from idbellen.domain.codes import new_handle
from idbellen.domain.idcontact import (
    LARGEST_TOKEN,
    Admission,
    TokenRefusedError,
    admission,
    loggable,
)
from idbellen.domain.ids import SessionRef
from idbellen.ports import Attached, Session
from idbellen.telemetry import Repeated
from idbellen.web.forms import read_text
from idbellen.web.guard import Guard, is_about
from idbellen.web.issuing import NoFreeCodeError, dial_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.calls.results import Results
    from idbellen.domain.idcontact import Received
    from idbellen.ports import Clock, SessionStore
    from idbellen.web.credentials import Credentials
    from idbellen.web.issuing import CodeIssuer
    from idbellen.web.purposes import ClientUrl, Purpose

log = structlog.get_logger()

LARGEST_BODY = LARGEST_TOKEN + 4096
LARGEST_PURPOSE = 256
# A core that offers both ways to call as two methods reaches each under an address of its own.
WAYS: Mapping[str, ClientUrl | None] = {"": None, "/page": "page", "/tel": "tel"}


@dataclass(frozen=True, slots=True)
class InternalSite:
    """What the interface needs. ``url``: its address for auth plugins; ``page_url``: the citizen's page.

    ``default_purpose``: what an unknown purpose is taken for; None refuses it.
    """

    url: str
    page_url: str
    purposes: Mapping[str, Purpose]
    default_purpose: str | None
    credentials: Credentials
    sessions: SessionStore
    issuer: CodeIssuer
    results: Results
    clock: Clock


class StartCommunication(BaseModel):
    """The core's request. Fields that a later protocol adds are let pass."""

    model_config = ConfigDict(strict=True)

    purpose: str
    auth_result: str | None = None


def internal_app(site: InternalSite) -> web.Application:
    """Build the interface."""
    app = web.Application(client_max_size=LARGEST_BODY)
    credentials = site.credentials

    def guarded(request: web.Request) -> bool:
        return bool(credentials.accepted) and (credentials.protect == "all" or "handle" not in request.match_info)

    Guard(credentials, guarded).protect(app)
    handlers = _Handlers(site)
    for way, client_url in WAYS.items():
        start = partial(handlers.start_communication, client_url)
        app.router.add_post(f"{way}/start_communication", start)
        # Of a core whose configuration has a slash at the end of our address.
        app.router.add_post(f"{way}//start_communication", start)
    app.router.add_post("/auth_result/{handle}", handlers.auth_result)
    app.on_cleanup.append(handlers.close)
    return app


class _Handlers:
    def __init__(self, site: InternalSite) -> None:
        self._site = site
        # Handles that nobody can guess are seldom wrong; addresses that are over can be asked for ever so often.
        self._over = Repeated(
            "auth result refused",
            reason="there is no such session: it is over, or attr_url was changed",
        )

    async def close(self, _: web.Application) -> None:
        self._over.close()

    async def start_communication(self, wanted: ClientUrl | None, request: web.Request) -> web.Response:
        start = await self._read_start(request)
        is_about(request, purpose=loggable([start.purpose]))
        tag, purpose = self._purpose(start.purpose)
        is_about(request, purpose=tag)
        received = None if start.auth_result is None else self._receive(start.auth_result, tag)
        session = Session(SessionRef(new_handle()), tag, received.result if received else None)
        attr_handle, page_handle = new_handle(), new_handle()
        kept = await self._site.sessions.start(
            session, attr_handle=attr_handle, page_handle=page_handle, now=self._site.clock(), received=received
        )
        if not kept:
            raise web.HTTPBadRequest(text="auth result refused: replayed")
        log.info("session started", session=session.reference, purpose=tag)
        if received:
            self._site.results.kept(session, received)
        answer = {"client_url": f"{self._site.page_url}/start/{page_handle}"}
        if (wanted or purpose.client_url) == "tel" and self._may_dial(session, purpose):
            try:
                issued = await self._site.issuer.issue(session.reference)
            except NoFreeCodeError as fault:
                log.error("no session started", purpose=tag, reason=str(fault))  # noqa: TRY400 - no fault of the program
                raise web.HTTPServiceUnavailable from None
            answer = {"client_url": dial_address(purpose.phone_number, issued.code)}
        if received is None:
            answer["attr_url"] = f"{self._site.url}/auth_result/{attr_handle}"
        return web.json_response(answer)

    async def _read_start(self, request: web.Request) -> StartCommunication:
        try:
            start = StartCommunication.model_validate_json(await read_text(request))
        except ValidationError:
            raise web.HTTPBadRequest(text='expected {"purpose": "...", "auth_result": "..." if there is one}') from None
        if len(start.purpose) > LARGEST_PURPOSE:
            raise web.HTTPBadRequest(text=f"purpose: longer than {LARGEST_PURPOSE} characters")
        return start

    def _purpose(self, wanted: str) -> tuple[str, Purpose]:
        tag = wanted if wanted in self._site.purposes else self._site.default_purpose
        if tag is None:
            raise web.HTTPBadRequest(text="unknown purpose: it is not in idbellen's configuration")
        if tag != wanted:
            log.info("unknown purpose taken for another", purpose=tag, asked=loggable([wanted]))
        return tag, self._site.purposes[tag]

    def _may_dial(self, session: Session, purpose: Purpose) -> bool:
        """Whether the citizen has use for a number and a code; if not, our page says why."""
        verdict = admission(session.result, admit_unverified=purpose.admit_unverified)
        return verdict is not Admission.REFUSE and purpose.hours.open_at(self._site.clock())

    async def auth_result(self, request: web.Request) -> web.Response:
        session = await self._site.sessions.by_attr_handle(request.match_info["handle"])
        if session is None:
            self._over()
            raise web.HTTPNotFound
        is_about(request, session=session.reference, purpose=session.purpose)
        if request.content_type != "application/jwt":
            raise web.HTTPBadRequest(text="expected Content-Type: application/jwt")
        received = self._receive((await read_text(request)).strip(), session.purpose)
        match await self._site.results.attach(session, received):
            case Attached.REPLAYED:
                raise web.HTTPBadRequest(text="auth result refused: replayed")
            case Attached.SECOND:
                raise web.HTTPConflict
        return web.Response()

    def _receive(self, token: str, purpose: str) -> Received:
        try:
            return self._site.results.receive(token, purpose)
        except TokenRefusedError as fault:
            raise web.HTTPBadRequest(text=f"auth result refused: {fault}") from None
