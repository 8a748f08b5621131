"""The dashboard's websocket: snapshots go out, wishes and acknowledgements come in."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated, Literal

from aiohttp import WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from idbellen.domain.ids import AgentName, CallId  # noqa: TC001 - pydantic looks for it
from idbellen.domain.refusals import Refusal
from idbellen.domain.talk import Command, Target, TargetKind, Verb
from idbellen.web.messages import agent_snapshot
from idbellen.web.sockets import Page, Sockets, not_understood

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from idbellen.calls.desk import Desk
    from idbellen.calls.staff import Staff
    from idbellen.domain.board import AgentView
    from idbellen.ports import Account, Clock
    from idbellen.web.messages import Titles

CHECK_LOGIN_SECONDS = 60.0


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
    call: CallId


class TargetChoice(_Message):
    """Whom to consult or to transfer to."""

    kind: TargetKind
    name: str


class CallCommand(_Message):
    """What the agent wants to happen in the call in hand."""

    type: Literal["command"]
    call: CallId
    verb: Verb
    target: TargetChoice | None = None

    def command(self) -> Command:
        """Give it as the desk takes it."""
        target = self.target
        return Command(self.verb, Target(target.kind, target.name) if target else None)


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
        self.sockets = Sockets()

    async def serve(
        self,
        request: web.Request,
        login: str,
        account: Account,
        still_logged_in: Callable[[], Awaitable[bool]],
    ) -> web.WebSocketResponse:
        """Serve one dashboard until it goes."""
        last: AgentView | None = None

        def news() -> str | None:
            nonlocal last
            view = self._desk.view(account.name)
            if view == last:
                return None
            last = view
            return json.dumps(agent_snapshot(view, self._titles, self._clock()))

        async def receive(socket: web.WebSocketResponse) -> None:
            await self._receive(socket, page)

        with self._staff.present(account) as watch:
            page = Page(
                "dashboard", account.name, login, watch, news, receive, still_logged_in, check=CHECK_LOGIN_SECONDS
            )
            return await self.sockets.serve(request, page)

    async def _receive(self, socket: web.WebSocketResponse, page: Page) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            try:
                wish = _MESSAGES.validate_json(message.data)
            except ValidationError:
                await not_understood(socket, page)
                break
            refused = self._take(wish, page.agent)
            if refused:
                # Only the tab that asked is told; one that does not read is cut off by the sender.
                with contextlib.suppress(ConnectionError):
                    await socket.send_json({"type": "refused", **refused})

    def _take(self, wish: Wish, name: AgentName) -> dict[str, str] | None:
        """Carry out what a dashboard asks for; gives why not, if it cannot be."""
        match wish:
            case AvailableWish():
                self._staff.set_available(name)
            case PauseWish(reason=reason) if reason and reason not in self._pause_reasons:
                return {"verb": "pause", "reason": Refusal.TARGET}
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
                return {"verb": wish.verb.value, "reason": refusal} if refusal else None
        return None
