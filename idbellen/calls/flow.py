"""The story of one call, told once: answer, collect the code, queue, ring an agent, connect, show, goodbye.

A hangup, at any step, is a cancellation (see :mod:`idbellen.calls.supervise`); everything that a step took is
given back where it was taken.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from idbellen.domain.codes import new_secret
from idbellen.domain.digits import Collector, Entry, EntryRules, Outcome
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import Ticket
from idbellen.ports import RingOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from idbellen.calls.desk import Desk
    from idbellen.ports import Clock, Phone, Session, SessionStore

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CallRules:
    """What a call may take; times in seconds. ``unverified``: the way out for who has no right code."""

    entry: EntryRules
    tries: int
    unverified: Literal["plain", "goodbye"]
    ring: float
    rest: float


@dataclass(frozen=True, slots=True)
class Office:
    """What every call is told with: the rules, the sessions, the desk and the time."""

    rules: CallRules
    sessions: SessionStore
    desk: Desk
    clock: Clock


@dataclass(slots=True)
class Claim:
    """A session that this call got for its code, with the secret. ``served``: an agent has spoken."""

    session: Session
    secret: str
    served: bool = False


async def take_call(phone: Phone, office: Office) -> None:
    """Take one call from its first ring to its end."""
    await phone.answer()
    async with verified(phone, office) as claim:
        if claim is None:
            await turn_away(phone, office.rules)
        else:
            await serve(phone, claim, office)


@asynccontextmanager
async def verified(phone: Phone, office: Office) -> AsyncIterator[Claim | None]:
    """Ask for the code until it is right or the tries are used up; holds the claimed session for the block.

    A caller who is cut off before an agent answered may use the code again; after that it is gone.
    """
    claim = await ask_code(phone, office)
    if claim is None:
        yield None
        return
    try:
        yield claim
    finally:
        if claim.served:
            await office.sessions.finish(claim.session.reference, phone.call)
        else:
            await office.sessions.release(claim.session.reference, phone.call)


async def ask_code(phone: Phone, office: Office) -> Claim | None:
    """Exchange the code that the caller keys in for a session and its secret."""
    prompts: Sequence[Prompt] = (Prompt.WELCOME, Prompt.ENTER_CODE)
    last_digit_at: float | None = None
    for attempt in range(1, office.rules.tries + 1):
        entry, last_digit_at = await collect(phone, prompts, office.rules.entry, last_digit_at)
        if entry.outcome is Outcome.COMPLETE:
            secret = new_secret()
            session = await office.sessions.claim(
                entry.code, call=phone.call, secret=secret, now=office.clock()
            )
            log.info("code", call=phone.call, attempt=attempt, accepted=session is not None)
            if session:
                return Claim(session, secret)
            prompts = (Prompt.CODE_WRONG,)
        else:
            log.info("code", call=phone.call, attempt=attempt, accepted=False, entry=entry.outcome.value)
            prompts = (Prompt.CODE_MISSING,)
    return None


async def collect(
    phone: Phone, prompts: Sequence[Prompt], rules: EntryRules, previous_digit_at: float | None
) -> tuple[Entry, float | None]:
    """Collect one entry; a digit stops the prompt. Gives the entry and when its last digit came."""
    now = asyncio.get_running_loop().time
    collector = Collector(rules, now(), previous_digit_at=previous_digit_at)
    playback = await phone.play(prompts)

    async def tell_when_prompt_ended() -> None:
        await playback.ended()
        collector.prompt_ended(now())
        timer.reschedule(collector.deadline)

    try:
        async with asyncio.timeout_at(collector.deadline) as timer, asyncio.TaskGroup() as group:
            prompt_end = group.create_task(tell_when_prompt_ended())
            while True:
                entry = collector.press(await phone.digit(), now())
                if collector.started and not prompt_end.done():
                    prompt_end.cancel()
                    await playback.stop()
                if entry:
                    prompt_end.cancel()
                    return entry, collector.last_digit_at
                timer.reschedule(collector.deadline)
    except TimeoutError:
        # The overall timer can end before a long prompt does, and what comes next must not wait for it.
        await playback.stop()
        return collector.expire(), collector.last_digit_at


async def turn_away(phone: Phone, rules: CallRules) -> None:
    """Let a caller go who could not be verified: to the plain queue, or with a goodbye."""
    log.info("not verified", call=phone.call, way_out=rules.unverified)
    if rules.unverified == "plain":
        await say(phone, Prompt.NOT_VERIFIED)
        await phone.to_plain_queue()
    else:
        await say(phone, Prompt.NOT_VERIFIED_GOODBYE)
        await phone.hang_up()


async def serve(phone: Phone, claim: Claim, office: Office) -> None:
    """Queue a verified caller until an agent answers, and connect them until one of both hangs up."""
    ticket = Ticket(phone.call, claim.session.purpose, office.clock())
    with office.desk.place(ticket) as place:
        await phone.play((Prompt.CODE_ACCEPTED, Prompt.PLEASE_WAIT))
        await phone.music()
        while not claim.served:
            async with place.offer() as offer, phone.ring(offer.endpoint, office.rules.ring) as leg:
                outcome = await leg.outcome()
                log.info("rang", call=phone.call, agent=offer.agent, outcome=outcome.value)
                if outcome is not RingOutcome.ANSWERED:
                    offer.refused(office.rules.rest)
                    continue
                async with phone.connected(leg):
                    claim.served = True
                    offer.connect(claim.secret)
                    log.info("connected", call=phone.call, agent=offer.agent)
                    await leg.hung_up()
    log.info("ended by agent", call=phone.call)
    await say(phone, Prompt.GOODBYE)
    await phone.hang_up()


async def say(phone: Phone, *prompts: Prompt) -> None:
    """Play prompts to their end."""
    playback = await phone.play(prompts)
    await playback.ended()
