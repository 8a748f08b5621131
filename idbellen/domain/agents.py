"""The states of an agent, as a table: what is not in it cannot happen."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from idbellen.domain.ids import AgentName, QueueName


class AgentState(enum.Enum):
    """What an agent is doing. The value is what the dashboard's websocket says."""

    OFFLINE = "offline"
    PAUSED = "paused"
    NOT_ANSWERING = "not_answering"  # too many offers missed in a row: no more until they say they are there
    AVAILABLE = "available"
    OFFERED = "offered"
    RINGING = "ringing"
    IN_CALL = "in_call"
    WRAP_UP = "wrap_up"


class AgentEvent(enum.Enum):
    """What can happen to an agent."""

    ARRIVE = "arrive"  # a dashboard of theirs connected, or their desk phone logged in
    LEAVE = "leave"  # the last of these has been gone for the grace period
    SET_AVAILABLE = "set_available"
    PAUSE = "pause"
    OFFER = "offer"  # a caller, or a colleague who asks for them, is reserved for them
    RING = "ring"  # their phone rings
    WITHDRAW = "withdraw"  # the offer came to nothing, through no fault of theirs
    MISS = "miss"  # they did not answer it
    CONNECT = "connect"  # they talk
    FINISH = "finish"  # the call has ended for them
    WRAPPED_UP = "wrapped_up"  # the time for it is over


class PhoneState(enum.Enum):
    """What Asterisk knows of an agent's phone. The value is what the dashboard's websocket says."""

    UNKNOWN = "unknown"  # not told yet: it is rung to find out
    UNREGISTERED = "unregistered"
    IDLE = "idle"
    BUSY = "busy"  # in use, by us or by another call


# Of several phones, or of several who tell of one, the first of these counts: who talks on one is not rung on another.
_COUNTS_FIRST = (PhoneState.BUSY, PhoneState.IDLE, PhoneState.UNKNOWN, PhoneState.UNREGISTERED)
# Between the phones of one account, as in Asterisk's Dial().
_AND = "&"


def phones_of(endpoint: str) -> tuple[str, ...]:
    """Give the phones of an account's endpoint: ``PJSIP/ann&PJSIP/ann-home`` are two, which ring together."""
    return tuple(endpoint.split(_AND))


def joined(phones: Iterable[str]) -> str:
    """Give the endpoint of an account with these phones."""
    return _AND.join(dict.fromkeys(phones))


def together(states: Collection[PhoneState]) -> PhoneState:
    """Give how several phones of one agent, or several tellings of one phone, are taken together."""
    return next((state for state in _COUNTS_FIRST if state in states), PhoneState.UNKNOWN)


_S, _E = AgentState, AgentEvent

TRANSITIONS: dict[AgentState, dict[AgentEvent, AgentState]] = {
    _S.OFFLINE: {_E.ARRIVE: _S.PAUSED},
    _S.PAUSED: {_E.SET_AVAILABLE: _S.AVAILABLE, _E.PAUSE: _S.PAUSED, _E.LEAVE: _S.OFFLINE},
    _S.NOT_ANSWERING: {_E.SET_AVAILABLE: _S.AVAILABLE, _E.PAUSE: _S.PAUSED, _E.LEAVE: _S.OFFLINE},
    _S.AVAILABLE: {_E.PAUSE: _S.PAUSED, _E.OFFER: _S.OFFERED, _E.LEAVE: _S.OFFLINE},
    _S.OFFERED: {_E.RING: _S.RINGING, _E.WITHDRAW: _S.AVAILABLE, _E.MISS: _S.AVAILABLE},
    _S.RINGING: {_E.WITHDRAW: _S.AVAILABLE, _E.MISS: _S.AVAILABLE, _E.CONNECT: _S.IN_CALL},
    _S.IN_CALL: {_E.FINISH: _S.WRAP_UP},
    _S.WRAP_UP: {
        _E.SET_AVAILABLE: _S.AVAILABLE,
        _E.PAUSE: _S.PAUSED,
        _E.WRAPPED_UP: _S.AVAILABLE,
        _E.LEAVE: _S.OFFLINE,
    },
}
ENGAGED = (_S.OFFERED, _S.RINGING, _S.IN_CALL)
# What is wished for while a caller is theirs (or a dashboard that goes away then) holds from the call's end on.
_WISHES = {_E.SET_AVAILABLE: _S.AVAILABLE, _E.PAUSE: _S.PAUSED, _E.LEAVE: _S.OFFLINE}


class IllegalTransitionError(Exception):
    """An event came that the agent's state does not allow: a fault in the program, never of a person."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an event means for an agent, by configuration. Times in seconds; 0 is none.

    ``rest`` keeps offers away after one that was missed; after ``most_missed`` offers missed in a row (0: never) an
    agent is *not answering*; ``wrap_up`` follows a call.
    """

    rest: float = 0.0
    most_missed: int = 0
    wrap_up: float = 0.0


