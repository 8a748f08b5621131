"""The machine's clock is set while calls are in hand: nothing takes an hour longer, or ends an hour early."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from idbellen.clock import LOOK_SECONDS, SteadyClock
from tests.support import virtualtime
from tests.support.faults import HOUR
from tests.support.logs import personal_data_in_logs
from tests.support.stage import PipedInstallation

if TYPE_CHECKING:
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.support.sipp import Phones


def test_23_it_goes_on_evenly_and_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    began, ahead = 1_800_000_000.0, 0.0
    monkeypatch.setattr("time.monotonic", lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr("time.time", lambda: began + asyncio.get_running_loop().time() + ahead)

    async def story() -> None:
        nonlocal ahead
        clock = SteadyClock()
        assert clock() == began
        running = asyncio.create_task(clock.run())
        with capture_logs() as lines:
            # What is less than two seconds is left to NTP.
            for ahead in (0.0, 1.0, HOUR, HOUR + 1, -HOUR):  # noqa: B007 - the machine's clock reads it
                before = clock()
                await asyncio.sleep(2 * LOOK_SECONDS)
                assert clock() - before == pytest.approx(2 * LOOK_SECONDS)
        running.cancel()
        await asyncio.wait([running])
        assert [line["seconds"] for line in lines] == [HOUR, -HOUR]

    virtualtime.run(story())


async def test_23_codes_and_wrap_up_last_as_long_as_they_should(
    pbx: Pbx, keys_folder: Path, tmp_path: Path, telephony: Phones
) -> None:
    installation = PipedInstallation(tmp_path / "idbellen", pbx)
    installation.write(keys_folder, more="[queues.default]\nwrap_up_seconds = 2\n")
    await installation.add_agents("agent1")
    installation.set_clock(0)
    await installation.start()
    try:
        agent = await telephony.agent("agent1")
        early, late = [await installation.log_in_citizen() for _ in range(2)]
        async with installation.dashboard("agent1") as dashboard:
            await dashboard.available()
            for code, ahead in ((early, HOUR), (late, -HOUR)):
                installation.set_clock(ahead)
                caller = await telephony.call(code)
                call = (await dashboard.until("in_call"))["call"]
                assert (await dashboard.attributes(call["secret"]))[0] == 200
                agent.hang_up()
                assert await caller.ended() == "by asterisk"
                await dashboard.until("wrap_up")
                await dashboard.until("available", seconds=4)
        await installation.until_log("the machine's clock was set", times=1, seconds=2 * LOOK_SECONDS)
        assert await installation.stop() == 0
    finally:
        if installation.process and installation.process.returncode is None:
            await installation.kill()
    installation.until_written()
    assert personal_data_in_logs(pbx, [installation]) == []
    assert "Traceback" not in installation.log.read_text()
