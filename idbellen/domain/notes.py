"""What is noted of calls and agents, so that another process can take them up where this one left them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from idbellen.domain.agents import Agent, AgentState
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret  # noqa: TC001 - pydantic looks for it
from idbellen.domain.queueing import Ticket  # noqa: TC001 - pydantic looks for it
from idbellen.domain.talk import Mode, Target
from idbellen.domain.whereabouts import MAIN

_Note = TypeVar("_Note", "CallNote", "AgentNote")


class NoteError(Exception):
    """A note cannot be read: another version wrote it, or it is damaged."""


@dataclass(frozen=True, slots=True)
class PartyNote:
    """Somebody who talks, besides the caller: the channel and endpoint of their phone; ``agent``: None outside.

    ``since``: when they began to talk, in epoch seconds. ``holds``: their phone holds, by its own key.
    """

    channel: str
    endpoint: str
    agent: AgentName | None
    since: float
    muted: bool = False
    holds: bool = False


@dataclass(frozen=True, slots=True)
class TalkNote:
    """A conversation: in which bridge, with whom, and how the parties are together. ``over``: all is said."""

    bridge: str
    main: PartyNote
    second: PartyNote | None = None
    mode: Mode = Mode.TALKING
    target: Target | None = None
    shared: bool = False
    over: bool = False

    @property
    def parties(self) -> list[PartyNote]:
        """All who talk, besides the caller."""
        return [self.main, self.second] if self.second else [self.main]


@dataclass(frozen=True, slots=True)
class CallNote:
    """One call: asked for its code as long as there is no ticket, then waiting, then with ``talk`` talking.

    ``channel``: the caller's, on the Asterisk ``server``; both are empty for one who is not on the phone. ``secret``:
    for which a code is exchanged. ``entered``: when the caller came into the queue of the ticket (0: is about to), and
    ``answered``: when an agent answered there, in epoch seconds. ``served``: an agent has spoken with the caller.
    ``playing``: what Asterisk calls the prompts that the caller was last played.
    """

    call: CallId
    channel: str
    secret: Secret | None = field(default=None, repr=False)
    ticket: Ticket | None = None
    entered: float = 0.0
    answered: float = 0.0
    served: bool = False
    talk: TalkNote | None = None
    playing: tuple[str, ...] = ()
    server: str = MAIN

    @property
    def parties(self) -> list[PartyNote]:
        """All who talk with the caller."""
        return self.talk.parties if self.talk else []


@dataclass(frozen=True, slots=True)
class AgentNote:
    """An agent as :class:`idbellen.domain.agents.Agent` describes them; ``by_phone``: logged in by desk phone."""

    name: AgentName
    state: AgentState
    reason: str
    since: float
    afterwards: AgentState
    afterwards_reason: str
    idle_since: float
    offered_at: float
    missed: int
    wrap_up_until: float
    by_phone: bool

    def agent(self, endpoint: str, queues: dict[QueueName, int]) -> Agent:
        """Give the agent, with what their account says now; an offer in hand has come to nothing."""
        offered = self.state in (AgentState.OFFERED, AgentState.RINGING)
        return Agent(
            self.name,
            endpoint,
            queues,
            state=self.afterwards if offered else self.state,
            reason=self.afterwards_reason if offered else self.reason,
            since=self.since,
            afterwards=self.afterwards,
            afterwards_reason=self.afterwards_reason,
            idle_since=self.idle_since,
            offered_at=self.offered_at,
            missed=self.missed,
            wrap_up_until=self.wrap_up_until,
        )


def note_agent(agent: Agent, *, by_phone: bool) -> AgentNote:
    """Give the note of an agent."""
    return AgentNote(
        agent.name,
        agent.state,
        agent.reason,
        agent.since,
        agent.afterwards,
        agent.afterwards_reason,
        agent.idle_since,
        agent.offered_at,
        agent.missed,
        agent.wrap_up_until,
        by_phone,
    )


_CALL = TypeAdapter(CallNote)
_AGENT = TypeAdapter(AgentNote)


def write_call(note: CallNote) -> str:
    """Give a note as text."""
    return _CALL.dump_json(note).decode()


def write_agent(note: AgentNote) -> str:
    """Give a note as text."""
    return _AGENT.dump_json(note).decode()


def read_call(text: str) -> CallNote:
    """Give the note that a text is of.

    Raises:
        NoteError: it is none.

    """
    return _read(_CALL, text)


def read_agent(text: str) -> AgentNote:
    """Give the note that a text is of.

    Raises:
        NoteError: it is none.

    """
    return _read(_AGENT, text)


def _read(adapter: TypeAdapter[_Note], text: str) -> _Note:
    try:
        return adapter.validate_json(text)
    except ValidationError as fault:
        # Without the values, which hold secrets.
        raise NoteError("; ".join(f"{error['loc']}: {error['type']}" for error in fault.errors())) from None
