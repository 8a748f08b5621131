"""Services and commands for tests from a process that has read the program already, which takes most of a start.

Each is a process of its own with the real command, as ``python -m idbellen`` is, made by fork instead of exec. Where
the start itself is looked at, tests start that (tests/asterisk/test_cli.py, tests/support/demo.py).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn

from idbellen.demo.pbx import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LARGEST_MESSAGE = 1 << 20


class Forked:
    """A process that was made so; it can be used as :class:`asyncio.subprocess.Process`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def ended(self, code: int) -> None:
        """Note that it has ended."""
        self.returncode = code
        self._ended.set()

    async def wait(self) -> int:
        """Wait until it has ended; gives its exit code."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            # It may have ended in this moment.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """Makes them, until :meth:`stop`."""

    def __init__(self) -> None:
        # Where somebody is there to stop it.
        self.usable = False
        self._started = asyncio.Lock()
        self._parent: asyncio.subprocess.Process | None = None
        self._writer: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._one_at_a_time = asyncio.Lock()
        self._running: dict[int, Forked] = {}
        # A process can end before we know of it.
        self._gone: dict[int, int] = {}

    async def _start(self) -> None:
        """Start the process that the others come from."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._parent = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.support.forks", str(theirs.fileno()), cwd=CHECKOUT,
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._writer = ours.dup()
        reader, self._stream = await asyncio.open_connection(sock=ours)
        self._reading = asyncio.create_task(self._read(reader))

    async def stop(self) -> None:
        """End it, and with it what it made."""
        if self._parent is None:
            return
        assert self._writer
        assert self._reading
        for process in self._running.values():
            process.kill()
        self._writer.close()
        self._stream.close()
        await self._parent.wait()
        await self._reading

    async def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], sink: IO[bytes], given: IO[bytes] | None = None
    ) -> Forked:
        """Run ``idbellen`` with arguments, with its output into a file, and what it is given from another."""
        async with self._started:
            if self._parent is None:
                await self._start()
        assert self._writer
        message = json.dumps({"arguments": arguments, "environment": dict(environment)}).encode()
        descriptors = [file.fileno() for file in (sink, given) if file]
        async with self._one_at_a_time:
            socket.send_fds(self._writer, [len(message).to_bytes(4, "big") + message], descriptors)
            pid = await self._born.get()
        process = self._running[pid] = Forked(pid)
        if pid in self._gone:
            self._end(pid, self._gone.pop(pid))
        return process

    def _end(self, pid: int, code: int) -> None:
        self._running.pop(pid).ended(code)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            told = json.loads(line)
            if "born" in told:
                self._born.put_nowait(told["born"])
            elif told["pid"] in self._running:
                self._end(told["pid"], told["code"])
            else:
                self._gone[told["pid"]] = told["code"]


FORKS = Forks()
"""Those of this run of the tests."""


def _serve(commands: socket.socket) -> None:
    """Make processes, until nobody asks for them any more."""
    from idbellen.cli import main  # noqa: PLC0415 - all that takes long
    from idbellen.domain.languages import LANGUAGES  # noqa: PLC0415
    from idbellen.web.pages import HERE, Pages  # noqa: PLC0415

    for language in LANGUAGES:
        Pages().load(language, *(path.name for path in (HERE / "templates").iterdir()))
    # Those that come from it share what is there.
    gc.freeze()

    def tell(**told: Any) -> None:
        with suppress(BrokenPipeError):
            commands.sendall(json.dumps(told).encode() + b"\n")

    def reap(*_: object) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                tell(pid=found[0], code=os.waitstatus_to_exitcode(found[1]))

    while True:
        # Who has ended is told between two births only, so that each birth is told before the end.
        signal.signal(signal.SIGCHLD, reap)
        reap()
        head, descriptors, _, _ = socket.recv_fds(commands, 4, 2)
        if not head:
            return
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        message = json.loads(_exactly(commands, int.from_bytes(head, "big")))
        pid = os.fork()
        if pid == 0:
            commands.close()
            _be(main, message["arguments"], message["environment"], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        tell(born=pid)


def _exactly(commands: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        content += commands.recv(size - len(content))
    return content


def _be(main: Any, arguments: list[str], environment: dict[str, str], descriptors: list[int]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        # Our own input, of which there is none, stays where no other is given.
        sink, *given = descriptors
        for here, there in ((sink, 1), (sink, 2), *((file, 0) for file in given)):
            os.dup2(here, there)
        for descriptor in descriptors:
            os.close(descriptor)
        code = main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        import traceback  # noqa: PLC0415

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
