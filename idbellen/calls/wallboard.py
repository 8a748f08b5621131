"""What supervisors see of all queues and agents together, and what they can do about it. Nothing of a citizen."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from idbellen.calls.audit import note
from idbellen.calls.watch import Watches
from idbellen.domain.agents import AgentState
from idbellen.domain.statistics import DEFAULT_TARGET, SENT_AWAY, Figures, by_quarter
from idbellen.domain.waiting import expected_wait

if TYPE_CHECKING:
    import datetime as dt
    import zoneinfo
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from idbellen.calls.desk import Desk
    from idbellen.calls.statistics import Statistics
    from idbellen.calls.watch import Watch
    from idbellen.domain.agents import Agent, PhoneState
    from idbellen.domain.board import Titles
    from idbellen.domain.queueing import Ticket
    from idbellen.domain.statistics import CallRecord, Target
    from idbellen.ports import Account, AuditTrail, Monitor, MonitorMode

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

    ``longest_since``: when who waits longest arrived (epoch seconds); ``expected``: the wait of who would call now,
    in seconds, None when it is not known.
    """

    name: str
    waiting: int
    longest_since: float | None
    expected: float | None
    agents: Mapping[str, int]
    today: Figures
    target: Target

    def message(self, titles: Titles, now: float) -> dict[str, Any]:
        """Give this part of the snapshot; ages are in seconds, so that clocks need not agree."""
        return {
            "name": self.name,
            "title": titles.queue(self.name),
            "waiting": self.waiting,
            "longest_wait": _age(self.longest_since, now),
            "expected_wait": _whole(self.expected),
            "agents": dict(self.agents),
            "today": figures_message(self.today),
            "target": {"within": self.target.within, "percent": _percent(self.target.share)},
        }


@dataclass(frozen=True, slots=True)
class TalkBoard:
    """The call that an agent is in, without who it is with. ``since`` in epoch seconds."""

    queue: str
    purpose: str
    since: float


@dataclass(frozen=True, slots=True)
class AgentBoard:
    """An agent who is here. ``queues`` is empty for who serves them all; ``since`` in epoch seconds."""

    name: str
    state: AgentState
    reason: str
    since: float
    afterwards: AgentState | None
    phone: PhoneState
    queues: tuple[str, ...]
    call: TalkBoard | None

    def message(self, titles: Titles, now: float) -> dict[str, Any]:
        """Give this part of the snapshot."""
        return {
            "name": self.name,
            "state": GROUPS[self.state],
            "reason": self.reason,
            "seconds": _age(self.since, now),
            "afterwards": GROUPS.get(self.afterwards, "offline") if self.afterwards else None,
            "phone": self.phone.value,
            "queues": [titles.queue(name) for name in self.queues],
            "call": self.call
            and {
                "queue": titles.queue(self.call.queue),
                "purpose": titles.purpose(self.call.purpose),
                "seconds": _age(self.call.since, now),
            },
        }


@dataclass(frozen=True, slots=True)
class CallerBoard:
    """A caller who waits. ``call`` means nothing by itself; ``offered_to``: whose phone rings for them now."""

    call: str
    purpose: str
    queue: str
    since: float
    verified: bool
    offered_to: tuple[str, ...]

    def message(self, titles: Titles, now: float) -> dict[str, Any]:
        """Give this part of the snapshot."""
        return {
            "call": self.call,
            "purpose": titles.purpose(self.purpose),
            "queue": self.queue,
            "queue_title": titles.queue(self.queue),
            "seconds": _age(self.since, now),
            "verified": self.verified,
            "offered_to": list(self.offered_to),
        }


@dataclass(frozen=True, slots=True)
class Board:
    """Everything at one moment. ``callers`` are in the order in which they are served; ``telephony``: more can come."""

    queues: tuple[QueueBoard, ...]
    agents: tuple[AgentBoard, ...]
    callers: tuple[CallerBoard, ...]
    telephony: bool = True

    def message(self, titles: Titles, now: float) -> dict[str, Any]:
        """Give the snapshot that a wallboard gets."""
        today = total(queue.today for queue in self.queues)
        # An agent who serves several queues is one agent here.
        found = Counter(GROUPS[agent.state] for agent in self.agents)
        since = min((caller.since for caller in self.callers), default=None)
        return {
            "total": {
                "waiting": len(self.callers),
                "longest_wait": _age(since, now),
                "agents": {group: found[group] for group in dict.fromkeys(GROUPS.values())},
                "today": figures_message(today),
            },
            "queues": [queue.message(titles, now) for queue in self.queues],
            "agents": [agent.message(titles, now) for agent in self.agents],
            "callers": [caller.message(titles, now) for caller in self.callers],
            "telephony": self.telephony,
        }


