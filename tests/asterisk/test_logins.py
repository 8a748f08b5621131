"""Logging in against those who guess: what attackers cannot do to agents, on the real service and in its parts."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from structlog.testing import capture_logs

from idbellen.web.login import passwords
from idbellen.web.login.passwords import hash_password
from tests.support.desk_stage import FakeDesk, dashboard
from tests.support.installation import PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from idbellen.domain.languages import Language
    from tests.support.dashboards import Dashboard
    from tests.support.installation import Installation
    from tests.support.sipp import Phones

# The promise: what agents do with the citizen on the line is not held up.
ATTRIBUTES_SECONDS = 0.1
CONNECTING_SECONDS = 1.0
# A process of its own, so that what it costs is not taken for the service's. Each line in: the address it comes from,
# the name and the password. All are sent at once; out: the statuses, in order.
ATTACKER = """
import asyncio, json, sys
from urllib.parse import urlencode

async def post(port, address, name, password):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    form = urlencode({"name": name, "password": password})
    lines = ["POST /login HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Origin: http://127.0.0.1:{port}", "Connection: close",
             f"X-Forwarded-For: {address}", "Content-Type: application/x-www-form-urlencoded",
             f"Content-Length: {len(form)}", "", form]
    writer.write("\\r\\n".join(lines).encode())
    status = (await reader.readline()).split()[1]
    await reader.read()
    writer.close()
    return int(status)

async def main():
    port, tries = json.load(sys.stdin)
    print(json.dumps(await asyncio.gather(*(post(port, *one) for one in tries))))

asyncio.run(main())
"""


@pytest.fixture
async def installation(install: Callable[..., Awaitable[Installation]]) -> Installation:
    """Give an idbellen whose passwords are as much work as they are outside of tests."""
    return await install(password_hash=hash_password(PASSWORD))


async def tried(installation: Installation, tries: Sequence[tuple[str, str, str]]) -> list[int]:
    """Post logins at once, each from an address, with a name and a password; gives the statuses."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ATTACKER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate(json.dumps([installation.ports["dashboard"], tries]).encode())
    assert process.returncode == 0
    statuses: list[int] = json.loads(output)
    return statuses


async def waits(installation: Installation, dashboard: Dashboard, secret: str, network: str) -> list[float]:
    """Let 200 try to log in from a network; gives how long attributes took meanwhile, in order."""
    attack = asyncio.create_task(tried(installation, [(f"{network}.{n}", "agent2", "wrong") for n in range(200)]))
    took = []
    while not attack.done():
        began = time.monotonic()
        assert (await dashboard.attributes(secret))[0] == 200
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.01)
    assert set(await attack) == {403, 503}
    assert len(took) > 50
    return sorted(took)


