"""The supervisors' pages over HTTP and websocket: who gets in, what they can do, and what is on record of it."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract

from idbellen.calls.desk import Desk, DeskRules
from idbellen.calls.staff import Staff, StaffRules
from idbellen.calls.statistics import Statistics
from idbellen.domain.agents import AgentState
from idbellen.domain.codes import Fingerprints
from idbellen.domain.ids import AgentName, CallId, QueueName
from idbellen.domain.queueing import QueueRules, Queues
from idbellen.domain.statistics import CallOutcome, CallRecord
from idbellen.ports import Role
from idbellen.service.app import _purge_history
from idbellen.service.config import Supervisors
from idbellen.stores.sqlite import open_store
from idbellen.web.addresses import Addresses
from idbellen.web.dashboard.page import DashboardSite, dashboard_app
from idbellen.web.login.form import PasswordForm
from idbellen.web.login.logins import Logins
from idbellen.web.login.passwords import hash_password
from idbellen.web.pages import HERE
from idbellen.web.wallboard import live as supervisor_live
from tests.support.dashboards import closed
from tests.support.ports import free_ports
from tests.support.supervision import (
    AMSTERDAM,
    BOSS,
    COOKIE,
    PASSWORD,
    REFERENCE,
    SECRET,
    WORDS,
    FakeMonitor,
    Stage,
    serve,
    supervisor_site,
    today,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

BERT = AgentName("bert")
RESIDENTS = QueueName("residents")


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with serve("en") as found:
        yield found


def browser(stage: Stage, login: str = "boss") -> aiohttp.ClientSession:
    headers = {"Origin": stage.url, "Cookie": f"{COOKIE}={login}"}
    return aiohttp.ClientSession(stage.url, headers=headers)


class Board:
    """A wallboard, as the page's script drives it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.snapshot: dict[str, Any] = {}
        self._id = 0

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            while (message := await self.socket.receive_json())["type"] != "snapshot":
                pass
        self.snapshot = message
        return self.snapshot

    async def ask(self, kind: str, **wish: Any) -> str | None:
        """Ask for something; gives why not."""
        self._id += 1
        await self.socket.send_json({"type": kind, "id": self._id, **wish})
        async with asyncio.timeout(5):
            while (message := await self.socket.receive_json())["type"] != "answer":
                pass
        assert message["id"] == self._id
        refused: str | None = message["refused"]
        return refused


@asynccontextmanager
async def wallboard(stage: Stage, login: str = "boss") -> AsyncIterator[Board]:
    async with browser(stage, login) as http, http.ws_connect("/wallboard/live") as socket:
        board = Board(socket)
        await board.next()
        yield board


# Who gets in

PAGES = ["/wallboard", "/wallboard/chart", "/wallboard/history", "/wallboard/history/2026-01-31",
         "/wallboard/history/records.csv", "/wallboard/history/days.csv"]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_for_supervisors_only(stage: Stage, path: str) -> None:
    async with browser(stage, "nobody") as http, http.get(path, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/login")
    async with browser(stage, "anna") as http, http.get(path) as answer:
        assert answer.status == 403
        assert "not a supervisor" in await answer.text()
        assert answer.headers["Cache-Control"] == "no-store"
    assert stage.store.audited == []


@pytest.mark.parametrize("login", ["nobody", "anna"])
async def test_the_wallboard_is_for_supervisors_only(stage: Stage, login: str) -> None:
    async with browser(stage, login) as http:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await http.ws_connect("/wallboard/live")


async def test_other_sites_cannot_open_it(stage: Stage) -> None:
    async with browser(stage) as http:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await http.ws_connect("/wallboard/live", headers={"Origin": "https://elsewhere.example"})


async def test_who_is_no_supervisor_any_more_can_do_nothing(stage: Stage) -> None:
    stage.agent("bert")
    async with wallboard(stage) as board:
        stage.logins["boss"] = replace(BOSS, role=Role.AGENT)
        await board.socket.send_json({"type": "pause", "id": 1, "agent": "bert", "reason": ""})
        assert await closed(board.socket) == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert stage.staff[BERT].state is AgentState.AVAILABLE
    assert stage.store.audited == []


async def test_who_is_no_supervisor_any_more_sees_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_live, "CHECK_SECONDS", 0.05)
    async with wallboard(stage) as board:
        stage.logins["boss"] = replace(BOSS, role=Role.AGENT)
        assert await closed(board.socket) == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_logging_out_closes_the_wallboard(stage: Stage) -> None:
    async with wallboard(stage) as board:
        await stage.live.sockets.end_login("another")
        await stage.live.sockets.end_login("boss")
        assert await closed(board.socket) == aiohttp.WSCloseCode.POLICY_VIOLATION


