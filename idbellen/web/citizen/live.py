"""The citizen's page, live: server-sent events that tell how far the call is.

Each event holds the parts of the page that change, as HTML, so that an event and a reload show the same. Changes
while one is being sent melt into the next, so a slow browser holds nobody up and never misses the last word.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from idbellen.aio import timeout
from idbellen.domain.crowd import Crowd
from idbellen.web.citizen.state import LAST_KINDS, find

if TYPE_CHECKING:
    from collections.abc import Callable

    from idbellen.calls.watch import Watch
    from idbellen.web.citizen.site import CitizenSite
    from idbellen.web.citizen.state import Known, Situation

log = structlog.get_logger()

# The page takes the connection for lost when it has heard nothing for more than twice this.
BEAT_SECONDS = 15.0
SEND_SECONDS = 5.0
# So many tabs of one citizen are told at a time: the last ones. Of a phone that changed its network old ones linger.
MOST_PAGES = 8
# A comment would keep the connection open too, but no script hears it.
BEAT = b"event: beat\ndata:\n\n"
# A tab that hears this is one too many, and comes back when somebody looks at it.
ELSEWHERE = b"event: elsewhere\ndata:\n\n"
OVER = b'data: {"kind": "over"}\n\n'
HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}


class LivePages:
    """All pages that are connected."""

    def __init__(self, site: CitizenSite) -> None:
        self._site = site
        self._pages: Crowd[Watch] = Crowd(most_of_one=MOST_PAGES)
        self._closing = False

    async def close(self, _: web.Application) -> None:
        """End all events, for the service stops."""
        self._closing = True
        for page in self._pages:
            page.notify()

    async def serve(
        self, request: web.Request, known: Known | None, html: Callable[[Known, Situation], str]
    ) -> web.StreamResponse:
        """Send events to one page until nothing can follow or one side goes; ``html`` gives the parts that change."""
        response = web.StreamResponse(headers=HEADERS)
        try:
            await response.prepare(request)
            if known is None:
                await response.write(OVER)
        except ConnectionError:
            # The browser left while its page was looked up.
            return response
        if known is None:
            return response
        # Watching begins before the first look, so that nothing is missed in between.
        with self._site.progress.watch(known.session) as news:
            goes = self._pages.enter(news, known.session)
            if goes:
                goes.notify()
            try:
                await self._tell(response, known, news, html)
            except TimeoutError:
                log.warning("citizen's page cut off: it does not read", session=known.session)
                if request.transport:
                    request.transport.abort()
            except ConnectionError:
                # The browser has left.
                pass
            finally:
                self._pages.leave(news)
        return response

    async def _tell(
        self, response: web.StreamResponse, known: Known, news: Watch, html: Callable[[Known, Situation], str]
    ) -> None:
        told = b""
        while not self._closing:
            if news not in self._pages:
                await _send(response, ELSEWHERE)
                return
            situation = await find(self._site, known)
            event = _event(situation, html(known, situation))
            if event != told:
                await _send(response, event)
                told = event
            if situation.kind in LAST_KINDS:
                return
            await self._changed(response, news, situation.next_change)

    async def _changed(self, response: web.StreamResponse, news: Watch, next_change: float) -> None:
        while True:
            left = next_change - self._site.clock()
            try:
                async with timeout(min(BEAT_SECONDS, left)):
                    await news.changed()
            except TimeoutError:
                if left <= BEAT_SECONDS:
                    return
            else:
                return
            await _send(response, BEAT)


def _event(situation: Situation, html: str) -> bytes:
    content = {"kind": situation.kind, "stage": situation.view.stage.value, "html": html}
    return f"data: {json.dumps(content)}\n\n".encode()


async def _send(response: web.StreamResponse, event: bytes) -> None:
    async with timeout(SEND_SECONDS):
        await response.write(event)
