"""The supervisors' pages: the wallboard, its websocket, the history, and the API for other wallboards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idbellen.domain.agents import phones_of
from idbellen.web.wallboard.api import supervisor_api
from idbellen.web.wallboard.history import History
from idbellen.web.wallboard.live import SupervisorLive
from idbellen.web.wallboard.site import Door

if TYPE_CHECKING:
    from aiohttp import web

    from idbellen.web.wallboard.site import AccountOf, SupervisorSite


def add_supervisor_routes(app: web.Application, site: SupervisorSite, account_of: AccountOf) -> SupervisorLive:
    """Add the pages to the dashboard's site; gives the open wallboards, to close those of a login that ends."""
    door = Door(site, account_of)
    live = SupervisorLive(site, door)
    history = History(site, door)
    board = _Board(site, door)
    get = app.router.add_get
    get("/wallboard", board.page)
    # A websocket is opened by GET alone.
    get("/wallboard/live", live.serve, allow_head=False)
    get("/wallboard/chart", history.chart)
    get("/wallboard/history", history.overview)
    get("/wallboard/history/records.csv", history.records_file)
    get("/wallboard/history/days.csv", history.days_file)
    get(r"/wallboard/history/{day:\d{4}-\d{2}-\d{2}}", history.day)
    app.add_subapp("/api/v1/", supervisor_api(site))

    async def close(_: web.Application) -> None:
        await live.sockets.close()

    app.on_shutdown.append(close)
    return live


class _Board:
    def __init__(self, site: SupervisorSite, door: Door) -> None:
        self._site = site
        self._door = door

    async def page(self, request: web.Request) -> web.Response:
        account = await self._door.enter(request)
        rules = self._site.supervision.rules
        return self._door.render(
            "wallboard.html",
            agent=account.name,
            endpoint=phones_of(account.endpoint)[0],
            queues={name: self._site.titles.queue(name) for name in self._site.targets},
            pause_reasons=self._site.pause_reasons,
            modes=list(rules.modes),
            announce=rules.announce,
            percent=self._site.percent,
        )
