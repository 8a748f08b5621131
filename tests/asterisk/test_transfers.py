"""Hold, consult, transfer and conference on a real Asterisk: who hears whom, who sees the data, and what is left.

Each phone sounds a tone of its own (tests/support/rtp.py). All tests share one idbellen and its phones.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.conftest import AGENTS
from tests.support.installation import Installation
from tests.support.rtp import sounds
from tests.support.sipp import Phones, phones
from tests.support.spy import spy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.support.dashboards import Dashboard
    from tests.support.rtp import Sound
    from tests.support.sipp import AgentPhone, Caller

# The place in the dialplan that a queue sends callers to hangs up with a cause of its own.
WAY_OUT_CAUSE = 57
NUMBER = "0201112233"
QUEUES = """
[queues.default]
announce_seconds = 60
[queues.second]
wrap_up_seconds = 60
[queues.all]
strategy = "ring-all"
[queues.short]
longest_wait_seconds = 1
when_too_long = "extension:idbellen-test-way,s,1"
"""
# The second agent is second choice in the first queue; the third one's phone only rings.
PENALTIES = {
    "agent2": {"default": 3, "second": 0, "all": 0},
    "agent3": {"second": 2, "all": 0},
}


@dataclass(frozen=True)
class Talk:
    """A caller who talks with the first agent, and the dashboards of all."""

    caller: Caller
    one: Dashboard
    two: Dashboard
    three: Dashboard
    secret: str


@dataclass(frozen=True)
class Stage:
    """What the tests share. ``voice`` is the caller's."""

    pbx: Pbx
    installation: Installation
    telephony: Phones
    voice: Sound
    first: Sound
    second: Sound
    far: Sound
    phones: dict[str, AgentPhone]
    boards: tuple[Dashboard, Dashboard, Dashboard]

    @asynccontextmanager
    async def dashboards(self) -> AsyncIterator[tuple[Dashboard, Dashboard, Dashboard]]:
        """Give the agents' dashboards, all paused; afterwards nothing may be left in Asterisk."""
        for board in self.boards:
            # As the page does after the service was away.
            await board.reconnect()
            await board.pause()
            await board.until("paused")
        try:
            yield self.boards
        except BaseException:
            # Not in the way of the next test.
            await self.pbx.cli("channel request hangup all")
            await self.installation.restart_if_ended()
            raise
        await self.installation.until_nothing_is_left()

    @asynccontextmanager
    async def talking(self, *also: int) -> AsyncIterator[Talk]:
        """Let a caller talk with the first agent; these others are available."""
        async with self.dashboards() as boards:
            await available(boards[0])
            caller = await self.telephony.call(await self.installation.log_in_citizen(), sound=self.voice)
            call = (await boards[0].until("in_call"))["call"]
            await boards[0].shown(call["id"])
            for number in also:
                await available(boards[number - 1])
            await asyncio.gather(self.voice.hears(self.first), self.first.hears(self.voice))
            yield Talk(caller, *boards, call["secret"])

    async def hang_up(self, caller: Caller) -> None:
        caller.go_on()
        assert await caller.ended() == "by caller"

    async def restart(self, way: str) -> None:
        """End the service when it has noted what there is, and start it again; the dashboards come back."""
        calls = [board.snapshot["call"] for board in self.boards if board.snapshot.get("call")]
        if calls:
            call = calls[0]
            await self.installation.until_noted_mode(call["mode"], muted=call["muted"], holds=call["phone_holds"])
        else:
            await self.installation.until_noted_mode("transferring")
        if way == "planned":
            assert await self.installation.stop() == 0
        else:
            await self.installation.kill()
        await self.installation.start()
        await asyncio.gather(*(board.reconnect() for board in self.boards))


async def available(dashboard: Dashboard) -> None:
    await dashboard.send("available")
    await dashboard.until("available")


async def sees(dashboard: Dashboard, secret: str) -> bool:
    status, _ = await dashboard.attributes(secret)
    assert status in (200, 403)
    return status == 200


