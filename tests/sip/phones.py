"""Telephones for the tests and the benchmark: citizens who call, and agents who are rung.

::

    async with Phones("127.0.0.1:5060", ports=(25000, 25999)) as phones:
        agent = await phones.agent("agent1", "its password", answer(after_ms=500))
        await agent.register()
        caller = await phones.call("0201234567", tones=typed("5917380264"))
        await agent.answered()
        await caller.heard()
        await agent.hangup()
        assert await caller.ended() == BY_PBX

Each wait raises if the phone fails, if what is waited for cannot come any more, and when ``patience`` is at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from tests.sip import scenarios
from tests.sip.base import BY_PBX, BY_PHONE, CANCELLED, By, Ended, Phone
from tests.sip.rtp import Stream, Tone, write_pcap
from tests.sip.scenarios import Behaviour, Handset, answer, busy, decline, silent, unavailable
from tests.sip.sipp import Line, Ports, Sipp, SippError, lacking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "BY_PBX", "BY_PHONE", "CANCELLED", "AgentPhone", "Behaviour", "By", "Caller", "Dial", "Ended", "Event", "Handset",
    "Phones", "SippError", "answer", "busy", "decline", "lacking", "silent", "unavailable",
]  # fmt: skip

HELLO_SECONDS = 0.01
START_SECONDS = 10.0
# How long a closed phone may take to say goodbye.
BYE_SECONDS = 1.0
ANY_PHONE = Handset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """A call to place: from and to whom, and what the phone sends as soon as it is answered."""

    number: str = "0201234567"
    caller: str = "0612345678"
    tones: Sequence[Tone] = ()
    handset: Handset = ANY_PHONE
    hang_up_on_answer: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on an agent's phone, at the event loop's time."""

    kind: Literal["rung", "answered", "ended"]
    call_id: str
    detail: str
    at: float


