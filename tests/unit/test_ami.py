"""AMI with a peer that is mute, speaks something else, or says too much."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from idbellen.asterisk import ami
from idbellen.asterisk.ami import Ami, AmiDeniedError, AmiError
from idbellen.domain.wiring import Appeared, Channel, Gone, Lost, Member, Members, Queued, Snapshot
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

GREETING = "Asterisk Call Manager/11.0.0\r\n"


class Peer:
    """The PBX's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.id = ""

    async def action(self) -> dict[str, str]:
        text = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in text.split("\r\n") if ": " in line)
        self.id = fields["ActionID"]
        return fields

    def say(self, *lines: str) -> None:
        self.writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())

    def answer(self, *lines: str) -> None:
        self.say(*lines, f"ActionID: {self.id}")

    async def log_in(self) -> None:
        self.writer.write(GREETING.encode())
        await self.action()
        self.answer("Response: Success", "Message: Authentication accepted")
        self.say("Event: FullyBooted")

    async def refresh(self) -> None:
        assert (await self.action())["Action"] == "Status"
        self.answer("Response: Success", "EventList: start", "Message: Channel status will follow")
        # In the middle of the list, a channel comes and another goes.
        self.say("Event: Newchannel", "Uniqueid: 2", "Channel: PJSIP/b-2")
        self.answer(
            "Event: Status",
            "Uniqueid: 1",
            "Channel: PJSIP/a-1",
            "BridgeID: br",
            "Variable: IDBELLEN_REFERENCE=ref",
            "Variable: IDBELLEN_VERIFIED=1",
        )
        self.say("Event: Hangup", "Uniqueid: 1")
        self.answer("Event: StatusComplete", "EventList: Complete")
        assert (await self.action())["Action"] == "QueueStatus"
        self.answer("Response: Success", "EventList: start", "Message: Queue status will follow")
        self.answer("Event: QueueParams", "Queue: q")
        self.answer("Event: QueueMember", "Queue: q", "Location: PJSIP/a", "Paused: 1", "Membership: static")
        self.answer("Event: QueueEntry", "Queue: q", "Position: 1", "Uniqueid: 1", "Wait: 7")
        self.answer("Event: QueueEntry", "Queue: other", "Position: 1", "Uniqueid: 9", "Wait: 7")
        self.answer("Event: QueueStatusComplete", "EventList: Complete")


@asynccontextmanager
async def peer(script: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[Ami]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Peer(reader, writer))
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    port = free_ports()
    server = await asyncio.start_server(connected, "127.0.0.1", port)
    try:
        yield Ami("127.0.0.1", port, "idbellen", "secret", ["q"])
    finally:
        server.close()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def running(client: Ami) -> AsyncIterator[None]:
    task = asyncio.create_task(client.run())
    yield
    task.cancel()
    await asyncio.wait([task])


async def try_out(client: Ami) -> None:
    async with client.trying_out():
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECT_SECONDS", "ACTION_SECONDS", "LIST_SECONDS", "PING_SECONDS"):
        monkeypatch.setattr(ami, name, 0.3)


async def whole(client: Peer) -> None:
    await client.log_in()
    await client.refresh()


async def test_first_everything_then_what_happened_meanwhile() -> None:
    async with peer(whole) as client, running(client), asyncio.timeout(5):
        assert await client.next_event() == Snapshot(
            (Channel("1", "PJSIP/a-1", "br", "ref", asked=True),),
            (Queued("1", "q", 7.0),),
            (Member("q", "PJSIP/a", paused=True, dynamic=False),),
        )
        assert await client.next_event() == Appeared("2", "PJSIP/b-2")
        assert await client.next_event() == Gone("1")


