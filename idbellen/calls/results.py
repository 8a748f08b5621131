"""The one way in which an auth result is taken in, whoever brings it: the core, an auth plugin or the citizen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

import structlog

from idbellen.domain.idcontact import loggable
from idbellen.ports import Attached

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from idbellen.calls.progress import Progress
    from idbellen.domain.idcontact import Received, TokenOpener
    from idbellen.ports import Clock, Session, SessionStore

log = structlog.get_logger()

SECOND = "the session has one already"


@dataclass(frozen=True, slots=True)
class Results:
    """Opens auth results, keeps them, and tells who waits for one.

    ``attributes``: those that each purpose keeps. ``clock``: what the times in auth results are held against, which
    others wrote.
    """

    opener: TokenOpener
    sessions: SessionStore
    progress: Progress
    attributes: Mapping[str, Collection[str]]
    clock: Clock

    def receive(self, token: str, purpose: str) -> Received:
        """Open a token as it comes in, and leave out what its purpose does not need.

        Raises:
            TokenRefusedError: it is not a valid auth result at this moment.

        """
        received = self.opener.receive(token, self.clock())
        return replace(received, result=received.result.with_only(self.attributes[purpose]))

    async def attach(self, session: Session, received: Received) -> Attached:
        """Keep a result if it is the session's first and was never accepted before; whoever waits for it is told."""
        attached = await self.sessions.attach_result(session.reference, received)
        match attached:
            case Attached.REPLAYED:
                self.refused(session, "replayed")
            case Attached.SECOND:
                self.refused(session, SECOND)
            case Attached.KEPT:
                self.kept(session, received)
                self.progress.result_arrived(session.reference, received.result)
            case _:
                assert_never(attached)
        return attached

    def kept(self, session: Session, received: Received) -> None:
        """Log that a result came, and which of the attributes that its purpose expects did not come with it."""
        about = {"session": session.reference, "purpose": session.purpose}
        log.info("auth result received", **about, status=received.result.status.value)
        expected = self.attributes[session.purpose]
        missing = received.result.missing(expected)
        if missing:
            log.warning(
                "attributes missing: compare the names in [purposes] attributes with those that the core asks for",
                **about,
                missing=",".join(missing),
                expected=",".join(expected),
                came=loggable(received.came),
            )

    def refused(self, session: Session, reason: str) -> None:
        """Log that a result was refused; the reason holds nothing of it."""
        log.warning("auth result refused", session=session.reference, purpose=session.purpose, reason=reason)
