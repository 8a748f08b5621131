"""Logging in with a name and a password, on a page of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idbellen.domain.ids import AgentName
from idbellen.web.forms import read_form
from idbellen.web.login.logins import PAGE
from idbellen.web.login.tries import LONGEST_FIELD, Denial, Tries
from idbellen.web.pages import Pages

if TYPE_CHECKING:
    from aiohttp import web

    from idbellen.domain.languages import Language
    from idbellen.web.addresses import Addresses
    from idbellen.web.login.logins import Logins

STATUSES = {"wrong": 403, "locked": 429, "busy": 503}


@dataclass(frozen=True, slots=True)
class PasswordForm:
    """The way in for local accounts. ``addresses``: tells from which address somebody logs in."""

    language: Language
    addresses: Addresses

    def add_to(self, app: web.Application, logins: Logins) -> None:
        """Add its page to the site."""
        handlers = _Handlers(self, logins)
        app.router.add_get(PAGE, handlers.page)
        app.router.add_post(PAGE, handlers.log_in)
        app.on_cleanup.append(handlers.close)


class _Handlers:
    def __init__(self, form: PasswordForm, logins: Logins) -> None:
        self._form = form
        self._logins = logins
        self._tries = Tries(logins.accounts, logins.key, logins.url, logins.clock)
        self._pages = Pages()
        self._pages.load(form.language, "base.html", "login.html")

    async def close(self, _: web.Application) -> None:
        self._tries.close()

    async def page(self, _: web.Request) -> web.Response:
        return self._pages.render("login.html", self._form.language, error="", name="", wait=0)

    async def log_in(self, request: web.Request) -> web.Response:
        await self._tries.come_in()
        fields = await read_form(request)
        name, password = AgentName(fields.get("name", "").strip()), fields.get("password", "")
        found = await self._tries.account(request, self._form.addresses.of(request), name, password)
        if isinstance(found, Denial):
            return self._deny(name, found)
        response = await self._logins.admit(found)
        self._tries.remember(response, found.name)
        return response

    def _deny(self, name: str, denial: Denial) -> web.Response:
        response = self._pages.render(
            "login.html",
            self._form.language,
            status=STATUSES[denial.error],
            error=denial.error,
            name=name[:LONGEST_FIELD],
            wait=denial.wait,
        )
        if denial.wait:
            response.headers["Retry-After"] = str(denial.wait)
        return response
