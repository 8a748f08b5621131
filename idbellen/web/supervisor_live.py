"""The wallboard's websocket: snapshots go out, what supervisors want done comes in.

As with the agents' dashboard every change leads to a whole snapshot, but at most some per second: changes in
between melt into the next.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Literal

import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from idbellen.web.live import BEAT_SECONDS, LARGEST_MESSAGE, SEND_SECONDS

if TYPE_CHECKING:
    from idbellen.calls.wallboard import Board
    from idbellen.calls.watch import Watch
    from idbellen.ports import Account
    from idbellen.web.supervisor_site import Door, SupervisorSite

log = structlog.get_logger()

PAUSE_BETWEEN_SECONDS = 0.4
# An account that is no supervisor's any more sees the board no longer than this.
CHECK_SECONDS = 10.0
# A phone that rings for one call shall not hold up the next wish, and nobody has more hands than this.
MOST_AT_ONCE = 4


class _Wish(BaseModel):
    """``id`` comes back with the answer."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: int


class AvailableWish(_Wish):
    """An agent shall be offered calls."""

    type: Literal["available"]
    agent: str


class PauseWish(_Wish):
    """An agent shall be offered no calls; ``reason`` is one of the configured words, or empty."""

    type: Literal["pause"]
    agent: str
    reason: str


class FrontWish(_Wish):
    """A waiting caller shall go first."""

    type: Literal["front"]
    call: str


class MoveWish(_Wish):
    """A waiting caller shall wait in another queue."""

    type: Literal["move"]
    call: str
    queue: str


class MonitorWish(_Wish):
    """The supervisor wants to hear an agent's call."""

    type: Literal["monitor"]
    agent: str
    mode: Literal["listen", "whisper", "barge"]


Wish = AvailableWish | PauseWish | FrontWish | MoveWish | MonitorWish
_WISHES: TypeAdapter[Wish] = TypeAdapter(Annotated[Wish, Field(discriminator="type")])


class SupervisorLive:
    """All wallboards that are connected."""

    def __init__(self, site: SupervisorSite, door: Door) -> None:
        self._site = site
        self._door = door
        self._sockets: dict[str, set[web.WebSocketResponse]] = {}

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one wallboard until it goes."""
        known = await self._door.supervisor(request)
        if known is None:
            raise web.HTTPForbidden(text="Only supervisors can see the wallboard. Log in as a supervisor.")
        login, account = known
        socket = web.WebSocketResponse(heartbeat=2 * SEND_SECONDS, max_msg_size=LARGEST_MESSAGE)
        await socket.prepare(request)
        self._sockets.setdefault(login, set()).add(socket)
        try:
            with self._site.wallboard.watch() as watch:
                watch.notify()
                helpers = [
                    asyncio.create_task(self._send(socket, account.name, watch)),
                    asyncio.create_task(self._check(socket, request)),
                ]
                try:
                    await self._receive(socket, request)
                finally:
                    for helper in helpers:
                        helper.cancel()
                    for end in await asyncio.gather(*helpers, return_exceptions=True):
                        if isinstance(end, Exception):
                            log.error("wallboard failed", agent=account.name, exc_info=end)
        finally:
            self._sockets[login].discard(socket)
            if not self._sockets[login]:
                del self._sockets[login]
        return socket

    async def end_login(self, login: str) -> None:
        """Close the wallboards of a login that has ended."""
        for socket in tuple(self._sockets.get(login, ())):
            await _dismiss(socket)

    async def close(self) -> None:
        """Close all wallboards; they come back when the service does."""
        for sockets in tuple(self._sockets.values()):
            for socket in tuple(sockets):
                await socket.close(code=WSCloseCode.GOING_AWAY, message=b"restart")

    async def _send(self, socket: web.WebSocketResponse, name: str, watch: Watch) -> None:
        last: Board | None = None
        try:
            while not socket.closed:
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        await watch.changed()
                except TimeoutError:
                    text = '{"type": "beat"}'
                else:
                    board = self._site.wallboard.board()
                    if board == last:
                        continue
                    last = board
                    text = json.dumps({"type": "snapshot", **board.message(self._site.titles, self._site.clock())})
                async with asyncio.timeout(SEND_SECONDS):
                    await socket.send_str(text)
                await asyncio.sleep(PAUSE_BETWEEN_SECONDS)
        except (TimeoutError, ConnectionError):
            log.warning("wallboard cut off: it does not read", agent=name)
        finally:
            # It comes back by itself, and then gets a fresh snapshot.
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"try again")

    async def _check(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if await self._door.supervisor(request) is None:
                await _dismiss(socket)
                return

    async def _receive(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        at_work: set[asyncio.Task[None]] = set()
        try:
            await self._read(socket, request, at_work)
        finally:
            # What is begun is carried out, also when the wallboard goes in the meantime.
            if at_work:
                await asyncio.wait(at_work)

    async def _read(
        self, socket: web.WebSocketResponse, request: web.Request, at_work: set[asyncio.Task[None]]
    ) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            try:
                wish = _WISHES.validate_json(message.data)
            except ValidationError:
                log.warning("wallboard sent something else")
                await socket.close(code=WSCloseCode.INVALID_TEXT, message=b"not understood")
                break
            known = await self._door.supervisor(request)
            if known is None:
                await _dismiss(socket)
                break
            if len(at_work) >= MOST_AT_ONCE:
                await _answer(socket, wish, "later")
                continue
            task = asyncio.create_task(self._fulfil(socket, known[1], wish))
            at_work.add(task)
            task.add_done_callback(at_work.discard)

    async def _fulfil(self, socket: web.WebSocketResponse, account: Account, wish: Wish) -> None:
        try:
            refused = await self._take(account, wish)
        except Exception:
            log.exception("wish of a supervisor failed", agent=account.name, wish=wish.type)
            refused = "failed"
        await _answer(socket, wish, refused)

    async def _take(self, account: Account, wish: Wish) -> str | None:
        """Carry out what a supervisor asks for; gives why not, if it cannot be."""
        can = self._site.supervision
        match wish:
            case AvailableWish(agent=agent):
                return await can.set_available(account, agent)
            case PauseWish(agent=agent, reason=reason):
                return await can.pause(account, agent, reason)
            case FrontWish(call=call):
                return await can.move_to_front(account, call)
            case MoveWish(call=call, queue=queue):
                return await can.move_to_queue(account, call, queue)
            case MonitorWish(agent=agent, mode=mode):
                return await can.monitor(account, agent, mode)


async def _answer(socket: web.WebSocketResponse, wish: Wish, refused: str | None) -> None:
    if not socket.closed:
        try:
            await socket.send_json({"type": "answer", "id": wish.id, "refused": refused})
        except ConnectionError:
            log.info("wallboard has gone before its answer", wish=wish.type)


async def _dismiss(socket: web.WebSocketResponse) -> None:
    await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"login ended")
