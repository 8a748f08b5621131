"""Passwords are checked a few at a time, in threads that hold nothing else up."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerificationError, VerifyMismatchError
from argon2.low_level import error_to_str

from idbellen.web.login import passwords
from idbellen.web.login.passwords import BusyError, PasswordChecks, hash_password, password_fits

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "correct hörse battery staple"
FIRST, LATER = (False, 0.0), (True, 0.0)


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_password_fits_where_the_library_says_so(lanes: int) -> None:
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=lanes)
    hashed = hasher.hash(PASSWORD)
    for given in (PASSWORD, PASSWORD[:-1], PASSWORD + "x", "", "nul\0"):
        fits = False
        with suppress(VerifyMismatchError):
            fits = hasher.verify(hashed, given)
        assert password_fits(hashed, given) == fits == (given == PASSWORD)


@pytest.mark.parametrize(
    "hashed", ["", "nonsense", "$argon2id$v=19$m=64,t=1,p=1$$", "$argon2i$v=19$m=64,t=1,p=1$AAAA$AAAA"]
)
def test_what_is_no_hash_of_ours_fits_nothing(hashed: str) -> None:
    assert not password_fits(hashed, PASSWORD)


async def test_a_name_that_nobody_has_takes_as_much_as_any() -> None:
    assert extract_parameters(passwords._NOBODY) == extract_parameters(hash_password(PASSWORD))
    checks = PasswordChecks()
    assert not await checks.fits(None, PASSWORD)
    checks.close()


def test_one_check_is_one_thread() -> None:
    assert extract_parameters(hash_password(PASSWORD)).parallelism == 1


def test_no_room_for_a_check_is_no_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    # ARGON2_MEMORY_ALLOCATION_ERROR of argon2.h.
    fault = VerificationError(error_to_str(-22))
    monkeypatch.setattr(passwords, "_hasher", Mock(verify=Mock(side_effect=fault)))
    with pytest.raises(BusyError, match="Memory"):
        password_fits("hash", PASSWORD)


class Gate:
    """Stands in for the check itself: each waits until it is let go."""

    def __init__(self) -> None:
        self.open = threading.Semaphore(0)
        self.names: list[str] = []
        self.threads: set[str] = set()

    def __call__(self, password_hash: str, password: str) -> bool:  # noqa: ARG002
        self.names.append(password)
        self.threads.add(threading.current_thread().name)
        assert self.open.acquire(timeout=10)
        return True


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(passwords, "password_fits", made)
    yield made
    made.open.release(1000)


async def check(checks: PasswordChecks, name: str, rank: tuple[bool, float] = LATER) -> bool:
    async with checks.turn(rank):
        return await checks.fits("hash", name)


async def until_waiting(checks: PasswordChecks, number: int) -> None:
    async with asyncio.timeout(5):
        while len(checks._waiting) != number:
            await asyncio.sleep(0)


async def test_the_default_threads_are_free_while_passwords_wait(gate: Gate) -> None:
    checks = PasswordChecks(1)
    busy = [asyncio.create_task(check(checks, str(n))) for n in range(10)]
    await until_waiting(checks, 9)
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(lambda: "free") == "free"
    assert len(gate.names) <= 1
    gate.open.release(10)
    assert await asyncio.gather(*busy) == [True] * 10
    assert gate.threads == {"password_0"}
    checks.close()


async def test_who_would_wait_for_long_is_told_at_once_and_the_best_rank_goes_first(gate: Gate) -> None:
    checks = PasswordChecks(1)
    most = int(passwords.LONGEST_WAIT_SECONDS / passwords.FIRST_ESTIMATE_SECONDS)
    running = asyncio.create_task(check(checks, "running"))
    waiting = [asyncio.create_task(check(checks, f"{n}", (True, float(n)))) for n in range(most)]
    await until_waiting(checks, most)
    with pytest.raises(BusyError):
        await check(checks, "one more", (True, 1000.0))
    known = asyncio.create_task(check(checks, "known", FIRST))
    with pytest.raises(BusyError):
        await waiting[-1]
    gate.open.release(most + 1)
    assert all(await asyncio.gather(running, known, *waiting[:-1]))
    assert gate.names == ["running", "known", *(f"{n}" for n in range(most - 1))]
    checks.close()


async def test_of_equals_the_last_to_come_goes_first(gate: Gate) -> None:
    checks = PasswordChecks(1)
    # More than have room.
    flood = [asyncio.create_task(check(checks, "flood")) for _ in range(100)]
    await asyncio.sleep(0)
    later = asyncio.create_task(check(checks, "later"))
    await asyncio.sleep(0)
    gate.open.release(100)
    assert await later
    assert gate.names == ["flood", "later"]
    ended = await asyncio.gather(*flood, return_exceptions=True)
    assert {type(end) for end in ended} == {bool, BusyError}
    checks.close()


async def test_nobody_waits_for_ever(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "LONGEST_WAIT_SECONDS", 0.3)
    checks = PasswordChecks(1)
    running = asyncio.create_task(check(checks, "running"))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        with pytest.raises(BusyError):
            await check(checks, "waits")
    gate.open.release()
    assert await running
    checks.close()


async def test_a_turn_is_not_lost_with_who_leaves(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = PasswordChecks(1)
    running = asyncio.create_task(check(checks, "running"))
    staying, leaving = (asyncio.create_task(check(checks, name)) for name in ("staying", "leaving"))
    await until_waiting(checks, 2)
    give_on = checks._give_on

    def give_on_and_cancel() -> None:
        give_on()
        leaving.cancel()

    monkeypatch.setattr(checks, "_give_on", give_on_and_cancel)
    gate.open.release(2)
    assert [*await asyncio.gather(running, staying)] == [True, True]
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert checks._taken == 0
    assert gate.names == ["running", "staying"]
    checks.close()
