"""Whose turn it is to serve, of the processes that share a store in Redis: one at a time, the others stand by.

A turn has a number, which only grows, and lasts as long as it is renewed. What a process changes in the store carries
the number of its turn (a fencing token: Kleppmann, "How to do distributed locking"), so one that was away cannot act
on old knowledge there.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import structlog

from idbellen.ports import StoreError
from idbellen.stores.redis_connection import REQUEST_SECONDS
from idbellen.stores.redis_scripts import KEEP_TURN, LEAVE_TURN, TAKE_TURN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.stores.redis_connection import RedisConnection

log = structlog.get_logger()

# A process that dies is replaced after this and one look; the rest of the 5 s is for taking its calls up.
TURN_SECONDS = 3.0
RENEW_SECONDS = 1.0
# While the store does not answer: who serves is to be the first whom it answers again.
AGAIN_SECONDS = 0.1
LOOK_SECONDS = 0.5


class TurnLostError(Exception):
    """Another process has its turn now."""


class Turns:
    """The turns of this process. ``addresses``: where the others reach it while it serves, by listener."""

    def __init__(self, redis: RedisConnection, addresses: Mapping[str, str]) -> None:
        self._redis = redis
        self._own = json.dumps(dict(addresses))
        self._number = 0
        self._until = 0.0
        self._renewing = asyncio.Lock()
        self._doubt = False
        self.serving: Mapping[str, str] = {}

    async def look(self) -> None:
        """Learn who serves, if the store tells."""
        try:
            _, other, _ = await self._redis.unfenced(TAKE_TURN, self._own, int(TURN_SECONDS * 1000), 0)
        except StoreError as fault:
            self._tell(fault)
        else:
            # Nobody, at this moment: then it stays the one that served last.
            self.serving = json.loads(other) or self.serving

    async def take(self, *, patience: float | None = None) -> bool:
        """Wait for a turn; False if there is none within ``patience`` seconds. ``serving`` tells who has it meanwhile.

        Whoever has it is known by addresses; while the store cannot be reached it is taken to be who had it last.
        """
        now = time.monotonic
        until = None if patience is None else now() + patience
        # Of our clock, and what has to be added for the server's, once that is known.
        allowed, ahead = now(), None
        while True:
            began = now()
            # When the store has just come back, whoever had the turn may go on with it, and is not overtaken.
            may = ahead is not None and began >= allowed
            latest = int((began + ahead + REQUEST_SECONDS) * 1000) if ahead is not None and may else 0
            try:
                number, other, time_there = await self._redis.unfenced(
                    TAKE_TURN, self._own, int(TURN_SECONDS * 1000), latest
                )
                self._tell(None)
            except StoreError as fault:
                allowed, ahead = now() + 2 * RENEW_SECONDS, None
                self._tell(fault)
                await asyncio.sleep(LOOK_SECONDS)
                continue
            known = json.loads(other)
            if known or now() >= allowed:
                self.serving = known
            if number:
                self._number, self._until = number, began + TURN_SECONDS
                self._redis.fence = number
                return True
            first_look, ahead = ahead is None, time_there / 1000 - now()
            if first_look and not known and now() >= allowed:
                continue
            if until is not None and now() >= until:
                return False
            await asyncio.sleep(LOOK_SECONDS)

    async def hold(self) -> None:
        """Renew the turn until cancelled.

        Raises:
            TurnLostError: another process has its turn now.

        """
        while True:
            await asyncio.sleep(AGAIN_SECONDS if self._doubt else RENEW_SECONDS)
            if not await self._renew():
                raise TurnLostError

    async def confirm(self) -> bool:
        """Say whether it is still our turn; asks when this process may have been away for longer than it lasts.

        While the store cannot be reached it is: nobody else can know better, and whoever takes our place at Asterisk
        is told to us by Asterisk itself.
        """
        return time.monotonic() < self._until or await self._renew()

    async def leave(self) -> None:
        """End the turn, so that another process need not wait for it to lapse."""
        self._redis.fence = None
        try:
            await self._redis.unfenced(LEAVE_TURN, self._number)
        except StoreError as fault:
            log.warning("turn not ended, it lapses by itself", seconds=TURN_SECONDS, reason=str(fault))

    async def _renew(self) -> bool:
        async with self._renewing:
            began = time.monotonic()
            try:
                ours = await self._redis.unfenced(KEEP_TURN, self._own, int(TURN_SECONDS * 1000), self._number)
                self._tell(None)
            except StoreError as fault:
                ours = True
                self._tell(fault)
            if ours:
                self._until = max(began, time.monotonic() - RENEW_SECONDS) + TURN_SECONDS
            return bool(ours)

    def _tell(self, fault: StoreError | None) -> None:
        if fault and not self._doubt:
            log.error("the store does not tell whose turn it is; calls in hand go on", reason=str(fault))
        elif self._doubt and not fault:
            log.info("the store tells again whose turn it is")
        self._doubt = fault is not None
