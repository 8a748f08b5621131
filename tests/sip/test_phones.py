"""The phones themselves, against a real Asterisk and the smallest application there can be."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from idbellen.demo.pbx import Pbx, PbxError, PbxSettings, find_build
from tests.ports import free_ports
from tests.sip import sipp
from tests.sip.phones import (
    BY_PBX,
    BY_PHONE,
    CANCELLED,
    AgentPhone,
    Behaviour,
    By,
    Caller,
    Dial,
    Ended,
    Handset,
    Phones,
    SippError,
    answer,
    busy,
    decline,
    silent,
    unavailable,
)  # fmt: skip
from tests.sip.rtp import PCMU, Stalls, Stream, Tone, typed, write_pcap

FIRST_PORT = free_ports(400)
PORTS = (FIRST_PORT, FIRST_PORT + 399)
CODE = "5917380264"
APP = "idbellen"


def missing() -> str:
    try:
        find_build()
    except PbxError as error:
        return str(error)
    return sipp.lacking()


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "all is here")


@dataclass
class App:
    """Answers every call and notes the digits; what is asked of it goes to Asterisk as it is."""

    pbx: Pbx
    http: aiohttp.ClientSession
    channels: dict[str, str] = field(default_factory=dict)
    digits: dict[str, str] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def ask(self, method: str, path: str, **params: str) -> Any:
        async with self.http.request(method, f"/ari{path}", params=params) as response:
            assert response.status < 300, await response.text()
            return await response.json() if response.content_length else None

    async def listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            event = message.json()
            async with self.changed:
                match event["type"]:
                    case "StasisStart":
                        channel = event["channel"]
                        self.channels[channel["caller"]["number"]] = channel["id"]
                        if channel["state"] == "Ring":
                            await self.ask("POST", f"/channels/{channel['id']}/answer")
                    case "ChannelDtmfReceived":
                        number = event["channel"]["caller"]["number"]
                        self.digits[number] = self.digits.get(number, "") + event["digit"]
                self.changed.notify_all()

    async def heard(self, caller: Caller, digits: str) -> None:
        number = caller.dial.caller
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(8), self.changed:
                await self.changed.wait_for(lambda: len(self.digits.get(number, "")) >= len(digits))
        assert self.digits.pop(number, "") == digits

    async def ring(self, agent: AgentPhone) -> str:
        """Ring an agent's phone; gives the id of the channel."""
        channel = await self.ask("POST", "/channels", endpoint=f"PJSIP/{agent.name}", app=APP, callerId="0612345678")
        return channel["id"]


@pytest.fixture(scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    top = tmp_path_factory.mktemp("pbx")
    for name in ("nl", "en", "moh"):
        (top / "prompts" / name).mkdir(parents=True)
    rtp = free_ports(200)
    pbx = Pbx(
        PbxSettings(
            top / "pbx", top / "prompts", free_ports(), free_ports(), rtp, rtp + 199, ("agent1", "agent2")
        )
    )  # fmt: skip
    try:
        await pbx.start()
        headers = {"Authorization": aiohttp.encode_basic_auth(APP, pbx.settings.ari_password)}
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{pbx.settings.ari_port}", headers=headers) as http,
            http.ws_connect("/ari/events", params={"app": APP}) as socket,
        ):
            made = App(pbx, http)
            listening = asyncio.create_task(made.listen(socket))
            yield made
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
    finally:
        await pbx.stop()


@pytest.fixture
async def phones(app: App) -> AsyncIterator[Phones]:
    pbx = f"127.0.0.1:{app.pbx.settings.sip_port}"
    async with Phones(pbx, ports=PORTS) as made:
        yield made


async def switched_on(app: App, phones: Phones, behaviour: Behaviour | None = None) -> AgentPhone:
    phone = await phones.agent("agent1", app.pbx.settings.agent_password("agent1"), behaviour)
    await phone.register()
    return phone


@pytest.mark.parametrize("handset", [Handset(), Handset(codec=PCMU, event_payload=96, silence_audio=True)])
async def test_digits_from_the_first_moment_arrive(app: App, phones: Phones, handset: Handset) -> None:
    caller = await phones.call(tones=typed(CODE, tone_ms=120, gap_ms=120), handset=handset)
    await caller.answered()
    await app.heard(caller, CODE)


async def test_digits_of_sip_info_arrive(app: App, phones: Phones) -> None:
    caller = await phones.call()
    await caller.send_info("07#", gap_ms=60)
    await app.heard(caller, "07#")


