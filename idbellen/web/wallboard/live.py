"""The wallboard's websocket: snapshots go out, what supervisors want done comes in.

As with the agents' dashboard every change leads to a whole snapshot, but at most some per second: changes in
between melt into the next.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Literal

import structlog
from aiohttp import WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from idbellen.domain.ids import AgentName, CallId, QueueName  # noqa: TC001 - pydantic looks for it
from idbellen.domain.refusals import Refusal
from idbellen.ports import MonitorMode, StoreError
from idbellen.web.messages import board_snapshot
from idbellen.web.sockets import Page, Sockets, dismiss, not_understood

if TYPE_CHECKING:
    from idbellen.calls.wallboard import Board
    from idbellen.ports import Account
    from idbellen.web.wallboard.site import Door, SupervisorSite

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
    agent: AgentName


class PauseWish(_Wish):
    """An agent shall be offered no calls; ``reason`` is one of the configured words, or empty."""

    type: Literal["pause"]
    agent: AgentName
    reason: str


class FrontWish(_Wish):
    """A waiting caller shall go first."""

    type: Literal["front"]
    call: CallId


class MoveWish(_Wish):
    """A waiting caller shall wait in another queue."""

    type: Literal["move"]
    call: CallId
    queue: QueueName


class MonitorWish(_Wish):
    """The supervisor wants to hear an agent's call."""

    type: Literal["monitor"]
    agent: AgentName
    mode: MonitorMode


Wish = AvailableWish | PauseWish | FrontWish | MoveWish | MonitorWish
_WISHES: TypeAdapter[Wish] = TypeAdapter(Annotated[Wish, Field(discriminator="type")])


class SupervisorLive:
    """All wallboards that are connected."""

    def __init__(self, site: SupervisorSite, door: Door) -> None:
        self._site = site
        self._door = door
        self.sockets = Sockets()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one wallboard until it goes."""
        known = await self._door.supervisor(request)
        if known is None:
            raise web.HTTPForbidden(text="Only supervisors can see the wallboard. Log in as a supervisor.")
        login, account = known
        last: Board | None = None

        def news() -> str | None:
            nonlocal last
            board = self._site.wallboard.board()
            if board == last:
                return None
            last = board
            return json.dumps({"type": "snapshot", **board_snapshot(board, self._site.titles, self._site.clock())})

        async def receive(socket: web.WebSocketResponse) -> None:
            await self._receive(socket, page, request)

        async def still_supervisor() -> bool:
            return await self._door.supervisor(request) is not None

        with self._site.wallboard.watch() as watch:
            page = Page(
                "wallboard",
                account.name,
                login,
                watch,
                news,
                receive,
                still_supervisor,
                check=CHECK_SECONDS,
                pause=PAUSE_BETWEEN_SECONDS,
            )
            return await self.sockets.serve(request, page)

    async def _receive(self, socket: web.WebSocketResponse, page: Page, request: web.Request) -> None:
        at_work: set[asyncio.Task[None]] = set()
        try:
            await self._read(socket, page, request, at_work)
        finally:
            # What is begun is carried out, also when the wallboard goes in the meantime.
            if at_work:
                await asyncio.wait(at_work)

    async def _read(
        self, socket: web.WebSocketResponse, page: Page, request: web.Request, at_work: set[asyncio.Task[None]]
    ) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            try:
                wish = _WISHES.validate_json(message.data)
            except ValidationError:
                await not_understood(socket, page)
                break
            known = await self._door.supervisor(request)
            if known is None:
                await dismiss(socket)
                break
            if len(at_work) >= MOST_AT_ONCE:
                await _answer(socket, wish, Refusal.LATER)
                continue
            task = asyncio.create_task(self._fulfil(socket, known[1], wish))
            at_work.add(task)
            task.add_done_callback(at_work.discard)

    async def _fulfil(self, socket: web.WebSocketResponse, account: Account, wish: Wish) -> None:
        try:
            refused = await self._take(account, wish)
        except StoreError as fault:
            log.error("wish of a supervisor not carried out: the store cannot be used", reason=str(fault))  # noqa: TRY400
            refused = Refusal.FAILED
        except Exception:
            log.exception("wish of a supervisor failed", agent=account.name, wish=wish.type)
            refused = Refusal.FAILED
        await _answer(socket, wish, refused)

    async def _take(self, account: Account, wish: Wish) -> Refusal | None:
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


async def _answer(socket: web.WebSocketResponse, wish: Wish, refused: Refusal | None) -> None:
    if not socket.closed:
        try:
            await socket.send_json({"type": "answer", "id": wish.id, "refused": refused})
        except ConnectionError:
            log.info("wallboard has gone before its answer", wish=wish.type)
