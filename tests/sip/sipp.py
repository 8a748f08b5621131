"""One SIPp process: started with a scenario, heard through its log, ended without a trace.

Python learns what happens in a scenario from its ``<log>`` actions: SIPp writes them to a named pipe, flushed line by
line, and the event loop reads the pipe. So nothing is polled, and a line is here within a millisecond. Python steers a
scenario that waits in ``<recv request="MESSAGE">`` with a SIP MESSAGE of the same Call-ID, sent to SIPp's port.

SIPp takes a message only where the scenario receives; between two steps it would end the call. So its default
behaviours are off: then it passes the message over, and the sender, Asterisk or Python, sends it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = "127.0.0.1"
BLOCK = 8
STOP_SECONDS = 2.0
CAP_NET_RAW = 13
_orders = itertools.count(1)


class SippError(Exception):
    """SIPp is missing, may not do what it must, or ended a scenario with an error, which is the message."""


def lacking() -> str:
    """Say what keeps SIPp from working here, or nothing.

    It replays RTP through a raw socket: that takes root, or the capability on its binary.
    """
    sipp = shutil.which("sipp")
    if not sipp:
        return "no sipp: install the package sip-tester"
    version = subprocess.run([sipp, "-v"], capture_output=True, text=True, check=False).stdout
    if "PCAP" not in version:
        return f"{sipp} was built without PCAP"
    status = Path("/proc/self/status").read_text()
    effective = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff")), 0)
    if effective >> CAP_NET_RAW & 1:
        return ""
    with contextlib.suppress(OSError):
        # The file's own capabilities: version and flag, then the permitted set.
        own = os.getxattr(Path(sipp).resolve(), "security.capability")
        if own[0] & 1 and int.from_bytes(own[4:8], "little") >> CAP_NET_RAW & 1:
            return ""
    return f"SIPp may not send RTP: run as root, or once: setcap cap_net_raw+ep {Path(sipp).resolve()}"


class Ports:
    """Gives each phone a block of eight UDP ports of its own, from a range.

    The first is SIPp's SIP port, then its control port; +2 and +4 SIPp insists on binding for media, although it only
    sends from a raw socket; +6 is the phone's real media port, and a socket of Python's is bound to it.
    """

    def __init__(self, first: int, last: int) -> None:
        self._blocks = range(first, last + 2 - BLOCK, BLOCK)
        self._taken: set[int] = set()
        self._turn = itertools.cycle(self._blocks)

    def take(self) -> int:
        """Give the first port of a free block; the longest unused comes first."""
        for base in itertools.islice(self._turn, len(self._blocks)):
            if base not in self._taken and all(_free(base + i) for i in (0, 1, 2, 4, 6)):
                self._taken.add(base)
                return base
        raise SippError("no free ports left in the range of the phones")

    def give_back(self, base: int) -> None:
        """Say that nothing listens on the block any more."""
        self._taken.discard(base)


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class Line(asyncio.DatagramProtocol):
    """The phone's media port: counts the RTP that arrives, and sends the orders to SIPp."""

    def __init__(self) -> None:
        self.packets = 0
        self.remote_rtp: int | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._transport: asyncio.DatagramTransport

    @classmethod
    async def open(cls, base: int) -> Line:
        """Bind the media port of a block."""
        _, line = await asyncio.get_running_loop().create_datagram_endpoint(cls, (LOOPBACK, base + 6))
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The loop's own class of datagram transports does not inherit from DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data[:1] == b"\x80":
            self.packets += 1
            for goal, future in self._waiting:
                if self.packets >= goal and not future.done():
                    future.set_result(None)
        elif data.startswith(b"MESSAGE "):
            self._transport.sendto(self._where_to(data), addr)

    def _where_to(self, question: bytes) -> bytes:
        """Answer a SIPp that asks where the RTP of this phone goes."""
        copied = (b"Via", b"From", b"To", b"Call-ID", b"CSeq")
        head = [line for line in question.split(b"\r\n") if line.split(b":")[0] in copied]
        body = f"v=0\r\no=- 1 1 IN IP4 {LOOPBACK}\r\ns=-\r\nc=IN IP4 {LOOPBACK}\r\nt=0 0\r\n"
        body += f"m=audio {self.remote_rtp} RTP/AVP 8\r\n"
        tail = f"\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        return b"\r\n".join([b"SIP/2.0 200 OK", *head]) + tail.encode()

    async def heard(self, packets: int) -> None:
        """Return when this many packets have arrived, all told."""
        future = asyncio.get_running_loop().create_future()
        entry = (packets, future)
        self._waiting.append(entry)
        try:
            if self.packets < packets:
                await future
        finally:
            self._waiting.remove(entry)

    def order(self, base: int, order: str, call_id: str = "") -> None:
        """Tell a waiting scenario what to do; without a Call-ID, tell the SIPp that serves calls."""
        number = next(_orders)
        message = (
            f"MESSAGE sip:phone@{LOOPBACK}:{base} SIP/2.0",
            f"Via: SIP/2.0/UDP {LOOPBACK}:{base + 6};branch=z9hG4bK-order-{number}",
            f"From: <sip:test@{LOOPBACK}>;tag=order{number}",
            f"To: <sip:phone@{LOOPBACK}>",
            f"Call-ID: {call_id or f'order-{number}-{os.getpid()}-{base}'}",
            f"CSeq: {number} MESSAGE",
            f"Subject: {order}",
            "Content-Length: 0\r\n\r\n",
        )
        self._transport.sendto("\r\n".join(message).encode(), (LOOPBACK, base))

    def close(self) -> None:
        """Let the port go."""
        self._transport.close()


