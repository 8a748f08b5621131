"""FastAGI: the PBX's dialplan lends us a caller to ask for the code, and goes on when we are done.

panoramisk listens and parses; it trusts the network, so what it reads goes through a reader with a deadline, and what
it would log (a caller's number) is not logged. One task per caller gives Asterisk one command at a time, as the
protocol wants. While nothing else is asked for it waits for digits, so that none is lost; a command that comes in ends
a wait and a prompt, which is how both are interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import structlog
from panoramisk.fast_agi import Application
from panoramisk.utils import parse_agi_result

from idbellen.aio import timeout, timeout_at
from idbellen.domain.crowd import Crowd
from idbellen.domain.ids import CallId
from idbellen.ports import Playback
from idbellen.telemetry import Repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from panoramisk.fast_agi import Request

    from idbellen.calls.pbx.queue import Verdict
    from idbellen.domain.prompts import Prompt

log = structlog.get_logger()

SCRIPT = "verify"
# What ``idbellen check`` asks for, and what only we answer: a command of AGI that does nothing.
ABOUT, ABOUT_US = "about", "NOOP idbellen"
ABOUT_SECONDS = 2.0
HEADER_SECONDS = 5.0
LARGEST_HEADER = 16 * 1024
# No prompt is longer, and a wait for digits is renewed more often.
REPLY_SECONDS = 90.0
WAIT_MILLISECONDS = 30_000
# After a digit the prompt pauses for so long, for the story to decide whether it goes on.
REACTION_MILLISECONDS = 50
END_SECONDS = 5.0
MOST_DIGITS = 64
MOST_CALLS = 1000
# As many come at a time before they are counted.
ACCEPTED_AT_ONCE = 32
KEYS = "0123456789*#"
CHANNEL_IS_UP = "6"
# What ends a wait or a prompt. Its answer, a state of the channel, is like no other: not a digit, an end or a failure.
INTERRUPTION = "CHANNEL STATUS"
INTERRUPTED = frozenset("234567")
INTERRUPT_AGAIN_SECONDS = 0.1
# So long it is waited for what the story wants next, before Asterisk is told to wait for a digit.
NEXT_WISH_SECONDS = 0.02

# What panoramisk logs are callers' numbers, and faults that we log ourselves.
logging.getLogger("panoramisk").addHandler(logging.NullHandler())
logging.getLogger("panoramisk").propagate = False


class AgiError(Exception):
    """The other side does not speak AGI, or said nothing for too long."""


class _GoneError(Exception):
    """The caller has hung up, or the connection is lost."""


class _Reader:
    """What panoramisk reads from: with a deadline, and an end that is an error instead of nothing for ever."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._left = LARGEST_HEADER
        self._deadline = asyncio.get_running_loop().time() + HEADER_SECONDS

    async def read(self, size: int) -> bytes:
        """Read a part of the header."""
        try:
            async with timeout_at(self._deadline):
                data = await self._reader.read(size)
        except TimeoutError:
            raise AgiError(f"no AGI header in {HEADER_SECONDS:g} s") from None
        self._left -= len(data)
        if not data or self._left < 0:
            raise AgiError("no AGI header")
        return data

    async def readline(self) -> bytes:
        """Read one reply."""
        try:
            async with timeout(REPLY_SECONDS):
                line = await self._reader.readline()
        except TimeoutError:
            raise AgiError(f"no reply in {REPLY_SECONDS:g} s") from None
        except ValueError:
            raise AgiError("reply too long") from None
        if not line.endswith(b"\n"):
            raise _GoneError
        return line


class AgiPlayback(Playback):
    """Prompts that are played one after the other (:class:`idbellen.ports.Playback`)."""

    def __init__(self, phone: AgiPhone, prompts: Sequence[Prompt]) -> None:
        self._phone = phone
        self.left = deque(prompts)
        self.offset = "0"
        self.over = asyncio.Event()
        if not self.left:
            self.over.set()

    async def ended(self) -> None:
        """Wait until they have ended, in whichever way."""
        await self.over.wait()

    async def stop(self) -> None:
        """Stop what still plays or has yet to play."""
        if not self.over.is_set():
            self.left.clear()
            self.over.set()
            self._phone.interrupt()

    def next(self) -> None:
        """Go on to the next prompt."""
        if self.left:
            self.left.popleft()
            self.offset = "0"
        if not self.left:
            self.over.set()


