"""The dashboard's site with a desk that shows what a test puts on it, for states that calls do not show on demand."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from aiohttp import web

from idbellen.calls.watch import Watches
from idbellen.domain.agents import Agent, AgentState
from idbellen.domain.board import AgentView
from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.ports import Account, Session
from idbellen.web.addresses import Addresses
from idbellen.web.dashboard.page import DashboardSite, PurposeView, dashboard_app
from idbellen.web.login.form import PasswordForm
from idbellen.web.login.logins import Logins
from tests.support.installation import PASSWORD_HASH
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from idbellen.calls.watch import Watch
    from idbellen.domain.languages import Language
    from idbellen.domain.talk import Command

ANN = AgentName("ann")

SECRET = Secret("a secret of the stage")
PERSONAL = {"fullname": "Sanne Voorbeeld", "bsn": "999990019", "address": "Dorpsstraat 1, 1234 AB Voorbeeld"}
VERIFIED = Session(SessionRef("reference"), "report_move", AuthResult(AuthStatus.SUCCESS, PERSONAL, issuer="demoid"))
REASONS = {"lunch": ("Lunch", "Lunch"), "meeting": ("Overleg", "Meeting")}


class FakeDesk:
    """Desk, staff, accounts, sessions and audit trail in one; ``asked`` notes what dashboards ask for."""

    def __init__(self) -> None:
        self.account_kept = Account(ANN, "PJSIP/ann", PASSWORD_HASH)
        self.session: Session | None = VERIFIED
        self.refuses: str | None = None
        self.audit_works = True
        self.asked: list[Any] = []
        self.audited: list[tuple[str, str, str, dict[str, str]]] = []
        self._view = AgentView(Agent(ANN, "PJSIP/ann", state=AgentState.PAUSED), {})
        self._watches: Watches[AgentName] = Watches()
        self._logins: set[str] = set()

    def show(self, view: AgentView) -> None:
        self._view = view
        self._watches.notify_all()

    # The staff

    @contextmanager
    def present(self, account: Account) -> Iterator[Watch]:
        with self._watches.watch(account.name) as watch:
            yield watch

    def set_available(self, name: AgentName) -> None:
        self.asked.append(("available", name))

    def pause(self, name: AgentName, reason: str) -> None:
        self.asked.append(("pause", name, reason))

    def end_wrap_up(self, name: AgentName) -> None:
        self.asked.append(("end wrap-up", name))

    def extend_wrap_up(self, name: AgentName) -> None:
        self.asked.append(("extend wrap-up", name))

    # The desk

    def view(self, name: AgentName) -> AgentView:
        assert name == "ann"
        return self._view

    def may_see(self, name: AgentName, secret: Secret) -> bool:
        return bool(name == "ann" and self._view.call and self._view.call.secret == secret)

    def shown(self, name: AgentName, call: CallId) -> None:
        self.asked.append(("shown", name, call))

    def command(self, name: AgentName, call: CallId, command: Command) -> str | None:
        self.asked.append((name, call, command))
        return self.refuses

    # The stores

    async def account(self, name: AgentName) -> Account | None:
        return self.account_kept if name == self.account_kept.name else None

    async def log_in(self, login: str, name: AgentName, now: float) -> None:  # noqa: ARG002
        self._logins.add(login)

    async def logged_in(self, login: str, now: float, *, idle: float, absolute: float) -> Account | None:  # noqa: ARG002
        return self.account_kept if login in self._logins else None

    async def log_out(self, login: str) -> None:
        self._logins.discard(login)

    async def by_secret(self, secret: Secret) -> Session | None:
        return self.session if secret == SECRET else None

    async def record(self, actor: str, action: str, subject: str, **detail: str) -> None:
        if not self.audit_works:
            raise OSError("no space left on device")
        self.audited.append((actor, action, subject, detail))


@asynccontextmanager
async def dashboard(stage: FakeDesk, language: Language = "nl") -> AsyncIterator[str]:
    """Serve the site for the block; gives its address."""
    dutch = language == "nl"
    port = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    labels = {"fullname": "Naam", "bsn": "BSN", "address": "Adres"} if dutch else {}
    everything: Any = stage
    site = DashboardSite(
        url=url,
        language=language,
        purposes={
            "report_move": PurposeView(
                "Verhuizing doorgeven" if dutch else "Report a move",
                labels or {"fullname": "Name", "bsn": "BSN", "address": "Address"},
            )
        },
        queues={
            QueueName("residents"): "Burgerzaken" if dutch else "Residents",
            QueueName("taxes"): "Belastingen" if dutch else "Taxes",
        },
        methods={"demoid": "DemoID"},
        pause_reasons={word: texts[0 if dutch else 1] for word, texts in REASONS.items()},
        masked=frozenset({"bsn"}),
        logins=Logins(everything, b"k" * 32, url, 3600, 7200, time.time),
        way_in=PasswordForm(language, Addresses((ip_network("127.0.0.0/8"),))),
        sessions=everything,
        audit=everything,
        staff=everything,
        desk=everything,
        clock=time.time,
    )
    runner = web.AppRunner(dashboard_app(site), shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield url
    finally:
        await runner.cleanup()
