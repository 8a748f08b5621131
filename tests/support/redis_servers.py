"""Redis servers and Sentinels of our own for the tests, each with a folder and a port."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from idbellen.stores.redis_url import RedisUrl
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECONDS = 20.0
# The tools' package has the server under this name too, and with it comes no service of the machine.
PROGRAM = shutil.which("redis-check-rdb")


class RedisProcess:
    """One process, called ``redis-server`` or ``redis-sentinel``: by that name it knows what to be.

    In ``settings``, lines of its configuration, @PORT@ is its port.
    """

    def __init__(self, folder: Path, *settings: str, name: str = "redis-server") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_ports()
        self._name = name
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._lines: list[str] = []
        self._news = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None

    @property
    def url(self) -> RedisUrl:
        """Where it is."""
        return RedisUrl((("127.0.0.1", self.port),))

    async def start(self, until: str = "Ready to accept connections") -> None:
        """Start it, also once more, and wait until its log says so."""
        assert PROGRAM, "there is no Redis: sh tools/setup test"
        conf = self.folder / "redis.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]
        if self._name == "redis-server":
            # Others connect at once, instead of up to five seconds later.
            lines += ["enable-debug-command yes", "repl-diskless-sync-delay 0"]
        conf.write_text("\n".join([*lines, *self._settings]).replace("@PORT@", str(self.port)) + "\n")
        self._lines.clear()
        self._process = await asyncio.create_subprocess_exec(
            self._name, str(conf), executable=PROGRAM,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(self._process))
        await self.said(until)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            async with self._news:
                self._lines.append(line.decode())
                self._news.notify_all()

    async def said(self, text: str) -> None:
        """Wait until its log says this."""
        try:
            async with asyncio.timeout(SECONDS), self._news:
                await self._news.wait_for(lambda: any(text in line for line in self._lines))
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in: {''.join(self._lines)}") from None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP lets it hang, SIGCONT lets it go on."""
        assert self._process
        self._process.send_signal(number)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; SIGKILL is a crash."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)
            # Also one that hangs.
            self._process.send_signal(signal.SIGCONT)
            await self._process.wait()
        if self._reading:
            await self._reading

    async def cli(self, *words: str, options: Sequence[str] = ()) -> str:
        """Run ``redis-cli`` against it; gives what it says."""
        process = await asyncio.create_subprocess_exec(
            "redis-cli", "-p", str(self.port), *options, *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _ = await process.communicate()
        return output.decode().strip()
