"""Whole calls on real parts: SIPp, Asterisk, the service, and dashboards."""

from __future__ import annotations

import asyncio
import datetime as dt
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from idbellen.domain.prompts import Prompt, media
from idbellen.ports import Role
from tests.support.installation import PLAIN_CAUSE
from tests.support.rtp import Stalls, Tone, typed
from tests.support.spy import spy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from idbellen.demo.pbx import Pbx
    from tests.support.installation import Installation
    from tests.support.sipp import Phones

WRONG = "0101010101"


def played(event: dict[str, Any]) -> str:
    """Give the name of the prompt that an event is about."""
    name: str = event["playback"]["media_uri"].rpartition("/")[2]
    return name


def moment(event: dict[str, Any]) -> dt.datetime:
    return dt.datetime.fromisoformat(event["timestamp"])


# Later than what can still belong to the entry before (EntryRules.trailing).
LATER_MS = 1000


async def test_from_code_to_screen(installation: Installation, telephony: Phones) -> None:
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard, installation.dashboard("agent2") as other:
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        offered = await dashboard.until("ringing")
        assert offered["offer"]["purpose"] == "Verhuizing doorgeven"
        assert offered["call"] is None
        talking = await dashboard.until("in_call")
        await agent.talking()
        secret = talking["call"]["secret"]
        status, shown = await dashboard.attributes(secret)
        assert status == 200
        assert shown == {
            "status": "verified",
            "attributes": [
                {"name": "fullname", "label": "Naam", "value": "Quirijn Zevenaar-Vlinderslag"},
                # Its label is not configured; "birthdate" is not allowed for this purpose.
                {"name": "bsn", "label": "bsn", "value": "999990342"},
            ],
            "method": None,
            "missing": [],
        }
        assert (await other.attributes(secret))[0] == 403, "another agent"
        async with installation.dashboard("agent1") as second_tab:
            assert (await second_tab.until("in_call"))["call"]["secret"] == secret
        caller.go_on()
        assert await caller.ended() == "by caller"
        assert (await dashboard.until("available"))["call"] is None
        assert (await dashboard.attributes(secret))[0] == 403, "the call is over"
        await agent.over()
    await installation.until_nothing_is_left()


async def test_the_agent_hangs_up(installation: Installation, telephony: Phones) -> None:
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        code = await installation.log_in_citizen()
        caller = await telephony.call(code)
        await dashboard.until("in_call")
        await agent.talking()
        agent.hang_up()
        await dashboard.until("available")
        assert await caller.ended() == "by asterisk"
        await installation.until_nothing_is_left()
        again = await telephony.call(code)
        await installation.until_log("accepted=False")
        again.go_on()
        await again.ended()


