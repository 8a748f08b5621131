"""Who is logged in, in which browser; and what a way to log in has to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog
from aiohttp import web
from itsdangerous import BadSignature, URLSafeSerializer

from idbellen.domain.codes import new_secret
from idbellen.web.security import set_cookie

if TYPE_CHECKING:
    from idbellen.ports import Account, AccountStore, Clock

log = structlog.get_logger()

COOKIE = "idbellen_agent"
PAGE = "/login"


@dataclass(frozen=True, slots=True)
class Logins:
    """The logins of agents: each is a secret in a signed cookie. ``url``: of the site; times in seconds."""

    accounts: AccountStore
    key: bytes = field(repr=False)
    url: str
    idle: float
    absolute: float
    clock: Clock

    async def admit(self, account: Account) -> web.Response:
        """Log somebody in who has proved who they are; gives the way to the dashboard."""
        login = new_secret()
        await self.accounts.log_in(login, account.name, self.clock())
        log.info("logged in", agent=account.name)
        response = web.Response(status=303, headers={"Location": "/"})
        set_cookie(response, COOKIE, self._cookies.dumps(login), url=self.url)
        return response

    async def of(self, request: web.Request) -> tuple[str, Account | None]:
        """Give the login that a request shows, and whose it is, None if nobody's."""
        try:
            login = self._cookies.loads(request.cookies.get(COOKIE, ""))
        except (BadSignature, UnicodeError):
            # Also what is not even text.
            return "", None
        return login, await self.account(login)

    async def account(self, login: str) -> Account | None:
        """Give whose login this is, None if nobody's any more."""
        return await self.accounts.logged_in(login, self.clock(), idle=self.idle, absolute=self.absolute)

    async def end(self, login: str) -> None:
        """End a login."""
        await self.accounts.log_out(login)

    @property
    def _cookies(self) -> URLSafeSerializer:
        return URLSafeSerializer(self.key, salt="agent")


class WayIn(Protocol):
    """A way in which agents prove who they are.

    It has its own pages, of which one is at :data:`PAGE`, and lets those in whose account it has found with
    :meth:`Logins.admit`.
    """

    def add_to(self, app: web.Application, logins: Logins) -> None:
        """Add its pages to the site."""
        ...


def to_login() -> web.Response:
    """Give the way to the page on which agents log in."""
    return web.Response(status=303, headers={"Location": PAGE})


def forget_login(response: web.Response) -> web.Response:
    """Let the browser forget the login."""
    response.del_cookie(COOKIE, path="/")
    return response
