"""What a caller's bridge and prompts ask of Asterisk, where only the order or an answer that never comes tells.

The calls themselves are in test_calls.py and test_transfers.py, on a real Asterisk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from idbellen.asterisk import phone as phone_module
from idbellen.asterisk.bridge import CallerBridge
from idbellen.asterisk.legs import AgentChannel
from idbellen.asterisk.lines import Line
from idbellen.asterisk.phone import CallerPhone
from idbellen.domain.prompts import Prompt

if TYPE_CHECKING:
    from idbellen.asterisk.ari import Ari
    from idbellen.asterisk.legs import Legs


class Requests:
    """Notes what is asked of Asterisk."""

    def __init__(self) -> None:
        self.made: list[str] = []

    async def request(self, method: str, path: str, _: Any = None, **params: str) -> None:
        self.made.append(" ".join((method, path, *(f"{name}={value}" for name, value in params.items()))))

    async def discard(self, path: str, **_: str) -> None:
        self.made.append(f"DELETE {path}")


@pytest.fixture
def requests() -> Requests:
    return Requests()


async def opened(requests: Requests, caller: Line) -> CallerBridge:
    bridge = CallerBridge(cast("Ari", requests), caller, "default")
    await bridge.open(AgentChannel(Line("agent"), "PJSIP/agent", 20.0))
    requests.made.clear()
    return bridge


async def test_the_caller_is_out_of_the_bridge_before_it_is_deleted(requests: Requests) -> None:
    bridge = await opened(requests, Line("caller"))
    await bridge.close()
    path = f"/bridges/{bridge.name}"
    assert requests.made == [f"POST {path}/removeChannel channel=caller", f"DELETE {path}"]


async def test_who_is_held_or_gone_is_not_taken_out_again(requests: Requests) -> None:
    caller = Line("caller")
    bridge = await opened(requests, caller)
    await bridge.hold()
    requests.made.clear()
    await bridge.close()
    assert requests.made == [f"DELETE /bridges/{bridge.name}"]
    bridge = await opened(requests, caller)
    caller.ended.set()
    await bridge.close()
    assert requests.made == [f"DELETE /bridges/{bridge.name}"]


async def test_nobody_waits_for_ever_for_the_end_of_a_prompt(
    requests: Requests, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phone_module, "LONGEST_PROMPTS_SECONDS", 0.01)
    phone = CallerPhone(cast("Ari", requests), Line("caller"), cast("Legs", None), caller="")
    playback = await phone.play([Prompt.GOODBYE])
    async with asyncio.timeout(5):
        await playback.ended()
    assert "Asterisk does not end a prompt" in capsys.readouterr().out
