"""Keeps the connection with Asterisk: takes calls in, and hands events out."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from idbellen.aio import reconnecting
from idbellen.asterisk.ari import Ari, AriError
from idbellen.asterisk.events import ApplicationReplaced, EndpointStateChanged, StasisEnd, StasisStart
from idbellen.asterisk.legs import OWN_ARG, Legs
from idbellen.asterisk.lines import Lines
from idbellen.asterisk.phone import CallerPhone
from idbellen.asterisk.reconcile import FEATURE_ARG, Reconciliation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from idbellen.asterisk.endpoints import Endpoints
    from idbellen.asterisk.events import Event
    from idbellen.calls.feature_codes import FeatureCodes
    from idbellen.calls.stories import Stories
    from idbellen.domain.notes import CallNote

log = structlog.get_logger()

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0


class ReplacedError(Exception):
    """Another process took over our application name; two that answer the same calls would be chaos."""


class Switchboard:
    """One Stasis application on one Asterisk.

    ``earlier``: the calls of an earlier process on this Asterisk, to be taken up. ``dial`` gives what it rings for a
    phone.
    """

    def __init__(  # noqa: PLR0913 - one thing each
        self,
        ari: Ari,
        stories: Stories,
        *,
        features: FeatureCodes | None = None,
        endpoints: Endpoints | None = None,
        earlier: Iterable[CallNote] = (),
        dial: Callable[[str], str] = str,
    ) -> None:
        self._ari = ari
        self._stories = stories
        self._features = features
        self._endpoints = endpoints
        self.lines = Lines()
        self.legs = Legs(ari, self.lines, dial)
        self._reconciliation = Reconciliation(
            ari, stories, self.lines, self.legs, earlier, lambda start, up: self._call(start, up=up)
        )
        self.ready = ari.connected

    async def run(self) -> None:
        """Take calls until cancelled; a lost connection is opened again, ever more slowly.

        At a cancellation, and when it is replaced, all calls are left as they are but for phones that ring.

        Raises:
            ReplacedError: another process uses the same application name.

        """
        async with asyncio.TaskGroup() as calls:
            try:
                await self._listen(calls)
            except (asyncio.CancelledError, ReplacedError):
                self.legs.handed_over = True
                self._ari.leave()
                self._stories.hand_over()
                raise

    async def _listen(self, calls: asyncio.TaskGroup) -> None:
        async def once(up: Callable[[], None]) -> None:
            async with aclosing(self._ari.events()) as events:
                async for event in events:
                    if event is None:
                        await self._reconciliation.run(calls)
                        up()
                        self._connected()
                    else:
                        self._take(event, calls)

        await reconnecting(once, self._lost, AriError, first=FIRST_BACKOFF_SECONDS, longest=LONGEST_BACKOFF_SECONDS)

    def _connected(self) -> None:
        self.ready.set()
        self._stories.connected(self._ari.server)
        if self._endpoints:
            self._endpoints.connected()
        log.info("connected with Asterisk", server=self._ari.server, app=self._ari.app)

    def _lost(self, reason: str, news: bool) -> None:  # noqa: FBT001 - as reconnecting() calls it
        if news:
            log.error("no connection with Asterisk", server=self._ari.server, reason=reason)
        self.ready.clear()
        self._stories.lost(self._ari.server)
        if self._endpoints:
            self._endpoints.lost()

    def _take(self, event: Event, calls: asyncio.TaskGroup) -> None:
        if isinstance(event, ApplicationReplaced):
            raise ReplacedError
        if isinstance(event, EndpointStateChanged):
            if self._endpoints:
                self._endpoints.take(event)
        elif isinstance(event, StasisStart) and event.replaces:
            self._refuse_replacement(event.channel, event.replaces, calls)
        elif isinstance(event, StasisStart) and not self.lines.known(event.channel):
            self._come_in(event, calls)
        elif not (isinstance(event, StasisEnd) and self._reconciliation.goes(event.channel, calls)):
            self.lines.dispatch(event)

    def _come_in(self, start: StasisStart, calls: asyncio.TaskGroup) -> None:
        self._reconciliation.comes(start.channel)
        if OWN_ARG in start.args:
            # A phone that was answered just after its call had ended.
            calls.create_task(self._reconciliation.discard(f"/channels/{start.channel}"))
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
        calls.create_task(self._reconciliation.discard(f"/channels/{channel}"))

    async def _call(self, start: StasisStart, *, up: bool = False) -> None:
        with self.lines.line(start.channel) as line:
            phone = CallerPhone(self._ari, line, self.legs, caller=start.caller, up=up)
            log.info("call", call=phone.call, channel=start.channel)
            try:
                await self._stories.take(phone)
            finally:
                await phone.close()

    async def _feature(self, start: StasisStart, features: FeatureCodes) -> None:
        with self.lines.line(start.channel) as line:
            phone = CallerPhone(self._ari, line, self.legs, caller=start.caller)
            try:
                code = start.args[1] if len(start.args) > 1 else ""
                await features.serve(phone, start.name.rpartition("-")[0], code)
            except Exception:
                # The other calls go on.
                log.exception("feature code failed", channel=start.channel)
            finally:
                await phone.close()
