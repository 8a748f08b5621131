"""A TCP proxy between a client and a server, with the faults of networks on command."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Literal, Self

from tests.support.ports import free_ports

if TYPE_CHECKING:
    from types import TracebackType

CHUNK = 1 << 16

Way = Literal["to_server", "to_client"]
BOTH: tuple[Way, ...] = ("to_server", "to_client")


class Proxy:
    """Passes everything on to ``127.0.0.1:target``, until it is told otherwise.

    ``port`` is where clients connect. ``accepted`` counts their connections, and ``passed`` the bytes of each way.
    """

    def __init__(self, target: int) -> None:
        self.port = free_ports()
        self.accepted = 0
        self.passed: dict[Way, int] = dict.fromkeys(BOTH, 0)
        self._target = target
        self._open: dict[Way, asyncio.Event] = {way: asyncio.Event() for way in BOTH}
        self._delay: dict[Way, float] = dict.fromkeys(BOTH, 0.0)
        self._twice: set[Way] = set()
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Self:
        await self.pass_on()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.cut()
        if self._links:
            await asyncio.wait(self._links)

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    async def pass_on(self) -> None:
        """End every fault: what was held back is passed on, in its order, and new connections are taken."""
        self._delay = dict.fromkeys(BOTH, 0.0)
        self._twice.clear()
        for gate in self._open.values():
            gate.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._link, "127.0.0.1", self.port)

    def lead_to(self, target: int) -> None:
        """Pass new connections on to another server, as a load balancer does."""
        self._target = target

    def cut(self, *, reset: bool = False) -> None:
        """End all connections, at both ends: with a FIN, or with an RST."""
        for task, ends in self._links.items():
            for end in ends:
                if reset:
                    # No time to linger: the kernel then resets instead of closing.
                    linger = struct.pack("ii", 1, 0)
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                end.transport.abort()
            task.cancel()

    def silence(self, *ways: Way) -> None:
        """Pass nothing more, not even the end of a connection; with no way given, in neither direction."""
        for way in ways or BOTH:
            self._open[way].clear()

    def delay(self, seconds: float, *ways: Way) -> None:
        """Hold everything back for a time."""
        for way in ways or BOTH:
            self._delay[way] = seconds

    def duplicate(self, way: Way) -> None:
        """Pass the next chunk on twice."""
        self._twice.add(way)

    def refuse(self) -> None:
        """Take no new connections; those that are there stay."""
        if self._server:
            self._server.close()
            self._server = None

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task
        ends = self._links[task] = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(back)
            await self._both_ways(reader, writer, there, back)
        except OSError:
            # The server is not there.
            pass
        except asyncio.CancelledError:
            # Cut. A server's task that ends so would count as a fault.
            pass
        finally:
            del self._links[task]
            for end in ends:
                end.close()

    async def _both_ways(
        self,
        near_in: asyncio.StreamReader,
        near_out: asyncio.StreamWriter,
        far_in: asyncio.StreamReader,
        far_out: asyncio.StreamWriter,
    ) -> None:
        pumps = [
            asyncio.create_task(self._pump(near_in, far_out, "to_server")),
            asyncio.create_task(self._pump(far_in, near_out, "to_client")),
        ]
        try:
            # An end that was reset takes the other along; one that was closed is told on, and may still hear.
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        while True:
            chunk = await reader.read(CHUNK)
            if self._delay[way]:
                await asyncio.sleep(self._delay[way])
            await self._open[way].wait()
            if not chunk:
                writer.write_eof()
                return
            for _ in range(1 + (way in self._twice)):
                writer.write(chunk)
                self.passed[way] += len(chunk)
            self._twice.discard(way)
            await writer.drain()
