"""Tries to log in with a name and a password, such that nobody can use them against an agent."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog
from itsdangerous import BadData, URLSafeSerializer

from idbellen.domain.codes import new_handle
from idbellen.domain.login_limits import AttackWatch, LoginLimits
from idbellen.ports import StoreError
from idbellen.web.login.passwords import BusyError, PasswordChecks
from idbellen.web.security import set_cookie

if TYPE_CHECKING:
    from aiohttp import web

    from idbellen.domain.ids import AgentName
    from idbellen.ports import Account, AccountStore, Clock

log = structlog.get_logger()

LONGEST_FIELD = 256
BUSY_SECONDS = 5
# By this a browser in which somebody was logged in before is known. It opens nothing.
BROWSER_COOKIE = "idbellen_browser"
BROWSER_SECONDS = 90 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Denial:
    """Why somebody is not logged in; ``wait``: seconds until it is worth another try."""

    error: Literal["wrong", "locked", "busy"]
    wait: int = 0


class Tries:
    """Tells which name and password belong together. ``key``: signs marks of known browsers; ``url``: the site's."""

    def __init__(self, accounts: AccountStore, key: bytes, url: str, clock: Clock) -> None:
        self._accounts = accounts
        self._key = key
        self._url = url
        self._clock = clock
        self._limits = LoginLimits()
        self._attacks = AttackWatch(failures=20, addresses=4, seconds=3600.0)
        self._checks = PasswordChecks()
        self._door = asyncio.Lock()

    def close(self) -> None:
        """Let its threads end."""
        self._checks.close()

    async def come_in(self) -> None:
        """Let one in at a time: of many who come at once, the event loop would serve all before anybody else."""
        async with self._door:
            await asyncio.sleep(0)

    async def account(self, request: web.Request, address: str, name: AgentName, password: str) -> Account | Denial:
        """Give the account that a name and a password open, or why they open none."""
        if max(len(name), len(password)) > LONGEST_FIELD:
            # Nobody has these, so nothing can be learned from it.
            return Denial("wrong")
        browser = self._known(request, name)
        attempt = self._limits.attempt(name, address=address, browser=browser)
        wait = attempt.begin(self._clock())
        if wait:
            return Denial("locked", math.ceil(wait))
        # Whatever happens, such as a browser that leaves: only what is known to be no guess is none.
        end = attempt.failed
        try:
            # Known browsers first, and who sends many tries, or has failed, is in the way of nobody else.
            async with self._checks.turn((not browser, attempt.weight(self._clock()))):
                account = await self._accounts.account(name)
                fits = await self._checks.fits(account.password_hash if account else None, password)
            if account and fits:
                end = attempt.succeeded
                return account
        except BusyError:
            end = attempt.withdrawn
            return Denial("busy", BUSY_SECONDS)
        except StoreError:
            end = attempt.withdrawn
            raise
        finally:
            end(self._clock())
        # A name that nobody has may be a password, typed into the wrong field.
        log.warning("login refused", known=account is not None)
        if account and not browser:
            self._watch(account.name, address)
        return Denial("wrong")

    def _watch(self, agent: AgentName, address: str) -> None:
        attack = self._attacks.failed(agent, address, self._clock())
        if attack:
            log.warning(
                "passwords of an agent are tried from many addresses",
                agent=agent,
                failures=attack.failures,
                addresses=attack.addresses,
            )

    def remember(self, response: web.StreamResponse, name: AgentName) -> None:
        """Let a browser be known from now on for the name that was logged in there."""
        mark = self._marks(name).dumps(new_handle())
        set_cookie(response, BROWSER_COOKIE, mark, url=self._url, max_age=BROWSER_SECONDS)

    def _known(self, request: web.Request, name: AgentName) -> str:
        try:
            return str(self._marks(name).loads(request.cookies.get(BROWSER_COOKIE, "")))
        except (BadData, UnicodeEncodeError):
            return ""

    def _marks(self, name: AgentName) -> URLSafeSerializer:
        # The mark does not tell whose it is.
        return URLSafeSerializer(self._key, salt=f"known browser of {name}")
