"""Phones that we ring: an agent's, an outside number's, a supervisor's."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog

from idbellen.aio import first_of, timeout_at, to_its_end
from idbellen.asterisk.ari import Ari, AriError
from idbellen.ports import RingOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from idbellen.asterisk.lines import Line, Lines

log = structlog.get_logger()

# What the channels that we make say when they come into our application.
OWN_ARG = "own"
# Their names begin so, which tells them from callers' after a restart.
LEG_PREFIX = "idbellen-leg-"
# Asterisk gives up ringing by itself a little after we do, should we not be there to do it.
RING_MARGIN_SECONDS = 2

# The cause that keeps a phone from telling of a missed call.
ANSWERED_ELSEWHERE = 26
# 1 while the phone holds (the SDP that it sent last says sendonly or inactive), as chan_pjsip tells.
HOLDS = "CHANNEL(rtp,hold)"
# Q.850 causes as chan_pjsip gives them for a phone that was rung; any other: unreachable.
_RING_CAUSES = {17: RingOutcome.BUSY, 21: RingOutcome.DECLINED, 19: RingOutcome.NO_ANSWER}


def fresh(prefix: str) -> str:
    """Make a name for a channel, bridge or playback. One that came back has crashed Asterisk."""
    return f"{prefix}{uuid.uuid4()}"


class AgentChannel:
    """A phone that is rung (:class:`idbellen.ports.AgentLeg`).

    ``ask``: gives a variable of its channel. ``bridge``: where it talks. ``gone`` is set when we have let go of it.
    """

    def __init__(self, line: Line, endpoint: str, seconds: float, ask: Callable[[str], Awaitable[str]]) -> None:
        self.line = line
        self._ask = ask
        self.endpoint = endpoint
        self.gone = asyncio.Event()
        self.bridge = ""
        self._deadline = asyncio.get_running_loop().time() + seconds
        self.refusal: RingOutcome | None = None
        self.talking = False

    @property
    def channel(self) -> str:
        """What Asterisk calls its channel."""
        return self.line.channel

    @property
    def alive(self) -> bool:
        """Whether the phone is still there, as far as is known."""
        return not (self.gone.is_set() or self.line.ended.is_set())

    async def outcome(self) -> RingOutcome:
        """Wait until the phone is answered or it is clear that it will not be."""
        if self.refusal:
            return self.refusal
        try:
            async with timeout_at(self._deadline):
                await first_of(self.line.started, self.line.ended)
        except TimeoutError:
            return RingOutcome.NO_ANSWER
        if self.line.ended.is_set():
            return _RING_CAUSES.get(self.line.cause, RingOutcome.UNREACHABLE)
        return RingOutcome.ANSWERED

    @property
    def rings(self) -> bool:
        """Whether it still rings, and has time left to be answered."""
        waits = not (self.refusal or self.line.started.is_set() or self.line.ended.is_set())
        return waits and asyncio.get_running_loop().time() < self._deadline

    async def hung_up(self) -> None:
        """Wait until the agent hangs up."""
        await self.line.ended.wait()

    async def hold_changed(self) -> bool:
        """Wait until the phone's own key holds, or no longer does, or that is not certain; gives whether it holds."""
        while True:
            await self.line.hold_news.wait()
            self.line.hold_news.clear()
            if self.line.holds is None:
                said = await self._ask(HOLDS)
                # What was told meanwhile is newer.
                if self.line.holds is None and said:
                    self.line.holds = said == "1"
            if self.line.holds is not None:
                return self.line.holds

    async def over(self) -> None:
        """Wait until the agent hangs up or we let go of the phone."""
        await first_of(self.line.ended, self.gone)


class Legs:
    """Rings phones, and knows which of them talk. ``handed_over``: at a planned stop all who talk are left alone.

    ``dial`` gives what this Asterisk rings for a phone, which may be on another.
    """

    def __init__(self, ari: Ari, lines: Lines, dial: Callable[[str], str] = str) -> None:
        self._ari = ari
        self._lines = lines
        self._dial = dial
        self._legs: set[AgentChannel] = set()
        self.handed_over = False

    def talking(self, endpoint: str) -> AgentChannel | None:
        """Give the phone of this endpoint that talks with a caller now."""
        return next((leg for leg in self._legs if leg.endpoint == endpoint and leg.talking and leg.alive), None)

    @asynccontextmanager
    async def ring(
        self, endpoint: str, seconds: float, *, prefix: str = LEG_PREFIX, **params: str
    ) -> AsyncIterator[AgentChannel]:
        """Ring a phone for the block; at its end it is hung up, unless it talks on at a planned stop.

        The name of its channel begins with ``prefix``, and that with :data:`LEG_PREFIX`.
        """
        async with self._leg(fresh(prefix), endpoint, seconds) as leg:
            try:
                await self._ari.create(
                    f"/channels/{leg.channel}",
                    insist=False,
                    endpoint=self._dial(endpoint),
                    app=self._ari.app,
                    appArgs=OWN_ARG,
                    timeout=int(seconds) + RING_MARGIN_SECONDS,
                    **params,
                )
            except AriError as fault:
                # An endpoint that is not registered is refused at once, as "500 Allocation failed".
                log.info("phone cannot be rung", endpoint=endpoint, reason=str(fault))
                leg.refusal = RingOutcome.UNREACHABLE
            yield leg

    def reattach(self, channel: str, endpoint: str) -> AbstractAsyncContextManager[AgentChannel]:
        """Take up a phone that an earlier process rang, for the block; as :meth:`ring` does."""
        return self._leg(channel, endpoint, 0.0)

    async def _variable(self, channel: str, name: str) -> str:
        """Give a variable of a channel; empty if it is not told."""
        try:
            answer = await self._ari.insist("GET", f"/channels/{channel}/variable", variable=name)
        except AriError as fault:
            # The channel may be none of chan_pjsip's, or be gone.
            log.info("not told", channel=channel, variable=name, reason=str(fault))
            return ""
        return str(answer["value"])

    @asynccontextmanager
    async def _leg(self, channel: str, endpoint: str, seconds: float) -> AsyncIterator[AgentChannel]:
        with self._lines.line(channel) as line:
            leg = AgentChannel(line, endpoint, seconds, partial(self._variable, channel))
            self._legs.add(leg)
            why: dict[str, int] = {}
            try:
                yield leg
                if leg.rings:
                    why = {"reason_code": ANSWERED_ELSEWHERE}
            finally:
                self._legs.discard(leg)
                leg.gone.set()
                if not (self.handed_over and leg.talking):
                    # Even when we are cancelled once more, or the phone would ring on.
                    await to_its_end(self._ari.discard(f"/channels/{channel}", insist=True, **why), AriError)
