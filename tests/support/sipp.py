"""Callers and agents' phones: SIPp processes, whose scenarios a test steers while they run.

A scenario waits for a SIP MESSAGE in its own dialog; the test sends one by UDP to let it go on. So a test hangs
up, or keys in more digits, after an event that it awaited, and not after a time that it guessed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import secrets
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from tests.support.ports import free_ports
from tests.support.rtp import ALAW, Codec, Stalls, Tone, typed, write_pcap
from tests.support.scenarios import (
    CALLER_NUMBER,
    HANG_UP,
    HOLD_KEY,
    OK_TO_REQUEST,
    WAIT,
    answer,
    audio,
    dial,
    invite,
    key_by_info,
    log,
    refuse,
    register,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.support.rtp import Sound

# The trunk is known by its address, so no agent's phone may have that (asterisk-conf/pjsip.conf).
AGENTS = "127.0.0.3"
# Whom calls to numbers outside reach.
OUTSIDE = "127.0.0.1"
# A SIP port; two ports up, four for audio and video.
PORTS_OF_A_PHONE = 6
CALL_SECONDS = 60
# Who is asked in a call whether they are still there (UPDATE) says so.
ANSWERS_BY_ITSELF = "-aa"
# The longest that Asterisk takes: a phone registers once.
REGISTERED_SECONDS = 7200
# So often those of a crowd key their code in.
KEYED_AT_MOST = 3


class SippError(Exception):
    """SIPp did not do what its scenario says; the message holds what it wrote."""


@functools.cache
def _media_port_option(program: str) -> str:
    """Give SIPp's option for the port of its sound. Versions 3.7.0 to 3.7.2 have another one (Ubuntu 24.04)."""
    told = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    return "-mp" if re.search(r"^ *-mp ", told, re.MULTILINE) else "-min_rtp_port"


