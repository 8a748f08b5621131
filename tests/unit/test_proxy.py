"""The proxy that brings faults of networks into other tests does what it says."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.ports import free_ports
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def between() -> AsyncIterator[tuple[Proxy, asyncio.Queue[Streams]]]:
    """Give a proxy before a server, and the server's ends of its connections."""
    ends: asyncio.Queue[Streams] = asyncio.Queue()
    port = free_ports()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.put_nowait((reader, writer))

    server = await asyncio.start_server(take, "127.0.0.1", port)
    try:
        async with Proxy(port) as proxy:
            yield proxy, ends
    finally:
        server.close()
        while not ends.empty():
            ends.get_nowait()[1].close()


async def linked(proxy: Proxy, ends: asyncio.Queue[Streams]) -> tuple[Streams, Streams]:
    client = await asyncio.open_connection("127.0.0.1", proxy.port)
    return client, await ends.get()


async def passes(sender: asyncio.StreamWriter, receiver: asyncio.StreamReader, text: bytes) -> None:
    sender.write(text)
    async with asyncio.timeout(5):
        assert await receiver.readexactly(len(text)) == text


async def nothing_comes(receiver: asyncio.StreamReader) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await receiver.read(1)


async def test_both_ways_and_the_end_of_each() -> None:
    async with between() as (proxy, ends):
        (near_in, near_out), (far_in, far_out) = await linked(proxy, ends)
        await passes(near_out, far_in, b"to server")
        await passes(far_out, near_in, b"to client")
        near_out.write_eof()
        assert await far_in.read() == b""
        await passes(far_out, near_in, b"the other way still open")
        far_out.close()
        assert await near_in.read() == b""
        near_out.close()
        assert (proxy.accepted, proxy.passed["to_server"]) == (1, 9)


async def test_cut_closes_or_resets() -> None:
    async with between() as (proxy, ends):
        (near_in, near_out), (far_in, far_out) = await linked(proxy, ends)
        proxy.cut()
        assert await near_in.read() == b""
        assert await far_in.read() == b""
        near_out.close()
        far_out.close()
        (near_in, near_out), (far_in, far_out) = await linked(proxy, ends)
        proxy.cut(reset=True)
        for reader, writer in ((near_in, near_out), (far_in, far_out)):
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()


async def test_silence_holds_back_what_is_sent_and_the_end() -> None:
    async with between() as (proxy, ends):
        (near_in, near_out), (far_in, far_out) = await linked(proxy, ends)
        proxy.silence("to_client")
        await passes(near_out, far_in, b"still passes")
        far_out.write(b"late")
        far_out.write_eof()
        await nothing_comes(near_in)
        await proxy.pass_on()
        assert await near_in.read() == b"late"
        proxy.silence()
        near_out.write(b"late too")
        await nothing_comes(far_in)
        await proxy.pass_on()
        assert await far_in.readexactly(8) == b"late too"
        near_out.close()
        far_out.close()


async def test_delay_and_duplicate() -> None:
    async with between() as (proxy, ends):
        (near_in, near_out), (far_in, far_out) = await linked(proxy, ends)
        proxy.delay(0.3, "to_server")
        began = asyncio.get_running_loop().time()
        await passes(near_out, far_in, b"slow")
        assert asyncio.get_running_loop().time() - began >= 0.3
        await passes(far_out, near_in, b"fast")
        await proxy.pass_on()
        proxy.duplicate("to_client")
        far_out.write(b"twice")
        assert await near_in.readexactly(10) == b"twicetwice"
        await passes(far_out, near_in, b"once")
        near_out.close()
        far_out.close()


async def test_refuse_and_a_server_that_is_not_there() -> None:
    async with between() as (proxy, ends):
        (near_in, near_out), (_, far_out) = await linked(proxy, ends)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await passes(far_out, near_in, b"who is in stays in")
        await proxy.pass_on()
        (_, again), (_, far_again) = await linked(proxy, ends)
        for writer in (near_out, far_out, again, far_again):
            writer.close()
    async with Proxy(free_ports()) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await reader.read() == b""
        writer.close()
