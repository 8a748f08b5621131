"""Keeps the connection with Asterisk: takes calls in, hands events out, and tidies up after absences."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from idbellen.asterisk.ari import Ari, AriError, GoneError
from idbellen.asterisk.bridge import BRIDGE_PREFIX
from idbellen.asterisk.events import ApplicationReplaced, DeviceStateChanged, StasisEnd, StasisStart
from idbellen.asterisk.features import FEATURE_ARG
from idbellen.asterisk.legs import LEG_PREFIX, OWN_ARG, Legs
from idbellen.asterisk.lines import Lines
from idbellen.asterisk.monitor import MONITOR_PREFIX, SNOOP_PREFIX, SUPERVISOR_PREFIX
from idbellen.asterisk.phone import AWAY_CONTEXT, CallerPhone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from idbellen.asterisk.endpoints import Endpoints
    from idbellen.asterisk.events import Event
    from idbellen.asterisk.features import FeatureCodes

log = structlog.get_logger()

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0
STRANGER_SECONDS = 1.0


class ReplacedError(Exception):
    """Another process took over our application name; two that answer the same calls would be chaos."""


class Switchboard:
    """One Stasis application on one Asterisk."""

    def __init__(
        self,
        ari: Ari,
        take_call: Callable[[CallerPhone], Awaitable[None]],
        *,
        features: FeatureCodes | None = None,
        endpoints: Endpoints | None = None,
    ) -> None:
        self._ari = ari
        self._take_call = take_call
        self._features = features
        self._endpoints = endpoints
        self.lines = Lines()
        self.legs = Legs(ari, self.lines)
        # Who still talks of those whom an earlier process connected, each with the bridge.
        self._earlier: dict[str, str] = {}
        self._strangers: set[str] = set()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Take calls until cancelled; a lost connection is opened again, ever more slowly.

        At a cancellation callers who wait go to the fallback of the dialplan, and people who talk go on.

        Raises:
            ReplacedError: another process uses the same application name.

        """
        now = asyncio.get_running_loop().time
        backoff = FIRST_BACKOFF_SECONDS
        async with asyncio.TaskGroup() as calls:
            while True:
                reason = "Asterisk closed the connection"
                since = now()
                try:
                    async with aclosing(self._ari.events()) as events:
                        async for event in events:
                            if event is None:
                                await self._reconcile(calls)
                                self.ready.set()
                                if self._endpoints:
                                    self._endpoints.connected()
                                log.info("connected with Asterisk", app=self._ari.app)
                            else:
                                self._take(event, calls)
                except AriError as fault:
                    reason = str(fault)
                if self.ready.is_set() and now() - since > LONGEST_BACKOFF_SECONDS:
                    # An Asterisk that takes connections and closes them at once is not asked over and over.
                    backoff = FIRST_BACKOFF_SECONDS
                if self.ready.is_set() or backoff == FIRST_BACKOFF_SECONDS:
                    log.error("no connection with Asterisk", reason=reason)
                self.ready.clear()
                if self._endpoints:
                    self._endpoints.lost()
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
                backoff = min(LONGEST_BACKOFF_SECONDS, backoff * 2)

    def _take(self, event: Event, calls: asyncio.TaskGroup) -> None:
        if isinstance(event, ApplicationReplaced):
            raise ReplacedError
        if isinstance(event, DeviceStateChanged):
            if self._endpoints:
                self._endpoints.take(event)
        elif isinstance(event, StasisStart) and event.replaces:
            self._refuse_replacement(event.channel, event.replaces, calls)
        elif isinstance(event, StasisStart) and not self.lines.known(event.channel):
            self._come_in(event, calls)
        elif isinstance(event, StasisEnd) and event.channel in self._earlier:
            calls.create_task(self._leave_earlier(event.channel))
        else:
            self.lines.dispatch(event)

    def _come_in(self, start: StasisStart, calls: asyncio.TaskGroup) -> None:
        self._strangers.discard(start.channel)
        if OWN_ARG in start.args:
            # A phone that was answered just after its call had ended.
            calls.create_task(self._discard(f"/channels/{start.channel}"))
        elif FEATURE_ARG in start.args and self._features:
            calls.create_task(self._feature(start, self._features), name=f"feature {start.channel}")
        else:
            calls.create_task(self._call(start), name=f"call {start.channel}")

    def _refuse_replacement(self, channel: str, replaced: str, calls: asyncio.TaskGroup) -> None:
        """End the part of a call whose phone transferred it by itself: nobody knows who that brings in.

        Neither the caller's data nor a secret moves along; the dashboard's transfer is the way that does that.
        """
        log.warning("transfer by a phone itself refused: use the dashboard's", channel=replaced, replacement=channel)
        self.lines.dispatch(StasisEnd(replaced))
        calls.create_task(self._discard(f"/channels/{channel}"))

    async def _call(self, start: StasisStart) -> None:
        with self.lines.line(start.channel) as line:
            phone = CallerPhone(self._ari, line, self.legs, caller=start.caller)
            log.info("call", call=phone.call, channel=start.channel)
            try:
                await self._take_call(phone)
            except asyncio.CancelledError:
                await phone.hand_over()
                raise
            finally:
                await phone.close()

    async def _feature(self, start: StasisStart, features: FeatureCodes) -> None:
        with self.lines.line(start.channel) as line:
            phone = CallerPhone(self._ari, line, self.legs, caller=start.caller)
            try:
                await features.serve(phone, start)
            except Exception:
                # The other calls go on.
                log.exception("feature code failed", channel=start.channel)
            finally:
                await phone.close()

    async def _reconcile(self, calls: asyncio.TaskGroup) -> None:
        """Find out what happened while nobody listened.

        Calls in hand whose channel is gone are told so. What an earlier process left: talking pairs go on,
        other callers hear that we are away and are helped by the dialplan, the rest is ended.
        """
        alive = {channel["id"] for channel in await self._ari.request("GET", "/channels")}
        self.lines.missed_events(alive)
        application = await self._ari.request("GET", f"/applications/{self._ari.app}")
        strangers = {id_ for id_ in application["channel_ids"] if not self.lines.known(id_)}
        self._earlier.clear()
        for bridge in await self._ari.request("GET", "/bridges"):
            # A supervisor who joined goes, as at a planned stop.
            inside = [channel for channel in bridge["channels"] if not channel.startswith(SUPERVISOR_PREFIX)]
            if any(map(self.lines.known, inside)):
                continue
            if bridge["id"].startswith(BRIDGE_PREFIX) and _somebody_talks(inside):
                self._earlier |= dict.fromkeys(inside, bridge["id"])
            elif bridge["id"].startswith((BRIDGE_PREFIX, MONITOR_PREFIX)):
                await self._discard(f"/bridges/{bridge['id']}")
        self._strangers = (strangers & alive) - self._earlier.keys()
        calls.create_task(self._send_strangers_away())

    async def _send_strangers_away(self) -> None:
        # A call that came in just now is a stranger too, until the news of it is read.
        await asyncio.sleep(STRANGER_SECONDS)
        while self._strangers:
            await self._send_away(self._strangers.pop())

    async def _leave_earlier(self, channel: str) -> None:
        bridge = self._earlier.pop(channel, None)
        if bridge is None:
            # Ended together with the other.
            return
        left = [other for other, its_bridge in self._earlier.items() if its_bridge == bridge]
        if _somebody_talks(left):
            return
        await self._discard(f"/bridges/{bridge}")
        for other in left:
            del self._earlier[other]
            await self._discard(f"/channels/{other}")

    async def _send_away(self, channel: str) -> None:
        if channel.startswith((LEG_PREFIX, SNOOP_PREFIX)):
            # Agents and supervisors whose caller is held, or has gone.
            await self._discard(f"/channels/{channel}")
            return
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


def _somebody_talks(channels: list[str]) -> bool:
    """Whether a caller is among them, and somebody else."""
    return len(channels) > 1 and not all(channel.startswith(LEG_PREFIX) for channel in channels)