@pytest.mark.parametrize(
    "text",
    [
        "nonsense", "[]", '{"type": "other", "id": 1}', '{"type": "front"}',
        '{"type": "monitor", "id": 1, "agent": "anna", "mode": "record"}',
        '{"type": "front", "id": 1, "call": "x", "more": 1}',
    ],
)  # fmt: skip
async def test_what_is_not_understood_closes_the_socket(stage: Stage, text: str) -> None:
    async with wallboard(stage) as board:
        await board.socket.send_str(text)
        assert await closed(board.socket) == aiohttp.WSCloseCode.INVALID_TEXT


# What is shown


async def test_an_open_wallboard_hears_a_beat(stage: Stage) -> None:
    async with wallboard(stage) as board, asyncio.timeout(5):
        while (await board.socket.receive_json()) != {"type": "beat"}:
            pass


async def test_changes_melt_into_some_snapshots_per_second(stage: Stage) -> None:
    stage.agent("bert")
    async with wallboard(stage) as board:
        for _ in range(50):
            stage.staff.pause(BERT, "")
            await asyncio.sleep(0.01)
            stage.staff.set_available(BERT)
            await asyncio.sleep(0.01)
        stage.staff.pause(BERT, "lunch")
        seen = 0
        while not board.snapshot["agents"] or board.snapshot["agents"][0]["reason"] != "lunch":
            await board.next()
            seen += 1
        assert seen <= 5


async def test_nothing_of_a_citizen_is_told(stage: Stage) -> None:
    stage.agent("bert")
    stage.talk("bert")
    stage.caller("waiting call")
    async with wallboard(stage) as board:
        assert board.snapshot["agents"][0]["call"]["purpose"] == "Report a move"
        text = json.dumps(board.snapshot)
    for private in (SECRET, REFERENCE, *WORDS):
        assert private not in text


# What supervisors do


async def test_an_agents_state_is_set(stage: Stage) -> None:
    stage.agent("bert")
    async with wallboard(stage) as board:
        assert await board.ask("pause", agent="bert", reason="lunch") is None
        assert (stage.staff[BERT].state, stage.staff[BERT].reason) == (AgentState.PAUSED, "lunch")
        assert await board.ask("available", agent="bert") is None
        assert stage.staff[BERT].state is AgentState.AVAILABLE
        assert await board.ask("pause", agent="bert", reason="holiday") == "target"
        assert await board.ask("pause", agent="nobody", reason="") == "gone"
        assert await board.ask("available", agent="nobody") == "gone"
    assert stage.store.audited == [
        ("boss", "agent paused", "bert", {"reason": "lunch"}),
        ("boss", "agent set available", "bert", {}),
    ]


async def test_callers_are_moved(stage: Stage) -> None:
    stage.caller("first", waited=20)
    stage.caller("second", waited=10)
    async with wallboard(stage) as board:
        assert await board.ask("front", call="second") is None
        assert [ticket.call for ticket in stage.desk.waiting] == ["second", "first"]
        assert await board.ask("move", call="first", queue="taxes") is None
        assert {ticket.call: ticket.queue for ticket in stage.desk.waiting}[CallId("first")] == "taxes"
        assert await board.ask("move", call="first", queue="taxes") == "target"
        assert await board.ask("move", call="first", queue="unknown") == "target"
        assert await board.ask("move", call="gone", queue="taxes") == "gone"
        assert await board.ask("front", call="gone") == "gone"
    assert stage.store.audited == [
        ("boss", "caller moved to front", "second", {}),
        ("boss", "caller moved to queue", "first", {"before": "residents", "after": "taxes"}),
    ]


