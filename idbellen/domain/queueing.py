"""Who is offered to whom: a pure function over the waiting callers and the agents of a moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idbellen.domain.agents import Agent, AgentState

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Ticket:
    """A caller's place in a queue. ``since`` (epoch seconds) stays when an offer comes to nothing.

    ``session``: the session's reference.
    """

    call: str
    session: str
    purpose: str
    queue: str
    since: float

    @property
    def order(self) -> tuple[float, str]:
        """What callers are served by."""
        return self.since, self.call


@dataclass(frozen=True, slots=True)
class Match:
    """A caller and the agent to whom the caller is to be offered."""

    call: str
    agent: str


def match(waiting: Iterable[Ticket], agents: Iterable[Agent], now: float) -> list[Match]:
    """Pair the longest waiting callers with the longest idle agents."""
    callers = sorted(waiting, key=lambda ticket: ticket.order)
    idle = [agent for agent in agents if agent.state is AgentState.AVAILABLE and agent.rests_until <= now]
    idle.sort(key=lambda agent: (agent.idle_since, agent.name))
    return [Match(ticket.call, agent.name) for ticket, agent in zip(callers, idle, strict=False)]


def places(waiting: Iterable[Ticket]) -> dict[str, int]:
    """Give the place of each call in its queue, 1 for who is next."""
    counts: dict[str, int] = {}
    found = {}
    for ticket in sorted(waiting, key=lambda ticket: ticket.order):
        found[ticket.call] = counts[ticket.queue] = counts.get(ticket.queue, 0) + 1
    return found


def next_rested(agents: Iterable[Agent], now: float) -> float | None:
    """Give the time at which the next resting agent can be offered a caller again, if any rests."""
    resting = [a.rests_until for a in agents if a.state is AgentState.AVAILABLE and a.rests_until > now]
    return min(resting, default=None)
