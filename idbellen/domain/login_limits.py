"""How often passwords may be tried, and by whom; and what an attack on one account looks like."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idbellen.domain.lockout import Lockout, Try

if TYPE_CHECKING:
    from idbellen.domain.ids import AgentName


class LoginLimits:
    """Limits failures by name and address together, and by address; times in seconds on one clock.

    A name is never locked for those who have not failed at it, whoever else did. A browser that is known for the
    name is a party of its own: no failure at its address counts for it, and none of its own for the address.
    """

    def __init__(self) -> None:
        self._pairs = Lockout(tries=5, wait=10.0, longest=900.0, forget=900.0)
        # A whole town hall may have one address: this stops who tries one name after the other, and colleagues who
        # mistype do not come near it.
        self._addresses = Lockout(tries=50, wait=20.0, longest=20.0, forget=20.0, forgives=0.0)

    def attempt(self, name: AgentName, *, address: str, browser: str = "") -> Try:
        """Give a try of this name's password.

        ``address``: where it comes from; empty if that is not known. ``browser``: the mark of a browser in which this
        name was logged in before; empty for any other.
        """
        if browser:
            return Try((self._pairs, (name, "browser", browser)))
        return Try((self._pairs, (name, "address", address)), (self._addresses, address))


@dataclass(frozen=True, slots=True)
class Attack:
    """The latest failures on one account: how many, and from how many addresses."""

    failures: int
    addresses: int


class AttackWatch:
    """Notices that passwords of one account are tried from many addresses; times in seconds.

    That is ``failures`` within ``seconds``, from ``addresses`` or more. It is told once in that time by account.
    """

    def __init__(self, *, failures: int, addresses: int, seconds: float) -> None:
        self._failures = failures
        self._addresses = addresses
        self._seconds = seconds
        self._latest: dict[AgentName, deque[tuple[float, str]]] = {}
        self._told: dict[AgentName, float] = {}

    def failed(self, account: AgentName, address: str, now: float) -> Attack | None:
        """Note a failure on an account that there is; gives the attack that this is part of, if it is to be told."""
        latest = self._latest.setdefault(account, deque(maxlen=self._failures))
        latest.append((now, address))
        addresses = len({address for _, address in latest})
        if (
            len(latest) < self._failures
            or now - latest[0][0] > self._seconds
            or addresses < self._addresses
            or now - self._told.get(account, now - self._seconds) < self._seconds
        ):
            return None
        self._told[account] = now
        return Attack(len(latest), addresses)