class Sipp:
    """One SIPp process with a scenario of its own."""

    def __init__(
        self, folder: Path, name: str, scenario: str, *options: str, port: int | None = None, address: str = AGENTS
    ) -> None:
        self.port = port or free_ports(PORTS_OF_A_PHONE)
        self._address = address
        self.folder = folder
        # Not the port alone: that may come back, and with it the log of who had it before.
        self._name = f"{name}-{self.port}-{secrets.token_hex(4)}"
        self._options = options
        self._scenario = folder / f"{self._name}.xml"
        self._scenario.write_text(f'<?xml version="1.0"?>\n<scenario name="{name}">{scenario}</scenario>')
        self._log = folder / f"{self._name}.log"
        self._log.touch()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        program = shutil.which("sipp")
        assert program, "sipp is not installed: make test installs it (package sip-tester)"
        # On its own terminal size and keyboard SIPp would wait for somebody.
        self.process = await asyncio.create_subprocess_exec(
            program, "-sf", str(self._scenario), "-i", self._address, "-p", str(self.port), "-nostdin",
            "-mi", "127.0.0.1", _media_port_option(program), str(self.port + 2),
            "-trace_logs", "-log_file", str(self._log),
            "-trace_err", "-error_file", str(self.folder / f"{self._name}.err"), *self._options,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            # In a session of its own, or a kernel that shares the processor by session lets it wait for the tests.
            env=os.environ | {"TERM": "dumb"}, cwd=self.folder, start_new_session=True,
        )  # fmt: skip

    def times(self, text: str) -> int:
        """Give how often the scenario has logged a text."""
        return sum(line.startswith(text) for line in self.logged())

    @property
    def in_call(self) -> bool:
        """Whether a call is answered and not over."""
        return self.times("answered") + self.times("talking") > self.times("ended") + self.times("talked")

    def logged(self) -> list[str]:
        return [line.strip() for line in self._log.read_text().splitlines() if line.strip()]

    async def until(self, text: str, *, times: int = 1, seconds: float = 10.0) -> None:
        """Wait until the scenario has logged a text so many times."""
        try:
            async with asyncio.timeout(seconds):
                while self.times(text) < times:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise SippError(f"{self._name}: no {text!r} but {self.logged()}; {self.errors()}") from None

    def errors(self) -> str:
        file = self.folder / f"{self._name}.err"
        return file.read_text() if file.exists() else ""

    def go_on(self, call_id: str, what: str = "MESSAGE") -> None:
        """Let the scenario of one call go on."""
        text = (
            f"{what} sip:sipp@{self._address}:{self.port} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{secrets.token_hex(6)}\r\n"
            f"From: <sip:test@127.0.0.1>;tag=test\r\nTo: <sip:sipp@127.0.0.1>\r\n"
            f"Call-ID: {call_id}\r\nCSeq: 1 {what}\r\nContent-Length: 0\r\n\r\n"
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), (self._address, self.port))

    async def wait(self, seconds: float) -> int:
        assert self.process
        try:
            async with asyncio.timeout(seconds):
                return await self.process.wait()
        except TimeoutError:
            raise SippError(f"{self._name}: still runs; {self.logged()} {self.errors()}") from None

    async def end(self) -> None:
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Caller:
    """A citizen on the phone. Keys of the first round are pressed at the answer, others when told."""

    def __init__(self, sipp: Sipp, call_id: str) -> None:
        self._sipp = sipp
        self.call_id = call_id

    async def answered(self, *, seconds: float = 10.0) -> None:
        await self._sipp.until("answered", seconds=seconds)

    def go_on(self) -> None:
        """Press the keys of the next round; after the last round: hang up."""
        self._sipp.go_on(self.call_id)

    async def hangs_up(self, *, seconds: float) -> bool:
        """Wait until the caller hangs up, or the call is over; False if neither comes about in time."""
        try:
            async with asyncio.timeout(seconds):
                while not self._sipp.times("hangs up") and self._sipp.process and self._sipp.process.returncode is None:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True

    def dialog(self) -> str:
        """Give what names the call for a phone that takes its place (the header Replaces, RFC 3891)."""
        [theirs] = [line.removeprefix("dialog tag=") for line in self._sipp.logged() if line.startswith("dialog")]
        return f"{self.call_id};to-tag={theirs};from-tag=caller"

    async def over(self) -> None:
        """Wait until the call has ended, in whichever way."""
        assert self._sipp.process
        await self._sipp.process.wait()

    async def ended(self, *, seconds: float = 20.0) -> str:
        """Wait until the call has ended; gives ``by asterisk`` or ``by caller``."""
        failed = await self._sipp.wait(seconds) != 0
        last, errors = self._sipp.logged()[-1:], self._sipp.errors()
        # What SIPp does not expect in the moment of an end, between two steps of its own: our message to a call that
        # Asterisk has just ended, or the end by Asterisk when the caller is about to hang up.
        if failed and last == ["hangs up"] and "unexpected BYE" in errors:
            return "by asterisk"
        if failed and not (last and last[0].startswith("ended ") and "received 'MESSAGE sip:sipp@" in errors):
            raise SippError(f"call failed: {self._sipp.logged()} {errors}")
        return last[0].removeprefix("ended ")


class AgentPhone:
    """An agent's phone that does one thing with every call: see :meth:`Phones.agent`."""

    def __init__(self, sipp: Sipp, name: str) -> None:
        self._sipp = sipp
        self.name = name

    @property
    def port(self) -> int:
        return self._sipp.port

    @property
    def in_call(self) -> bool:
        """Whether the phone talks."""
        return self._sipp.in_call

    def count(self, text: str) -> int:
        """Give how often something has happened: rung, talking, talked or over."""
        return self._sipp.times(text)

    def latest(self, text: str) -> str:
        """Give the latest line that the phone has logged of this kind."""
        return [line for line in self._sipp.logged() if line.startswith(text)][-1]

    async def rung(self, times: int = 1) -> None:
        await self._sipp.until("rung", times=times)

    async def talking(self, times: int = 1) -> None:
        await self._sipp.until("talking", times=times)

    async def over(self, times: int = 1) -> None:
        await self._sipp.until("over", times=times)

    def hang_up(self) -> None:
        """End the latest call that was answered."""
        self._sipp.go_on(self._call)

    async def press_hold(self) -> None:
        """Press the phone's own hold key in the latest call, and wait until Asterisk has taken that in."""
        told = ("holds", "resumes")
        before = sum(map(self.count, told))
        self._sipp.go_on(self._call, HOLD_KEY)
        try:
            async with asyncio.timeout(5):
                while sum(map(self.count, told)) == before:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise SippError(f"{self.name} cannot hold: {self._sipp.logged()} {self._sipp.errors()}") from None

    @property
    def _call(self) -> str:
        return self.latest("rung").removeprefix("rung").strip()


