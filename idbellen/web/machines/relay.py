"""The pages of a process that stands by: everything goes on to the one that serves, and its answer comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import WSMsgType, web

from idbellen.web.addresses import FORWARDED
from idbellen.web.sockets import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_SECONDS = 2.0
CLOSE_SECONDS = 0.5
LARGEST_MESSAGE = 1 << 20
# What is about one connection and not about the message (RFC 9110, 7.6.1), and what is made anew.
_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"})
# What we say that a request has come through (RFC 9110, 7.6.3).
_VIA = "1.1 idbellen"
_SOCKET = frozenset({"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"})


def relay_app(target: Callable[[], str | None], http: aiohttp.ClientSession) -> web.Application:
    """Give an application that relays to the address that ``target`` gives; None: nobody serves now."""

    async def relay(request: web.Request) -> web.StreamResponse:
        base = target()
        # A process that was killed and is back before its turn has lapsed would relay to itself, for ever.
        if base is None or _VIA in request.headers.getall("Via", ()):
            return _nobody()
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP]
        headers.append(("Via", _VIA))
        # As every web server does. Unknown, it must not be what whoever asks has written there.
        headers.append((FORWARDED, request.remote or "unknown"))
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await _socket(request, http, base, headers)
            return await _answer(request, http, base, headers)
        except aiohttp.ClientError:
            # It has gone in this very moment; the next to serve is known soon.
            return _nobody()

    app = web.Application(client_max_size=LARGEST_MESSAGE)
    app.router.add_route("*", "/{path:.*}", relay)
    return app


def relay_client() -> aiohttp.ClientSession:
    """Give the client for :func:`relay_app`: patient, and changing nothing."""
    return aiohttp.ClientSession(
        # Every dashboard and every citizen's page holds one.
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=LARGEST_MESSAGE,
        max_field_size=LARGEST_MESSAGE,
    )


def _nobody() -> web.Response:
    return web.Response(status=503, text="idbellen is not available at this moment.\n", headers={"Retry-After": "2"})


async def _answer(
    request: web.Request, http: aiohttp.ClientSession, base: str, headers: list[tuple[str, str]]
) -> web.StreamResponse:
    body = await request.read()
    async with http.request(
        request.method, base + request.raw_path, headers=headers, data=body or None, allow_redirects=False
    ) as answer:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP:
                response.headers.add(name, value)
        await response.prepare(request)
        # Piece by piece: the citizen's page listens to an answer that does not end.
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


async def _socket(
    request: web.Request, http: aiohttp.ClientSession, base: str, headers: list[tuple[str, str]]
) -> web.StreamResponse:
    own = [(name, value) for name, value in headers if name.lower() not in _SOCKET]
    try:
        there = await http.ws_connect(base + request.raw_path, headers=own, max_msg_size=LARGEST_MESSAGE)
    except aiohttp.WSServerHandshakeError as refusal:
        return web.Response(status=refusal.status)
    async with there:
        here = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, timeout=CLOSE_SECONDS)
        await prepare(here, request)
        onward = asyncio.ensure_future(_pass_on(here, there))
        back = asyncio.ensure_future(_pass_on(there, here))
        try:
            await asyncio.wait((onward, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (onward, back):
                task.cancel()
        await here.close(code=there.close_code or aiohttp.WSCloseCode.GOING_AWAY)
        return here


async def _pass_on(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    sink: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is not WSMsgType.TEXT:
            return
        await sink.send_str(message.data)
