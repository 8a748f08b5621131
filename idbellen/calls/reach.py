"""Ringing phones until one of them is answered."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from idbellen.ports import RingOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idbellen.calls.desk import Reservation
    from idbellen.domain.ids import AgentName
    from idbellen.domain.notes import PartyNote
    from idbellen.ports import AgentLeg, Phone

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Party:
    """Somebody who talks, besides the caller: an agent, or with ``reservation`` None somebody outside.

    ``hold`` keeps their phone and the reservation; it also ends with the scope that it was made in. ``since``: when
    they began to talk, in epoch seconds. ``holds``: their phone holds, by its own key.
    """

    leg: AgentLeg
    reservation: Reservation | None
    hold: AsyncExitStack
    muted: bool = False
    since: float = 0.0
    holds: bool = False

    @property
    def agent(self) -> AgentName | None:
        """The agent's name."""
        return self.reservation.agent if self.reservation else None

    async def leave(self) -> None:
        """Hang up their phone and free the agent."""
        await self.hold.aclose()


@dataclass(slots=True)
class _Try:
    """One agent whose phones ring. ``ringing``: how many of them still do."""

    reservation: Reservation
    hold: AsyncExitStack
    ringing: int = 0


async def ring_agents(
    phone: Phone, reservations: Sequence[Reservation], seconds: float, scope: AsyncExitStack
) -> Party | RingOutcome:
    """Ring all phones of reserved agents until one is answered; gives who, or how the last of them was not.

    All reservations are held by ``scope`` from the first moment on; those who do not answer are free again at the
    end, and so are those whom another was quicker than.
    """
    tries = []
    for reservation in reservations:
        hold = await scope.enter_async_context(AsyncExitStack())
        hold.callback(reservation.release)
        tries.append(_Try(reservation, hold))
    waits: dict[asyncio.Future[RingOutcome], tuple[_Try, AgentLeg, AsyncExitStack]] = {}
    outcome = RingOutcome.NO_ANSWER
    try:
        for one in tries:
            one.reservation.ringing()
            for endpoint in one.reservation.phones:
                own = await one.hold.enter_async_context(AsyncExitStack())
                leg = await own.enter_async_context(phone.ring(endpoint, seconds))
                waits[asyncio.ensure_future(leg.outcome())] = one, leg, own
                one.ringing += 1
        while waits:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in done:
                one, leg, own = waits.pop(wait)
                outcome = wait.result()
                log.info("rang", call=phone.call, agent=one.reservation.agent, outcome=outcome.value)
                if outcome is RingOutcome.ANSWERED:
                    for other, _, slower in waits.values():
                        await (slower if other is one else other.hold).aclose()
                    return Party(leg, one.reservation, one.hold)
                await own.aclose()
                one.ringing -= 1
                if not one.ringing:
                    one.reservation.missed()
                    await one.hold.aclose()
    finally:
        for wait in waits:
            wait.cancel()
    return outcome


async def reattach(phone: Phone, note: PartyNote, scope: AsyncExitStack) -> Party:
    """Take up a party of an earlier process's conversation; ``scope`` holds their phone."""
    hold = await scope.enter_async_context(AsyncExitStack())
    leg = await hold.enter_async_context(phone.reattach(note.channel, note.endpoint))
    return Party(leg, None, hold, note.muted, note.since, note.holds)


async def ring_outside(phone: Phone, endpoint: str, seconds: float, scope: AsyncExitStack) -> Party | RingOutcome:
    """Ring a phone that is no agent's; ``scope`` holds it."""
    hold = await scope.enter_async_context(AsyncExitStack())
    leg = await hold.enter_async_context(phone.ring(endpoint, seconds))
    outcome = await leg.outcome()
    log.info("rang outside", call=phone.call, outcome=outcome.value)
    if outcome is RingOutcome.ANSWERED:
        return Party(leg, None, hold)
    await hold.aclose()
    return outcome
