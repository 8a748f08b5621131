"""Small helpers around asyncio."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


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


async def first_of(*events: asyncio.Event) -> None:
    """Wait for the first of several events."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def to_its_end(work: Awaitable[None], let_be: type[Exception]) -> None:
    """Do what has to be done also when we are cancelled meanwhile; a fault of the kind ``let_be`` is let be."""

    async def quietly() -> None:
        with suppress(let_be):
            await work

    await asyncio.shield(quietly())


async def reconnecting(
    once: Callable[[Callable[[], None]], Awaitable[None]],
    lost: Callable[[str, bool], None],
    fault: type[Exception],
    *,
    first: float,
    longest: float,
) -> None:
    """Keep a connection up until cancelled: a lost one is opened again after ``first`` seconds, and ever more slowly.

    ``once`` connects, calls what it is given as soon as that is done, and stays until the connection is lost; it gives
    the reason by ``fault``, or ends. ``lost`` is then called with the reason, and whether it is news: it was up, or
    this is the first time in vain. A server that takes connections and closes them at once is asked ever more slowly
    too: only who was up for ``longest`` seconds begins with ``first`` again.
    """
    now = asyncio.get_running_loop().time
    pause = first
    since: list[float] = []
    while True:
        since.clear()
        reason = "closed by the other side"
        try:
            await once(lambda: since.append(now()))
        except fault as told:
            reason = str(told)
        if since and now() - since[0] > longest:
            pause = first
        lost(reason, bool(since) or pause == first)
        # A little shorter, at random, so that not all who lost a server come back in one moment.
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        pause = min(longest, pause * 2)