async def test_listening_in(stage: Stage) -> None:
    stage.agent("bert")
    async with wallboard(stage) as board:
        assert await board.ask("monitor", agent="bert", mode="listen") == "later"
        stage.talk("bert")
        assert await board.ask("monitor", agent="bert", mode="whisper") is None
        assert stage.monitor.asked == [("bert", "PJSIP/boss", "whisper", True)]
        stage.monitor.connects = False
        assert await board.ask("monitor", agent="bert", mode="barge") == "phone"
    detail = {"call": "call of bert", "announced": "yes"}
    assert stage.store.audited == [
        ("boss", "agent monitored", "bert", {"mode": "whisper", **detail}),
        ("boss", "agent monitored", "bert", {"mode": "barge", **detail}),
        ("boss", "agent monitored in vain", "bert", {"mode": "barge", **detail}),
    ]


async def test_a_phone_that_rings_holds_nothing_else_up(stage: Stage) -> None:
    stage.agent("bert")
    stage.agent("carla")
    stage.talk("bert")
    stage.monitor.answered.clear()
    async with wallboard(stage) as board:
        await board.socket.send_json({"type": "monitor", "id": 99, "agent": "bert", "mode": "listen"})
        assert await board.ask("pause", agent="carla", reason="") is None
        for number in range(100, 103):
            await board.socket.send_json({"type": "monitor", "id": number, "agent": "bert", "mode": "listen"})
        assert await board.ask("available", agent="carla") == "later", "four hands full"
        stage.monitor.answered.set()
        async with asyncio.timeout(5):
            while (message := await board.socket.receive_json())["type"] != "answer":
                pass
        assert message == {"type": "answer", "id": 99, "refused": None}


async def test_nobody_listens_in_unless_it_is_configured() -> None:
    async with serve("en", modes=("listen",)) as stage:
        stage.agent("bert")
        stage.agent("boss")
        stage.talk("bert")
        stage.talk("boss")
        async with wallboard(stage) as board:
            assert await board.ask("monitor", agent="bert", mode="barge") == "target"
            assert await board.ask("monitor", agent="boss", mode="listen") == "target", "their own call"
        assert stage.monitor.asked == []
        assert stage.store.audited == []


async def test_nothing_is_done_that_is_not_on_record(stage: Stage) -> None:
    stage.agent("bert")
    stage.agent("carla")
    stage.talk("carla")
    stage.staff.pause(BERT, "")
    stage.caller("first", waited=20)
    stage.caller("second", waited=10)
    stage.store.works = False
    async with wallboard(stage) as board:
        assert await board.ask("available", agent="bert") == "unrecorded"
        assert await board.ask("pause", agent="carla", reason="") == "unrecorded"
        assert await board.ask("front", call="second") == "unrecorded"
        assert await board.ask("move", call="second", queue="taxes") == "unrecorded"
        assert await board.ask("monitor", agent="carla", mode="listen") == "unrecorded"
    assert stage.staff[BERT].state is AgentState.PAUSED
    assert stage.staff[AgentName("carla")].afterwards is AgentState.AVAILABLE
    assert [(ticket.call, ticket.queue) for ticket in stage.desk.waiting] == [
        ("first", "residents"), ("second", "residents"),
    ]  # fmt: skip
    assert stage.monitor.asked == []


