"""Whole calls on real parts: SIPp, Asterisk, the service, and dashboards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sipp import Phones, phones

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.installation import Installation


@pytest.fixture
async def telephony(pbx: Pbx, tmp_path: Path) -> AsyncIterator[Phones]:
    async with phones(pbx, tmp_path) as made:
        yield made


async def test_from_code_to_screen(installation: Installation, telephony: Phones) -> None:
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        offered = await dashboard.until("offered")
        assert offered["offer"]["purpose"] == "Verhuizing doorgeven"
        assert offered["call"] is None
        talking = await dashboard.until("in_call")
        await agent.talking()
        status, shown = await dashboard.attributes(talking["call"]["secret"])
        assert status == 200
        assert shown == {
            "status": "verified",
            "attributes": [
                {"name": "fullname", "label": "Naam", "value": "Quirijn Zevenaar-Vlinderslag"},
                {"name": "bsn", "label": "bsn", "value": "999990342"},
            ],
        }
        caller.go_on()
        assert await caller.ended() == "by caller"
        assert (await dashboard.until("available"))["call"] is None
        assert (await dashboard.attributes(talking["call"]["secret"]))[0] == 403
        await agent.over()
    await installation.until_nothing_is_left()
