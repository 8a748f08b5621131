"""The connections of one listener, over real sockets: how long they last, how many there are, what is said of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from idbellen import telemetry
from idbellen.web import connections
from idbellen.web.addresses import Addresses
from idbellen.web.connections import Front
from idbellen.web.forms import read_text
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGEST_LINE = 10_000
SENT = "what-a-citizen-has-sent"
SHORT = 0.6
# Sooner than what is meant to end after a short time.
SOONER = 0.1
LATER = 1.5
PUBLIC = Addresses((ip_network("127.0.0.1/32"),))


@dataclass(slots=True)
class Client:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, *lines: str, body: str = "") -> str:
        """Send a request; gives what is answered first."""
        self.send(*lines, body=body)
        return await self.heard()

    def send(self, *lines: str, body: str = "") -> None:
        self.writer.write("\r\n".join((*lines, "Host: x", "", body)).encode())

    async def heard(self) -> str:
        async with asyncio.timeout(5):
            return (await self.reader.read(100_000)).decode()

    async def end(self) -> str:
        """Wait until the other side closes; gives what it said before."""
        async with asyncio.timeout(5):
            try:
                return (await self.reader.read()).decode()
            except ConnectionResetError:
                return ""

    async def lasts(self, seconds: float = LATER) -> bool:
        """Whether it lives for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        except ConnectionResetError:
            pass
        return False


@dataclass(slots=True)
class Served:
    """A listener, and what was logged."""

    port: int
    log: list[Any]
    stack: AsyncExitStack

    async def connect(self, source: str = "127.0.0.1") -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
        self.stack.callback(writer.close)
        return Client(reader, writer)

    async def asked(self, *lines: str, body: str = "", source: str = "127.0.0.1") -> str:
        """Send one request over a connection of its own; gives all that is answered."""
        client = await self.connect(source)
        client.send(*lines, body=body)
        return await client.end()

    def told(self) -> list[str]:
        return [entry["event"] for entry in self.log]