async def test_what_came_to_nothing_is_on_record_as_such(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.caller("first")
    monkeypatch.setattr(stage.desk, "move_to_front", lambda _: False)
    async with wallboard(stage) as board:
        assert await board.ask("front", call="first") == "gone"
    assert [action for _, action, _, _ in stage.store.audited] == [
        "caller moved to front", "caller moved to front in vain",
    ]  # fmt: skip


async def test_a_fault_is_told_and_the_wallboard_stays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.caller("first")

    def broken(_: str) -> bool:
        raise ValueError

    monkeypatch.setattr(stage.desk, "move_to_front", broken)
    async with wallboard(stage) as board:
        assert await board.ask("front", call="first") == "failed"
        assert await board.ask("front", call="other") == "gone"


# History


async def page(stage: Stage, path: str, *, status: int = 200) -> str:
    async with browser(stage) as http, http.get(path) as answer:
        assert answer.status == status
        return await answer.text()


async def test_history_by_day_and_queue(stage: Stage) -> None:
    yesterday, earlier = today() - dt.timedelta(days=1), today() - dt.timedelta(days=30)
    stage.history(yesterday)
    stage.history(yesterday, queue=QueueName("taxes"), calls=10)
    stage.history(earlier, calls=5)
    text = await page(stage, "/wallboard/history")
    assert f"/wallboard/history/{yesterday}" in text
    assert f"/wallboard/history/{earlier}" not in text, "the last week"
    text = await page(stage, f"/wallboard/history?from={earlier}&to={yesterday}&queue=residents")
    assert f"/wallboard/history/{earlier}" in text
    assert '<td class="text">Taxes</td>' not in text
    day = await page(stage, f"/wallboard/history/{yesterday}")
    assert day.count('<th scope="row">09:00</th>') == 1
    assert "Hung up while waiting" in day
    assert "residents 20" not in day, "no names of calls"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("from=2026-13-01", "not a date"), ("from=nonsense", "not a date"),
        ("from=2000-01-01", "no figures are kept"), ("to=2999-01-01", "no figures are kept"),
    ],
)  # fmt: skip
async def test_a_wrong_period_is_explained(stage: Stage, query: str, says: str) -> None:
    assert says in await page(stage, f"/wallboard/history?{query}", status=400)
    await page(stage, f"/wallboard/history/days.csv?{query}", status=400)


async def test_days_and_queues_that_there_are_not(stage: Stage) -> None:
    yesterday = today() - dt.timedelta(days=1)
    assert "comes after" in await page(stage, f"/wallboard/history?from={today()}&to={yesterday}", status=400)
    for path in ("2000-01-01", "2026-02-30", "2999-01-01", "nonsense", f"{yesterday}?queue=unknown"):
        await page(stage, f"/wallboard/history/{path}", status=404)
    await page(stage, "/wallboard/chart?queue=unknown", status=404)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter=";"))


async def test_files(stage: Stage) -> None:
    yesterday, before = today() - dt.timedelta(days=1), today() - dt.timedelta(days=2)
    stage.history(yesterday)
    stage.history(before, calls=10)
    span = f"from={before}&to={yesterday}"
    records = rows(await page(stage, f"/wallboard/history/records.csv?{span}"))
    assert len(records) == 40
    assert {"arrived", "queue", "waited", "outcome", "agent"} < records[0].keys()
    assert stage.store.audited == [("boss", "records exported", f"{before} {yesterday}", {"queue": ""})]
    days = rows(await page(stage, f"/wallboard/history/days.csv?{span}"))
    assert [(row["day"], row["queue"]) for row in days] == [(str(before), "residents"), (str(yesterday), "residents")]
    assert len(stage.store.audited) == 1
    async with browser(stage) as http, http.get(f"/wallboard/history/days.csv?{span}") as answer:
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert answer.headers["Content-Disposition"].startswith("attachment;")


async def test_records_leave_only_on_record(stage: Stage) -> None:
    stage.store.works = False
    assert "cannot be recorded" in await page(stage, "/wallboard/history/records.csv", status=503)


# As a part of the dashboard's site, with its login and the real store