@pytest.fixture(scope="module")
async def stage(
    pbx: Pbx, keys_folder: Path, tmp_path_factory: pytest.TempPathFactory, all_installations: list[Installation]
) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("transfers")
    await pbx.cli("dialplan add extension s,1,Answer() into idbellen-test-way")
    await pbx.cli(f"dialplan add extension s,2,Hangup({WAY_OUT_CAUSE}) into idbellen-test-way")
    async with phones(pbx, folder) as telephony, sounds(4) as (voice, first, second, far):
        plugged = {
            "agent1": await telephony.agent("agent1", sound=first),
            "agent2": await telephony.agent("agent2", sound=second),
            "agent3": await telephony.agent("agent3", "silent"),
            "far": await telephony.outside(sound=far),
        }
        installation = Installation(folder / "idbellen", pbx)
        outside = f'"PJSIP/trunk/sip:{{number}}@127.0.0.1:{plugged["far"].port}"'
        # A start is slow on a busy machine; the dashboards come back after it.
        installation.write(keys_folder, outside_endpoint=outside, dashboard__grace_seconds="10", more=QUEUES)
        await installation.add_agents(*AGENTS, queues=PENALTIES)
        all_installations.append(installation)
        await installation.start()
        async with AsyncExitStack() as stack:
            one, two, three = [await stack.enter_async_context(installation.dashboard(agent)) for agent in AGENTS]
            boards = (one, two, three)
            yield Stage(pbx, installation, telephony, voice, first, second, far, plugged, boards)
        assert await installation.stop() == 0, installation.log.read_text()
        log = installation.log.read_text()
        assert "Traceback" not in log, log
        assert "never awaited" not in log, log
        assert "call failed" not in log, log


# Caller and agent


async def test_mute(stage: Stage) -> None:
    async with stage.talking() as talk:
        await talk.one.command("mute")
        await talk.one.until_call(muted=True)
        await asyncio.gather(stage.voice.hears(), stage.first.hears(stage.voice))
        await talk.one.command("unmute")
        await talk.one.until_call(muted=False)
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        await stage.hang_up(talk.caller)


async def test_hold_with_music(stage: Stage) -> None:
    async with stage.talking() as talk:
        await talk.one.command("hold")
        await talk.one.until_call(mode="held")
        await asyncio.gather(stage.voice.hears_music(), stage.first.hears_nothing())
        await talk.one.command("resume")
        await talk.one.until_call(mode="talking")
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        # An agent who hangs up in a call that is held ends it.
        await talk.one.command("hold")
        await talk.one.until_call(mode="held")
        await stage.voice.hears_music()
        stage.phones["agent1"].hang_up()
        assert await talk.caller.ended() == "by asterisk"


# The phone's own hold key


async def test_the_phones_own_hold_key_is_the_pages_button(stage: Stage) -> None:
    async with stage.talking() as talk:
        phone = stage.phones["agent1"]
        await phone.press_hold()
        call = await talk.one.until_call(mode="held", phone_holds=True)
        # Only the phone can take the caller back.
        assert "resume" not in call["allowed"]
        await stage.voice.hears_music()
        await phone.press_hold()
        await talk.one.until_call(mode="talking", phone_holds=False)
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        # Held on the page, then by the phone as well: whoever takes the caller back on the phone has the caller.
        await talk.one.command("hold")
        await talk.one.until_call(mode="held", phone_holds=False)
        await phone.press_hold()
        await talk.one.until_call(mode="held", phone_holds=True)
        await stage.voice.hears_music()
        await phone.press_hold()
        await talk.one.until_call(mode="talking", phone_holds=False)
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        await stage.hang_up(talk.caller)