class Crowd:
    """Many callers in one process: the call of the n-th of them, from 1, has the Call-ID that :meth:`call_id` gives.

    Each keys their code in, once more when told so, twice at most, and stays until Asterisk hangs up.
    """

    def __init__(self, sipp: Sipp, name: str) -> None:
        self._sipp = sipp
        self._name = name

    def call_id(self, number: int) -> str:
        return f"{number}-{self._name}"

    def key_again(self, call_id: str) -> None:
        """Let one of them key the code in again."""
        self._sipp.go_on(call_id)

    @property
    def ended(self) -> int:
        """How many calls have ended."""
        return self._sipp.times("ended")

    async def over(self, *, seconds: float) -> None:
        """Wait until all have ended, each as its scenario says."""
        if await self._sipp.wait(seconds) != 0:
            # What is sent again to who has gone is no error.
            told = re.split(r"^(?=\d{4}-\d\d-\d\d\t)", self._sipp.errors(), flags=re.MULTILINE)
            errors = "".join(error for error in told if "Discarding message" not in error)
            # How often each step was done, repeated or not expected.
            steps = (self._sipp.folder / f"{self._name}.screen").read_text()
            raise SippError(f"only {self.ended} calls ended properly: {errors[:6000]}\n{steps}")


class Phones:
    """Makes phones beside one Asterisk, and ends them all."""

    def __init__(self, pbx: Pbx, folder: Path) -> None:
        self._pbx = pbx
        self._folder = folder
        # What callers have in From.
        self.caller_number = CALLER_NUMBER
        # Their calls last no longer.
        self.call_seconds = CALL_SECONDS
        self._running: list[Sipp] = []
        self._agents: dict[str, Sipp] = {}

    async def call(
        self,
        *rounds: str | Sequence[Tone],
        stalls: Stalls | None = None,
        info: bool = False,
        hang_up_at_once: bool = False,
        sound: Sound | None = None,
        codec: Codec = ALAW,
    ) -> Caller:
        """Place a call; each round is keys to press, by RFC 4733 or, with ``info``, by SIP INFO (RFC 6086).

        With ``sound`` the audio is the test's own, and keys can only be SIP INFO.
        """
        info = info or sound is not None
        parts = [invite(audio(sound, codec))]
        # Told in the step before it waits for the test, or the test could be too early.
        told = [log("answered")]
        for number, keys in enumerate(rounds):
            if info or number:
                parts += told
                told.clear()
            if number:
                parts.append(WAIT)
            if info:
                assert isinstance(keys, str)
                parts += [key_by_info(key) for key in keys]
            elif keys:
                tones = typed(keys) if isinstance(keys, str) else keys
                pcap = self._folder / f"{secrets.token_hex(6)}.pcap"
                write_pcap(pcap, tones, stalls, part=number, codec=codec)
                parts.append(f'<nop><action><exec play_pcap_audio="{pcap}"/></action></nop>')
        parts += told
        if not hang_up_at_once:
            parts.append(WAIT)
        parts += [log("hangs up"), HANG_UP]
        call_id = secrets.token_hex(8)
        dialled = "+31201234567"
        sipp = Sipp(
            self._folder, "caller", "\n".join(parts).replace(CALLER_NUMBER, self.caller_number),
            f"127.0.0.1:{self._pbx.settings.sip_port}",
            "-s", dialled, "-m", "1", "-cid_str", call_id, "-timeout", str(self.call_seconds),
            "-timeout_error", ANSWERS_BY_ITSELF,
            address=self._pbx.settings.trunk_match,
        )  # fmt: skip
        await self._start(sipp)
        if sound:
            sound.in_call = lambda: sipp.in_call
        return Caller(sipp, call_id)

    async def crowd(self, codes: Sequence[str], *, rate: float, seconds: float) -> Crowd:
        """Let many call in turn, so many a second; they must have ended by then. Their audio is nowhere."""
        name = f"crowd{secrets.token_hex(4)}"
        file = self._folder / f"{name}.csv"
        file.write_text("\n".join(["SEQUENTIAL", *(";".join(code) + ";" for code in codes)]) + "\n")
        keys = "".join(key_by_info(f"[field{place}]") for place in range(len(codes[0])))
        scenario = f"""
{invite(audio(None))}
{log("answered")}
{WAIT.join([keys] * KEYED_AT_MOST)}
<recv request="BYE"/>
<label id="1"/>
{OK_TO_REQUEST}
{log("ended by asterisk")}
"""
        sipp = Sipp(
            self._folder, name, scenario, f"127.0.0.1:{self._pbx.settings.sip_port}",
            "-s", "+31201234567", "-inf", str(file), "-cid_str", f"%u-{name}", "-m", str(len(codes)),
            "-r", str(max(1, round(rate * 10))), "-rp", "10000", "-l", str(len(codes)), "-timeout", str(round(seconds)),
            "-timeout_error", "-trace_screen", "-screen_file", str(self._folder / f"{name}.screen"),
            address=self._pbx.settings.trunk_match,
        )  # fmt: skip
        await self._start(sipp)
        return Crowd(sipp, name)

    async def agents(self, names: Sequence[str], *, talks: float) -> AgentPhone:
        """Plug the phones of many agents in, as one process; each hangs up when it has talked for so many seconds."""
        port = free_ports(PORTS_OF_A_PHONE)
        for name in names:
            await self._register(name, port, expires=REGISTERED_SECONDS)
        sipp = Sipp(self._folder, "agents", answer(100, audio(None), talks_ms=round(talks * 1000)), port=port)
        await self._start(sipp)
        return AgentPhone(sipp, "agents")

    async def dial(self, agent: str, number: str) -> Caller:
        """Let an agent's phone call a number."""
        call_id = secrets.token_hex(8)
        sipp = Sipp(
            self._folder, f"dial-{agent}", dial(agent, self._pbx.settings.agent_password(agent)),
            f"127.0.0.1:{self._pbx.settings.sip_port}", "-s", number, "-m", "1", "-cid_str", call_id,
            "-timeout", str(CALL_SECONDS), "-timeout_error",
        )  # fmt: skip
        await self._start(sipp)
        return Caller(sipp, call_id)

    async def outside(self, *, sound: Sound | None = None) -> AgentPhone:
        """Put up a phone that is no agent's and answers every call, whatever the number."""
        sipp = Sipp(self._folder, "outside", answer(100, audio(sound)), address=OUTSIDE)
        await self._start(sipp)
        if sound:
            sound.in_call = lambda: sipp.in_call
        return AgentPhone(sipp, "outside")

    async def agent(
        self, name: str, does: str = "answer", *, after_ms: int = 100, sound: Sound | None = None
    ) -> AgentPhone:
        """Plug a phone in and register it. ``does``: answer, busy, decline, unavailable, silent."""
        if name in self._agents:
            await self._agents.pop(name).end()
        scenario = {
            "answer": answer(after_ms, audio(sound)),
            "busy": refuse("486 Busy Here"),
            "decline": refuse("603 Decline"),
            "unavailable": refuse("480 Temporarily Unavailable"),
            "silent": answer(CALL_SECONDS * 1000, audio(None)),
        }[does]
        # Asterisk takes the address that a registration comes from for the phone's (rewrite_contact).
        port = free_ports(PORTS_OF_A_PHONE)
        await self._register(name, port, expires=REGISTERED_SECONDS)
        sipp = Sipp(self._folder, f"{name}-{does}", scenario, ANSWERS_BY_ITSELF, port=port)
        await self._start(sipp)
        self._agents[name] = sipp
        if sound:
            sound.in_call = lambda: sipp.in_call
        return AgentPhone(sipp, name)

    async def unplug(self, name: str) -> None:
        """Unregister a phone and switch it off."""
        sipp = self._agents.pop(name)
        await sipp.end()
        await self._register(name, sipp.port, expires=0)

    async def _register(self, name: str, port: int, *, expires: int) -> None:
        scenario = register(name, self._pbx.settings.agent_password(name), expires)
        sipp = Sipp(
            self._folder, f"register-{name}", scenario, f"127.0.0.1:{self._pbx.settings.sip_port}", "-m", "1",
            "-timeout", "5", "-timeout_error", port=port,
        )  # fmt: skip
        await self._start(sipp)
        if await sipp.wait(10) != 0:
            raise SippError(f"{name} cannot register: {sipp.errors()}")

    async def _start(self, sipp: Sipp) -> None:
        self._running.append(sipp)
        await sipp.start()

    async def close(self) -> None:
        for name in list(self._agents):
            with suppress(SippError):
                await self.unplug(name)
        for sipp in self._running:
            await sipp.end()


@asynccontextmanager
async def phones(pbx: Pbx, folder: Path) -> AsyncIterator[Phones]:
    """Give a maker of phones; all are unregistered and ended afterwards."""
    made = Phones(pbx, folder)
    try:
        yield made
    finally:
        await made.close()
