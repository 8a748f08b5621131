"""Whatever is sent to any listener gets an answer that is no fault of ours, and comes into no log and no answer."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import aiohttp
import pytest

from idbellen.ports import Role
from tests.support.installation import PASSWORD
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.support.installation import Installation

SENT = b"zevenaar-vlinderslag"
AT_ONCE = 32
SECONDS = 10.0
# What is refused says so at once, and is then read to its end.
BODY_SECONDS = 0.05

PATHS = {
    "citizen": [
        "/", "/start/x", "/live", "/new-code", "/end", "/static/citizen.css", "/static/%2e%2e/x", "/static/x%00", "/x",
    ],
    "dashboard": [
        "/", "/login", "/live", "/attributes", "/reveal", "/wallboard", "/wallboard/live", "/wallboard/chart",
        "/wallboard/history", "/wallboard/history/records.csv", "/wallboard/history/9999-99-99", "/api/v1/queues",
        "/api/v1/history",
    ],
    "idcontact": ["/start_communication", "/auth_result/x", "/auth_result/HANDLE", "/ready"],
    "link_phone": ["/link_phone", "/session_info/x"],
}  # fmt: skip
QUERIES = [
    b"?lang=%ff", b"?result=%ED%A0%80", b"?result=a.b.c.d.e", b"?from=%ff&to=9999-12-31", b"?day=99999-01-01",
    b"?queue=%ed%a0%80", b"?%", b"?%zz=%;&&=", b"\xff\xfe", b"%ff", b"/../..", b"//", b"?" + b"a=1&" * 2000,
]  # fmt: skip
HEADERS = [
    b"Cookie: idbellen_citizen=\xff\xfe; idbellen_agent=\xff\xfe",
    "Cookie: idbellen_citizen=é; idbellen_agent=é".encode(),
    b'Cookie: idbellen_citizen="\\377\\303"; idbellen_agent="\\377\\303"',
    b"Cookie: idbellen_citizen=.eJw.x.y; idbellen_agent=.eJw.x.y",
    b"Cookie: a=" + SENT * 1000,
    b"Cookie: a=" + SENT * 3000,
    b"Authorization: \xff" + SENT,
    b"Authorization: Basic \xff",
    "Authorization: Bearer é€".encode(),
    b"Accept-Language: \xff, --;q=x, nl_NL@" + SENT,
    b"X-Forwarded-For: \xff, 999.1.1.1, ::ffff:1.2.3.4%x",
    b"Host: [" + SENT,
    b"Expect: " + SENT,
    b"If-Modified-Since: " + SENT,
    b"Range: bytes=99999999999999999999-1",
    b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: " + SENT,
    b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + SENT
    + b"\r\nSec-WebSocket-Protocol: " + SENT,
]  # fmt: skip
FORM, JSON, JWT = "application/x-www-form-urlencoded", "application/json", "application/jwt"
CHARSETS = [b"utf-16", b"idna", b"punycode", b"base64", b"undefined", b"unicode_escape", b"\xff", SENT]
BODIES = [
    (FORM, b"name=a&password=b"),
    (FORM, b"name=\xff\xfe&password=" + SENT),
    (FORM, b"name=%ff%fe&password=%ED%A0%80"),
    (FORM, b"name=%00&password"),
    (FORM, b"a=1&" * 1000),
    (JSON, b'{"secret": "\xff"}'),
    (JSON, '{"secret": "é", "name": "é"}'.encode()),
    (JSON, '{"secret": "é"}'.encode()),
    (JSON, b'{"secret": "\\ud800"}'),
    (JSON, b'{"purpose": "\\ud800"}'),
    (JSON, '{"purpose": "report_move", "auth_result": "é.é.é.é.é"}'.encode()),
    (JSON, b'{"purpose": "report_move", "auth_result": "\\ud800"}'),
    (JSON, b'{"purpose": 1e999}'),
    (JSON, b'{"purpose": NaN}'),
    (JSON, b'{"purpose": ' + b"9" * 5000 + b"}"),
    (JSON, b"[" * 9000),
    (JSON, b'{"a":' * 3000),
    (JSON, '{"dtmf": "\\uff11\\uff12", "sessionid": "é\\u0000"}'.encode()),
    (JSON, b'{"dtmf": "1234567890", "sessionid": "\\udfff"}'),
    (JWT, b"\xff" + SENT),
    (JWT, "é.é.é.é.é".encode()),
    (JWT, b"x" * 200_000),
]
FRAMED = [
    (b"Content-Type: multipart/form-data", SENT),
    (b"Content-Type: multipart/form-data; boundary=x", b"--x\r\n\r\n" + SENT + b"\r\n--x--\r\n"),
    (
        b"Content-Type: multipart/form-data; boundary=x",
        b"--x\r\nContent-Disposition: form-data; name=name; filename=" + SENT + b"\r\n\r\nabc\r\n--x--\r\n",
    ),
    (b"Content-Encoding: gzip\r\nContent-Type: application/json", SENT),
    (b"Content-Encoding: br\r\nContent-Type: " + FORM.encode(), SENT),
    (b"Content-Encoding: gzip\r\nContent-Type: application/json", gzip.compress(b"x" * 10_000_000)),
    (b"Transfer-Encoding: chunked\r\nContent-Type: application/json", b"ZZ" + SENT + b"\r\n"),
    (b"Transfer-Encoding: chunked\r\nContent-Type: " + FORM.encode(), b"5\r\nname=\r\nXX" + SENT + b"\r\n\r\n"),
    (b"Content-Length: 100\r\nContent-Length: 200", SENT),
    (b"Content-Length: -1", SENT),
    (b"Content-Length: 99999999999999999999999", SENT),
]
METHODS = [b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"TRACE", b"CONNECT", b"get", b"PRI", b"\xff", SENT]
WHOLE = [
    b"\x16\x03\x01\x02" + SENT,
    SENT + b"\r\n\r\n",
    b"GET http://[" + SENT + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://a:b:c/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET //x@y:bad/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"CONNECT " + SENT + b":99999999 HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nAuthorization: Bearer " + SENT + b"\x00\r\n\r\n",
    b"GET /" + SENT * 5000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + SENT,
]
MESSAGES: list[bytes | str] = [
    b"\x00\xff", "", "null", "[]", "NaN", "\\ud800", '{"type": "pause", "reason": "\\ud800"}', "[" * 4000, "x" * 5000,
    '{"type": "available", "id": ' + "9" * 4000 + "}", '{"type": "command", "call": "é", "verb": "hold"}',
    '{"type": "shown", "call": "\\u0000é"}', '{"type": "pause", "id": 1e999, "agent": "", "reason": ""}',
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """A listener, and what lets a request in there."""

    port: int
    paths: list[str]
    own: bytes

    def request(self, method: bytes, path: bytes, *headers: bytes, body: bytes = b"") -> bytes:
        """Write a request as it is, right or wrong."""
        origin = f"Host: x\r\nConnection: close\r\nOrigin: http://127.0.0.1:{self.port}".encode()
        sized = [b"Content-Length: %d" % len(body)] if body and not any(b"-Length" in h for h in headers) else []
        if any(b"Transfer-Encoding" in header for header in headers):
            sized = []
        return b"\r\n".join([method + b" " + path + b" HTTP/1.1", origin, *headers, *sized, b"", body])

    def requests(self) -> Iterator[bytes]:
        """Give all of them, with credentials and, where it is about these, without."""
        for path in (path.encode() for path in self.paths):
            for query in QUERIES:
                yield self.request(b"GET", path + query, self.own)
            for header, method in product(HEADERS, (b"GET", b"POST")):
                yield self.request(method, path, header)
                if not header.startswith((b"Authorization", b"Cookie: idbellen")):
                    yield self.request(method, path, self.own, header)
            for kind, body in BODIES:
                yield self.request(b"POST", path, self.own, b"Content-Type: " + kind.encode(), body=body)
            for kind, charset in product((FORM, JSON, JWT), CHARSETS):
                named = b"Content-Type: " + kind.encode() + b"; charset=" + charset
                yield self.request(b"POST", path, self.own, named, body=b"ab=cd")
            for header, body in FRAMED:
                yield self.request(b"POST", path, self.own, header, body=body)
            for method in METHODS:
                yield self.request(method, path, self.own)
        yield from WHOLE


async def answer(port: int, request: bytes) -> bytes:
    """Send something; gives what is answered to it, with the first of its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = b""
    try:
        async with asyncio.timeout(SECONDS):
            with suppress(ConnectionError):
                writer.write(request)
                while b"\r\n\r\n" not in heard and (piece := await reader.read(4000)):
                    heard += piece
                with suppress(TimeoutError):
                    async with asyncio.timeout(BODY_SECONDS):
                        heard += await reader.read(4000)
    finally:
        writer.close()
    return heard


