"""Slows guessing down: after too many failures under one key, such as a name or an address, that key has to wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

MOST_KEYS = 100_000
# As many tries as are left are under way; how they end is known soon.
UNDER_WAY_SECONDS = 1.0


@dataclass(slots=True)
class _Entry:
    """What is kept of a key: its failures as of a time, until when it waits, and how many tries are under way."""

    failures: float
    at: float
    until: float
    begun: int = 0


class Lockout:
    """Counts failures by key; times in seconds on any one clock that does not go back.

    A try is begun, and then fails, succeeds or is withdrawn. What is under way counts as a failure, so tries at
    once are no more than those one after the other. After ``tries`` failures a key waits for ``wait`` seconds, and
    twice as long after each further one, up to ``longest``; it then has one try at a time. One failure is forgotten
    every ``forget`` seconds, and a success takes back as many as ``forgives``.

    No key has a say in another's. At most :data:`MOST_KEYS` are kept: beyond that the one whose failures are
    forgotten soonest makes room, but none with a try under way. Each failure keeps its key for ``forget`` seconds
    longer, so that comes to pass only where tries can be evaluated faster than MOST_KEYS in ``forget`` seconds.
    """

    def __init__(self, *, tries: int, wait: float, longest: float, forget: float, forgives: float = math.inf) -> None:
        self._tries = tries
        self._wait = wait
        self._longest = longest
        self._forget = forget
        self._forgives = forgives
        self._entries: dict[Hashable, _Entry] = {}
        self._tidy_at = -math.inf

    def remaining(self, key: Hashable, now: float) -> float:
        """Give how long it is until the key may try again; 0 if it may now."""
        entry = self._entries.get(key)
        if entry is None:
            return 0.0
        if now < entry.until:
            return entry.until - now
        under_way = entry.begun and math.ceil(self._failures(entry, now)) + entry.begun + 1 > self._tries
        return UNDER_WAY_SECONDS if under_way else 0.0

    def begin(self, key: Hashable, now: float) -> None:
        """Begin a try of a key that may."""
        self._entry(key, now).begun += 1

    def failed(self, key: Hashable, now: float) -> None:
        """End a try that failed."""
        entry = self._ended(key, now)
        entry.failures += 1
        # A failure that is partly forgotten is one still.
        over = math.ceil(entry.failures) - self._tries
        if over >= 0:
            entry.until = now + min(self._longest, self._wait * 2.0 ** min(over, 32))

    def succeeded(self, key: Hashable, now: float) -> None:
        """End a try that succeeded."""
        entry = self._ended(key, now)
        entry.failures = max(0.0, entry.failures - self._forgives)
        self._drop_if_clean(key, entry)

    def withdrawn(self, key: Hashable, now: float) -> None:
        """End a try that was not evaluated: it counts as if it had not been begun."""
        self._drop_if_clean(key, self._ended(key, now))

    def weight(self, key: Hashable, now: float) -> float:
        """Give how many failures a key has, what is under way included."""
        entry = self._entries.get(key)
        return self._failures(entry, now) + entry.begun if entry else 0.0

    def _failures(self, entry: _Entry, now: float) -> float:
        return max(0.0, entry.failures - (now - entry.at) / self._forget)

    def _lapses(self, entry: _Entry) -> float:
        return max(entry.until, entry.at + entry.failures * self._forget)

    def _ended(self, key: Hashable, now: float) -> _Entry:
        entry = self._entries[key]
        entry.begun -= 1
        entry.failures, entry.at = self._failures(entry, now), now
        return entry

    def _drop_if_clean(self, key: Hashable, entry: _Entry) -> None:
        if not entry.begun and not entry.failures:
            del self._entries[key]

    def _entry(self, key: Hashable, now: float) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            if now >= self._tidy_at or len(self._entries) >= MOST_KEYS:
                self._tidy(now)
            entry = self._entries[key] = _Entry(0.0, now, now)
        return entry

    def _tidy(self, now: float) -> None:
        self._tidy_at = now + self._forget
        for key in [key for key, entry in self._entries.items() if not entry.begun and self._lapses(entry) <= now]:
            del self._entries[key]
        if len(self._entries) >= MOST_KEYS:
            idle = [key for key, entry in self._entries.items() if not entry.begun]
            if idle:
                del self._entries[min(idle, key=lambda key: self._lapses(self._entries[key]))]


class Try:
    """One try that counts under several keys, each in a lockout; times as there."""

    def __init__(self, *counts: tuple[Lockout, Hashable]) -> None:
        self._counts = counts

    def begin(self, now: float) -> float:
        """Begin it, if all keys may; gives 0 then, and else how long it is until they may. It must then be ended."""
        remaining = max(lockout.remaining(key, now) for lockout, key in self._counts)
        if not remaining:
            for lockout, key in self._counts:
                lockout.begin(key, now)
        return remaining

    def failed(self, now: float) -> None:
        """End it as failed."""
        for lockout, key in self._counts:
            lockout.failed(key, now)

    def succeeded(self, now: float) -> None:
        """End it as one that succeeded."""
        for lockout, key in self._counts:
            lockout.succeeded(key, now)

    def withdrawn(self, now: float) -> None:
        """End it as one that was not evaluated."""
        for lockout, key in self._counts:
            lockout.withdrawn(key, now)

    def weight(self, now: float) -> float:
        """Give how many failures its keys have together, what is under way included."""
        return sum(lockout.weight(key, now) for lockout, key in self._counts)
