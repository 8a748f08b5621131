"""No personal data in any log. Runs last (tests/conftest.py), and searches the logs of the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.installation import ATTRIBUTES
from tests.rtp import typed
from tests.sipp import CALLER_NUMBER, phones

if TYPE_CHECKING:
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.installation import Installation

WRONG = "8080808080"


async def test_no_code_digit_secret_or_attribute_in_any_log(
    pbx: Pbx, installation: Installation, all_installations: list[Installation], tmp_path: Path
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

    of_asterisk = (path for path in (pbx.settings.directory / "log").rglob("*") if path.is_file())
    logs = {path: path.read_text(errors="replace") for path in of_asterisk}
    logs |= {one.log: one.log.read_text() for one in all_installations}
    assert all(logs[one.log] for one in all_installations)
    assert logs[pbx.log]

    hidden = {WRONG, CALLER_NUMBER, *ATTRIBUTES.values()}
    for one in all_installations:
        hidden |= {*one.codes, *one.secrets}
    assert len(hidden) > 5
    found = [(path.name, text) for path, content in logs.items() for text in hidden if text in content]
    assert found == []
    # Asterisk's log of keys would show a code one digit a line.
    assert [path.name for path, content in logs.items() if "dtmf" in content.lower()] == []