@pytest.fixture
async def targets(install: Callable[..., Awaitable[Installation]], tmp_path: Path) -> tuple[Installation, list[Target]]:
    (tmp_path / "secret").write_text("geheim é€")
    port = free_ports()
    service = await install(
        more=f"""
[link_phone]
listen = "127.0.0.1:{port}"
bearer_token_file = "{tmp_path}/secret"
[supervisors]
api_token_file = "{tmp_path}/secret"
"""
    )
    await service.add_agents("chief", role=Role.SUPERVISOR)
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{service.internal_url}/start_communication", json={"purpose": "report_move"}) as started:
            session = await started.json()
        async with http.get(session["client_url"], allow_redirects=False) as page:
            citizen = page.cookies["idbellen_citizen"].value
        form, origin = {"name": "chief", "password": PASSWORD}, {"Origin": service.dashboard_url}
        async with http.post(
            f"{service.dashboard_url}/login", data=form, headers=origin, allow_redirects=False
        ) as login:
            agent = login.cookies["idbellen_agent"].value
    bearer = "Authorization: Bearer geheim é€".encode()
    own = {
        "citizen": f"Cookie: idbellen_citizen={citizen}".encode(),
        "dashboard": f"Cookie: idbellen_agent={agent}\r\n".encode() + bearer,
        "idcontact": b"Accept: */*",
        "link_phone": bearer,
    }
    handle = session["attr_url"].rpartition("/")[2]
    ports = service.ports | {"link_phone": port}
    return service, [
        Target(ports[name], [path.replace("HANDLE", handle) for path in paths], own[name])
        for name, paths in PATHS.items()
    ]


