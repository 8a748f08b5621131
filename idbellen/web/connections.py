"""The connections of one listener: how many there may be, how long each may take, and what is said of bad ones.

aiohttp waits for ever for a request that was begun, takes connections until no descriptor is left, and writes what it
cannot parse into the log and into the answer, with cookies and all.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from idbellen.domain.crowd import Crowd
from idbellen.telemetry import Repeated
from idbellen.web.addresses import network_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from idbellen.web.addresses import Addresses

log = structlog.get_logger()

# From the first byte of a request, or the start of the connection, to the end of its headers; and then of its body.
HEADER_SECONDS = 10.0
BODY_SECONDS = 20.0
# Longer than the web servers before us keep theirs (nginx: 60), or they send a request as we close.
IDLE_SECONDS = 75.0
# For the answer to a whole request once there is one, and for a piece of one that goes on.
ANSWER_SECONDS = 60.0
PIECE_SECONDS = 30.0
# To take the last of what we sent.
CLOSE_SECONDS = 5.0
# Of a request that is refused the rest is read for so long, or its sender does not see why.
LINGER_SECONDS = 5.0
# The event loop accepts so many connections at a time, and then counts them; the kernel holds the others.
ACCEPTED_AT_ONCE = 8
WAITING_TO_BE_ACCEPTED = 1024
# So much of whole requests that follow one at work is kept, and of all begun requests together.
LARGEST_AHEAD = 16 * 1024
MOST_HELD = 64 * 1024 * 1024
# Other sites of the municipality's domain send their cookies along.
LARGEST_FIELD = 32 * 1024
# One address of the public gets at most this part of a listener: behind one there can be a carrier, or a town hall.
PART_OF_ONE = 4
# Pages that stay connected leave this part to requests that end.
PART_NOT_LIVE = 4
RETRY_SECONDS = 5

_HEADERS = {"Server": "idbellen", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_UNREADABLE = "Dit verzoek is niet te lezen.\nThis request cannot be read.\n"
_TOO_LARGE = (
    "Uw browser stuurt te veel mee. Verwijder de cookies van deze website en probeer het opnieuw.\n"
    "Your browser sends too much along. Delete the cookies of this website and try again.\n"
)
_TOO_SLOW = "Dit verzoek kwam niet op tijd binnen.\nThis request did not arrive in time.\n"
_TOO_MANY = "Het is nu te druk. Probeer het zo opnieuw.\nToo many requests at once. Try again in a moment.\n"
_FAILED = "Er ging iets mis. Probeer het later opnieuw.\nSomething went wrong. Try again later.\n"


class _Phase(enum.Enum):
    NEW = enum.auto()  # nothing has come yet, or no whole headers
    NEXT = enum.auto()  # the same of a further request
    IDLE = enum.auto()  # between two requests
    BODY = enum.auto()  # the headers are whole, the body is not
    WORK = enum.auto()  # the request is whole; how long it takes is up to us
    ANSWER = enum.auto()  # it is being answered
    CLOSE = enum.auto()


class Front:
    """One listener's connections: counts them, and says what is wrong with them, once a minute of each kind.

    ``addresses`` tells apart who comes, for the public's listener; None: whoever comes is of one house.
    """

    def __init__(self, listener: str, room: int, largest_line: int, addresses: Addresses | None = None) -> None:
        of_one = max(1, room // PART_OF_ONE)
        self.crowd: Crowd[Connection] = Crowd(room, of_one)
        # The cookies, or an auth result in the first line, and the other fields.
        self.largest_head = largest_line + LARGEST_FIELD
        self._addresses = addresses
        self._of_one = of_one
        self._most_live = room - room // PART_NOT_LIVE
        self._live = 0
        self._held = 0
        self._under_way: Counter[str] = Counter()
        self._limits = {
            "max_line_size": largest_line, "max_field_size": LARGEST_FIELD, "lingering_time": LINGER_SECONDS,
            # Never before ours.
            "keepalive_timeout": 2 * IDLE_SECONDS,
        }  # fmt: skip
        self.malformed = Repeated("malformed request refused", listener=listener)
        self.slow = Repeated("connection ended: its request did not come in time", listener=listener)
        self.unread = Repeated("connection ended: it does not read", listener=listener)
        self.full = Repeated("no room for more connections", listener=listener, room=room)
        self.same = Repeated(
            "refused: too much at once from one address; a web server before us is named in [proxies] trusted",
            listener=listener, most=of_one,
        )  # fmt: skip
        self._listener = listener
        self._failed: dict[tuple[str, int], Repeated] = {}

    @asynccontextmanager
    async def open(self, app: web.Application, host: str, port: int, *, stop: float) -> AsyncIterator[None]:
        """Serve an application for the block; requests under way at its end may take ``stop`` seconds more.

        Raises:
            OSError: the address cannot be listened on.

        """
        # No access log: the paths hold handles.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=stop)
        await runner.setup()
        try:
            server = runner.server
            assert server  # noqa: S101 - it was set up
            server.request_handler = self._watched(server.request_handler)
            listener = await asyncio.get_running_loop().create_server(
                partial(Connection, self, server, access_log=None, **self._limits), host, port,
                backlog=ACCEPTED_AT_ONCE,
            )  # fmt: skip
            try:
                for listening in listener.sockets:
                    with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
                        same.listen(WAITING_TO_BE_ACCEPTED)
                yield
            finally:
                listener.close()
        finally:
            try:
                await runner.cleanup()
            finally:
                # Whoever does not read would keep its connection for ever.
                for connection in tuple(self.crowd):
                    connection.end()
            for lines in (self.malformed, self.slow, self.unread, self.full, self.same, *self._failed.values()):
                lines.close()

    def party(self, address: str) -> str:
        """Give as whose a connection from an address counts; empty for a web server before us, as for one house."""
        addresses = self._addresses
        return "" if addresses is None or addresses.trusts(address) else network_of(address)

    def enter(self, connection: Connection, party: str) -> Connection | None:
        """Let a connection in; gives the one that goes for that, if any, which can be the same."""
        too_many = bool(party) and self.crowd.of(party) >= self._of_one
        goes = self.crowd.enter(connection, party)
        if goes is not None:
            (self.same if too_many else self.full)()
        return goes

    def hold(self, number: int) -> None:
        """Note that a connection holds so many bytes more, or less; those that wait longest go if that is too much."""
        self._held += number
        while self._held > MOST_HELD and (goes := self.crowd.first()):
            self.full()
            self.crowd.leave(goes)
            goes.end()

    def failed(self, fault: BaseException | None) -> None:
        """Tell of a fault of ours, once a minute of each place."""
        place = fault.__traceback__ if fault else None
        while place and place.tb_next:
            place = place.tb_next
        key = (type(fault).__name__, place.tb_lineno if place else 0)
        if key not in self._failed:
            self._failed[key] = Repeated("request failed", level="error", listener=self._listener)
        self._failed[key](**({"exc_info": fault} if fault else {}))

    def _watched(
        self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        """Give a handler that keeps account of what is under way, around the application's."""

        async def watch(request: web.BaseRequest) -> web.StreamResponse:
            connection = request.protocol
            assert isinstance(connection, Connection)  # noqa: S101 - all of this listener's are
            assert isinstance(request, web.Request)  # noqa: S101 - made by an application
            connection.taken(request)
            with self._admitted(request) as admitted:
                if not admitted:
                    return _plain(429, _TOO_MANY, {"Retry-After": str(RETRY_SECONDS)})
                try:
                    return await handle(request)
                except web.HTTPExpectationFailed:
                    # aiohttp's own text repeats the header.
                    return _plain(417, _UNREADABLE)
                except web.RequestPayloadError:
                    self.malformed()
                    return _plain(400, _UNREADABLE)
                except ConnectionError:
                    if request.transport is not None:
                        raise
                    # Nobody is there to hear the answer, which is no fault of ours.
                    return web.Response(status=400)

        return watch

    @contextmanager
    def _admitted(self, request: web.Request) -> Iterator[bool]:
        """Count a request, and tell whether there is room for it."""
        live = _stays(request)
        party = self.party(self._addresses.of(request)) if self._addresses else ""
        if live and self._live >= self._most_live:
            self.full()
            yield False
            return
        if party and self._under_way[party] >= self._of_one:
            self.same()
            yield False
            return
        self._under_way[party] += 1
        self._live += live
        try:
            yield True
        finally:
            self._live -= live
            self._under_way[party] -= 1
            if not self._under_way[party]:
                del self._under_way[party]


