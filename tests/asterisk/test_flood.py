"""A flood of half requests and event streams, while a call goes from code to screen with few descriptors."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.installation import Installation
from tests.support.rtp import typed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from idbellen.demo.pbx import Pbx
    from tests.support.sipp import Phones

# As a shell gives them; the unit has many more.
DESCRIPTORS = 1024
HALF_REQUESTS = 1000
STREAMS = 1000
CITIZENS = 50
STRANGERS = 8
LATEST_ANSWER_SECONDS = 2.0
LONGEST_SECONDS = 60.0
MOST_LOGGED_BYTES = 10_000


@pytest.fixture
async def confined(
    pbx: Pbx, keys_folder: Path, tmp_path: Path, all_installations: list[Installation]
) -> AsyncIterator[Installation]:
    """Give a service with few descriptors, before which a web server stands on 127.0.0.1 and on no other address."""
    service = Installation(tmp_path / "idbellen", pbx)
    service.limits = (f"--nofile={DESCRIPTORS}",)
    service.write(keys_folder, more='[proxies]\ntrusted = ["127.0.0.1/32"]')
    await service.add_agents("agent1")
    all_installations.append(service)
    await service.start()
    yield service
    assert await service.stop() == 0


async def cookie(service: Installation) -> str:
    """Log a citizen in; gives the cookie of the page."""
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{service.internal_url}/start_communication", json={"purpose": "report_move"}) as answer:
            page = (await answer.json())["client_url"]
        async with http.get(page, allow_redirects=False) as answer:
            return answer.cookies["idbellen_citizen"].value


def stream(cookie: str, address: str) -> str:
    """Give what a web server asks on behalf of a citizen's page."""
    head = f"GET /live HTTP/1.1\r\nHost: flood\r\nAccept: text/event-stream\r\nX-Forwarded-For: {address}\r\n"
    return f"{head}Cookie: idbellen_citizen={cookie}\r\n\r\n"


@asynccontextmanager
async def flood(service: Installation) -> AsyncIterator[None]:
    """Hold half requests at all listeners from several addresses, and streams of some citizens behind a web server."""
    cookies = [await cookie(service) for _ in range(CITIZENS)]
    ports = list(service.ports.values())
    halves = [
        "GET / HTTP/1.1\r\nHost: flood\r\nAuthorization: Bearer flood",
        "POST /login HTTP/1.1\r\nHost: flood\r\nContent-Length: 100\r\n\r\nname=flood",
        "",
    ]
    wanted = [
        (ports[number % 3], f"127.0.0.{2 + number % STRANGERS}", halves[number // 3 % 3])
        for number in range(HALF_REQUESTS)
    ] + [
        (service.ports["citizen"], "127.0.0.1", stream(cookies[number % CITIZENS], f"192.0.2.{number % 200}"))
        for number in range(STREAMS)
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.flood", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps(wanted).encode() + b"\n")
        assert await process.stdout.readline() == b"begun\n"
        yield
        assert process.returncode is None, "the flood went on to the end"
    finally:
        process.stdin.close()
        await process.wait()


def descriptors(service: Installation) -> int:
    assert service.process
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


async def test_a_call_goes_from_code_to_screen_through_a_flood(confined: Installation, telephony: Phones) -> None:
    answers = []
    await telephony.agent("agent1")

    async def watch() -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                began = time.monotonic()
                async with http.get(f"{confined.internal_url}/ready") as answer:
                    assert answer.status == 200
                answers.append(time.monotonic() - began)
                assert descriptors(confined) < DESCRIPTORS
                await asyncio.sleep(0.1)

    async with asyncio.timeout(LONGEST_SECONDS), flood(confined):
        before = len(confined.log.read_text())
        watching = asyncio.create_task(watch())
        async with confined.dashboard("agent1") as dashboard:
            await dashboard.available()
            for _ in range(2):
                began = time.monotonic()
                code = await confined.log_in_citizen()
                assert time.monotonic() - began < 4 * LATEST_ANSWER_SECONDS, "four requests"
                caller = await telephony.call(typed(code))
                talking = await dashboard.until("in_call")
                began = time.monotonic()
                status, shown = await dashboard.attributes(talking["call"]["secret"])
                assert (status, shown["status"]) == (200, "verified")
                assert time.monotonic() - began < LATEST_ANSWER_SECONDS
                caller.go_on()
                await caller.ended()
                await dashboard.until("available")
        assert not watching.done(), watching.exception()
        watching.cancel()
    log = confined.log.read_text()
    assert len(log) - before < MOST_LOGGED_BYTES, log[before:]
    for fault in ("Traceback", "flood", "[error", "Asterisk cannot be reached"):
        assert fault not in log, log
    assert "no room for more connections" in log
    assert max(answers) < LATEST_ANSWER_SECONDS
