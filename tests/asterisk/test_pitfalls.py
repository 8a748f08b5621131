"""What goes wrong in production ARI applications, by the numbers of docs/pitfalls.md, on a real Asterisk.

What only fakes can bring about is in test_pitfalls_unit.py.
"""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from idbellen.asterisk.ari import HEARTBEAT_SECONDS, Ari
from idbellen.demo.pbx import CHECKOUT
from tests.support.installation import PLAIN_CAUSE, Installation
from tests.support.pbx_queues import scripted_agent
from tests.support.proxy import Proxy
from tests.support.rtp import ALAW, ALAW_TONES, G722, LEAST_LOUDNESS, OPUS, Codec, sounds, typed
from tests.support.spy import spy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.support.rtp import Tone
    from tests.support.sipp import Phones

NUMBERS = range(1, 24)
# A phone dials a comma as a pause of about two seconds.
COMMA_MS = 2000
# Keys at another clock than 8 kHz: asterisk/asterisk pull request 700.
OTHER_CLOCKS_SINCE = {20: (20, 9), 21: (21, 4)}


def test_every_pitfall_is_in_the_table_with_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", (CHECKOUT / "docs/pitfalls.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(NUMBERS)
    for number, row in rows:
        named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", row)
        assert named, f"{number} names no test"
        for file, test in named:
            [path] = (CHECKOUT / "tests").rglob(file)
            assert re.search(rf"def {test}\(" if test else "", path.read_text()), f"{number}: no {test} in {file}"


@asynccontextmanager
async def asterisk_of(pbx: Pbx) -> AsyncIterator[Ari]:
    url = f"http://127.0.0.1:{pbx.settings.ari_port}/ari"
    async with Ari(url, pbx.settings.app, "idbellen", pbx.settings.ari_password) as ari:
        yield ari


# The connection with Asterisk