class _Lines(asyncio.Protocol):
    """What comes out of a named pipe, line by line."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._on_line(line.decode(errors="replace").strip())

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.ended.done():
            self.ended.set_result(None)


class Sipp:
    """One SIPp process on one block of ports, with a folder of its own that it takes away at its end."""

    def __init__(
        self, folder: Path, base: int, on_line: Callable[[str], None], on_error: Callable[[str], None] | None = None
    ) -> None:
        self._folder, self._base, self._on_line, self._on_error = folder, base, on_line, on_error
        self._stopping = False
        self._errors: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._pipes: dict[Path, tuple[asyncio.ReadTransport, _Lines]] = {}

    async def start(self, pbx: str, scenario: str, *options: str, seconds: int = 300) -> None:
        """Start it with a scenario; it ends itself after so many seconds, should nobody else do so."""
        where, base = self._folder, self._base
        where.mkdir(exist_ok=True)
        (where / "scenario.xml").write_text(scenario)
        log, errors = await self._listen("log", self._on_line), await self._listen("errors", self._heard_error)
        with (where / "output").open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                "sipp", pbx, "-sf", str(where / "scenario.xml"), "-nostdin", "-timeout", f"{seconds}s",
                "-i", LOOPBACK, "-bind_local", "-p", str(base), "-ci", LOOPBACK, "-cp", str(base + 1),
                "-mi", LOOPBACK, "-mp", str(base + 2), "-trace_logs", "-log_file", str(log),
                "-trace_err", "-error_file", str(errors), "-f", "3600", "-default_behaviors", "none", *options,
                # A session of its own: where the kernel shares the processor out by sessions, RTP leaves in time.
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=where, start_new_session=True,
            )  # fmt: skip

    async def _listen(self, name: str, on_line: Callable[[str], None]) -> Path:
        path = self._folder / name
        os.mkfifo(path)
        reading = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
        self._pipes[path] = await asyncio.get_running_loop().connect_read_pipe(lambda: _Lines(on_line), reading)
        return path

    def _heard_error(self, line: str) -> None:
        self._errors.append(line)
        if self._on_error:
            self._on_error(line)

    async def ended(self) -> None:
        """Return when the process has ended and all its lines were heard.

        Raises:
            SippError: it ended by itself and says that not all went well.

        """
        assert self._process
        code = await self._process.wait()
        for path, (_, lines) in self._pipes.items():
            with contextlib.suppress(OSError):
                # A pipe that SIPp never opened would never come to its end.
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                await asyncio.shield(lines.ended)
        if code and not self._stopping:
            raise SippError(f"SIPp ended with {code}: {self.errors()}")

    def errors(self) -> str:
        """What SIPp itself says went wrong."""
        output = self._folder / "output"
        # The first line is a heading; what SIPp finds wrong in a scenario, it only prints.
        if len(self._errors) < 2 and output.exists():
            return output.read_text(errors="replace").strip()[:4000]
        return "\n".join(self._errors)[:4000]

    async def stop(self) -> None:
        """End the process, if it has not ended, and take its files away."""
        self._stopping = True
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        for transport, _ in self._pipes.values():
            transport.close()
        shutil.rmtree(self._folder, ignore_errors=True)
