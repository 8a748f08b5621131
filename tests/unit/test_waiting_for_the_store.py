"""The store is waited for at the start, and tried now and then while the service runs; in virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from idbellen.ports import StoreError, UnfitStoreError
from idbellen.service.storage import LONGEST_WAIT_SECONDS, wait_for_store
from idbellen.stores.probe import PATIENCE_SECONDS, PROBE_SECONDS, StoreProbe
from tests.support import virtualtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def now() -> float:
    return asyncio.get_running_loop().time()


def events(lines: Sequence[Mapping[str, object]]) -> list[tuple[object, object]]:
    return [(line["event"], line.get("reason")) for line in lines]


def test_each_reason_to_wait_is_told_once_and_the_pauses_grow() -> None:
    async def story() -> None:
        tries: list[float] = []

        async def serve(usable: Callable[[], None]) -> None:
            tries.append(now())
            if now() < 60:
                raise StoreError("away" if now() < 30 else "full")
            usable()

        with capture_logs() as lines:
            await wait_for_store(serve)
        assert events(lines) == [
            ("waiting for the store", "away"),
            ("waiting for the store", "full"),
            ("the store can be used", None),
        ]
        pauses = [after - before for before, after in pairwise(tries)]
        assert pauses[0] <= 0.2
        assert max(pauses) <= LONGEST_WAIT_SECONDS
        assert len(tries) < 35, "it is not asked over and over"

    virtualtime.run(story())


@pytest.mark.parametrize(("lasts", "told"), [(0.0, 1), (2 * LONGEST_WAIT_SECONDS, 5)])
def test_a_store_that_goes_again_is_told_anew_only_if_it_lasted(lasts: float, told: int) -> None:
    async def story() -> None:
        tries: list[float] = []

        async def serve(usable: Callable[[], None]) -> None:
            tries.append(now())
            usable()
            await asyncio.sleep(lasts)
            if len(tries) <= 5:
                raise StoreError("away")

        with capture_logs() as lines:
            await wait_for_store(serve)
        assert events(lines) == [("waiting for the store", "away"), ("the store can be used", None)] * told
        assert (tries[-1] - tries[-2] - lasts > 1) is (lasts == 0.0), "what comes and goes is asked ever more slowly"

    virtualtime.run(story())


def test_what_waiting_does_not_mend_is_raised_and_a_stop_ends_the_waiting() -> None:
    async def unfit(_: object) -> None:
        raise UnfitStoreError("another version")

    async def away(_: object) -> None:
        raise StoreError("away")

    async def story() -> None:
        with pytest.raises(UnfitStoreError, match="another version"):
            await wait_for_store(unfit)
        waiting = asyncio.create_task(wait_for_store(away))
        await asyncio.sleep(100)
        began = now()
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert (waiting.cancelled(), now()) == (True, began)

    virtualtime.run(story())


class FakeStore:
    """Fails while there is a fault, and hangs while it is told to."""

    def __init__(self) -> None:
        self.fault = ""
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.at_once = 0

    async def try_to_write(self) -> None:
        self.at_once += 1
        assert self.at_once == 1, "each that hangs would take a thread"
        try:
            await self.goes_on.wait()
        finally:
            self.at_once -= 1
        if self.fault:
            raise StoreError(self.fault)


def test_a_store_that_cannot_be_written_is_told_once_and_once_when_it_can() -> None:
    async def story() -> None:
        store = FakeStore()
        probe = StoreProbe(store)
        probing = asyncio.create_task(probe.run())
        await asyncio.sleep(1)
        assert probe.why_not() is None
        with capture_logs() as lines:
            for fault in ("full", "away"):
                store.fault = fault
                await asyncio.sleep(PROBE_SECONDS)
                assert probe.why_not() == fault
            store.fault = ""
            await asyncio.sleep(PROBE_SECONDS)
            assert probe.why_not() is None
        assert events(lines) == [
            ("the store cannot be written, so no session can begin", "full"),
            ("the store can be written again", None),
        ]
        probing.cancel()
        await asyncio.wait((probing,))

    virtualtime.run(story())


def test_a_disk_that_hangs_is_told_and_tried_only_once() -> None:
    async def story() -> None:
        store = FakeStore()
        probe = StoreProbe(store)
        probing = asyncio.create_task(probe.run())
        await asyncio.sleep(1)
        store.goes_on.clear()
        await asyncio.sleep(PROBE_SECONDS + PATIENCE_SECONDS)
        assert probe.why_not() == "store: no answer in 5 s"
        await asyncio.sleep(100)
        store.goes_on.set()
        await asyncio.sleep(0.01)
        assert probe.why_not() is None
        store.goes_on.clear()
        await asyncio.sleep(PROBE_SECONDS)
        assert store.at_once == 1
        probing.cancel()
        await asyncio.wait((probing,))
        await asyncio.sleep(0)
        assert store.at_once == 0, "nothing is left of it"

    virtualtime.run(story())