NO_TERMS = Terms()


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent at one moment.

    ``endpoint`` is the phone as Asterisk names it (``PJSIP/agent1``), or several (:func:`phones_of`), and ``phone`` the
    state of these :func:`together`; ``queues`` maps the queues that they serve to their penalty there, where 0 is first
    choice, and is empty for those who serve all; ``since`` says when the state began and ``reason`` why they are paused
    (a configured word, or nothing); ``idle_since`` when they last had a call; ``offered_at`` when they last had an
    offer; ``rests_until`` keeps offers away for a moment after one that came to nothing; ``missed`` counts the offers
    missed in a row; ``wrap_up_until`` is the end of wrap-up; ``afterwards`` and ``afterwards_reason`` are the state
    that a call or offer in hand will end in. Times: epoch seconds.
    """

    name: AgentName
    endpoint: str
    queues: Mapping[QueueName, int] = field(default_factory=dict)
    state: AgentState = _S.OFFLINE
    reason: str = ""
    since: float = 0.0
    afterwards: AgentState = _S.AVAILABLE
    afterwards_reason: str = ""
    phone: PhoneState = PhoneState.UNKNOWN
    idle_since: float = 0.0
    offered_at: float = 0.0
    rests_until: float = 0.0
    missed: int = 0
    wrap_up_until: float = 0.0

    @property
    def phones(self) -> tuple[str, ...]:
        """Their phones, the first of which is the one they are known by."""
        return phones_of(self.endpoint)

    @property
    def engaged(self) -> bool:
        """Whether a caller is reserved for them or talks with them."""
        return self.state in ENGAGED

    @property
    def works(self) -> bool:
        """Whether they take calls now, or are busy with one."""
        return self.engaged or self.state in (_S.AVAILABLE, _S.WRAP_UP)

    @property
    def reachable(self) -> bool:
        """Whether ringing their phone makes sense, as far as is known."""
        return self.phone in (PhoneState.UNKNOWN, PhoneState.IDLE)

    def penalty(self, queue: QueueName) -> int | None:
        """Give their penalty in a queue, 0 for first choice; None if they do not serve it."""
        return self.queues.get(queue) if self.queues else 0

    def free(self, now: float) -> bool:
        """Whether a caller can be offered to them at this moment."""
        return self.state is _S.AVAILABLE and self.rests_until <= now and self.reachable

    def after(self, event: AgentEvent, now: float, *, reason: str = "", terms: Terms = NO_TERMS) -> Agent:
        """Give the agent as they are after an event; ``reason`` goes with a pause.

        Raises:
            IllegalTransitionError: the table does not allow it.

        """
        if event is _E.ARRIVE and self.state is not _S.OFFLINE:
            # Back in time: the call in hand, if any, does not end in "offline" after all.
            came_back = self.engaged and self.afterwards is _S.OFFLINE
            return replace(self, afterwards=_S.PAUSED, afterwards_reason="") if came_back else self
        if self.engaged and event in _WISHES:
            if self.afterwards is _S.OFFLINE:
                # An agent who has left cannot be made available by somebody else: they have to be back first.
                return self
            return replace(self, afterwards=_WISHES[event], afterwards_reason=reason)
        if event is _E.SET_AVAILABLE and self.state is _S.AVAILABLE:
            return self
        try:
            state = TRANSITIONS[self.state][event]
        except KeyError:
            raise IllegalTransitionError(f"{event.value} in state {self.state.value}") from None
        return _settle(replace(self, state=state, since=now, reason=reason), event, now, terms)

    def extended(self, seconds: float) -> Agent:
        """Give the agent with a longer wrap-up; as they are if they are not in wrap-up."""
        if self.state is not _S.WRAP_UP:
            return self
        return replace(self, wrap_up_until=self.wrap_up_until + seconds)


def _settle(agent: Agent, event: AgentEvent, now: float, terms: Terms) -> Agent:
    """Give an agent whom the table has moved with all else that the event changes."""
    match event:
        case _E.OFFER:
            return replace(agent, afterwards=_S.AVAILABLE, afterwards_reason="", offered_at=now)
        case _E.CONNECT:
            return replace(agent, missed=0)
        case _E.MISS:
            return _missed(_back(agent, now, terms.rest), terms.most_missed)
        case _E.WITHDRAW:
            # Nobody loses their turn by a caller who hung up, or by a colleague who was quicker.
            return replace(_back(agent, now, 0.0), idle_since=agent.idle_since)
        case _E.WRAPPED_UP:
            return _back(agent, now, 0.0)
        case _E.FINISH if terms.wrap_up > 0 and agent.afterwards is not _S.OFFLINE:
            return replace(agent, idle_since=now, wrap_up_until=now + terms.wrap_up)
        case _E.FINISH:
            return _back(agent, now, 0.0)
        case _E.SET_AVAILABLE:
            return replace(agent, idle_since=now, rests_until=0.0, missed=0)
    return agent


def _back(agent: Agent, now: float, rest: float) -> Agent:
    """Go back to the state before, or to what was wished for in between."""
    return replace(
        agent,
        state=agent.afterwards,
        reason=agent.afterwards_reason,
        idle_since=now,
        rests_until=now + rest,
        wrap_up_until=0.0,
    )


def _missed(agent: Agent, most_missed: int) -> Agent:
    missed = replace(agent, missed=agent.missed + 1)
    if 0 < most_missed <= missed.missed and missed.state is _S.AVAILABLE:
        return replace(missed, state=_S.NOT_ANSWERING, reason="")
    return missed
