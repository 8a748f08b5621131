"""Which part of a call waits for which event: ids are registered before the command that uses them."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from idbellen.asterisk.events import (
    ChannelDestroyed,
    ChannelEvent,
    DigitReceived,
    HoldChanged,
    PlaybackFinished,
    StasisEnd,
    StasisStart,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# A caller leaning on a key while in the queue shall not fill the memory: the rest is dropped.
MOST_DIGITS = 64


class Line:
    """What is known of one channel: whether it is in our application, its digits and playbacks, its end.

    ``holds``: whether its phone holds whom it talks with, by its own key; None: that may have changed while nobody
    listened. ``hold_news`` is set whenever there is something new about it.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.digits: asyncio.Queue[str] = asyncio.Queue(MOST_DIGITS)
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.cause = 0
        self.holds: bool | None = False
        self.hold_news = asyncio.Event()
        self._playbacks: dict[str, asyncio.Future[bool | None]] = {}

    def playback(self, playback: str) -> asyncio.Future[bool | None]:
        """Give what is done, with whether it failed, when a playback on this channel has ended.

        None: it may have ended while nobody listened, or may still play.
        """
        return self._playbacks.setdefault(playback, asyncio.get_running_loop().create_future())

    def take(self, event: ChannelEvent) -> None:
        """Note one event of this channel."""
        match event:
            case StasisStart():
                self.started.set()
            case DigitReceived(digit=digit) if not self.digits.full():
                self.digits.put_nowait(digit)
            case HoldChanged(on=on):
                self._note_hold(on)
            case PlaybackFinished(playback=playback, failed=failed):
                self._finish(playback, failed=failed)
            case ChannelDestroyed(cause=cause):
                self.cause = cause
                self.ended.set()
            case StasisEnd():
                self.ended.set()

    def missed_events(self, *, alive: bool) -> None:
        """Catch up after a time without events; ``alive``: Asterisk still has the channel."""
        if not alive:
            self.ended.set()
        self._note_hold(None)
        for playback in list(self._playbacks):
            self._finish(playback, failed=None)

    def _note_hold(self, holds: bool | None) -> None:  # noqa: FBT001 - what is known of it
        self.holds = holds
        self.hold_news.set()

    def _finish(self, playback: str, *, failed: bool | None) -> None:
        finished = self._playbacks.pop(playback, None)
        if finished and not finished.done():
            finished.set_result(failed)


class Lines:
    """All channels that calls follow."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}

    @contextmanager
    def line(self, channel: str) -> Iterator[Line]:
        """Follow a channel for the block; one that was adopted is known already."""
        line = self._lines.setdefault(channel, Line(channel))
        try:
            yield line
        finally:
            del self._lines[channel]

    def adopt(self, channel: str, *, alive: bool) -> None:
        """Follow a channel of an earlier process, until :meth:`line` or :meth:`drop` takes over."""
        line = self._lines[channel] = Line(channel)
        line.started.set()
        line.missed_events(alive=alive)

    def drop(self, channel: str) -> bool:
        """Follow a channel no longer; False for one that is not followed."""
        return self._lines.pop(channel, None) is not None

    def known(self, channel: str) -> bool:
        """Whether a call follows this channel."""
        return channel in self._lines

    def dispatch(self, event: ChannelEvent) -> None:
        """Hand an event to the channel it belongs to, in the order in which Asterisk sent it."""
        if event.channel in self._lines:
            self._lines[event.channel].take(event)

    def missed_events(self, alive: set[str]) -> None:
        """Catch up after a time without events; ``alive``: all channels that Asterisk has now."""
        for line in list(self._lines.values()):
            line.missed_events(alive=line.channel in alive)