async def test_who_holds_by_phone_can_consult_and_the_caller_is_never_left_in_silence(stage: Stage) -> None:
    async with stage.talking(2) as talk:
        phone = stage.phones["agent1"]
        await phone.press_hold()
        await talk.one.until_call(mode="held", phone_holds=True)
        await talk.one.command("consult", "agent", "agent2")
        await talk.one.until_call(mode="consulted", phone_holds=True)
        await stage.voice.hears_music()
        await phone.press_hold()
        await talk.one.until_call(mode="consulted", phone_holds=False)
        await asyncio.gather(stage.first.hears(stage.second), stage.second.hears(stage.first))
        # The colleague is held, and goes: the caller waits on with music, for the phone still holds.
        await phone.press_hold()
        await talk.one.until_call(mode="consulted", phone_holds=True)
        await stage.second.hears_music()
        await talk.one.command("resume")
        call = await talk.one.until_call(mode="held", phone_holds=True)
        assert "resume" not in call["allowed"]
        await stage.voice.hears_music()
        await phone.press_hold()
        await talk.one.until_call(mode="talking", phone_holds=False)
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        await stage.hang_up(talk.caller)


async def test_who_holds_a_colleague_by_phone_can_transfer_to_the_colleague(stage: Stage) -> None:
    async with stage.talking(2) as talk:
        await consult(stage, talk)
        await stage.phones["agent1"].press_hold()
        await talk.one.until_call(mode="consulted", phone_holds=True)
        await stage.second.hears_music()
        await talk.one.command("transfer")
        await talk.two.until_call(part="main", mode="talking", phone_holds=False)
        await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
        await stage.hang_up(talk.caller)


@pytest.mark.parametrize("who", ["agent1", "agent2"])
async def test_who_holds_in_a_conference_leaves_the_others_talking(stage: Stage, who: str) -> None:
    async with stage.talking(2) as talk:
        await bring_to(stage, talk, "conference")
        await stage.phones[who].press_hold()
        holder, other = (talk.one, stage.second) if who == "agent1" else (talk.two, stage.first)
        await holder.until_call(mode="conference", phone_holds=True)
        # SIPp goes on sounding.
        everybody = (stage.voice, stage.first, stage.second)
        for one in (stage.voice, other):
            await one.hears(*(tone for tone in everybody if tone is not one))
        stage.phones["agent2" if who == "agent1" else "agent1"].hang_up()
        # Whoever is left has the caller, and still holds.
        await holder.until_call(part="main", mode="held", phone_holds=True)
        await stage.voice.hears_music()
        await stage.phones[who].press_hold()
        await holder.until_call(mode="talking", phone_holds=False)
        await stage.voice.hears(stage.first if who == "agent1" else stage.second)
        await stage.hang_up(talk.caller)


@pytest.mark.parametrize("resumed", ["afterwards", "meanwhile"])
@pytest.mark.parametrize("way", ["planned", "kill -9"])
async def test_what_a_phone_holds_is_held_in_the_next_process(stage: Stage, way: str, resumed: str) -> None:
    async with stage.talking() as talk:
        phone = stage.phones["agent1"]
        await phone.press_hold()
        await talk.one.until_call(mode="held", phone_holds=True)
        if resumed == "meanwhile":
            await stage.installation.until_noted_mode("held", holds=True)
            if way == "planned":
                assert await stage.installation.stop() == 0
            else:
                await stage.installation.kill()
            await phone.press_hold()
            await stage.installation.start()
            await talk.one.reconnect()
        else:
            await stage.restart(way)
            await talk.one.until_call(mode="held", phone_holds=True)
            await stage.voice.hears_music()
            await phone.press_hold()
        await talk.one.until_call(mode="talking", phone_holds=False)
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        await stage.hang_up(talk.caller)


# To a colleague


async def consult(stage: Stage, talk: Talk) -> None:
    await talk.one.command("consult", "agent", "agent2")
    await talk.one.until_call(mode="consulted", other={"kind": "agent", "name": "agent2", "title": "agent2"})
    await talk.two.until_call(part="consulted", secret=None)
    await asyncio.gather(stage.voice.hears_music(), stage.first.hears(stage.second), stage.second.hears(stage.first))


async def test_consult_and_transfer(stage: Stage) -> None:
    async with stage.talking(2) as talk:
        await consult(stage, talk)
        assert await sees(talk.one, talk.secret)
        assert not await sees(talk.two, talk.secret)
        await talk.one.command("transfer")
        call = await talk.two.until_call(part="main", mode="talking", secret=talk.secret)
        assert await sees(talk.two, talk.secret)
        assert not await sees(talk.one, talk.secret)
        await talk.one.until("available")
        assert talk.one.snapshot["call"] is None
        await talk.two.shown(call["id"])
        await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
        stage.phones["agent2"].hang_up()
        assert await talk.caller.ended() == "by asterisk"
        await talk.two.until("available")
        assert not await sees(talk.two, talk.secret)


