"""Floor 1: what the stories need from the world, as small protocols; adapters on floor 3 fill them in."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from idbellen.domain.board import Day
    from idbellen.domain.idcontact import AuthResult, Received
    from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
    from idbellen.domain.prompts import Prompt
    from idbellen.domain.statistics import CallRecord


class StoreError(Exception):
    """A store cannot be used; the message says which one and why."""


class UnfitStoreError(StoreError):
    """It cannot be used however long one waits: somebody has to do something about it first."""


class Clock(Protocol):
    """Tells the time in epoch seconds."""

    def __call__(self) -> float:
        """Give the time now."""
        ...


class RingOutcome(enum.Enum):
    """How ringing an agent's phone ended. The value is what the log says."""

    ANSWERED = "answered"
    BUSY = "busy"
    DECLINED = "declined"
    NO_ANSWER = "no answer"
    UNREACHABLE = "unreachable"


class Playback(Protocol):
    """A prompt that is being played."""

    async def ended(self) -> None:
        """Wait until it has ended, in whichever way."""
        ...

    async def stop(self) -> None:
        """Stop it if it still plays."""
        ...


class AgentLeg(Protocol):
    """An agent's phone that we ring."""

    @property
    def channel(self) -> str:
        """What Asterisk calls its channel."""
        ...

    @property
    def endpoint(self) -> str:
        """The phone as Asterisk names it."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it is still there, as far as is known."""
        ...

    async def outcome(self) -> RingOutcome:
        """Wait until the phone is answered or it is clear that it will not be."""
        ...

    async def hung_up(self) -> None:
        """Wait until the agent hangs up."""
        ...

    async def hold_changed(self) -> bool:
        """Wait until the phone's own key holds, or no longer does, or that is not certain; gives whether it holds."""
        ...


class Bridge(Protocol):
    """Where the parties of a call talk. What is asked of a party who has just hung up has no effect."""

    @property
    def name(self) -> str:
        """What Asterisk calls it."""
        ...

    @property
    def open(self) -> bool:
        """Whether it was still there when it was taken up."""
        ...

    async def hold(self) -> None:
        """Take the caller out, to hear music; once more is as good as once."""
        ...

    async def resume(self) -> None:
        """Take the caller in again."""
        ...

    async def join(self, leg: AgentLeg) -> None:
        """Take somebody else in."""
        ...

    async def mute(self, leg: AgentLeg, *, on: bool) -> None:
        """Close or open the microphone of a party who is in."""
        ...


class Phone(Protocol):
    """One caller's channel, as a story uses it. Whoever uses it after a hangup is cancelled, not failed."""

    @property
    def call(self) -> CallId:
        """The call's name, unguessable and meaningless; fit for a log."""
        ...

    @property
    def channel(self) -> str:
        """What Asterisk calls the caller's channel."""
        ...

    @property
    def server(self) -> str:
        """The name of the Asterisk that the caller is on."""
        ...

    async def answer(self) -> None:
        """Answer; from now on no digit is lost."""
        ...

    async def digit(self) -> str:
        """Wait for the next key that the caller presses."""
        ...

    async def play(self, prompts: Sequence[Prompt]) -> Playback:
        """Start to play prompts one after the other, in place of what still plays."""
        ...

    def on_play(self, told: Callable[[tuple[str, ...]], None]) -> None:
        """Call somebody with what Asterisk calls the prompts, whenever some are about to be played."""
        ...

    async def music(self, music_class: str) -> None:
        """Play music, after a prompt that still plays, until the call is connected or leaves; empty: the usual."""
        ...

    def ring(self, endpoint: str, seconds: float) -> AbstractAsyncContextManager[AgentLeg]:
        """Ring a phone for the block; what is not answered or connected by its end is hung up."""
        ...

    def bridge(self, leg: AgentLeg, music_class: str) -> AbstractAsyncContextManager[Bridge]:
        """Let caller and agent talk for the block; a caller who is held hears this music."""
        ...

    def reattach(self, channel: str, endpoint: str) -> AbstractAsyncContextManager[AgentLeg]:
        """Take up a phone that an earlier process rang, for the block; as :meth:`ring` does."""
        ...

    def rejoin(
        self, bridge: str, legs: Sequence[AgentLeg], music_class: str, *, held: bool
    ) -> AbstractAsyncContextManager[Bridge]:
        """Take up a bridge that an earlier process made, for the block; as :meth:`bridge` does.

        ``legs``: who is in, first who has the caller. ``held``: whether the caller is to be out of it.
        """
        ...

    async def hung_up(self) -> None:
        """Wait until the caller hangs up, or the channel is lost in another way."""
        ...

    async def hang_up(self) -> None:
        """End the call."""
        ...

    async def to_plain_queue(self) -> None:
        """Send the caller to where an ordinary caller would go (dialplan: ``idbellen-plain``)."""
        ...

    async def to_extension(self, context: str, extension: str, priority: int) -> None:
        """Send the caller to a place in the dialplan."""
        ...


