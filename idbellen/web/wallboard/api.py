"""The same figures as JSON, for wallboards that exist already; ``docs/openapi-wallboard.yaml`` describes it.

A part of the dashboard's site. It has only figures and states, no action, and no single call.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from aiohttp import web

from idbellen.domain.statistics import by_day, day_bounds, day_of, quarters
from idbellen.web.credentials import Credentials
from idbellen.web.guard import Guard, told
from idbellen.web.messages import board_snapshot, figures_message

if TYPE_CHECKING:
    from idbellen.web.wallboard.site import SupervisorSite


def supervisor_api(site: SupervisorSite) -> web.Application:
    """Build the API; without credentials it answers that there is nothing."""
    app = web.Application()
    if site.credentials is None:
        Guard(Credentials(), lambda _: False, told).protect(app)
        app.router.add_get("/{name:.*}", _nothing, allow_head=False)
        return app
    Guard(site.credentials, content=told, challenge="Bearer").protect(app)
    handlers = _Handlers(site)
    for path, handler in (
        ("/queues", handlers.queues),
        ("/agents", handlers.agents),
        ("/history", handlers.history),
    ):
        app.router.add_get(path, handler, allow_head=False)
    return app


async def _nothing(_: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound(text="there is no API here: [supervisors] api_token_file is not configured")


class _Handlers:
    def __init__(self, site: SupervisorSite) -> None:
        self._site = site

    async def queues(self, _: web.Request) -> web.Response:
        message = self._now()
        return self._answer(total=message["total"], queues=message["queues"])

    async def agents(self, _: web.Request) -> web.Response:
        return self._answer(agents=self._now()["agents"])

    async def history(self, request: web.Request) -> web.Response:
        site = self._site
        today = day_of(site.clock(), site.timezone)
        try:
            day = dt.date.fromisoformat(request.query["day"]) if "day" in request.query else today
        except ValueError:
            raise web.HTTPBadRequest(text="day is not a date such as 2026-01-31") from None
        if not today - dt.timedelta(days=site.history_days) <= day <= today:
            raise web.HTTPBadRequest(text="of that day there is no history")
        records = await site.history.calls(*day_bounds(day, site.timezone))
        return self._answer(
            day=day.isoformat(),
            queues=[
                {"name": queue, "title": site.titles.queue(queue), **figures_message(of)}
                for _, queue, of in by_day(records, site.timezone, site.targets)
            ],
            quarters=[
                {"begin": begin.isoformat(), **figures_message(of)}
                for begin, of in quarters(records, day, site.timezone, site.targets)
                if of.offered or of.sent_away
            ],
        )

    def _now(self) -> dict[str, Any]:
        return board_snapshot(self._site.wallboard.board(), self._site.titles, self._site.clock())

    def _answer(self, **content: Any) -> web.Response:  # noqa: ANN401 - JSON
        at = dt.datetime.fromtimestamp(self._site.clock(), self._site.timezone)
        return web.json_response({"at": at.isoformat(timespec="seconds"), **content})
