"""Supervisors in calls on a real Asterisk: who hears whom, who is told, and what is left."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, Mock

import pytest

from idbellen.asterisk.ari import Ari
from idbellen.asterisk.legs import AgentChannel, Legs
from idbellen.asterisk.lines import Line, Lines
from idbellen.asterisk.monitor import SNOOP_PREFIX, Monitor
from idbellen.domain.ids import AgentName
from idbellen.ports import Role
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
    from tests.support.spy import Spy

AGENT1 = AgentName("agent1")

SENTENCE = "idbellen/supervisor-listens"
# A voice is far above, what the codec makes of a tone is below.
VOICE_LOUDNESS = 400
RULES = """
[supervisors]
monitor = ["listen", "whisper", "barge"]
"""


@dataclass(frozen=True)
class Stage:
    """What the tests share. ``voice`` is the caller's; the third agent is the supervisor."""

    pbx: Pbx
    installation: Installation
    telephony: Phones
    voice: Sound
    first: Sound
    second: Sound
    boss: Sound
    phones: dict[str, AgentPhone]
    boards: list[Dashboard]

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[Caller]:
        """Let a caller talk with the first agent; afterwards nothing may be left in Asterisk."""
        for board in self.boards:
            await board.reconnect()
            await board.pause()
            await board.until("paused")
        one = self.boards[0]
        await one.send("available")
        await one.until("available")
        caller = await self.telephony.call(await self.installation.log_in_citizen(), sound=self.voice)
        try:
            call = (await one.until("in_call"))["call"]
            await one.shown(call["id"])
            await self.undisturbed()
            yield caller
        except BaseException:
            # Not in the way of the next test.
            await self.pbx.cli("channel request hangup all")
            await self.installation.restart_if_ended()
            raise
        await self.installation.until_nothing_is_left()

    async def monitor(self, mode: str) -> str | None:
        async with self.installation.wallboard("agent3") as wallboard:
            return await wallboard.ask("monitor", agent="agent1", mode=mode)

    async def agent_is_told(self) -> None:
        """Wait until the sentence for the agent has its channel."""
        async with asyncio.timeout(5):
            while not any(channel["id"].startswith(SNOOP_PREFIX) for channel in await self.installation.channels()):
                await asyncio.sleep(0.02)

    async def undisturbed(self) -> None:
        """See that caller and agent hear each other and nobody else."""
        await asyncio.gather(self.voice.hears(self.first), self.first.hears(self.voice))

    async def alone(self) -> None:
        """See that Asterisk has nothing but caller and agent, who talk."""
        async with asyncio.timeout(5):
            while len(await self.installation.channels()) != 2 or len(await self.installation.bridges()) != 1:
                await asyncio.sleep(0.02)
        await self.undisturbed()

    async def hang_up(self, caller: Caller) -> None:
        caller.go_on()
        assert await caller.ended() == "by caller"


@pytest.fixture(scope="module")
async def stage(
    pbx: Pbx, keys_folder: Path, tmp_path_factory: pytest.TempPathFactory, all_installations: list[Installation]
) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("monitor")
    async with phones(pbx, folder) as telephony, sounds(4) as (voice, first, second, boss):
        plugged = {
            "agent1": await telephony.agent("agent1", sound=first),
            "agent2": await telephony.agent("agent2", sound=second),
            "agent3": await telephony.agent("agent3", sound=boss),
        }
        installation = Installation(folder / "idbellen", pbx)
        boards: list[Dashboard] = []
        stage = Stage(pbx, installation, telephony, voice, first, second, boss, plugged, boards)
        installation.write(keys_folder, more=RULES)
        await installation.add_agents("agent1", "agent2")
        await installation.add_agents("agent3", role=Role.SUPERVISOR)
        all_installations.append(installation)
        await installation.start()
        async with AsyncExitStack() as stack:
            boards += [await stack.enter_async_context(installation.dashboard(agent)) for agent in ("agent1", "agent2")]
            yield stage
        assert await installation.stop() == 0, installation.log.read_text()
        log = installation.log.read_text()
        assert "Traceback" not in log, log
        assert "never awaited" not in log, log


def told(seen: Spy) -> list[dict[str, Any]]:
    """Give how often the sentence that somebody listens has been played, and on what."""
    ended = [event["playback"] for event in seen.events if event["type"] == "PlaybackFinished"]
    return [playback for playback in ended if SENTENCE in playback["media_uri"]]


