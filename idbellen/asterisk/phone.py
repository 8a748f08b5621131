"""A caller's channel and an agent's, as the stories use them (:class:`idbellen.ports.Phone`)."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from idbellen.asterisk.ari import Ari, AriError, GoneError
from idbellen.domain.prompts import Prompt, media
from idbellen.ports import RingOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from idbellen.asterisk.lines import Line, Lines
    from idbellen.ports import AgentLeg

log = structlog.get_logger()

PLAIN_CONTEXT = "idbellen-plain"
AWAY_CONTEXT = "idbellen-away"
BRIDGE_PREFIX = "idbellen-talk-"
AGENT_ARG = "agent"
# How long a hangup may take to be told after a request has found its channel gone.
HANGUP_SECONDS = 5.0
HANGUP_NEWS_SECONDS = 0.5
# Asterisk gives up ringing by itself a little after we do, should we not be there to do it.
RING_MARGIN_SECONDS = 2

# Q.850 causes as chan_pjsip gives them for a phone that was rung; any other: unreachable.
_RING_CAUSES = {17: RingOutcome.BUSY, 21: RingOutcome.DECLINED, 19: RingOutcome.NO_ANSWER}
ANSWERED_ELSEWHERE = 26


def _fresh(prefix: str) -> str:
    # Ids are never used twice: a bridge id that came back has crashed Asterisk.
    return f"{prefix}{uuid.uuid4()}"


class PromptPlayback:
    """Prompts that are played one after the other, each as a playback of its own.

    Asterisk could take the list as one playback, but would then not tell that a prompt in it is missing.
    """

    def __init__(self, ari: Ari) -> None:
        self._ari = ari
        self.parts: dict[str, asyncio.Future[bool]] = {}

    async def ended(self) -> None:
        """Wait until they have ended, in whichever way."""
        await asyncio.wait(self.parts.values())

    async def stop(self) -> None:
        """Stop what still plays or has yet to play."""
        # From the end, or the next would start when the one before is stopped.
        for playback, finished in reversed(self.parts.items()):
            if not finished.done():
                await self._ari.discard(f"/playbacks/{playback}")


class AgentChannel:
    """An agent's phone that is rung (:class:`idbellen.ports.AgentLeg`)."""

    def __init__(self, line: Line, seconds: float) -> None:
        self.line = line
        self._deadline = asyncio.get_running_loop().time() + seconds
        self.refusal: RingOutcome | None = None
        self.talking = False

    async def outcome(self) -> RingOutcome:
        """Wait until the phone is answered or it is clear that it will not be."""
        if self.refusal:
            return self.refusal
        try:
            async with asyncio.timeout_at(self._deadline):
                await _first(self.line.started, self.line.ended)
        except TimeoutError:
            return RingOutcome.NO_ANSWER
        if self.line.ended.is_set():
            return _RING_CAUSES.get(self.line.cause, RingOutcome.UNREACHABLE)
        return RingOutcome.ANSWERED

    async def hung_up(self) -> None:
        """Wait until the agent hangs up."""
        await self.line.ended.wait()


