"""Who has room at a listener: how many connections it may have, and which one goes when another one comes."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

Member = TypeVar("Member", bound="Hashable")


def shares(available: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """Give each what it wants if there is enough for all, else its part of it, which is one at least."""
    total = sum(wanted.values())
    if total <= available:
        return dict(wanted)
    return {name: max(1, number * available // total) for name, number in wanted.items()}


class _Waiting(Generic[Member]):
    """Those who wait: strangers, who have done nothing yet, and others."""

    def __init__(self) -> None:
        self._strangers: OrderedDict[Member, None] = OrderedDict()
        self._others: OrderedDict[Member, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._strangers or self._others)

    def __contains__(self, member: object) -> bool:
        return member in self._strangers or member in self._others

    def add(self, member: Member, *, stranger: bool) -> None:
        (self._strangers if stranger else self._others)[member] = None

    def discard(self, member: Member) -> None:
        self._strangers.pop(member, None)
        self._others.pop(member, None)

    def first(self) -> Member:
        """Give who goes first: of the larger group, so that a flood of one kind does not wash the other kind away."""
        group = self._strangers if len(self._strangers) >= len(self._others) else self._others
        return next(iter(group))


class Crowd(Generic[Member]):
    """The members that are in. Those who wait make room for a new one; the one who waits longest goes first.

    A new one waits. ``most``: so many may be in; ``most_of_one``: so many of one party; None: as many as come.
    """

    def __init__(self, most: int | None = None, most_of_one: int | None = None) -> None:
        self._most = sys.maxsize if most is None else most
        self._most_of_one = sys.maxsize if most_of_one is None else most_of_one
        self._party: dict[Member, str] = {}
        self._number: Counter[str] = Counter()
        self._waiting: _Waiting[Member] = _Waiting()
        self._waiting_of: dict[str, _Waiting[Member]] = {}

    def __contains__(self, member: object) -> bool:
        return member in self._party

    def __iter__(self) -> Iterator[Member]:
        return iter(self._party)

    def first(self) -> Member | None:
        """Give who would go first, None if nobody waits."""
        return self._waiting.first() if self._waiting else None

    def of(self, party: str) -> int:
        """Give how many of a party are in."""
        return self._number[party]

    def enter(self, member: Member, party: str = "") -> Member | None:
        """Let a member in; gives who goes for that, None if nobody has to: the member itself if nobody waits.

        Who goes is no longer in. ``party``: whom the member belongs to, empty for nobody.
        """
        waiting = None
        if party and self._number[party] >= self._most_of_one:
            waiting = self._waiting_of.get(party) or ()
        elif len(self._party) >= self._most:
            waiting = self._waiting or ()
        goes = None if waiting is None else waiting.first() if waiting else member
        if goes is member:
            return member
        if goes is not None:
            self.leave(goes)
        self._party[member] = party
        self._number[party] += 1
        self._waiting.add(member, stranger=True)
        self._waiting_of.setdefault(party, _Waiting()).add(member, stranger=True)
        return goes

    def wait(self, member: Member, *, stranger: bool = False) -> None:
        """Note that a member waits from now on, as a stranger if it has done nothing yet."""
        if member in self._party:
            self.work(member)
            self._waiting.add(member, stranger=stranger)
            self._waiting_of.setdefault(self._party[member], _Waiting()).add(member, stranger=stranger)

    def work(self, member: Member) -> None:
        """Note that a member waits no longer, and makes room for nobody."""
        if member in self._waiting:
            self._waiting.discard(member)
            party = self._party[member]
            self._waiting_of[party].discard(member)
            if not self._waiting_of[party]:
                del self._waiting_of[party]

    def leave(self, member: Member) -> None:
        """Let a member go, if it is in."""
        if member in self._party:
            self.work(member)
            party = self._party.pop(member)
            self._number[party] -= 1
            if not self._number[party]:
                del self._number[party]
