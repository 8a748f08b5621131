"""What goes wrong in production ARI applications, by the numbers of docs/pitfalls.md: what fakes can bring about.

What needs a real Asterisk is in test_pitfalls.py.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from contextlib import asynccontextmanager, closing, suppress
from itertools import permutations
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from aiohttp import WSMsgType

from idbellen.asterisk import ari as ari_module
from idbellen.asterisk import probe as probe_module
from idbellen.asterisk.ari import Ari, AriUnreachableError
from idbellen.asterisk.events import StasisStart, parse
from idbellen.asterisk.legs import LEG_PREFIX, OWN_ARG, Legs
from idbellen.asterisk.lines import Lines
from idbellen.asterisk.phone import CallerPhone
from idbellen.asterisk.probe import Probe
from idbellen.asterisk.switchboard import LONGEST_BACKOFF_SECONDS, Switchboard
from idbellen.domain.agents import AgentState
from idbellen.domain.codes import new_code
from idbellen.domain.ids import AgentName, CallId, Secret
from idbellen.domain.prompts import Prompt
from idbellen.domain.statistics import CallOutcome
from idbellen.web.issuing import dial_address
from tests.support import virtualtime
from tests.support.fake_asterisk import AriServer, Behaviour, FakeAsterisk, Stage, ari_server, on_stage
from tests.support.fakes import FakePhone, FakeSessions
from tests.support.ports import free_ports
from tests.support.proxy import Proxy
from tests.support.stories import CODE, WRONG, prompts, tell, typed
from tests.support.values import agent_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from idbellen.ports import Session

A = AgentName("a")


# The connection with Asterisk


# Nobody calls: that a call or an end of one is told of would be a fault.
NO_CALLS = Mock(spec=["as_found", "connected", "lost", "hand_over"], **{"as_found.return_value": []})


@asynccontextmanager
async def connected(server: AriServer, port: int | None = None) -> AsyncIterator[Switchboard]:
    """Run a switchboard at a server, or at a proxy before it, for the block."""
    async with Ari(f"http://127.0.0.1:{port or server.port}/ari", "idbellen", "", "") as ari:
        switchboard = Switchboard(ari, NO_CALLS)
        running = asyncio.create_task(switchboard.run())
        async with asyncio.timeout(5):
            await switchboard.ready.wait()
        yield switchboard
        running.cancel()
        await asyncio.wait([running])


async def until_lost(switchboard: Switchboard, *, seconds: float) -> float:
    """Wait until the switchboard says that it is not ready; gives how long that took."""
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(seconds):
        while switchboard.ready.is_set():
            await asyncio.sleep(0.002)
    return asyncio.get_running_loop().time() - began


async def test_01_a_clean_close_is_a_disconnect() -> None:
    async with ari_server() as server, connected(server) as switchboard:
        lost = asyncio.create_task(until_lost(switchboard, seconds=1))
        await server.sockets[0].close()
        await lost
        async with asyncio.timeout(5):
            await switchboard.ready.wait()
        assert len(server.connected) == 2


def test_01_an_asterisk_that_closes_every_connection_is_asked_ever_more_slowly() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk

        async def close_each() -> None:
            while True:
                await stage.switchboard.ready.wait()
                asterisk.close_socket()
                await asyncio.sleep(0.05)

        closing = asyncio.create_task(close_each())
        await asyncio.sleep(60)
        closing.cancel()
        assert len(asterisk.opened) < 20
        await asyncio.sleep(60)
        first = len(asterisk.opened)
        asterisk.close_socket()
        await asyncio.sleep(0.3)
        assert len(asterisk.opened) == first + 1, "after a good while the next one is opened at once"

    on_stage(story)


async def test_01_silence_is_noticed_within_one_and_a_half_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ari_module, "HEARTBEAT_SECONDS", 0.4)
    monkeypatch.setattr(ari_module, "REQUEST_SECONDS", 0.5)
    async with ari_server() as server, Proxy(server.port) as proxy, connected(server, proxy.port) as switchboard:
        await asyncio.sleep(1)
        assert switchboard.ready.is_set(), "quiet and alive is not lost"
        proxy.silence()
        assert await until_lost(switchboard, seconds=2) < 0.4 * 1.5 + 0.3
        await proxy.pass_on()
        async with asyncio.timeout(5):
            await switchboard.ready.wait()


def test_02_after_ten_minutes_asterisk_is_found_again() -> None:
    async def story(stage: Stage) -> None:
        await asyncio.sleep(1)
        stage.asterisk.away = True
        stage.asterisk.close_socket()
        await asyncio.sleep(600)
        assert not stage.switchboard.ready.is_set()
        tries = len(stage.asterisk.opened)
        assert 60 <= tries < 150
        stage.asterisk.away = False
        async with asyncio.timeout(LONGEST_BACKOFF_SECONDS + 1):
            await stage.switchboard.ready.wait()
        assert len(stage.asterisk.opened) == tries + 1

    on_stage(story)


async def test_02_a_port_that_accepts_and_stays_mute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ari_module, "REQUEST_SECONDS", 0.2)
    async with ari_server() as server, Proxy(server.port) as proxy:
        proxy.silence()
        async with Ari(f"http://127.0.0.1:{proxy.port}/ari", "idbellen", "", "") as ari:
            for ask in (anext(ari.events()), ari.request("GET", "/channels")):
                with pytest.raises(AriUnreachableError):
                    async with asyncio.timeout(2):
                        await ask
            switchboard = Switchboard(ari, NO_CALLS)
            running = asyncio.create_task(switchboard.run())
            await asyncio.sleep(1)
            assert not switchboard.ready.is_set()
            await proxy.pass_on()
            async with asyncio.timeout(5):
                await switchboard.ready.wait()
            running.cancel()
            await asyncio.wait([running])


REPLACED = {"type": "ApplicationReplaced", "application": "idbellen"}


@pytest.mark.parametrize("later", [False, True])
async def test_02_an_attempt_that_was_given_up_while_asterisk_hung_is_no_other_process(
    monkeypatch: pytest.MonkeyPatch, *, later: bool
) -> None:
    monkeypatch.setattr(ari_module, "REQUEST_SECONDS", 0.2)
    if later:
        monkeypatch.setattr(ari_module, "ECHO_SECONDS", 0.0)
    async with ari_server() as server, Proxy(server.port) as proxy:
        proxy.silence()
        async with Ari(f"http://127.0.0.1:{proxy.port}/ari", "idbellen", "", "") as ari:
            with pytest.raises(AriUnreachableError):
                await anext(ari.events())
            await proxy.pass_on()
            switchboard = Switchboard(ari, NO_CALLS)
            running = asyncio.create_task(switchboard.run())
            async with asyncio.timeout(5):
                await switchboard.ready.wait()
                await server.sockets[-1].send_json(REPLACED)
                if later:
                    await asyncio.wait([running])
                    assert isinstance(running.exception(), ExceptionGroup), "somebody else has come"
                    return
                await until_lost(switchboard, seconds=1)
                await switchboard.ready.wait()
            running.cancel()
            await asyncio.wait([running])


def test_06_a_prompt_that_still_plays_after_a_reconnect_is_stopped_when_an_agent_answers() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(by_hand=True)
        asterisk.come_in("caller")
        await asyncio.sleep(2)
        asterisk.close_socket()
        await asyncio.sleep(0.5)
        assert asterisk.playing, "still the greeting"
        asterisk.answer(*asterisk.rung[0])
        await asyncio.sleep(0.1)
        # Asterisk carries out what it is asked of one channel in turn: the bridge would wait for the prompt.
        assert asterisk.playing == []
        assert len(asterisk.bridges) == 1
        asterisk.hang_up("caller")
        await asyncio.sleep(30)

    on_stage(story)


def test_06_who_has_hung_up_while_nobody_listened_is_no_fault_however_long_that_was() -> None:
    async def story() -> None:
        asterisk, lines = FakeAsterisk(), Lines()
        with lines.line("gone") as line:
            phone = CallerPhone(asterisk, line, Legs(asterisk, lines), caller="", up=True)
            playing = asyncio.create_task(phone.play([Prompt.WELCOME]))
            await asyncio.sleep(1.0)
            assert not line.ended.is_set(), "the news may be on its way"
            await asyncio.sleep(9.0)
            assert line.ended.is_set(), "no news, and no channel"
            assert not playing.done(), "the hangup ends the story, and not a fault"
            playing.cancel()
            await asyncio.wait([playing])

    virtualtime.run(story())


async def test_16_a_request_that_hangs_while_others_answer_makes_us_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ari_module, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(probe_module, "PROBE_SECONDS", 0.05)
    async with ari_server() as server, connected(server) as switchboard, Ari(server.url, "idbellen", "", "") as ari:
        probe = Probe(ari, switchboard.ready)
        assert probe.why_not() == "Asterisk has not been asked yet"
        probing = asyncio.create_task(probe.run())

        async def until(text: str | None) -> None:
            async with asyncio.timeout(3):
                while probe.why_not() != text:
                    await asyncio.sleep(0.01)

        await until(None)
        server.hanging.add("/channels")
        await until("GET /channels: no answer in 0.2 s")
        assert await ari.request("GET", "/bridges") == []
        assert switchboard.ready.is_set(), "events still come"
        server.hanging.clear()
        await until(None)
        switchboard.ready.clear()
        assert probe.why_not() == "no connection for Asterisk's events"
        probing.cancel()
        await asyncio.wait([probing])


async def test_18_no_pong_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ari_module, "HEARTBEAT_SECONDS", 0.1)
    async with ari_server() as server, connected(server):
        async with asyncio.timeout(5):
            while server.frames.count(WSMsgType.PING) < 5:
                await asyncio.sleep(0.02)
        assert set(server.frames) == {WSMsgType.PING}
        await server.sockets[0].ping()
        async with asyncio.timeout(5):
            while WSMsgType.PONG not in server.frames:
                await asyncio.sleep(0.02)
        assert server.frames.count(WSMsgType.PONG) == 1, "asked for"


async def test_19_a_hundred_and_fifty_requests_at_once_take_turns() -> None:
    async with ari_server() as server, Ari(server.url, "idbellen", "", "") as ari:
        await asyncio.gather(*(ari.request("POST", f"/channels/c{number}/answer") for number in range(150)))
        assert len(server.asked) == len(set(server.asked)) == 150
        # Asterisk's own limit is 100 for all of its clients.
        assert server.most <= 50


@pytest.mark.parametrize(("method", "times"), [("POST", 1), ("GET", 2), ("DELETE", 2)])
async def test_19_only_what_may_be_repeated_is_sent_again_on_a_stale_connection(method: str, times: int) -> None:
    heard: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError):
            for number in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                heard.append(head.decode().split(" HTTP")[0])
                if number == 0:
                    writer.write(b"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n")
            # The second came while the server closed: whether it has been carried out nobody can tell.

    port = free_ports()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with Ari(f"http://127.0.0.1:{port}", "idbellen", "", "") as ari:
        await ari.request("GET", "/first")
        if times == 1:
            with pytest.raises(AriUnreachableError):
                await ari.request(method, "/channels/leg")
        else:
            await ari.request(method, "/channels/leg")
    server.close()
    assert heard[1:] == [f"{method} /channels/leg"] * times


def test_19_a_phone_of_which_nobody_knows_whether_it_rings_is_hung_up_and_not_rung_twice() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(by_hand=True)

        def lose_the_answer(number: int, when: str) -> None:
            if when == "after" and asterisk.asked[number - 1].startswith("POST /channels/idbellen-leg-"):
                asterisk.moment = lambda *_: None
                raise AriUnreachableError("lost")

        asterisk.moment = lose_the_answer
        asterisk.come_in("caller")
        await asyncio.sleep(4)
        assert len(asterisk.rung) == 1
        assert asterisk.channels == {"caller"}
        assert stage.calls.misses == ["a"]
        await asyncio.sleep(6)
        assert len(set(asterisk.rung)) == 2, "after the rest the agent gets another chance, under another name"
        asterisk.hang_up("caller")
        await asyncio.sleep(30)

    on_stage(story)


# Calls


def test_07_a_phone_that_answers_before_it_is_said_to_ring() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(by_hand=True)

        def at_once(number: int, when: str) -> None:
            if when == "after" and asterisk.asked[number - 1].startswith("POST /channels/idbellen-leg-"):
                asterisk.answer(*asterisk.rung[-1])

        asterisk.moment = at_once
        asterisk.come_in("caller")
        await asyncio.sleep(10)
        [inside] = asterisk.bridges.values()
        assert inside == {"caller", asterisk.rung[0][0]}
        asterisk.hang_up("caller")
        await asyncio.sleep(30)

    on_stage(story)


def test_07_nobody_is_bridged_before_they_have_come_in() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(by_hand=True)
        asterisk.come_in("caller")
        await asyncio.sleep(10)
        assert len(asterisk.rung) == 1
        assert not any("addChannel" in asked for asked in asterisk.asked)
        asterisk.answer(*asterisk.rung[0])
        await asyncio.sleep(1)
        assert sum("addChannel" in asked for asked in asterisk.asked) == 1
        asterisk.hang_up("caller")
        await asyncio.sleep(30)

    on_stage(story)


CAUSES = (0, 1, 3, 16, 17, 18, 19, 20, 21, 26, 27, 31, 34, 38, 41, 127)


@pytest.mark.parametrize("answered_first", [False, True])
@pytest.mark.parametrize("cause", CAUSES)
def test_08_whatever_the_cause_the_agent_is_freed_and_the_caller_keeps_the_place(
    cause: int,
    answered_first: bool,  # noqa: FBT001
) -> None:
    async def story(stage: Stage) -> None:
        asterisk, staff = stage.asterisk, stage.office.desk.staff
        asterisk.phones["a"] = Behaviour(by_hand=True)
        asterisk.come_in("first")
        await asyncio.sleep(5)
        asterisk.come_in("second", WRONG)
        await asyncio.sleep(5)
        leg = asterisk.rung[0][0]
        if answered_first:
            asterisk.answer(leg, "a")
        asterisk.hang_up(leg, cause)
        await asyncio.sleep(1)
        assert staff[A].state is AgentState.AVAILABLE
        assert stage.calls.misses == ["a"]
        await asyncio.sleep(7)
        # After a rest of five seconds.
        asterisk.answer(*asterisk.rung[1])
        await asyncio.sleep(2)
        assert agent_now(staff, A).state is AgentState.IN_CALL
        [inside] = asterisk.bridges.values()
        assert "first" in inside
        for caller in ("first", "second"):
            asterisk.hang_up(caller)
        await asyncio.sleep(30)

    on_stage(story, codes=(CODE, WRONG))


def test_08_a_phone_that_says_nothing_at_all_is_given_up_in_time() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(by_hand=True)
        asterisk.come_in("caller")
        await asyncio.sleep(24)
        assert stage.calls.misses == ["a"]
        assert asterisk.channels == {"caller"}, "and it rings no longer"
        asterisk.hang_up("caller")
        await asyncio.sleep(30)

    on_stage(story)


@pytest.mark.parametrize("apart", [0.0, 0.0015, 0.5])
@pytest.mark.parametrize(
    "order", list(permutations(("answers", "answers again", "hangs up", "caller hangs up"))), ids=", ".join
)
def test_09_answers_and_hangups_in_any_order(order: tuple[str, ...], apart: float) -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(by_hand=True)
        asterisk.come_in("caller")
        await asyncio.sleep(10)
        leg = asterisk.rung[0][0]
        for what in order:
            match what:
                case "answers" | "answers again":
                    # Also news of what is long gone: Asterisk may tell it late.
                    asterisk._news.put_nowait(StasisStart(leg, (OWN_ARG,), "a-00000001", ""))
                    asterisk._inside.add(leg)
                case "hangs up":
                    asterisk.hang_up(leg)
                case _:
                    asterisk.hang_up("caller")
            if apart:
                await asyncio.sleep(apart)
        await asyncio.sleep(30)
        assert stage.office.desk.staff[A].state is AgentState.AVAILABLE

    on_stage(story)


# As many requests as a call with a conversation makes, and some more.
REQUESTS = range(1, 31)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("who", ["caller", "agent"])
@pytest.mark.parametrize("number", REQUESTS)
def test_10_a_hangup_at_any_request_leaves_no_channel_and_no_bridge(number: int, who: str, when: str) -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(talks=5)

        def hang_up(now: int, at: str) -> None:
            if (now, at) == (number, when):
                gone = {"caller"} if who == "caller" else asterisk.channels - {"caller"}
                for channel in set(gone):
                    asterisk.hang_up(channel)

        asterisk.moment = hang_up
        asterisk.come_in("caller")
        await asyncio.sleep(60)
        assert asterisk.left == (set(), {}), asterisk.asked
        assert len(asterisk.asked) < REQUESTS[-1]

    on_stage(story)


def test_10_a_caller_who_has_just_gone_is_no_agents_miss() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk

        def before_the_phone_rings(number: int, when: str) -> None:
            if when == "before" and asterisk.asked[number - 1].startswith(f"POST /channels/{LEG_PREFIX}"):
                asterisk.channels.discard("caller")

        asterisk.moment = before_the_phone_rings
        asterisk.come_in("caller")
        await asyncio.sleep(10)
        assert asterisk.rung == []
        agent = stage.office.desk.staff.agents[A]
        assert (agent.state, agent.missed) == (AgentState.AVAILABLE, 0)
        assert stage.office.desk.waiting == []

    on_stage(story)


def test_10_a_hangup_in_the_tick_of_the_answer() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(by_hand=True)
        asterisk.come_in("caller")
        await asyncio.sleep(10)
        asterisk.answer(*asterisk.rung[0])
        asterisk.hang_up("caller")
        await asyncio.sleep(5)
        assert asterisk.left == (set(), {})
        assert stage.office.desk.staff[A].state is AgentState.AVAILABLE

    on_stage(story)


def replacement(channel: str, replaced: str) -> StasisStart:
    # As Asterisk 22 tells of a transfer that an agent's phone made: no arguments, and a Local channel.
    start = parse(
        {
            "type": "StasisStart",
            "args": [],
            "channel": {"id": channel, "name": "Local/_attended@transfer/m-00000000;1", "caller": {"number": ""}},
            "replace_channel": {"id": replaced, "name": "PJSIP/a-00000002"},
        }
    )
    assert isinstance(start, StasisStart)
    return start


@pytest.mark.parametrize("who", ["agent", "caller"])
@pytest.mark.parametrize("told", ["start first", "end first"])
def test_11_a_channel_that_takes_the_place_of_another_is_nobody(who: str, told: str) -> None:
    async def story(stage: Stage) -> None:
        asterisk, desk = stage.asterisk, stage.office.desk
        asterisk.phones["a"] = Behaviour()
        asterisk.come_in("caller")
        await asyncio.sleep(8)
        call = desk.view(A).call
        assert call
        secret = call.secret
        assert secret
        assert desk.may_see(A, secret)
        heard = sum("/play/" in asked for asked in asterisk.asked)
        replaced = asterisk.rung[0][0] if who == "agent" else "caller"
        asterisk.channels.add("other")
        for inside in asterisk.bridges.values():
            inside.add("other")
        if told == "start first":
            asterisk.tell(replacement("other", replaced))
            asterisk.hang_up(replaced)
        else:
            asterisk.hang_up(replaced)
            asterisk.tell(replacement("other", replaced))
        await asyncio.sleep(0.5)
        assert not desk.may_see(A, secret)
        assert desk.view(A).call is None
        assert "other" not in asterisk.channels
        await asyncio.sleep(20)
        assert asterisk.left == (set(), {})
        assert not any("/channels/other/" in asked for asked in asterisk.asked), "greeted as a new caller"
        assert sum("/play/" in asked for asked in asterisk.asked) == heard + (who == "agent"), "the caller's goodbye"

    on_stage(story)


def test_11_a_phone_that_transfers_while_it_only_rings_is_passed_over() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(by_hand=True)
        asterisk.come_in("caller")
        await asyncio.sleep(8)
        leg = asterisk.rung[0][0]
        asterisk.channels.add("other")
        asterisk.tell(replacement("other", leg))
        asterisk.hang_up(leg)
        await asyncio.sleep(1)
        assert asterisk.channels == {"caller"}
        assert stage.calls.misses == ["a"]
        asterisk.hang_up("caller")
        await asyncio.sleep(30)

    on_stage(story)


def test_17_no_name_is_ever_used_twice() -> None:
    async def story(stage: Stage) -> None:
        asterisk = stage.asterisk
        asterisk.phones["a"] = Behaviour(cause=17)
        asterisk.come_in("first")
        await asyncio.sleep(20)
        asterisk.close_socket()
        await asyncio.sleep(20)
        asterisk.phones["a"] = Behaviour(talks=5)
        await asyncio.sleep(20)
        asterisk.come_in("second", WRONG)
        await asyncio.sleep(30)
        # FakeAsterisk refuses what was there before.
        ours = [name for name in asterisk.names if name not in ("first", "second")]
        assert len(ours) > 15
        for name in ours:
            uuid.UUID(name[-36:])
        assert {record.outcome for record in stage.calls.records} == {CallOutcome.ANSWERED}

    on_stage(story, codes=(CODE, WRONG))


# Digits


class CountingSessions(FakeSessions):
    def __init__(self, *codes: str) -> None:
        super().__init__(*codes)
        self.asked: list[str] = []

    async def claim(self, code: str, *, call: CallId, secret: Secret, now: float) -> Session | None:
        self.asked.append(code)
        return await super().claim(code, call=call, secret=secret, now=now)


@pytest.mark.parametrize("ending", ["", "#"])
def test_12_one_digit_short_is_no_code(ending: str) -> None:
    sessions = CountingSessions(CODE)
    phone = FakePhone(keys=typed(CODE[:-1] + ending, at=1) + typed(CODE, at=14))
    tell(phone, sessions=sessions)
    assert prompts(phone)[2:5] == [Prompt.CODE_MISSING, Prompt.START_OVER, Prompt.CODE_ACCEPTED]
    assert sessions.asked == [CODE], "nothing is looked up before it is whole"


def test_12_one_digit_too_many_and_keys_while_waiting_change_nothing() -> None:
    phone = FakePhone(keys=typed(CODE + "7", at=1) + typed("00#*", at=5))
    sessions = CountingSessions(CODE)
    tell(phone, sessions=sessions)
    assert (sessions.asked, phone.end) == ([CODE], "hung up")


def test_13_a_dialled_address_holds_digits_and_one_comma() -> None:
    for _ in range(50):
        assert re.fullmatch(r"tel:\+\d+,\d{10}", dial_address("+31201234567", new_code(10)))


def test_13_a_burst_that_begins_in_one_prompt_and_ends_in_the_next() -> None:
    # The first entry ends with the wrong code, whose sentence the second interrupts in its midst.
    keys = typed(WRONG, at=3.9, gap=0.04) + typed(CODE[:5], at=6.0, gap=0.04) + typed(CODE[5:], at=9.0, gap=0.04)
    phone = FakePhone(keys=keys)
    tell(phone)
    assert prompts(phone)[2:5] == [Prompt.CODE_WRONG, Prompt.START_OVER, Prompt.CODE_ACCEPTED]
