"""The websockets of pages that show snapshots: one page each, by the login that opened it.

Every change leads to a whole snapshot, and changes while one is being sent melt into the next, so a slow page never
holds anybody up and never misses the last word.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from aiohttp import WSCloseCode, web

from idbellen.aio import timeout, timeout_at
from idbellen.domain.crowd import Crowd
from idbellen.ports import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from idbellen.calls.watch import Watch
    from idbellen.domain.ids import AgentName

log = structlog.get_logger()

# The page shows that it is cut off when it has heard nothing for somewhat longer than this.
BEAT_SECONDS = 2.0
SEND_SECONDS = 5.0
LARGEST_MESSAGE = 4096
# So many pages of one kind an agent has at a time: the last ones.
MOST_PAGES = 16
# A page that is closed with this is one too many, and comes back after a minute.
ELSEWHERE = 4001


@dataclass(frozen=True, slots=True)
class Page:
    """One open page.

    ``what`` and ``agent`` are for the log. ``news`` gives the text of a snapshot, None if it is as the last one was;
    ``pause``: so many seconds are between two of them at least. ``still_allowed`` is asked every ``check`` seconds.
    """

    what: str
    agent: AgentName
    login: str
    watch: Watch
    news: Callable[[], str | None]
    receive: Callable[[web.WebSocketResponse], Awaitable[None]]
    still_allowed: Callable[[], Awaitable[bool]]
    check: float
    pause: float = 0.0


class Sockets:
    """All open pages of one kind."""

    def __init__(self) -> None:
        self._sockets: dict[str, set[web.WebSocketResponse]] = {}
        self._pages: Crowd[Watch] = Crowd(most_of_one=MOST_PAGES)

    async def serve(self, request: web.Request, page: Page) -> web.WebSocketResponse:
        """Serve one page until it goes."""
        socket = web.WebSocketResponse(heartbeat=2 * SEND_SECONDS, max_msg_size=LARGEST_MESSAGE)
        await prepare(socket, request)
        self._sockets.setdefault(page.login, set()).add(socket)
        goes = self._pages.enter(page.watch, page.agent)
        if goes:
            goes.notify()
        page.watch.notify()
        beside = [asyncio.create_task(self._send(socket, page)), asyncio.create_task(_check(socket, page))]
        try:
            await page.receive(socket)
        finally:
            for task in beside:
                task.cancel()
            for end in await asyncio.gather(*beside, return_exceptions=True):
                if isinstance(end, Exception):
                    log.error("page failed", page=page.what, agent=page.agent, exc_info=end)
            self._pages.leave(page.watch)
            self._sockets[page.login].discard(socket)
            if not self._sockets[page.login]:
                del self._sockets[page.login]
        return socket

    async def _send(self, socket: web.WebSocketResponse, page: Page) -> None:
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + BEAT_SECONDS
        try:
            while not socket.closed and page.watch in self._pages:
                try:
                    async with timeout_at(next_beat):
                        await page.watch.changed()
                except TimeoutError:
                    text = '{"type": "beat"}'
                else:
                    news = page.news()
                    if news is None:
                        # News of others does not put the beat off, or a busy day looks like a lost connection.
                        continue
                    text = news
                async with timeout(SEND_SECONDS):
                    await socket.send_str(text)
                next_beat = loop.time() + BEAT_SECONDS
                await asyncio.sleep(page.pause)
        except (TimeoutError, ConnectionError):
            log.warning("page cut off: it does not read", page=page.what, agent=page.agent)
        finally:
            if page.watch in self._pages:
                # It comes back by itself, and then gets a fresh snapshot.
                await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"try again")
            else:
                await socket.close(code=ELSEWHERE, message=b"elsewhere")

    async def end_login(self, login: str) -> None:
        """Close the pages of a login that has ended."""
        for socket in tuple(self._sockets.get(login, ())):
            await dismiss(socket)

    async def close(self) -> None:
        """Close all pages; they come back when the service does."""
        for sockets in tuple(self._sockets.values()):
            for socket in tuple(sockets):
                await socket.close(code=WSCloseCode.GOING_AWAY, message=b"restart")


async def prepare(socket: web.WebSocketResponse, request: web.Request) -> None:
    """Open a websocket, or refuse to, without aiohttp's text, which repeats the request.

    Raises:
        web.HTTPBadRequest: the request is not for one.

    """
    try:
        await socket.prepare(request)
    except web.HTTPBadRequest:
        raise web.HTTPBadRequest(text="This address is for a websocket.") from None


async def dismiss(socket: web.WebSocketResponse) -> None:
    """Close a page whose login has ended, or allows this no longer."""
    await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"login ended")


async def not_understood(socket: web.WebSocketResponse, page: Page) -> None:
    """Close a page that sends what no page of ours does."""
    log.warning("page sent something else", page=page.what, agent=page.agent)
    await socket.close(code=WSCloseCode.INVALID_TEXT, message=b"not understood")


async def _check(socket: web.WebSocketResponse, page: Page) -> None:
    # An open page counts as activity; the absolute time-out, or a changed account, ends it all the same.
    while True:
        await asyncio.sleep(page.check)
        try:
            allowed = await page.still_allowed()
        except StoreError:
            # Nobody can tell; who talks shall not lose the screen for that.
            continue
        if not allowed:
            await dismiss(socket)
            return
