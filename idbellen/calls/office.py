"""What every call is told with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from idbellen.domain.idcontact import AuthStatus
from idbellen.domain.queueing import Ticket, WithoutCode
from idbellen.domain.whereabouts import MAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from idbellen.calls.desk import Desk
    from idbellen.calls.ends import Ends
    from idbellen.calls.notes import Notes
    from idbellen.calls.progress import Progress
    from idbellen.domain.digits import EntryRules
    from idbellen.domain.hours import OpeningHours
    from idbellen.domain.ids import CallId, QueueName
    from idbellen.ports import CallLog, Clock, Session, SessionFeedback, SessionStore

ActiveMoment = Literal["code_accepted", "connected"]


@dataclass(frozen=True, slots=True)
class PurposeRules:
    """What a purpose means for a call: its queue, whether it lets in who did not log in, and its priority there."""

    queue: QueueName
    admit_unverified: bool
    priority: int = 0


@dataclass(frozen=True, slots=True)
class CallRules:
    """What a call may take; times in seconds. ``unverified``: the way out for callers without a right code.

    ``without_code``: the way of those who say that they have none; None: they cannot say so, as ``entry`` knows too.
    ``late``: how long a caller waits for an auth result that is still to come. ``language``: of the prompts.
    ``active_moments`` and ``active_every``: when the auth plugin is told that its session is in use. ``outside``:
    gives the endpoint over which an outside number is rung.
    """

    entry: EntryRules
    tries: int
    unverified: Literal["plain", "goodbye"]
    without_code: WithoutCode | None
    late: float
    language: str
    active_moments: frozenset[ActiveMoment]
    active_every: float
    outside: Callable[[str], str]
    purposes: Mapping[str, PurposeRules]


@dataclass(frozen=True, slots=True)
class Office:
    """What every call is told with: the rules, the sessions, the desk, the citizens' pages and the time.

    ``hours``: of every queue. ``notes``: of what is in hand, for the next process. ``ends``: tells the store.
    """

    rules: CallRules
    hours: Mapping[QueueName, OpeningHours]
    sessions: SessionStore
    desk: Desk
    progress: Progress
    feedback: SessionFeedback
    calls: CallLog
    notes: Notes
    ends: Ends
    clock: Clock

    def ticket(self, call: CallId, session: Session, server: str = MAIN) -> Ticket:
        """Give the ticket of a caller whose code was right just now, for the queue of the session's purpose."""
        rules = self.rules.purposes[session.purpose]
        verified = session.result is not None and session.result.status is AuthStatus.SUCCESS
        return Ticket(
            call, session.reference, session.purpose, rules.queue, self.clock(), verified, rules.priority, server=server
        )
