"""What the supervisors' pages share: what they need, and who gets in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from idbellen.ports import Role
from idbellen.web.pages import Pages

if TYPE_CHECKING:
    import zoneinfo
    from collections.abc import Awaitable, Callable, Mapping

    from idbellen.calls.supervision import Supervision
    from idbellen.calls.wallboard import Wallboard
    from idbellen.domain.ids import QueueName
    from idbellen.domain.languages import Language
    from idbellen.domain.statistics import Target
    from idbellen.ports import Account, AuditTrail, Clock, History
    from idbellen.web.credentials import Credentials
    from idbellen.web.messages import Titles

    # Gives the login that a request shows, and whose it is, None if nobody's.
    AccountOf = Callable[[web.Request], Awaitable[tuple[str, Account | None]]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SupervisorSite:
    """What the supervisors' pages and the API for wallboards need.

    ``titles`` and ``pause_reasons`` are in the dashboard's language; ``targets`` names all queues; ``percent`` is the
    service level that is aimed at; ``history_days``: how far back there is a history; ``credentials`` are those of
    the API, None if there is none.
    """

    language: Language
    timezone: zoneinfo.ZoneInfo
    titles: Titles
    pause_reasons: Mapping[str, str]
    targets: Mapping[QueueName, Target]
    percent: int
    history_days: int
    wallboard: Wallboard
    supervision: Supervision
    history: History
    audit: AuditTrail
    clock: Clock
    credentials: Credentials | None = field(default=None, repr=False)


class Door:
    """Lets supervisors in, and nobody else."""

    def __init__(self, site: SupervisorSite, account_of: AccountOf) -> None:
        self._language = site.language
        self._account_of = account_of
        self._pages = Pages()

    async def supervisor(self, request: web.Request) -> tuple[str, Account] | None:
        """Give the login and the account behind a request; None if it is not a supervisor's, at this moment."""
        login, account = await self._account_of(request)
        return (login, account) if account is not None and account.role is Role.SUPERVISOR else None

    async def enter(self, request: web.Request) -> Account:
        """Give the supervisor who asks for a page; others are sent to the login, or told why not."""
        _, account = await self._account_of(request)
        if account is None:
            raise web.HTTPSeeOther("/login")
        if account.role is not Role.SUPERVISOR:
            log.warning("supervisors' page refused", agent=account.name)
            text = self._pages.text("supervisor_refused.html", self._language, agent=account.name)
            raise web.HTTPForbidden(text=text, content_type="text/html")
        return account

    def render(self, template: str, *, status: int = 200, **values: object) -> web.Response:
        """Give a page in the dashboard's language."""
        return self._pages.render(template, self._language, status=status, **values)
