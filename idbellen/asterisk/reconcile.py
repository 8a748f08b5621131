"""What happened on an Asterisk while nobody listened, and what an earlier process left there (decision 0009)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from idbellen.asterisk.ari import Ari, AriError
from idbellen.asterisk.bridge import BRIDGE_PREFIX
from idbellen.asterisk.events import StasisStart
from idbellen.asterisk.legs import LEG_PREFIX
from idbellen.asterisk.monitor import MONITOR_PREFIX, SNOOP_PREFIX, SUPERVISOR_PREFIX
from idbellen.asterisk.phone import CallerPhone
from idbellen.calls.found import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from idbellen.asterisk.legs import Legs
    from idbellen.asterisk.lines import Lines
    from idbellen.calls.stories import Stories
    from idbellen.domain.notes import CallNote

log = structlog.get_logger()

# The dialplan's Stasis(APP,feature,login|logout|pause).
FEATURE_ARG = "feature"
STRANGER_SECONDS = 1.0
# What Asterisk says a channel does that is in an application of ours.
STASIS = "Stasis"
# What it says of a channel that is answered.
UP = "Up"


@dataclass(frozen=True, slots=True)
class Present:
    """What an Asterisk has at one moment: all channels, those in our application, and who is in our bridges."""

    channels: Mapping[str, Any]
    own: frozenset[str]
    bridges: Mapping[str, set[str]]

    def found(self) -> dict[str, Found]:
        """Give where those are who talk with phones of ours."""
        found: dict[str, Found] = {}
        for name, inside in self.bridges.items():
            phones = {
                channel: self.channels[channel]["name"].rpartition("-")[0]
                for channel in sorted(inside & self.channels.keys())
                if channel.startswith(LEG_PREFIX) and not channel.startswith(SUPERVISOR_PREFIX)
            }
            if name.startswith(BRIDGE_PREFIX) and phones:
                found |= dict.fromkeys(inside - phones.keys(), Found(name, phones))
        return found


class Reconciliation:
    """Brings what we know of one Asterisk and what it has together again, after each connecting.

    ``earlier``: the calls of an earlier process on it, to be taken up. ``take_in`` begins the story of a caller of whom
    nothing is known, with whether the channel is answered.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one thing each
        self,
        ari: Ari,
        stories: Stories,
        lines: Lines,
        legs: Legs,
        earlier: Iterable[CallNote],
        take_in: Callable[[StasisStart, bool], Coroutine[None, None, None]],
    ) -> None:
        self._ari = ari
        self._stories = stories
        self._lines = lines
        self._legs = legs
        self._earlier = list(earlier)
        self._take_in = take_in
        # Those who talk in our bridges without a note of it, each with the bridge.
        self._unnoted: dict[str, str] = {}
        self._strangers: dict[str, tuple[StasisStart, bool]] = {}

    async def run(self, calls: asyncio.TaskGroup) -> None:
        """Find out what happened.

        Calls in hand whose channel is gone are told so. Of what an earlier process left, the calls with a note are
        taken up where they were, callers without one are asked for their code, pairs who talk without one go on
        talking, and the rest is ended.
        """
        present = await self._look()
        # From here on nothing awaits before all channels that are ours are followed: no event gets lost in between.
        self._lines.missed_events(set(present.channels))
        earlier, self._earlier = self._earlier, []
        taken = self._stories.as_found(earlier, present.found())
        for note in taken:
            self._adopt(note, present.channels, calls)
        orphans = self._leave_pairs_alone(present, taken)
        strangers = {id_ for id_ in present.own - self._unnoted.keys() if not self._lines.known(id_)}
        legs = {id_ for id_ in strangers if id_.startswith((LEG_PREFIX, SNOOP_PREFIX))}
        self._strangers = {
            id_: (_start(present.channels[id_]), present.channels[id_]["state"] == UP) for id_ in strangers - legs
        }
        for name, callers in orphans:
            for caller in callers:
                # An agent had just answered, or has just hung up. Taken out first, or the next prompt may never end.
                await self._try("POST", f"/bridges/{name}/removeChannel", channel=caller)
            await self.discard(f"/bridges/{name}")
        for leg in legs:
            await self.discard(f"/channels/{leg}")
        calls.create_task(self._take_strangers_in(calls))

    def comes(self, channel: str) -> None:
        """Note that a channel begins its story, by an event of its own."""
        self._strangers.pop(channel, None)

    def goes(self, channel: str, calls: asyncio.TaskGroup) -> bool:
        """Note that a channel has gone; False if it is none that was found."""
        if channel in self._unnoted:
            calls.create_task(self._leave_unnoted(channel))
            return True
        return self._strangers.pop(channel, None) is not None

    async def discard(self, path: str) -> None:
        """Delete a channel or a bridge that nobody needs; what cannot be tidied up is told."""
        try:
            await self._ari.discard(path)
        except AriError as fault:
            log.warning("could not be tidied up", path=path, reason=str(fault))

    async def _look(self) -> Present:
        channels = {channel["id"]: channel for channel in await self._ari.request("GET", "/channels")}
        application = await self._ari.request("GET", f"/applications/{self._ari.app}")
        bridges = {bridge["id"]: set(bridge["channels"]) for bridge in await self._ari.request("GET", "/bridges")}
        ours = {name: inside for name, inside in bridges.items() if name.startswith((BRIDGE_PREFIX, MONITOR_PREFIX))}
        return Present(channels, frozenset(channels.keys() & set(application["channel_ids"])), ours)

    # Calls with a note

    def _adopt(self, note: CallNote, channels: Mapping[str, Any], calls: asyncio.TaskGroup) -> None:
        """Take up a call, or end it if the caller has gone."""
        for party in note.parties:
            self._lines.adopt(party.channel, alive=party.channel in channels)
        channel = channels.get(note.channel)
        # A caller who was sent on to the dialplan is no longer ours.
        if channel is None or channel["dialplan"]["app_name"] != STASIS:
            calls.create_task(self._close(note), name=f"end of {note.channel}")
            return
        self._lines.adopt(note.channel, alive=True)
        story = self._resume(note, channel["caller"]["number"], up=channel["state"] == UP)
        calls.create_task(story, name=f"call {note.channel}")

    async def _resume(self, note: CallNote, caller: str, *, up: bool) -> None:
        with self._lines.line(note.channel) as line:
            phone = CallerPhone(self._ari, line, self._legs, caller=caller, up=up)
            phone.go_on(note.call, note.playing)
            log.info("call of an earlier process taken up", call=note.call, channel=note.channel)
            try:
                await self._stories.take_up(phone, note)
            finally:
                await phone.close()
                if not self._legs.handed_over:
                    await self._tidy(note)

    async def _close(self, note: CallNote) -> None:
        log.info("caller of an earlier process has gone", call=note.call, channel=note.channel)
        await self._tidy(note)
        await self._stories.close(note)

    async def _tidy(self, note: CallNote) -> None:
        """Leave nothing of a conversation of an earlier process that was not needed after all."""
        if note.talk:
            await self.discard(f"/bridges/{note.talk.bridge}")
        for party in note.parties:
            if self._lines.drop(party.channel):
                await self.discard(f"/channels/{party.channel}")

    # Without a note

    def _leave_pairs_alone(self, present: Present, taken: Iterable[CallNote]) -> list[tuple[str, set[str]]]:
        """Let those who talk without a note go on; gives the other bridges that nobody needs, with callers in them."""
        noted = {note.talk.bridge for note in taken if note.talk}
        callers = {note.channel for note in taken}
        self._unnoted.clear()
        orphans = []
        for name, inside in present.bridges.items():
            # A supervisor who joined goes.
            people = [channel for channel in inside if not channel.startswith(SUPERVISOR_PREFIX)]
            if name in noted or any(self._lines.known(channel) for channel in people if channel not in callers):
                continue
            if name.startswith(BRIDGE_PREFIX) and _somebody_talks(people) and not callers.intersection(people):
                self._unnoted |= dict.fromkeys(people, name)
            else:
                orphans.append((name, callers.intersection(people)))
        return orphans

    async def _leave_unnoted(self, channel: str) -> None:
        bridge = self._unnoted.pop(channel, None)
        if bridge is None:
            # Ended together with the other.
            return
        left = [other for other, its_bridge in self._unnoted.items() if its_bridge == bridge]
        if _somebody_talks(left):
            return
        await self.discard(f"/bridges/{bridge}")
        for other in left:
            del self._unnoted[other]
            await self.discard(f"/channels/{other}")

    async def _take_strangers_in(self, calls: asyncio.TaskGroup) -> None:
        # A call that came in just now is a stranger too, until the news of it is read.
        await asyncio.sleep(STRANGER_SECONDS)
        # One by one, since news of others can come in between.
        while self._strangers:
            _, (start, up) = self._strangers.popitem()
            if FEATURE_ARG in start.args:
                # An agent's phone, which had been heard or can try again.
                await self.discard(f"/channels/{start.channel}")
            else:
                log.warning("caller without a note asked for the code", channel=start.channel)
                calls.create_task(self._take_in(start, up), name=f"call {start.channel}")

    async def _try(self, method: str, path: str, **params: str) -> None:
        try:
            await self._ari.request(method, path, **params)
        except AriError as fault:
            log.warning("could not be tidied up", path=path, reason=str(fault))


def _start(channel: Mapping[str, Any]) -> StasisStart:
    """Give the event that a channel in our application began with (``Stasis(APP,ARGS)``)."""
    args = channel["dialplan"]["app_data"].split(",")[1:]
    return StasisStart(channel["id"], tuple(args), channel["name"], channel["caller"]["number"])


def _somebody_talks(channels: list[str]) -> bool:
    """Whether a caller is among them, and somebody else."""
    return len(channels) > 1 and not all(channel.startswith(LEG_PREFIX) for channel in channels)