class App:
    """Handlers of each kind that there is."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.body = ""

    def made(self) -> web.Application:
        app = web.Application(client_max_size=1000)
        app.add_routes(
            [
                web.get("/", self.plain), web.post("/", self.read), web.get("/work", self.work),
                web.get("/fault", self.fault), web.get("/live", self.live), web.get("/socket", self.socket),
                web.get("/large", self.large),
            ]
        )  # fmt: skip
        return app

    async def plain(self, request: web.Request) -> web.Response:
        return web.Response(text=f"plain {len(request.headers.get('Cookie', ''))}")

    async def read(self, request: web.Request) -> web.Response:
        self.body = await read_text(request)
        return web.Response(text="read")

    async def work(self, _: web.Request) -> web.Response:
        await self.go_on.wait()
        return web.Response(text="worked")

    async def fault(self, request: web.Request) -> web.Response:
        raise KeyError(request.headers["Cookie"])

    async def live(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await self.go_on.wait()
        await response.write(b"data: later\n\n")
        return response

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def large(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 100_000)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADER", "BODY", "IDLE", "ANSWER", "PIECE", "CLOSE", "LINGER"):
        monkeypatch.setattr(connections, f"{name}_SECONDS", SHORT)


@asynccontextmanager
async def served(room: int = 8, addresses: Addresses | None = None, app: App | None = None) -> AsyncIterator[Served]:
    port = free_ports()
    async with AsyncExitStack() as stack:
        log = stack.enter_context(capture_logs())
        front = Front("citizen", room, LARGEST_LINE, addresses)
        await stack.enter_async_context(front.open((app or App()).made(), "127.0.0.1", port, stop=0.1))
        yield Served(port, log, stack)


GET = "GET / HTTP/1.1"
SLOW = "connection ended: its request did not come in time"
MALFORMED = "malformed request refused"
FULL = "no room for more connections"


# Time


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ("", ""),
        ("GET / HT", "408"),
        (f"{GET}\r\nHost: x\r\nCookie: {SENT}", "408"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nhalf", "408"),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "408"),
        (f"{GET}\r\nHost: x\r\n\r\n", "plain 0"),
        (f"{GET}\r\nHost: x\r\n\r\n{GET}\r\nHo", "plain 0"),
        ("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nhalf", "404"),
    ],
)
async def test_what_is_not_whole_in_time_is_ended(sent: str, answer: str) -> None:
    async with served() as service:
        client = await service.connect()
        client.writer.write(sent.encode())
        said = await client.end()
        assert answer in said
        assert SENT not in said
        assert service.told() == ([SLOW] if answer == "408" else [])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("begin", [f"{GET}\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"])
async def test_bytes_that_drip_in_do_not_put_the_end_off(begin: str) -> None:
    async with served() as service:
        client = await service.connect()
        client.writer.write(begin.encode())

        async def drip() -> None:
            while True:
                await asyncio.sleep(SHORT / 10)
                client.writer.write(b"X: y\r\n" if begin.startswith("GET") else b"a")

        dripping = asyncio.create_task(drip())
        assert "408" in await client.end()
        dripping.cancel()


@pytest.mark.usefixtures("quick")
async def test_a_connection_that_goes_on_asking_lives_on() -> None:
    async with served() as service:
        client = await service.connect()
        for _ in range(2 * int(SHORT / SOONER)):
            assert "plain 0" in await client.ask(GET)
            await asyncio.sleep(SOONER)
            assert "read" in await client.ask("POST / HTTP/1.1", "Content-Length: 4", body="body")
        assert service.log == []


@pytest.mark.usefixtures("quick")
async def test_work_and_events_and_sockets_take_as_long_as_they_take() -> None:
    app = App()
    async with served(app=app) as service, aiohttp.ClientSession() as http:
        working, live = await service.connect(), await service.connect()
        working.send("GET /work HTTP/1.1")
        assert "event-stream" in await live.ask("GET /live HTTP/1.1")
        async with http.ws_connect(f"http://127.0.0.1:{service.port}/socket") as socket:
            await asyncio.sleep(LATER)
            app.go_on.set()
            assert "worked" in await working.heard()
            assert "later" in await live.heard()
            # More than the headers of a request may have.
            for _ in range(20):
                await socket.send_str("x" * 4000)
                assert len(await socket.receive_str()) == 4000
        assert service.log == []


@pytest.mark.usefixtures("quick")
async def test_who_does_not_read_is_cut_off() -> None:
    async with served() as service:
        client = await service.connect()
        client.send("GET /large HTTP/1.1")
        async with asyncio.timeout(5):
            while service.told() != ["connection ended: it does not read"]:
                await asyncio.sleep(0.01)
        assert "200 OK" in await client.end()


async def test_who_does_not_read_is_no_longer_connected_at_the_end_of_the_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 60.0)
    front, port = Front("citizen", 8, 1000), free_ports()
    async with front.open(App().made(), "127.0.0.1", port, stop=0.1):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            while not list(front.crowd):
                await asyncio.sleep(0)
        await asyncio.sleep(SOONER)
    # asyncio tells of an end in its next turn.
    await asyncio.sleep(0)
    assert list(front.crowd) == []
    writer.close()


async def test_who_leaves_while_a_form_is_read_is_no_fault() -> None:
    async with served() as service:
        client = await service.connect()
        client.send("POST / HTTP/1.1", "Content-Length: 20", body="half")
        await asyncio.sleep(SOONER)
        client.writer.transport.abort()
        assert "plain 0" in await (await service.connect()).ask(GET)
        assert service.log == []


# Numbers


async def test_half_requests_make_room_and_those_at_work_do_not() -> None:
    app = App()
    async with served(room=4, app=app) as service:
        at_work = [await service.connect() for _ in range(2)]
        for client in at_work:
            client.send("GET /work HTTP/1.1")
        halves = [await service.connect() for _ in range(20)]
        for client in halves:
            client.writer.write(b"GET / HT")
        assert [await client.lasts(SOONER) for client in halves] == [False] * 18 + [True] * 2
        # Whoever has a request finds room.
        for _ in range(5):
            assert "plain 0" in await service.asked(GET, "Connection: close")
        at_work += [await service.connect() for _ in range(2)]
        for client in at_work[2:]:
            client.send("GET /work HTTP/1.1")
        await asyncio.sleep(SOONER)
        assert await service.asked(GET) == "", "nobody waits, so the last one is refused"
        app.go_on.set()
        assert ["worked" in await client.heard() for client in at_work] == [True] * 4
        assert service.told() == [FULL]


async def test_a_connection_that_is_kept_open_is_not_washed_away_by_half_requests() -> None:
    async with served(room=8) as service:
        kept = await service.connect()
        assert "plain 0" in await kept.ask(GET)
        half = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"
        for begun in (b"", b"GET / HT", half.format("/").encode(), half.format("/nowhere").encode()):
            for _ in range(30):
                (await service.connect()).writer.write(begun)
                await asyncio.sleep(0.002)
            assert "plain 0" in await kept.ask(GET)


async def test_a_request_that_is_whole_is_answered_however_many_come_after_it() -> None:
    async with served(room=2) as service:
        asked = await service.connect()
        asked.send(GET)
        crowd = await asyncio.gather(*(service.connect() for _ in range(30)))
        assert "plain 0" in await asked.heard()
        assert len(crowd) == 30


async def test_one_stranger_has_a_part_and_the_web_server_before_us_all() -> None:
    app = App()
    async with served(room=8, addresses=PUBLIC, app=app) as service:
        strangers = []
        for _ in range(3):
            strangers.append(await service.connect("127.0.0.2"))
            strangers[-1].send("GET /work HTTP/1.1")
            await asyncio.sleep(0.02)
        # A quarter.
        assert [await client.lasts(SOONER) for client in strangers] == [True, True, False]
        assert "plain 0" in await service.asked(GET, "Connection: close", source="127.0.0.3")
        behind = [await service.connect() for _ in range(5)]
        for number, client in enumerate(behind):
            client.send("GET /work HTTP/1.1", f"X-Forwarded-For: 192.0.2.{number // 3}")
        # Whom it names has a quarter too.
        refused = await behind[2].heard()
        assert refused.startswith("HTTP/1.1 429")
        assert "Retry-After: 5" in refused
        app.go_on.set()
        assert ["worked" in await client.heard() for client in (*behind[:2], *behind[3:])] == [True] * 4
        assert set(service.told()) == {
            "refused: too much at once from one address; a web server before us is named in [proxies] trusted"
        }


async def test_pages_that_stay_leave_room_for_requests() -> None:
    app = App()
    async with served(room=8, app=app) as service:
        live = [await service.connect() for _ in range(8)]
        answers = [await client.ask("GET /live HTTP/1.1", "Accept: text/event-stream") for client in live]
        assert [answer.split()[1] for answer in answers] == ["200"] * 6 + ["429"] * 2
        assert "plain 0" in await service.asked(GET, "Connection: close")
        app.go_on.set()
        for client in live:
            client.writer.close()
        await asyncio.sleep(SOONER)
        assert "200" in await (await service.connect()).ask("GET /live HTTP/1.1", "Accept: text/event-stream")


async def test_what_half_requests_hold_together_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_HELD", 100_000)
    async with served(room=100) as service:
        clients = [await service.connect() for _ in range(10)]
        for client in clients:
            client.writer.write(f"{GET}\r\nX: {'x' * 30_000}\r\n".encode())
            await asyncio.sleep(0.02)
        assert [await client.lasts(SOONER) for client in clients] == [False] * 7 + [True] * 3
        assert service.told() == [FULL]


# What cannot be read


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"{SENT} / / HTTP/1.1"], "400"),
        ([GET, f"Authorization: Bearer {SENT}\x01"], "400"),
        ([GET, f" {SENT}"], "400"),
        ([f"GET http://[{SENT} HTTP/1.1"], "400"),
        (["POST / HTTP/1.1", f"Content-Length: {SENT}"], "400"),
        (["POST / HTTP/1.1", "Transfer-Encoding: chunked", "", SENT], "400"),
        ([GET, f"Cookie: {SENT * 3000}"], "431"),
        ([f"GET /{SENT * 3000} HTTP/1.1"], "431"),
        ([GET, f"Expect: {SENT}"], "417"),
        (["POST / HTTP/1.1", "Content-Encoding: gzip", f"Content-Length: {len(SENT)}", "", SENT], "400"),
    ],
)
async def test_what_cannot_be_read_is_repeated_neither_in_the_answer_nor_in_the_log(
    lines: list[str], status: str
) -> None:
    async with served() as service:
        for _ in range(50):
            said = await service.asked(*lines)
            assert said.split()[1] == status
            assert SENT not in said
        if service.log:
            assert service.log == [{"event": MALFORMED, "log_level": "warning", "listener": "citizen"}]
        assert "plain 0" in await (await service.connect()).ask(GET), "others are served"


async def test_many_of_them_are_a_line_and_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "QUIET_SECONDS", SHORT)
    async with served() as service:
        for _ in range(50):
            await service.asked(SENT)
        await asyncio.sleep(LATER)
        assert [entry.get("times") for entry in service.log] == [None, 49]


async def test_cookies_of_the_whole_domain_are_no_obstacle() -> None:
    async with served() as service:
        assert "plain 32000" in await (await service.connect()).ask(GET, f"Cookie: {'x' * 32_000}")


@pytest.mark.parametrize("field", ["X-{}: " + "y" * 5000, "X-{}:"])
async def test_headers_without_an_end_are_refused(field: str) -> None:
    async with served() as service:
        client = await service.connect()
        client.writer.write("\r\n".join((GET, *(field.format(number) for number in range(10_000)))).encode())
        await client.end()
        assert service.told() == [MALFORMED]


async def test_requests_without_an_end_behind_one_at_work_are_not_kept() -> None:
    app = App()
    async with served(app=app) as service:
        client = await service.connect()
        client.send("GET /work HTTP/1.1")
        await asyncio.sleep(SOONER)
        client.writer.write(f"{GET}\r\nHost: x\r\n\r\n".encode() * 1000)
        assert "431" in await client.end()
        few = await service.connect()
        few.send("GET /work HTTP/1.1")
        for _ in range(3):
            few.send(GET)
        app.go_on.set()
        said = ""
        while said.count("plain 0") < 3:
            said += await few.heard()


async def test_a_fault_of_ours_is_told_once_with_its_place_and_without_what_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry, "QUIET_SECONDS", SHORT)
    async with served() as service:
        for _ in range(3):
            said = await service.asked("GET /fault HTTP/1.1", f"Cookie: {SENT}")
            assert said.split()[1] == "500"
            assert SENT not in said
        (entry,) = service.log
        assert (entry["event"], entry["log_level"], entry["listener"]) == ("request failed", "error", "citizen")
        assert SENT not in telemetry.trace(entry["exc_info"])
        assert "in fault" in telemetry.trace(entry["exc_info"])


async def test_a_body_that_is_too_large_is_refused_before_it_has_come() -> None:
    async with served() as service:
        client = await service.connect()
        assert "413" in await client.ask("POST / HTTP/1.1", "Content-Length: 500000", body="x" * 50_000)