def figures_message(of: Figures) -> dict[str, Any]:
    """Give figures as JSON: whole seconds and percents."""
    return {
        "offered": of.offered,
        "answered": of.answered,
        "answered_within": of.answered_within,
        "abandoned": of.abandoned,
        "abandoned_short": of.abandoned_short,
        "sent_away": {outcome.value: of.sent_away.get(outcome, 0) for outcome in SENT_AWAY},
        "mean_wait": _whole(of.mean_wait),
        "longest_wait": _whole(of.longest_wait),
        "mean_handling": _whole(of.mean_handling),
        "service_level": None if of.service_level is None else _percent(of.service_level),
        "on_target": of.on_target,
    }


def total(parts: Iterable[Figures]) -> Figures:
    """Add up figures of several queues, each counted by its own target.

    Whether the sum is on target is not said: the targets may differ.
    """
    parts = list(parts)
    offered = sum(part.offered for part in parts)
    answered = sum(part.answered for part in parts)
    within = sum(part.answered_within for part in parts)
    short = sum(part.abandoned_short for part in parts)
    sent_away = {outcome: sum(part.sent_away.get(outcome, 0) for part in parts) for outcome in SENT_AWAY}
    return Figures(
        offered=offered,
        answered=answered,
        answered_within=within,
        abandoned=sum(part.abandoned for part in parts),
        abandoned_short=short,
        sent_away={outcome: count for outcome, count in sent_away.items() if count},
        mean_wait=_mean(parts, lambda part: part.mean_wait),
        longest_wait=max((part.longest_wait for part in parts if part.longest_wait is not None), default=None),
        mean_handling=_mean(parts, lambda part: part.mean_handling),
        service_level=within / (offered - short) if offered > short else None,
    )


def quarters(
    records: Sequence[CallRecord], day: dt.date, timezone: zoneinfo.ZoneInfo, targets: Mapping[str, Target]
) -> list[tuple[dt.datetime, Figures]]:
    """Give the figures of each quarter-hour of a day, of all queues in the records together."""
    by_queue: dict[str, list[CallRecord]] = {}
    for record in records:
        by_queue.setdefault(record.queue, []).append(record)
    own = [by_quarter(found, day, timezone, targets.get(queue, DEFAULT_TARGET)) for queue, found in by_queue.items()]
    empty = by_quarter([], day, timezone)
    return [(begin, total(each[number][1] for each in own)) for number, (begin, _) in enumerate(empty)]


def _mean(parts: Sequence[Figures], of: Callable[[Figures], float | None]) -> float | None:
    """Weigh means by who was answered."""
    known = [(value, part.answered) for part in parts if (value := of(part)) is not None]
    if not known:
        return None
    return sum(value * answered for value, answered in known) / sum(answered for _, answered in known)


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else round(max(0.0, now - since), 1)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _percent(share: float) -> int:
    return round(100 * share)


