"""Work that is done behind the calls: none waits for it, and none fails with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import structlog

from idbellen.aio import timeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger()

# A planned stop has little time.
STOP_SECONDS = 2.0


class Words(NamedTuple):
    """What the log says when the work fails, when it succeeds again, and when some is left undone at the end."""

    failing: str
    again: str
    lost: str


class Behind:
    """Does work whenever there is some, again while it fails, and once more at the end.

    ``work`` does all there is, and fails as what it works with does; what it has not done it keeps for the next time.
    ``left`` gives how many calls are concerned. After a failure it is tried again in ``first`` seconds, and then ever
    more slowly, up to ``longest``.
    """

    def __init__(
        self,
        work: Callable[[], Awaitable[None]],
        words: Words,
        left: Callable[[], int],
        *,
        first: float,
        longest: float | None = None,
    ) -> None:
        self._work = work
        self._words = words
        self._left = left
        self._first = first
        self._longest = longest or first
        self._pause = 0.0
        self._more = asyncio.Event()

    def more(self) -> None:
        """Say that there is work."""
        self._more.set()

    def failed(self, fault: Exception) -> None:
        """Say that a piece of work was tried in vain, and is left to be done."""
        if not self._pause:
            log.error(self._words.failing, calls=self._left(), reason=_reason(fault))
        self._pause = min(2 * self._pause or self._first, self._longest)
        self._more.set()

    async def run(self) -> None:
        """Do what there is to do, until cancelled."""
        while True:
            await self._more.wait()
            if self._pause:
                await asyncio.sleep(self._pause)
            self._more.clear()
            try:
                await self._work()
            except Exception as fault:  # noqa: BLE001 - whatever it is, it is tried again
                self.failed(fault)
                continue
            if self._pause:
                log.info(self._words.again)
                self._pause = 0.0

    async def flush(self) -> None:
        """Do what is left, once, after :meth:`run` was cancelled. Does not fail."""
        try:
            async with timeout(STOP_SECONDS):
                await self._work()
        except Exception as fault:  # noqa: BLE001 - whatever it is, the stop goes on
            log.error(self._words.lost, calls=self._left(), reason=_reason(fault))  # noqa: TRY400 - one line


def _reason(fault: Exception) -> str:
    return str(fault) or type(fault).__name__
