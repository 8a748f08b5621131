"""The demo's telephones against a real Asterisk: registration, ringing, keyed digits, and both hang-ups."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from idbellen.demo.pbx import Pbx, PbxSettings
from idbellen.demo.phones import AgentPhone, CitizenPhone, PhoneError
from tests.support.ports import reserved_ports

# Kept for as long as the process lives, so that no other test is given one of them meanwhile.
_KEPT = ExitStack()
ARI = _KEPT.enter_context(reserved_ports(80))
SIP = ARI + 1
# Of the agent's phone, the citizen's and another one's: SIP, and two above it the control.
AGENT, CITIZEN, OTHER = ARI + 4, ARI + 8, ARI + 12
RTP = (ARI + 20, ARI + 79)
CODE = "5917380264"
PBX = f"127.0.0.1:{SIP}"


def states(*phones: AgentPhone | CitizenPhone) -> tuple[str, ...]:
    return tuple(phone.state for phone in phones)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def processes(directory: Path) -> list[list[str]]:
    """Command lines of the processes that have this directory on theirs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_text()
        except OSError:
            continue
        if str(directory) in line:
            found.append(line.split("\0"))
    return found


def kill(phone: AgentPhone | CitizenPhone) -> None:
    assert phone._baresip
    assert phone._baresip._process
    phone._baresip._process.kill()


@dataclass
class Switchboard:
    """The smallest Stasis application: answer a citizen, note digits, ring the agent, bridge them."""

    http: aiohttp.ClientSession
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    answer: bool = True
    length: int = len(CODE)
    digits: list[tuple[str, int]] = field(default_factory=list)
    keyed_at: list[float] = field(default_factory=list)
    citizen: str = ""
    agent: str = ""
    live: set[str] = field(default_factory=set)

    async def post(self, path: str, **query: str) -> str:
        async with self.http.post(f"/ari/{path}", params=query) as response:
            made = await response.json() if response.content_length else {}
            return str(made.get("id", ""))

    async def ring_agent(self) -> str:
        return await self.post("channels", endpoint="PJSIP/agent1", app="idbellen", appArgs="agent", timeout="10")

    async def run(self) -> None:
        async with self.http.ws_connect("/ari/events", params={"app": "idbellen"}) as events:
            self.ready.set()
            async for message in events:
                await self.take(message.json())

    async def take(self, event: dict[str, Any]) -> None:
        channel = event.get("channel", {}).get("id", "")
        match event["type"]:
            case "StasisStart" if event["args"] == ["citizen"]:
                self.citizen = channel
                self.live.add(channel)
                if self.answer:
                    await self.post(f"channels/{channel}/answer")
            case "StasisStart":
                self.agent = channel
                bridge = await self.post("bridges", type="mixing")
                await self.post(f"bridges/{bridge}/addChannel", channel=f"{self.citizen},{channel}")
            case "ChannelDtmfReceived":
                self.digits.append((event["digit"], event["duration_ms"]))
                self.keyed_at.append(time.monotonic())
                if len(self.digits) == self.length:
                    self.live.add(await self.ring_agent())
            case "StasisEnd" | "ChannelDestroyed":  # the second for one that was never answered
                self.live.discard(channel)
                pair = {self.citizen, self.agent}
                for other in self.live & pair if channel in pair else ():
                    async with self.http.delete(f"/ari/channels/{other}"):
                        pass


@pytest.fixture(scope="module")
async def pbx(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pbx]:
    top = tmp_path_factory.mktemp("phones")
    for folder in ("nl", "en", "moh"):
        (top / "prompts" / folder).mkdir(parents=True)
    with reserved_ports(100) as rtp:
        pbx = Pbx(PbxSettings(top / "pbx", top / "prompts", ARI, SIP, rtp, rtp + 99, ("agent1",)))
        await pbx.start()
        try:
            yield pbx
        finally:
            await pbx.stop()