async def test_the_agent_alone_is_told_before_the_supervisor_hears_anything(stage: Stage) -> None:
    async with spy(stage.pbx) as seen, stage.talking() as caller:
        asked = asyncio.create_task(stage.monitor("listen"))
        loudest: tuple[float, ...] = (0.0, 0.0, 0.0)
        ears = loudest
        while not told(seen):
            # What was heard at its very end may be what came after it.
            loudest = tuple(map(max, loudest, ears))
            ears = (stage.voice.besides(), stage.first.besides(), stage.boss.loudness())
            await asyncio.sleep(0.1)
        assert await asked is None
        # In the language of the agent's phone (pjsip.conf).
        assert [playback["language"] for playback in told(seen)] == ["nl"]
        for_caller, for_agent, for_supervisor = loudest
        assert for_agent > VOICE_LOUDNESS
        assert for_caller < VOICE_LOUDNESS / 2
        assert for_supervisor < VOICE_LOUDNESS / 2
        await asyncio.gather(stage.boss.hears(stage.voice, stage.first), stage.undisturbed())
        await stage.hang_up(caller)


async def test_listen(stage: Stage) -> None:
    async with stage.talking() as caller:
        assert await stage.monitor("listen") is None
        await asyncio.gather(stage.boss.hears(stage.voice, stage.first), stage.undisturbed())
        assert await stage.monitor("barge") == "phone", "one call at a time"
        one = stage.boards[0]
        await one.command("hold")
        await asyncio.gather(stage.voice.hears_music(), stage.boss.hears(stage.first), stage.first.hears_nothing())
        await one.command("resume")
        await asyncio.gather(stage.boss.hears(stage.voice, stage.first), stage.undisturbed())
        stage.phones["agent3"].hang_up()
        await stage.alone()
        # And once more: what was there before is not in the way.
        assert await stage.monitor("listen") is None
        await asyncio.gather(stage.boss.hears(stage.voice, stage.first), stage.undisturbed())
        await stage.hang_up(caller)


async def test_whisper(stage: Stage) -> None:
    async with stage.talking() as caller:
        assert await stage.monitor("whisper") is None
        await asyncio.gather(
            stage.boss.hears(stage.voice, stage.first),
            stage.first.hears(stage.voice, stage.boss),
            stage.voice.hears(stage.first),
        )
        stage.phones["agent3"].hang_up()
        await stage.alone()
        await stage.hang_up(caller)


async def test_barge(stage: Stage) -> None:
    async with stage.talking() as caller:
        assert await stage.monitor("barge") is None
        await asyncio.gather(
            stage.boss.hears(stage.voice, stage.first),
            stage.first.hears(stage.voice, stage.boss),
            stage.voice.hears(stage.first, stage.boss),
        )
        stage.phones["agent3"].hang_up()
        await stage.alone()
        await stage.hang_up(caller)


@pytest.mark.parametrize("mode", ["whisper", "barge"])
@pytest.mark.parametrize("who", ["caller", "agent"])
async def test_the_supervisor_is_hung_up_with_the_call(stage: Stage, mode: str, who: str) -> None:
    async with stage.talking() as caller:
        over = stage.phones["agent3"].count("over")
        assert await stage.monitor(mode) is None
        if who == "caller":
            await stage.hang_up(caller)
        else:
            stage.phones["agent1"].hang_up()
            assert await caller.ended() == "by asterisk"
        await stage.phones["agent3"].over(over + 1)


@pytest.mark.parametrize("mode", ["listen", "barge"])
async def test_a_transfer_ends_it(stage: Stage, mode: str) -> None:
    async with stage.talking() as caller:
        one, two = stage.boards
        await two.send("available")
        await two.until("available")
        assert await stage.monitor(mode) is None
        await one.command("blind", "agent", "agent2")
        call = await two.until_call(part="main")
        await two.shown(call["id"])
        async with asyncio.timeout(5):
            while len(await stage.installation.channels()) != 2 or len(await stage.installation.bridges()) != 1:
                await asyncio.sleep(0.02)
        await asyncio.gather(stage.voice.hears(stage.second), stage.second.hears(stage.voice))
        await stage.hang_up(caller)


async def test_a_colleague_who_is_consulted_is_heard_too(stage: Stage) -> None:
    async with stage.talking() as caller:
        one, two = stage.boards
        await two.send("available")
        await two.until("available")
        assert await stage.monitor("listen") is None
        await one.command("consult", "agent", "agent2")
        await one.until_call(mode="consulted")
        await asyncio.gather(
            stage.boss.hears(stage.first, stage.second), stage.second.hears(stage.first), stage.voice.hears_music()
        )
        await stage.hang_up(caller)


