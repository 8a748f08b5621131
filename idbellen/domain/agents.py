"""The states of an agent, as a table: what is not in it cannot happen."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class AgentState(enum.Enum):
    """What an agent is doing. The value is what the dashboard's websocket says."""

    OFFLINE = "offline"
    AWAY = "away"
    AVAILABLE = "available"
    OFFERED = "offered"
    IN_CALL = "in_call"


class AgentEvent(enum.Enum):
    """What can happen to an agent."""

    ARRIVE = "arrive"  # a dashboard of theirs connected
    LEAVE = "leave"  # their last dashboard has been gone for the grace period
    SET_AVAILABLE = "set_available"
    SET_AWAY = "set_away"
    OFFER = "offer"  # a caller is reserved for them and their phone is rung
    WITHDRAW = "withdraw"  # the offer came to nothing
    CONNECT = "connect"  # they talk with the caller
    FINISH = "finish"  # the call has ended


_S, _E = AgentState, AgentEvent

# What an agent asks for during a call (or a dashboard that goes away then) holds from its end on.
TRANSITIONS: dict[AgentState, dict[AgentEvent, AgentState]] = {
    _S.OFFLINE: {_E.ARRIVE: _S.AWAY},
    _S.AWAY: {_E.SET_AVAILABLE: _S.AVAILABLE, _E.LEAVE: _S.OFFLINE},
    _S.AVAILABLE: {_E.SET_AWAY: _S.AWAY, _E.OFFER: _S.OFFERED, _E.LEAVE: _S.OFFLINE},
    _S.OFFERED: {_E.WITHDRAW: _S.AVAILABLE, _E.CONNECT: _S.IN_CALL},
    _S.IN_CALL: {_E.FINISH: _S.AVAILABLE},
}
_WISHES = {_E.SET_AVAILABLE: _S.AVAILABLE, _E.SET_AWAY: _S.AWAY, _E.LEAVE: _S.OFFLINE, _E.ARRIVE: _S.AWAY}


class IllegalTransitionError(Exception):
    """An event came that the agent's state does not allow: a fault in the program, never of a person."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent at one moment.

    ``endpoint`` is the phone as Asterisk names it (``PJSIP/agent1``); ``idle_since`` says since when no
    call was theirs; ``rests_until`` keeps offers away for a moment after one that came to nothing;
    ``afterwards`` is the state that a call or offer in hand will end in. Times: epoch seconds.
    """

    name: str
    endpoint: str
    state: AgentState = AgentState.OFFLINE
    afterwards: AgentState = AgentState.AVAILABLE
    idle_since: float = 0.0
    rests_until: float = 0.0

    @property
    def engaged(self) -> bool:
        """Whether a caller is reserved for them or talks with them."""
        return self.state in (AgentState.OFFERED, AgentState.IN_CALL)

    @property
    def works(self) -> bool:
        """Whether they take calls now, or are in one."""
        return self.engaged or self.state is AgentState.AVAILABLE

    def after(self, event: AgentEvent, now: float, *, rest: float = 0.0) -> Agent:
        """Give the agent as they are after an event; ``rest`` keeps offers away for that many seconds.

        Raises:
            IllegalTransitionError: the table does not allow it.

        """
        if self.engaged and event in _WISHES:
            if event is _E.ARRIVE and self.afterwards is not _S.OFFLINE:
                return self
            return replace(self, afterwards=_WISHES[event])
        if event in (_E.SET_AVAILABLE, _E.SET_AWAY) and self.state is _WISHES[event]:
            return self
        if event is _E.ARRIVE and self.state is not _S.OFFLINE:
            return self
        try:
            state = TRANSITIONS[self.state][event]
        except KeyError:
            raise IllegalTransitionError(f"{event.value} in state {self.state.value}") from None
        if event is _E.OFFER:
            return replace(self, state=state, afterwards=_S.AVAILABLE)
        if event in (_E.WITHDRAW, _E.FINISH):
            return replace(self, state=self.afterwards, idle_since=now, rests_until=now + rest)
        if event is _E.SET_AVAILABLE:
            return replace(self, state=state, idle_since=now, rests_until=0.0)
        return replace(self, state=state)
