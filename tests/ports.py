"""Free ports on loopback, so that two runs of the tests on one machine do not meet."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, closing

_given: set[int] = set()


def free_ports(count: int = 1) -> int:
    """Give the first of ``count`` neighbouring ports that nobody uses and that were not given before."""
    for _ in range(1000):
        # Below the ports that the system gives out by itself.
        first = random.randrange(20_000, 32_000 - count)
        wanted = range(first, first + count)
        if not _given & set(wanted) and all(map(_free, wanted)):
            _given.update(wanted)
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