async def test_further_rounds_follow_the_first(app: App, phones: Phones) -> None:
    caller = await phones.call(tones=typed("123", gap_ms=150))
    await caller.send(typed("45", gap_ms=150))
    await caller.send(typed("678", first_ms=130, gap_ms=150))
    await app.heard(caller, "12345678")


async def test_a_stalling_network_doubles_digits(app: App, phones: Phones) -> None:
    # This is why codes have no equal neighbours, and why idbellen takes equal neighbours as one.
    slow = [Dial(caller=f"06{seed}", tones=typed(CODE), handset=Handset(stalls=Stalls(seed, 120, 0.4)))
            for seed in (1, 2, 8, 22)]  # fmt: skip
    for caller in await phones.calls(slow):
        await caller.sent()
    heard = [app.digits.pop(dial.caller) for dial in slow]
    assert CODE not in heard
    single = ["".join(d for i, d in enumerate(digits) if digits[i - 1 : i] != d) for digits in heard]
    assert single == [CODE] * len(slow)


async def test_the_caller_hangs_up(phones: Phones) -> None:
    caller = await phones.call()
    assert await caller.hangup() == BY_PHONE
    with pytest.raises(SippError, match="has ended"):
        await caller.send(typed("1"))


async def test_the_caller_hangs_up_as_soon_as_it_is_answered(phones: Phones) -> None:
    caller = await phones.call(hang_up_on_answer=True)
    assert await caller.ended() == BY_PHONE


async def test_asterisk_hangs_up_while_the_caller_keys_in(app: App, phones: Phones) -> None:
    caller = await phones.call(caller="0611111111", tones=typed(CODE))
    await caller.answered()
    await app.ask("DELETE", f"/channels/{app.channels['0611111111']}")
    assert await caller.ended() == BY_PBX
    assert await caller.hangup() == BY_PBX


async def test_both_hang_up_at_once(app: App, phones: Phones) -> None:
    callers = await phones.calls([Dial(caller=f"062222222{i}") for i in range(8)])
    await asyncio.gather(*(caller.answered() for caller in callers))
    channels = [app.channels[caller.dial.caller] for caller in callers]
    bye = asyncio.gather(*(caller.hangup() for caller in callers))
    with contextlib.suppress(AssertionError):
        await asyncio.gather(*(app.ask("DELETE", f"/channels/{channel}") for channel in channels))
    assert set(await bye) <= {BY_PBX, BY_PHONE}


async def test_a_call_is_refused(phones: Phones) -> None:
    caller = await phones.call("nobody")
    assert await caller.ended() == Ended(By.REFUSED, 404)
    with pytest.raises(SippError, match="404"):
        await caller.answered()


async def test_twenty_callers_at_once(app: App, phones: Phones) -> None:
    dials = [Dial(caller=f"06330000{i:02}", tones=typed(f"{i:02}9{i:02}", gap_ms=150)) for i in range(20)]
    callers = await phones.calls(dials)
    await asyncio.gather(*(app.heard(c, "".join(t.digit for t in c.dial.tones)) for c in callers))
    assert await asyncio.gather(*(caller.hangup() for caller in callers)) == [BY_PHONE] * 20


async def test_a_phone_registers_answers_options_and_unregisters(app: App, phones: Phones) -> None:
    phone = await phones.agent("agent1", app.pbx.settings.agent_password("agent1"))
    await phone.register()
    async with asyncio.timeout(3):
        while "Avail" not in await app.pbx.cli("pjsip show contacts"):
            await asyncio.sleep(0.02)
    await phone.unregister()
    assert "agent1" not in await app.pbx.cli("pjsip show contacts")


async def test_a_wrong_password_is_refused(phones: Phones) -> None:
    phone = await phones.agent("agent2", "wrong")
    with pytest.raises(SippError, match="agent2 may not register: 401"):
        await phone.register()


async def test_an_agent_answers_and_asterisk_hangs_up(app: App, phones: Phones) -> None:
    phone = await switched_on(app, phones, answer(after_ms=100))
    channel = await app.ring(phone)
    rung = await phone.rung()
    assert "0612345678" in rung.detail
    answered = await phone.answered()
    assert answered.at - rung.at >= 0.09
    await app.ask("DELETE", f"/channels/{channel}")
    assert await phone.ended() == BY_PBX


@pytest.mark.parametrize("by_itself", [True, False])
async def test_an_agent_hangs_up(app: App, phones: Phones, by_itself: bool) -> None:  # noqa: FBT001
    phone = await switched_on(app, phones, answer(hangup_after_ms=100 if by_itself else None))
    for _ in range(2):
        await app.ring(phone)
        if not by_itself:
            await phone.hangup()
        assert await phone.ended() == BY_PHONE
    assert [event.kind for event in phone.events] == ["rung", "answered", "ended"] * 2


