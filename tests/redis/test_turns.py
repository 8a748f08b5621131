"""Two processes with one store in Redis and one Asterisk: one serves, the other relays to it and takes over."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from idbellen.domain.codes import Fingerprints
from idbellen.ports import StoreError
from idbellen.stores.redis import open_store
from idbellen.stores.redis_turns import TurnLostError
from tests.support.installation import PLAIN_CAUSE, Installation, run_cli
from tests.support.proxy import Proxy
from tests.support.rtp import sounds
from tests.support.spy import spy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.support.redis_servers import RedisProcess
    from tests.support.rtp import Sound
    from tests.support.sipp import Phones

# The promise: what a process had in hand is taken up by another within this.
TAKEN_UP_SECONDS = 5.0
FINGERPRINTS = Fingerprints(b"m" * 32)
# A process that serves in turn what does not end.
WITHOUT_END = """
import asyncio, sys
from contextlib import suppress
from types import SimpleNamespace
from idbellen.service import turns
from idbellen.domain.codes import Fingerprints
from idbellen.stores.redis import open_store
from idbellen.stores.redis_url import parse_redis_url

async def serve(_):
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

async def main():
    async with open_store(parse_redis_url(sys.argv[1]), Fingerprints(b"m" * 32)) as store:
        await turns.serve_in_turn(SimpleNamespace(cluster=None), store, serve)