async def test_logging_out_of_the_dashboard_closes_the_wallboard(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_ports())}"
    async with open_store(tmp_path / "idbellen.db", Fingerprints(b"m" * 32)) as store:
        await store.add_account(replace(BOSS, password_hash=hash_password(PASSWORD)))
        figures = Statistics(store, time.time, AMSTERDAM)
        staff = Staff(time.time, StaffRules())
        desk = Desk(time.time, staff, DeskRules(Queues({RESIDENTS: QueueRules()})), figures)
        dashboard = DashboardSite(
            url=url, language="nl", purposes={}, queues={}, methods={}, pause_reasons={}, masked=frozenset(),
            logins=Logins(store, b"k" * 32, url, 3600, 7200, time.time), way_in=PasswordForm("nl", Addresses()),
            sessions=store, audit=store.audit, staff=staff, desk=desk, clock=time.time,
        )  # fmt: skip
        app = dashboard_app(dashboard, supervisor_site("nl", desk, figures, store, FakeMonitor()))
        jar = aiohttp.CookieJar(unsafe=True)
        async with (
            TestServer(app, port=port),
            aiohttp.ClientSession(url, cookie_jar=jar, headers={"Origin": url}) as http,
        ):
            async with http.get("/wallboard", allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, "/login")
            async with http.post("/login", data={"name": "boss", "password": PASSWORD}, allow_redirects=False):
                pass
            async with http.get("/wallboard") as answer:
                assert answer.status == 200
            async with http.ws_connect("/wallboard/live") as socket:
                board = Board(socket)
                await board.next()
                assert await board.ask("front", call="nobody") == "gone"
                async with http.post("/logout", allow_redirects=False):
                    pass
                assert await closed(board.socket) == aiohttp.WSCloseCode.POLICY_VIOLATION
            async with http.get("/api/v1/queues") as answer:
                assert answer.status == 404


async def test_what_is_old_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = 24 * 3600.0
    own = Supervisors(history_days=30, audit_days=100)
    async with open_store(tmp_path / "idbellen.db", Fingerprints(b"m" * 32), lambda: time.time() - 101 * day) as store:
        await store.audit.record("boss", "agent paused", "anna")
    async with open_store(tmp_path / "idbellen.db", Fingerprints(b"m" * 32)) as store:
        await store.audit.record("boss", "agent set available", "anna")
        for ago in (32, 29):
            arrived = time.time() - ago * day
            await store.keep_call(
                CallRecord(CallId(f"call {ago}"), RESIDENTS, "report_move", True, arrived, 1.0, CallOutcome.ANSWERED)
            )
        figures = Statistics(store, time.time, AMSTERDAM)
        rounds = asyncio.Queue[float]()

        async def pause(seconds: float) -> None:
            rounds.put_nowait(seconds)
            await asyncio.Event().wait()

        monkeypatch.setattr("idbellen.service.app.asyncio.sleep", pause)
        task = asyncio.create_task(_purge_history(store, figures, own))
        assert await rounds.get() == day
        task.cancel()
        assert [record.call for record in await store.calls(0, time.time())] == ["call 29"]
        assert [entry.action for entry in await store.audit.entries(0, time.time() + 1)] == ["agent set available"]
        assert (await store.audit.chain())[1] is None


# Texts


def test_every_text_is_translated() -> None:
    with (HERE / "locales" / "nl.po").open("rb") as file:
        catalogue = read_po(file, locale="nl")
    missing = []
    for template in (HERE / "templates").glob("*.html"):
        if template.name.startswith(("supervisor", "wallboard")):
            with template.open("rb") as source:
                for _, function, message, _ in _texts(source):
                    key = message if isinstance(message, str) else message[0]
                    found = catalogue.get(key)
                    if not found or not all(
                        cast("tuple[str, ...]", found.string) if function == "ngettext" else [found.string]
                    ):
                        missing.append(key)
    assert missing == []


def _texts(source: Any) -> Iterator[tuple[int, str, Any, list[str]]]:
    options = {"newstyle_gettext": "true", "extensions": "jinja2.ext.i18n"}
    yield from babel_extract(source, ["_", "ngettext"], [], options)