async def test_an_agent_refuses_in_three_ways_without_registering_again(app: App, phones: Phones) -> None:
    phone = await switched_on(app, phones)
    for behaviour in (busy(), decline(), unavailable()):
        await phone.behave(behaviour)
        await app.ring(phone)
        assert await phone.ended() == Ended(By.REFUSED, behaviour.status)


@pytest.mark.parametrize("behaviour", [silent(), answer(after_ms=5000)])
async def test_asterisk_gives_up_ringing(app: App, phones: Phones, behaviour: Behaviour) -> None:
    phone = await switched_on(app, phones, behaviour)
    channel = await app.ring(phone)
    await phone.rung()
    with pytest.raises(SippError, match="during a call"):
        await phone.behave(busy())
    await app.ask("DELETE", f"/channels/{channel}")
    assert await phone.ended() == CANCELLED


async def test_the_caller_hears_the_agent(app: App, phones: Phones) -> None:
    phone = await switched_on(app, phones, answer(audio_ms=2000))
    caller = await phones.call(caller="0644444444", handset=Handset(silence_audio=True, lasting_ms=2000))
    await caller.answered()
    agent = await app.ring(phone)
    await phone.answered()
    bridge = await app.ask("POST", "/bridges", type="mixing")
    await app.ask("POST", f"/bridges/{bridge['id']}/addChannel", channel=f"{app.channels['0644444444']},{agent}")
    await caller.heard(25)
    await phone.heard(25)
    assert await caller.hangup() == BY_PHONE
    await app.ask("DELETE", f"/bridges/{bridge['id']}")
    await phone.hangup()


async def test_nothing_is_left(app: App, phones: Phones) -> None:
    folder = phones.new_path().parent
    await switched_on(app, phones)
    caller = await phones.call(tones=typed(CODE))
    await caller.send(typed(CODE))

    def running() -> list[str]:
        lines = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                lines.append(process.read_text())
        return [line for line in lines if str(folder) in line]

    assert len(running()) == 3
    await phones.aclose()
    assert not running()
    assert not folder.exists()


async def test_sipps_own_words_are_in_the_error(tmp_path: Path) -> None:
    process = sipp.Sipp(tmp_path / "sipp", sipp.Ports(*PORTS).take(), lambda _: None)
    await process.start("127.0.0.1:9", '<scenario name="x"><send>no</send></scenario>', "-m", "1")
    with pytest.raises(SippError, match=r"Unable to load or parse .*scenario.xml"):
        await process.ended()
    await process.stop()


def test_a_tone_is_an_rfc_4733_event(tmp_path: Path) -> None:
    after = write_pcap(tmp_path / "pcap", [Tone("#", 0, 60)], event_payload=96, stream=Stream(7, 65534, 800))
    data, packets = (tmp_path / "pcap").read_bytes()[24:], []
    while data:
        seconds, micros, size = struct.unpack("<III", data[:12])
        first, kind, sequence, timestamp, ssrc, *event = struct.unpack("!BBHIIBBH", data[16 + 42 : 16 + size])
        assert (first, ssrc, timestamp) == (0x80, 7, 800)
        packets.append(((seconds - 60) * 1000 + micros / 1000, kind, sequence, *event))
        data = data[16 + size :]
    assert packets == [
        (0, 0x80 | 96, 65534, 11, 10, 160),
        (20, 96, 65535, 11, 10, 320),
        (40, 96, 0, 11, 10, 480),
        *((at, 96, number, 11, 0x8A, 480) for number, at in ((1, 60), (2, 80), (3, 100))),
    ]
    assert after == Stream(7, 65540, 800 + 120 * 8)


@pytest.mark.parametrize("wrong", [("x", 0, 100), ("1", -20, 100), ("1", 0, 90)])
def test_tones_that_no_phone_makes(wrong: tuple[str, int, int]) -> None:
    with pytest.raises(ValueError, match=r"telephone|tone"):
        Tone(*wrong)


def test_stalls_hold_in_order_and_no_longer_than_said() -> None:
    due = list(range(0, 10_000, 20))
    arrivals = list(Stalls(3, 60, 0.3).deliver(due))
    assert arrivals == sorted(arrivals)
    assert all(0 <= arrival - at <= 60 for at, arrival in zip(due, arrivals, strict=True))
    assert arrivals == list(Stalls(3, 60, 0.3).deliver(due))
    assert arrivals != list(Stalls(4, 60, 0.3).deliver(due))
