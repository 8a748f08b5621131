"""The embedded store's disk is full, or its file is damaged: callers are helped, and nobody is shown as verified."""

from __future__ import annotations

import asyncio
import resource
import secrets
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.installation import PLAIN_CAUSE, Installation, run_cli
from tests.support.spy import spy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.support.sipp import Phones

# Room for the log of the test, and for a little of the store's.
ROOM_BYTES = 40_000
PAGE_BYTES = 4096


def leave_room(installation: Installation, size: int) -> None:
    """Let no file of the service grow beyond this."""
    assert installation.process
    resource.prlimit(installation.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@asynccontextmanager
async def waiting(installation: Installation) -> AsyncIterator[asyncio.Task[None]]:
    """Start the service while there is no room, for the block, in which it waits; gives its start."""
    installation.limits = (f"--fsize={ROOM_BYTES}:",)
    starting = asyncio.create_task(installation.start())
    await installation.until_process()
    await installation.until_log("waiting for the store")
    yield starting
    if not starting.done():
        # It was stopped before it was ready.
        starting.cancel()
    await asyncio.wait((starting,))


async def start_until_full(installation: Installation) -> None:
    """Start sessions until there is no room for more, which the core is told."""
    async with aiohttp.ClientSession() as http:
        for _ in range(200):
            url = f"{installation.internal_url}/start_communication"
            async with http.post(url, json={"purpose": "report_move"}) as answer:
                if answer.status == 503:
                    assert await answer.json() == {"error": "ServiceUnavailable"}
                    return
                assert answer.status == 200
    raise AssertionError("there was room for all of them")


async def test_a_full_disk(pbx: Pbx, installation: Installation, telephony: Phones) -> None:
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard, spy(pbx) as seen:
        await dashboard.available()
        talker = await telephony.call(await installation.log_in_citizen())
        secret = (await dashboard.until("in_call"))["call"]["secret"]
        code = await installation.log_in_citizen()
        leave_room(installation, ROOM_BYTES)
        await start_until_full(installation)
        newcomer = await telephony.call(code)
        await seen.until("ChannelDestroyed", cause=PLAIN_CAUSE)
        assert await newcomer.ended() == "by asterisk"
        await installation.until_log("call not served: the store cannot be used")
        # Who talks notices nothing.
        assert dashboard.snapshot["call"]["secret"] == secret
        talker.go_on()
        assert await talker.ended() == "by caller"
        await dashboard.until("available")
        leave_room(installation, resource.RLIM_INFINITY)
        await installation.until_log("calls are noted again")
        caller = await telephony.call(code)
        await dashboard.until("in_call")
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
    await installation.until_nothing_is_left()
    assert "Traceback" not in installation.log.read_text()


async def test_a_full_disk_is_told_to_who_watches_over_the_service(installation: Installation) -> None:
    await installation.until_ready()
    leave_room(installation, ROOM_BYTES)
    assert await installation.until_ready(ready=False) < 12
    assert await installation.ready() == f"store {installation.folder}/idbellen.db: No space left on device"
    leave_room(installation, resource.RLIM_INFINITY)
    await installation.until_ready()
    log = installation.log.read_text()
    assert log.count("the store cannot be written, so no session can begin") == 1
    assert log.count("the store can be written again") == 1


async def test_who_starts_without_room_waits_for_it(
    install: Callable[..., Awaitable[Installation]],
) -> None:
    installation = await install()
    assert await installation.stop() == 0
    installation.process = None
    async with waiting(installation) as starting:
        assert not starting.done()
        leave_room(installation, resource.RLIM_INFINITY)
        await starting
    assert await installation.ready() == "ready"
    log = installation.log.read_text()
    assert log.count("waiting for the store") == log.count("the store can be used") == 1


async def test_who_waits_for_room_stops_at_once(pbx: Pbx, keys_folder: Path, tmp_path: Path) -> None:
    installation = Installation(tmp_path / "i", pbx)
    installation.write(keys_folder)
    async with waiting(installation):
        began = time.monotonic()
        assert await installation.stop() == 0
        assert time.monotonic() - began < 3
    assert "Traceback" not in installation.log.read_text()


@pytest.mark.parametrize("first_page", [0, 1], ids=["from its beginning", "behind its first page"])
async def test_a_damaged_file(pbx: Pbx, installation: Installation, telephony: Phones, first_page: int) -> None:
    code = await installation.log_in_citizen()
    assert await installation.stop() == 0
    store = installation.folder / "idbellen.db"
    with store.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(first_page * PAGE_BYTES)
        file.write(secrets.token_bytes(size - first_page * PAGE_BYTES))
    exit_code, output = await run_cli("serve", "--config", str(installation.config))
    assert (exit_code, output.count("\n")) == (1, 1)
    assert output.startswith(f"idbellen: store {store}: ")
    async with spy(pbx) as seen:
        caller = await telephony.call(code)
        await seen.until("ChannelDestroyed", cause=PLAIN_CAUSE)
        assert await caller.ended() == "by asterisk"
