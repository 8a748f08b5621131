"""Who is offered to whom: pure functions over the waiting callers, the agents and the rules of a moment."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, assert_never

from idbellen.domain.agents import Agent, AgentState
from idbellen.domain.ids import AgentName, CallId, QueueName, SessionRef
from idbellen.domain.statistics import CallOutcome
from idbellen.domain.whereabouts import MAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet


class Strategy(enum.Enum):
    """Whom of the agents with the lowest penalty a caller is offered to. The value is the configuration's."""

    LONGEST_IDLE = "longest-idle"
    ROUND_ROBIN = "round-robin"
    RING_ALL = "ring-all"


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A caller whom a queue cannot take or keep hears why, and a goodbye."""

    kind: ClassVar[str] = "goodbye"


@dataclass(frozen=True, slots=True)
class Plain:
    """Such a caller goes to the dialplan's own queue."""

    kind: ClassVar[str] = "plain"


@dataclass(frozen=True, slots=True)
class ToQueue:
    """Such a caller goes to another queue; to the plain one if the caller has been there already."""

    queue: QueueName
    kind: ClassVar[str] = "queue"


@dataclass(frozen=True, slots=True)
class ToExtension:
    """Such a caller goes to an extension of the dialplan."""

    context: str
    extension: str
    priority: int
    kind: ClassVar[str] = "extension"


@dataclass(frozen=True, slots=True)
class ForPurpose:
    """A caller without a code is served as somebody who is not verified and calls for this purpose."""

    purpose: str


WithoutCode = Goodbye | Plain | ForPurpose
WayOut = Goodbye | Plain | ToQueue | ToExtension
USUAL_WAYS_OUT: Mapping[CallOutcome, WayOut] = MappingProxyType({CallOutcome.CLOSED: Goodbye()})


def parse_way_out(text: str) -> WayOut:
    """Give the way out that is written so.

    Raises:
        ValueError: it is none; the message says what could be written.

    """
    kind, _, target = text.partition(":")
    if text == Goodbye.kind:
        return Goodbye()
    if text == Plain.kind:
        return Plain()
    if kind == ToQueue.kind and re.fullmatch(r"[A-Za-z0-9_.-]+", target):
        return ToQueue(QueueName(target))
    if kind == ToExtension.kind and re.fullmatch(r"[^,\s]+,[^,\s]+,[0-9]+", target):
        context, extension, priority = target.split(",")
        return ToExtension(context, extension, int(priority))
    raise ValueError('"goodbye", "plain", "queue:NAME" or "extension:CONTEXT,EXTENSION,PRIORITY"')


