"""Keeps the connection with Asterisk: takes calls in, hands events out, and tidies up after absences."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from idbellen.asterisk.ari import Ari, AriError, GoneError
from idbellen.asterisk.events import ApplicationReplaced, StasisEnd, StasisStart
from idbellen.asterisk.lines import Lines
from idbellen.asterisk.phone import AGENT_ARG, AWAY_CONTEXT, BRIDGE_PREFIX, CallerPhone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from idbellen.asterisk.events import Event

log = structlog.get_logger()

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0
STRANGER_SECONDS = 1.0


class ReplacedError(Exception):
    """Another process took over our application name; two that answer the same calls would be chaos."""


class Switchboard:
    """One Stasis application on one Asterisk."""

    def __init__(self, ari: Ari, take_call: Callable[[CallerPhone], Awaitable[None]]) -> None:
        self._ari = ari
        self._take_call = take_call
        self._lines = Lines()
        self._earlier_pairs: dict[str, tuple[str, str]] = {}
        self._strangers: set[str] = set()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Take calls until cancelled; a lost connection is opened again, ever more slowly.

        At a cancellation callers who wait go to the fallback of the dialplan, and people who talk go on.

        Raises:
            ReplacedError: another process uses the same application name.

        """
        backoff = FIRST_BACKOFF_SECONDS
        async with asyncio.TaskGroup() as calls:
            while True:
                reason = "Asterisk closed the connection"
                try:
                    async with aclosing(self._ari.events()) as events:
                        async for event in events:
                            if event is None:
                                await self._reconcile(calls)
                                backoff = FIRST_BACKOFF_SECONDS
                                self.ready.set()
                                log.info("connected with Asterisk", app=self._ari.app)
                            else:
                                self._take(event, calls)
                except AriError as fault:
                    reason = str(fault)
                if self.ready.is_set() or backoff == FIRST_BACKOFF_SECONDS:
                    log.error("no connection with Asterisk", reason=reason)
                self.ready.clear()
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
                backoff = min(LONGEST_BACKOFF_SECONDS, backoff * 2)

    def _take(self, event: Event, calls: asyncio.TaskGroup) -> None:
        if isinstance(event, ApplicationReplaced):
            raise ReplacedError
        if isinstance(event, StasisStart) and not self._lines.known(event.channel):
            self._come_in(event, calls)
        elif isinstance(event, StasisEnd) and event.channel in self._earlier_pairs:
            calls.create_task(self._end_pair(event.channel))
        else:
            self._lines.dispatch(event)

    def _come_in(self, start: StasisStart, calls: asyncio.TaskGroup) -> None:
        self._strangers.discard(start.channel)
        if AGENT_ARG in start.args:
            # A phone that was answered just after its call had ended.
            calls.create_task(self._discard(f"/channels/{start.channel}"))
        else:
            calls.create_task(self._call(start), name=f"call {start.channel}")

    async def _call(self, start: StasisStart) -> None:
        with self._lines.line(start.channel) as line:
            phone = CallerPhone(self._ari, line, self._lines, caller=start.caller)
            log.info("call", call=phone.call, channel=start.channel)
            try:
                await self._take_call(phone)
            except asyncio.CancelledError:
                await phone.hand_over()
                raise
            finally:
                await phone.close()

    async def _reconcile(self, calls: asyncio.TaskGroup) -> None:
        """Find out what happened while nobody listened.

        Calls in hand whose channel is gone are told so. What an earlier process left: talking pairs go on,
        other callers hear that we are away and are helped by the dialplan, the rest is ended.
        """
        alive = {channel["id"] for channel in await self._ari.request("GET", "/channels")}
        self._lines.missed_events(alive)
        application = await self._ari.request("GET", f"/applications/{self._ari.app}")
        strangers = {id_ for id_ in application["channel_ids"] if not self._lines.known(id_)}
        self._earlier_pairs.clear()
        for bridge in await self._ari.request("GET", "/bridges"):
            inside = bridge["channels"]
            if not bridge["id"].startswith(BRIDGE_PREFIX) or any(map(self._lines.known, inside)):
                continue
            if len(inside) > 1:
                self._earlier_pairs |= {inside[0]: (inside[1], bridge["id"]), inside[1]: (inside[0], bridge["id"])}
            else:
                await self._discard(f"/bridges/{bridge['id']}")
        self._strangers = (strangers & alive) - self._earlier_pairs.keys()
        calls.create_task(self._send_strangers_away())

    async def _send_strangers_away(self) -> None:
        # A call that came in just now is a stranger too, until the news of it is read.
        await asyncio.sleep(STRANGER_SECONDS)
        while self._strangers:
            await self._send_away(self._strangers.pop())

    async def _end_pair(self, channel: str) -> None:
        other, bridge = self._earlier_pairs.pop(channel)
        self._earlier_pairs.pop(other, None)
        await self._discard(f"/bridges/{bridge}")
        await self._discard(f"/channels/{other}")

    async def _send_away(self, channel: str) -> None:
        try:
            await self._ari.request(
                "POST", f"/channels/{channel}/continue", context=AWAY_CONTEXT, extension="s", priority=1
            )
            log.warning("caller of an earlier process sent to the fallback", channel=channel)
        except GoneError:
            # Not in our application (any more): a phone that an earlier process rang, or one just hung up.
            await self._discard(f"/channels/{channel}")
        except AriError as fault:
            log.warning("channel of an earlier process left alone", channel=channel, reason=str(fault))

    async def _discard(self, path: str) -> None:
        try:
            await self._ari.discard(path)
        except AriError as fault:
            log.warning("could not be tidied up", path=path, reason=str(fault))
