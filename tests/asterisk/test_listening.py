"""How many connections each listener has, and what is left for everything else."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from idbellen.asterisk.ari import CONNECTIONS
from idbellen.demo.pbx import CHECKOUT
from idbellen.service.config import load
from idbellen.service.listening import ROOM, SITE_STOP_SECONDS, WANTED_DESCRIPTORS, Listeners, rooms
from idbellen.service.rules import StartError
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from idbellen.service.config import Settings
    from tests.support.installation import Installation

EVERYTHING = """
[agi]
listen = "127.0.0.1:4573"
[link_phone]
listen = "127.0.0.1:8083"
bearer_token_file = "token"
[asterisk.others.west]
url = "http://10.0.0.21:8088/ari"
password_file = "ari-password-west"
trunk = "to-west"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give a configuration with every listener and two Asterisks."""
    file = tmp_path / "idbellen.toml"
    text = (CHECKOUT / "idbellen.example.toml").read_text().replace("[asterisk]\n", '[asterisk]\ntrunk = "to-main"\n')
    file.write_text(f"{text}\n{EVERYTHING}")
    return load(file)


def given(monkeypatch: pytest.MonkeyPatch, settings: Settings, descriptors: int) -> dict[str, int]:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    return rooms(settings)


def test_with_what_the_unit_gives_every_listener_has_all_of_its_room(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    unit = (CHECKOUT / "systemd/idbellen.service").read_text()
    assert f"LimitNOFILE={WANTED_DESCRIPTORS}\n" in unit
    assert given(monkeypatch, settings, WANTED_DESCRIPTORS) == ROOM
    assert given(monkeypatch, settings, resource.RLIM_INFINITY) == ROOM


@pytest.mark.parametrize("descriptors", [1024, 4096, 20_000])
def test_with_fewer_there_is_enough_left_for_both_asterisks_and_the_store(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, descriptors: int
) -> None:
    room = given(monkeypatch, settings, descriptors)
    assert room.keys() == ROOM.keys()
    assert min(room.values()) > 10
    # A relayed connection and one that gets a file take two.
    assert descriptors - 2 * sum(room.values()) > 2 * (CONNECTIONS + 1) + 256
    assert given(monkeypatch, settings, 100) == dict.fromkeys(ROOM, 1)


def test_a_listener_that_is_not_configured_takes_nothing(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    few = settings.model_copy(update={"agi": None, "link_phone": None})
    assert "agi" not in given(monkeypatch, few, 1024)
    assert given(monkeypatch, few, 1024)["citizen"] > given(monkeypatch, settings, 1024)["citizen"]


def test_as_many_descriptors_are_taken_as_may_be() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))\n"
        "from idbellen.service.listening import raise_descriptors\n"
        "raise_descriptors(); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "(2048, 2048)\n"


async def test_a_planned_stop_waits_for_all_listeners_at_once(installation: Installation) -> None:
    async with AsyncExitStack() as stack:
        for name, path in (("idcontact", "/start_communication"), ("citizen", "/end"), ("dashboard", "/login")):
            _, writer = await asyncio.open_connection("127.0.0.1", installation.ports[name])
            stack.callback(writer.close)
            origin = f"http://127.0.0.1:{installation.ports[name]}"
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nContent-Length: 9\r\n"
                "Content-Type: application/x-www-form-urlencoded\r\n\r\na".encode()
            )
            # It is at work when the service answers another one that came later.
            async with aiohttp.ClientSession() as http, http.get(origin):
                pass
        began = time.monotonic()
        assert await installation.stop() == 0
        assert SITE_STOP_SECONDS <= time.monotonic() - began < 2 * SITE_STOP_SECONDS


async def test_what_is_cancelled_in_a_listener_that_ends_does_not_hide_why_it_ends(settings: Settings) -> None:
    async def cancelled(_: web.Application) -> None:
        raise asyncio.CancelledError

    port = free_ports()
    own = settings.model_copy(update={"citizen": settings.citizen.model_copy(update={"listen": f"127.0.0.1:{port}"})})
    app = web.Application()
    app.on_shutdown.append(cancelled)

    async def serve() -> None:
        async with Listeners(own) as listeners:
            await listeners.listen(app, "citizen")
            raise StartError("another process serves")

    with pytest.raises(StartError, match="another process serves"):
        await serve()


async def test_addresses_are_free_afterwards_also_for_who_is_cancelled_twice(settings: Settings) -> None:
    port = free_ports()
    own = settings.model_copy(update={"citizen": settings.citizen.model_copy(update={"listen": f"127.0.0.1:{port}"})})

    async def serve() -> None:
        async with Listeners(own) as listeners:
            await listeners.listen(web.Application(), "citizen")
            serving = asyncio.current_task()
            assert serving
            serving.cancel()
            try:
                await asyncio.sleep(0)
            finally:
                serving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(serve())
    with closing(socket.socket()) as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
        again.listen()