@pytest.fixture
async def switchboard(pbx: Pbx) -> AsyncIterator[Switchboard]:
    headers = {"Authorization": aiohttp.encode_basic_auth("idbellen", pbx.settings.ari_password)}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{ARI}", headers=headers) as http:
        board = Switchboard(http)
        running = asyncio.create_task(board.run())
        await board.ready.wait()
        try:
            yield board
        finally:
            for channel in tuple(board.live):
                async with http.delete(f"/ari/channels/{channel}"):
                    pass
            running.cancel()
            await asyncio.wait([running])


@pytest.fixture
async def agent(pbx: Pbx, tmp_path: Path) -> AsyncIterator[AgentPhone]:
    password = pbx.settings.agent_password("agent1")
    phone = AgentPhone(tmp_path / "agent", "agent1", password, PBX, AGENT, AGENT + 2, RTP, ring_seconds=0.5)
    await phone.start()
    try:
        yield phone
    finally:
        await phone.stop()


@pytest.fixture
async def citizen(tmp_path: Path) -> AsyncIterator[CitizenPhone]:
    phone = CitizenPhone(tmp_path / "citizen", PBX, CITIZEN, CITIZEN + 2, RTP, typing_delay=0.2)
    yield phone
    await phone.hangup()


async def test_the_code_arrives_and_the_agent_answers_and_the_citizen_hangs_up(
    switchboard: Switchboard, agent: AgentPhone, citizen: CitizenPhone
) -> None:
    assert states(agent, citizen) == ("idle", "idle")
    call = asyncio.create_task(citizen.call("14030", CODE))
    await until(lambda: states(citizen) == ("in call",))
    with pytest.raises(PhoneError, match="already in a call"):
        await citizen.call("14030", "")

    await until(lambda: states(agent) == ("ringing",), 10)
    rung_at = time.monotonic()
    assert "".join(digit for digit, _ in switchboard.digits) == CODE
    assert all(120 <= duration <= 250 for _, duration in switchboard.digits)
    ends = switchboard.keyed_at
    assert (ends[-1] - ends[0]) / (len(ends) - 1) >= 0.29

    await until(lambda: states(agent) == ("in call",))
    assert time.monotonic() - rung_at >= 0.4
    await citizen.hangup()
    assert call.done()
    await call
    assert states(citizen) == ("idle",)
    await until(lambda: states(agent) == ("idle",) and not switchboard.live)


async def test_the_dialler_sends_the_code_two_seconds_after_the_answer_in_one_burst(
    switchboard: Switchboard, agent: AgentPhone, citizen: CitizenPhone
) -> None:
    call = asyncio.create_task(citizen.call("14030", CODE, dialler=True))
    await until(lambda: states(citizen) == ("in call",))
    answered_at = time.monotonic()
    await until(lambda: states(agent) == ("in call",), 10)
    assert "".join(digit for digit, _ in switchboard.digits) == CODE
    assert all(120 <= duration <= 250 for _, duration in switchboard.digits)
    started_at, *_, ended_at = switchboard.keyed_at
    assert 1.9 <= started_at - answered_at <= 3.2
    assert (ended_at - started_at) / (len(CODE) - 1) <= 0.28
    await citizen.hangup()
    await call


async def test_the_agent_hangs_up_and_the_same_phones_serve_a_second_call(
    switchboard: Switchboard, agent: AgentPhone, citizen: CitizenPhone
) -> None:
    switchboard.length = 1
    for digit in "42":
        call = asyncio.create_task(citizen.call("14030", digit))
        await until(lambda: states(agent, citizen) == ("in call", "in call"))
        await agent.hangup()
        await asyncio.wait_for(call, 5)
        assert states(citizen) == ("idle",)
        await until(lambda: states(agent) == ("idle",) and not switchboard.live)
        assert switchboard.digits.pop()[0] == digit


async def test_an_agent_who_is_in_a_call_is_busy_for_the_next(
    switchboard: Switchboard, agent: AgentPhone, citizen: CitizenPhone
) -> None:
    switchboard.length = 1
    call = asyncio.create_task(citizen.call("14030", "7"))
    await until(lambda: states(agent) == ("in call",))
    second = await switchboard.ring_agent()
    switchboard.live.add(second)
    await until(lambda: second not in switchboard.live)
    assert states(agent, citizen) == ("in call", "in call")
    await citizen.hangup()
    await call


