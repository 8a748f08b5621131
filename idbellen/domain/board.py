"""What an agent's dashboard and a citizen's page show of a call."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from idbellen.domain.talk import Mode, allowed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.domain.agents import Agent, AgentState
    from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
    from idbellen.domain.talk import Target, Verb


@dataclass(frozen=True, slots=True)
class OfferView:
    """A caller who is being offered: nothing personal, only why they call and since when they wait.

    ``until``: when the phone stops ringing. ``asker``: the colleague who asks, for an offer to be consulted.
    Times: epoch seconds.
    """

    call: CallId
    purpose: str
    queue: QueueName
    waiting_since: float
    until: float
    asker: AgentName | None = None


@dataclass(frozen=True, slots=True)
class CallView:
    """A call as one of its agents sees it. The secret, if they have it, lets their browser fetch the attributes.

    ``session``: the session's reference. ``part``: whether they have the caller or are consulted. ``results`` counts
    the auth results that came in during the call, so that the browser knows when to fetch again. ``words``: the
    control words, which the citizen's page shows too; they go with the secret. ``other``: whom the agent consults,
    or who consults; ``shared``: who is consulted may see the data; ``notice``: how the last attempt to reach
    somebody ended, if in vain. ``phone_holds``: the agent's phone holds, by its own key. ``ours``: we connect the
    call; if not, the agent's phone does what the dashboard does otherwise: hold, transfer, hang up.
    """

    call: CallId
    session: SessionRef
    purpose: str
    queue: QueueName
    since: float
    secret: Secret | None = field(repr=False)
    words: tuple[str, str] | None
    part: Literal["main", "consulted"] = "main"
    mode: Mode = Mode.TALKING
    muted: bool = False
    other: Target | None = None
    shared: bool = False
    notice: str = ""
    phone_holds: bool = False
    results: int = 0
    ours: bool = True

    @property
    def allowed(self) -> frozenset[Verb]:
        """What the agent can ask for now."""
        if not self.ours:
            return frozenset()
        return allowed(self.mode, consulted=self.part == "consulted", phone_holds=self.phone_holds)


@dataclass(frozen=True, slots=True)
class Colleague:
    """Another agent, as a target for a consultation or a transfer."""

    name: AgentName
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
    waiting: Mapping[QueueName, int]
    offer: OfferView | None = None
    call: CallView | None = None
    colleagues: tuple[Colleague, ...] = ()
    queues: tuple[QueueName, ...] = ()
    numbers: bool = False
    today: Day = Day()
    telephony: bool = True


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

    ``place`` in the queue, 1 for whoever is next; ``minutes``: the expected wait as people are told it, None when it
    is not known; ``words``: the control words, once there is a call.
    """

    stage: Stage
    place: int | None = None
    minutes: int | None = None
    words: tuple[str, str] | None = None
