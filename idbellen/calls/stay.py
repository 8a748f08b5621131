"""One caller in one queue, from coming in to the end, for the history; and the ways out of a queue."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idbellen.domain.statistics import CallOutcome, CallRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from idbellen.calls.reach import Party
    from idbellen.domain.queueing import Ticket, WayOut
    from idbellen.ports import CallLog, Clock, Phone


@dataclass(frozen=True, slots=True)
class Exit:
    """Why a caller leaves a queue, and where to."""

    reason: CallOutcome
    way: WayOut
    ticket: Ticket


class Stay:
    """One caller in one queue, for the history."""

    def __init__(self, ticket: Ticket, now: float) -> None:
        self.ticket = ticket
        self.arrived = now
        self.outcome: CallOutcome | None = None
        self._agent: str | None = None
        self._answered = 0.0

    def answered(self, party: Party, now: float) -> None:
        """Note that an agent has answered, and with which ticket: a supervisor may have changed it."""
        assert party.reservation  # noqa: S101 - agents only
        self.ticket = party.reservation.ticket
        self.outcome = CallOutcome.ANSWERED
        self._agent = party.agent
        self._answered = now

    def record(self, now: float) -> CallRecord:
        """Give what is kept, at its end; without an outcome the caller was cut off or has hung up."""
        answered = self.outcome is CallOutcome.ANSWERED
        return CallRecord(
            call=self.ticket.call,
            queue=self.ticket.queue,
            purpose=self.ticket.purpose,
            verified=self.ticket.verified,
            arrived=self.arrived,
            waited=(self._answered if answered else now) - self.arrived,
            outcome=self.outcome or CallOutcome.ABANDONED,
            agent=self._agent,
            talked=now - self._answered if answered else 0.0,
        )


@contextmanager
def recorded(phone: Phone, ticket: Ticket, calls: CallLog, clock: Clock) -> Iterator[Stay]:
    """Keep a record of the block."""
    stay = Stay(ticket, clock())
    try:
        yield stay
    except asyncio.CancelledError:
        if stay.outcome is None and not phone.gone:
            stay.outcome = CallOutcome.LEFT
        raise
    finally:
        calls.ended(stay.record(clock()))
