"""What a process that stands by relays, with a server of its own; with whole processes it is in test_turns.py."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from idbellen.web.addresses import Addresses
from idbellen.web.machines.relay import relay_app, relay_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# More than a client of aiohttp opens by itself.
MANY = 150
SECONDS = 10.0


async def _echo(request: web.Request) -> web.Response:
    body = await request.text()
    answer = web.Response(status=201, text=f"{request.method} {request.raw_path} {request.headers['Cookie']} {body}")
    answer.headers.add("Set-Cookie", "a=1")
    answer.headers.add("Set-Cookie", "b=2")
    return answer


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(f"heard {message.data}")
    return socket


async def _never(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def _relay(target: Callable[[], str | None]) -> AsyncIterator[str]:
    async with relay_client() as http, TestServer(relay_app(target, http)) as relay:
        yield f"http://{relay.host}:{relay.port}"


@pytest.fixture
async def relay() -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([web.post("/echo", _echo), web.get("/socket", _socket), web.get("/never", _never)])
    async with TestServer(app) as server, _relay(lambda: f"http://{server.host}:{server.port}") as address:
        yield address


async def test_requests_and_answers_come_through_as_they_are(relay: str) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{relay}/echo?q=%20x", data="body", headers={"Cookie": "c=3"}) as answer,
    ):
        assert (answer.status, await answer.text()) == (201, "POST /echo?q=%20x c=3 body")
        assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]


async def test_who_serves_knows_from_which_address_a_request_came() -> None:
    async def address(request: web.Request) -> web.Response:
        return web.json_response([request.headers.getall("X-Forwarded-For"), ours.of(request)])

    ours = Addresses((ip_network("127.0.0.1"),))
    app = web.Application()
    app.router.add_get("/address", address)
    async with TestServer(app) as server, _relay(lambda: f"http://{server.host}:{server.port}") as relay:
        for local, written, found in (
            # A browser that comes to the relay itself may write what it likes; the relay's word is the last.
            ("127.0.0.9", ["192.0.2.1"], "127.0.0.9"),
            # A web server of ours before the relay.
            ("127.0.0.1", ["192.0.2.8", "192.0.2.1"], "192.0.2.1"),
        ):
            connector = aiohttp.TCPConnector(local_addr=(local, 0))
            headers = [("X-Forwarded-For", one) for one in written]
            async with (
                aiohttp.ClientSession(connector=connector, headers=headers) as http,
                http.get(f"{relay}/address") as answer,
            ):
                assert await answer.json() == [[*written, local], found]


async def test_many_sockets_and_pages_at_once_leave_room_for_more(relay: str) -> None:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        async with asyncio.timeout(SECONDS):
            sockets = [await stack.enter_async_context(http.ws_connect(f"{relay}/socket")) for _ in range(MANY)]
            waiting = [asyncio.ensure_future(http.get(f"{relay}/never")) for _ in range(MANY)]
            for number, socket in enumerate(sockets):
                await socket.send_str(str(number))
            assert [await socket.receive_str() for socket in sockets] == [f"heard {n}" for n in range(MANY)]
            async with http.post(f"{relay}/echo", headers={"Cookie": "c=3"}) as answer:
                assert answer.status == 201
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)


async def test_one_that_is_led_to_itself_says_that_nobody_serves() -> None:
    """As whoever was killed and is back before its turn has lapsed; two can be led to each other."""
    last: list[str] = []
    async with _relay(lambda: last[0]) as second, _relay(lambda: second) as first, aiohttp.ClientSession() as http:
        last.append(first)
        async with asyncio.timeout(SECONDS):
            for _ in range(MANY):
                async with http.get(f"{first}/ready") as answer:
                    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await http.ws_connect(f"{first}/live")
            assert refusal.value.status == 503


async def test_where_nobody_serves_it_says_so() -> None:
    async with _relay(lambda: None) as relay, aiohttp.ClientSession() as http, http.get(f"{relay}/ready") as answer:
        assert (answer.status, await answer.text()) == (503, "idbellen is not available at this moment.\n")
