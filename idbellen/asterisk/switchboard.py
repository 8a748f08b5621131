"""Keeps the connection with Asterisk: takes calls in, hands events out, and tidies up after absences."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from idbellen.aio import reconnecting
from idbellen.asterisk.ari import Ari, AriError
from idbellen.asterisk.bridge import BRIDGE_PREFIX
from idbellen.asterisk.events import ApplicationReplaced, EndpointStateChanged, StasisEnd, StasisStart
from idbellen.asterisk.legs import LEG_PREFIX, OWN_ARG, Legs
from idbellen.asterisk.lines import Lines
from idbellen.asterisk.monitor import MONITOR_PREFIX, SNOOP_PREFIX, SUPERVISOR_PREFIX
from idbellen.asterisk.phone import CallerPhone
from idbellen.calls.found import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from idbellen.asterisk.endpoints import Endpoints
    from idbellen.asterisk.events import Event
    from idbellen.calls.feature_codes import FeatureCodes
    from idbellen.calls.stories import Stories
    from idbellen.domain.notes import CallNote

log = structlog.get_logger()

# The dialplan's Stasis(APP,feature,login|logout|pause).
FEATURE_ARG = "feature"
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0
STRANGER_SECONDS = 1.0
# What Asterisk says a channel does that is in an application of ours.
STASIS = "Stasis"
# What it says of a channel that is answered.
UP = "Up"


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
        self._earlier = list(earlier)
        self.lines = Lines()
        self.legs = Legs(ari, self.lines, dial)
        # Who talks in our bridges without a note of it, each with the bridge.
        self._unnoted: dict[str, str] = {}
        self._strangers: dict[str, tuple[StasisStart, bool]] = {}
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
                        await self._reconcile(calls)
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
        elif isinstance(event, StasisEnd) and event.channel in self._unnoted:
            calls.create_task(self._leave_unnoted(event.channel))
        elif isinstance(event, StasisEnd) and event.channel in self._strangers:
            del self._strangers[event.channel]
        else:
            self.lines.dispatch(event)

    def _come_in(self, start: StasisStart, calls: asyncio.TaskGroup) -> None:
        self._strangers.pop(start.channel, None)
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

    async def _call(self, start: StasisStart, *, up: bool = False) -> None:
        with self.lines.line(start.channel) as line:
            phone = CallerPhone(self._ari, line, self.legs, caller=start.caller, up=up)
            log.info("call", call=phone.call, channel=start.channel)
            try:
                await self._stories.take(phone)
            finally:
                await phone.close()

    async def _resume(self, note: CallNote, caller: str, *, up: bool) -> None:
        with self.lines.line(note.channel) as line:
            phone = CallerPhone(self._ari, line, self.legs, caller=caller, up=up)
            phone.go_on(note.call, note.playing)
            log.info("call of an earlier process taken up", call=note.call, channel=note.channel)
            try:
                await self._stories.take_up(phone, note)
            finally:
                await phone.close()
                if not self.legs.handed_over:
                    await self._tidy(note)

    async def _close(self, note: CallNote) -> None:
        log.info("caller of an earlier process has gone", call=note.call, channel=note.channel)
        await self._tidy(note)
        await self._stories.close(note)

    async def _tidy(self, note: CallNote) -> None:
        """Leave nothing of a conversation of an earlier process that was not needed after all."""
        if note.talk:
            await self._discard(f"/bridges/{note.talk.bridge}")
        for party in note.parties:
            if self.lines.drop(party.channel):
                await self._discard(f"/channels/{party.channel}")

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

    async def _reconcile(self, calls: asyncio.TaskGroup) -> None:
        """Find out what happened while nobody listened.

        Calls in hand whose channel is gone are told so. Of what an earlier process left, the calls with a note are
        taken up where they were, callers without one are asked for their code, pairs who talk without one go on
        talking, and the rest is ended.
        """
        channels = {channel["id"]: channel for channel in await self._ari.request("GET", "/channels")}
        application = await self._ari.request("GET", f"/applications/{self._ari.app}")
        bridges = {bridge["id"]: set(bridge["channels"]) for bridge in await self._ari.request("GET", "/bridges")}
        # From here on nothing awaits before all channels that are ours are followed: no event gets lost in between.
        self.lines.missed_events(set(channels))
        ours = {name: inside for name, inside in bridges.items() if name.startswith((BRIDGE_PREFIX, MONITOR_PREFIX))}
        earlier, self._earlier = self._earlier, []
        taken = self._stories.as_found(earlier, _found(ours, channels))
        for note in taken:
            self._adopt(note, channels, calls)
        noted = {note.talk.bridge for note in taken if note.talk}
        self._unnoted.clear()
        callers = {note.channel for note in taken}
        orphans = []
        for name, inside in ours.items():
            # A supervisor who joined goes.
            people = [channel for channel in inside if not channel.startswith(SUPERVISOR_PREFIX)]
            if name in noted or any(self.lines.known(channel) for channel in people if channel not in callers):
                continue
            if name.startswith(BRIDGE_PREFIX) and _somebody_talks(people) and not callers.intersection(people):
                self._unnoted |= dict.fromkeys(people, name)
            else:
                orphans.append((name, callers.intersection(people)))
        own = channels.keys() & set(application["channel_ids"]) - self._unnoted.keys()
        strangers = {id_ for id_ in own if not self.lines.known(id_)}
        legs = {id_ for id_ in strangers if id_.startswith((LEG_PREFIX, SNOOP_PREFIX))}
        self._strangers = {id_: (_start(channels[id_]), channels[id_]["state"] == UP) for id_ in strangers - legs}
        for name, inside in orphans:
            for caller in inside:
                # An agent had just answered, or has just hung up. Taken out first, or the next prompt may never end.
                await self._try("POST", f"/bridges/{name}/removeChannel", channel=caller)
            await self._discard(f"/bridges/{name}")
        for leg in legs:
            await self._discard(f"/channels/{leg}")
        calls.create_task(self._take_strangers_in(calls))

    def _adopt(self, note: CallNote, channels: Mapping[str, Any], calls: asyncio.TaskGroup) -> None:
        """Take up a call, or end it if the caller has gone."""
        for party in note.parties:
            self.lines.adopt(party.channel, alive=party.channel in channels)
        channel = channels.get(note.channel)
        # Who was sent on to the dialplan is no longer ours.
        if channel is None or channel["dialplan"]["app_name"] != STASIS:
            calls.create_task(self._close(note), name=f"end of {note.channel}")
            return
        self.lines.adopt(note.channel, alive=True)
        story = self._resume(note, channel["caller"]["number"], up=channel["state"] == UP)
        calls.create_task(story, name=f"call {note.channel}")

    async def _take_strangers_in(self, calls: asyncio.TaskGroup) -> None:
        # A call that came in just now is a stranger too, until the news of it is read.
        await asyncio.sleep(STRANGER_SECONDS)
        # One by one, since news of others can come in between.
        while self._strangers:
            _, (start, up) = self._strangers.popitem()
            if FEATURE_ARG in start.args:
                # An agent's phone, which had been heard or can try again.
                await self._discard(f"/channels/{start.channel}")
            else:
                log.warning("caller without a note asked for the code", channel=start.channel)
                calls.create_task(self._call(start, up=up), name=f"call {start.channel}")

    async def _leave_unnoted(self, channel: str) -> None:
        bridge = self._unnoted.pop(channel, None)
        if bridge is None:
            # Ended together with the other.
            return
        left = [other for other, its_bridge in self._unnoted.items() if its_bridge == bridge]
        if _somebody_talks(left):
            return
        await self._discard(f"/bridges/{bridge}")
        for other in left:
            del self._unnoted[other]
            await self._discard(f"/channels/{other}")

    async def _try(self, method: str, path: str, **params: str) -> None:
        try:
            await self._ari.request(method, path, **params)
        except AriError as fault:
            log.warning("could not be tidied up", path=path, reason=str(fault))

    async def _discard(self, path: str) -> None:
        try:
            await self._ari.discard(path)
        except AriError as fault:
            log.warning("could not be tidied up", path=path, reason=str(fault))


def _start(channel: Mapping[str, Any]) -> StasisStart:
    """Give the event that a channel in our application began with (``Stasis(APP,ARGS)``)."""
    args = channel["dialplan"]["app_data"].split(",")[1:]
    return StasisStart(channel["id"], tuple(args), channel["name"], channel["caller"]["number"])


def _found(bridges: Mapping[str, set[str]], channels: Mapping[str, Any]) -> dict[str, Found]:
    """Give where those are who talk with phones of ours."""
    found: dict[str, Found] = {}
    for name, inside in bridges.items():
        phones = {
            channel: channels[channel]["name"].rpartition("-")[0]
            for channel in sorted(inside & channels.keys())
            if channel.startswith(LEG_PREFIX) and not channel.startswith(SUPERVISOR_PREFIX)
        }
        if name.startswith(BRIDGE_PREFIX) and phones:
            found |= dict.fromkeys(inside - phones.keys(), Found(name, phones))
    return found


def _somebody_talks(channels: list[str]) -> bool:
    """Whether a caller is among them, and somebody else."""
    return len(channels) > 1 and not all(channel.startswith(LEG_PREFIX) for channel in channels)