async def test_whatever_is_sent_is_refused_and_repeated_nowhere(targets: tuple[Installation, list[Target]]) -> None:
    service, listeners = targets
    room = asyncio.Semaphore(AT_ONCE)
    wrong: list[tuple[bytes, bytes]] = []
    seen: set[bytes] = set()

    async def one(port: int, request: bytes) -> None:
        async with room:
            heard = await answer(port, request)
        status = heard[9:12]
        seen.add(status)
        if status.startswith(b"5") or (status.startswith(b"4") and SENT in heard):
            wrong.append((request[:300], heard[:300]))

    async with asyncio.TaskGroup() as group:
        for listener in listeners:
            for request in listener.requests():
                group.create_task(one(listener.port, request))
    assert wrong == []
    # What is well formed was understood all along, credentials that are not ASCII among it.
    assert {b"200", b"303", b"400", b"401", b"403", b"404", b"405", b"413", b"415", b"417", b"431"} <= seen
    log = service.log.read_text()
    assert SENT.decode() not in log
    assert "[error" not in log
    assert log.count("malformed request refused") <= 2 * len(listeners)


async def test_whatever_a_page_sends_over_its_socket_ends_that_socket_at_most(
    targets: tuple[Installation, list[Target]],
) -> None:
    service, listeners = targets
    cookie = listeners[1].own.split(b"\r\n")[0].removeprefix(b"Cookie: ").decode()
    headers = {"Cookie": cookie, "Origin": service.dashboard_url}
    async with aiohttp.ClientSession(headers=headers) as http:
        for path, message in product(("/live", "/wallboard/live"), [*MESSAGES, None]):
            async with http.ws_connect(service.dashboard_url + path) as socket:
                if message is None:
                    # A text that is not UTF-8.
                    await socket._writer.send_frame(b"\xff\xfe", aiohttp.WSMsgType.TEXT)
                elif isinstance(message, bytes):
                    await socket.send_bytes(message)
                else:
                    await socket.send_str(message)
                await socket.send_str(json.dumps({"type": "nothing of ours"}))
                async with asyncio.timeout(SECONDS):
                    while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                        pass
                assert socket.close_code in (1000, 1002, 1007, 1009, 1013), message
    assert "[error" not in service.log.read_text()
