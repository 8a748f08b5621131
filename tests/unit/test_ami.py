"""AMI with a peer that is mute, speaks something else, or says too much."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from idbellen.asterisk import ami
from idbellen.asterisk.ami import Ami, AmiDeniedError, AmiError
from idbellen.domain.wiring import Appeared, Channel, Gone, Lost, Member, Queued, Snapshot
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
            "Event: Status", "Uniqueid: 1", "Channel: PJSIP/a-1", "BridgeID: br", "Variable: IDBELLEN_REFERENCE=ref"
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
            (Channel("1", "PJSIP/a-1", "br", "ref"),),
            (Queued("1", "q", 7.0),),
            (Member("q", "PJSIP/a", paused=True, dynamic=False),),
        )
        assert await client.next_event() == Appeared("2", "PJSIP/b-2")
        assert await client.next_event() == Gone("1")


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
            await client.try_out()


async def test_a_refused_login_is_told_as_such() -> None:
    async def refuses(client: Peer) -> None:
        client.writer.write(GREETING.encode())
        await client.action()
        client.answer("Response: Error", "Message: Authentication failed")

    async with peer(refuses) as client:
        with pytest.raises(AmiDeniedError, match="refuses user 'idbellen'"):
            await client.try_out()


async def test_nobody_there() -> None:
    with pytest.raises(AmiError):
        await Ami("127.0.0.1", free_ports(), "idbellen", "secret", []).try_out()


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
