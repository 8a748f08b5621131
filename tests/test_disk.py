"""The embedded store's disk is full, or its file is damaged: callers are helped, and nobody is shown as verified."""

from __future__ import annotations

import resource
import secrets
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.installation import PLAIN_CAUSE, run_cli
from tests.spy import spy

if TYPE_CHECKING:
    from idbellen.demo.pbx import Pbx
    from tests.installation import Installation
    from tests.sipp import Phones

# Room for the log of the test, and for a little of the store's.
ROOM_BYTES = 40_000
PAGE_BYTES = 4096


def leave_room(installation: Installation, size: int) -> None:
    """Let no file of the service grow beyond this."""
    assert installation.process
    resource.prlimit(installation.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


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