class Connection(web.RequestHandler):
    """One connection: aiohttp's, with an end."""

    def __init__(self, front: Front, server: web.Server, **limits: Any) -> None:  # noqa: ANN401 - as aiohttp names them
        super().__init__(server, loop=asyncio.get_running_loop(), **limits)
        self._front = front
        self._phase = _Phase.NEW
        self._socket: asyncio.Transport | None = None
        self._request: web.BaseRequest | None = None
        self._is_socket = False
        # Whether a whole request of theirs has been answered.
        self._known = False
        self._bytes = 0
        self._deadline = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._piece: asyncio.TimerHandle | None = None

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of TCP
        self._socket = transport
        peer = transport.get_extra_info("peername")
        party = self._front.party(peer[0] if peer else "")
        goes = self._front.enter(self, party)
        if goes is not None:
            goes.end()
        if goes is not self:
            self._within(HEADER_SECONDS)
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._front.crowd.leave(self)
        for timer in (self._timer, self._piece):
            if timer:
                timer.cancel()
        self._timer = self._piece = None
        self._deadline = float("inf")
        self._hold_nothing()
        super().connection_lost(exc)
        self._socket = self._request = None

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        if self._phase is _Phase.IDLE:
            self._enter(_Phase.NEXT, HEADER_SECONDS)
        parsed = self._request_count
        super().data_received(data)
        if self._request_count > parsed and self._phase in (_Phase.NEW, _Phase.NEXT):
            # It is taken up in a moment, and the first of its body can come before.
            self._enter(_Phase.BODY, BODY_SECONDS)
            self._front.crowd.work(self)
            self._hold_nothing()
        elif self._phase is _Phase.BODY:
            self._look_at_body()
        elif not self._is_socket and self._phase is not _Phase.CLOSE:
            # What aiohttp would keep: headers without an end, or one request after the other while one is at work.
            self._bytes += len(data)
            self._front.hold(len(data))
            if self._bytes > (LARGEST_AHEAD if self._phase is _Phase.WORK else self._front.largest_head):
                self._front.malformed()
                self._say(431, _TOO_LARGE)

    def pause_writing(self) -> None:
        """Note that the other side does not take what we send."""
        super().pause_writing()
        self._piece = asyncio.get_running_loop().call_later(PIECE_SECONDS, self._does_not_read)

    def resume_writing(self) -> None:
        """Note that it does again."""
        super().resume_writing()
        if self._piece:
            self._piece.cancel()
            self._piece = None

    # What aiohttp tells

    def set_parser(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        """Note that this is a websocket now."""
        self._is_socket = True
        super().set_parser(*args, **kwargs)

    def taken(self, request: web.BaseRequest) -> None:
        """Note that a request is at work."""
        self._request = request
        self._hold_nothing()
        self._enter(_Phase.BODY, BODY_SECONDS)
        self._look_at_body()
        if self._phase is _Phase.BODY:
            self._front.crowd.wait(self, stranger=not self._known)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, and wait for the next request after it."""
        whole = request.content.is_eof()
        if not whole:
            # It is refused, or nobody wanted its body; aiohttp reads some more of that, and closes.
            resp.force_close()
        self._enter(_Phase.ANSWER, ANSWER_SECONDS)
        answered = await super().finish_response(request, resp, start_time)
        self._request = None
        self._hold_nothing()
        if whole and answered[0].keep_alive:
            self._known = True
            self._enter(_Phase.IDLE, IDLE_SECONDS)
        else:
            self._enter(_Phase.CLOSE, LINGER_SECONDS + CLOSE_SECONDS)
        self._front.crowd.wait(self, stranger=not self._known)
        return answered

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """Give the answer to what cannot be parsed, or to a request at which we failed; it repeats nothing."""
        if isinstance(exc, HttpProcessingError):
            self._front.malformed()
            too_large = isinstance(exc, LineTooLong)
            return _plain(431 if too_large else 400, _TOO_LARGE if too_large else _UNREADABLE)
        self.log_exception("", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has been begun")
        return _plain(status, _FAILED)

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401, ARG002 - aiohttp's signature
        """Log a fault once a minute, without what was sent."""
        fault = kw.get("exc_info")
        if isinstance(fault, web.RequestPayloadError | HttpProcessingError):
            self._front.malformed()
        elif not isinstance(fault, ConnectionError):
            self._front.failed(fault if isinstance(fault, BaseException) else None)

    # How long it takes

    def end(self) -> None:
        """End the connection at once."""
        self._hold_nothing()
        if self._socket:
            self._socket.abort()

    def _hold_nothing(self) -> None:
        self._front.hold(-self._bytes)
        self._bytes = 0

    def _enter(self, phase: _Phase, seconds: float | None) -> None:
        if self._phase is not _Phase.CLOSE:
            self._phase = phase
            self._within(seconds)

    def _look_at_body(self) -> None:
        if self._request and self._request.content.is_eof():
            self._enter(_Phase.WORK, None)
            self._front.crowd.work(self)

    def _within(self, seconds: float | None) -> None:
        if seconds is None:
            self._deadline = float("inf")
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + seconds
        if self._timer and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if not self._timer:
            self._timer = loop.call_at(self._deadline, self._look_at_time)

    def _look_at_time(self) -> None:
        self._timer = None
        if asyncio.get_running_loop().time() >= self._deadline:
            self._too_late()
        elif self._deadline < float("inf"):
            self._timer = asyncio.get_running_loop().call_at(self._deadline, self._look_at_time)

    def _too_late(self) -> None:
        if self._phase is _Phase.CLOSE:
            self.end()
        elif self._phase is _Phase.ANSWER:
            self._does_not_read()
        elif self._phase is _Phase.IDLE or (self._phase is _Phase.NEW and not self._bytes):
            self._say(0, "")
        else:
            self._front.slow()
            self._say(408, _TOO_SLOW)

    def _does_not_read(self) -> None:
        self._front.unread()
        self.end()

    def _say(self, status: int, text: str) -> None:
        """Close the connection with these last words, if there are any and nothing else was said."""
        if not self._socket or self._socket.is_closing():
            self.end()
            return
        if status and self._request and self._request.writer.output_size:
            self.end()
            return
        self._enter(_Phase.CLOSE, CLOSE_SECONDS)
        if status:
            answer = _plain(status, text)
            head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
            body = text.encode()
            first = (
                f"HTTP/1.1 {status} {answer.reason}\r\n{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self._socket.write(first.encode() + body)
        self._socket.close()


def _stays(request: web.Request) -> bool:
    """Whether a page wants to stay connected, as browsers say it."""
    wants_events = "text/event-stream" in request.headers.get("Accept", "")
    return wants_events or request.headers.get("Upgrade", "").lower() == "websocket"


def _plain(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    answer = web.Response(status=status, text=text, headers=_HEADERS | (headers or {}))
    answer.force_close()
    return answer