async def test_hanging_up_and_cancelling_before_the_answer_end_the_call(
    switchboard: Switchboard, citizen: CitizenPhone
) -> None:
    switchboard.answer = False
    for how in ("hang up", "cancel"):
        call = asyncio.create_task(citizen.call("14030", CODE))
        await until(lambda: bool(switchboard.live))
        assert states(citizen) == ("calling",)
        if how == "cancel":
            call.cancel()
        else:
            await citizen.hangup()
        await asyncio.wait([call], timeout=5)
        assert call.cancelled() or not call.exception()
        assert states(citizen) == ("idle",)
        assert not processes(citizen.directory)
        await until(lambda: not switchboard.live)
    assert not switchboard.digits


async def test_a_call_has_an_upper_limit(switchboard: Switchboard, citizen: CitizenPhone) -> None:
    citizen.max_seconds = 0.5
    await asyncio.wait_for(citizen.call("14030", ""), 5)
    await until(lambda: not switchboard.live)


async def test_a_call_that_cannot_be_made_says_why(switchboard: Switchboard, citizen: CitizenPhone) -> None:
    # Every name reaches idbellen but one letter, which may mean something to Asterisk.
    with pytest.raises(PhoneError, match="refused: 484"):
        await asyncio.wait_for(citizen.call("x", CODE), 10)
    with pytest.raises(PhoneError, match="cannot use this code") as caught:
        await citizen.call("14030", "59x17")
    assert "59" not in str(caught.value)
    with pytest.raises(PhoneError, match="cannot use this number"):
        await citizen.call("14030;x=y@elsewhere", CODE)
    assert states(citizen) == ("idle",)
    assert not switchboard.live


async def test_a_phone_that_breaks_down_says_so(switchboard: Switchboard, citizen: CitizenPhone) -> None:
    call = asyncio.create_task(citizen.call("14030", ""))
    await until(lambda: states(citizen) == ("in call",))
    kill(citizen)
    with pytest.raises(PhoneError, match="broke down"):
        await asyncio.wait_for(call, 5)
    assert states(citizen) == ("idle",)
    assert switchboard.live


async def test_the_password_is_nowhere_to_be_read(pbx: Pbx, agent: AgentPhone) -> None:
    password = pbx.settings.agent_password("agent1")
    lines = processes(agent.directory)
    assert len(lines) == 1
    assert not any(password in word for word in lines[0])
    assert not any(password in file.read_text() for file in agent.directory.rglob("*") if file.is_file())
    assert agent.directory.stat().st_mode & 0o777 == 0o700
    assert (agent.directory / "config").stat().st_mode & 0o777 == 0o600
    assert password not in repr(agent)


async def test_an_agent_phone_can_be_started_again_after_it_ended(agent: AgentPhone) -> None:
    with pytest.raises(PhoneError, match="runs already"):
        await agent.start()
    kill(agent)
    await until(lambda: states(agent) == ("off",))
    await agent.start()
    assert states(agent) == ("idle",)
    await agent.stop()
    assert states(agent) == ("off",)
    assert not processes(agent.directory)


async def test_a_phone_that_cannot_start_says_why(agent: AgentPhone, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with pytest.raises(PhoneError, match=f"Port {AGENT + 2}, which a demo telephone needs, is in use"):
        await AgentPhone(other, "agent1", "x", PBX, OTHER, agent.control_port, RTP).start()
    with pytest.raises(PhoneError, match=f"Port {OTHER + 1} cannot be used"):
        await AgentPhone(other, "agent1", "x", PBX, OTHER, OTHER + 1, RTP).start()
    with pytest.raises(PhoneError, match="agent1 could not register: 401"):
        await AgentPhone(other, "agent1", "wrong", PBX, OTHER, OTHER + 2, RTP).start()
    with pytest.raises(PhoneError, match="cannot use this password"):
        await AgentPhone(other, "agent1", "a;b", PBX, OTHER, OTHER + 2, RTP).start()
    assert not processes(other)
