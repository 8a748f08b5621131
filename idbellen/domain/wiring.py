"""Who is connected with whom in a PBX that connects its callers itself, from what it tells of its channels.

Pure: events go in, endpoints come out. Bridges say who hears whom; the two halves of a Local channel count as one wire,
because queues reach their members through these on many a PBX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A queue's announcement to an agent, a whisper, a few hops of Local channels: no real call is longer than this.
MOST_CHANNELS_OF_A_CALL = 64


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that is there.

    ``reference``: of the session that we left at it, if we did. ``asked``: it is a caller's, whom the dialplan sent us.
    """

    uid: str
    name: str
    bridge: str = ""
    reference: str = ""
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a queue, by the interface that the queue rings; ``dynamic``: one that can be taken out again."""

    queue: str
    interface: str
    paused: bool
    dynamic: bool = True


@dataclass(frozen=True, slots=True)
class Queued:
    """A caller who waits in a queue of the PBX, since so many seconds."""

    uid: str
    queue: str
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, after a time without events."""

    channels: tuple[Channel, ...]
    queued: tuple[Queued, ...] = ()
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Members:
    """All members of the queues, asked for again: a change of the PBX's configuration comes without news of it."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """From now on nothing is told."""


@dataclass(frozen=True, slots=True)
class Appeared:
    """A channel has come, or is called differently now."""

    uid: str
    name: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A channel is no more."""

    uid: str


@dataclass(frozen=True, slots=True)
class Entered:
    """A channel has come into a bridge."""

    uid: str
    name: str
    bridge: str


@dataclass(frozen=True, slots=True)
class Left:
    """A channel has left a bridge."""

    uid: str
    bridge: str


@dataclass(frozen=True, slots=True)
class Held:
    """A channel has put who it talks with on hold, or has taken them back."""

    uid: str
    on: bool


@dataclass(frozen=True, slots=True)
class LeftQueue:
    """A caller no longer waits in a queue; ``abandoned``: by hanging up."""

    uid: str
    queue: str
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A member of a queue has answered a caller."""

    uid: str
    queue: str
    interface: str


@dataclass(frozen=True, slots=True)
class MemberGone:
    """A member was taken out of a queue."""

    queue: str
    interface: str


PbxEvent = (
    Snapshot
    | Lost
    | Appeared
    | Gone
    | Entered
    | Left
    | Held
    | Queued
    | LeftQueue
    | Answered
    | Member
    | MemberGone
    | Members
)


def endpoint_of(channel: str) -> str:
    """Give the endpoint of a channel by its name: ``PJSIP/ann`` of ``PJSIP/ann-0000002a``."""
    return channel.rpartition("-")[0]


class Wiring:
    """All channels of a PBX and the bridges that they are in."""

    def __init__(self, channels: Iterable[Channel] = ()) -> None:
        self._names: dict[str, str] = {}
        self._bridges: dict[str, str] = {}
        self._inside: dict[str, dict[str, None]] = {}
        self._halves: dict[str, str] = {}
        self._held: set[str] = set()
        for channel in channels:
            self._name(channel.uid, channel.name)
            if channel.bridge:
                self._enter(channel.uid, channel.bridge)

    def __contains__(self, uid: str) -> bool:
        """Whether a channel is there."""
        return uid in self._names

    def take(self, event: PbxEvent) -> None:
        """Note an event; one that is told again, or about what has gone, has no effect."""
        match event:
            case Appeared(uid=uid, name=name):
                self._name(uid, name)
            case Entered(uid=uid, name=name, bridge=bridge):
                self._name(uid, name)
                self._enter(uid, bridge)
            case Left(uid=uid, bridge=bridge) if self._bridges.get(uid) == bridge:
                self._leave(uid)
            case Held(uid=uid, on=on) if uid in self._names:
                (self._held.add if on else self._held.discard)(uid)
            case Gone(uid=uid):
                self._leave(uid)
                self._held.discard(uid)
                self._halves.pop(self._names.pop(uid, ""), None)

    def talking_with(self, uid: str) -> list[str]:
        """Give the channels that a channel is connected with, the nearest first; no halves of Local channels."""
        found = {uid}
        row = [uid]
        for near in row:
            for other in (*self._inside.get(self._bridges.get(near, ""), ()), *self._other_half(near)):
                if other not in found and len(found) < MOST_CHANNELS_OF_A_CALL:
                    found.add(other)
                    row.append(other)
        return [other for other in row[1:] if not self._names.get(other, "").startswith("Local/")]

    def endpoint(self, uid: str) -> str:
        """Give the endpoint of a channel."""
        return endpoint_of(self._names.get(uid, ""))

    def in_bridge(self, uid: str) -> bool:
        """Whether a channel is in a bridge, be it alone."""
        return uid in self._bridges

    def holds(self, uid: str) -> bool:
        """Whether this channel has put who it talks with on hold."""
        return uid in self._held

    def _other_half(self, uid: str) -> Iterator[str]:
        name, _, half = self._names.get(uid, "").rpartition(";")
        if name and half in ("1", "2"):
            other = self._halves.get(f"{name};{3 - int(half)}")
            if other:
                yield other

    def _name(self, uid: str, name: str) -> None:
        before = self._names.get(uid)
        if before != name:
            self._halves.pop(before or "", None)
            self._names[uid] = name
            if ";" in name:
                self._halves[name] = uid

    def _enter(self, uid: str, bridge: str) -> None:
        self._leave(uid)
        self._bridges[uid] = bridge
        self._inside.setdefault(bridge, {})[uid] = None

    def _leave(self, uid: str) -> None:
        bridge = self._bridges.pop(uid, None)
        if bridge:
            inside = self._inside[bridge]
            inside.pop(uid, None)
            if not inside:
                del self._inside[bridge]
