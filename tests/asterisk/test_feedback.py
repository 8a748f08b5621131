"""Session feedback: what auth plugins hear of their sessions, and that no call suffers from it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.domain.ids import SessionRef
from idbellen.ports import Session
from idbellen.web.machines.session_feedback import FeedbackRules, HttpFeedback
from tests.asterisk.test_contract import ALLOWED, at_the_desk, code_on, deliver, opened, seen, started, with_the_start
from tests.support.fakes import FakeSessions
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.installation import Installation

    Install = Callable[..., Awaitable[Installation]]

SESSION_0 = SessionRef("session 0")


@dataclass
class Plugin:
    """An auth plugin that hears how its sessions are doing. The path of a session says how it answers."""

    host: str = ""
    told: list[str] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    async def hear(self, request: web.Request) -> web.Response:
        assert not await request.read()
        self.told.append(request.raw_path)
        match request.path:
            case "/silent":
                await self.answering.wait()
            case "/broken":
                return web.Response(status=500)
            case "/moved":
                return web.Response(status=307, headers={"Location": f"http://{self.host}/session"})
        return web.Response()

    async def until(self, *told: str, seconds: float = 10.0) -> None:
        """Wait until it was told each of these."""
        async with asyncio.timeout(seconds):
            while not {*told} <= {*self.told}:
                await asyncio.sleep(0.01)

    def url(self, path: str = "/session") -> str:
        return f"http://{self.host}{path}"

    def table(self, **values: str) -> str:
        """Give the configuration that lets it be told."""
        lines = {"allowed_hosts": f'["{self.host}"]'} | values
        return "\n".join(["[feedback]", *(f"{name} = {value}" for name, value in lines.items())])


@pytest.fixture
async def plugin() -> AsyncIterator[Plugin]:
    made_up = Plugin()
    app = web.Application()
    app.router.add_post("/{session}", made_up.hear)
    async with TestServer(app) as server:
        made_up.host = f"127.0.0.1:{server.port}"
        yield made_up
        made_up.answering.set()


# Through real calls


async def test_the_plugin_is_told_from_the_code_to_the_hangup(install: Install, plugin: Plugin) -> None:
    installation = await install(more=plugin.table(every_minutes="0.005"))
    active, logout = (f"/session?citizen=a%2Fb&type={kind}" for kind in ("user_active", "logout"))
    session_url = plugin.url("/session?citizen=a%2Fb#top")
    _, code = await with_the_start(installation, installation.token(session_url=session_url))
    async with at_the_desk(installation) as (telephony, dashboard, agent):
        assert plugin.told == []
        caller = await telephony.call(code)
        assert await seen(dashboard) == ("verified", ALLOWED)
        # At the accepted code, when they were connected, and during the call.
        await installation.until_log("type=user_active", times=4)
        agent.hang_up()
        await plugin.until(logout)
        assert await caller.ended() == "by asterisk"
        await dashboard.until("available")
    *before, last = plugin.told
    assert {*before} == {active}
    assert last == logout
    assert "citizen=" not in installation.log.read_text(), "addresses are not logged"


async def test_the_plugin_of_a_late_result_is_told_from_then_on(install: Install, plugin: Plugin) -> None:
    installation = await install(purpose__admit_unverified="true", more=plugin.table(every_minutes="0.005"))
    answer = await started(installation)
    code = await code_on(installation, answer["client_url"])
    async with at_the_desk(installation) as (telephony, dashboard, _):
        caller = await telephony.call(code)
        assert await seen(dashboard) == ("pending", {})
        assert plugin.told == []
        await deliver(answer["attr_url"], installation.token(session_url=plugin.url()))
        await plugin.until("/session?type=user_active")
        caller.go_on()
        assert await caller.ended() == "by caller"
        await plugin.until("/session?type=logout")
        await dashboard.until("available")
    assert plugin.told[-1] == "/session?type=logout"


async def test_a_call_does_not_suffer_from_a_plugin_that_does_not_answer(install: Install, plugin: Plugin) -> None:
    installation = await install(more=plugin.table(timeout_seconds="60"))
    _, code = await with_the_start(installation, installation.token(session_url=plugin.url("/silent")))
    async with at_the_desk(installation) as (telephony, dashboard, _):
        caller = await telephony.call(code)
        await plugin.until("/silent?type=user_active")
        assert await seen(dashboard) == ("verified", ALLOWED)
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
    assert plugin.told == ["/silent?type=user_active"], "the others wait for the answer to this one"
    plugin.answering.set()
    await plugin.until("/silent?type=logout")


async def test_a_caller_who_gives_up_in_the_queue_is_not_logged_out(install: Install, plugin: Plugin) -> None:
    installation = await install(more=plugin.table(moments='["code_accepted"]'))
    _, code = await with_the_start(installation, installation.token(session_url=plugin.url()))
    async with at_the_desk(installation) as (telephony, dashboard, _):
        await dashboard.pause()
        await dashboard.until("paused")
        caller = await telephony.call(code)
        await plugin.until("/session?type=user_active")
        caller.go_on()
        await caller.ended()
        await installation.until_log("call over")
    assert await installation.stop() == 0
    assert plugin.told == ["/session?type=user_active"]


# Without a call


async def test_a_citizen_who_stops_on_the_page_is_logged_out(install: Install, plugin: Plugin) -> None:
    installation = await install(more=plugin.table())
    answer = await started(installation, auth_result=installation.token(session_url=plugin.url()))
    async with opened(installation, answer["client_url"]) as page:
        await page.end()
    await plugin.until("/session?type=logout")
    assert plugin.told == ["/session?type=logout"]


async def test_a_host_that_is_not_allowed_is_never_told(install: Install, plugin: Plugin) -> None:
    installation = await install(more=plugin.table(allowed_hosts='["127.0.0.1", "auth.example"]'))
    answer = await started(installation, auth_result=installation.token(session_url=plugin.url()))
    async with opened(installation, answer["client_url"]) as page:
        await page.end()
    await installation.until_log("session feedback not sent: put the host into [feedback] allowed_hosts")
    assert f"host={plugin.host}" in installation.log.read_text()
    assert await installation.stop() == 0
    assert plugin.told == []


async def test_without_any_host_what_is_not_told_is_in_the_log(install: Install, plugin: Plugin) -> None:
    installation = await install()
    answer = await started(installation, auth_result=installation.token(session_url=plugin.url("/session?citizen=a")))
    async with opened(installation, answer["client_url"]) as page:
        await page.end()
    await installation.until_log("session feedback not sent: put the host into [feedback] allowed_hosts")
    assert f"host={plugin.host}" in installation.log.read_text()
    assert "citizen=" not in installation.log.read_text(), "addresses are not logged"
    assert await installation.stop() == 0
    assert plugin.told == []


# What goes wrong


def sessions(*session_urls: str | None) -> FakeSessions:
    """Give sessions with codes "0", "1" and so on, whose plugins wait at these addresses."""
    made_up = FakeSessions(*(str(number) for number in range(len(session_urls))))
    for number, session_url in enumerate(session_urls):
        made_up.set_result(str(number), AuthResult(AuthStatus.SUCCESS, {}, session_url))
    return made_up


def feedback(plugin: Plugin, *session_urls: str | None, seconds: float = 5.0) -> HttpFeedback:
    return HttpFeedback(FeedbackRules({plugin.host}, seconds), sessions(*session_urls))


@pytest.mark.parametrize(
    ("path", "event", "reason"),
    [
        ("/broken", "session feedback refused", {"status": 500}),
        ("/moved", "session feedback refused", {"status": 307}),
        ("/silent", "session feedback failed", {"reason": "TimeoutError"}),
    ],
)
async def test_a_plugin_that_fails_is_logged(plugin: Plugin, path: str, event: str, reason: dict[str, object]) -> None:
    with capture_logs() as logs:
        async with feedback(plugin, plugin.url(path), seconds=0.3) as teller:
            teller.user_active(SESSION_0)
    assert logs == [{"event": event, "log_level": "warning", "session": "session 0", "type": "user_active"} | reason]
    assert plugin.told == [f"{path}?type=user_active"], "once, and nowhere else"


async def test_a_plugin_that_is_away_is_logged(plugin: Plugin) -> None:
    plugin.host = f"127.0.0.1:{free_ports()}"
    with capture_logs() as logs:
        async with feedback(plugin, plugin.url()) as teller:
            teller.user_active(SESSION_0)
    assert [(entry["event"], entry["reason"]) for entry in logs] == [
        ("session feedback failed", "ClientConnectorError")
    ]


async def test_messages_of_a_session_keep_their_order_and_hold_no_other_up(plugin: Plugin) -> None:
    async with feedback(plugin, plugin.url("/silent"), plugin.url("/other")) as teller:
        teller.user_active(SESSION_0)
        teller.logout(Session(SESSION_0, "report_move", AuthResult(AuthStatus.SUCCESS, {}, plugin.url("/last"))))
        teller.user_active(SessionRef("session 1"))
        await plugin.until("/silent?type=user_active", "/other?type=user_active")
        assert not any(path.startswith("/last") for path in plugin.told)
        plugin.answering.set()
    assert plugin.told[-1] == "/last?type=logout", "what is under way when the service stops still arrives"


async def test_of_too_many_messages_the_rest_is_dropped(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idbellen.web.machines.session_feedback.MOST_REQUESTS", 2)
    with capture_logs() as logs:
        async with feedback(plugin, plugin.url("/silent"), plugin.url(), plugin.url("/other")) as teller:
            for number in range(3):
                teller.user_active(SessionRef(f"session {number}"))
            plugin.answering.set()
            assert [(entry["event"], entry["session"]) for entry in logs] == [
                ("session feedback dropped: auth plugins do not answer", "session 2")
            ]
    assert {*plugin.told} == {"/silent?type=user_active", "/session?type=user_active"}


async def test_who_gave_no_address_is_not_told(plugin: Plugin) -> None:
    with capture_logs() as logs:
        async with feedback(plugin, None) as teller:
            teller.user_active(SESSION_0)
            teller.user_active(SessionRef("session that is gone"))
            teller.logout(Session(SESSION_0, "report_move"))
        async with HttpFeedback(FeedbackRules((), 5.0), sessions(None)) as teller:
            teller.user_active(SESSION_0)
    assert plugin.told == []
    assert logs == []


async def test_who_is_not_told_is_in_the_log_once_and_then_counted(plugin: Plugin) -> None:
    with capture_logs() as logs:
        async with HttpFeedback(FeedbackRules((), 5.0), sessions(plugin.url(), plugin.url())) as teller:
            for number in (0, 1, 0):
                teller.user_active(SessionRef(f"session {number}"))
    assert plugin.told == []
    event = "session feedback not sent: put the host into [feedback] allowed_hosts if it is an auth plugin's"
    first, rest = logs
    assert (first["event"], first["host"], first["session"]) == (event, plugin.host, "session 0")
    assert rest == {"event": event, "log_level": "warning", "times": 2}
