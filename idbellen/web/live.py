"""The dashboard's websocket: snapshots go out, wishes and acknowledgements come in.

Every change leads to a whole snapshot, and changes while one is being sent melt into the next, so a slow
dashboard never holds anybody up and never misses the last word.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Annotated, Literal

import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from idbellen.domain.talk import Command, Target, Verb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from idbellen.calls.desk import Desk
    from idbellen.calls.staff import Staff
    from idbellen.calls.watch import Watch
    from idbellen.domain.board import AgentView, Titles
    from idbellen.ports import Account, Clock

log = structlog.get_logger()

# The page shows that it is cut off when it has heard nothing for somewhat longer than this.
BEAT_SECONDS = 2.0
SEND_SECONDS = 5.0
CHECK_LOGIN_SECONDS = 60.0
LARGEST_MESSAGE = 4096


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class AvailableWish(_Message):
    """The agent wants calls."""

    type: Literal["available"]


class PauseWish(_Message):
    """The agent wants no calls; ``reason`` is one of the configured words, or empty."""

    type: Literal["pause"]
    reason: str


class WrapUpWish(_Message):
    """The agent is done with wrapping up, or needs more time for it."""

    type: Literal["wrap_up"]
    action: Literal["end", "extend"]


class ShownNotice(_Message):
    """The page shows the attributes of a call."""

    type: Literal["shown"]
    call: str


class TargetChoice(_Message):
    """Whom to consult or to transfer to."""

    kind: Literal["agent", "queue", "number"]
    name: str


class CallCommand(_Message):
    """What the agent wants to happen in the call in hand."""

    type: Literal["command"]
    call: str
    verb: Literal["mute", "unmute", "hold", "resume", "consult", "blind", "transfer", "conference", "share", "hang_up"]
    target: TargetChoice | None = None

    def command(self) -> Command:
        """Give it as the desk takes it."""
        target = self.target
        return Command(Verb(self.verb), Target(target.kind, target.name) if target else None)


Wish = AvailableWish | PauseWish | WrapUpWish | ShownNotice | CallCommand
_MESSAGES: TypeAdapter[Wish] = TypeAdapter(Annotated[Wish, Field(discriminator="type")])


class Live:
    """All dashboards that are connected."""

    def __init__(self, staff: Staff, desk: Desk, titles: Titles, pause_reasons: Collection[str], clock: Clock) -> None:
        self._staff = staff
        self._desk = desk
        self._titles = titles
        self._pause_reasons = pause_reasons
        self._clock = clock
        self._sockets: dict[str, set[web.WebSocketResponse]] = {}

    async def serve(
        self,
        request: web.Request,
        login: str,
        account: Account,
        still_logged_in: Callable[[], Awaitable[bool]],
    ) -> web.WebSocketResponse:
        """Serve one dashboard until it goes."""
        socket = web.WebSocketResponse(heartbeat=2 * SEND_SECONDS, max_msg_size=LARGEST_MESSAGE)
        await socket.prepare(request)
        self._sockets.setdefault(login, set()).add(socket)
        try:
            with self._staff.present(account) as watch:
                watch.notify()
                sender = asyncio.create_task(self._send(socket, account.name, watch))
                checker = asyncio.create_task(_check_login(socket, still_logged_in))
                try:
                    await self._receive(socket, account.name)
                finally:
                    sender.cancel()
                    checker.cancel()
                    for end in await asyncio.gather(sender, checker, return_exceptions=True):
                        if isinstance(end, Exception):
                            log.error("dashboard failed", agent=account.name, exc_info=end)
        finally:
            self._sockets[login].discard(socket)
            if not self._sockets[login]:
                del self._sockets[login]
        return socket

    async def end_login(self, login: str) -> None:
        """Close the dashboards of a login that has ended."""
        for socket in tuple(self._sockets.get(login, ())):
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"logged out")

    async def close(self) -> None:
        """Close all dashboards; they come back when the service does."""
        for sockets in tuple(self._sockets.values()):
            for socket in tuple(sockets):
                await socket.close(code=WSCloseCode.GOING_AWAY, message=b"restart")

    async def _send(self, socket: web.WebSocketResponse, name: str, watch: Watch) -> None:
        last: AgentView | None = None
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + BEAT_SECONDS
        try:
            while not socket.closed:
                try:
                    async with asyncio.timeout_at(next_beat):
                        await watch.changed()
                except TimeoutError:
                    text = '{"type": "beat"}'
                else:
                    view = self._desk.view(name)
                    if view == last:
                        # News of others does not put the beat off, or a busy day looks like a lost connection.
                        continue
                    last = view
                    text = json.dumps(view.message(self._titles, self._clock()))
                async with asyncio.timeout(SEND_SECONDS):
                    await socket.send_str(text)
                next_beat = loop.time() + BEAT_SECONDS
        except (TimeoutError, ConnectionError):
            log.warning("dashboard cut off: it does not read", agent=name)
        finally:
            # It comes back by itself, and then gets a fresh snapshot.
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"try again")

    async def _receive(self, socket: web.WebSocketResponse, name: str) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            try:
                wish = _MESSAGES.validate_json(message.data)
            except ValidationError:
                log.warning("dashboard sent something else", agent=name)
                await socket.close(code=WSCloseCode.INVALID_TEXT, message=b"not understood")
                break
            refused = self._take(wish, name)
            if refused:
                # Only the tab that asked is told; one that does not read is cut off by the sender.
                with contextlib.suppress(ConnectionError):
                    await socket.send_json({"type": "refused", **refused})

    def _take(self, wish: Wish, name: str) -> dict[str, str] | None:
        """Carry out what a dashboard asks for; gives why not, if it cannot be."""
        match wish:
            case AvailableWish():
                self._staff.set_available(name)
            case PauseWish(reason=reason) if reason and reason not in self._pause_reasons:
                return {"verb": "pause", "reason": "target"}
            case PauseWish(reason=reason):
                self._staff.pause(name, reason)
            case WrapUpWish(action="end"):
                self._staff.end_wrap_up(name)
            case WrapUpWish():
                self._staff.extend_wrap_up(name)
            case ShownNotice(call=call):
                self._desk.shown(name, call)
            case CallCommand(call=call):
                refusal = self._desk.command(name, call, wish.command())
                return {"verb": wish.verb, "reason": refusal} if refusal else None
        return None


async def _check_login(socket: web.WebSocketResponse, still_logged_in: Callable[[], Awaitable[bool]]) -> None:
    # An open dashboard counts as activity; the absolute time-out, or a removed account, ends it all the same.
    while True:
        await asyncio.sleep(CHECK_LOGIN_SECONDS)
        if not await still_logged_in():
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"login ended")
            return
