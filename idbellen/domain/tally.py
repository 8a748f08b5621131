"""What happens ever so often is told once, and then by its number."""

from __future__ import annotations


class Tally:
    """Says which of many like events are told; times in seconds on any one clock.

    The first is told at once. What comes within ``quiet`` seconds after something was told is counted.
    """

    def __init__(self, quiet: float) -> None:
        self._quiet = quiet
        self._count = 0
        self.next = float("-inf")
        """When something may be told again."""

    def happened(self, now: float) -> int:
        """Note an event; gives how many are to be told of now, 0 for none."""
        self._count += 1
        return self.due(now)

    def due(self, now: float) -> int:
        """Give how many are to be told of now; they then count as told."""
        if now < self.next or not self._count:
            return 0
        count, self._count = self._count, 0
        self.next = now + self._quiet
        return count
