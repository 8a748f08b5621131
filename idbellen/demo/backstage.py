"""Behind the scenes of an authentication plugin: what became of the last logins, for whoever gives the demonstration.

Late results are delivered here by hand, and here is seen what the telephone service told about each session.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from aiohttp import web

from idbellen.demo.results import FEEDBACK_TYPES, UndeliveredError
from idbellen.demo.texts import form_field, page

if TYPE_CHECKING:
    from idbellen.demo.results import Results
    from idbellen.demo.texts import Brand

PATH = "/backstage"


class _Backstage:
    def __init__(self, results: Results, brand: Brand) -> None:
        self._results = results
        self._brand = brand

    async def show(self, request: web.Request) -> web.Response:
        results = self._results.newest_first()
        return page(request, "auth_backstage.html", results=results, clock=_clock, brand=self._brand)

    async def deliver(self, request: web.Request) -> web.Response:
        result = self._results.of_session(await form_field(request, "session"))
        if result:
            # The page tells what went wrong.
            with contextlib.suppress(UndeliveredError):
                await self._results.deliver(result)
        raise web.HTTPSeeOther(PATH)

    async def session_feedback(self, request: web.Request) -> web.Response:
        result = self._results.of_session(request.match_info["session"])
        if result is None:
            raise web.HTTPNotFound(text="no such session")
        kind = request.query.get("type", "")
        if kind not in FEEDBACK_TYPES:
            raise web.HTTPBadRequest(text=f"type is one of {', '.join(FEEDBACK_TYPES)}")
        result.feedback.append((kind, time.time()))
        return web.Response()


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def add_backstage(app: web.Application, results: Results, brand: Brand) -> None:
    """Add ``/backstage`` and ``POST /session/...`` to a plugin's application."""
    backstage = _Backstage(results, brand)
    app.router.add_get(PATH, backstage.show)
    app.router.add_post(PATH, backstage.deliver)
    app.router.add_post("/session/{session}", backstage.session_feedback)
