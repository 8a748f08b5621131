"""baresip, a SIP phone without a screen, as a program that the demo's telephones run and command.

It is told what to do, and tells what happens, as JSON over a loopback connection (its module ctrl_tcp).
What it prints is thrown away, because it prints the digits that are keyed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from idbellen.aio import timeout

BARESIP = "baresip"
MODULE_FOLDERS = ("lib/baresip/modules", "lib/*/baresip/modules", "lib64/baresip/modules")
MODULE_ROOTS = (Path("/usr"), Path("/usr/local"))
MODULES = ("g711.so", "ausine.so")
APPLICATIONS = ("menu.so", "ctrl_tcp.so")
# The resampler is part of baresip itself in the versions that do not have this module.
RESAMPLER = "auresamp.so"

START_SECONDS = 10.0
COMMAND_SECONDS = 5.0
STOP_SECONDS = 4.0

# The sine is louder than one would have it. At 7.6 kHz it lies above what a telephone carries, and what
# the resampling leaves of it is a faint hum of 400 Hz, 49 dB below full scale: enough to hear that there
# is a line. A sound file will not do as a source: baresip hangs up at its end.
CONFIG = """\
sip_listen {address}:{sip_port}
net_interface 127.0.0.1
rtp_ports {rtp_ports[0]}-{rtp_ports[1]}
call_max_calls 1
statmode_default off
audio_source ausine,7600
ausrc_srate 48000
ausrc_channels 2
ctrl_tcp_listen 127.0.0.1:{control_port}
module_path {modules}
"""


class PhoneError(Exception):
    """A phone cannot do what was asked; the message is a sentence for the person at the screen."""


def find_modules(roots: tuple[Path, ...] = MODULE_ROOTS) -> Path:
    """Find the folder of baresip's modules, which differs between builds."""
    for root in roots:
        for pattern in MODULE_FOLDERS:
            for folder in sorted(root.glob(pattern)):
                if all((folder / module).exists() for module in (*MODULES, *APPLICATIONS)):
                    return folder
    raise PhoneError("The demo's telephones need baresip: install the package baresip-core.")


def _check_free(kind: socket.SocketKind, address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            raise PhoneError(f"Port {port}, which a demo telephone needs, is in use.") from None


@dataclass(frozen=True, slots=True)
class Event:
    """What the phone reports: baresip's own event types, and ``GONE`` and ``HANGUP`` of ours."""

    type: str
    reason: str = ""


@dataclass(slots=True, eq=False)
class Baresip:
    """One running baresip, and the connection that commands it and tells what happens."""

    directory: Path
    sip_port: int
    control_port: int
    rtp_ports: tuple[int, int]
    address: str = "127.0.0.1"
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    _process: asyncio.subprocess.Process | None = None
    _writer: asyncio.StreamWriter | None = None
    _listening: asyncio.Task[None] | None = None
    _answers: dict[str, asyncio.Future[bool]] = field(default_factory=dict)
    _tokens: count[int] = field(default_factory=count)

    async def start(self, account: str) -> None:
        """Start baresip with one SIP account, which it is told over the connection and stores nowhere."""
        program = shutil.which(BARESIP)
        if program is None:
            raise PhoneError("The demo's telephones need baresip: install the package baresip-core.")
        self._configure(find_modules())
        # baresip also opens the port after its SIP port, for TLS.
        for port in (self.sip_port, self.sip_port + 1):
            _check_free(socket.SOCK_STREAM, self.address, port)
        _check_free(socket.SOCK_STREAM, "127.0.0.1", self.control_port)
        _check_free(socket.SOCK_DGRAM, self.address, self.sip_port)
        # Where it can be had, the kernel ends the phone when Python dies without a word.
        guard = shutil.which("setpriv")
        leash = [guard, "--pdeathsig", "TERM", "--"] if guard else []
        self._process = await asyncio.create_subprocess_exec(
            *leash, program, "-f", str(self.directory), cwd=self.directory, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        reader = await self._connect(self._process)
        self._listening = asyncio.create_task(self._listen(reader))
        if not await self.command("uanew", account):
            raise PhoneError("baresip did not accept the demo telephone's account.")

    def _configure(self, modules: Path) -> None:
        if self.control_port in (self.sip_port, self.sip_port + 1):
            raise PhoneError(f"Port {self.control_port} cannot be used for SIP and for control.")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = CONFIG.format(
            address=self.address,
            sip_port=self.sip_port,
            control_port=self.control_port,
            rtp_ports=self.rtp_ports,
            modules=modules,
        ).splitlines()
        lines += [f"module {name}" for name in (*MODULES, RESAMPLER) if (modules / name).exists()]
        lines += [f"module_app {name}" for name in APPLICATIONS]
        config = self.directory / "config"
        config.touch(mode=0o600)
        config.write_text("\n".join(lines) + "\n")

    async def _connect(self, process: asyncio.subprocess.Process) -> asyncio.StreamReader:
        with contextlib.suppress(TimeoutError):
            async with timeout(START_SECONDS):
                while process.returncode is None:
                    with contextlib.suppress(OSError):
                        reader, self._writer = await asyncio.open_connection("127.0.0.1", self.control_port)
                        return reader
                    await asyncio.sleep(0.02)
        raise PhoneError("baresip, the demo's telephone, did not start.")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Read netstrings of JSON until the connection ends."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                length = await reader.readuntil(b":")
                message = await reader.readexactly(int(length[:-1]) + 1)
                with contextlib.suppress(ValueError):
                    self._take(json.loads(message[:-1].decode(errors="replace"), strict=False))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(False)
        self.events.put_nowait(Event("GONE"))

    def _take(self, message: dict[str, object]) -> None:
        if message.get("event"):
            self.events.put_nowait(Event(str(message.get("type")), str(message.get("param", ""))))
        elif answer := self._answers.pop(str(message.get("token")), None):
            answer.set_result(message.get("ok") is True)

    async def command(self, command: str, parameters: str) -> bool:
        """Let baresip do something; tells whether it could."""
        if self._writer is None or self._listening is None or self._listening.done():
            return False
        token = str(next(self._tokens))
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers[token] = answer
        text = json.dumps({"command": command, "params": parameters, "token": token}).encode()
        self._writer.write(b"%d:%s," % (len(text), text))
        try:
            async with timeout(COMMAND_SECONDS):
                return await answer
        except TimeoutError:
            return False
        finally:
            self._answers.pop(token, None)

    async def stop(self) -> None:
        """End baresip, which hangs up and unregisters first."""
        process = self._process
        if process and process.returncode is None:
            try:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with timeout(STOP_SECONDS):
                        await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
            await process.wait()
        if self._writer:
            self._writer.close()
        await end(self._listening)


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait until it has ended."""
    if task:
        task.cancel()
        await asyncio.wait([task])
