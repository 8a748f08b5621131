"""One caller in one queue, from coming in to the end, for the history; and the ways out of a queue."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idbellen.domain.statistics import CallOutcome, CallRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from idbellen.calls.notes import Notes
    from idbellen.domain.ids import AgentName
    from idbellen.domain.queueing import Ticket, WayOut
    from idbellen.ports import CallLog, Clock


@dataclass(frozen=True, slots=True)
class Exit:
    """Why a caller leaves a queue, and where to."""

    reason: CallOutcome
    way: WayOut
    ticket: Ticket


class Stay:
    """One caller in one queue, for the history."""

    def __init__(self, ticket: Ticket, arrived: float) -> None:
        self.ticket = ticket
        self.arrived = arrived
        self.outcome: CallOutcome | None = None
        self._agent: AgentName | None = None
        self.answered_at = 0.0

    def answered(self, agent: AgentName | None, ticket: Ticket, now: float) -> None:
        """Note that an agent has answered, and with which ticket: a supervisor may have changed it."""
        self.ticket = ticket
        self.outcome = CallOutcome.ANSWERED
        self._agent = agent
        self.answered_at = now

    def record(self, now: float) -> CallRecord:
        """Give what is kept, at its end; without an outcome the caller was cut off or has hung up."""
        answered = self.outcome is CallOutcome.ANSWERED
        return CallRecord(
            call=self.ticket.call,
            queue=self.ticket.queue,
            purpose=self.ticket.purpose,
            verified=self.ticket.verified,
            arrived=self.arrived,
            waited=(self.answered_at if answered else now) - self.arrived,
            outcome=self.outcome or CallOutcome.ABANDONED,
            agent=self._agent,
            talked=now - self.answered_at if answered else 0.0,
        )


@contextmanager
def recorded(ticket: Ticket, calls: CallLog, notes: Notes, clock: Clock, *, arrived: float) -> Iterator[Stay]:
    """Keep a record of the block, which began when the caller arrived; not of what the next process goes on with."""
    stay = Stay(ticket, arrived)
    try:
        yield stay
    except Exception:
        # A fault of ours, which sends the caller to the plain queue.
        stay.outcome = stay.outcome or CallOutcome.LEFT
        raise
    finally:
        if not notes.handed_over:
            calls.ended(stay.record(clock()))
