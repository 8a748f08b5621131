"""Waiting in a queue: what the caller hears meanwhile, until an agent answers or the queue lets go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from idbellen.aio import timeout, timeout_at
from idbellen.calls.reach import Party
from idbellen.domain.prompts import HEAR_AGAIN_KEY, Prompt, standing_prompts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from idbellen.calls.desk import Desk, Place, Reservation
    from idbellen.calls.stay import Stay
    from idbellen.domain.queueing import Ticket
    from idbellen.ports import Phone, Playback, RingOutcome

    Ring = Callable[[Sequence[Reservation]], Awaitable[Party | RingOutcome]]
    Company = Callable[[Place], Coroutine[None, None, None]]

# A key that is pressed this soon may still belong to the code.
KEYED_IN_SECONDS = 1.0


async def in_queue(
    stay: Stay, desk: Desk, noted: Callable[[Ticket], None], ring: Ring, company: Company | None
) -> Party | Ticket:
    """Wait until an agent answers; gives who, or the ticket as it then is.

    That is for another queue if a supervisor has moved the caller, otherwise the caller has waited too long. ``noted``
    is called when the ticket has changed; ``ring`` rings whom the caller is offered to; ``company`` is what the caller
    hears meanwhile, None for one who is not on the phone.
    """
    ticket, entered = stay.ticket, stay.arrived
    longest = desk.queues[ticket.queue].longest
    with desk.place(ticket, noted) as place:
        async with asyncio.TaskGroup() as group:
            kept = group.create_task(company(place)) if company else None
            try:
                while place.ticket.queue == ticket.queue:
                    left = entered + longest - desk.clock() if longest else None
                    try:
                        async with timeout(left):
                            reservations = await place.offered()
                    except TimeoutError:
                        break
                    answer = await ring(reservations)
                    if isinstance(answer, Party):
                        return answer
                return place.ticket
            finally:
                if kept:
                    kept.cancel()


async def keep_company(phone: Phone, desk: Desk, greeting: Sequence[Prompt], place: Place) -> None:
    """Tell the place on entry, at intervals, and when a key asks for it; music in between.

    However often the key is pressed while the place is told, it is not told again for that; pressed during another
    sentence it is told once, after that.
    """
    now = asyncio.get_running_loop().time
    told = comforted = now()
    # Whoever leans on the last digit of the code has asked for nothing yet.
    heeded = now() + KEYED_IN_SECONDS
    # For whom an agent's phone rings already, a place in the queue says nothing.
    first = [Prompt.PLEASE_WAIT] if place.being_offered else [*_standing(place, desk), Prompt.HEAR_AGAIN]
    prompts: Sequence[Prompt] = [*greeting, *first]
    while True:
        rules = desk.queues[place.ticket.queue]
        playback = await phone.play(prompts)
        await phone.music(rules.music)
        asked = await _asked_during(phone, playback, heeded)
        again = told + rules.announce if rules.announce else float("inf")
        comfort = comforted + rules.comfort if rules.comfort else float("inf")
        asked = asked or await _asked(phone, min(again, comfort))
        if asked or again <= comfort:
            told, heeded = now(), float("inf")
            prompts = _standing(place, desk) or [Prompt.STILL_WAITING]
        else:  # pragma: no cover - Python 3.11 traces nothing after a limit was reached; test_queue_stories.py hears it
            comforted = heeded = now()
            prompts = [Prompt.STILL_WAITING]


def _standing(place: Place, desk: Desk) -> list[Prompt]:
    standing = desk.standing(place.ticket.call)
    return standing_prompts(standing.place, standing.minutes)


async def _asked_during(phone: Phone, playback: Playback, heeded: float) -> bool:
    """Wait for the end of prompts; gives whether the key was pressed from a moment of the loop's clock on."""
    asked = False

    async def listen() -> None:
        nonlocal asked
        while True:
            asked |= await phone.digit() == HEAR_AGAIN_KEY and asyncio.get_running_loop().time() >= heeded

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        await playback.ended()
        listening.cancel()
    return asked


async def _asked(phone: Phone, until: float) -> bool:
    """Wait for the key that asks for the place, at most until a moment of the loop's clock."""
    try:
        async with timeout_at(None if until == float("inf") else until):
            while await phone.digit() != HEAR_AGAIN_KEY:
                pass
    except TimeoutError:
        return False
    return True