async def list_members(client: Peer, *lines: str) -> None:
    action = await client.action()
    while action["Action"] == "Ping":
        client.answer("Response: Success", "Ping: Pong")
        action = await client.action()
    assert (action["Action"], action["Queue"]) == ("QueueStatus", "q")
    client.answer("Response: Success", "EventList: start", "Message: Queue status will follow")
    client.answer("Event: QueueParams", "Queue: q")
    # Somebody else's change while the list is on its way counts more than the list.
    client.say("Event: QueueMemberPause", "Queue: q", "Interface: PJSIP/a", "Paused: 1")
    client.answer("Event: QueueMember", "Queue: q", *lines)
    client.answer("Event: QueueStatusComplete", "EventList: Complete")


@pytest.mark.parametrize("why", ["the time has come", "the PBX has read its configuration"])
async def test_members_are_asked_for_again(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    reloads = why != "the time has come"
    if not reloads:
        monkeypatch.setattr(ami, "PING_SECONDS", 0.1)
        monkeypatch.setattr(ami, "COMPARE_SECONDS", 0.3)

    async def changes(client: Peer) -> None:
        await whole(client)
        if reloads:
            client.say("Event: Reload", "Module: All", "Status: 0")
        await list_members(client, "Location: PJSIP/a", "Paused: 0", "Membership: dynamic")

    async with peer(changes) as client, running(client), asyncio.timeout(4):
        for kind in (Snapshot, Appeared, Gone):
            assert isinstance(await client.next_event(), kind)
        assert client.connected
        assert await client.next_event() == Members((Member("q", "PJSIP/a", paused=False),))
        assert await client.next_event() == Member("q", "PJSIP/a", paused=True)


async def test_an_action_waits_until_the_members_are_listed() -> None:
    order: list[str] = []

    async def changes(client: Peer) -> None:
        await whole(client)
        client.say("Event: Reload", "Module: All", "Status: 0")
        assert (await client.action())["Action"] == "QueueStatus"
        await asyncio.sleep(0.3)
        order.append("listed")
        client.answer("Response: Success", "EventList: start", "Message: Queue status will follow")
        client.answer("Event: QueueStatusComplete", "EventList: Complete")
        order.append((await client.action())["Action"])
        client.answer("Response: Success")

    async with peer(changes) as client, running(client), asyncio.timeout(5):
        for _ in range(3):
            await client.next_event()
        await asyncio.sleep(0.1)
        assert await client.remove_member("q", "PJSIP/a")
    assert order == ["listed", "QueueRemove"]


async def test_a_queue_that_is_missing_is_told_once() -> None:
    async def has_none(client: Peer) -> None:
        await client.log_in()
        for what in ("Status", "QueueStatus"):
            assert (await client.action())["Action"] == what
            client.answer("Response: Success", "EventList: start")
            client.answer(f"Event: {what}Complete", "EventList: Complete")
        client.say("Event: Reload", "Module: All", "Status: 0")
        await client.action()
        client.answer("Response: Success", "EventList: start")
        client.answer("Event: QueueStatusComplete", "EventList: Complete")

    async with peer(has_none) as client, asyncio.timeout(5):
        with capture_logs() as lines:
            async with running(client):
                assert await client.next_event() == Snapshot(())
                assert await client.next_event() == Members(())
        assert [line["queues"] for line in lines if line["event"] == "the PBX has no such queue"] == ["q"]


async def test_a_trial_tells_what_the_dialplan_has() -> None:
    async def answers(client: Peer) -> None:
        await whole(client)
        assert (await client.action())["Action"] == "Getvar"
        client.answer("Response: Success", "Variable: IDBELLEN_AGI", "Value: 127.0.0.1:4580")
        assert (await client.action())["Context"] == "here"
        client.answer("Response: Success", "EventList: start")
        client.answer("Event: ListDialplan", "Context: here")
        client.answer("Event: ShowDialPlanComplete", "EventList: Complete")
        await client.action()
        client.answer("Response: Error", "Message: Did not find context there")
        for _ in range(2):
            await client.action()
            client.answer("Response: Error", "Message: Permission denied")

    async with peer(answers) as client, asyncio.timeout(5), client.trying_out() as trial:
        assert trial.missing == frozenset()
        assert await trial.variable("IDBELLEN_AGI") == "127.0.0.1:4580"
        assert await trial.has_context("here")
        assert not await trial.has_context("there")
        with pytest.raises(AmiError, match="Getvar refused: Permission denied"):
            await trial.variable("IDBELLEN_AGI")
        with pytest.raises(AmiError, match="ShowDialPlan refused: Permission denied"):
            await trial.has_context("here")


@pytest.mark.usefixtures("quick")
async def test_a_silent_connection_is_given_up_and_opened_anew() -> None:
    async with peer(whole) as client, running(client), asyncio.timeout(10):
        assert isinstance(await client.next_event(), Snapshot)
        for _ in range(2):
            await client.next_event()
        # It answers no ping.
        assert await client.next_event() == Lost()
        assert isinstance(await client.next_event(), Snapshot)


async def mute(_: Peer) -> None:
    """Say nothing."""


async def only_greets(client: Peer) -> None:
    client.writer.write(GREETING.encode())


async def another_protocol(client: Peer) -> None:
    client.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)


