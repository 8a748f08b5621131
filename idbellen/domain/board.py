"""What an agent's dashboard and a citizen's page show of a call, and how the former is told over its websocket."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from idbellen.domain.agents import AgentState
from idbellen.domain.talk import ALLOWED, ALLOWED_CONSULTED, Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.domain.agents import Agent
    from idbellen.domain.talk import Target


@dataclass(frozen=True, slots=True)
class Titles:
    """How purposes and queues are called in the dashboard's language, by their names."""

    purposes: Mapping[str, str]
    queues: Mapping[str, str]

    def purpose(self, tag: str) -> str:
        """Give the title of a purpose; its tag if it has none."""
        return self.purposes.get(tag, tag)

    def queue(self, name: str) -> str:
        """Give the title of a queue; its name if it has none."""
        return self.queues.get(name, name)


@dataclass(frozen=True, slots=True)
class OfferView:
    """A caller who is being offered: nothing personal, only why they call and since when they wait.

    ``until``: when the phone stops ringing. ``asker``: the colleague who asks, for an offer to be consulted.
    Times: epoch seconds.
    """

    call: str
    purpose: str
    queue: str
    waiting_since: float
    until: float
    asker: str | None = None


@dataclass(frozen=True, slots=True)
class CallView:
    """A call as one of its agents sees it. The secret, if they have it, lets their browser fetch the attributes.

    ``session``: the session's reference. ``part``: whether they have the caller or are consulted. ``results`` counts
    the auth results that came in during the call, so that the browser knows when to fetch again. ``words``: the
    control words, which the citizen's page shows too; they go with the secret. ``other``: whom the agent consults,
    or who consults; ``shared``: who is consulted may see the data; ``notice``: how the last attempt to reach
    somebody ended, if in vain.
    """

    call: str
    session: str
    purpose: str
    queue: str
    since: float
    secret: str | None = field(repr=False)
    words: tuple[str, str] | None
    part: Literal["main", "consulted"] = "main"
    mode: Mode = Mode.TALKING
    muted: bool = False
    other: Target | None = None
    shared: bool = False
    notice: str = ""
    results: int = 0

    def message(self, titles: Titles, now: float) -> dict[str, Any]:
        """Give this part of the snapshot."""
        allowed = ALLOWED_CONSULTED if self.part == "consulted" else ALLOWED[self.mode]
        other = self.other
        return {
            "id": self.call,
            "part": self.part,
            "purpose": titles.purpose(self.purpose),
            "queue": titles.queue(self.queue),
            "age": max(0.0, now - self.since),
            "secret": self.secret,
            "words": list(self.words) if self.words else None,
            "mode": self.mode.value,
            "muted": self.muted,
            "allowed": sorted(verb.value for verb in allowed),
            "other": other
            and {
                "kind": other.kind,
                "name": other.name,
                "title": titles.queue(other.name) if other.kind == "queue" else other.name,
            },
            "shared": self.shared,
            "notice": self.notice,
            "results": self.results,
        }


@dataclass(frozen=True, slots=True)
class Colleague:
    """Another agent, as a target for a consultation or a transfer."""

    name: str
    state: AgentState
    free: bool


@dataclass(frozen=True, slots=True)
class Day:
    """An agent's own figures of today: calls, seconds of talk, offers missed."""

    calls: int = 0
    talked: float = 0.0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class AgentView:
    """Everything that one agent's dashboard shows at one moment.

    ``waiting`` counts callers in each queue that this agent serves; ``numbers``: outside numbers can be rung;
    ``telephony``: calls can come in.
    """

    agent: Agent
    waiting: Mapping[str, int]
    offer: OfferView | None = None
    call: CallView | None = None
    colleagues: tuple[Colleague, ...] = ()
    queues: tuple[str, ...] = ()
    numbers: bool = False
    today: Day = Day()
    telephony: bool = True

    def message(self, titles: Titles, now: float) -> dict[str, Any]:
        """Give the snapshot that the dashboard gets; ages are in seconds, so that clocks need not agree."""
        agent = self.agent
        offer = self.offer
        ahead = agent.engaged or agent.state is AgentState.WRAP_UP
        return {
            "type": "snapshot",
            "state": agent.state.value,
            "reason": agent.reason,
            "age": max(0.0, now - agent.since),
            "afterwards": agent.afterwards.value if ahead else None,
            "afterwards_reason": agent.afterwards_reason if ahead else "",
            "phone": agent.phone.value,
            "telephony": self.telephony,
            "missed": agent.missed,
            "waiting": sum(self.waiting.values()),
            "queues": [
                {"name": name, "title": titles.queue(name), "waiting": self.waiting.get(name)} for name in self.queues
            ],
            "colleagues": [
                {"name": other.name, "state": other.state.value, "free": other.free} for other in self.colleagues
            ],
            "numbers": self.numbers,
            "today": {"calls": self.today.calls, "talked": self.today.talked, "missed": self.today.missed},
            "offer": offer
            and {
                "id": offer.call,
                "purpose": titles.purpose(offer.purpose),
                "queue": titles.queue(offer.queue),
                "waited": max(0.0, now - offer.waiting_since),
                "remaining": max(0.0, offer.until - now),
                "asker": offer.asker,
            },
            "call": self.call and self.call.message(titles, now),
            "wrap_up": {"remaining": max(0.0, agent.wrap_up_until - now)}
            if agent.state is AgentState.WRAP_UP
            else None,
        }


class Stage(enum.Enum):
    """How far a citizen's call is."""

    WAITING = "waiting"  # for the citizen to call
    ACCEPTED = "accepted"  # the code; an auth result may still be awaited
    QUEUED = "queued"
    CONNECTED = "connected"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class CitizenView:
    """What a citizen's page shows of the call.

    ``place`` in the queue, 1 for who is next; ``minutes``: the expected wait as people are told it, None when it
    is not known; ``words``: the control words, once there is a call.
    """

    stage: Stage
    place: int | None = None
    minutes: int | None = None
    words: tuple[str, str] | None = None