class Caller(Phone):
    """A citizen's phone with one call; `Phones.call` makes it."""

    def __init__(self, phones: Phones, line: Line, base: int, dial: Dial) -> None:
        super().__init__(phones, line, base)
        loop = asyncio.get_running_loop()
        self.dial = dial
        self.call_id = f"{phones.new_path().name}-{base}@idbellen.test"
        self.answered_at = 0.0
        self._answered: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[Ended] = loop.create_future()
        self._told: asyncio.Future[None] = loop.create_future()
        self._how: Ended | None = None
        self._ordering, self._talking = asyncio.Lock(), asyncio.Lock()
        self._stream = Stream()
        self._first_seconds = self._quiet_at = 0.0
        self._players: dict[asyncio.Task[None], Sipp] = {}

    async def place(self) -> None:
        """Send the INVITE; returns as soon as SIPp runs."""
        dial, pcap = self.dial, None
        if dial.tones or dial.handset.silence_audio:
            pcap = self._phones.new_path(".pcap")
            self._first_seconds = self._write(pcap, dial.tones)
        scenario = scenarios.caller(
            dial.number, dial.caller, dial.handset, pcap, hang_up_on_answer=dial.hang_up_on_answer
        )
        await self._start(scenario, "-m", "1", "-cid_str", self.call_id)

    async def answered(self) -> None:
        """Return when the call is answered; raise if it ends before."""
        await self._or_failure(self._answered)

    async def ended(self) -> Ended:
        """Return when the call is over, and say how it ended."""
        return await self._or_failure(self._ended)

    async def send(self, tones: Sequence[Tone]) -> None:
        """Key in a further round; returns when it begins, which is not before the round before has ended.

        It begins some 30 ms late, as it takes a SIPp of its own; within the round the timing is exact.
        """
        await self.answered()
        loop = asyncio.get_running_loop()
        async with self._talking:
            await asyncio.sleep(self._quiet_at - loop.time())
            if self._failure.done():
                raise SippError(self._failure.result())
            base, pcap = self._phones.ports.take(), self._phones.new_path(".pcap")
            passed = round((loop.time() - self.answered_at) * 8000)
            self._stream = Stream(
                self._stream.ssrc, self._stream.sequence, max(self._stream.timestamp, Stream().timestamp + passed)
            )
            seconds = self._write(pcap, tones)
            playing: asyncio.Future[None] = loop.create_future()
            player = Sipp(self._phones.new_path(), base, lambda _: playing.done() or playing.set_result(None))
            scenario = scenarios.player(pcap, round(seconds * 1000), self._base + 6, base + 2)
            task = asyncio.create_task(self._play(player, base, scenario))
            self._players[task] = player
            await asyncio.wait({task, playing, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            self._quiet_at = loop.time() + seconds
        if task.done():
            task.result()

    async def sent(self) -> None:
        """Return when everything was sent that is to be sent."""
        await self.answered()
        async with self._talking:
            await asyncio.sleep(self._quiet_at - asyncio.get_running_loop().time())

    async def _play(self, player: Sipp, base: int, scenario: str) -> None:
        try:
            await player.start(f"127.0.0.1:{self._base + 6}", scenario, "-m", "1", seconds=self._phones.seconds)
            await player.ended()
        finally:
            await player.stop()
            self._phones.ports.give_back(base)

    async def send_info(self, digits: str, *, tone_ms: int = 100, gap_ms: int = 100) -> None:
        """Key in digits by SIP INFO; returns when all were taken. The pace is Python's, not exact."""
        await self.answered()
        for digit in digits:
            async with self._ordering:
                self._told = asyncio.get_running_loop().create_future()
                await self._order(f"info {digit} {tone_ms}", self.call_id, self._told)
            await asyncio.sleep((tone_ms + gap_ms) / 1000)

    async def hangup(self) -> Ended:
        """Hang up, as soon as the call is answered; says how it ended, as Asterisk may have been faster."""
        await self._or_failure(self._answered)
        async with self._ordering:
            if self._how:
                return await self.ended()
            return await self._order("hangup", self.call_id, self._ended)

    async def aclose(self) -> None:
        """Hang up, if there is a call, and end everything."""
        if self._answered.done() and not self._ended.done():
            with contextlib.suppress(TimeoutError, SippError):
                await asyncio.wait_for(self.hangup(), BYE_SECONDS)
        for player in self._players.values():
            await player.stop()
        await asyncio.gather(*self._players, return_exceptions=True)
        await super().aclose()

    def _write(self, pcap: Path, tones: Sequence[Tone]) -> float:
        """Write what is to be sent, and give its length in seconds."""
        begin, handset = self._stream.timestamp, self.dial.handset
        self._stream = write_pcap(
            pcap, tones, stalls=handset.stalls, silence_audio=handset.silence_audio, lasting_ms=handset.lasting_ms,
            event_payload=handset.event_payload, codec=handset.codec, stream=self._stream,
        )  # fmt: skip
        return (self._stream.timestamp - begin) / 8000 + (handset.stalls.up_to_ms / 1000 if handset.stalls else 0)

    async def _watch(self, sipp: Sipp) -> None:
        await super()._watch(sipp)
        if self._how and not self._failure.done():
            self._ended.set_result(self._how)
        self._fail(f"the call has ended: {self._how or sipp.errors()}")

    def _on_event(self, event: str, call_id: str, detail: str) -> None:
        del call_id
        match event:
            case "answered":
                self.line.remote_rtp = int(detail)
                self.answered_at = asyncio.get_running_loop().time()
                self._quiet_at = self.answered_at + self._first_seconds
                self._answered.set_result(None)
            case "told" if not self._told.done():
                self._told.set_result(None)
            case "ended":
                self._how = Ended.parse(detail)


class AgentPhone(Phone):
    """An agent's phone, which treats each call in the same way until it is told otherwise; `Phones.agent` makes it.

    `rung`, `answered` and `ended` each give the next event of their kind that was not asked for yet, so nothing is
    missed by asking late; ``events`` keeps them all.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a phone is configured with
        self, phones: Phones, line: Line, base: int, name: str, password: str, handset: Handset
    ) -> None:
        super().__init__(phones, line, base)
        self.name = name
        self.handset = handset
        self.events: list[Event] = []
        self.current: str | None = None
        self._password = password
        self._queues = {kind: asyncio.Queue[Event]() for kind in ("rung", "answered", "ended")}
        self._hello: asyncio.Future[None]
        self._registered: asyncio.Future[int]
        # Of the call that is under way, or else of the next: that it is established, and that it is over.
        self._talking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def behave(self, behaviour: Behaviour) -> None:
        """Treat calls from now on in this way; a call must not be under way."""
        if self.current:
            raise SippError("a phone cannot change its ways during a call")
        await self._stop()
        pcap = None
        if behaviour.audio_ms:
            pcap = self._phones.new_path(".pcap")
            write_pcap(pcap, (), silence_audio=True, lasting_ms=behaviour.audio_ms, codec=self.handset.codec)
        scenario = scenarios.agent(self.name, self._password, behaviour, self.handset, pcap)
        await self._start(scenario)
        self._hello = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(START_SECONDS):
            while not self._hello.done():
                self.line.order(self._base, "hello")
                await asyncio.wait({self._hello, self._failure}, timeout=HELLO_SECONDS)
                if self._failure.done():
                    raise SippError(self._failure.result())

    async def register(self, seconds: int = 300) -> None:
        """Register with digest authentication; raise if it is refused."""
        self._registered = asyncio.get_running_loop().create_future()
        code = await self._order(f"register {seconds}", "", self._registered)
        if code != 200:
            raise SippError(f"{self.name} may not register: {code}")

    async def unregister(self) -> None:
        """Take the registration back."""
        await self.register(0)

    async def rung(self) -> Event:
        """Wait for the next INVITE; the detail says from whom."""
        return await self._next("rung")

    async def answered(self) -> Event:
        """Wait for the next call that is established."""
        return await self._next("answered")

    async def ended(self) -> Ended:
        """Wait for the next end of a call."""
        return Ended.parse((await self._next("ended")).detail)

    async def hangup(self) -> None:
        """Hang up the call, as soon as it is established; returns when it has ended."""
        over = self._over
        await self._or_failure(self._talking)
        if self.current and not over.done():
            await self._order("hangup", self.current, over)

    async def aclose(self) -> None:
        """Hang up, if there is a call, and end everything. The registration stays, as when a battery is empty."""
        if self.current and self._talking.done():
            with contextlib.suppress(TimeoutError, SippError):
                await asyncio.wait_for(self.hangup(), BYE_SECONDS)
        await super().aclose()

    async def _next(self, kind: str) -> Event:
        getting = asyncio.ensure_future(self._queues[kind].get())
        try:
            return await self._or_failure(getting)
        finally:
            getting.cancel()

    def _on_error(self, line: str) -> None:
        # This SIPp lives on when one of its calls fails, so its exit code comes too late.
        if "Aborting call" in line:
            self._fail(line)

    def _on_event(self, event: str, call_id: str, detail: str) -> None:
        loop = asyncio.get_running_loop()
        match event:
            case "hello" if not self._hello.done():
                self._hello.set_result(None)
            case "registered" if not self._registered.done():
                self._registered.set_result(int(detail))
            case "rung" | "answered" | "ended":
                happened = Event(event, call_id, detail, loop.time())
                if event == "rung":
                    self.current = call_id
                elif event == "answered":
                    self._talking.set_result(None)
                else:
                    self.current = None
                    for waited_for in (self._talking, self._over):
                        if not waited_for.done():
                            waited_for.set_result(None)
                    self._talking, self._over = loop.create_future(), loop.create_future()
                self.events.append(happened)
                self._queues[event].put_nowait(happened)


class Phones:
    """All the phones of a test: their ports, their files, and their end.

    ``patience`` is how many seconds they wait for anything; no SIPp lives longer than ``seconds``.
    """

    def __init__(self, pbx: str, *, ports: tuple[int, int], patience: float = 15.0, seconds: int = 300) -> None:
        missing = lacking()
        if missing:
            raise SippError(missing)
        self.pbx, self.ports, self.patience, self.seconds = pbx, Ports(*ports), patience, seconds
        self._folder = Path(tempfile.mkdtemp(prefix="idbellen-phones-"))
        self._names = itertools.count(1)
        self._open: list[Phone] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def new_path(self, suffix: str = "") -> Path:
        """A name in the phones' folder that was not used before."""
        return self._folder / f"{next(self._names)}{suffix}"

    async def call(
        self,
        number: str = "0201234567",
        *,
        caller: str = "0612345678",
        tones: Sequence[Tone] = (),
        handset: Handset = ANY_PHONE,
        hang_up_on_answer: bool = False,
    ) -> Caller:
        """Place a call; returns at once, see `Caller.answered`."""
        dial = Dial(number=number, caller=caller, tones=tones, handset=handset, hang_up_on_answer=hang_up_on_answer)
        return (await self.calls([dial]))[0]

    async def calls(self, dials: Iterable[Dial]) -> list[Caller]:
        """Place many calls at once."""
        callers = []
        for dial in dials:
            base = self.ports.take()
            callers.append(Caller(self, await Line.open(base), base, dial))
        self._open += callers
        await asyncio.gather(*(caller.place() for caller in callers))
        return callers

    async def agent(
        self, name: str, password: str, behaviour: Behaviour | None = None, handset: Handset | None = None
    ) -> AgentPhone:
        """Switch an agent's phone on; it is not registered yet. By default it answers at once."""
        base = self.ports.take()
        phone = AgentPhone(self, await Line.open(base), base, name, password, handset or ANY_PHONE)
        self._open.append(phone)
        await phone.behave(behaviour or answer())
        return phone

    async def aclose(self) -> None:
        """End all phones and take their files away."""
        results = await asyncio.gather(*(phone.aclose() for phone in self._open), return_exceptions=True)
        self._open.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
