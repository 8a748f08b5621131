"""Free ports on loopback, so that two runs of the tests on one machine do not meet."""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of the processes that run the tests side by side (gw0, gw1, ...) each has ports of its own.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def _share(of: range) -> range:
    size = len(of) // _WORKERS
    return range(of.start + _WORKER * size, of.start + (_WORKER + 1) * size)


# Many neighbours are not all in use at any time, so nobody else gets ports between them.
_FOR_MANY = _share(range(10_000, 18_000))
# All below the ports that the system gives out by itself.
_FOR_FEW = _share(range(18_000, 32_000))
# What was given so long ago is in use, which is seen, or no longer wanted.
_given: deque[int] = deque(maxlen=len(_FOR_FEW) // 8)
_reserved: set[int] = set()


def free_ports(count: int = 1) -> int:
    """Give the first of ``count`` neighbouring ports that nobody uses and that were not given of late."""
    wanted = _find(_FOR_FEW, count, set(_given))
    _given.extend(wanted)
    return wanted.start


@contextmanager
def reserved_ports(count: int) -> Iterator[int]:
    """Keep many neighbouring ports for the block, and give the first."""
    wanted = _find(_FOR_MANY, count, _reserved)
    _reserved.update(wanted)
    try:
        yield wanted.start
    finally:
        _reserved.difference_update(wanted)


def _find(among: range, count: int, taken: set[int]) -> range:
    # Anywhere at first, so that two runs do not meet; where many are taken, each place in turn.
    places = range(among.start, among.stop - count + 1)
    for first in (*(random.choice(places) for _ in range(100)), *places):
        wanted = range(first, first + count)
        if taken.isdisjoint(wanted) and all(map(_free, wanted)):
            return wanted
    raise AssertionError("no free ports on loopback")


def _free(port: int) -> bool:
    with ExitStack() as stack:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            attempt = stack.enter_context(closing(socket.socket(socket.AF_INET, kind)))
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
