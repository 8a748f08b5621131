"""Floor 1: what the stories need from the world, as small protocols; adapters on floor 3 fill them in."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractAsyncContextManager

    from idbellen.domain.idcontact import AuthResult, Received
    from idbellen.domain.prompts import Prompt


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

    async def outcome(self) -> RingOutcome:
        """Wait until the phone is answered or it is clear that it will not be."""
        ...

    async def hung_up(self) -> None:
        """Wait until the agent hangs up."""
        ...


class Phone(Protocol):
    """One caller's channel, as a story uses it. Whoever uses it after a hangup is cancelled, not failed."""

    @property
    def call(self) -> str:
        """The call's name, unguessable and meaningless; fit for a log."""
        ...

    async def answer(self) -> None:
        """Answer; from now on no digit is lost."""
        ...

    async def digit(self) -> str:
        """Wait for the next key that the caller presses."""
        ...

    async def play(self, prompts: Sequence[Prompt]) -> Playback:
        """Start to play prompts one after the other."""
        ...

    async def music(self) -> None:
        """Play music, after a prompt that still plays, until the call is connected or leaves."""
        ...

    def ring(self, endpoint: str, seconds: float) -> AbstractAsyncContextManager[AgentLeg]:
        """Ring an agent's phone for the block; what is not answered or connected by its end is hung up."""
        ...

    def connected(self, leg: AgentLeg) -> AbstractAsyncContextManager[None]:
        """Let caller and agent talk for the block."""
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


@dataclass(frozen=True, slots=True)
class Session:
    """What ID Contact started: one citizen with one purpose.

    ``result`` is None until the auth result comes. ``language`` is that in which the citizen last saw the page,
    None before that.
    """

    reference: str
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

    async def attach_result(self, reference: str, received: Received) -> Attached:
        """Keep the first auth result of a session, if its token was never accepted before."""
        ...

    async def open_page(self, page_handle: str) -> Session | None:
        """Give the session of a citizen's page to the first browser that opens it; afterwards to none."""
        ...

    async def by_page_handle(self, page_handle: str) -> Session | None:
        """Give the session of a citizen's page, also when it was opened before."""
        ...

    async def by_reference(self, reference: str) -> Session | None:
        """Give a session by its reference."""
        ...

    async def set_language(self, reference: str, language: str) -> None:
        """Note in which language the citizen sees the page."""
        ...

    async def discard(self, reference: str) -> Session | None:
        """Delete a session that the citizen ends; gives it, or None if a call holds it or it is gone."""
        ...

    async def issue_code(self, reference: str, code: str, now: float, *, valid_until: float) -> bool:
        """Give a session its code, in place of an earlier one; False if another session has that code."""
        ...

    async def claim(self, code: str, *, call: str, secret: str, now: float) -> Session | None:
        """Exchange a valid code for a secret, atomically: of several calls with one code, one gets it."""
        ...

    async def release(self, call: str) -> None:
        """Undo the claim of a call, if it has one, that did not reach an agent: the code counts again."""
        ...

    async def by_secret(self, secret: str) -> Session | None:
        """Give the session that a secret was exchanged for."""
        ...

    async def finish(self, call: str) -> Session | None:
        """Delete the session of a call that reached an agent and has ended; gives it as it was."""
        ...

    async def release_all(self) -> int:
        """Undo the claims of an earlier process; gives how many."""
        ...

    async def keep_purposes(self, purposes: Collection[str]) -> int:
        """Delete the sessions of all other purposes, which the configuration no longer has; gives how many."""
        ...

    async def purge(self, now: float, keep_seconds: float) -> int:
        """Delete sessions older than ``keep_seconds`` that no call holds, or twice as old; gives how many."""
        ...


class SessionFeedback(Protocol):
    """Tells auth plugins how the sessions that they gave us a ``session_url`` for are doing.

    Nothing here waits or fails: a call does not suffer from an auth plugin.
    """

    def user_active(self, reference: str) -> None:
        """Tell that the citizen of the session with this reference is in contact with us."""
        ...

    def logout(self, session: Session) -> None:
        """Tell that the citizen or the agent has ended the session."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """An agent's local account."""

    name: str
    endpoint: str
    password_hash: str = field(repr=False)


class AccountStore(Protocol):
    """Keeps the agents' local accounts and who is logged in; times in epoch seconds."""

    async def add_account(self, account: Account) -> bool:
        """Keep a new account; False if the name is taken."""
        ...

    async def remove_account(self, name: str) -> bool:
        """Delete an account and its logins; False if there is none."""
        ...

    async def accounts(self) -> list[Account]:
        """Give all accounts by name."""
        ...

    async def account(self, name: str) -> Account | None:
        """Give one account."""
        ...

    async def log_in(self, login: str, name: str, now: float) -> None:
        """Keep that a browser is logged in as an agent."""
        ...

    async def logged_in(self, login: str, now: float, *, idle: float, absolute: float) -> Account | None:
        """Give the account of a login that has not ended, and count this as activity."""
        ...

    async def log_out(self, login: str) -> None:
        """End a login."""
        ...
