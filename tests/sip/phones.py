"""Telephones for the tests and the benchmark: citizens who call, and agents who are rung.

::

    async with Phones("127.0.0.1:5060", ports=(25000, 25999)) as phones:
        agent = await phones.agent("agent1", "its password")
        await agent.register()
        caller = await phones.call("0201234567", tones=typed("5917380264"))
        await agent.answered()
        await caller.line.heard(50)
        await caller.hangup()
        assert await agent.ended() == BY_PBX
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from tests.sip import scenarios
from tests.sip.rtp import PACKET_MS, Stream, Tone, write_pcap
from tests.sip.scenarios import Behaviour, Handset, answer, busy, decline, silent, unavailable
from tests.sip.sipp import Line, Ports, Sipp, SippError, lacking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

__all__ = [
    "BY_PBX", "BY_PHONE", "CANCELLED", "AgentPhone", "Behaviour", "By", "Caller", "Ended", "Event", "Handset", "Phones",
    "SippError", "answer", "busy", "decline", "lacking", "silent", "unavailable",
]  # fmt: skip

START_SECONDS = 10.0
HELLO_SECONDS = 0.01
ANSWER_SECONDS = 5.0


class By(Enum):
    """Who ended a call, or how."""

    PBX = "pbx"
    PHONE = "phone"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended; a refusal has SIP's code for it."""

    by: By
    code: int = 0

    @classmethod
    def parse(cls, detail: str) -> Ended:
        """Read what the scenario wrote: ``pbx``, ``refused 486``."""
        by, _, code = detail.partition(" ")
        return cls(By(by), int(code or 0))


BY_PBX, BY_PHONE, CANCELLED = Ended(By.PBX), Ended(By.PHONE), Ended(By.CANCELLED)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on an agent's phone, at the event loop's time."""

    kind: Literal["rung", "answered", "ended"]
    call_id: str
    at: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """A call to place: from and to whom, and what the phone sends as soon as it is answered."""

    number: str = "0201234567"
    caller: str = "0612345678"
    tones: Sequence[Tone] = ()
    handset: Handset = Handset()
    hang_up_on_answer: bool = False


class _Phone:
    """What both kinds of phones have: a SIPp, a media port, and one place where failures surface."""

    def __init__(self, phones: Phones) -> None:
        self._phones = phones
        self._base = phones.ports.take()
        self._sipp: Sipp | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.line: Line

    async def _start(self, scenario: str, *options: str) -> None:
        self._sipp = Sipp(self._phones.folder(), self._base, self._on_line, self._on_error)
        await self._sipp.start(self._phones.pbx, scenario, *options, seconds=self._phones.seconds)
        self._watching = asyncio.create_task(self._watch(self._sipp))

    async def _watch(self, sipp: Sipp) -> None:
        try:
            await sipp.ended()
        except SippError as error:
            self._fail(error)

    def _fail(self, error: SippError) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # Whoever waits will hear it; nobody has to.

    def _on_line(self, line: str) -> None:
        raise NotImplementedError

    def _on_error(self, line: str) -> None:
        """A warning matters only to who asks why the process ended."""

    async def _or_failure(self, what: asyncio.Future[T]) -> T:
        await asyncio.wait({what, self._failure}, return_when=asyncio.FIRST_COMPLETED)
        if not what.done():
            self._failure.result()
        return await what

    async def _stop(self) -> None:
        if self._sipp:
            await self._sipp.stop()
        if self._watching:
            await self._watching

    async def aclose(self) -> None:
        """End the phone, as if its battery were taken out."""
        await self._stop()
        self._fail(SippError("the phone was closed"))
        self.line.close()
        self._phones.ports.give_back(self._base)


class Caller(_Phone):
    """A citizen's phone with one call; `Phones.call` places it."""

    def __init__(self, phones: Phones, dial: Dial) -> None:
        super().__init__(phones)
        loop = asyncio.get_running_loop()
        self.dial = dial
        self.call_id = f"call-{next(phones.numbers)}-{self._base}"
        self._answered: asyncio.Future[None] = loop.create_future()
        self._told: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[Ended] = loop.create_future()
        self._how: Ended | None = None
        self._busy = asyncio.Lock()
        self._stream = Stream()
        self._began = self._quiet_at = 0.0
        self._players: dict[Sipp, int] = {}

    async def place(self) -> None:
        """Send the INVITE; returns when SIPp runs."""
        self.line = await Line.open(self._base)
        pcap = self._phones.folder().with_suffix(".pcap")
        if self.dial.tones or self.dial.handset.silence_audio:
            self._write(pcap, self.dial.tones)
        dial = self.dial
        scenario = scenarios.caller(
            dial.number, dial.caller, dial.handset, pcap if pcap.exists() else None,
            hang_up_on_answer=dial.hang_up_on_answer,
        )  # fmt: skip
        await self._start(scenario, "-m", "1", "-cid_str", self.call_id)

    def _write(self, pcap: Path, tones: Sequence[Tone]) -> float:
        """Write what is to be sent; gives its length in seconds."""
        begin, handset = self._stream.timestamp, self.dial.handset
        self._stream = write_pcap(
            pcap, tones, stalls=handset.stalls, silence_audio=handset.silence_audio, lasting_ms=self._phones.lasting_ms,
            event_payload=handset.event_payload, codec=handset.codec, stream=self._stream,
        )  # fmt: skip
        return (self._stream.timestamp - begin) / 8000 + (handset.stalls.up_to_ms / 1000 if handset.stalls else 0)

    async def _watch(self, sipp: Sipp) -> None:
        await super()._watch(sipp)
        if self._how and not self._failure.done():
            self._ended.set_result(self._how)
        self._fail(SippError(f"the call has ended: {self._how}; {sipp.errors() if not self._how else ''}"))

    def _on_line(self, line: str) -> None:
        event, _, detail = line.split(" ", 2) if line.count(" ") > 1 else (*line.split(" "), "")
        match event:
            case "answered":
                self.line.remote_rtp = int(detail)
                self._answered.set_result(None)
            case "told" if not self._told.done():
                self._told.set_result(None)
            case "ended":
                self._how = Ended.parse(detail)