def parse_without_code(text: str) -> WithoutCode | None:
    """Give where a caller without a code goes; None where no key asks for that.

    Raises:
        ValueError: it is none of them; the message says what could be written.

    """
    ways: dict[str, WithoutCode | None] = {"off": None, Goodbye.kind: Goodbye(), Plain.kind: Plain()}
    kind, _, purpose = text.partition(":")
    if kind == "purpose" and purpose:
        return ForPurpose(purpose)
    if text not in ways:
        raise ValueError('"plain", "goodbye", "purpose:NAME" or "off"')
    return ways[text]


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What holds in a queue. Times in seconds; 0 is no limit, or not at all.

    ``length``: how many may wait; ``longest``: how long; ``announce``: every so often the place is told again, and
    ``comfort``: a friendly sentence. ``music``: a class of Asterisk's music on hold; empty for the usual one.
    ``answered_within``: the target that the service level counts against. ``ways_out``: where callers go whom it cannot
    take or keep, by the reason; without one for UNSTAFFED they wait although nobody is there.
    """

    strategy: Strategy = Strategy.LONGEST_IDLE
    verified_first: bool = True
    wrap_up: float = 0.0
    longest: float = 0.0
    length: int = 0
    announce: float = 60.0
    comfort: float = 0.0
    music: str = ""
    answered_within: float = 25.0
    ways_out: Mapping[CallOutcome, WayOut] = field(default_factory=dict)

    def way_out(self, reason: CallOutcome) -> WayOut:
        """Give where a caller goes whom the queue cannot take or keep for this reason."""
        return self.ways_out.get(reason, USUAL_WAYS_OUT.get(reason, Plain()))


@dataclass(frozen=True, slots=True)
class Ticket:
    """A caller's place in a queue. ``since`` (epoch seconds) stays when an offer comes to nothing.

    ``session``: the session's reference. ``priority``: higher goes first. ``ahead``: set by a supervisor, higher
    goes before everybody else. ``asker``: the agent who waits here, to consult somebody, while the caller holds.
    ``server``: the Asterisk that the caller is on, empty for one who is not on the phone.
    """

    call: CallId
    session: SessionRef
    purpose: str
    queue: QueueName
    since: float
    verified: bool = True
    priority: int = 0
    ahead: int = 0
    asker: AgentName | None = None
    server: str = MAIN

    def order(self, *, verified_first: bool) -> tuple[int, bool, int, float, CallId]:
        """Give what callers are served by: the smallest first."""
        return -self.ahead, verified_first and not self.verified, -self.priority, self.since, self.call


@dataclass(frozen=True, slots=True)
class Match:
    """A caller and the agents to whom the caller is to be offered: one, or with ``ring-all`` several at once."""

    call: CallId
    agents: tuple[AgentName, ...]


@dataclass(frozen=True, slots=True)
class Queues:
    """The rules of all queues by name; one without a table has the ordinary rules."""

    rules: Mapping[QueueName, QueueRules] = field(default_factory=dict)

    def __getitem__(self, name: QueueName) -> QueueRules:
        """Give the rules of a queue."""
        return self.rules.get(name, _ORDINARY)

    def in_order(self, waiting: Iterable[Ticket]) -> list[Ticket]:
        """Sort callers as they are served, each queue by its own rules."""
        tickets = list(waiting)
        first = {queue: self[queue].verified_first for queue in {ticket.queue for ticket in tickets}}
        return sorted(tickets, key=lambda ticket: ticket.order(verified_first=first[ticket.queue]))


_ORDINARY = QueueRules()


def match(
    waiting: Iterable[Ticket],
    agents: Iterable[Agent],
    queues: Queues,
    now: float,
    in_use: AbstractSet[str] = frozenset(),
) -> list[Match]:
    """Pair callers, in order, each with the agents of the lowest penalty who are free for this queue.

    Agents may share a phone: of them one is offered a caller at a time, and none while it is ``in_use`` for another.
    """
    free = {agent.name: agent for agent in agents if agent.free(now) and in_use.isdisjoint(agent.phones)}
    if not free:
        return []
    found = []
    for ticket in queues.in_order(waiting):
        if not free:
            break
        chosen = _choose(ticket, list(free.values()), queues[ticket.queue].strategy)
        if chosen:
            found.append(Match(ticket.call, tuple(agent.name for agent in chosen)))
            taken = {phone for agent in chosen for phone in agent.phones}
            free = {name: agent for name, agent in free.items() if taken.isdisjoint(agent.phones)}
    return found


def _choose(ticket: Ticket, free: Sequence[Agent], strategy: Strategy) -> list[Agent]:
    ranked = [
        (penalty, agent)
        for agent in free
        if agent.name != ticket.asker and (penalty := agent.penalty(ticket.queue)) is not None
    ]
    if not ranked:
        return []
    lowest = min(penalty for penalty, _ in ranked)
    best = [agent for penalty, agent in ranked if penalty == lowest]
    match strategy:
        case Strategy.RING_ALL:
            return _with_phones_of_their_own(sorted(best, key=lambda agent: (agent.idle_since, agent.name)))
        case Strategy.ROUND_ROBIN:
            return [min(best, key=lambda agent: (agent.offered_at, agent.name))]
        case Strategy.LONGEST_IDLE:
            return [min(best, key=lambda agent: (agent.idle_since, agent.name))]
        case _:
            assert_never(strategy)


def _with_phones_of_their_own(agents: Iterable[Agent]) -> list[Agent]:
    """Leave out who shares a phone with somebody before them; gives the others by name."""
    chosen: list[Agent] = []
    taken: set[str] = set()
    for agent in agents:
        if taken.isdisjoint(agent.phones):
            chosen.append(agent)
            taken.update(agent.phones)
    return sorted(chosen, key=lambda agent: agent.name)


def places(waiting: Iterable[Ticket], queues: Queues) -> dict[CallId, int]:
    """Give the place of each caller in the caller's queue, 1 for whoever is next."""
    counts: dict[QueueName, int] = {}
    found = {}
    for ticket in queues.in_order(waiting):
        found[ticket.call] = counts[ticket.queue] = counts.get(ticket.queue, 0) + 1
    return found


def next_rested(agents: Iterable[Agent], now: float) -> float | None:
    """Give the time at which the next resting agent can be offered a caller again, if any rests."""
    resting = [a.rests_until for a in agents if a.state is AgentState.AVAILABLE and a.rests_until > now]
    return min(resting, default=None)


def staffed(queue: QueueName, agents: Iterable[Agent]) -> bool:
    """Whether anybody is logged in who serves a queue; a pause does not count as gone."""
    return any(agent.state is not AgentState.OFFLINE and agent.penalty(queue) is not None for agent in agents)


def entry(
    queue: QueueName, waiting: int, rules: QueueRules, agents: Iterable[Agent], *, is_open: bool
) -> CallOutcome | None:
    """Say why a caller cannot come into a queue; None for whoever can.

    ``waiting``: how many are in it already.
    """
    if not is_open:
        return CallOutcome.CLOSED
    if CallOutcome.UNSTAFFED in rules.ways_out and not staffed(queue, agents):
        return CallOutcome.UNSTAFFED
    if rules.length and waiting >= rules.length:
        return CallOutcome.FULL
    return None
