"""Small helpers around asyncio."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def cancellations() -> int:
    """Give how often the current task was asked to cancel (:meth:`asyncio.Task.cancelling`)."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


@asynccontextmanager
async def timeout_at(when: float | None) -> AsyncIterator[asyncio.Timeout]:
    """Do as :func:`asyncio.timeout_at` does since Python 3.11.4, also in a task that is being cancelled.

    Before (Debian 12 has 3.11.2), a limit that is reached there raises CancelledError in place of TimeoutError, so that
    what is done in bounded time at a hangup or at a planned stop would end unseen (CPython's issue 102780).
    """
    before = cancellations()
    limit = asyncio.timeout_at(when)
    try:
        async with limit:
            yield limit
    except asyncio.CancelledError:
        if limit.expired() and cancellations() <= before:
            raise TimeoutError from None
        raise


def timeout(seconds: float | None) -> AbstractAsyncContextManager[asyncio.Timeout]:
    """Do as :func:`asyncio.timeout` does, as :func:`timeout_at` says."""
    return timeout_at(None if seconds is None else asyncio.get_running_loop().time() + seconds)
