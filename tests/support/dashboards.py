"""The dashboard and the wallboard of a running service, over their websockets, as the pages' scripts drive them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.installation import Installation


class Wallboard:
    """A supervisor's wallboard, as the page's script drives it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._asked = 0

    async def ask(self, kind: str, **values: Any) -> str | None:
        """Ask for something; gives why not, None if it was done."""
        self._asked += 1
        await self._socket.send_json({"type": kind, "id": self._asked, **values})
        async with asyncio.timeout(30):
            while True:
                message = await self._socket.receive_json()
                if message["type"] == "answer" and message["id"] == self._asked:
                    refused: str | None = message["refused"]
                    return refused

    async def caller(self) -> str:
        """Wait until somebody waits; gives the name of the call that is next."""
        async with asyncio.timeout(10):
            while True:
                message = await self._socket.receive_json()
                if message["type"] == "snapshot" and message["callers"]:
                    call: str = message["callers"][0]["call"]
                    return call


async def closed(socket: aiohttp.ClientWebSocketResponse) -> int:
    """Wait until the other side of a websocket closes it, whatever it tells before; gives the code."""
    async with asyncio.timeout(5):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
    assert message.type is aiohttp.WSMsgType.CLOSE
    code: int = message.data
    return code


class Dashboard:
    """One agent's dashboard, as the page's script drives it."""

    def __init__(
        self,
        installation: Installation,
        http: aiohttp.ClientSession,
        socket: aiohttp.ClientWebSocketResponse,
        live: str,
    ) -> None:
        self._installation = installation
        self._http = http
        self._live = live
        self._listen(socket)
        self.snapshot: dict[str, Any] = {}
        self.refused: list[tuple[str, str]] = []

    def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._told: asyncio.Queue[aiohttp.WSMessage] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        """Read as a page does, whatever the test waits for: a socket that nobody reads is closed as dead."""
        while True:
            message = await self._socket.receive()
            self._told.put_nowait(message)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return

    async def until(self, state: str, *, seconds: float = 10.0) -> dict[str, Any]:
        """Wait for a snapshot in a state; gives it."""
        try:
            async with asyncio.timeout(seconds):
                while self.snapshot.get("state") != state:
                    await self.next()
        except TimeoutError:
            raise AssertionError(f"not {state}: {self.snapshot}") from None
        return self.snapshot

    async def until_call(self, *, seconds: float = 10.0, **wanted: Any) -> dict[str, Any]:
        """Wait for a snapshot with a call of which this holds; gives the call."""
        shown = await self._until(lambda now: bool(now.get("call")) and wanted.items() <= now["call"].items(),
                                  f"a call with {wanted}", seconds)  # fmt: skip
        call: dict[str, Any] = shown["call"]
        return call

    async def until_phone(self, state: str, *, seconds: float = 10.0) -> None:
        """Wait until the agent's phone is in a state."""
        await self._until(lambda now: now.get("phone") == state, f"a phone that is {state}", seconds)

    async def _until(self, is_so: Callable[[dict[str, Any]], bool], what: str, seconds: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                while not is_so(self.snapshot):
                    await self.next()
        except TimeoutError:
            raise AssertionError(f"not {what}: {self.snapshot} {self.refused}") from None
        return self.snapshot

    async def next(self) -> dict[str, Any]:
        """Wait for the next snapshot."""
        while True:
            told = await self._told.get()
            if told.type is not aiohttp.WSMsgType.TEXT:
                self._told.put_nowait(told)
                raise ConnectionError(f"the dashboard was closed: {told}")
            message = told.json()
            if message["type"] == "snapshot":
                self.snapshot = message
                if message["call"] and message["call"]["secret"]:
                    self._installation.secrets.append(message["call"]["secret"])
                return self.snapshot
            if message["type"] == "refused":
                self.refused.append((message["verb"], message["reason"]))

    async def send(self, kind: str, **values: Any) -> None:
        """Ask for something, as the page does."""
        await self._socket.send_json({"type": kind, **values})

    async def command(self, verb: str, kind: str = "", name: str = "") -> None:
        """Ask for something in the call in hand."""
        target = {"kind": kind, "name": name} if kind else None
        await self.send("command", call=self.snapshot["call"]["id"], verb=verb, target=target)

    async def pause(self, reason: str = "") -> None:
        await self.send("pause", reason=reason)

    async def available(self) -> None:
        """Become available."""
        await self.until("paused")
        await self.send("available")
        await self.until("available")

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._socket.close()

    async def reconnect(self) -> None:
        """Open the websocket again, as the page does after the service was away."""
        await self.close()
        self._listen(await self._http.ws_connect(self._live))
        self.snapshot = {}

    async def attributes(self, secret: str) -> tuple[int, dict[str, Any]]:
        """Fetch attributes with a secret; gives status and body."""
        url = f"{self._installation.dashboard_url}/attributes"
        async with self._http.post(url, json={"secret": secret}) as answer:
            return answer.status, await answer.json() if answer.ok else {}

    async def shown(self, call: str) -> None:
        await self._socket.send_json({"type": "shown", "call": call})

    async def log_out(self) -> None:
        async with self._http.post(f"{self._installation.dashboard_url}/logout", allow_redirects=False):
            pass
