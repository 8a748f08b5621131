"""The supervisors' site with the real desk, staff and figures, and a store, a monitor and logins that a test sets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from aiohttp import web

from idbellen.calls.desk import Desk, DeskRules
from idbellen.calls.staff import Staff, StaffRules
from idbellen.calls.statistics import Statistics
from idbellen.calls.supervision import Supervision, SupervisionRules
from idbellen.calls.wallboard import Wallboard
from idbellen.domain.agents import AgentEvent, AgentState, PhoneState
from idbellen.domain.board import CallView
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.domain.queueing import QueueRules, Queues, Ticket
from idbellen.domain.statistics import CallOutcome, CallRecord, Target, day_bounds, day_of
from idbellen.ports import Account, Monitor, Role, StoreError
from idbellen.web.credentials import Credentials, bearer
from idbellen.web.messages import Titles
from idbellen.web.pages import STATIC
from idbellen.web.security import harden
from idbellen.web.wallboard.pages import add_supervisor_routes
from idbellen.web.wallboard.site import SupervisorSite
from tests.support.ports import free_ports

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

    from idbellen.calls.desk import Reservation
    from idbellen.domain.languages import Language
    from idbellen.ports import MonitorMode
    from idbellen.web.wallboard.live import SupervisorLive
    from tests.support.browser import Windows

EMMA = AgentName("emma")
RESIDENTS, TAXES = QueueName("residents"), QueueName("taxes")

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
TOKEN = "a token of the wallboard"
PASSWORD = "a long enough password"
COOKIE = "login"
# What belongs to a citizen or opens their data, and must not be anywhere here.
SECRET = Secret("the secret of a call")
REFERENCE = SessionRef("the reference of a session")
WORDS = ("waterval", "eekhoorn")
BOSS, ANNA = Account(AgentName("boss"), "PJSIP/boss", "", Role.SUPERVISOR), Account(AgentName("anna"), "PJSIP/anna", "")
QUEUES = {RESIDENTS: ("Burgerzaken", "Residents"), TAXES: ("Belastingen", "Taxes")}
PURPOSES = {"report_move": ("Verhuizing doorgeven", "Report a move"), "tax": ("Vraag over belasting", "Tax question")}
REASONS = {"lunch": ("Lunch", "Lunch"), "meeting": ("Overleg", "Meeting")}
TARGETS = {RESIDENTS: Target(), TAXES: Target(within=60.0)}
ALL_MODES: tuple[MonitorMode, ...] = ("listen", "whisper", "barge")


class FakeStore:
    """History and audit trail in memory."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.audited: list[tuple[str, str, str, dict[str, str]]] = []
        self.works = True
        self.fault: Exception = StoreError("store: disk I/O error")

    async def keep_call(self, record: CallRecord) -> None:
        self.records.append(record)

    async def calls(self, since: float, until: float, queue: QueueName | None = None) -> list[CallRecord]:
        if not self.works:
            raise self.fault
        found = [r for r in self.records if since <= r.arrived < until and queue in (None, r.queue)]
        return sorted(found, key=lambda record: record.arrived)

    async def forget_calls(self, before: float) -> int:
        raise NotImplementedError

    async def record(self, actor: str, action: str, subject: str, **detail: str) -> None:
        if not self.works:
            raise OSError("no space left on device")
        self.audited.append((actor, action, subject, detail))


class FakeMonitor(Monitor):
    """Notes what is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, bool]] = []
        self.connects = True
        self.answered = asyncio.Event()
        self.answered.set()

    async def request(self, agent: AgentName, endpoint: str, mode: MonitorMode, *, announce: bool) -> bool:
        self.asked.append((agent, endpoint, mode, announce))
        await self.answered.wait()
        return self.connects


@dataclass
class Stage:
    """A desk and a staff of this process, with the supervisors' site before them; ``logins`` says who is who."""

    url: str
    store: FakeStore
    monitor: FakeMonitor
    desk: Desk
    staff: Staff
    figures: Statistics
    live: SupervisorLive
    logins: dict[str, Account] = field(default_factory=lambda: {"boss": BOSS, "anna": ANNA})
    scope: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def agent(self, name: str, *queues: str, available: bool = True) -> None:
        """Let an agent be here."""
        served = dict.fromkeys(map(QueueName, queues), 0)
        account = Account(AgentName(name), f"PJSIP/{name}", "", queues=served)
        self.scope.enter_context(self.staff.present(account))
        if available:
            self.staff.set_available(account.name)

    def caller(self, call: str, queue: QueueName = RESIDENTS, *, waited: float = 0.0, verified: bool = True) -> None:
        """Let a caller wait."""
        purpose = "tax" if queue == "taxes" else "report_move"
        self.scope.enter_context(
            self.desk.place(Ticket(CallId(call), REFERENCE, purpose, queue, time.time() - waited, verified))
        )

    def talk(self, agent: str, queue: QueueName = RESIDENTS, *, since: float = 0.0) -> Reservation:
        """Let an agent be in a call."""
        ticket = Ticket(CallId(f"call of {agent}"), REFERENCE, "report_move", queue, time.time())
        reservation = self.desk.reserve(AgentName(agent), ticket)
        assert reservation
        reservation.ringing()
        reservation.connect(CallView(ticket.call, REFERENCE, ticket.purpose, queue, time.time() - since, SECRET, WORDS))
        return reservation

    def history(self, day: dt.date, *, queue: QueueName = RESIDENTS, calls: int = 30, apart: float = 915.0) -> None:
        """Let a day have had calls, so many seconds apart."""
        start, _ = day_bounds(day, AMSTERDAM)
        for number in range(calls):
            answered = number % 5 < 3
            outcome = CallOutcome.ANSWERED if answered else (CallOutcome.ABANDONED, CallOutcome.FULL)[number % 2]
            self.store.records.append(
                CallRecord(
                    CallId(f"{queue} {day} {number}"), queue, "report_move", number % 4 > 0,
                    start + 9 * 3600 + number * apart, 5.0 + number % 7 * 8, outcome,
                    ANNA.name if answered else None, 120.0 if answered else 0.0,
                )
            )  # fmt: skip

    async def today(self) -> None:
        """Take what the history has of today into today's figures."""
        await self.figures.load()