class CallLog(Protocol):
    """Counts what happens, for the figures of the day and the history. Nothing here waits or fails."""

    def ended(self, record: CallRecord) -> None:
        """Note how a caller's stay in a queue ended."""
        ...

    def missed(self, agent: AgentName) -> None:
        """Note that an agent did not answer an offer."""
        ...

    def day(self, agent: AgentName) -> Day:
        """Give an agent's figures of today."""
        ...


@dataclass(frozen=True, slots=True)
class Session:
    """What ID Contact started: one citizen with one purpose.

    ``result`` is None until the auth result comes. ``language`` is that in which the citizen last saw the page,
    None before that.
    """

    reference: SessionRef
    purpose: str
    result: AuthResult | None = field(default=None, repr=False)
    language: str | None = None


class Attached(enum.Enum):
    """What became of an auth result that came in."""

    KEPT = "kept"
    SECOND = "second"  # the session has one already, or is gone
    REPLAYED = "replayed"  # this very token was accepted before


class SessionStore(Protocol):
    """Keeps sessions; times in epoch seconds.

    It knows codes, secrets and handles by their fingerprints only, and auth results sealed.
    """

    async def start(
        self, session: Session, *, attr_handle: str, page_handle: str, now: float, received: Received | None = None
    ) -> bool:
        """Keep a new session, with its auth result if that came along; False if the token was accepted before."""
        ...

    async def by_attr_handle(self, attr_handle: str) -> Session | None:
        """Give the session for which an auth plugin delivers at this address."""
        ...

    async def attach_result(self, reference: SessionRef, received: Received) -> Attached:
        """Keep the first auth result of a session, if its token was never accepted before."""
        ...

    async def open_page(self, page_handle: str) -> Session | None:
        """Give the session of a citizen's page to the first browser that opens it; afterwards to none."""
        ...

    async def by_page_handle(self, page_handle: str) -> Session | None:
        """Give the session of a citizen's page, also when it was opened before."""
        ...

    async def by_reference(self, reference: SessionRef) -> Session | None:
        """Give a session by its reference."""
        ...

    async def set_language(self, reference: SessionRef, language: str) -> None:
        """Note in which language the citizen sees the page."""
        ...

    async def discard(self, reference: SessionRef) -> Session | None:
        """Delete a session that the citizen ends; gives it, or None if a call holds it or it is gone."""
        ...

    async def issue_code(self, reference: SessionRef, code: str, now: float, *, valid_until: float) -> bool:
        """Give a session its code, in place of an earlier one; False if another session has that code."""
        ...

    async def claim(self, code: str, *, call: CallId, secret: Secret, now: float) -> Session | None:
        """Exchange a valid code for a secret, atomically: of several calls with one code, one gets it.

        A call that has it, and asks again with the same secret since it got no answer, is given it once more.
        """
        ...

    async def release(self, call: CallId) -> None:
        """Undo the claim of a call, if it has one, that did not reach an agent: the code counts again."""
        ...

    async def by_secret(self, secret: Secret) -> Session | None:
        """Give the session that a secret was exchanged for."""
        ...

    async def finish(self, call: CallId) -> Session | None:
        """Delete the session of a call that reached an agent and has ended; gives it as it was."""
        ...

    async def release_others(self, calls: Collection[CallId]) -> int:
        """Undo the claims of an earlier process but for those of these calls; gives how many."""
        ...

    async def keep_purposes(self, purposes: Collection[str]) -> int:
        """Delete the sessions of all other purposes, which the configuration no longer has; gives how many."""
        ...

    async def purge(self, now: float, keep_seconds: float) -> int:
        """Delete sessions older than ``keep_seconds`` that no call holds, or twice as old; gives how many."""
        ...