turns.END_SECONDS = 0.5
asyncio.run(main())
"""


@dataclass
class Pair:
    """The first serves at the start; whoever comes from outside is led to the second."""

    first: Installation
    second: Installation
    redis: Proxy
    public: dict[str, Proxy]

    def lead_to(self, installation: Installation) -> None:
        for name, proxy in self.public.items():
            proxy.lead_to(installation.ports[name])

    async def taken_over(self, by: Installation, *, turns: int = 1) -> None:
        await by.until_log("our turn", times=turns)
        await by.until_log("connected with Asterisk", times=turns)


@pytest.fixture
async def pair(
    pbx: Pbx, keys_folder: Path, tmp_path: Path, redis_server: RedisProcess, all_installations: list[Installation]
) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        public = {name: Proxy(0) for name in ("idcontact", "citizen", "dashboard")}
        redis = Proxy(redis_server.port)
        for proxy in (*public.values(), redis):
            await stack.enter_async_context(proxy)
        ports = {name: proxy.port for name, proxy in public.items()}
        first, second = (Installation(tmp_path / name, pbx, ports) for name in ("first", "second"))
        made = Pair(first, second, redis, public)
        for installation, port in ((first, redis.port), (second, redis_server.port)):
            installation.write(
                keys_folder,
                sessions__store=f'"redis://127.0.0.1:{port}"',
                dashboard__grace_seconds="10",
                more='[cluster]\nhost = "127.0.0.1"',
            )
            all_installations.append(installation)
        await first.add_agents("agent1", "agent2")
        await first.start()
        await first.until_log("connected with Asterisk")
        await second.start()
        made.lead_to(second)
        yield made
        for installation in (second, first):
            assert installation.process
            if installation.process.returncode is None:
                assert await installation.stop() == 0, installation.log.read_text()
            log = installation.log.read_text()
            assert "Traceback" not in log, log
            assert "never awaited" not in log, log
        await pbx.cli("channel request hangup all")


@pytest.fixture
async def voices() -> AsyncIterator[tuple[Sound, Sound]]:
    async with sounds(2) as (caller, agent):
        yield caller, agent


@pytest.mark.parametrize("way", ["planned", "kill -9", "SIGSTOP"])
async def test_another_process_takes_the_calls_up(
    pair: Pair, telephony: Phones, voices: tuple[Sound, Sound], way: str
) -> None:
    voice, sound = voices
    first, second = pair.first, pair.second
    await telephony.agent("agent1", sound=sound)
    async with first.dashboard("agent1") as dashboard, first.dashboard("agent2") as other:
        await dashboard.available()
        talker = await telephony.call(await first.log_in_citizen(), sound=voice)
        before = (await dashboard.until("in_call"))["call"]
        assert (await dashboard.attributes(before["secret"]))[0] == 200
        waiter = await telephony.call(await first.log_in_citizen())
        await first.until_log("accepted=True", times=2)
        names = [name for name, _ in await first.waiting()]
        assert first.process
        began = time.monotonic()
        match way:
            case "planned":
                assert await first.stop() == 0
            case "kill -9":
                await first.kill()
            case _:
                first.process.send_signal(signal.SIGSTOP)
        await second.until_log("call of an earlier process taken up", times=2)
        assert time.monotonic() - began < TAKEN_UP_SECONDS
        await asyncio.gather(dashboard.reconnect(), other.reconnect())
        after = await dashboard.until_call(secret=before["secret"])
        assert after["words"] == before["words"]
        assert (await dashboard.attributes(after["secret"]))[0] == 200
        assert (await other.attributes(after["secret"]))[0] == 403
        assert [name for name, _ in await second.waiting()] == names
        if way == "SIGSTOP":
            # It finds that it was away for too long, and touches nothing.
            first.process.send_signal(signal.SIGCONT)
            await first.until_log("standing by", times=2)
            assert "call failed" not in first.log.read_text()
        await asyncio.gather(voice.hears(sound), sound.hears(voice))
        talker.go_on()
        assert await talker.ended() == "by caller"
        # The same agent gets who waited.
        call = await dashboard.until_call(id=names[0])
        assert (await dashboard.attributes(call["secret"]))[0] == 200
        waiter.go_on()
        assert await waiter.ended() == "by caller"
        await dashboard.until("available")
    await second.until_nothing_is_left()


async def test_calls_in_hand_outlive_the_store_and_new_ones_take_the_fallback(
    pbx: Pbx, pair: Pair, telephony: Phones, voices: tuple[Sound, Sound], redis_server: RedisProcess
) -> None:
    voice, sound = voices
    first = pair.first
    await telephony.agent("agent1", sound=sound)
    async with first.dashboard("agent1") as dashboard, spy(pbx) as seen:
        await dashboard.available()
        talker = await telephony.call(await first.log_in_citizen(), sound=voice)
        await dashboard.until("in_call")
        code = await first.log_in_citizen()
        redis_server.send(signal.SIGSTOP)
        try:
            for installation in (first, pair.second):
                await installation.until_log("the store does not tell whose turn it is")
            # Relayed by the second, to who served when that was last known, and who may have missed the store by now.
            assert await first.ready() in ("ready", f"store {redis_server.url}: no answer within 2 seconds")
            began = time.monotonic()
            newcomer = await telephony.call(code)
            await seen.until("ChannelDestroyed", cause=PLAIN_CAUSE)
            assert await newcomer.ended() == "by asterisk"
            # Keying in takes two of these, the wait for the store six, and the sentence about the fault four.
            assert time.monotonic() - began < 20
            await dashboard.command("hold")
            await voice.hears_music()
            await dashboard.command("resume")
            await asyncio.gather(voice.hears(sound), sound.hears(voice))
        finally:
            redis_server.send(signal.SIGCONT)
        await first.until_log("the store tells again whose turn it is")
        talker.go_on()
        await talker.ended()
        await dashboard.until("available")
        caller = await telephony.call(await first.log_in_citizen())
        await dashboard.until("in_call")
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
    assert "our turn" not in pair.second.log.read_text()
    status, output = await run_cli("send-away", "--config", str(first.config))
    assert (status, "another idbellen serves with it" in output) == (1, True)
    await first.until_nothing_is_left()


async def test_who_is_cut_off_from_the_store_is_told_by_asterisk_that_another_serves(
    pair: Pair, telephony: Phones
) -> None:
    first, second = pair.first, pair.second
    await telephony.agent("agent1")
    async with first.dashboard("agent1") as dashboard:
        await dashboard.available()
        caller = await telephony.call(await first.log_in_citizen())
        before = (await dashboard.until("in_call"))["call"]
        pair.redis.silence()
        await pair.taken_over(second)
        await first.until_log("another process serves now")
        await dashboard.reconnect()
        await dashboard.until_call(secret=before["secret"])
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
        await pair.redis.pass_on()
    await second.until_nothing_is_left()


@pytest.mark.parametrize("case", ["answered", "sent on"])
async def test_who_talks_since_the_store_is_away_talks_on(
    pair: Pair, telephony: Phones, voices: tuple[Sound, Sound], case: str
) -> None:
    voice, sound = voices
    first, second = pair.first, pair.second
    async with first.dashboard("agent1") as one, first.dashboard("agent2") as two:
        if case == "answered":
            await two.until("paused")
            agent, other, phone = one, two, "agent1"
        else:
            await telephony.agent("agent1")
            await one.available()
            agent, other, phone = two, one, "agent2"
        await telephony.agent(phone, sound=sound)
        caller = await telephony.call(await first.log_in_citizen(), sound=voice)
        await first.until_log("accepted=True")
        if case == "sent on":
            await one.until("in_call")
            await first.until_noted_mode("talking")
        await agent.until("paused")
        pair.redis.silence()
        await agent.send("available")
        if case == "sent on":
            await agent.until("available")
            await one.command("blind", "agent", "agent2")
        before = await agent.until_call(part="main")
        assert "our turn" not in second.log.read_text(), "too late for what is to be tested"
        await pair.taken_over(second)
        await second.until_log("call found further than noted")
        await asyncio.gather(one.reconnect(), two.reconnect())
        after = await agent.until_call(secret=before["secret"])
        assert after["words"] == before["words"]
        assert (await agent.attributes(after["secret"]))[0] == 200
        assert (await other.attributes(after["secret"]))[0] == 403
        await asyncio.gather(voice.hears(sound), sound.hears(voice))
        caller.go_on()
        assert await caller.ended() == "by caller"
        await pair.redis.pass_on()
    await second.until_nothing_is_left()


async def test_who_lost_the_turn_changes_nothing_any_more(redis_server: RedisProcess) -> None:
    async with open_store(redis_server.url, FINGERPRINTS) as one, open_store(redis_server.url, FINGERPRINTS) as two:
        first, second = one.turns({"citizen": "http://first"}), two.turns({})
        assert await first.take()
        await second.look()
        assert second.serving == {"citizen": "http://first"}
        assert not await second.take(patience=0)
        assert second.serving == {"citizen": "http://first"}
        await one.note({"a": "first"})
        await redis_server.cli("DEL", "{idbellen}:turn")
        # It lapsed, and nobody took it: then it goes on.
        with suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                await first.hold()
        assert not await second.take(patience=0)
        await redis_server.cli("DEL", "{idbellen}:turn")
        assert await second.take()
        with pytest.raises(StoreError, match="another process serves now"):
            await one.note({"a": "late"})
        assert await two.notes() == {"a": "first"}
        with pytest.raises(TurnLostError):
            async with asyncio.timeout(5):
                await first.hold()
        await first.leave()
        assert await second.confirm()
        await second.leave()
        assert await first.take(patience=0)


async def test_who_lost_the_turn_and_does_not_end_is_ended(redis_server: RedisProcess) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WITHOUT_END, str(redis_server.url), stdout=subprocess.PIPE
    )
    assert process.stdout
    try:
        assert b"our turn" in await process.stdout.readline()
        async with open_store(redis_server.url, FINGERPRINTS) as store:
            await redis_server.cli("DEL", "{idbellen}:turn")
            assert await store.turns({}).take(patience=0)
            output, _ = await asyncio.wait_for(process.communicate(), 5)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"this process ends at once" in output
    assert process.returncode == 1