async def test_attributes_come_while_many_try_to_log_in(installation: Installation, telephony: Phones) -> None:
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        secret = (await dashboard.until("in_call"))["call"]["secret"]
        # They, this test and others beside it have the same two processors: what is promised is held against the best
        # of three attacks. Seen alone: half in 5 ms, 99 of 100 in 15, the slowest, when the attackers connect, in 50.
        for network in ("192.0.2", "198.51.100", "203.0.113"):
            took = await waits(installation, dashboard, secret, network)
            if took[len(took) * 19 // 20] < ATTRIBUTES_SECONDS:
                break
        assert took[len(took) * 19 // 20] < ATTRIBUTES_SECONDS
        assert took[-1] < CONNECTING_SECONDS
        caller.go_on()
        await caller.ended()


async def test_who_knows_the_password_gets_in_while_others_guess(installation: Installation) -> None:
    # More at once than are evaluated, most of them before and the rest after.
    attack = asyncio.create_task(tried(installation, [(f"192.0.2.{n % 100}", "agent1", "wrong") for n in range(200)]))
    await installation.until_log("login refused", times=2)
    assert await tried(installation, [("198.51.100.1", "agent1", PASSWORD)]) == [303]
    assert not attack.done()
    assert Counter(await attack).keys() <= {403, 429, 503}


async def test_guesses_at_once_are_bounded_and_others_cannot_undo_it(installation: Installation) -> None:
    guesses = [("192.0.2.1", "agent1", f"wrong {n}") for n in range(59)]
    # The right one among them is one more try, and not one more than there are.
    assert Counter(await tried(installation, [*guesses, ("192.0.2.1", "agent1", PASSWORD)])) == {403: 5, 429: 55}
    # New names and new addresses, as many as it takes a moment for.
    flood = [(f"198.51.{n % 100}.{n % 200}", f"name {n}", "wrong") for n in range(400)]
    assert set(await tried(installation, flood)) == {403, 503}
    assert await tried(installation, [("192.0.2.1", "agent1", PASSWORD)]) == [429]
    assert await tried(installation, [("192.0.2.2", "agent1", PASSWORD)]) == [303]
    # For a name that nobody has it is the same.
    assert Counter(await tried(installation, [("192.0.2.9", "nobody", "wrong")] * 60)) == {403: 5, 429: 55}


# The site, with a desk of the test's


@asynccontextmanager
async def browser(url: str, address: str = "192.0.2.1") -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Origin": url, "X-Forwarded-For": address}
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.CookieJar(unsafe=True), headers=headers) as http:
        yield http


async def log_in(http: aiohttp.ClientSession, password: str = PASSWORD, *, name: str = "ann") -> int:
    form = {"name": name, "password": password}
    async with http.post("/login", data=form, allow_redirects=False) as answer:
        return answer.status


@pytest.fixture
def only_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the check itself take no time."""
    monkeypatch.setattr(passwords, "password_fits", lambda _, password: password == PASSWORD)


@pytest.mark.usefixtures("only_right")
async def test_a_browser_that_is_known_gets_in_whatever_its_address_has_done() -> None:
    async with dashboard(FakeDesk()) as url, browser(url) as hers, browser(url) as another:
        assert await log_in(hers) == 303
        assert [await log_in(another, "wrong") for _ in range(6)] == [403] * 5 + [429]
        for number in range(100):
            await log_in(another, "wrong", name=f"name {number}")
        assert await log_in(another, name="another") == 429, "the whole address"
        assert await log_in(hers) == 303
        # It is known for her name only.
        assert await log_in(hers, name="another") == 429
        cookies = {cookie.key: cookie for cookie in hers.cookie_jar}
        assert cookies["idbellen_browser"]["httponly"]
        assert "ann" not in cookies["idbellen_browser"].value
        # Who copies it has what everybody has: five tries.
        another.cookie_jar.update_cookies({"idbellen_browser": cookies["idbellen_browser"].value})
        assert [await log_in(another, "wrong") for _ in range(6)] == [403] * 5 + [429]


@pytest.mark.usefixtures("only_right")
@pytest.mark.parametrize("mark", ["made up", "WyJhIl0.x", "\u00e9"])
async def test_a_made_up_mark_makes_no_browser_known(mark: str) -> None:
    async with dashboard(FakeDesk()) as url, browser(url) as http:
        headers = {"Cookie": f"idbellen_browser={mark}"}
        for status in [403] * 5 + [429]:
            form = {"name": "ann", "password": "wrong"}
            async with http.post("/login", data=form, headers=headers) as answer:
                assert answer.status == status


@pytest.mark.usefixtures("only_right")
async def test_what_nobody_can_have_is_no_guess() -> None:
    async with dashboard(FakeDesk()) as url, browser(url) as http:
        for _ in range(20):
            assert await log_in(http, "x" * 257) == 403
            assert await log_in(http, name="x" * 257) == 403
        assert await log_in(http) == 303


@pytest.mark.usefixtures("only_right")
async def test_who_mistypes_reads_how_long_to_wait() -> None:
    async with dashboard(FakeDesk()) as url, browser(url) as http:
        for _ in range(5):
            await log_in(http, "wrong")
        async with http.post("/login", data={"name": "ann", "password": PASSWORD}) as answer:
            assert answer.status == 429
            assert f"Wacht {answer.headers['Retry-After']} seconden" in await answer.text()


@pytest.mark.parametrize(
    ("language", "sentence"),
    [("nl", "Er loggen nu te veel mensen in."), ("en", "Too many people log in at this moment.")],
)
async def test_who_would_wait_too_long_is_told_so_and_has_not_failed(
    monkeypatch: pytest.MonkeyPatch, language: Language, sentence: str
) -> None:
    checking, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def held(_: str, password: str) -> bool:
        loop.call_soon_threadsafe(checking.set)
        return go_on.wait(10) and password == PASSWORD

    monkeypatch.setattr(passwords, "password_fits", held)
    monkeypatch.setattr(passwords, "LONGEST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(passwords, "MOST_THREADS", 1)
    async with dashboard(FakeDesk(), language) as url, browser(url) as http, browser(url, "192.0.2.2") as other:
        first = asyncio.create_task(log_in(other))
        await checking.wait()
        for _ in range(20):
            async with http.post("/login", data={"name": "ann", "password": PASSWORD}) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
                assert sentence in await answer.text()
        go_on.set()
        assert await first == 303
        assert await log_in(http) == 303


@pytest.mark.usefixtures("only_right")
async def test_an_attack_from_many_addresses_is_one_line() -> None:
    async with dashboard(FakeDesk()) as url, AsyncExitStack() as stack:
        with capture_logs() as lines:
            for number in range(40):
                http = await stack.enter_async_context(browser(url, f"192.0.2.{number}"))
                assert await log_in(http, "wrong") == 403
                assert await log_in(http, "wrong", name="nobody") == 403
        [line] = [line for line in lines if "many addresses" in line["event"]]
        assert line == {
            "event": "passwords of an agent are tried from many addresses",
            "log_level": "warning",
            "agent": "ann",
            "failures": 20,
            "addresses": 20,
        }