class WritableStore(Protocol):
    """Can say whether it would take something new."""

    async def try_to_write(self) -> None:
        """Write what needs room, and leave nothing behind; :exc:`StoreError` if it cannot be written."""
        ...


class NoteStore(Protocol):
    """Keeps notes by name, so that another process can take up what this one has in hand. They are sealed."""

    async def note(self, notes: Mapping[str, str | None]) -> None:
        """Keep notes in place of earlier ones of the same names, delete those that are None; whole or not at all."""
        ...

    async def notes(self) -> dict[str, str]:
        """Give all notes by name."""
        ...


class SessionFeedback(Protocol):
    """Tells auth plugins how the sessions that they gave us a ``session_url`` for are doing.

    Nothing here waits or fails: a call does not suffer from an auth plugin.
    """

    def user_active(self, reference: SessionRef) -> None:
        """Tell that the citizen of the session with this reference is in contact with us."""
        ...

    def logout(self, session: Session) -> None:
        """Tell that the citizen or the agent has ended the session."""
        ...


class Role(enum.Enum):
    """What an account may do. The value is what the store and the command line say."""

    AGENT = "agent"
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class Account:
    """An agent's local account.

    ``endpoint`` is the phone as Asterisk names it (``PJSIP/agent1``), or several
    (:func:`idbellen.domain.agents.phones_of`); ``queues`` maps the queues that they serve to their penalty there, where
    0 is first choice, and is empty for whoever serves them all.
    """

    name: AgentName
    endpoint: str
    password_hash: str = field(repr=False)
    role: Role = Role.AGENT
    queues: Mapping[QueueName, int] = field(default_factory=dict)


class AccountStore(Protocol):
    """Keeps the agents' local accounts and who is logged in; times in epoch seconds."""

    async def add_account(self, account: Account) -> bool:
        """Keep a new account; False if the name is taken."""
        ...

    async def remove_account(self, name: AgentName) -> bool:
        """Delete an account and its logins; False if there is none."""
        ...

    async def accounts(self) -> list[Account]:
        """Give all accounts by name."""
        ...

    async def account(self, name: AgentName) -> Account | None:
        """Give one account."""
        ...

    async def by_endpoint(self, endpoint: str) -> Account | None:
        """Give the account with this phone, be it one of several; None if there is none, or if accounts share it."""
        ...

    async def change_account(
        self,
        name: AgentName,
        *,
        endpoint: str | None = None,
        role: Role | None = None,
        queues: Mapping[QueueName, int] | None = None,
        password_hash: str | None = None,
    ) -> bool:
        """Change what is given of an account; False if there is none. Another password ends its logins."""
        ...

    async def log_in(self, login: str, name: AgentName, now: float) -> None:
        """Keep that a browser is logged in as an agent."""
        ...

    async def logged_in(self, login: str, now: float, *, idle: float, absolute: float) -> Account | None:
        """Give the account of a login that has not ended, and count this as activity."""
        ...

    async def log_out(self, login: str) -> None:
        """End a login."""
        ...


class History(Protocol):
    """Keeps the records of calls, which hold nothing of the citizen; times in epoch seconds."""

    async def keep_call(self, record: CallRecord) -> None:
        """Keep a record, in place of an earlier one of the same arrival in the same queue."""
        ...

    async def calls(self, since: float, until: float, queue: QueueName | None = None) -> list[CallRecord]:
        """Give the records of those who arrived from ``since`` until just before ``until``, by arrival."""
        ...

    async def forget_calls(self, before: float) -> int:
        """Delete the records of those who arrived before this; gives how many."""
        ...


class AuditTrail(Protocol):
    """Keeps who did what, so that a later change to it is found."""

    async def record(self, actor: str, action: str, subject: str, **detail: str) -> None:
        """Append an entry. No value of a citizen's attribute belongs in it, only the attributes' names."""
        ...


class Endpoints(Protocol):
    """What is known of agents' phones before they are rung."""

    async def follow(self, endpoint: str) -> None:
        """Follow a phone from now on, and tell the staff how it is now."""
        ...


MonitorMode = Literal["listen", "whisper", "barge"]


class Monitor(Protocol):
    """Lets somebody hear the call that an agent is in, over a phone of their own."""

    async def request(self, agent: AgentName, endpoint: str, mode: MonitorMode, *, announce: bool) -> bool:
        """Ring ``endpoint`` and connect it to the agent's call; False if that cannot be.

        It takes until the phone is answered. ``announce``: the agent is told first.
        """
        ...