async def closes(client: Peer) -> None:
    client.writer.close()


async def never_ends(client: Peer) -> None:
    while not client.writer.is_closing():
        client.writer.write(b"x" * 65536)
        await client.writer.drain()


async def does_not_list(client: Peer) -> None:
    await client.log_in()
    await client.action()
    client.answer("Response: Error", "Message: Permission denied")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("script", [mute, only_greets, another_protocol, closes, never_ends, does_not_list])
async def test_whoever_is_no_ami_is_a_fault_and_not_for_ever(script: Callable[[Peer], Awaitable[None]]) -> None:
    async with peer(script) as client, asyncio.timeout(5):
        with pytest.raises(AmiError):
            await try_out(client)


async def test_a_refused_login_is_told_as_such() -> None:
    async def refuses(client: Peer) -> None:
        client.writer.write(GREETING.encode())
        await client.action()
        client.answer("Response: Error", "Message: Authentication failed")

    async with peer(refuses) as client:
        with pytest.raises(AmiDeniedError, match="refuses user 'idbellen'"):
            await try_out(client)


async def test_nobody_there() -> None:
    with pytest.raises(AmiError):
        await try_out(Ami("127.0.0.1", free_ports(), "idbellen", "secret", []))


async def test_too_many_events_are_not_half_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami, "MOST_EVENTS", 50)

    async def floods(client: Peer) -> None:
        await whole(client)
        for number in range(200):
            client.say("Event: Newchannel", f"Uniqueid: {number}", "Channel: PJSIP/b-2")

    async with peer(floods) as client, running(client), asyncio.timeout(10):
        await asyncio.sleep(0.3)
        # Of the flood nothing is left but that the connection was lost, and then everything anew.
        kinds = {type(await client.next_event())}
        assert kinds <= {Lost, Snapshot}


async def test_actions_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami, "ACTION_SECONDS", 0.3)

    async def acts(client: Peer) -> None:
        await whole(client)
        action = await client.action()
        assert (action["Action"], action["Queue"], action["Interface"]) == ("QueueAdd", "q", "PJSIP/aX: y")
        client.answer("Response: Success", "Message: Added interface to queue")
        await client.action()
        client.answer("Response: Error", "Message: Interface not found")
        await client.action()

    async with peer(acts) as client:
        assert not await client.remove_member("q", "PJSIP/a"), "not connected yet"
        async with running(client), asyncio.timeout(5):
            await client.next_event()
            assert await client.add_member("q", "PJSIP/a\r\nX: y", name="a", penalty=0, state="PJSIP/a")
            assert not await client.remove_member("q", "PJSIP/a")
            assert not await client.pause_member("q", "PJSIP/a", paused=True, reason=""), "no answer"
