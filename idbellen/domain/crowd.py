"""Who has room at a listener: how many connections it may have, and which one goes when another one comes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

Member = TypeVar("Member", bound="Hashable")


def shares(available: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """Give each what it wants if there is enough for all, else its part of it, which is one at least."""
    total = sum(wanted.values())
    if total <= available:
        return dict(wanted)
    return {name: max(1, number * available // total) for name, number in wanted.items()}


class Crowd(Generic[Member]):
    """The members that are in, of which those who wait make room for who comes; the one who waits longest goes first.

    Who comes waits. ``most``: so many are in; ``most_of_one``: so many of one party, None for no limit of its own.
    """

    def __init__(self, most: int, most_of_one: int | None = None) -> None:
        self._most = most
        self._most_of_one = most if most_of_one is None else most_of_one
        self._party: dict[Member, str] = {}
        self._number: Counter[str] = Counter()
        self._waiting: OrderedDict[Member, None] = OrderedDict()
        self._waiting_of: dict[str, OrderedDict[Member, None]] = {}

    def __len__(self) -> int:
        return len(self._party)

    def of(self, party: str) -> int:
        """Give how many of a party are in."""
        return self._number[party]

    def enter(self, member: Member, party: str = "") -> Member | None:
        """Let a member in; gives who goes for that, None if nobody has to: the member itself if nobody waits.

        Who goes is no longer in. ``party``: whom the member belongs to, empty for nobody.
        """
        goes = None
        if party and self._number[party] >= self._most_of_one:
            goes = next(iter(self._waiting_of.get(party, ())), member)
        elif len(self._party) >= self._most:
            goes = next(iter(self._waiting), member)
        if goes is not None:
            self.leave(goes)
        if goes is not member:
            self._party[member] = party
            self._number[party] += 1
            self.wait(member)
        return goes

    def wait(self, member: Member) -> None:
        """Note that a member waits from now on."""
        if member in self._party:
            self.work(member)
            self._waiting[member] = None
            self._waiting_of.setdefault(self._party[member], OrderedDict())[member] = None

    def work(self, member: Member) -> None:
        """Note that a member waits no longer, and makes room for nobody."""
        if member in self._waiting:
            del self._waiting[member]
            own = self._waiting_of[self._party[member]]
            del own[member]
            if not own:
                del self._waiting_of[self._party[member]]

    def leave(self, member: Member) -> None:
        """Let a member go, if it is in."""
        if member in self._party:
            self.work(member)
            party = self._party.pop(member)
            self._number[party] -= 1
            if not self._number[party]:
                del self._number[party]
