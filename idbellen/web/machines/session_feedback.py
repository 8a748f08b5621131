"""Session feedback: tells auth plugins, at the ``session_url`` of their auth results, that a session is in use or over.

ID Contact and Verder Helpen expect ``POST <session_url>?type=user_active`` and ``?type=logout``. Each request is a
task of its own that a call never waits for; what goes wrong is logged.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import aiohttp
import structlog
from yarl import URL

from idbellen.domain.idcontact import feedback_address, session_url_host
from idbellen.ports import SessionFeedback
from idbellen.telemetry import Repeated

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from idbellen.domain.ids import SessionRef
    from idbellen.ports import Session, SessionStore

log = structlog.get_logger()

# More at once means that auth plugins do not answer: the rest is dropped, and that is logged.
MOST_REQUESTS = 200
STOP_SECONDS = 5.0

Kind = Literal["user_active", "logout"]


@dataclass(frozen=True, slots=True)
class FeedbackRules:
    """To whom feedback may go (``host`` or ``host:port``), and how long one request may take, in seconds."""

    allowed_hosts: Collection[str]
    timeout: float


class HttpFeedback(SessionFeedback):
    """Implements :class:`idbellen.ports.SessionFeedback` over HTTP."""

    def __init__(self, rules: FeedbackRules, sessions: SessionStore) -> None:
        self._rules = rules
        self._sessions = sessions
        self._tasks: set[asyncio.Task[None]] = set()
        self._latest: dict[str, asyncio.Task[None]] = {}
        self._http: aiohttp.ClientSession | None = None
        # Of every call again and again, until somebody changes the configuration.
        self._not_allowed = Repeated(
            "session feedback not sent: put the host into [feedback] allowed_hosts if it is an auth plugin's"
        )

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._rules.timeout)
        self._http = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A logout that is under way is worth some wait, but an auth plugin that hangs does not hold up our stop.
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        self._not_allowed.close()
        if self._http:
            await self._http.close()

    def user_active(self, reference: SessionRef) -> None:
        """Tell that the citizen of the session with this reference is in contact with us."""
        self._begin("user_active", reference, None)

    def logout(self, session: Session) -> None:
        """Tell that the citizen or the agent has ended the session."""
        self._begin("logout", session.reference, session)

    def _begin(self, kind: Kind, reference: SessionRef, session: Session | None) -> None:
        if len(self._tasks) >= MOST_REQUESTS:
            log.error("session feedback dropped: auth plugins do not answer", session=reference, type=kind)
            return
        before = self._latest.get(reference)
        task = asyncio.create_task(self._tell(kind, reference, session, before))
        self._latest[reference] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(
        self, kind: Kind, reference: SessionRef, session: Session | None, before: asyncio.Task[None] | None
    ) -> None:
        try:
            if before:
                # What is told of one session arrives in the order in which it happened.
                await asyncio.wait([before])
            # A late result may have come since the call began, and with it the address.
            told = session or await self._sessions.by_reference(reference)
            if told and told.result and told.result.session_url:
                await self._post(kind, reference, told.result.session_url)
        except Exception as fault:  # noqa: BLE001 - whatever it is, no call shall notice
            log.warning("session feedback failed", session=reference, type=kind, reason=type(fault).__name__)
        finally:
            if self._latest.get(reference) is asyncio.current_task():
                del self._latest[reference]

    async def _post(self, kind: Kind, reference: SessionRef, session_url: str) -> None:
        assert self._http is not None, "used outside its context"  # noqa: S101
        # Neither the address nor what a plugin answers goes into the log: both may tell something of the citizen.
        host = session_url_host(session_url)
        if host not in self._rules.allowed_hosts:
            self._not_allowed(session=reference, host=host)
            return
        url = URL(feedback_address(session_url, kind), encoded=True)
        async with self._http.post(url, allow_redirects=False) as answer:
            if answer.status != 200:  # noqa: PLR2004 - what the protocol says
                log.warning("session feedback refused", session=reference, type=kind, status=answer.status)
                return
        log.info("session feedback", session=reference, type=kind)