async def test_consult_and_return(stage: Stage) -> None:
    async with stage.talking(2) as talk:
        await consult(stage, talk)
        await talk.one.command("resume")
        await talk.one.until_call(mode="talking", other=None)
        await talk.two.until("available")
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        assert not await sees(talk.two, talk.secret)
        # And once more; the colleague ends it this time.
        await consult(stage, talk)
        stage.phones["agent2"].hang_up()
        await talk.one.until_call(mode="talking")
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        await stage.hang_up(talk.caller)


async def test_conference_and_sharing(stage: Stage) -> None:
    async with stage.talking(2) as talk:
        await consult(stage, talk)
        await talk.one.command("share")
        call = await talk.two.until_call(shared=True, secret=talk.secret)
        assert await sees(talk.two, talk.secret)
        await talk.two.shown(call["id"])
        await talk.one.command("conference")
        await talk.one.until_call(mode="conference")
        await asyncio.gather(
            stage.voice.hears(stage.first, stage.second),
            stage.first.hears(stage.voice, stage.second),
            stage.second.hears(stage.voice, stage.first),
        )
        await talk.two.command("mute")
        await asyncio.gather(
            stage.voice.hears(stage.first), stage.first.hears(stage.voice), stage.second.hears(stage.voice, stage.first)
        )
        await talk.one.command("resume")
        await talk.two.until("available")
        assert not await sees(talk.two, talk.secret)
        assert await sees(talk.one, talk.secret)
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        await stage.hang_up(talk.caller)


@pytest.mark.parametrize("mode", ["consulted", "conference"])
async def test_an_agent_who_hangs_up_leaves_the_caller_with_the_colleague(stage: Stage, mode: str) -> None:
    async with stage.talking(2) as talk:
        await bring_to(stage, talk, mode)
        stage.phones["agent1"].hang_up()
        call = await talk.two.until_call(part="main", mode="talking", secret=talk.secret)
        await talk.two.shown(call["id"])
        await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
        assert not await sees(talk.one, talk.secret)
        await stage.hang_up(talk.caller)


async def test_blind_to_an_agent(stage: Stage) -> None:
    async with stage.talking(2) as talk:
        await talk.one.command("blind", "agent", "agent2")
        call = await talk.two.until_call(part="main", mode="talking", secret=talk.secret)
        await talk.two.shown(call["id"])
        assert await sees(talk.two, talk.secret)
        assert not await sees(talk.one, talk.secret)
        await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
        await stage.hang_up(talk.caller)


async def test_blind_in_vain_brings_the_caller_back_to_the_queue(stage: Stage) -> None:
    async with stage.talking() as talk:
        # Nobody is free, so the next who is gets the caller: the second agent, who is second choice.
        await talk.one.pause()
        await talk.one.command("blind", "agent", "agent2")
        await talk.one.until("paused")
        assert talk.one.refused == []
        await stage.voice.hears_music()
        await talk.two.send("available")
        call = await talk.two.until_call(part="main", queue="default")
        await talk.two.shown(call["id"])
        await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
        await stage.hang_up(talk.caller)


# To a queue


async def test_blind_to_a_queue_with_penalties_and_wrap_up(stage: Stage) -> None:
    async with stage.talking(3, 2) as talk:
        await talk.one.pause()
        await talk.one.command("blind", "queue", "second")
        call = await talk.two.until_call(part="main", queue="second", secret=talk.secret)
        await talk.two.shown(call["id"])
        assert await sees(talk.two, talk.secret)
        assert not await sees(talk.one, talk.secret)
        await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
        await stage.hang_up(talk.caller)
        wrapping = await talk.two.until("wrap_up")
        assert 50 < wrapping["wrap_up"]["remaining"] <= 60
        assert talk.three.snapshot["state"] == "available", "has a higher penalty there"
        await talk.two.send("wrap_up", action="end")
        await talk.two.until("available")