async def test_a_caller_who_is_moved_while_prompts_play_is_connected_at_once(
    install: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    installation = await install(more="[queues.second]")
    await installation.add_agents("boss", role=Role.SUPERVISOR)
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard, installation.wallboard("boss") as wallboard:
        await dashboard.until("paused")
        caller = await telephony.call(await installation.log_in_citizen())
        # The sentences about the first queue have just begun, and those about the second come in their place.
        assert await wallboard.ask("move", call=await wallboard.caller(), queue="second") is None
        await dashboard.send("available")
        await agent.talking()
        await dashboard.until("in_call", seconds=1.5)
        caller.go_on()
        await caller.ended()
    await installation.until_nothing_is_left()


# Digits


async def accepted(
    installation: Installation, telephony: Phones, keys: str | list[Tone], *, info: bool = False
) -> None:
    before = installation.log.read_text().count("accepted=True")
    caller = await telephony.call(keys, info=info)
    await installation.until_log("accepted=True", times=before + 1, seconds=25)
    caller.go_on()
    await caller.ended()
    await installation.until_nothing_is_left()


async def test_a_burst_at_the_moment_of_the_answer(installation: Installation, telephony: Phones) -> None:
    code = await installation.log_in_citizen()
    await accepted(installation, telephony, typed(code, first_ms=0, tone_ms=80, gap_ms=40))


async def test_digits_in_sip_info(installation: Installation, telephony: Phones) -> None:
    await accepted(installation, telephony, await installation.log_in_citizen(), info=True)


async def test_digits_during_the_prompt_stop_it(pbx: Pbx, installation: Installation, telephony: Phones) -> None:
    code = await installation.log_in_citizen()
    async with spy(pbx) as seen:
        await accepted(installation, telephony, typed(code[:4], first_ms=1200) + typed(code[4:], first_ms=2400))
    prompt = next(e for e in seen.events if e["type"] == "PlaybackFinished")["timestamp"]
    last_digit = [e for e in seen.events if e["type"] == "ChannelDtmfReceived"][-1]["timestamp"]
    assert prompt < last_digit, "welcome and instruction last nine seconds"


async def test_a_slow_typist(install: Callable[..., Awaitable[Installation]], telephony: Phones) -> None:
    installation = await install(between_digits_seconds="1.5", first_digit_seconds="1.5")
    code = await installation.log_in_citizen()
    await accepted(installation, telephony, typed(code, first_ms=2000, tone_ms=200, gap_ms=1100))


async def test_short_digits_over_a_network_that_stalls(pbx: Pbx, installation: Installation, telephony: Phones) -> None:
    codes = [await installation.log_in_citizen() for _ in range(8)]
    async with spy(pbx) as seen:
        callers = [
            await telephony.call(typed(code, first_ms=200, tone_ms=80, gap_ms=80), stalls=Stalls(seed))
            for seed, code in enumerate(codes)
        ]
        await installation.until_log("accepted=True", times=len(codes))
    reported = [seen.keys(channel) for channel in seen.channels_with_keys()]
    assert any(a == b for keys in reported for a, b in pairwise(keys)), "the stalls made no digit come twice"
    for caller in callers:
        caller.go_on()
        await caller.ended()


async def test_star_starts_over_and_hash_ends(installation: Installation, telephony: Phones) -> None:
    code = await installation.log_in_citizen()
    caller = await telephony.call("12#", typed(f"12*{code}", first_ms=LATER_MS))
    await installation.until_log("entry=incomplete")
    caller.go_on()
    await installation.until_log("accepted=True")
    caller.go_on()
    await caller.ended()


@pytest.mark.parametrize("keys", ["#", "*", "##**#"])
async def test_keys_that_add_nothing_neither_stop_the_prompt_nor_the_call(
    pbx: Pbx, install: Callable[..., Awaitable[Installation]], telephony: Phones, keys: str
) -> None:
    installation = await install(without_code='"off"', first_digit_seconds="1")
    code = await installation.log_in_citizen()
    async with spy(pbx) as seen:
        caller = await telephony.call(typed(keys, first_ms=800), code)
        await installation.until_log("entry=silence", seconds=14)
    last_key = [e for e in seen.events if e["type"] == "ChannelDtmfReceived"][-1]["timestamp"]
    asked = [e for e in seen.events if e["type"] == "PlaybackFinished"]
    assert [played(event) for event in asked] == ["welcome", "enter-code-10"]
    assert last_key < asked[0]["timestamp"], "the keys came while the first sentence played"
    caller.go_on()
    await installation.until_log("accepted=True attempt=2")
    caller.go_on()
    await caller.ended()


async def test_the_key_pressed_five_times_while_waiting_tells_the_place_once(
    pbx: Pbx, installation: Installation, telephony: Phones
) -> None:
    async with spy(pbx) as seen:
        caller = await telephony.call(await installation.log_in_citizen(), typed("11111", gap_ms=150))
        await seen.until_played(media(Prompt.HEAR_AGAIN))
        caller.go_on()
        await seen.until_played(media(Prompt.PLACE_1), times=2)
        # So soon the next would have begun.
        await asyncio.sleep(1)
        caller.go_on()
        await caller.ended()
    assert seen.keys()[-5:] == ["1"] * 5
    told = [played(event) for event in seen.events if event["type"] == "PlaybackStarted"]
    assert told.count("place-1") == 2, "on entry, and when it was asked for"


# Callers without a code


async def test_a_caller_without_a_code_is_in_the_plain_queue_within_ten_seconds(
    pbx: Pbx, installation: Installation, telephony: Phones
) -> None:
    async with spy(pbx) as seen:
        caller = await telephony.call(typed("#", first_ms=500))
        await seen.until("ChannelDestroyed", cause=PLAIN_CAUSE)
        assert await caller.ended() == "by asterisk"
    [key] = [moment(e) for e in seen.events if e["type"] == "ChannelDtmfReceived"]
    [gone] = [moment(e) for e in seen.events if e["type"] == "ChannelDestroyed" and e["cause"] == PLAIN_CAUSE]
    assert (gone - key).total_seconds() < 10
    await installation.until_log("without a code attempt=1")
    await installation.until_nothing_is_left()


async def test_a_caller_without_a_code_is_served_as_not_verified(
    install: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    more = """
[purposes.no_code]
title = { nl = "Beller zonder code", en = "Caller without a code" }
attributes = []
admit_unverified = true
"""
    installation = await install(without_code='"purpose:no_code"', more=more)
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        caller = await telephony.call("#")
        assert (await dashboard.until("ringing"))["offer"]["purpose"] == "Beller zonder code"
        talking = await dashboard.until("in_call")
        await agent.talking()
        assert talking["call"]["words"] is None
        assert await dashboard.attributes(talking["call"]["secret"]) == (200, {"status": "failed", "attributes": []})
        await installation.kill()
        await installation.start()
        await dashboard.reconnect()
        again = await dashboard.until("in_call")
        assert again["call"]["words"] is None, "nor after a restart"
        assert (await dashboard.attributes(again["call"]["secret"]))[0] == 200
        caller.go_on()
        assert await caller.ended() == "by caller"
    await installation.until_nothing_is_left()


async def test_wrong_wrong_right(installation: Installation, telephony: Phones) -> None:
    code = await installation.log_in_citizen()
    caller = await telephony.call(WRONG, typed(WRONG, first_ms=LATER_MS), typed(code, first_ms=LATER_MS))
    await installation.until_log("accepted=False", times=1)
    caller.go_on()
    await installation.until_log("accepted=False", times=2)
    caller.go_on()
    await installation.until_log("accepted=True attempt=3")
    caller.go_on()
    await caller.ended()


async def all_wrong(installation: Installation, telephony: Phones) -> str:
    caller = await telephony.call(WRONG, typed(WRONG, first_ms=LATER_MS), typed(WRONG, first_ms=LATER_MS))
    for times in (1, 2):
        await installation.until_log("accepted=False", times=times)
        caller.go_on()
    await installation.until_log("accepted=False", times=3)
    return await caller.ended()


async def test_all_wrong_goes_to_the_plain_queue(pbx: Pbx, installation: Installation, telephony: Phones) -> None:
    async with spy(pbx) as seen:
        assert await all_wrong(installation, telephony) == "by asterisk"
        await seen.until("ChannelDestroyed", cause=PLAIN_CAUSE)
    await installation.until_nothing_is_left()


async def test_all_wrong_or_goodbye(
    pbx: Pbx, install: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    installation = await install(unverified='"goodbye"')
    async with spy(pbx) as seen:
        assert await all_wrong(installation, telephony) == "by asterisk"
        await seen.until("ChannelDestroyed")
        assert not any(e["type"] == "ChannelDestroyed" and e["cause"] == PLAIN_CAUSE for e in seen.events)
    await installation.until_nothing_is_left()


async def test_silence_is_asked_again_and_then_let_go(
    install: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    installation = await install(tries="2", overall_seconds="2")
    caller = await telephony.call("")
    await installation.until_log("entry=silence", times=2)
    assert await caller.ended() == "by asterisk"


async def test_one_code_and_two_callers_at_once(installation: Installation, telephony: Phones) -> None:
    code = await installation.log_in_citizen()
    callers = await asyncio.gather(telephony.call(code), telephony.call(code))
    await installation.until_log("accepted=False")
    await installation.until_log("accepted=True")
    for caller in callers:
        caller.go_on()
    assert [await caller.ended() for caller in callers] == ["by caller"] * 2
    await installation.until_nothing_is_left()


async def test_who_is_cut_off_before_an_agent_answers_may_use_the_code_again(
    installation: Installation, telephony: Phones
) -> None:
    code = await installation.log_in_citizen()
    for _ in range(2):
        await accepted(installation, telephony, code)


# Agents


@pytest.mark.parametrize(
    ("does", "outcome"),
    [
        ("busy", "busy"),
        ("decline", "declined"),
        ("unavailable", "'no answer'"),
        ("silent", "'no answer'"),
    ],
)
async def test_an_agent_who_does_not_answer_passes_the_caller_on(
    install: Callable[..., Awaitable[Installation]], telephony: Phones, does: str, outcome: str
) -> None:
    installation = await install(ring_seconds="1.5")
    await telephony.agent("agent1", does)
    second = await telephony.agent("agent2")
    async with installation.dashboard("agent1") as first, installation.dashboard("agent2") as dashboard:
        # The first has been idle for longer, so the caller is offered there first.
        await first.available()
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        await dashboard.until("in_call")
        await second.talking()
        call = dashboard.snapshot["call"]["id"]
        await installation.until_log(f"rang agent=agent1 call={call} outcome={outcome}")
        await first.until("available")
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
    await installation.until_nothing_is_left()


async def test_two_callers_and_one_agent(installation: Installation, telephony: Phones) -> None:
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        first = await telephony.call(await installation.log_in_citizen())
        talking = await dashboard.until("in_call")
        second = await telephony.call(await installation.log_in_citizen())
        while dashboard.snapshot["waiting"] != 1:
            await dashboard.next()
        first.go_on()
        await first.ended()
        await dashboard.until("ringing")
        assert (await dashboard.until("in_call"))["call"]["id"] != talking["call"]["id"]
        await agent.talking(2)
        second.go_on()
        await second.ended()
        await dashboard.until("available")
    await installation.until_nothing_is_left()


async def test_away_after_this_call(installation: Installation, telephony: Phones) -> None:
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        await dashboard.until("in_call")
        await dashboard.pause()
        caller.go_on()
        await caller.ended()
        await dashboard.until("paused")


async def test_a_screen_that_shows_nothing_raises_an_alarm(installation: Installation, telephony: Phones) -> None:
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        await dashboard.until("in_call")
        await installation.until_log("no dashboard showed the attributes")
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
        caller = await telephony.call(await installation.log_in_citizen())
        await dashboard.shown((await dashboard.until("in_call"))["call"]["id"])
        agent_is_free = installation.until_log("state=available", times=3, seconds=15)
        # Longer than the alarm waits.
        await asyncio.sleep(6)
        caller.go_on()
        await agent_is_free
        assert installation.log.read_text().count("no dashboard showed the attributes") == 1


# Hangups


async def test_a_hangup_in_the_moment_of_the_answer(installation: Installation, telephony: Phones) -> None:
    for number in range(1, 6):
        caller = await telephony.call("", hang_up_at_once=True)
        assert await caller.ended() == "by caller"
        await installation.until_log("call over", times=number)
    await installation.until_nothing_is_left()
    assert "call failed" not in installation.log.read_text()


@pytest.mark.parametrize("step", ["prompt", "code entry", "asked again", "queue", "ringing", "moment of connecting"])
async def test_a_hangup_at_each_step_leaves_nothing(installation: Installation, telephony: Phones, step: str) -> None:
    agent = await telephony.agent("agent1", after_ms=0 if step == "moment of connecting" else 30_000)
    code = await installation.log_in_citizen()
    async with installation.dashboard("agent1") as dashboard:
        if step in ("ringing", "moment of connecting"):
            await dashboard.available()
        keys = {"prompt": "", "code entry": code[:3], "asked again": WRONG}.get(step, code)
        caller = await telephony.call(keys)
        await caller.answered()
        match step:
            case "asked again":
                await installation.until_log("accepted=False")
            case "queue":
                await installation.until_log("accepted=True")
            case "ringing":
                await agent.rung()
            case "moment of connecting":
                await agent.talking()
        caller.go_on()
        assert await caller.ended() == "by caller"
        await installation.until_log("call over")
        await installation.until_nothing_is_left()
        assert "call failed" not in installation.log.read_text()
        if step in ("ringing", "moment of connecting"):
            await agent.over()
            await dashboard.until("available")


# Faults


async def test_while_idbellen_is_away_callers_reach_the_plain_queue(
    pbx: Pbx, installation: Installation, telephony: Phones
) -> None:
    await installation.kill()
    async with spy(pbx) as seen:
        caller = await telephony.call("")
        assert await caller.ended() == "by asterisk"
        await seen.until("ChannelDestroyed", cause=PLAIN_CAUSE)


async def test_a_missing_prompt_is_logged_and_the_call_goes_on(
    pbx: Pbx, installation: Installation, telephony: Phones
) -> None:
    # Asterisk plays the English prompt where the Dutch one is missing, so both go.
    prompts = [pbx.settings.directory / f"data/sounds/{language}/idbellen/welcome.wav" for language in ("nl", "en")]
    sounds = [prompt.read_bytes() for prompt in prompts]
    for prompt in prompts:
        prompt.unlink()
    try:
        caller = await telephony.call("", await installation.log_in_citizen())
        await installation.until_log("prompt missing or unreadable")
        caller.go_on()
        await installation.until_log("accepted=True")
        caller.go_on()
        await caller.ended()
    finally:
        for prompt, sound in zip(prompts, sounds, strict=True):
            prompt.write_bytes(sound)
