"""FastAGI with a fake Asterisk: what it asks for, interruptions, and peers that are none."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from idbellen.asterisk import agi
from idbellen.asterisk.agi import AgiPhone, AgiServer, who_listens
from idbellen.calls.pbx.queue import Verdict
from idbellen.domain.prompts import Prompt
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HEADER = b"agi_network: yes\nagi_network_script: verify\nagi_uniqueid: 17.4\nagi_callerid: 0687654321\n\n"
KEYS = '"0123456789*#"'
DIGIT_5 = "200 result=53"


class Asterisk:
    """Asterisk's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def command(self) -> str:
        async with asyncio.timeout(5):
            return (await self.reader.readline()).decode().rstrip("\n")

    def answer(self, line: str) -> None:
        self.writer.write(f"{line}\n".encode())

    async def expect(self, command: str, answer: str) -> None:
        assert await self.command() == command
        self.answer(answer)

    async def closed(self) -> bool:
        async with asyncio.timeout(5):
            return await self.reader.read() == b""


@asynccontextmanager
async def called(story: Callable[[AgiPhone], Awaitable[None]], header: bytes = HEADER) -> AsyncIterator[Asterisk]:
    port = free_ports()
    async with AgiServer(story).listening("127.0.0.1", port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(header)
        try:
            yield Asterisk(reader, writer)
        finally:
            writer.close()


async def test_a_call_from_the_answer_to_the_end() -> None:
    done = asyncio.Event()

    async def story(phone: AgiPhone) -> None:
        assert phone.uid == "17.4"
        await phone.answer()
        playback = await phone.play((Prompt.WELCOME, Prompt.ENTER_CODE_10))
        assert await phone.digit() == "5"
        await playback.stop()
        await phone.tell(Verdict(verified=True, purpose='re"port', priority=2, reference="ref"))
        await phone.let_go()
        done.set()

    async with called(story) as asterisk:
        await asterisk.expect("ANSWER", "200 result=0")
        await asterisk.expect(f"STREAM FILE idbellen/welcome {KEYS} 0", "200 result=0 endpos=8000")
        await asterisk.expect(f"STREAM FILE idbellen/enter-code-10 {KEYS} 0", f"{DIGIT_5} endpos=400")
        await asterisk.expect("WAIT FOR DIGIT 50", "200 result=0")
        for name, value in (("PURPOSE", "report"), ("PRIORITY", "2"), ("REFERENCE", "ref"), ("VERIFIED", "1")):
            await asterisk.expect(f'SET VARIABLE IDBELLEN_{name} "{value}"', "200 result=1")
        assert await asterisk.closed()
        await done.wait()


async def test_a_late_digit_of_the_entry_before_does_not_stop_the_prompt() -> None:
    async def story(phone: AgiPhone) -> None:
        await phone.answer()
        playback = await phone.play((Prompt.WELCOME,))
        await phone.digit()
        await playback.ended()
        await phone.let_go()

    async with called(story) as asterisk:
        await asterisk.expect("ANSWER", "200 result=0")
        await asterisk.expect(f"STREAM FILE idbellen/welcome {KEYS} 0", f"{DIGIT_5} endpos=400")
        await asterisk.expect("WAIT FOR DIGIT 50", "200 result=0")
        await asterisk.expect(f"STREAM FILE idbellen/welcome {KEYS} 400", "200 result=0 endpos=8000")
        assert await asterisk.closed()


@pytest.mark.parametrize("first", [None, DIGIT_5, "200 result=1", "200 result=0"])
async def test_a_wait_is_interrupted_whatever_it_answers_itself(first: str | None) -> None:
    waits = asyncio.Event()
    digits: list[str] = []

    async def story(phone: AgiPhone) -> None:
        await phone.answer()
        await waits.wait()
        await phone.play((Prompt.WELCOME,))
        if first == DIGIT_5:
            digits.append(await phone.digit())
        await asyncio.Event().wait()

    async with called(story) as asterisk:
        await asterisk.expect("ANSWER", "200 result=0")
        assert await asterisk.command() == "WAIT FOR DIGIT 30000"
        waits.set()
        assert await asterisk.command() == agi.INTERRUPTION
        # Asterisk read the first together with the wait, which goes on until there is another.
        assert await asterisk.command() == agi.INTERRUPTION
        if first:
            asterisk.answer(first)
        for _ in range(2):
            asterisk.answer("200 result=6")
        assert await asterisk.command() == f"STREAM FILE idbellen/welcome {KEYS} 0"
    assert digits == (["5"] if first == DIGIT_5 else [])


@pytest.mark.parametrize("news", ["HANGUP", "200 result=-1", "511 Command Not Permitted on a dead channel", None])
async def test_a_hangup_is_told(news: str | None) -> None:
    gone = asyncio.Event()

    async def story(phone: AgiPhone) -> None:
        await phone.answer()
        await phone.hung_up()
        gone.set()

    async with called(story) as asterisk:
        await asterisk.expect("ANSWER", "200 result=0")
        assert await asterisk.command() == "WAIT FOR DIGIT 30000"
        if news:
            asterisk.answer(news)
        else:
            asterisk.writer.close()
        async with asyncio.timeout(5):
            await gone.wait()


async def test_a_missing_prompt_is_logged_and_the_call_goes_on() -> None:
    async def story(phone: AgiPhone) -> None:
        await phone.answer()
        await (await phone.play((Prompt.WELCOME, Prompt.ENTER_CODE_10))).ended()

    with capture_logs() as logs:
        async with called(story) as asterisk:
            await asterisk.expect("ANSWER", "200 result=0")
            await asterisk.expect(f"STREAM FILE idbellen/welcome {KEYS} 0", "200 result=-1 endpos=0")
            await asterisk.expect("CHANNEL STATUS", "200 result=6")
            await asterisk.expect(f"STREAM FILE idbellen/enter-code-10 {KEYS} 0", "200 result=0 endpos=9")
            assert await asterisk.closed()
    assert any(entry.get("prompt") == "welcome" and entry["log_level"] == "error" for entry in logs)


@pytest.mark.parametrize("rubbish", ["", "hello", "520-Invalid command syntax", "200", "999 result=1"])
async def test_a_peer_that_does_not_speak_agi_is_given_up(rubbish: str) -> None:
    gone = asyncio.Event()

    async def story(phone: AgiPhone) -> None:
        asked = asyncio.ensure_future(phone.answer())
        await phone.hung_up()
        asked.cancel()
        gone.set()

    async with called(story) as asterisk:
        await asterisk.expect("ANSWER", rubbish)
        if rubbish == "200":
            asterisk.writer.close()
        if rubbish.startswith("520"):
            asterisk.answer("520 End of proper usage.")
        async with asyncio.timeout(5):
            await gone.wait()


async def test_connections_without_a_header_make_room_for_callers() -> None:
    answered = asyncio.Event()

    async def story(phone: AgiPhone) -> None:
        await phone.answer()
        answered.set()
        await phone.hung_up()

    port = free_ports()
    with capture_logs() as logs:
        async with AgiServer(story, room=2).listening("127.0.0.1", port), AsyncExitStack() as stack:

            async def connect(header: bytes) -> Asterisk:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                writer.write(header)
                await asyncio.sleep(0.02)
                return Asterisk(reader, writer)

            halves = [await connect(b"agi_network: yes\n") for _ in range(20)]
            for half in halves[:18]:
                with suppress(ConnectionError):
                    assert await half.closed()
            callers = [await connect(HEADER) for _ in range(2)]
            for caller in callers:
                await caller.expect("ANSWER", "200 result=0")
            await answered.wait()
            late = await connect(HEADER)
            with suppress(ConnectionError):
                assert await late.closed(), "nobody makes room for it"
            await callers[0].expect("WAIT FOR DIGIT 30000", "200 result=-1")
    told = [(entry["event"], entry.get("times")) for entry in logs if entry["log_level"] != "info"]
    refused, full = "FastAGI connection refused", "no room for more FastAGI connections"
    # Each of them once, and then its number, of those that made room and of the one for which nobody did.
    assert dict(told) == {refused: 19, full: 20}
    assert dict(reversed(told)) == {refused: None, full: None}


@pytest.mark.parametrize(
    "header", [b"", b"agi_network: yes\n", b"x" * 20_000, b"agi_network_script: other\n\n", b"\xff\n\n"]
)
async def test_a_connection_that_is_no_call_ends_soon_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, header: bytes
) -> None:
    monkeypatch.setattr(agi, "HEADER_SECONDS", 0.2)
    calls: list[AgiPhone] = []

    async def story(phone: AgiPhone) -> None:
        calls.append(phone)

    with capture_logs() as logs:
        async with called(story, header) as asterisk:
            with suppress(ConnectionError):
                assert await asterisk.closed()
        # A port scanner that opens and goes at once would make panoramisk read nothing for ever.
        async with called(story, b"") as asterisk:
            asterisk.writer.close()
            await asyncio.sleep(0.05)
    assert calls == []
    assert "0687654321" not in str(logs)


async def test_whoever_looks_who_listens_is_told_and_is_no_call() -> None:
    async def story(_: AgiPhone) -> None:
        raise AssertionError("no call")

    port = free_ports()
    assert await who_listens("127.0.0.1", port) == "nobody"
    async with AgiServer(story).listening("127.0.0.1", port):
        assert await who_listens("127.0.0.1", port) == "idbellen"


@pytest.mark.parametrize("says", ['VERBOSE "hello"\n', "", None])
async def test_another_who_listens_is_found(monkeypatch: pytest.MonkeyPatch, says: str | None) -> None:
    monkeypatch.setattr(agi, "ABOUT_SECONDS", 0.3)

    async def another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if says is None:
            # As one that waits for more.
            await reader.read()
        else:
            writer.write(says.encode())
        writer.close()

    port = free_ports()
    server = await asyncio.start_server(another, "127.0.0.1", port)
    assert await who_listens("127.0.0.1", port) == "another"
    server.close()