async def test_who_has_the_lower_penalty_goes_first_however_long_the_other_is_idle(stage: Stage) -> None:
    async with stage.dashboards() as (one, two, _three):
        await available(two)
        await available(one)
        caller = await stage.telephony.call(await stage.installation.log_in_citizen(), sound=stage.voice)
        call = await one.until_call(queue="default")
        await one.shown(call["id"])
        other = await stage.telephony.call(await stage.installation.log_in_citizen())
        call = await two.until_call(queue="default")
        await two.shown(call["id"])
        await stage.hang_up(caller)
        await stage.hang_up(other)


async def test_ring_all(stage: Stage) -> None:
    async with stage.talking(2, 3) as talk:
        rung = stage.phones["agent3"].count("rung")
        await talk.one.pause()
        await talk.one.command("blind", "queue", "all")
        await talk.three.until("ringing")
        call = await talk.two.until_call(part="main", queue="all")
        await talk.two.shown(call["id"])
        await stage.phones["agent3"].over(rung + 1)
        # So the phone tells of no missed call.
        assert "completed elsewhere" in stage.phones["agent3"].latest("cancelled")
        await talk.three.until("available")
        assert talk.three.snapshot["missed"] == 0, "another was quicker"
        await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
        await stage.hang_up(talk.caller)


async def test_the_place_is_told_and_told_again_on_a_key(stage: Stage) -> None:
    async with spy(stage.pbx) as seen, stage.dashboards():
        caller = await stage.telephony.call(await stage.installation.log_in_citizen(), "1", sound=stage.voice)
        place = "sound:idbellen/place-1"
        await seen.until_played(place)
        await seen.until_played("sound:idbellen/hear-again")
        caller.go_on()
        await seen.until_played(place, times=2)
        await stage.voice.hears_music()
        await stage.hang_up(caller)


async def test_the_way_out_to_an_extension(stage: Stage) -> None:
    async with spy(stage.pbx) as seen, stage.talking() as talk:
        await talk.one.pause()
        await talk.one.command("blind", "queue", "short")
        assert await talk.caller.ended() == "by asterisk"
        await seen.until("ChannelDestroyed", cause=WAY_OUT_CAUSE)


# Outside


async def test_consult_and_conference_with_an_outside_number_and_transfer_to_it(stage: Stage) -> None:
    async with stage.talking() as talk:
        await talk.one.command("consult", "number", NUMBER)
        await talk.one.until_call(mode="consulted")
        await asyncio.gather(stage.voice.hears_music(), stage.first.hears(stage.far), stage.far.hears(stage.first))
        await talk.one.command("conference")
        await asyncio.gather(
            stage.voice.hears(stage.first, stage.far),
            stage.first.hears(stage.voice, stage.far),
            stage.far.hears(stage.voice, stage.first),
        )
        await talk.one.command("transfer")
        await talk.one.until("available")
        assert not await sees(talk.one, talk.secret)
        await asyncio.gather(stage.voice.hears(stage.far), stage.far.hears(stage.voice))
        await stage.hang_up(talk.caller)


async def test_blind_to_an_outside_number(stage: Stage) -> None:
    async with stage.talking(2) as talk:
        await talk.one.command("blind", "number", NUMBER)
        await talk.one.until("available")
        await asyncio.gather(stage.voice.hears(stage.far), stage.far.hears(stage.voice))
        assert not await sees(talk.one, talk.secret)
        assert not await sees(talk.two, talk.secret)
        stage.phones["far"].hang_up()
        assert await talk.caller.ended() == "by asterisk"


# Hangups


async def bring_to(stage: Stage, talk: Talk, mode: str) -> None:
    match mode:
        case "held":
            await talk.one.command("hold")
        case "consulting":
            await talk.one.command("consult", "agent", "agent3")
            await talk.three.until("ringing")
        case "consulted":
            await consult(stage, talk)
        case "conference":
            await consult(stage, talk)
            await talk.one.command("conference")
        case "transferring":
            await talk.one.command("blind", "agent", "agent3")
            await talk.three.until("ringing")
            await talk.one.until("available")
    if mode != "transferring":
        await talk.one.until_call(mode=mode)


