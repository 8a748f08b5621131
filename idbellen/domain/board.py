"""What an agent's dashboard and a citizen's page show of a call, and how the former is told over its websocket."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.domain.agents import Agent


@dataclass(frozen=True, slots=True)
class OfferView:
    """A caller who is being offered: nothing personal, only why they call and since when they wait."""

    purpose: str
    waiting_since: float


@dataclass(frozen=True, slots=True)
class CallView:
    """A call that is connected. The secret lets this agent's browser fetch the attributes.

    ``session``: the session's reference. ``results`` counts the auth results that came in during the call, so
    that the browser knows when to fetch again. ``words``: the control words, which the citizen's page shows too.
    """

    call: str
    session: str
    purpose: str
    since: float
    secret: str = field(repr=False)
    words: tuple[str, str]
    results: int = 0


@dataclass(frozen=True, slots=True)
class AgentView:
    """Everything that one agent's dashboard shows at one moment; ``waiting`` counts callers in the queue."""

    agent: Agent
    waiting: int
    offer: OfferView | None = None
    call: CallView | None = None

    def message(self, titles: Mapping[str, str], now: float) -> dict[str, Any]:
        """Give the snapshot that the dashboard gets; ages are in seconds, so that clocks need not agree."""
        message: dict[str, Any] = {
            "type": "snapshot",
            "state": self.agent.state.value,
            "afterwards": self.agent.afterwards.value if self.agent.engaged else None,
            "waiting": self.waiting,
            "offer": None,
            "call": None,
        }
        if self.offer:
            title = titles.get(self.offer.purpose, self.offer.purpose)
            message["offer"] = {"purpose": title, "waited": max(0.0, now - self.offer.waiting_since)}
        if self.call:
            message["call"] = {
                "id": self.call.call,
                "purpose": titles.get(self.call.purpose, self.call.purpose),
                "age": max(0.0, now - self.call.since),
                "secret": self.call.secret,
                "words": list(self.call.words),
                "results": self.call.results,
            }
        return message


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