# In vain


async def test_a_supervisor_who_does_not_answer(stage: Stage) -> None:
    try:
        async with stage.talking() as caller:
            await stage.telephony.agent("agent3", "decline")
            assert await stage.monitor("listen") == "phone"
            await stage.telephony.unplug("agent3")
            assert await stage.monitor("listen") == "phone"
            await stage.alone()
            # The call ends while the phone rings.
            silent = await stage.telephony.agent("agent3", "silent")
            asked = asyncio.create_task(stage.monitor("listen"))
            await silent.rung()
            await stage.hang_up(caller)
            assert await asked == "phone"
            await silent.over()
    finally:
        stage.phones["agent3"] = await stage.telephony.agent("agent3", sound=stage.boss)


async def test_nobody_listens_to_an_agent_who_could_not_be_told(stage: Stage) -> None:
    sounds_folder = stage.pbx.settings.directory / "data/sounds"
    sentences = [sounds_folder / language / f"{SENTENCE}.wav" for language in ("nl", "en")]
    kept = [sentence.read_bytes() for sentence in sentences]
    for sentence in sentences:
        sentence.unlink()
    try:
        async with stage.talking() as caller:
            assert await stage.monitor("listen") == "phone"
            await stage.alone()
            await stage.hang_up(caller)
    finally:
        for sentence, sound in zip(sentences, kept, strict=True):
            sentence.write_bytes(sound)


async def test_a_supervisor_who_hangs_up_while_the_agent_is_told(stage: Stage) -> None:
    async with stage.talking() as caller:
        asked = asyncio.create_task(stage.monitor("listen"))
        await stage.agent_is_told()
        stage.phones["agent3"].hang_up()
        assert await asked == "phone"
        await stage.alone()
        await stage.hang_up(caller)


@pytest.mark.parametrize("mode", ["listen", "barge"])
async def test_an_agent_who_hangs_up_while_told(stage: Stage, mode: str) -> None:
    async with stage.talking() as caller:
        over = stage.phones["agent3"].count("over")
        asked = asyncio.create_task(stage.monitor(mode))
        await stage.agent_is_told()
        stage.phones["agent1"].hang_up()
        assert await asked == "phone"
        await stage.phones["agent3"].over(over + 1)
        assert await caller.ended() == "by asterisk"


async def test_a_fault_in_one_session_ends_nothing_else() -> None:
    line = Line("channel")
    leg = AgentChannel(line, "PJSIP/agent1", seconds=1, ask=AsyncMock())
    legs = Mock(spec=Legs)
    legs.talking.return_value = leg
    legs.ring.side_effect = RuntimeError("of a kind that nobody thought of")
    monitor = Monitor(Mock(spec=Ari), Lines(), legs, lambda agent: f"PJSIP/{agent}", set())
    running = asyncio.create_task(monitor.run())
    await asyncio.sleep(0)
    for _ in range(2):
        assert not await monitor.request(AGENT1, "PJSIP/agent3", "listen", announce=False)
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    # Before and after nobody is connected.
    assert not await monitor.request(AGENT1, "PJSIP/agent3", "listen", announce=False)


# Ends of the service


@pytest.mark.parametrize(
    ("mode", "way"),
    [("listen", "planned"), ("barge", "planned"), ("whisper", "kill -9"), ("barge", "kill -9")],
)
async def test_an_end_of_the_service_leaves_the_talkers_and_nobody_else(stage: Stage, mode: str, way: str) -> None:
    async with stage.talking() as caller:
        assert await stage.monitor(mode) is None
        await stage.boss.hears(stage.voice, stage.first)
        if way == "planned":
            assert await stage.installation.stop() == 0
            await stage.alone()
        else:
            await stage.installation.kill()
        await stage.installation.start()
        await stage.alone()
        await stage.hang_up(caller)


async def test_without_the_announcement(stage: Stage, keys_folder: Path) -> None:
    assert await stage.installation.stop() == 0
    stage.installation.write(keys_folder, more=f"{RULES}\nannounce_monitor = false")
    await stage.installation.start()
    async with spy(stage.pbx) as seen, stage.talking() as caller:
        assert await stage.monitor("listen") is None
        await asyncio.gather(stage.boss.hears(stage.voice, stage.first), stage.undisturbed())
        await stage.hang_up(caller)
    assert told(seen) == []
