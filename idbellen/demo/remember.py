"""What the stand-ins remember: the last so many things, so that nobody can fill their memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


def new_handle() -> str:
    """Make a handle that nobody can guess, for use in an address."""
    return secrets.token_urlsafe(16)


class Remembered(Generic[T]):
    """The last ``most`` things, each by its handle; older ones are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: OrderedDict[str, T] = OrderedDict()

    def add(self, thing: T) -> str:
        """Remember a thing; gives its new handle."""
        handle = new_handle()
        self.put(handle, thing)
        return handle

    def put(self, handle: str, thing: T) -> None:
        """Remember a thing by a handle that exists, as the newest and in place of what that stood for."""
        self._things[handle] = thing
        self._things.move_to_end(handle)
        while len(self._things) > self._most:
            self._things.popitem(last=False)

    def get(self, handle: str) -> T | None:
        """Give what a handle stands for, if that is remembered."""
        return self._things.get(handle)

    def take(self, handle: str) -> T | None:
        """Give what a handle stands for, and forget it."""
        return self._things.pop(handle, None)

    def newest_first(self) -> list[T]:
        """Give all that is remembered."""
        return list(reversed(self._things.values()))