async def test_01_a_lost_connection_is_known_in_time_and_calls_go_on(
    pbx: Pbx, install: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    async with Proxy(pbx.settings.ari_port) as proxy:
        installation = await install(ari_port=str(proxy.port))
        await installation.until_ready()
        agent = await telephony.agent("agent1")
        caller = await telephony.call(await installation.log_in_citizen())
        await installation.until_log("accepted=True")
        for reset in (False, True):
            proxy.refuse()
            proxy.cut(reset=reset)
            assert await installation.until_ready(ready=False) < 1
            assert await installation.ready() == "no connection for Asterisk's events"
            await proxy.pass_on()
            await installation.until_ready()
        async with installation.dashboard("agent1") as dashboard:
            await dashboard.until("paused")
            await dashboard.send("available")
            await dashboard.until("in_call")
            await agent.talking()
            caller.go_on()
            assert await caller.ended() == "by caller"
            await dashboard.until("available")
        await installation.until_nothing_is_left()


async def test_04_who_calls_while_idbellen_is_away_hears_so_and_reaches_the_plain_queue(
    pbx: Pbx, installation: Installation, telephony: Phones
) -> None:
    await installation.kill()
    async with sounds(1) as [ear], spy(pbx) as seen:
        caller = await telephony.call("", sound=ear)
        loudest = 0.0
        while not any(event["type"] == "ChannelDestroyed" for event in seen.events):
            loudest = max(loudest, ear.loudness())
            await asyncio.sleep(0.05)
        assert loudest > LEAST_LOUDNESS
        assert await caller.ended() == "by asterisk"
        await seen.until("ChannelDestroyed", cause=PLAIN_CAUSE)


async def test_05_a_second_instance_takes_over_and_the_first_stops(
    installation: Installation, keys_folder: Path, tmp_path: Path, telephony: Phones
) -> None:
    agent = await telephony.agent("agent1")
    second = Installation(tmp_path / "second", installation.pbx)
    second.write(keys_folder)
    await second.add_agents("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        talker = await telephony.call(await installation.log_in_citizen())
        await dashboard.until("in_call")
        await agent.talking()
        await second.start()
        assert installation.process
        async with asyncio.timeout(5):
            assert await installation.process.wait() == 3
        assert "another process took over the Stasis application 'idbellen'" in installation.log.read_text()
    try:
        assert len(await second.channels()) == 2, "who talks, talks on"
        caller = await telephony.call(await second.log_in_citizen())
        await second.until_log("accepted=True")
        for one in (talker, caller):
            one.go_on()
            assert await one.ended() == "by caller"
        await second.until_nothing_is_left()
    finally:
        assert await second.stop() == 0


async def flood(ari: Ari) -> None:
    """Send the application more than a socket takes that nobody reads."""
    await ari.request("PUT", f"/applications/{ari.app}/eventFilter", {"allowed": [{"type": "ChannelUserevent"}]})
    body = {"variables": {"filling": "x" * 30_000}}
    for _ in range(30):
        events = (ari.request("POST", "/events/user/flood", body, application=ari.app) for _ in range(20))
        await asyncio.gather(*events, return_exceptions=True)


async def test_06_who_does_not_read_is_cut_off_and_catches_up(
    pbx: Pbx, installation: Installation, telephony: Phones
) -> None:
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard, asterisk_of(pbx) as ari:
        await dashboard.available()
        talker = await telephony.call(await installation.log_in_citizen())
        await dashboard.until("in_call")
        gone = await telephony.call(await installation.log_in_citizen())
        await dashboard._until(lambda now: now["waiting"] == 1, "one who waits", 10)
        waits = await telephony.call(await installation.log_in_citizen())
        await dashboard._until(lambda now: now["waiting"] == 2, "two who wait", 10)
        assert installation.process
        installation.process.send_signal(signal.SIGSTOP)
        try:
            await flood(ari)
            gone.go_on()
            assert await gone.ended() == "by caller"
            # Of these one second is Asterisk's patience (asterisk-conf/ari.conf).
            await asyncio.sleep(2)
        finally:
            installation.process.send_signal(signal.SIGCONT)
        # Asterisk 22 writes no more, and leaves the connection open: only the heartbeat tells.
        bound = HEARTBEAT_SECONDS * 1.5 + 3
        await dashboard._until(lambda now: now["waiting"] == 1, "one who waits", bound)
        await installation.until_log("call over")
        log = installation.log.read_text()
        assert (log.count("no connection with Asterisk"), log.count("call over")) == (1, 1)
        assert dashboard.snapshot["state"] == "in_call"
        talker.go_on()
        await talker.ended()
        await agent.talking(2)
        await dashboard.until("in_call")
        waits.go_on()
        await waits.ended()
        await dashboard.until("available")
    await installation.until_nothing_is_left()


async def test_19_a_hundred_and_fifty_requests_at_once(pbx: Pbx) -> None:
    async with asterisk_of(pbx) as ari:
        answers = await asyncio.gather(*(ari.request("GET", "/asterisk/ping") for _ in range(150)))
    assert [answer["ping"] for answer in answers] == ["pong"] * 150


# A channel in place of another


@pytest.fixture
async def transfers(pbx: Pbx) -> AsyncIterator[None]:
    """Let phones transfer by themselves, as Asterisks of municipalities do, and dial an extension that answers."""
    conf = pbx.settings.directory / "etc/pjsip.conf"
    ours = conf.readlink()
    conf.unlink()
    conf.write_text(ours.read_text().replace("allow_transfer=no", "allow_transfer=yes"))
    await pbx.cli("module reload res_pjsip.so")
    await pbx.cli("dialplan add extension 700,1,Answer() into idbellen-agents replace")
    await pbx.cli("dialplan add extension 700,2,Wait(60) into idbellen-agents replace")
    yield
    await pbx.cli("dialplan remove extension 700@idbellen-agents")
    conf.unlink()
    conf.symlink_to(ours)
    await pbx.cli("module reload res_pjsip.so")


@pytest.mark.parametrize("how", ["attended", "blind"])
@pytest.mark.usefixtures("transfers")
async def test_11_a_transfer_by_the_agents_phone_moves_nobodys_data(
    pbx: Pbx, installation: Installation, telephony: Phones, how: str
) -> None:
    async with installation.dashboard("agent1") as dashboard, spy(pbx) as seen:
        step = "refer 700"
        if how == "attended":
            # Whose call it is that is taken the place of, Asterisk does not ask.
            consulted = await telephony.dial("agent2", "700")
            await consulted.answered()
            step += f" {consulted.dialog()}"
        agent = await scripted_agent(telephony, "agent1", step)
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        secret = (await dashboard.until("in_call"))["call"]["secret"]
        await agent.talking()
        agent.hang_up()
        await dashboard.until("available")
        assert (await dashboard.attributes(secret))[0] == 403
        assert await caller.ended() == "by asterisk"
        await installation.until_nothing_is_left()
        replaced = [event for event in seen.events if event.get("replace_channel")]
        assert replaced
    await installation.until_log("call over")
    log = installation.log.read_text()
    assert "transfer by a phone itself refused" in log
    assert log.count("call over") == 1, "whoever came in was not greeted as a caller"


# Digits


async def keyed_in(
    installation: Installation, telephony: Phones, keys: str | list[Tone], *, codec: Codec = ALAW, info: bool = False
) -> None:
    caller = await telephony.call(keys, codec=codec, info=info)
    await installation.until_log("accepted=True", seconds=20)
    caller.go_on()
    assert await caller.ended() == "by caller"
    await installation.until_nothing_is_left()


async def test_13_a_burst_after_a_comma(installation: Installation, telephony: Phones) -> None:
    code = await installation.log_in_citizen()
    await keyed_in(installation, telephony, typed(code, first_ms=COMMA_MS, tone_ms=80, gap_ms=60))


@pytest.fixture
async def opus(pbx: Pbx) -> AsyncIterator[None]:
    """Let the trunk speak Opus too, which is a module of its own."""
    settings = pbx.settings.directory / "etc/idbellen.d/pjsip.conf"
    before = settings.read_text()
    for module in ("res_format_attr_opus", "codec_opus_open_source"):
        assert "Loaded" in await pbx.cli(f"module load {module}.so")
    settings.write_text(before.replace("[trunk](idbellen-trunk)\n", "[trunk](idbellen-trunk)\nallow=opus\n"))
    await pbx.cli("module reload res_pjsip.so")
    yield
    settings.write_text(before)
    await pbx.cli("module reload res_pjsip.so")
    for module in ("codec_opus_open_source", "res_format_attr_opus"):
        await pbx.cli(f"module unload {module}.so")


@pytest.mark.parametrize("info", [False, True], ids=["RFC 4733", "SIP INFO"])
@pytest.mark.parametrize("codec", [ALAW, G722], ids=["PCMA", "G.722"])
async def test_14_keys_arrive_with_every_codec(
    installation: Installation, telephony: Phones, codec: Codec, *, info: bool
) -> None:
    await keyed_in(installation, telephony, await installation.log_in_citizen(), codec=codec, info=info)


@pytest.mark.usefixtures("opus")
async def test_14_keys_arrive_with_opus_and_its_clock(pbx: Pbx, installation: Installation, telephony: Phones) -> None:
    code = await installation.log_in_citizen()
    release = pbx.build.release()
    if release >= OTHER_CLOCKS_SINCE.get(release[0], ()):
        await keyed_in(installation, telephony, code, codec=OPUS)
        return
    # Of an older one this is known (docs/pitfalls.md): it agrees to the keys' clock, and does not hear them.
    caller = await telephony.call(code, codec=OPUS)
    await installation.until_log("entry=silence", seconds=20)
    caller.go_on()
    assert await caller.ended() == "by caller"


async def test_14_keys_arrive_as_tones_in_the_audio(installation: Installation, telephony: Phones) -> None:
    code = await installation.log_in_citizen()
    tones = typed(code, first_ms=500, tone_ms=120, gap_ms=120)
    await keyed_in(installation, telephony, tones, codec=ALAW_TONES)


# The dashboard


async def test_20_a_screen_that_is_cut_off_raises_an_alarm_and_gets_the_call_when_it_is_back(
    installation: Installation, telephony: Phones
) -> None:
    agent = await telephony.agent("agent1")
    async with (
        Proxy(int(installation.dashboard_url.rsplit(":")[-1])) as proxy,
        installation.dashboard("agent1", proxy=proxy) as dashboard,
    ):
        await dashboard.available()
        proxy.silence()
        caller = await telephony.call(await installation.log_in_citizen())
        await agent.talking()
        await installation.until_log("no dashboard showed the attributes")
        proxy.cut()
        await proxy.pass_on()
        await dashboard.reconnect()
        call = (await dashboard.until("in_call"))["call"]
        assert (await dashboard.attributes(call["secret"]))[0] == 200
        await dashboard.shown(call["id"])
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
    await installation.until_nothing_is_left()
