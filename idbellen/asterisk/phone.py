"""A caller's channel, as the stories use it (:class:`idbellen.ports.Phone`)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from idbellen.aio import timeout, to_its_end
from idbellen.asterisk.ari import Ari, AriError, GoneError
from idbellen.asterisk.bridge import CallerBridge
from idbellen.asterisk.legs import AgentChannel, fresh
from idbellen.domain.ids import CallId
from idbellen.domain.prompts import Prompt, media
from idbellen.ports import Playback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from idbellen.asterisk.legs import Legs
    from idbellen.asterisk.lines import Line
    from idbellen.ports import AgentLeg

log = structlog.get_logger()

PLAIN_CONTEXT = "idbellen-plain"
# How long a hangup may take to be told after a request has found its channel gone.
HANGUP_SECONDS = 5.0
HANGUP_NEWS_SECONDS = 0.5
# No prompts take longer: nobody is kept waiting for an end that Asterisk does not tell.
LONGEST_PROMPTS_SECONDS = 60.0


class PromptPlayback(Playback):
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
                await self._ari.discard(f"/playbacks/{playback}", insist=True)


class CallerPhone:
    """One caller's channel (:class:`idbellen.ports.Phone`); ``up``: it is answered already."""

    def __init__(self, ari: Ari, line: Line, legs: Legs, *, caller: str, up: bool = False) -> None:
        self._ari = ari
        self._legs = legs
        self._line = line
        self._caller = caller
        self._up = up
        self._playback: PromptPlayback | None = None
        self._on_play: Callable[[tuple[str, ...]], None] | None = None
        self._left = False
        self.call = CallId(fresh(""))

    def go_on(self, call: CallId, playing: Iterable[str]) -> None:
        """Be the phone of the call of an earlier process; what that played is stopped before anything else."""
        self.call = call
        self._playback = PromptPlayback(self._ari)
        loop = asyncio.get_running_loop()
        self._playback.parts = {playback: loop.create_future() for playback in playing}

    @property
    def server(self) -> str:
        """The name of the Asterisk that the caller is on."""
        return self._ari.server

    @property
    def channel(self) -> str:
        """What Asterisk calls the channel."""
        return self._line.channel

    @property
    def _path(self) -> str:
        return f"/channels/{self._line.channel}"

    async def _request(self, method: str, path: str, **params: str | int) -> Any:  # noqa: ANN401
        try:
            return await self._ari.insist(method, path, **params)
        except GoneError:
            # The caller has most likely hung up, and the news is on its way; it cancels the story.
            with suppress(TimeoutError):
                async with timeout(HANGUP_SECONDS):
                    await self.hung_up()
                    await asyncio.Event().wait()
            if await self._exists():
                raise
            # The news was lost: Asterisk may take us for connected, or we it, when it is not so.
            self._line.ended.set()
            return await asyncio.Event().wait()

    async def _exists(self) -> bool:
        try:
            await self._ari.insist("GET", self._path)
        except GoneError:
            return False
        return True

    async def answer(self) -> None:
        """Answer; from now on no digit is lost."""
        # Asterisk would take its turn for it after the prompts that still play.
        if not self._up:
            await self._request("POST", f"{self._path}/answer")
            self._up = True

    async def digit(self) -> str:
        """Wait for the next key that the caller presses."""
        return await self._line.digits.get()

    async def play(self, prompts: Sequence[Prompt]) -> PromptPlayback:
        """Start to play prompts one after the other, in place of what still plays."""
        if self._playback:
            # Of two that play only the later would be stopped when an agent answers, who would wait for the other.
            await self._playback.stop()
        self._playback = playback = PromptPlayback(self._ari)
        names = {fresh(""): prompt for prompt in prompts}
        if self._on_play:
            self._on_play(tuple(names))
        for name, prompt in names.items():
            playback.parts[name] = finished = self._line.playback(name)
            finished.add_done_callback(partial(self._look_into, prompt))
            # Asterisk plays what it is given for one channel in turn.
            await self._request("POST", f"{self._path}/play/{name}", media=media(prompt))
        return playback

    def on_play(self, told: Callable[[tuple[str, ...]], None]) -> None:
        """Call somebody with what Asterisk calls the prompts, whenever some are about to be played."""
        self._on_play = told

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

    @asynccontextmanager
    async def ring(self, endpoint: str, seconds: float) -> AsyncIterator[AgentChannel]:
        """Ring a phone for the block; what is not answered or connected by its end is hung up."""
        async with self._legs.ring(endpoint, seconds, callerId=self._caller, originator=self._line.channel) as leg:
            if leg.refusal and not await self._exists():
                # Nobody's miss: Asterisk rings for nobody who has hung up. The news of it may still be on its way.
                self._line.ended.set()
                await asyncio.Event().wait()
            yield leg

    @asynccontextmanager
    async def bridge(self, leg: AgentLeg, music_class: str) -> AsyncIterator[CallerBridge]:
        """Let caller and agent talk for the block; a caller who is held hears this music."""
        assert isinstance(leg, AgentChannel)  # noqa: S101 - made by ring()
        if self._playback:
            await self._playback.stop()
        await self._ari.discard(f"{self._path}/moh", insist=True)
        async with self._bridge(CallerBridge(self._ari, self._line, music_class)) as bridge:
            await self._ari.create(f"/bridges/{bridge.name}", insist=True, type="mixing")
            await bridge.begin(leg)
            yield bridge

    def reattach(self, channel: str, endpoint: str) -> AbstractAsyncContextManager[AgentChannel]:
        """Take up a phone that an earlier process rang, for the block; as :meth:`ring` does."""
        return self._legs.reattach(channel, endpoint)

    @asynccontextmanager
    async def rejoin(
        self, bridge: str, legs: Sequence[AgentLeg], music_class: str, *, held: bool
    ) -> AsyncIterator[CallerBridge]:
        """Take up a bridge that an earlier process made, for the block; as :meth:`bridge` does."""
        async with self._bridge(CallerBridge(self._ari, self._line, music_class, bridge)) as taken:
            await taken.rejoin([leg for leg in legs if isinstance(leg, AgentChannel)], held=held)
            yield taken

    @asynccontextmanager
    async def _bridge(self, bridge: CallerBridge) -> AsyncIterator[CallerBridge]:
        try:
            yield bridge
        finally:
            # Those who talk at a planned stop go on talking, and the next process takes them up.
            if not self._legs.handed_over:
                await to_its_end(bridge.close(), AriError)

    async def hung_up(self) -> None:
        """Wait until the caller hangs up, or the channel is lost in another way."""
        await self._line.ended.wait()
        if self._left:
            await asyncio.Event().wait()

    async def hang_up(self) -> None:
        """End the call."""
        self._left = True
        await self._ari.discard(self._path, insist=True)

    async def to_plain_queue(self) -> None:
        """Send the caller to where an ordinary caller would go."""
        await self._leave(PLAIN_CONTEXT)

    async def to_extension(self, context: str, extension: str, priority: int) -> None:
        """Send the caller to a place in the dialplan."""
        await self._leave(context, extension, priority)

    async def close(self) -> None:
        """Leave nothing behind, however the story ended; at a planned stop callers are the next process's."""
        if not self._left and not self._legs.handed_over and not self._line.ended.is_set():
            with suppress(AriError):
                await self.hang_up()

    async def _leave(self, context: str, extension: str = "s", priority: int = 1) -> None:
        self._left = True
        with suppress(GoneError):
            await self._ari.insist(
                "POST", f"{self._path}/continue", context=context, extension=extension, priority=priority
            )
