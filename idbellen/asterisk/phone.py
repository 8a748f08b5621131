"""A caller's channel, as the stories use it (:class:`idbellen.ports.Phone`)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from idbellen.asterisk.ari import Ari, AriError, GoneError
from idbellen.asterisk.bridge import CallerBridge
from idbellen.asterisk.legs import AgentChannel, fresh
from idbellen.domain.prompts import Prompt, media

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from idbellen.asterisk.legs import Legs
    from idbellen.asterisk.lines import Line
    from idbellen.ports import AgentLeg

log = structlog.get_logger()

PLAIN_CONTEXT = "idbellen-plain"
AWAY_CONTEXT = "idbellen-away"
# How long a hangup may take to be told after a request has found its channel gone.
HANGUP_SECONDS = 5.0
HANGUP_NEWS_SECONDS = 0.5
# No prompts take longer: nobody is kept waiting for an end that Asterisk does not tell.
LONGEST_PROMPTS_SECONDS = 60.0


class PromptPlayback:
    """Prompts that are played one after the other, each as a playback of its own.

    Asterisk could take the list as one playback, but would then not tell that a prompt in it is missing.
    """

    def __init__(self, ari: Ari) -> None:
        self._ari = ari
        self.parts: dict[str, asyncio.Future[bool | None]] = {}

    async def ended(self) -> None:
        """Wait until they have ended, in whichever way."""
        _, pending = await asyncio.wait(self.parts.values(), timeout=LONGEST_PROMPTS_SECONDS)
        if pending:
            log.error("Asterisk does not end a prompt: look in its log", seconds=LONGEST_PROMPTS_SECONDS)

    async def stop(self) -> None:
        """Stop what still plays or has yet to play."""
        # From the end, or the next would start when the one before is stopped.
        for playback, finished in reversed(self.parts.items()):
            if not finished.done() or finished.result() is None:
                await self._ari.discard(f"/playbacks/{playback}")


class CallerPhone:
    """One caller's channel (:class:`idbellen.ports.Phone`)."""

    def __init__(self, ari: Ari, line: Line, legs: Legs, *, caller: str) -> None:
        self._ari = ari
        self._legs = legs
        self._line = line
        self._caller = caller
        self._playback: PromptPlayback | None = None
        self._left = False
        self._talking = False
        self.call = fresh("")

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
        """Start to play prompts one after the other, in place of what still plays."""
        if self._playback:
            # Of two that play only the later would be stopped when an agent answers, who would wait for the other.
            await self._playback.stop()
        self._playback = playback = PromptPlayback(self._ari)
        for prompt in prompts:
            name = fresh("")
            playback.parts[name] = finished = self._line.playback(name)
            finished.add_done_callback(partial(self._look_into, prompt))
            # Asterisk plays what it is given for one channel in turn.
            await self._request("POST", f"{self._path}/play/{name}", media=media(prompt))
        return playback

    def _look_into(self, prompt: Prompt, finished: asyncio.Future[bool | None]) -> None:
        """Log a missing prompt. A hangup makes a playback fail too; then the channel is gone soon after."""

        def warn() -> None:
            if not self._line.ended.is_set() and not self._left:
                log.error("prompt missing or unreadable: run 'idbellen check'", prompt=prompt.value)

        if finished.result():
            asyncio.get_running_loop().call_later(HANGUP_NEWS_SECONDS, warn)

    async def music(self, music_class: str) -> None:
        """Play music, after a prompt that still plays, until the call is connected or leaves.

        Asterisk carries the commands for one channel out in turn, so the music waits for the prompt.
        """
        await self._request("POST", f"{self._path}/moh", mohClass=music_class)

    def ring(self, endpoint: str, seconds: float) -> AbstractAsyncContextManager[AgentChannel]:
        """Ring a phone for the block; what is not answered or connected by its end is hung up."""
        return self._legs.ring(endpoint, seconds, callerId=self._caller, originator=self._line.channel)

    @asynccontextmanager
    async def bridge(self, leg: AgentLeg, music_class: str) -> AsyncIterator[CallerBridge]:
        """Let caller and agent talk for the block; a caller who is held hears this music."""
        assert isinstance(leg, AgentChannel)  # noqa: S101 - made by ring()
        if self._playback:
            await self._playback.stop()
        await self._ari.discard(f"{self._path}/moh")
        bridge = CallerBridge(self._ari, self._line, music_class)
        keep = False
        try:
            await self._ari.create(f"/bridges/{bridge.name}", type="mixing")
            self._talking = True
            await bridge.open(leg)
            yield bridge
        except asyncio.CancelledError:
            # Cancelled, and the caller has not hung up: a planned stop. Who talks goes on talking, without us.
            keep = not self._line.ended.is_set() and bridge.alive
            if keep:
                with suppress(AriError):
                    await asyncio.shield(bridge.leave_them())
            raise
        finally:
            if not keep:
                self._talking = False
                with suppress(AriError):
                    await asyncio.shield(bridge.close())

    @property
    def gone(self) -> bool:
        """Whether the caller has hung up, or the channel is lost in another way."""
        return self._line.ended.is_set()

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

    async def to_extension(self, context: str, extension: str, priority: int) -> None:
        """Send the caller to a place in the dialplan."""
        await self._leave(context, extension, priority)

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

    async def _leave(self, context: str, extension: str = "s", priority: int = 1) -> None:
        self._left = True
        with suppress(GoneError):
            await self._ari.request(
                "POST", f"{self._path}/continue", context=context, extension=extension, priority=priority
            )

