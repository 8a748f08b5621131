"""No personal data in any log. Those of all other tests are searched at the end of the run (tests/conftest.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.logs import personal_data_in_logs
from tests.support.rtp import typed
from tests.support.sipp import phones

if TYPE_CHECKING:
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.support.installation import Installation

WRONG = "8080808080"


async def test_no_code_digit_secret_or_attribute_in_any_log(
    pbx: Pbx, installation: Installation, tmp_path: Path
) -> None:
    async with phones(pbx, tmp_path) as telephony, installation.dashboard("agent1") as dashboard:
        await telephony.agent("agent1")
        await dashboard.available()
        code = await installation.log_in_citizen()
        caller = await telephony.call(WRONG, typed(code, first_ms=1000))
        await installation.until_log("accepted=False")
        caller.go_on()
        talking = await dashboard.until("in_call")
        assert (await dashboard.attributes(talking["call"]["secret"]))[1]["status"] == "verified"
        await dashboard.shown(talking["call"]["id"])
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")

    assert installation.log.read_text()
    assert personal_data_in_logs(pbx, [installation], [WRONG]) == []
    # It would be found.
    installation.log.write_text(f"{installation.log.read_text()}code={code}\n")
    assert personal_data_in_logs(pbx, [installation]) == [(installation.log.name, code)]
    installation.log.write_text(installation.log.read_text().replace(code, ""))
