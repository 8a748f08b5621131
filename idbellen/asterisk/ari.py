"""ARI's REST interface and its event socket, with no knowledge of calls.

REST goes over HTTP with keep-alive, which Asterisk 20 and newer all speak; REST over the event socket came in
22 only (see ``docs/decisions/0003-ari-over-http.md``).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import structlog

from idbellen.aio import first_of, timeout
from idbellen.asterisk.events import WANTED, WANTED_OF_PHONES, ApplicationReplaced, Event, parse
from idbellen.domain.whereabouts import MAIN

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from types import TracebackType

log = structlog.get_logger()

CONNECTIONS = 50
# Asterisk closes an idle connection after 30 s (asterisk-conf/http.conf; 15 s by default).
KEEP_ALIVE_SECONDS = 10.0
REQUEST_SECONDS = 5.0
# So long after Asterisk answers again, it may still come upon attempts that were given up while it hung.
ECHO_SECONDS = 10.0
# A lost socket is noticed within one and a half of these.
HEARTBEAT_SECONDS = 8.0
# An Asterisk that has given the socket to another process does not close it with us.
CLOSE_SECONDS = 1.0
LARGEST_MESSAGE = 1 << 20
# So long a call waits for the answer to a request that Asterisk may have lost.
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.2
GONE = frozenset({404, 409, 422})
BAD_REQUEST = 400


class AriError(Exception):
    """Asterisk refused a request, or could not be reached; the message names request and reason."""


class AriUnreachableError(AriError):
    """Asterisk did not answer: not running, another address, or too slow."""


class AriDeniedError(AriError):
    """Asterisk does not accept our user name and password."""


class GoneError(AriError):
    """What the request is about has just gone: a channel hung up, a bridge or playback ended."""


class Ari:
    """A client of one Asterisk for one Stasis application.

    ``phones_app`` is a second one on the same socket, which phones are followed by: a channel of theirs that is in the
    first would otherwise tell everything twice. ``may_act`` says before each request whether this process may (still)
    act there. ``server``: the name of this Asterisk among several.
    """

    def __init__(  # noqa: PLR0913 - one thing each
        self,
        url: str,
        app: str,
        user: str,
        password: str,
        may_act: Callable[[], Awaitable[bool]] | None = None,
        *,
        server: str = MAIN,
    ) -> None:
        self._url = url.rstrip("/")
        self.server = server
        self.app = app
        self.phones_app = f"{app}-phones"
        self._user = user
        self._headers = {"Authorization": aiohttp.encode_basic_auth(user, password)}
        self._may_act = may_act
        self._http: aiohttp.ClientSession | None = None
        # Kept by whoever reads the events.
        self.connected = asyncio.Event()
        self._leaving = asyncio.Event()
        self._given_up = False
        # Whether an event socket was given up before Asterisk had answered, since one that lasted.
        self._abandoned = False

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS)
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        self._http = aiohttp.ClientSession(headers=self._headers, connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http:
            await self._http.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - JSON, as is the answer
        **params: str | int,
    ) -> Any:  # noqa: ANN401
        """Make one request and give the JSON of its answer, None if it has none.

        Raises:
            GoneError: what it is about has gone (404, 409 and 422).
            AriDeniedError: user name or password are wrong.
            AriUnreachableError: no answer in time.
            AriError: any other refusal.

        """
        assert self._http is not None, "used outside its context"  # noqa: S101
        if self._may_act and not await self._may_act():
            raise AriError(f"{method} {path}: not made, since another process serves now")
        if self._http.closed or self._given_up:
            # Of what is still to be done after the end.
            raise AriError(f"{method} {path}: not made any more")
        # The path below the collection holds ids only; queries may hold a caller's number: not in messages.
        try:
            async with self._http.request(method, self._url + path, json=body, params=params) as answer:
                if answer.ok:
                    return await answer.json() if answer.content_type == "application/json" else None
                reason = f"{method} {path}: {answer.status} {await _message(answer)}"
        except TimeoutError:
            self._given_up = self._leaving.is_set()
            raise AriUnreachableError(f"{method} {path}: no answer in {REQUEST_SECONDS:g} s") from None
        except aiohttp.ClientError as fault:
            raise AriUnreachableError(f"{method} {path}: {fault}") from None
        except ValueError:
            raise AriError(f"{method} {path}: answered with what is no JSON; is {self._url} Asterisk's ARI?") from None
        # For a bridge that does not find one of the channels it is told of, "gone" is a bad request.
        if answer.status in GONE or (answer.status == BAD_REQUEST and path.endswith(("/addChannel", "/removeChannel"))):
            raise GoneError(reason)
        if answer.status in (401, 403):
            raise AriDeniedError(f"{self._url}: Asterisk refuses user {self._user!r} or the password")
        raise AriError(reason)

    async def insist(self, method: str, path: str, **params: str | int) -> Any:  # noqa: ANN401
        """Make a request, and again when there was no answer, once Asterisk is back: calls outlive its absence.

        Only for what may be done twice. It fails as :meth:`request` does, but only when Asterisk sends events and has
        not answered this for :data:`PATIENCE_SECONDS`, or after :meth:`leave`.
        """
        now = asyncio.get_running_loop().time
        until = now() + PATIENCE_SECONDS
        while True:
            try:
                return await self.request(method, path, **params)
            except AriUnreachableError:
                if now() >= until or self._leaving.is_set():
                    raise
            # A lost connection may not be known yet.
            await asyncio.sleep(RETRY_SECONDS)
            if not self.connected.is_set():
                await first_of(self.connected, self._leaving)
                until = now() + PATIENCE_SECONDS

    def leave(self) -> None:
        """Insist on nothing from now on: what an Asterisk that is away would have to do is the next process's.

        One that does not answer is not asked anything more.
        """
        self._leaving.set()

    async def create(self, path: str, *, insist: bool = False, **params: str | int) -> None:
        """Make a channel or a bridge under a name of ours.

        To its end even when cancelled: Asterisk makes it all the same, and what is not there yet cannot be discarded.
        """
        ask = self.insist if insist else self.request
        making = asyncio.ensure_future(ask("POST", path, **params))
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            with suppress(AriError):
                await making
            raise

    async def discard(self, path: str, *, insist: bool = False, **params: str | int) -> None:
        """Delete a channel, bridge, playback or music, which may have gone already."""
        ask = self.insist if insist else self.request
        try:
            await ask("DELETE", path, **params)
        except GoneError:
            return

    async def events(self) -> AsyncGenerator[Event | None, None]:
        """Open the event socket and give what comes; the first item is None, when the socket is ready.

        Ends when Asterisk closes the socket.

        Raises:
            AriDeniedError: user name or password are wrong.
            AriUnreachableError: it cannot be opened, or was lost.

        """
        assert self._http is not None, "used outside its context"  # noqa: S101
        url = f"{self._url}/events"
        params = {"app": f"{self.app},{self.phones_app}", "subscribeAll": "false"}
        try:
            async with (
                timeout(REQUEST_SECONDS) as opening,
                self._http.ws_connect(
                    url,
                    params=params,
                    heartbeat=HEARTBEAT_SECONDS,
                    max_msg_size=LARGEST_MESSAGE,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                ) as socket,
            ):
                await self._set_filter(self.app, WANTED)
                await self._set_filter(self.phones_app, WANTED_OF_PHONES)
                opening.reschedule(None)
                lasts = asyncio.get_running_loop().time() + ECHO_SECONDS
                yield None
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break
                    event = _event(message.data)
                    self._abandoned &= asyncio.get_running_loop().time() < lasts
                    if isinstance(event, ApplicationReplaced) and self._abandoned:
                        raise AriUnreachableError(
                            "an attempt of before, which Asterisk has only now seen, took its place"
                        )
                    if event:
                        yield event
                if socket.exception():
                    raise AriUnreachableError(f"event socket lost: {socket.exception()}")
        except aiohttp.WSServerHandshakeError as fault:
            raise self._refusal(url, fault.status) from None
        except TimeoutError:
            self._abandoned = True
            raise AriUnreachableError(f"{url}: no event socket in {REQUEST_SECONDS:g} s") from None
        except aiohttp.ClientError as fault:
            raise AriUnreachableError(f"{url}: {fault}") from None

    def _refusal(self, url: str, status: int) -> AriError:
        if status in (401, 403):
            return AriDeniedError(f"{self._url}: Asterisk refuses user {self._user!r} or the password")
        return AriUnreachableError(f"{url}: answered {status}")

    async def _set_filter(self, app: str, wanted: Iterable[str]) -> None:
        # Asterisk forgets the filter when the application goes, so it is set after each connect.
        allowed = {"allowed": [{"type": name} for name in wanted]}
        await self.request("PUT", f"/applications/{app}/eventFilter", allowed)


def _event(text: str) -> Event | None:
    try:
        return parse(json.loads(text))
    except (KeyError, ValueError) as fault:
        log.error("event not understood and left alone", reason=repr(fault))  # noqa: TRY400
        return None


async def _message(answer: aiohttp.ClientResponse) -> str:
    try:
        body = await answer.json()
        return str(body.get("message") or body.get("error"))
    except (ValueError, AttributeError, aiohttp.ContentTypeError):
        return answer.reason or "no reason given"
