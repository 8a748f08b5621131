"""A process ends, planned or by kill -9, and the next one takes up what it had in hand: on real parts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.installation import PLAIN_CAUSE, run_cli
from tests.support.proxy import Proxy
from tests.support.rtp import sounds
from tests.support.spy import spy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from idbellen.demo.pbx import Pbx
    from tests.support.dashboards import Dashboard
    from tests.support.installation import Installation
    from tests.support.rtp import Sound
    from tests.support.sipp import Phones

WAYS = ("planned", "kill -9")
WELCOME = "sound:idbellen/welcome"
# What the page's script needs to come back, with room for a busy machine.
GRACE = {"dashboard__grace_seconds": "10"}


@pytest.fixture
async def installation(install: Callable[..., Awaitable[Installation]]) -> Installation:
    return await install(**GRACE)


@pytest.fixture
async def voices() -> AsyncIterator[tuple[Sound, Sound]]:
    async with sounds(2) as (caller, agent):
        yield caller, agent


async def end(installation: Installation, way: str) -> None:
    if way == "planned":
        assert await installation.stop() == 0
    else:
        await installation.kill()


async def restart(installation: Installation, way: str, *dashboards: Dashboard) -> None:
    """End the service and start it again; the dashboards come back as the page does."""
    await end(installation, way)
    await installation.start()
    for dashboard in dashboards:
        await dashboard.reconnect()


async def noted(installation: Installation, *stages: str) -> None:
    """Wait until these are the stages that the store knows of: it is told a moment after the call."""
    async with asyncio.timeout(5):
        while sorted(await installation.noted()) != sorted(stages):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", WAYS)
async def test_code_entry_is_asked_afresh(pbx: Pbx, installation: Installation, telephony: Phones, way: str) -> None:
    code = await installation.log_in_citizen()
    async with spy(pbx) as seen:
        caller = await telephony.call(code[:3], code)
        async with asyncio.timeout(10):
            while len(seen.keys()) < 3:
                await asyncio.sleep(0.02)
        await restart(installation, way)
        await seen.until_played(WELCOME)
        caller.go_on()
        await installation.until_log("accepted=True")
        caller.go_on()
        assert await caller.ended() == "by caller"
    await installation.until_nothing_is_left()


@pytest.mark.parametrize("way", WAYS)
async def test_who_waits_keeps_place_and_waiting_time(installation: Installation, telephony: Phones, way: str) -> None:
    await telephony.agent("agent1")
    first = await telephony.call(await installation.log_in_citizen())
    await installation.until_log("accepted=True")
    began = time.time()
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.until("paused")
        second = await telephony.call(await installation.log_in_citizen())
        await installation.until_log("accepted=True", times=2)
        await noted(installation, "waiting", "waiting")
        names = [name for name, _ in await installation.waiting()]
        await restart(installation, way, dashboard)
        await installation.until_log("call of an earlier process taken up", times=2)
        assert [name for name, _ in await installation.waiting()] == names
        await dashboard.until("paused")
        assert dashboard.snapshot["waiting"] == 2
        await dashboard.send("available")
        offered = (await dashboard.until("ringing"))["offer"]
        assert offered["id"] == names[0]
        assert offered["waited"] == pytest.approx(time.time() - began, abs=0.5)
        call = (await dashboard.until("in_call"))["call"]
        assert (await dashboard.attributes(call["secret"]))[0] == 200
        for caller in (first, second):
            caller.go_on()
            assert await caller.ended() == "by caller"
    await installation.until_nothing_is_left()


@pytest.mark.parametrize("way", WAYS)
async def test_a_phone_that_rang_is_let_go_and_the_caller_is_offered_again(
    installation: Installation, telephony: Phones, way: str
) -> None:
    agent = await telephony.agent("agent1", after_ms=30_000)
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        await agent.rung()
        await noted(installation, "waiting")
        await restart(installation, way, dashboard)
        await agent.over()
        agent = await telephony.agent("agent1")
        await agent.talking()
        assert (await dashboard.until("in_call"))["missed"] == 0
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
    await installation.until_nothing_is_left()


@pytest.mark.parametrize("way", WAYS)
async def test_talkers_talk_on_and_the_screen_shows_the_citizen_again(
    installation: Installation, telephony: Phones, voices: tuple[Sound, Sound], way: str
) -> None:
    voice, first = voices
    await telephony.agent("agent1", sound=first)
    async with installation.dashboard("agent1") as dashboard, installation.dashboard("agent2") as other:
        await dashboard.available()
        code = await installation.log_in_citizen()
        caller = await telephony.call(code, sound=voice)
        before = (await dashboard.until("in_call"))["call"]
        await noted(installation, "talking")
        await end(installation, way)
        await asyncio.gather(voice.hears(first), first.hears(voice))
        await installation.start()
        await asyncio.gather(dashboard.reconnect(), other.reconnect())
        after = await dashboard.until_call(secret=before["secret"])
        assert {key: after[key] for key in ("id", "words", "mode")} == {
            key: before[key] for key in ("id", "words", "mode")
        }
        assert after["age"] >= before["age"]
        assert (await dashboard.attributes(after["secret"]))[1]["attributes"][0]["value"].startswith("Quirijn")
        assert (await other.attributes(after["secret"]))[0] == 403
        await asyncio.gather(voice.hears(first), first.hears(voice))
        # What the dashboard asks for is done as before.
        await dashboard.command("hold")
        await dashboard.until_call(mode="held")
        await voice.hears_music()
        await dashboard.command("resume")
        await voice.hears(first)
        caller.go_on()
        assert await caller.ended() == "by caller"
        await dashboard.until("available")
        await noted(installation)
        await dashboard.reconnect()
        assert (await dashboard.until("available"))["today"]["calls"] == 1
        assert (await dashboard.attributes(after["secret"]))[0] == 403
        await installation.until_nothing_is_left()
        again = await telephony.call(code)
        await installation.until_log("accepted=False")
        again.go_on()
        await again.ended()


@pytest.mark.parametrize("who", ["caller", "agent", "both"])
async def test_who_hangs_up_while_nobody_is_there_is_noticed(
    pbx: Pbx, installation: Installation, telephony: Phones, who: str
) -> None:
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard, spy(pbx) as seen:
        await dashboard.available()
        code = await installation.log_in_citizen()
        caller = await telephony.call(code)
        await dashboard.until("in_call")
        await agent.talking()
        await noted(installation, "talking")
        await installation.kill()
        if who != "agent":
            caller.go_on()
            assert await caller.ended() == "by caller"
        if who != "caller":
            agent.hang_up()
            await agent.over()
        await installation.start()
        await dashboard.reconnect()
        if who == "agent":
            await seen.until_played("sound:idbellen/goodbye")
            assert await caller.ended() == "by asterisk"
        await agent.over()
        await dashboard.until("available")
        await installation.until_nothing_is_left()
        await noted(installation)
        again = await telephony.call(code)
        await installation.until_log("accepted=False")
        again.go_on()
        await again.ended()


async def test_whose_agent_hangs_up_meanwhile_waits_for_the_colleague_who_was_being_rung(
    install: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    # Or the agent would be free at once, and might be the first whose phone is known to be.
    installation = await install(**GRACE, more="[queues.default]\nwrap_up_seconds = 20")
    agent = await telephony.agent("agent1")
    await telephony.agent("agent2", "silent")
    async with installation.dashboard("agent1") as dashboard, installation.dashboard("agent2") as colleague:
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        secret = (await dashboard.until("in_call"))["call"]["secret"]
        await agent.talking()
        await colleague.available()
        await dashboard.command("consult", "agent", "agent2")
        await colleague.until("ringing")
        await installation.until_noted_mode("consulting")
        await installation.kill()
        agent.hang_up()
        await agent.over()
        # Another phone, which is answered.
        await telephony.agent("agent2")
        await installation.start()
        await asyncio.gather(dashboard.reconnect(), colleague.reconnect())
        await colleague.until_call(secret=secret, part="main")
        await dashboard.until("wrap_up")
        assert (await dashboard.attributes(secret))[0] == 403
        caller.go_on()
        assert await caller.ended() == "by caller"
    await installation.until_nothing_is_left()


@pytest.mark.parametrize("fault", ["refuses", "silent", "silent when it is asked to ring"])
async def test_a_planned_stop_does_not_wait_for_an_asterisk_that_is_away(
    pbx: Pbx, install: Callable[..., Awaitable[Installation]], telephony: Phones, fault: str
) -> None:
    """As when both are restarted: a phone rings and is to be hung up, and nobody is there to do it."""
    async with Proxy(pbx.settings.ari_port) as proxy:
        installation = await install(ari_port=str(proxy.port), **GRACE)
        phone = await telephony.agent("agent1", "silent")
        async with installation.dashboard("agent1") as dashboard:
            caller = await telephony.call(await installation.log_in_citizen())
            await installation.until_log("accepted=True")
            await noted(installation, "waiting")
            if fault == "silent when it is asked to ring":
                proxy.silence("to_client")
            await dashboard.send("available")
            await phone.rung()
            if fault == "refuses":
                proxy.refuse()
                proxy.cut()
                await installation.until_ready(ready=False)
            elif fault == "silent":
                proxy.silence()
            assert await installation.stop() == 0
            await proxy.pass_on()
            await installation.start()
            await installation.until_log("call of an earlier process taken up")
            await dashboard.reconnect()
            await dashboard.until("ringing")
            caller.go_on()
            assert await caller.ended() == "by caller"
        await installation.until_nothing_is_left()


async def test_who_gave_up_waiting_meanwhile_may_use_the_code_again(
    installation: Installation, telephony: Phones
) -> None:
    code = await installation.log_in_citizen()
    caller = await telephony.call(code)
    await installation.until_log("accepted=True")
    await noted(installation, "waiting")
    await installation.kill()
    caller.go_on()
    assert await caller.ended() == "by caller"
    await installation.start()
    await installation.until_log("call over")
    again = await telephony.call(code)
    await installation.until_log("accepted=True", times=2)
    again.go_on()
    await again.ended()
    await installation.until_nothing_is_left()


@pytest.mark.parametrize("way", WAYS)
async def test_agents_are_as_they_were(
    install: Callable[..., Awaitable[Installation]], telephony: Phones, way: str
) -> None:
    lunch = '[dashboard.pause_reasons]\nlunch = { nl = "Lunch", en = "Lunch" }'
    installation = await install(**GRACE, more=f"[queues.default]\nwrap_up_seconds = 8\n{lunch}")
    await telephony.agent("agent1")
    async with (
        installation.dashboard("agent1") as one,
        installation.dashboard("agent2") as two,
        installation.dashboard("agent3") as three,
    ):
        await one.available()
        await two.pause("lunch")
        await three.available()
        caller = await telephony.call(await installation.log_in_citizen())
        await one.until("in_call")
        caller.go_on()
        await caller.ended()
        await one.until("wrap_up")
        await installation.until_agents_noted(agent1="wrap_up", agent2="paused", agent3="available")
        await restart(installation, way, one, two, three)
        assert 0 < (await one.until("wrap_up"))["wrap_up"]["remaining"] < 8
        assert (await two.until("paused"))["reason"] == "lunch"
        await three.until("available")
        await one.until("available")


async def test_who_does_not_come_back_leaves_after_the_grace(install: Callable[..., Awaitable[Installation]]) -> None:
    installation = await install(dashboard__grace_seconds="1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        await installation.until_agents_noted(agent1="available")
        await installation.kill()
    await installation.start()
    await installation.until_log("agent leaves")


async def test_callers_without_a_note_are_asked_for_the_code_and_pairs_without_one_talk_on(
    pbx: Pbx, installation: Installation, telephony: Phones, voices: tuple[Sound, Sound]
) -> None:
    voice, first = voices
    await telephony.agent("agent1", sound=first)
    async with installation.dashboard("agent1") as dashboard, spy(pbx) as seen:
        await dashboard.available()
        talker = await telephony.call(await installation.log_in_citizen(), sound=voice)
        await dashboard.until("in_call")
        code = await installation.log_in_citizen()
        waiter = await telephony.call(code, code)
        await installation.until_log("accepted=True", times=2)
        await installation.kill()
        await installation.forget_notes()
        await installation.start()
        # Both have been greeted before.
        await seen.until_played(WELCOME, times=3)
        waiter.go_on()
        await installation.until_log("accepted=True", times=3)
        await asyncio.gather(voice.hears(first), first.hears(voice))
        waiter.go_on()
        await waiter.ended()
        talker.go_on()
        await talker.ended()
    await installation.until_nothing_is_left()


async def test_who_waits_for_a_process_that_stays_away_is_sent_to_the_plain_queue(
    pbx: Pbx, installation: Installation, telephony: Phones, voices: tuple[Sound, Sound]
) -> None:
    voice, first = voices
    await telephony.agent("agent1", sound=first)
    config = str(installation.config)
    async with installation.dashboard("agent1") as dashboard, spy(pbx) as seen:
        await dashboard.available()
        talker = await telephony.call(await installation.log_in_citizen(), sound=voice)
        await dashboard.until("in_call")
        waiter = await telephony.call(await installation.log_in_citizen())
        await installation.until_log("accepted=True", times=2)
        code, output = await run_cli("send-away", "--config", config)
        assert (code, "another idbellen serves with it: stop that one" in output) == (1, True)
        assert await installation.stop() == 0
        assert await run_cli("send-away", "--config", config) == (0, "callers sent to the plain queue: 1\n")
        await seen.until("ChannelDestroyed", cause=PLAIN_CAUSE)
        assert await waiter.ended() == "by asterisk"
        await asyncio.gather(voice.hears(first), first.hears(voice))
        assert await run_cli("send-away", "--config", config) == (0, "callers sent to the plain queue: 0\n")
        await installation.start()
        await dashboard.reconnect()
        await dashboard.until("in_call")
        talker.go_on()
        await talker.ended()
        await dashboard.until("available")
    await installation.until_nothing_is_left()
    await noted(installation)
