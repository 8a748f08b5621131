"""An Asterisk for faults that a real one does not show on demand: in virtual time, or as a server that misbehaves."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from idbellen.asterisk.ari import Ari, AriError, AriUnreachableError, GoneError
from idbellen.asterisk.events import ChannelDestroyed, DigitReceived, PlaybackFinished, StasisEnd, StasisStart
from idbellen.asterisk.legs import OWN_ARG
from idbellen.asterisk.switchboard import Switchboard
from idbellen.calls.stories import Stories
from idbellen.domain.ids import AgentName
from tests.support import virtualtime
from tests.support.fakes import PROMPT_SECONDS, FakeCallLog, FakeSessions
from tests.support.ports import free_ports
from tests.support.stories import CODE, RULES, account, new_office

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine

    from idbellen.asterisk.events import Event
    from idbellen.calls.office import Office

# What a request is under way before and after it takes effect.
HALF_WAY_SECONDS = 0.001
NORMAL_CLEARING = 16


@dataclass
class Behaviour:
    """What a phone does when it rings: it answers, or with ``cause`` it does not; times in seconds.

    ``by_hand``: nothing, and the test sends the events.
    """

    after: float = 1.0
    cause: int | None = None
    talks: float = 30.0
    by_hand: bool = False


class FakeAsterisk(Ari):
    """An Asterisk in virtual time. Names are good for one use; what is gone is gone; who is not in is not bridged.

    ``moment`` is called with the number of each request twice: before it takes effect, and before it is answered.
    """

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1/ari", "idbellen", "", "")
        self.channels: set[str] = set()
        self.bridges: dict[str, set[str]] = {}
        self.names: list[str] = []
        self.asked: list[str] = []
        self.rung: list[tuple[str, str]] = []
        self.phones: dict[str, Behaviour] = {}
        self.went_on: dict[str, str] = {}
        self.opened: list[float] = []
        self.moment: Callable[[int, str], None] = lambda *_: None
        self.away = False
        self._inside: set[str] = set()
        self._playbacks: dict[str, str] = {}
        self._news: asyncio.Queue[Event | None] = asyncio.Queue()
        self._timers: list[asyncio.TimerHandle] = []

    # What happens by itself

    def tell(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, StasisStart):
                self._inside.add(event.channel)
            self._news.put_nowait(event)

    def close_socket(self) -> None:
        self._news.put_nowait(None)

    def later(self, seconds: float, do: Callable[..., object], *arguments: object) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, do, *arguments))

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def come_in(self, channel: str, keys: str = CODE) -> None:
        """Let a caller come in, who keys something in after the answer."""
        self._name(channel)
        self.channels.add(channel)
        self.tell(StasisStart(channel, ("citizen",), "PJSIP/trunk-00000001", ""))
        for position, key in enumerate(keys):
            self.later(0.5 + 0.1 * position, self.press, channel, key)

    def press(self, channel: str, key: str) -> None:
        if channel in self.channels:
            self.tell(DigitReceived(channel, key))

    def hang_up(self, channel: str, cause: int = NORMAL_CLEARING) -> None:
        if channel in self.channels:
            self.channels.discard(channel)
            for inside in self.bridges.values():
                inside.discard(channel)
            if channel in self._inside:
                self._inside.discard(channel)
                self.tell(StasisEnd(channel))
            self.tell(ChannelDestroyed(channel, cause))

    def answer(self, channel: str, endpoint: str) -> None:
        if channel in self.channels:
            self.tell(StasisStart(channel, (OWN_ARG,), f"{endpoint}-00000002", ""))

    @property
    def left(self) -> tuple[set[str], dict[str, set[str]]]:
        return self.channels, self.bridges

    @property
    def playing(self) -> list[str]:
        return list(self._playbacks)

    # What is asked of it

    async def events(self) -> AsyncGenerator[Event | None, None]:
        self.opened.append(asyncio.get_running_loop().time())
        await asyncio.sleep(HALF_WAY_SECONDS)
        if self.away:
            raise AriUnreachableError("nobody there")
        yield None
        while (event := await self._news.get()) is not None:
            yield event

    async def request(self, method: str, path: str, body: Any = None, **params: str | int) -> Any:  # noqa: ARG002
        self.asked.append(f"{method} {path}")
        number = len(self.asked)
        await asyncio.sleep(HALF_WAY_SECONDS)
        self.moment(number, "before")
        answer = self._do(method, *path.removeprefix("/").split("/"), **params)
        self.moment(number, "after")
        await asyncio.sleep(HALF_WAY_SECONDS)
        return answer

    def _do(self, method: str, kind: str, /, *where: str, **params: str | int) -> Any:
        if method == "GET":
            self._there(kind != "channels" or not where or where[0] in self.channels)
            # Of a channel it is asked whether its phone holds, and none does.
            return {"value": "0"} if where[1:] == ("variable",) else self._look(kind)
        if kind == "bridges":
            self._bridge(method, *where, **params)
        elif kind == "playbacks":
            self._there(where[0] in self._playbacks)
            self._end_playback(where[0])
        else:
            self._channel(method, *where, **params)
        return None

    def _look(self, kind: str) -> Any:
        if kind == "channels":
            return [
                {
                    "id": channel,
                    "name": "PJSIP/trunk-00000001",
                    "state": "Up",
                    "caller": {"number": ""},
                    "dialplan": {"app_name": "Stasis", "app_data": "idbellen,citizen"},
                }
                for channel in self.channels
            ]
        if kind == "bridges":
            return [{"id": name, "channels": list(inside)} for name, inside in self.bridges.items()]
        return {"channel_ids": list(self._inside)}

    def _bridge(self, method: str, name: str, change: str = "", /, **params: str | int) -> None:
        if not change and method == "POST":
            self._name(name)
            self.bridges[name] = set()
            return
        self._there(name in self.bridges)
        if not change:
            del self.bridges[name]
            return
        members = set(str(params["channel"]).split(","))
        # A channel that is not in our application yet is refused too, with 422.
        self._there(members <= self._inside)
        (self.bridges[name].update if change == "addChannel" else self.bridges[name].difference_update)(members)

    def _channel(self, method: str, name: str, what: str = "", playback: str = "", /, **params: str | int) -> None:
        if not what and method == "POST":
            if params.get("originator", "") not in ("", *self.channels):
                raise AriError("400 Provided originator channel was not found")
            self._name(name)
            self.channels.add(name)
            self._ring(name, str(params["endpoint"]))
            return
        self._there(name in (self._inside if what else self.channels))
        if not what:
            self.hang_up(name)
        elif what == "continue":
            self.went_on[name] = str(params["context"])
            self.hang_up(name)
        elif what == "play":
            self._name(playback)
            self._playbacks[playback] = name
            self.later(PROMPT_SECONDS, self._end_playback, playback)

    def _there(self, is_there: bool) -> None:  # noqa: FBT001
        if not is_there:
            raise GoneError("gone")

    def _name(self, name: str) -> None:
        assert name not in self.names, f"{name} is used twice"
        self.names.append(name)

    def _ring(self, channel: str, endpoint: str) -> None:
        self.rung.append((channel, endpoint))
        phone = self.phones.get(endpoint, Behaviour())
        if phone.by_hand:
            return
        if phone.cause is None:
            self.later(phone.after, self.answer, channel, endpoint)
            self.later(phone.after + phone.talks, self.hang_up, channel)
        else:
            self.later(phone.after, self.hang_up, channel, phone.cause)

    def _end_playback(self, playback: str) -> None:
        channel = self._playbacks.pop(playback, None)
        if channel:
            self.tell(PlaybackFinished(channel, playback, failed=False))


@dataclass(frozen=True)
class Stage:
    """Everything between Asterisk and the stores, with fakes at both ends."""

    asterisk: FakeAsterisk
    office: Office
    sessions: FakeSessions
    calls: FakeCallLog
    switchboard: Switchboard


def on_stage(
    story: Callable[[Stage], Coroutine[Any, Any, None]],
    *,
    agents: tuple[str, ...] = ("a",),
    codes: tuple[str, ...] = (CODE,),
) -> None:
    """Run a story in virtual time beside the switchboard; at its end nothing may be left in Asterisk."""

    async def run() -> None:
        asterisk, sessions, calls = FakeAsterisk(), FakeSessions(*codes), FakeCallLog()
        office = new_office(RULES, sessions, log=calls)
        switchboard = Switchboard(asterisk, Stories(office))
        with ExitStack() as present:
            for name in map(AgentName, agents):
                present.enter_context(office.desk.staff.present(account(name)))
                office.desk.staff.set_available(name)
            running = asyncio.create_task(switchboard.run())
            await story(Stage(asterisk, office, sessions, calls, switchboard))
            assert not running.done(), running
            running.cancel()
            await asyncio.wait([running])
        asterisk.stop()
        assert asterisk.left == (set(), {})
        assert sessions.claimed == {}
        await asyncio.sleep(20)

    virtualtime.run(run())


@dataclass
class AriServer:
    """A server that speaks as much of ARI as a switchboard without calls needs, and notes what comes.

    ``frames``: the kinds of the websocket's frames; ``hanging``: paths that are never answered.
    """

    port: int = field(default_factory=free_ports)
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    frames: list[WSMsgType] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    hanging: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    # Of the connections that are open, and of those the most at one time.
    open: int = 0
    most: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/ari"

    async def events(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False, timeout=0.2)
        await socket.prepare(request)
        self.connected.append(asyncio.get_running_loop().time())
        self.sockets.append(socket)
        async for message in socket:
            self.frames.append(message.type)
            if message.type is WSMsgType.PING:
                await socket.pong(message.data)
        return socket

    async def rest(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/ari")
        self.asked.append(f"{request.method} {path}")
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if path in self.hanging:
                await asyncio.Event().wait()
            await asyncio.sleep(0.001)
        finally:
            self.open -= 1
        return web.json_response({"channel_ids": []} if path.startswith("/applications/") else [])


@asynccontextmanager
async def ari_server() -> AsyncIterator[AriServer]:
    """Serve for the block."""
    server = AriServer()
    app = web.Application()
    app.router.add_get("/ari/events", server.events)
    app.router.add_route("*", "/ari/{path:.*}", server.rest)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", server.port).start()
    try:
        yield server
    finally:
        for socket in server.sockets:
            await socket.close()
        await runner.cleanup()
