"""Events of ARI's websocket, as frozen dataclasses (Asterisk's ``rest-api/api-docs/events.json``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StasisStart:
    """A channel has come into our application. ``name`` tells its endpoint: ``PJSIP/ann-00000012``.

    ``replaces``: the channel whose place it took, by a transfer that a phone made without us.
    """

    channel: str
    args: tuple[str, ...]
    name: str
    caller: str = field(repr=False)
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class StasisEnd:
    """A channel has left our application."""

    channel: str


@dataclass(frozen=True, slots=True)
class ChannelDestroyed:
    """A channel is no more. ``cause`` is the hangup cause of Q.850; 0 occurs."""

    channel: str
    cause: int


@dataclass(frozen=True, slots=True)
class DigitReceived:
    """A key was pressed. The digit is a part of the code and never shows in a representation."""

    channel: str
    digit: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HoldChanged:
    """A phone's own hold key was pressed: it holds whom it talks with (``on``), or no longer does."""

    channel: str
    on: bool


@dataclass(frozen=True, slots=True)
class PlaybackFinished:
    """A playback on a channel has ended; ``failed`` when there was nothing to play, such as a missing file."""

    channel: str
    playback: str
    failed: bool


@dataclass(frozen=True, slots=True)
class EndpointStateChanged:
    """A phone that we follow came or went, or a channel of it did.

    ``state`` is ``online``, ``offline`` or ``unknown``; ``busy``: it has a channel, whatever that does.
    """

    endpoint: str
    state: str
    busy: bool


@dataclass(frozen=True, slots=True)
class ApplicationReplaced:
    """Another connection took over our application's name."""


ChannelEvent = StasisStart | StasisEnd | ChannelDestroyed | DigitReceived | HoldChanged | PlaybackFinished
Event = ChannelEvent | EndpointStateChanged | ApplicationReplaced

# The allow-list that Asterisk filters by: it halves what the socket carries.
WANTED = (
    "StasisStart",
    "StasisEnd",
    "ChannelDestroyed",
    "ChannelDtmfReceived",
    "ChannelHold",
    "ChannelUnhold",
    "PlaybackFinished",
    "ApplicationReplaced",
    "ApplicationMoveFailed",
    "RESTResponse",
)
WANTED_OF_PHONES = ("EndpointStateChange",)


def parse(message: dict[str, Any]) -> Event | None:
    """Turn a message of the socket into an event; None for one that we have no use for.

    Raises:
        KeyError: a wanted event lacks what Asterisk's description says it has.

    """
    match message["type"]:
        case "StasisStart":
            channel, replaced = message["channel"], message.get("replace_channel")
            return StasisStart(
                channel["id"],
                tuple(message["args"]),
                channel["name"],
                channel["caller"]["number"],
                replaced["id"] if replaced else None,
            )
        case "StasisEnd":
            return StasisEnd(message["channel"]["id"])
        case "ChannelDestroyed":
            return ChannelDestroyed(message["channel"]["id"], message["cause"])
        case "ChannelDtmfReceived":
            return DigitReceived(message["channel"]["id"], message["digit"])
        case "ChannelHold" | "ChannelUnhold":
            return HoldChanged(message["channel"]["id"], on=message["type"] == "ChannelHold")
        case "PlaybackFinished":
            playback = message["playback"]
            channel = playback["target_uri"].removeprefix("channel:")
            return PlaybackFinished(channel, playback["id"], playback["state"] == "failed")
        case "EndpointStateChange":
            return endpoint_state(message["endpoint"])
        case "ApplicationReplaced":
            return ApplicationReplaced()
    return None


def endpoint_state(endpoint: dict[str, Any]) -> EndpointStateChanged:
    """Turn Asterisk's description of an endpoint, from an event or an answer, into what it says of it now."""
    name = f"{endpoint['technology']}/{endpoint['resource']}"
    return EndpointStateChanged(name, endpoint["state"], busy=bool(endpoint["channel_ids"]))
