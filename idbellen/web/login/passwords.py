"""Passwords of local accounts: Argon2id, checked in threads that do nothing else."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import time
from bisect import insort
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import ARGON2_VERSION

from idbellen.aio import timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEAST_PASSWORD_LENGTH = 12
# Each check takes 64 MiB, and the rest of the machine has audio to send.
MOST_THREADS = 4
# Whoever waits longer is better told to come back.
LONGEST_WAIT_SECONDS = 4.0
FIRST_ESTIMATE_SECONDS = 0.25
# As the library words it.
NO_MEMORY = "Memory allocation error"

# With one lane a check stays in the thread that it is given; with more it starts a thread for each, and these would
# have all processors to themselves. The rest is the library's choice (RFC 9106, 4: the second recommended option).
_hasher = PasswordHasher(parallelism=1)


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode().rstrip("=")


# Checked when there is no such account, so that the answer takes as long as when there is. No password has it.
_NOBODY = (
    f"$argon2id$v={ARGON2_VERSION}"
    f"$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}"
    f"${_encoded(bytes(_hasher.salt_len))}${_encoded(bytes(_hasher.hash_len))}"
)


def hash_password(password: str) -> str:
    """Give the hash under which a password is kept."""
    return _hasher.hash(password)


class BusyError(Exception):
    """Passwords cannot be checked at this moment: too many wait, or there is no memory."""


@dataclass(order=True, slots=True)
class _Waiting:
    rank: tuple[bool, float]
    number: int
    # Whether it is their turn; not, if somebody with a better rank has taken the place.
    turn: asyncio.Future[bool] = field(compare=False)


class PasswordChecks:
    """Checks passwords, a few at a time: on half of the processors, one thread each."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) // 2))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="password")
        for _ in range(self._threads):
            # Each starts a thread, for which the event loop has to wait: now, and not when passwords come.
            self._pool.submit(time.sleep, 0.01)
        self._seconds = FIRST_ESTIMATE_SECONDS
        self._taken = 0
        self._numbers = itertools.count()
        self._waiting: list[_Waiting] = []

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False)

    @asynccontextmanager
    async def turn(self, rank: tuple[bool, float]) -> AsyncIterator[None]:
        """Wait until a password may be checked, for the block; the least rank goes first, of equals the last to come.

        In a flood those who came first are part of it; whoever comes later need not wait until it has gone.

        Raises:
            BusyError: it would take longer than a few seconds.

        """
        if self._taken < self._threads:
            self._taken += 1
        else:
            await self._wait(rank)
        try:
            yield
        finally:
            self._give_on()

    async def _wait(self, rank: tuple[bool, float]) -> None:
        turn = asyncio.get_running_loop().create_future()
        place = _Waiting(rank, -next(self._numbers), turn)
        insort(self._waiting, place)
        if len(self._waiting) * self._seconds > LONGEST_WAIT_SECONDS * self._threads:
            last = self._waiting.pop().turn
            if not last.done():
                last.set_result(False)
        has_turn = False
        try:
            async with timeout(LONGEST_WAIT_SECONDS):
                has_turn = await turn
        except TimeoutError:
            pass
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
            elif not has_turn and not turn.cancelled() and turn.result():
                # It was given in the moment in which it was no longer waited for.
                self._give_on()
        if not has_turn:
            raise BusyError

    def _give_on(self) -> None:
        while self._waiting:
            turn = self._waiting.pop(0).turn
            if not turn.done():
                turn.set_result(True)
                return
        self._taken -= 1

    async def fits(self, password_hash: str | None, password: str) -> bool:
        """Whether a password is the one of this hash; None for an account that does not exist. Only in one's turn."""
        fits, seconds = await asyncio.get_running_loop().run_in_executor(self._pool, _timed, password_hash, password)
        self._seconds += (seconds - self._seconds) / 8
        return fits


def _timed(password_hash: str | None, password: str) -> tuple[bool, float]:
    began = time.perf_counter()
    fits = password_fits(password_hash or _NOBODY, password)
    return fits and password_hash is not None, time.perf_counter() - began


def password_fits(password_hash: str, password: str) -> bool:
    """Whether a password is the one of this hash.

    Raises:
        BusyError: there is not enough memory.

    """
    try:
        return _hasher.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError, UnicodeEncodeError):
        return False
    except VerificationError as fault:
        if str(fault) == NO_MEMORY:
            raise BusyError(NO_MEMORY) from None
        # No hash that any password could have.
        return False