class AgiPhone:
    """A caller's channel over one FastAGI connection (:class:`idbellen.calls.pbx.queue.PbxPhone`)."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._digits: asyncio.Queue[str] = asyncio.Queue(MOST_DIGITS)
        self._playback: AgiPlayback | None = None
        self._wishes: deque[tuple[str, asyncio.Future[dict[str, Any]]]] = deque()
        self._gone = asyncio.Event()
        self._left = False
        self._waits = False
        self._interruptions = 0
        self._again: asyncio.TimerHandle | None = None
        self._wanted = asyncio.Event()
        self.uid: str = request.headers.get("agi_uniqueid", "")
        self.call = CallId(str(uuid.uuid4()))

    # What stories ask for

    async def answer(self) -> None:
        """Answer; from now on no digit is lost."""
        await self._ask("ANSWER")

    async def digit(self) -> str:
        """Wait for the next key that the caller presses."""
        return await self._digits.get()

    async def play(self, prompts: Sequence[Prompt]) -> AgiPlayback:
        """Start to play prompts one after the other."""
        if self._playback:
            await self._playback.stop()
        self._playback = AgiPlayback(self, prompts)
        self.interrupt()
        return self._playback

    async def tell(self, verdict: Verdict) -> None:
        """Tell the dialplan about the caller."""
        values = {
            "PURPOSE": verdict.purpose,
            "PRIORITY": str(verdict.priority),
            "REFERENCE": verdict.reference,
            # Last, as it is what the dialplan looks at.
            "VERIFIED": str(int(verdict.verified)),
        }
        for name, value in values.items():
            quoted = value.replace("\\", "").replace('"', "").replace("\n", "")
            await self._ask(f'SET VARIABLE IDBELLEN_{name} "{quoted}"')

    async def hung_up(self) -> None:
        """Wait until the caller hangs up, or the channel is lost in another way, before it is let go."""
        await self._gone.wait()
        if self._left:
            await asyncio.Event().wait()

    async def let_go(self) -> None:
        """Let the dialplan go on."""
        self._left = True
        self._wanted.set()
        self._request.writer.close()
        with suppress(OSError):
            await self._request.writer.wait_closed()

    async def hang_up(self) -> None:
        """End the call."""
        self._left = True
        await self._ask("HANGUP")

    # One command at a time

    def interrupt(self) -> None:
        """End a wait for a digit, or a prompt, for something else to be done."""
        self._wanted.set()
        if self._waits and not self._interruptions:
            self._interrupt_until_seen()

    def _interrupt_until_seen(self) -> None:
        # One that Asterisk reads together with the command that it is to end does not end it; a later one does.
        if self._waits and not self._request.writer.is_closing():
            self._interruptions += 1
            self._request.writer.write(f"{INTERRUPTION}\n".encode())
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(INTERRUPT_AGAIN_SECONDS, self._interrupt_until_seen)

    async def serve(self) -> None:
        """Give Asterisk its commands, until the caller is gone."""
        try:
            await self._wanted.wait()
            while not self._request.writer.is_closing():
                if self._wishes:
                    command, answer = self._wishes.popleft()
                    reply = await self._command(command)
                    self._wanted.clear()
                    if not answer.done():
                        answer.set_result(reply)
                    await self._next_wish()
                elif self._playback and not self._playback.over.is_set():
                    await self._stream(self._playback)
                else:
                    self._take(await self._interruptible(f"WAIT FOR DIGIT {WAIT_MILLISECONDS}"))
        except (_GoneError, ConnectionError):
            pass
        except AgiError as fault:
            if not self._left:
                log.warning("FastAGI connection given up", call=self.call, reason=str(fault))
        finally:
            self._gone.set()

    async def _ask(self, command: str) -> None:
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._wishes.append((command, answer))
        self.interrupt()
        over = asyncio.ensure_future(self._gone.wait())
        both: list[asyncio.Future[Any]] = [answer, over]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        if not answer.done() and not self._left:
            # The caller has hung up; the news of it cancels the story.
            await asyncio.Event().wait()

    async def _stream(self, playback: AgiPlayback) -> None:
        prompt = playback.left[0]
        reply = await self._interruptible(f'STREAM FILE idbellen/{prompt.value} "{KEYS}" {playback.offset}')
        if reply is None:
            return
        result, endpos = reply["value"], reply["endpos"]
        if self._take_digit(result):
            playback.offset = endpos
            self._take(await self._command(f"WAIT FOR DIGIT {REACTION_MILLISECONDS}"))
        else:
            if result == "-1":
                if (await self._command("CHANNEL STATUS"))["value"] != CHANNEL_IS_UP:
                    raise _GoneError
                log.error("prompt missing or unreadable: run 'idbellen check'", prompt=prompt.value)
            self._wanted.clear()
            playback.next()
            if playback.over.is_set():
                await self._next_wish()

    async def _next_wish(self) -> None:
        # Mostly it follows at once, and to end a wait for a digit costs a line in Asterisk's log.
        with suppress(TimeoutError):
            async with timeout(NEXT_WISH_SECONDS):
                await self._wanted.wait()

    def _take(self, reply: dict[str, Any] | None) -> None:
        if reply and reply["value"] == "-1":
            raise _GoneError
        if reply:
            self._take_digit(reply["value"])

    def _take_digit(self, result: str) -> bool:
        key = chr(int(result)) if result.isdecimal() else ""
        if not key or key not in KEYS:
            return False
        if not self._digits.full():
            self._digits.put_nowait(key)
        return True

    async def _interruptible(self, command: str) -> dict[str, Any] | None:
        """Give a command that another one ends; None if that happened, and it said nothing of its own."""
        self._waits, self._interruptions = True, 0
        try:
            reply = await self._command(command)
        finally:
            self._waits = False
            if self._again:
                self._again.cancel()
                self._again = None
        if not self._interruptions:
            return reply
        # Asterisk may have answered before it saw the interruption, or answers that it was interrupted.
        for _ in range(self._interruptions):
            while reply["value"] not in INTERRUPTED or reply["endpos"]:
                self._take_digit(reply["value"])
                reply = await self._reply()
            reply = {"value": "", "endpos": ""}
        return None

    async def _command(self, command: str) -> dict[str, Any]:
        self._request.writer.write(f"{command}\n".encode())
        await self._request.writer.drain()
        return await self._reply()

    async def _reply(self) -> dict[str, Any]:
        line = (await self._request.reader.readline()).decode(errors="replace").rstrip("\n")
        try:
            parsed = parse_agi_result(line)
        except ValueError:
            raise AgiError("a reply that is none") from None
        status = parsed.get("status_code")
        if parsed.get("error") == "AGIResultHangup" or status == 511:  # noqa: PLR2004 - "dead channel"
            raise _GoneError
        if parsed.get("error") == "AGIAppError":
            return {"value": "-1", "endpos": ""}
        if status != 200:  # noqa: PLR2004
            raise AgiError(f"refused with {status}")
        return {"value": parsed["result"][0], "endpos": parsed.get("endpos", ("", ""))[0]}


class AgiServer:
    """Listens for the dialplan's ``AGI(agi://.../verify)``."""

    def __init__(self, take_call: Callable[[AgiPhone], Awaitable[None]], room: int = MOST_CALLS) -> None:
        """``room``: so many connections there may be, of which those without a header make room for others."""
        self._take_call = take_call
        self._calls: set[asyncio.Task[None]] = set()
        self._crowd: Crowd[asyncio.StreamWriter] = Crowd(room)
        self._full = Repeated("no room for more FastAGI connections", level="error", room=room)
        self._refused = Repeated("FastAGI connection refused")
        self._broken = Repeated("FastAGI connection broken off")

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[None]:
        """Listen for the block; at its end callers who are asked for a code go on in the dialplan.

        Raises:
            OSError: the address cannot be listened on.

        """
        application = Application(loop=asyncio.get_running_loop())
        application.add_route(SCRIPT, self._verify)
        application.add_route(ABOUT, self._about)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task  # noqa: S101 - asyncio runs this as one
            goes = self._crowd.enter(writer)
            if goes:
                # In the dialplan it goes on without us.
                self._full()
                goes.transport.abort()
            if goes is writer:
                return
            self._calls.add(task)
            try:
                await application.handler(_Reader(reader), writer)
            except AgiError as fault:
                self._refused(reason=str(fault))
            except (ConnectionError, UnicodeDecodeError):
                self._broken()
            except asyncio.CancelledError:
                # asyncio's server logs a cancelled connection as a fault.
                pass
            finally:
                self._calls.discard(task)
                self._crowd.leave(writer)
                writer.close()

        server = await asyncio.start_server(connected, host, port, backlog=ACCEPTED_AT_ONCE)
        try:
            yield
        finally:
            server.close()
            for task in self._calls:
                task.cancel()
            if self._calls:
                await asyncio.wait(self._calls, timeout=END_SECONDS)
            for lines in (self._full, self._refused, self._broken):
                lines.close()

    async def _about(self, request: Request) -> None:
        request.writer.write(f"{ABOUT_US}\n".encode())
        await request.writer.drain()

    async def _verify(self, request: Request) -> None:
        self._crowd.work(request.writer)
        phone = AgiPhone(request)
        log.info("call", call=phone.call, channel=phone.uid)
        async with asyncio.TaskGroup() as group:
            server = group.create_task(phone.serve())
            try:
                await self._take_call(phone)
            finally:
                request.writer.close()
                server.cancel()


async def who_listens(host: str, port: int) -> str:
    """Say who answers FastAGI at an address: ``idbellen``, ``nobody`` or ``another``."""
    try:
        async with timeout(ABOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return "nobody"
    try:
        async with timeout(ABOUT_SECONDS):
            writer.write(f"agi_network: yes\nagi_network_script: {ABOUT}\n\n".encode())
            line = await reader.readline()
    except (OSError, TimeoutError, ValueError):
        return "another"
    finally:
        writer.close()
    return "idbellen" if line.decode(errors="replace").strip() == ABOUT_US else "another"
