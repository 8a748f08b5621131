"""Slows guessing down: too many failures under one name, and it has to wait."""

from __future__ import annotations

from collections import OrderedDict

MOST_NAMES = 10_000


class Lockout:
    """Counts failures by name; times in seconds on any one clock.

    After ``tries`` failures a name is locked for ``wait`` seconds, and twice as long after each further one,
    up to ``longest``. The least recently failed name makes room when there are too many.
    """

    def __init__(self, *, tries: int, wait: float, longest: float) -> None:
        self._tries = tries
        self._wait = wait
        self._longest = longest
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def remaining(self, name: str, now: float) -> float:
        """Give how long the name is still locked; 0 if it is not."""
        _, until = self._failures.get(name, (0, now))
        return max(0.0, until - now)

    def failed(self, name: str, now: float) -> None:
        """Note a failure."""
        failures = self._failures.pop(name, (0, now))[0] + 1
        over = failures - self._tries
        until = now if over < 0 else now + min(self._longest, self._wait * 2.0 ** min(over, 32))
        self._failures[name] = (failures, until)
        if len(self._failures) > MOST_NAMES:
            self._failures.popitem(last=False)

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name."""
        self._failures.pop(name, None)
