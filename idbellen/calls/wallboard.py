"""What supervisors see of all queues and agents together. Nothing of a citizen."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idbellen.calls.watch import Watches
from idbellen.domain.agents import AgentState
from idbellen.domain.expected_wait import expected_wait
from idbellen.domain.statistics import DEFAULT_TARGET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from idbellen.calls.desk import Desk
    from idbellen.calls.statistics import Statistics
    from idbellen.calls.watch import Watch
    from idbellen.domain.agents import Agent, PhoneState
    from idbellen.domain.ids import AgentName, CallId, QueueName
    from idbellen.domain.queueing import Ticket
    from idbellen.domain.statistics import Figures, Target

# What agents do, as a supervisor counts it; who is offline is not counted.
GROUPS: dict[AgentState, str] = {
    AgentState.AVAILABLE: "available",
    AgentState.OFFERED: "ringing",
    AgentState.RINGING: "ringing",
    AgentState.IN_CALL: "in_call",
    AgentState.WRAP_UP: "wrap_up",
    AgentState.PAUSED: "paused",
    AgentState.NOT_ANSWERING: "not_answering",
}


def count_agents(agents: Iterable[Agent]) -> dict[str, int]:
    """Count agents by what they do."""
    found = Counter(GROUPS[agent.state] for agent in agents if agent.state in GROUPS)
    return {group: found[group] for group in dict.fromkeys(GROUPS.values())}


# The board at one moment


@dataclass(frozen=True, slots=True)
class QueueBoard:
    """A queue.

    ``longest_since``: when the one who waits longest arrived (epoch seconds); ``expected``: the wait of somebody who
    calls now, in seconds, None when it is not known.
    """

    name: QueueName
    waiting: int
    longest_since: float | None
    expected: float | None
    agents: Mapping[str, int]
    today: Figures
    target: Target


@dataclass(frozen=True, slots=True)
class TalkBoard:
    """The call that an agent is in, without who it is with. ``since`` in epoch seconds."""

    queue: QueueName
    purpose: str
    since: float


@dataclass(frozen=True, slots=True)
class AgentBoard:
    """An agent who is here. ``queues`` is empty for whoever serves them all; ``since`` in epoch seconds."""

    name: AgentName
    state: AgentState
    reason: str
    since: float
    afterwards: AgentState | None
    phone: PhoneState
    queues: tuple[QueueName, ...]
    call: TalkBoard | None


@dataclass(frozen=True, slots=True)
class CallerBoard:
    """A caller who waits. ``call`` means nothing by itself; ``offered_to``: whose phone rings for them now."""

    call: CallId
    purpose: str
    queue: QueueName
    since: float
    verified: bool
    offered_to: tuple[AgentName, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """Everything at one moment. ``callers`` are in the order in which they are served; ``telephony``: more can come."""

    queues: tuple[QueueBoard, ...]
    agents: tuple[AgentBoard, ...]
    callers: tuple[CallerBoard, ...]
    telephony: bool = True


class Wallboard:
    """Looks at desk, staff and figures for supervisors; ``targets`` are those of the queues."""

    def __init__(self, desk: Desk, figures: Statistics, targets: Mapping[QueueName, Target]) -> None:
        self._desk = desk
        self._figures = figures
        self._targets = targets
        self._watches: Watches[str] = Watches()
        desk.staff.news.on_change(self._watches.notify_all)
        figures.on_change(self._watches.notify_all)

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Hear of every change for the block."""
        with self._watches.watch("") as watch:
            yield watch

    def board(self) -> Board:
        """Give everything as it is now."""
        agents = self._desk.staff.agents
        here = [agents[name] for name in sorted(agents) if agents[name].state is not AgentState.OFFLINE]
        tickets = self._desk.waiting
        offered = self._offered()
        return Board(
            queues=tuple(self._queue(name, tickets, here) for name in self._desk.queues.rules),
            agents=tuple(self._agent(agent) for agent in here),
            callers=tuple(
                CallerBoard(t.call, t.purpose, t.queue, t.since, t.verified, tuple(offered.get(t.call, ())))
                for t in tickets
            ),
            telephony=self._desk.telephony,
        )

    def _queue(self, name: QueueName, tickets: Sequence[Ticket], here: Sequence[Agent]) -> QueueBoard:
        waiting = [ticket for ticket in tickets if ticket.queue == name]
        serving = [agent for agent in here if agent.penalty(name) is not None]
        target = self._targets.get(name, DEFAULT_TARGET)
        today = self._figures.today(name, target)
        now = self._desk.clock()
        return QueueBoard(
            name=name,
            waiting=len(waiting),
            longest_since=min((ticket.since for ticket in waiting), default=None),
            # By the mean of today, which is also known just after a restart.
            expected=expected_wait(
                len(waiting) + 1,
                agents=sum(agent.works for agent in serving),
                free=sum(agent.free(now) for agent in serving),
                handling=[] if today.mean_handling is None else [today.mean_handling],
            ),
            agents=count_agents(serving),
            today=today,
            target=target,
        )

    def _agent(self, agent: Agent) -> AgentBoard:
        call = self._desk.talks(agent.name)
        return AgentBoard(
            name=agent.name,
            state=agent.state,
            reason=agent.reason,
            since=agent.since,
            afterwards=agent.afterwards if agent.engaged else None,
            phone=agent.phone,
            queues=tuple(agent.queues),
            call=TalkBoard(call.queue, call.purpose, call.since) if call else None,
        )

    def _offered(self) -> dict[CallId, list[AgentName]]:
        offers = self._desk.offers
        found: dict[CallId, list[AgentName]] = {}
        for name in sorted(offers):
            found.setdefault(offers[name].call, []).append(name)
        return found