class Wallboard:
    """Looks at desk, staff and figures for supervisors; ``targets`` are those of the queues."""

    def __init__(self, desk: Desk, figures: Statistics, targets: Mapping[str, Target]) -> None:
        self._desk = desk
        self._figures = figures
        self._targets = targets
        self._watches = Watches()
        desk.on_change(self._watches.notify_all)
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
        offered = self._offered(here)
        return Board(
            queues=tuple(self._queue(name, tickets, here) for name in self._desk.queues.rules),
            agents=tuple(self._agent(agent) for agent in here),
            callers=tuple(
                CallerBoard(t.call, t.purpose, t.queue, t.since, t.verified, tuple(offered.get(t.call, ())))
                for t in tickets
            ),
            telephony=self._desk.telephony,
        )

    def _queue(self, name: str, tickets: Sequence[Ticket], here: Sequence[Agent]) -> QueueBoard:
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
        call = self._desk.in_hand.get(agent.name)
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

    def _offered(self, here: Iterable[Agent]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for agent in here:
            if agent.state in (AgentState.OFFERED, AgentState.RINGING):
                offer = self._desk.view(agent.name).offer
                if offer:
                    found.setdefault(offer.call, []).append(agent.name)
        return found


# What supervisors do


@dataclass(frozen=True, slots=True)
class SupervisionRules:
    """What the configuration lets supervisors do.

    ``pause_reasons``: the configured words; ``modes``: how they may listen in; ``announce``: the agent is told before.
    """

    pause_reasons: Collection[str] = ()
    modes: Collection[MonitorMode] = ()
    announce: bool = True


class Supervision:
    """What supervisors may do. Each action gives why not, in one word, or None if it was done.

    Nothing is done that is not on record first. The words: ``gone``: no such agent is here, no such caller waits;
    ``target``: this cannot be chosen; ``later``: not now; ``phone``: the phone could not be connected;
    ``unrecorded``: the audit trail cannot be written.
    """

    def __init__(self, desk: Desk, audit: AuditTrail, rules: SupervisionRules, monitor: Monitor | None) -> None:
        self._desk = desk
        self._audit = audit
        self.rules = rules if monitor else replace(rules, modes=())
        self._monitor = monitor

    async def set_available(self, actor: Account, agent: str) -> str | None:
        """Let an agent be offered calls."""

        def act() -> str | None:
            self._desk.staff.set_available(agent)
            return self._absent(agent)

        return self._absent(agent) or await self._on_record(actor, "agent set available", agent, act)

    async def pause(self, actor: Account, agent: str, reason: str) -> str | None:
        """Let an agent be offered no calls, from the end of the call in hand on."""
        if reason and reason not in self.rules.pause_reasons:
            return "target"

        def act() -> str | None:
            self._desk.staff.pause(agent, reason)
            return self._absent(agent)

        return self._absent(agent) or await self._on_record(actor, "agent paused", agent, act, reason=reason)

    async def move_to_front(self, actor: Account, call: str) -> str | None:
        """Let a waiting caller go before everybody else."""
        if self._ticket(call) is None:
            return "gone"

        def act() -> str | None:
            return None if self._desk.move_to_front(call) else "gone"

        return await self._on_record(actor, "caller moved to front", call, act)

    async def move_to_queue(self, actor: Account, call: str, queue: str) -> str | None:
        """Let a waiting caller wait in another queue."""
        ticket = self._ticket(call)
        if ticket is None:
            return "gone"
        if queue not in self._desk.queues.rules or queue == ticket.queue:
            return "target"

        def act() -> str | None:
            return None if self._desk.move_to_queue(call, queue) else "gone"

        places = {"before": ticket.queue, "after": queue}
        return await self._on_record(actor, "caller moved to queue", call, act, **places)

    async def monitor(self, actor: Account, agent: str, mode: MonitorMode) -> str | None:
        """Let a supervisor hear the call of an agent over their own phone."""
        if self._monitor is None or mode not in self.rules.modes or agent == actor.name:
            return "target"
        view = self._desk.in_hand.get(agent)
        if view is None:
            return "later"
        detail = {"mode": mode, "call": view.call, "announced": "yes" if self.rules.announce else "no"}
        if not await note(self._audit, actor.name, "agent monitored", agent, **detail):
            return "unrecorded"
        if await self._monitor.request(agent, actor.endpoint, mode, announce=self.rules.announce):
            return None
        await note(self._audit, actor.name, "agent monitored in vain", agent, **detail)
        return "phone"

    def _absent(self, agent: str) -> str | None:
        known = self._desk.staff.agents.get(agent)
        return "gone" if known is None or known.state is AgentState.OFFLINE else None

    def _ticket(self, call: str) -> Ticket | None:
        return next((ticket for ticket in self._desk.waiting if ticket.call == call), None)

    async def _on_record(
        self, actor: Account, action: str, subject: str, act: Callable[[], str | None], **detail: str
    ) -> str | None:
        if not await note(self._audit, actor.name, action, subject, **detail):
            return "unrecorded"
        # While it was written the caller may have hung up, or the agent have left.
        refused = act()
        if refused:
            await note(self._audit, actor.name, f"{action} in vain", subject, **detail)
        return refused
