"""Supervisors in the calls of agents: listening, whispering to the agent, or talking with all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from idbellen import ports
from idbellen.aio import first_of, timeout, to_its_end
from idbellen.asterisk.ari import Ari, AriError
from idbellen.asterisk.legs import LEG_PREFIX, OWN_ARG, fresh
from idbellen.domain.prompts import Prompt, media
from idbellen.ports import RingOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from idbellen.asterisk.legs import AgentChannel, Legs
    from idbellen.asterisk.lines import Line, Lines
    from idbellen.domain.ids import AgentName
    from idbellen.ports import MonitorMode

log = structlog.get_logger()

MONITOR_PREFIX = "idbellen-monitor-"
SNOOP_PREFIX = "idbellen-snoop-"
# A supervisor's phone: after a restart it is nobody's who may talk on.
SUPERVISOR_PREFIX = f"{LEG_PREFIX}supervisor-"
RING_SECONDS = 20.0
SNOOP_SECONDS = 5.0
ANNOUNCE_SECONDS = 15.0


class Monitor(ports.Monitor):
    """Rings supervisors' phones and connects them to calls in hand (:class:`idbellen.ports.Monitor`).

    ``phones_of`` gives an agent's phones; ``taken``: the supervisors' phones that ring or listen now,
    here or on another Asterisk. It works while :meth:`run` runs.
    """

    def __init__(
        self, ari: Ari, lines: Lines, legs: Legs, phones_of: Callable[[AgentName], Sequence[str]], taken: set[str]
    ) -> None:
        self._ari = ari
        self._lines = lines
        self._legs = legs
        self._phones_of = phones_of
        self._sessions: asyncio.TaskGroup | None = None
        self._taken = taken

    async def run(self) -> None:
        """Hold what supervisors have asked for, until cancelled."""
        async with asyncio.TaskGroup() as sessions:
            self._sessions = sessions
            try:
                await asyncio.Event().wait()
            finally:
                self._sessions = None

    def has(self, agent: AgentName) -> bool:
        """Whether this agent talks with a caller on this Asterisk."""
        return self._talking(agent) is not None

    def _talking(self, agent: AgentName) -> AgentChannel | None:
        return next(filter(None, map(self._legs.talking, self._phones_of(agent))), None)

    async def request(self, agent: AgentName, endpoint: str, mode: MonitorMode, *, announce: bool) -> bool:
        """Ring ``endpoint`` and connect it to the agent's call; False if that cannot be.

        That is also so while this phone rings for, or is in, another call. With ``announce`` the agent, and nobody
        else, is told first. It ends with the agent's part in the call, or when the supervisor hangs up.
        """
        leg = self._talking(agent)
        if leg is None or endpoint in self._phones_of(agent) or self._sessions is None or endpoint in self._taken:
            return False
        connected: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        session = self._sessions.create_task(self._session(leg, endpoint, mode, connected, announce=announce))
        self._taken.add(endpoint)

        def over(_: asyncio.Task[None]) -> None:
            self._taken.discard(endpoint)
            if not connected.done():
                connected.set_result(False)

        session.add_done_callback(over)
        try:
            return await connected
        except asyncio.CancelledError:
            session.cancel()
            raise

    async def _session(
        self, leg: AgentChannel, endpoint: str, mode: MonitorMode, connected: asyncio.Future[bool], *, announce: bool
    ) -> None:
        try:
            async with self._legs.ring(endpoint, RING_SECONDS, prefix=SUPERVISOR_PREFIX) as phone:
                outcome = await _unless_over(leg, phone)
                if outcome is not RingOutcome.ANSWERED or not leg.alive:
                    log.info("supervisor not reached", endpoint=endpoint, outcome=outcome.value)
                    return
                if announce and not await self._announce(leg):
                    log.error("agent could not be told, so nobody listens", endpoint=endpoint)
                    return
                async with self._joined(leg, phone, mode):
                    log.info("supervisor joins", endpoint=endpoint, mode=mode)
                    if not connected.done():
                        connected.set_result(True)
                    await first_of(phone.line.ended, leg.line.ended, leg.gone)
            log.info("supervisor leaves", endpoint=endpoint, mode=mode)
        except AriError as fault:
            # Most likely the call ended in this very moment.
            log.info("supervisor could not join", endpoint=endpoint, mode=mode, reason=str(fault))
        except Exception:
            # The calls, and the other supervisors, go on.
            log.exception("monitoring failed", endpoint=endpoint, mode=mode)

    async def _announce(self, leg: AgentChannel) -> bool:
        """Play the sentence to the agent alone; False if it was not heard to its end."""
        # A snoop channel does not take over the language of the channel that it snoops on.
        language = (await self._ari.request("GET", f"/channels/{leg.line.channel}"))["language"]
        async with self._snoop(leg, spy="none", whisper="out") as snoop:
            name = fresh("")
            played = snoop.playback(name)
            await self._ari.request(
                "POST",
                f"/channels/{snoop.channel}/play/{name}",
                media=media(Prompt.SUPERVISOR_LISTENS),
                lang=language,
            )
            try:
                async with timeout(ANNOUNCE_SECONDS):
                    failed = await played
            except TimeoutError:
                failed = True
        return failed is False and leg.alive

    @asynccontextmanager
    async def _joined(self, leg: AgentChannel, phone: AgentChannel, mode: MonitorMode) -> AsyncIterator[None]:
        if mode == "barge":
            await self._put(leg.bridge, phone.line.channel)
            yield
            return
        async with self._snoop(leg, spy="both", whisper="out" if mode == "whisper" else "none") as snoop:
            bridge = fresh(MONITOR_PREFIX)
            try:
                await self._ari.create(f"/bridges/{bridge}", type="mixing")
                await self._put(bridge, f"{snoop.channel},{phone.line.channel}")
                yield
            finally:
                await self._discard(f"/bridges/{bridge}")

    @asynccontextmanager
    async def _snoop(self, leg: AgentChannel, *, spy: str, whisper: str) -> AsyncIterator[Line]:
        channel = fresh(SNOOP_PREFIX)
        with self._lines.line(channel) as line:
            try:
                await self._ari.create(
                    f"/channels/{leg.line.channel}/snoop/{channel}",
                    spy=spy,
                    whisper=whisper,
                    app=self._ari.app,
                    appArgs=OWN_ARG,
                )
                try:
                    async with timeout(SNOOP_SECONDS):
                        await line.started.wait()
                except TimeoutError:
                    raise AriError("the agent's channel cannot be heard") from None
                yield line
            finally:
                await self._discard(f"/channels/{channel}")

    async def _put(self, bridge: str, channels: str) -> None:
        await self._ari.request("POST", f"/bridges/{bridge}/addChannel", channel=channels)

    async def _discard(self, path: str) -> None:
        await to_its_end(self._ari.discard(path), AriError)


async def _unless_over(leg: AgentChannel, phone: AgentChannel) -> RingOutcome:
    """Wait for the answer of a phone, at most as long as the agent's call lasts."""
    answer = asyncio.ensure_future(phone.outcome())
    over = asyncio.ensure_future(leg.over())
    try:
        await asyncio.wait((answer, over), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else RingOutcome.NO_ANSWER
    finally:
        answer.cancel()
        over.cancel()
