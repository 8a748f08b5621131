"""Limits of time, in tasks that are being cancelled as in others, and on every Python."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from idbellen.aio import reconnecting, timeout, timeout_at
from idbellen.ports import StoreError
from idbellen.stores.redis_connection import RedisConnection
from idbellen.stores.redis_url import parse_redis_url
from tests.support import virtualtime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

AS_IN_3_11_2 = "as in Python 3.11.2"


@pytest.fixture(params=["as it is here", AS_IN_3_11_2])
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let limits of the library do what they did there: raise TimeoutError only in a task that nobody cancels."""
    original = asyncio.Timeout.__aexit__

    async def leave(self: asyncio.Timeout, kind: Any, fault: Any, trace: Any) -> None:
        task = asyncio.current_task()
        assert task
        cancelled = task.cancelling()
        try:
            await original(self, kind, fault, trace)
        except TimeoutError:
            if cancelled > 1:
                raise asyncio.CancelledError from None
            raise

    if request.param == AS_IN_3_11_2:
        monkeypatch.setattr(asyncio.Timeout, "__aexit__", leave)
    return str(request.param)


def in_a_task_that_is_cancelled(story: Callable[[], Awaitable[None]]) -> None:
    """Run a story as what is done at a hangup."""

    told = []

    async def hung_up() -> None:
        try:
            await asyncio.sleep(math.inf)
        finally:
            await story()
            told.append("to its end")

    async def whole() -> None:
        task = asyncio.create_task(hung_up())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()

    virtualtime.run(whole())
    assert told, "it ended as if it had been cancelled once more"


@pytest.mark.usefixtures("python")
def test_a_limit_holds_in_a_task_that_is_being_cancelled() -> None:
    async def story() -> None:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            async with timeout(2.0):
                await asyncio.sleep(math.inf)
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)

    in_a_task_that_is_cancelled(story)


@pytest.mark.usefixtures("python")
def test_limits_in_limits() -> None:
    async def story() -> None:
        reached = []
        try:
            async with timeout(1.0):
                try:
                    async with timeout(0.5):
                        await asyncio.sleep(math.inf)
                except TimeoutError:
                    reached.append("inner")
                await asyncio.sleep(math.inf)
        except TimeoutError:
            reached.append("outer")
        assert reached == ["inner", "outer"]
        async with timeout_at(None) as limit:
            limit.reschedule(asyncio.get_running_loop().time() + 1.0)
        assert not limit.expired()

    in_a_task_that_is_cancelled(story)


@pytest.mark.usefixtures("python")
def test_whoever_is_cancelled_once_more_is_cancelled() -> None:
    async def story() -> None:
        task = asyncio.current_task()
        assert task
        asyncio.get_running_loop().call_later(1.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            async with timeout(2.0):
                await asyncio.sleep(math.inf)

    in_a_task_that_is_cancelled(story)


class SilentClient:
    """A client of Redis whose server does not answer, and which has a limit of its own."""

    async def execute_command(self, *_: str) -> None:
        try:
            async with asyncio.timeout(1.0):
                await asyncio.sleep(math.inf)
        except TimeoutError:
            raise RedisTimeoutError from None


@pytest.mark.usefixtures("python")
def test_a_store_that_does_not_answer_fails_also_who_has_hung_up() -> None:
    async def story() -> None:
        connection = RedisConnection(cast("Redis", SilentClient()), parse_redis_url("redis://127.0.0.1:1/0"))
        with pytest.raises(StoreError, match="no answer within 2 seconds"):
            await connection.command("GET", "x")

    in_a_task_that_is_cancelled(story)


def test_whoever_is_cancelled_while_a_store_does_not_answer_is_cancelled() -> None:
    async def story() -> None:
        connection = RedisConnection(cast("Redis", SilentClient()), parse_redis_url("redis://127.0.0.1:1/0"))
        task = asyncio.current_task()
        assert task
        asyncio.get_running_loop().call_later(0.5, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await connection.command("GET", "x")

    in_a_task_that_is_cancelled(story)


def test_a_lost_connection_is_opened_ever_more_slowly_and_told_once() -> None:
    async def story() -> None:
        now = asyncio.get_running_loop().time
        # How long each connection holds; None: it cannot be opened.
        holds = iter([None, None, None, 1.0, None, 11.0, None])
        began: list[float] = []
        told: list[tuple[str, bool]] = []

        async def once(up: Callable[[], None]) -> None:
            began.append(now())
            seconds = next(holds, math.inf)
            if seconds is None:
                raise ConnectionError("refused")
            up()
            await asyncio.sleep(seconds if math.isfinite(seconds) else 3600)
            if seconds == 1.0:
                return
            raise ConnectionError("reset")

        def lost(reason: str, news: bool) -> None:  # noqa: FBT001 - as reconnecting() calls it
            told.append((reason, news))

        with pytest.raises(TimeoutError):
            async with timeout(600):
                await reconnecting(once, lost, ConnectionError, first=0.2, longest=10.0)
        assert told == [
            ("refused", True),
            ("refused", False),
            ("refused", False),
            ("closed by the other side", True),
            ("refused", False),
            ("reset", True),
            ("refused", False),
        ]
        held = [0, 0, 0, 1.0, 0, 11.0, 0]
        pauses = [after - before - up for (before, after), up in zip(pairwise(began), held, strict=True)]
        # What held for a moment only does not begin anew.
        for pause, full in zip(pauses, [0.2, 0.4, 0.8, 1.6, 3.2, 0.2, 0.4], strict=True):
            assert full / 2 <= pause <= full

    virtualtime.run(story())
