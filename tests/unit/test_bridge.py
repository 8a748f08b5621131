"""What a caller's bridge and prompts ask of Asterisk, where only the order or an answer that never comes tells.

The calls themselves are in test_calls.py and test_transfers.py, on a real Asterisk.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any, ClassVar, cast
from unittest.mock import AsyncMock

import pytest

from idbellen.aio import to_its_end
from idbellen.asterisk import phone as phone_module
from idbellen.asterisk.ari import Ari, AriError
from idbellen.asterisk.bridge import CallerBridge
from idbellen.asterisk.legs import AgentChannel, Legs
from idbellen.asterisk.lines import Line, Lines
from idbellen.asterisk.phone import CallerPhone
from idbellen.domain.prompts import Prompt


class Requests:
    """Notes what is asked of Asterisk."""

    def __init__(self) -> None:
        self.made: list[str] = []

    async def request(self, method: str, path: str, _: Any = None, **params: str) -> None:
        self.made.append(" ".join((method, path, *(f"{name}={value}" for name, value in params.items()))))

    insist = request

    async def discard(self, path: str, **_: object) -> None:
        self.made.append(f"DELETE {path}")


@pytest.fixture
def requests() -> Requests:
    return Requests()


async def opened(requests: Requests, caller: Line) -> CallerBridge:
    bridge = CallerBridge(cast("Ari", requests), caller, "default")
    await bridge.begin(AgentChannel(Line("agent"), "PJSIP/agent", 20.0, AsyncMock()))
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


async def test_who_is_rung_in_the_moment_of_the_end_is_hung_up_after_the_ring_has_begun() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Ari):
        made: ClassVar[list[str]] = []

        async def request(self, method: str, *_: Any, **__: Any) -> None:
            if method == "POST":
                reached.set()
                await go_on.wait()
            self.made.append(method)

    async def ring() -> None:
        async with Legs(Slow("http://127.0.0.1", "idbellen", "", ""), Lines()).ring("PJSIP/agent", 20.0):
            pass

    ringing = asyncio.create_task(ring())
    await reached.wait()
    ringing.cancel()
    await asyncio.sleep(0)
    assert Slow.made == []
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await ringing
    assert Slow.made == ["POST", "DELETE"]


async def test_what_is_refused_after_a_cancellation_is_nobodys_fault() -> None:
    """As when another process serves meanwhile; asyncio would log it with a traceback."""
    go_on, told = asyncio.Event(), []

    async def refused() -> None:
        await go_on.wait()
        raise AriError("not made, since another process serves now")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    others = asyncio.all_tasks()
    try:
        work = asyncio.create_task(to_its_end(refused(), AriError))
        await asyncio.sleep(0)
        [inner] = asyncio.all_tasks() - others - {work}
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        go_on.set()
        await asyncio.wait((inner,))
        del inner
        gc.collect()
    finally:
        loop.set_exception_handler(None)
    assert told == []
