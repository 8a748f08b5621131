"""What an agent's dashboard shows, and how it is said over the websocket."""

from __future__ import annotations

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
    """A call that is connected. The secret lets this agent's browser fetch the attributes."""

    call: str
    purpose: str
    since: float
    secret: str = field(repr=False)


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
            }
        return message
