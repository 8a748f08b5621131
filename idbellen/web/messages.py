"""What the pages' websockets and the wallboard's JSON say: everything at one moment, as a whole.

Ages and times that are left are in seconds, so that clocks need not agree.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from idbellen.calls.wallboard import GROUPS
from idbellen.domain.agents import AgentState
from idbellen.domain.ids import QueueName
from idbellen.domain.statistics import SENT_AWAY, total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.calls.wallboard import AgentBoard, Board, CallerBoard, QueueBoard
    from idbellen.domain.board import AgentView, CallView, OfferView
    from idbellen.domain.statistics import Figures
    from idbellen.domain.talk import Target


@dataclass(frozen=True, slots=True)
class Titles:
    """How purposes and queues are called in the dashboard's language, by their names."""

    purposes: Mapping[str, str]
    queues: Mapping[QueueName, str]

    def purpose(self, tag: str) -> str:
        """Give the title of a purpose; its tag if it has none."""
        return self.purposes.get(tag, tag)

    def queue(self, name: QueueName) -> str:
        """Give the title of a queue; its name if it has none."""
        return self.queues.get(name, name)


# An agent's dashboard


def agent_snapshot(view: AgentView, titles: Titles, now: float) -> dict[str, Any]:
    """Give what an agent's dashboard gets."""
    agent = view.agent
    ahead = agent.engaged or agent.state is AgentState.WRAP_UP
    return {
        "type": "snapshot",
        "state": agent.state.value,
        "reason": agent.reason,
        "age": max(0.0, now - agent.since),
        "afterwards": agent.afterwards.value if ahead else None,
        "afterwards_reason": agent.afterwards_reason if ahead else "",
        "phone": agent.phone.value,
        "telephony": view.telephony,
        "missed": agent.missed,
        "waiting": sum(view.waiting.values()),
        "queues": [
            {"name": name, "title": titles.queue(name), "waiting": view.waiting.get(name)} for name in view.queues
        ],
        "colleagues": [
            {"name": other.name, "state": other.state.value, "free": other.free} for other in view.colleagues
        ],
        "numbers": view.numbers,
        "today": {"calls": view.today.calls, "talked": view.today.talked, "missed": view.today.missed},
        "offer": view.offer and _offer(view.offer, titles, now),
        "call": view.call and _call(view.call, titles, now),
        "wrap_up": {"remaining": max(0.0, agent.wrap_up_until - now)} if agent.state is AgentState.WRAP_UP else None,
    }


def _offer(offer: OfferView, titles: Titles, now: float) -> dict[str, Any]:
    return {
        "id": offer.call,
        "purpose": titles.purpose(offer.purpose),
        "queue": titles.queue(offer.queue),
        "waited": max(0.0, now - offer.waiting_since),
        "remaining": max(0.0, offer.until - now),
        "asker": offer.asker,
    }


def _call(call: CallView, titles: Titles, now: float) -> dict[str, Any]:
    return {
        "id": call.call,
        "part": call.part,
        "purpose": titles.purpose(call.purpose),
        "queue": titles.queue(call.queue),
        "age": max(0.0, now - call.since),
        "secret": call.secret,
        "words": list(call.words) if call.words else None,
        "mode": call.mode.value,
        "muted": call.muted,
        "allowed": sorted(verb.value for verb in call.allowed),
        "other": call.other and _target(call.other, titles),
        "shared": call.shared,
        "notice": call.notice,
        "phone_holds": call.phone_holds,
        "results": call.results,
    }


def _target(target: Target, titles: Titles) -> dict[str, Any]:
    title = titles.queue(QueueName(target.name)) if target.kind == "queue" else target.name
    return {"kind": target.kind, "name": target.name, "title": title}


# A supervisor's wallboard


def board_snapshot(board: Board, titles: Titles, now: float) -> dict[str, Any]:
    """Give what a wallboard gets."""
    today = total(queue.today for queue in board.queues)
    # An agent who serves several queues is one agent here.
    found = Counter(GROUPS[agent.state] for agent in board.agents)
    since = min((caller.since for caller in board.callers), default=None)
    return {
        "total": {
            "waiting": len(board.callers),
            "longest_wait": _age(since, now),
            "agents": {group: found[group] for group in dict.fromkeys(GROUPS.values())},
            "today": figures_message(today),
        },
        "queues": [_queue(queue, titles, now) for queue in board.queues],
        "agents": [_agent(agent, titles, now) for agent in board.agents],
        "callers": [_caller(caller, titles, now) for caller in board.callers],
        "telephony": board.telephony,
    }


def figures_message(of: Figures) -> dict[str, Any]:
    """Give figures: whole seconds and percents."""
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


def _queue(queue: QueueBoard, titles: Titles, now: float) -> dict[str, Any]:
    return {
        "name": queue.name,
        "title": titles.queue(queue.name),
        "waiting": queue.waiting,
        "longest_wait": _age(queue.longest_since, now),
        "expected_wait": _whole(queue.expected),
        "agents": dict(queue.agents),
        "today": figures_message(queue.today),
        "target": {"within": queue.target.within, "percent": _percent(queue.target.share)},
    }


def _agent(agent: AgentBoard, titles: Titles, now: float) -> dict[str, Any]:
    call = agent.call and {
        "queue": titles.queue(agent.call.queue),
        "purpose": titles.purpose(agent.call.purpose),
        "seconds": _age(agent.call.since, now),
    }
    return {
        "name": agent.name,
        "state": GROUPS[agent.state],
        "reason": agent.reason,
        "seconds": _age(agent.since, now),
        "afterwards": GROUPS.get(agent.afterwards, "offline") if agent.afterwards else None,
        "phone": agent.phone.value,
        "queues": [titles.queue(name) for name in agent.queues],
        "call": call,
    }


def _caller(caller: CallerBoard, titles: Titles, now: float) -> dict[str, Any]:
    return {
        "call": caller.call,
        "purpose": titles.purpose(caller.purpose),
        "queue": caller.queue,
        "queue_title": titles.queue(caller.queue),
        "seconds": _age(caller.since, now),
        "verified": caller.verified,
        "offered_to": list(caller.offered_to),
    }


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else round(max(0.0, now - since), 1)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _percent(share: float) -> int:
    return round(100 * share)