@asynccontextmanager
async def serve(
    language: Language = "nl",
    *,
    modes: tuple[MonitorMode, ...] = ALL_MODES,
    reasons: bool = True,
    port: int = 0,
    token: str | None = TOKEN,
) -> AsyncIterator[Stage]:
    """Serve a stage for the block."""
    port = port or free_ports()
    url = f"http://127.0.0.1:{port}"
    store, monitor = FakeStore(), FakeMonitor()
    staff = Staff(time.time, StaffRules(grace=0.05))
    figures = Statistics(store, time.time, AMSTERDAM)
    rules = {name: QueueRules(answered_within=target.within) for name, target in TARGETS.items()}
    desk = Desk(time.time, staff, DeskRules(Queues(rules)), figures)
    site = supervisor_site(language, desk, figures, store, monitor, modes=modes, reasons=reasons, token=token)

    async def account_of(request: web.Request) -> tuple[str, Account | None]:
        login = request.cookies.get(COOKIE, "")
        return login, stage.logins.get(login)

    async def login_page(_: web.Request) -> web.Response:
        # The icon, or else the browser asks for one when the stage may be gone.
        text = '<!doctype html><title>login</title><link rel="icon" href="data:,">'
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    harden(app, url)
    app.router.add_static("/static/", STATIC)
    app.router.add_get("/login", login_page)
    live = add_supervisor_routes(app, site, account_of)
    stage = Stage(url, store, monitor, desk, staff, figures, live)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    with stage.scope:
        try:
            yield stage
        finally:
            await runner.cleanup()


def supervisor_site(  # noqa: PLR0913 - each is a part of the site
    language: Language,
    desk: Desk,
    figures: Statistics,
    store: Any,
    monitor: FakeMonitor,
    *,
    modes: tuple[MonitorMode, ...] = (),
    reasons: bool = True,
    token: str | None = None,
) -> SupervisorSite:
    number = 0 if language == "nl" else 1
    titles = Titles(
        {name: texts[number] for name, texts in PURPOSES.items()},
        {name: texts[number] for name, texts in QUEUES.items()},
    )
    words = {word: texts[number] for word, texts in REASONS.items()} if reasons else {}
    return SupervisorSite(
        language=language,
        timezone=AMSTERDAM,
        titles=titles,
        pause_reasons=words,
        targets=TARGETS,
        percent=80,
        history_days=90,
        wallboard=Wallboard(desk, figures, TARGETS),
        supervision=Supervision(desk, store, SupervisionRules(words, modes), monitor),
        history=store,
        audit=store,
        clock=time.time,
        credentials=Credentials([bearer(token)]) if token else None,
    )


def today() -> dt.date:
    return day_of(time.time(), AMSTERDAM)


async def open_page(windows: Windows, stage: Stage, path: str = "/wallboard", *, login: str = "boss") -> Page:
    page = await windows.open()
    await page.context.add_cookies([{"name": COOKIE, "value": login, "url": stage.url}])
    await page.goto(f"{stage.url}{path}")
    return page


async def busy(stage: Stage) -> None:
    """Let all that can be seen on the wallboard be there at once."""
    stage.history(today(), calls=140, apart=220.0)
    stage.history(today(), queue=TAXES, calls=12)
    await stage.today()
    for name in ("anna", "bert", "carla", "dirk-jan.van-der-berg", "emma", "farid"):
        stage.agent(name, *(("residents",) if name in ("anna", "emma") else ()))
    stage.talk("anna", since=185)
    stage.staff.pause(ANNA.name, "lunch")
    stage.talk("bert", since=30).release()
    stage.staff.pause(AgentName("carla"), "meeting")
    stage.staff.set_phone("PJSIP/farid", PhoneState.UNREGISTERED)
    for _ in range(3):
        stage.staff.happen(EMMA, AgentEvent.OFFER)
        stage.staff.happen(EMMA, AgentEvent.MISS)
    assert stage.staff[EMMA].state is AgentState.NOT_ANSWERING
    stage.caller("a1", waited=134)
    stage.caller("a2", waited=12, verified=False)
    stage.caller("a3", TAXES, waited=45)
    reservation = stage.desk.reserve(AgentName("dirk-jan.van-der-berg"), stage.desk.waiting[0])
    assert reservation
    reservation.ringing()