@pytest.mark.parametrize("mode", ["held", "consulting", "consulted", "conference", "transferring"])
async def test_the_caller_hangs_up(stage: Stage, mode: str) -> None:
    async with stage.talking(2, 3) as talk:
        await bring_to(stage, talk, mode)
        await stage.hang_up(talk.caller)
        await stage.installation.until_nothing_is_left()
        for dashboard in (talk.one, talk.two, talk.three):
            await dashboard.until("available")
            assert not await sees(dashboard, talk.secret)


async def test_the_agent_hangs_up_while_a_colleague_is_rung(stage: Stage) -> None:
    async with stage.talking(3) as talk:
        await bring_to(stage, talk, "consulting")
        stage.phones["agent1"].hang_up()
        # Which is a blind transfer: the caller waits for the colleague, and nobody else is free.
        await talk.one.pause()
        await talk.one.until("paused")
        await stage.voice.hears_music()
        await stage.hang_up(talk.caller)


# Ends of the service: see also tests/asterisk/test_adoption.py


@pytest.mark.parametrize("way", ["planned", "kill -9"])
@pytest.mark.parametrize("mode", ["held", "muted", "consulting", "consulted", "conference"])
async def test_a_conversation_goes_on_in_the_next_process(stage: Stage, mode: str, way: str) -> None:
    async with stage.talking(2, 3) as talk:
        if mode == "muted":
            await talk.one.command("mute")
            await talk.one.until_call(muted=True)
        else:
            await bring_to(stage, talk, mode)
        await stage.restart(way)
        # Who was being rung is let go.
        mode = {"muted": "talking", "consulting": "held"}.get(mode, mode)
        call = await talk.one.until_call(mode=mode)
        assert await sees(talk.one, talk.secret)
        assert not await sees(talk.two, talk.secret)
        match mode:
            case "talking":
                assert call["muted"]
                await talk.one.command("unmute")
            case "held":
                await stage.voice.hears_music()
                await talk.three.until("available")
                await talk.one.command("resume")
            case "consulted":
                await asyncio.gather(stage.first.hears(stage.second), stage.voice.hears_music())
                await talk.one.command("transfer")
                await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
                assert await sees(talk.two, talk.secret)
                await talk.one.until("available")
            case "conference":
                await stage.voice.hears(stage.first, stage.second)
                stage.phones["agent2"].hang_up()
        if mode != "consulted":
            await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        await stage.hang_up(talk.caller)
        await stage.installation.until_nothing_is_left()
        for dashboard in (talk.one, talk.two, talk.three):
            await dashboard.until("available")


@pytest.mark.parametrize("way", ["planned", "kill -9"])
async def test_after_a_blind_transfer_that_a_restart_ended_the_caller_waits_again(stage: Stage, way: str) -> None:
    async with stage.talking(3) as talk:
        await bring_to(stage, talk, "transferring")
        await talk.one.pause()
        await talk.one.until("paused")
        await stage.installation.until_agents_noted(agent1="paused")
        await stage.restart(way)
        await talk.three.until("available")
        await stage.voice.hears_music()
        await talk.one.send("available")
        await talk.one.until("in_call")
        await asyncio.gather(stage.voice.hears(stage.first), stage.first.hears(stage.voice))
        await stage.hang_up(talk.caller)


async def test_a_consulted_colleague_has_the_caller_when_the_agent_left_while_nobody_was_there(stage: Stage) -> None:
    async with stage.talking(2) as talk:
        await bring_to(stage, talk, "consulted")
        await stage.installation.until_noted_mode("consulted")
        await stage.installation.kill()
        over = stage.phones["agent1"].count("over")
        stage.phones["agent1"].hang_up()
        await stage.phones["agent1"].over(over + 1)
        await stage.installation.start()
        await asyncio.gather(*(board.reconnect() for board in stage.boards))
        await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
        await talk.two.until_call(part="main")
        assert await sees(talk.two, talk.secret)
        await talk.one.until("available")
        await stage.hang_up(talk.caller)
