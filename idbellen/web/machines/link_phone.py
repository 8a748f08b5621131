"""Two addresses for any other telephone platform, as the proof of concept offers them: off unless they are configured.

``POST /link_phone`` exchanges the keys that a caller pressed, ``GET /session_info/{sessionid}`` then gives what is
known of that caller. Unlike there, whoever asks must show credentials, guesses are limited, a code counts once, a
result that comes late is seen at the next question, and a failed login is told as such.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from idbellen.calls.audit import on_record
from idbellen.domain.codes import new_secret
from idbellen.domain.digits import code_in
from idbellen.domain.idcontact import Admission, AuthStatus, admission
from idbellen.domain.ids import CallId, Secret
from idbellen.domain.lockout import Lockout, Try
from idbellen.ports import StoreError
from idbellen.web.forms import read_text
from idbellen.web.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.ports import AuditTrail, Clock, Session, SessionStore
    from idbellen.web.credentials import Credentials

log = structlog.get_logger()

MOST_LINKS = 10_000
LARGEST_BODY = 4096
LONGEST_SESSIONID = 128
LONGEST_DTMF = 64
EVERYBODY = "everybody"
# The call under which a session is held is named after the platform's, and never a call of ours.
CALL_PREFIX = "link "
# As the audit trail calls the platform.
ACTOR = "telephone platform"


@dataclass(frozen=True, slots=True)
class LinkPhoneSite:
    """What the two addresses need. ``purposes``: whether each lets in who did not log in; ``digits``: of a code.

    ``tries``: so many wrong codes may come with one sessionid; ``keep``: how long a caller is known, in seconds.
    """

    credentials: Credentials
    sessions: SessionStore
    audit: AuditTrail
    purposes: Mapping[str, bool]
    digits: int
    tries: int
    keep: float
    clock: Clock


class LinkRequest(BaseModel):
    """What the platform sends: the keys that a caller pressed, and its own name for the call."""

    model_config = ConfigDict(strict=True)

    dtmf: str = field(repr=False)
    sessionid: str


@dataclass(frozen=True, slots=True)
class _Link:
    secret: Secret = field(repr=False)
    until: float


def link_phone_app(site: LinkPhoneSite) -> web.Application:
    """Build the interface."""
    app = web.Application(client_max_size=LARGEST_BODY)
    Guard(site.credentials).protect(app)
    handlers = _Handlers(site)
    app.router.add_post("/link_phone", handlers.link_phone)
    app.router.add_get("/session_info/{sessionid}", handlers.session_info)
    app.on_cleanup.append(handlers.close)
    return app


class _Handlers:
    def __init__(self, site: LinkPhoneSite) -> None:
        self._site = site
        self._links: OrderedDict[str, _Link] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self._by_session = Lockout(tries=site.tries, wait=60.0, longest=900.0, forget=900.0)
        # A platform that guesses under ever new names is slowed down as a whole.
        # A right code pays for two wrong ones, so callers who mistype do not, and one right code does not open it.
        self._together = Lockout(tries=max(20, 5 * site.tries), wait=1.0, longest=30.0, forget=30.0, forgives=2.0)

    async def close(self, _: web.Application) -> None:
        for sessionid in list(self._links):
            await self._unlink(sessionid)

    async def link_phone(self, request: web.Request) -> web.Response:
        """Exchange a code for a link with the platform's call; 403 for a wrong, a used and an expired one alike."""
        try:
            asked = LinkRequest.model_validate_json(await read_text(request))
        except ValidationError:
            raise web.HTTPBadRequest from None
        sessionid, code = asked.sessionid, code_in(asked.dtmf)
        if not 0 < len(sessionid) <= LONGEST_SESSIONID or len(asked.dtmf) > LONGEST_DTMF:
            raise web.HTTPBadRequest
        async with self._one_at_a_time:
            attempt = Try((self._by_session, sessionid), (self._together, EVERYBODY))
            wait = attempt.begin(self._site.clock())
            if wait:
                raise web.HTTPTooManyRequests(headers={"Retry-After": str(math.ceil(wait))})
            end = attempt.failed
            try:
                if not await self._claim(sessionid, code):
                    log.info("code", accepted=False)
                    raise web.HTTPForbidden
                end = attempt.succeeded
            except StoreError:
                end = attempt.withdrawn
                raise
            finally:
                end(self._site.clock())
        log.info("code", accepted=True)
        return web.json_response({})

    async def _claim(self, sessionid: str, code: str) -> bool:
        if len(code) != self._site.digits:
            return False
        await self._unlink_old()
        # A platform that asks again for the same call has its caller start anew.
        await self._unlink(sessionid)
        secret, now = new_secret(), self._site.clock()
        session = await self._site.sessions.claim(code, call=_call(sessionid), secret=secret, now=now)
        if session is None:
            return False
        admit = self._site.purposes.get(session.purpose, False)
        if admission(session.result, admit_unverified=admit) is Admission.REFUSE:
            await self._site.sessions.release(_call(sessionid))
            return False
        self._links[sessionid] = _Link(secret, now + self._site.keep)
        return True

    async def session_info(self, request: web.Request) -> web.Response:
        """Give what is known of the caller in a call of the platform's."""
        link = self._links.get(request.match_info["sessionid"])
        session = None
        if link and link.until > self._site.clock():
            session = await self._site.sessions.by_secret(link.secret)
        if session is None:
            raise web.HTTPNotFound
        result = _result(session)
        if result and result["attributes"]:
            names = ",".join(sorted(result["attributes"]))
            await on_record(self._site.audit, ACTOR, "attributes shown", session.reference, attributes=names)
        return web.json_response({"purpose": session.purpose, "auth_result": result})

    async def _unlink_old(self) -> None:
        now = self._site.clock()
        while self._links and (len(self._links) >= MOST_LINKS or next(iter(self._links.values())).until <= now):
            await self._unlink(next(iter(self._links)))

    async def _unlink(self, sessionid: str) -> None:
        if self._links.pop(sessionid, None):
            await self._site.sessions.finish(_call(sessionid))


def _call(sessionid: str) -> CallId:
    return CallId(CALL_PREFIX + sessionid)


def _result(session: Session) -> dict[str, Any] | None:
    result = session.result
    if result is None:
        return None
    attributes = result.attributes if result.status is AuthStatus.SUCCESS else {}
    return {"status": result.status.value, "attributes": attributes}