class CallerPhone:
    """One caller's channel (:class:`idbellen.ports.Phone`)."""

    def __init__(self, ari: Ari, line: Line, lines: Lines, *, caller: str, music_class: str) -> None:
        self._ari = ari
        self._lines = lines
        self._line = line
        self._caller = caller
        self._music_class = music_class
        self._playback: PromptPlayback | None = None
        self._left = False
        self._talking = False
        self.call = _fresh("")

    @property
    def _path(self) -> str:
        return f"/channels/{self._line.channel}"

    async def _request(self, method: str, path: str, body: Any = None, **params: str | int) -> Any:  # noqa: ANN401
        try:
            return await self._ari.request(method, path, body, **params)
        except GoneError:
            # The caller has most likely hung up, and the news is on its way; it cancels the story.
            with suppress(TimeoutError):
                async with asyncio.timeout(HANGUP_SECONDS):
                    await self.hung_up()
                    await asyncio.Event().wait()
            raise

    async def answer(self) -> None:
        """Answer; from now on no digit is lost."""
        await self._request("POST", f"{self._path}/answer")

    async def digit(self) -> str:
        """Wait for the next key that the caller presses."""
        return await self._line.digits.get()

    async def play(self, prompts: Sequence[Prompt]) -> PromptPlayback:
        """Start to play prompts one after the other."""
        self._playback = playback = PromptPlayback(self._ari)
        for prompt in prompts:
            name = _fresh("")
            playback.parts[name] = finished = self._line.playback(name)
            finished.add_done_callback(partial(self._look_into, prompt))
            # Asterisk plays what it is given for one channel in turn.
            await self._request("POST", f"{self._path}/play/{name}", media=media(prompt))
        return playback

    def _look_into(self, prompt: Prompt, finished: asyncio.Future[bool]) -> None:
        """Log a missing prompt. A hangup makes a playback fail too; then the channel is gone soon after."""

        def warn() -> None:
            if not self._line.ended.is_set() and not self._left:
                log.error("prompt missing or unreadable: run 'idbellen check'", prompt=prompt.value)

        if finished.result():
            asyncio.get_running_loop().call_later(HANGUP_NEWS_SECONDS, warn)

    async def music(self) -> None:
        """Play music, after a prompt that still plays, until the call is connected or leaves.

        Asterisk carries the commands for one channel out in turn, so the music waits for the prompt.
        """
        await self._request("POST", f"{self._path}/moh", mohClass=self._music_class)

    @asynccontextmanager
    async def ring(self, endpoint: str, seconds: float) -> AsyncIterator[AgentChannel]:
        """Ring an agent's phone for the block; what is not answered or connected by its end is hung up."""
        channel = _fresh("")
        with self._lines.line(channel) as line:
            leg = AgentChannel(line, seconds)
            try:
                try:
                    await self._ari.request(
                        "POST",
                        f"/channels/{channel}",
                        endpoint=endpoint,
                        app=self._ari.app,
                        appArgs=AGENT_ARG,
                        callerId=self._caller,
                        originator=self._line.channel,
                        timeout=int(seconds) + RING_MARGIN_SECONDS,
                    )
                except AriError as fault:
                    # An endpoint that is not registered is refused at once, as "500 Allocation failed".
                    log.info("phone cannot be rung", endpoint=endpoint, reason=str(fault))
                    leg.refusal = RingOutcome.UNREACHABLE
                yield leg
            finally:
                if not leg.talking:
                    with suppress(AriError):
                        await self._ari.discard(f"/channels/{channel}")

    @asynccontextmanager
    async def connected(self, leg: AgentLeg) -> AsyncIterator[None]:
        """Let caller and agent talk for the block."""
        assert isinstance(leg, AgentChannel)  # noqa: S101 - made by ring()
        bridge = _fresh(BRIDGE_PREFIX)
        keep = False
        if self._playback:
            await self._playback.stop()
        await self._ari.discard(f"{self._path}/moh")
        await self._request("POST", f"/bridges/{bridge}", type="mixing")
        try:
            both = f"{self._line.channel},{leg.line.channel}"
            try:
                await self._ari.request("POST", f"/bridges/{bridge}/addChannel", channel=both)
            except GoneError:
                # One of both hung up in the moment of the answer: the block sees which one.
                log.info("hung up in the moment of the answer", call=self.call)
            self._talking = leg.talking = True
            yield
        except asyncio.CancelledError:
            # Cancelled, and nobody hung up: a planned stop. Who talks goes on talking, without us.
            keep = not (self._line.ended.is_set() or leg.line.ended.is_set())
            raise
        finally:
            if not keep:
                self._talking = leg.talking = False
                with suppress(AriError):
                    await self._ari.discard(f"/bridges/{bridge}")

    async def hung_up(self) -> None:
        """Wait until the caller hangs up, or the channel is lost in another way."""
        await self._line.ended.wait()
        if self._left:
            await asyncio.Event().wait()

    async def hang_up(self) -> None:
        """End the call."""
        self._left = True
        await self._ari.discard(self._path)

    async def to_plain_queue(self) -> None:
        """Send the caller to where an ordinary caller would go."""
        await self._leave(PLAIN_CONTEXT)

    async def hand_over(self) -> None:
        """Let go of the caller at a planned stop: who talks goes on talking, others hear that we are away."""
        if not self._talking and not self._line.ended.is_set() and not self._left:
            with suppress(AriError):
                await self._leave(AWAY_CONTEXT)

    async def close(self) -> None:
        """Leave nothing behind, however the story ended."""
        if not self._left and not self._talking and not self._line.ended.is_set():
            with suppress(AriError):
                await self.hang_up()

    async def _leave(self, context: str) -> None:
        self._left = True
        with suppress(GoneError):
            await self._ari.request("POST", f"{self._path}/continue", context=context, extension="s", priority=1)


async def _first(*events: asyncio.Event) -> None:
    """Wait for the first of several events."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
