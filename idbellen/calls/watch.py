"""Waiting for news about something that has a name: an agent, a session."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Name = TypeVar("Name", bound=str)


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


class Watches(Generic[Name]):
    """All who watch, by the name of what they watch."""

    def __init__(self) -> None:
        self._watches: dict[Name, set[Watch]] = {}

    @contextmanager
    def watch(self, name: Name) -> Iterator[Watch]:
        """Watch for the block."""
        watch = Watch()
        self._watches.setdefault(name, set()).add(watch)
        try:
            yield watch
        finally:
            self._watches[name].discard(watch)
            if not self._watches[name]:
                del self._watches[name]

    def names(self) -> list[Name]:
        """Give the names of all that is watched."""
        return list(self._watches)

    def notify(self, name: Name) -> None:
        """Tell those who watch this."""
        for watch in self._watches.get(name, ()):
            watch.notify()

    def notify_all(self) -> None:
        """Tell everybody."""
        for name in self._watches:
            self.notify(name)


class News:
    """Tells that something has changed: once for each change, and only when it is whole.

    ``settle`` is what a change leads to, such as an offer to an agent who has become free; what that changes is a part
    of it.
    """

    def __init__(self) -> None:
        self.settle: Callable[[], None] = lambda: None
        self._listeners: list[Callable[[], None]] = []
        self._changed = False
        self._under_way = False

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call somebody after every change."""
        self._listeners.append(listener)

    def changed(self) -> None:
        """Say that something has changed."""
        self._changed = True
        with self.change():
            pass

    @contextmanager
    def change(self) -> Iterator[None]:
        """Make one change of all that changes in the block."""
        if self._under_way:
            # A part of a change that is told when it is whole.
            yield
            return
        self._under_way = True
        try:
            try:
                yield
            finally:
                # Also what had changed before a fault: somebody may wait for it.
                self._tell()
        finally:
            self._under_way = False

    def _tell(self) -> None:
        while self._changed:
            while self._changed:
                self._changed = False
                self.settle()
            for listener in self._listeners:
                listener()
