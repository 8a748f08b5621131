"""Free ports on loopback, so that two runs of the tests on one machine do not meet."""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from contextlib import ExitStack, closing

# Of the processes that run the tests side by side each has ports of its own: gw0 and gw1, or one process alone.
_WORKERS = 2
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS


def _share(of: range) -> range:
    size = len(of) // _WORKERS
    return range(of.start + _WORKER * size, of.start + (_WORKER + 1) * size)


# Many neighbours, such as those for RTP, are not all in use at any time, so nobody else gets ports between them.
MANY = 40
PORTS_FOR_MANY = _share(range(10_000, 18_000))
# All below the ports that the system gives out by itself.
PORTS_FOR_FEW = _share(range(18_000, 32_000))
# What was given so long ago is in use, which is seen, or no longer wanted.
_given: deque[int] = deque(maxlen=3000)
_blocks: set[int] = set()


def free_ports(count: int = 1) -> int:
    """Give the first of ``count`` neighbouring ports that nobody uses and that were not given of late."""
    among = PORTS_FOR_MANY if count >= MANY else PORTS_FOR_FEW
    taken = set(_given) | _blocks
    for _ in range(1000):
        first = random.randrange(among.start, among.stop - count)
        wanted = range(first, first + count)
        if taken.isdisjoint(wanted) and all(map(_free, wanted)):
            (_blocks.update if count >= MANY else _given.extend)(wanted)
            return first
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
