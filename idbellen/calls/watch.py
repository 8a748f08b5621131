"""Waiting for news about something that has a name: an agent, a session."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Watch:
    """Tells one watcher that what it watches may have changed; changes in between melt into one."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Say that something changed."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait for the next change since the last return."""
        await self._changed.wait()
        self._changed.clear()


class Watches:
    """All who watch, by the name of what they watch."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}

    @contextmanager
    def watch(self, name: str) -> Iterator[Watch]:
        """Watch for the block."""
        watch = Watch()
        self._watches.setdefault(name, set()).add(watch)
        try:
            yield watch
        finally:
            self._watches[name].discard(watch)
            if not self._watches[name]:
                del self._watches[name]

    def watched(self, name: str) -> bool:
        """Whether anybody watches this."""
        return name in self._watches

    def names(self) -> list[str]:
        """Give the names of all that is watched."""
        return list(self._watches)

    def notify(self, name: str) -> None:
        """Tell those who watch this."""
        for watch in self._watches.get(name, ()):
            watch.notify()

    def notify_all(self) -> None:
        """Tell everybody."""
        for name in self._watches:
            self.notify(name)
