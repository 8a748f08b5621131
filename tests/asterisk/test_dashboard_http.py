"""The dashboard over HTTP and websocket: who gets in, and what others cannot do."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import aiohttp
import pytest
from yarl import URL

from idbellen.domain.ids import AgentName
from idbellen.web.sockets import ELSEWHERE, MOST_PAGES
from tests.support.dashboards import closed
from tests.support.desk_stage import FakeDesk, dashboard
from tests.support.installation import PASSWORD, run_cli

if TYPE_CHECKING:
    from tests.support.installation import Installation


def browser(origin: str | None = None) -> aiohttp.ClientSession:
    headers = {"Origin": origin} if origin else {}
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), headers=headers)


async def log_in(http: aiohttp.ClientSession, url: str, name: str = "agent1", password: str = PASSWORD) -> int:
    async with http.post(f"{url}/login", data={"name": name, "password": password}) as answer:
        return answer.status


async def test_nothing_without_a_login(installation: Installation) -> None:
    url = installation.dashboard_url
    async with browser(url) as http:
        async with http.get(f"{url}/", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/login")
        async with http.post(f"{url}/attributes", json={"secret": "x"}) as answer:
            assert answer.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await http.ws_connect(f"{url}/live")
        http.cookie_jar.update_cookies({"idbellen_agent": "made.up"}, URL(url))
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await http.ws_connect(f"{url}/live")


async def test_pages_of_other_sites_are_refused(installation: Installation) -> None:
    url = installation.dashboard_url
    for origin in (None, "null", "https://elsewhere.example"):
        async with browser(origin) as http:
            assert await log_in(http, url) == 403
    async with browser(url) as http:
        assert await log_in(http, url) == 200
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await http.ws_connect(f"{url}/live", headers={"Origin": "https://elsewhere.example"})


async def test_wrong_names_and_passwords_sound_the_same_and_lock_out(installation: Installation) -> None:
    url = installation.dashboard_url
    async with browser(url) as http:
        statuses = [await log_in(http, url, password="wrong") for _ in range(5)]
        assert statuses == [403] * 5
        assert await log_in(http, url) == 429, "the right password waits too"
        assert await log_in(http, url, name="nobody") == 403
        assert await log_in(http, url, name="agent2") == 200, "others do not"
    async with browser(url) as http:
        texts = []
        for name in ("agent3", "nobody"):
            async with http.post(f"{url}/login", data={"name": name, "password": "wrong"}) as answer:
                texts.append((await answer.text()).replace(name, ""))
        assert texts[0] == texts[1]
    assert "nobody" not in installation.log.read_text(), "people type passwords into the wrong field"


async def test_who_leaves_while_a_form_is_read_is_not_in_the_log(installation: Installation) -> None:
    url = installation.dashboard_url
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    form = ["Content-Type: application/x-www-form-urlencoded", "Content-Length: 9", "Expect: 100-continue"]
    lines = ["POST /login HTTP/1.1", "Host: x", f"Origin: {url}", *form, "", ""]
    writer.write("\r\n".join(lines).encode())
    assert b"100" in await reader.readline(), "it waits for the form"
    writer.close()
    await writer.wait_closed()
    async with browser(url) as http:
        # By then it has seen that the first one left.
        assert await log_in(http, url) == 200
    assert "Error handling request" not in installation.log.read_text()


async def test_the_cookie_is_for_the_browser_only(installation: Installation) -> None:
    url = installation.dashboard_url
    async with browser(url) as http:
        await log_in(http, url)
        cookie = next(iter(http.cookie_jar))
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


async def test_states_and_several_tabs(installation: Installation) -> None:
    async with installation.dashboard("agent1") as first, installation.dashboard("agent1") as second:
        await first.available()
        assert (await second.until("available"))["waiting"] == 0
        await second.pause()
        await first.until("paused")
        await first.send("available")
        await second.until("available")


async def test_so_many_pages_of_one_agent_are_told_and_the_first_one_rests() -> None:
    """Whichever login they belong to; one more of another agent changes nothing."""
    async with dashboard(FakeDesk()) as url, AsyncExitStack() as stack:
        sockets = []
        for number in range(MOST_PAGES + 2):
            if number % 8 == 0:
                http = await stack.enter_async_context(browser(url))
                assert await log_in(http, url, "ann", PASSWORD) == 200
            sockets.append(await stack.enter_async_context(http.ws_connect(f"{url}/live")))
            await sockets[-1].receive_json()
        assert [await closed(socket) for socket in sockets[:2]] == [ELSEWHERE] * 2
        for socket in sockets[2:]:
            await socket.send_json({"type": "available"})
            assert (await socket.receive_json())["type"] == "beat"


async def test_logging_out_closes_the_dashboard_and_the_session(installation: Installation) -> None:
    url = installation.dashboard_url
    async with browser(url) as http:
        await log_in(http, url)
        async with http.ws_connect(f"{url}/live") as socket:
            await socket.receive_json()
            async with http.post(f"{url}/logout", allow_redirects=False) as answer:
                assert answer.status == 303
            assert await closed(socket) == aiohttp.WSCloseCode.POLICY_VIOLATION
        async with http.get(f"{url}/", allow_redirects=False) as answer:
            assert answer.status == 303
    await installation.until_log("agent state agent=agent1 state=offline")


@pytest.mark.parametrize("text", ["nonsense", '{"type": "state", "state": "in_call"}', '{"type": "other"}', "[]"])
async def test_what_is_not_understood_closes_the_socket(installation: Installation, text: str) -> None:
    url = installation.dashboard_url
    async with browser(url) as http:
        await log_in(http, url)
        async with http.ws_connect(f"{url}/live") as socket:
            await socket.receive_json()
            await socket.send_str(text)
            assert await closed(socket) == aiohttp.WSCloseCode.INVALID_TEXT


async def test_a_made_up_secret_shows_nothing(installation: Installation) -> None:
    async with installation.dashboard("agent1") as dashboard:
        assert (await dashboard.attributes("made up"))[0] == 403


async def test_a_restart_keeps_the_login(installation: Installation) -> None:
    url = installation.dashboard_url
    async with browser(url) as http:
        await log_in(http, url)
        assert await installation.stop() == 0
        await installation.start()
        async with http.get(f"{url}/", allow_redirects=False) as answer:
            assert answer.status == 200


async def test_an_open_dashboard_hears_a_beat(installation: Installation) -> None:
    url = installation.dashboard_url
    async with browser(url) as http:
        await log_in(http, url)
        async with http.ws_connect(f"{url}/live") as socket, asyncio.timeout(5):
            while (await socket.receive_json()) != {"type": "beat"}:
                pass


async def test_a_removed_agent_cannot_get_in(installation: Installation) -> None:
    url = installation.dashboard_url
    async with browser(url) as http:
        await log_in(http, url)
        code, output = await run_cli("agent", "remove", "agent1", "--config", str(installation.config))
        assert (code, output) == (0, "")
        async with http.get(f"{url}/", allow_redirects=False) as answer:
            assert answer.status == 303


async def test_news_of_others_does_not_put_off_the_beat() -> None:
    desk = FakeDesk()

    async def busy_day() -> None:
        while True:
            # Everybody is told that something changed, but nothing that this agent sees.
            desk.show(desk.view(AgentName("ann")))
            await asyncio.sleep(0.1)

    async with dashboard(desk) as url, browser(url) as http:
        await log_in(http, url, "ann")
        async with http.ws_connect(f"{url}/live") as socket:
            assert (await socket.receive_json())["type"] == "snapshot"
            others = asyncio.create_task(busy_day())
            async with asyncio.timeout(4):
                assert await socket.receive_json() == {"type": "beat"}
            others.cancel()
