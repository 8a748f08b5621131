"""The time that a process goes by, whatever happens to the machine's clock."""

from __future__ import annotations

import asyncio
import time

import structlog

log = structlog.get_logger()

LOOK_SECONDS = 10.0
# What NTP puts right little by little is less.
ASTRAY_SECONDS = 2.0


class SteadyClock:
    """Epoch seconds that go on evenly from the start of the process, also when the machine's clock is set.

    So nobody waits, rests or wraps up for an hour too long or too short, and no code ends early.
    """

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Give the time now."""
        return self._start + time.monotonic()

    async def run(self) -> None:
        """Tell when the machine's clock has been set, until cancelled."""
        told = 0.0
        while True:
            astray = time.time() - self()
            if abs(astray - told) > ASTRAY_SECONDS:
                log.warning("the machine's clock was set: restart idbellen when it suits", seconds=round(astray))
                told = astray
            await asyncio.sleep(LOOK_SECONDS)
