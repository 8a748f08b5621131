"""The story of one call, told once: answer, collect the code, queue, ring an agent, connect, show, goodbye.

A hangup, at any step, is a cancellation (see :mod:`idbellen.calls.supervise`); everything that a step took is
given back where it was taken.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import structlog

from idbellen.domain.board import Stage
from idbellen.domain.codes import new_secret
from idbellen.domain.digits import Collector, Entry, EntryRules, Outcome
from idbellen.domain.idcontact import Admission, admission
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import Ticket
from idbellen.domain.words import control_words
from idbellen.ports import RingOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from idbellen.calls.desk import Desk
    from idbellen.calls.progress import Journey, Progress
    from idbellen.ports import AgentLeg, Clock, Phone, Session, SessionFeedback, SessionStore

log = structlog.get_logger()

ActiveMoment = Literal["code_accepted", "connected"]


@dataclass(frozen=True, slots=True)
class PurposeRules:
    """What a purpose means for a call: its queue, and whether it lets in who did not log in."""

    queue: str
    admit_unverified: bool


@dataclass(frozen=True, slots=True)
class CallRules:
    """What a call may take; times in seconds. ``unverified``: the way out for who has no right code.

    ``late``: how long a caller waits for an auth result that is still to come. ``language``: of the prompts.
    ``active_moments`` and ``active_every``: when the auth plugin is told that its session is in use.
    """

    entry: EntryRules
    tries: int
    unverified: Literal["plain", "goodbye"]
    late: float
    ring: float
    rest: float
    language: str
    active_moments: frozenset[ActiveMoment]
    active_every: float
    purposes: Mapping[str, PurposeRules]


@dataclass(frozen=True, slots=True)
class Office:
    """What every call is told with: the rules, the sessions, the desk, the citizens' pages and the time."""

    rules: CallRules
    sessions: SessionStore
    desk: Desk
    progress: Progress
    feedback: SessionFeedback
    clock: Clock


@dataclass(slots=True)
class Claim:
    """A session that this call got for its code, with the secret. ``served``: an agent has spoken."""

    session: Session
    secret: str = field(repr=False)
    served: bool = False


async def take_call(phone: Phone, office: Office) -> None:
    """Take one call from its first ring to its end."""
    await phone.answer()
    prompts: Sequence[Prompt] = (Prompt.WELCOME, Prompt.ENTER_CODE)
    last_digit_at: float | None = None
    for attempt in range(1, office.rules.tries + 1):
        entry, last_digit_at = await collect(phone, prompts, office.rules.entry, last_digit_at)
        if entry.outcome is not Outcome.COMPLETE:
            log.info("code", call=phone.call, attempt=attempt, accepted=False, entry=entry.outcome.value)
            prompts = (Prompt.CODE_MISSING,)
            continue
        async with claimed(phone, entry.code, office) as claim:
            if claim is None:
                log.info("code", call=phone.call, attempt=attempt, accepted=False)
            elif await serve(phone, claim, attempt, office):
                return
        # A wrong, a used and an expired code sound the same, and so does one of a login that failed.
        prompts = (Prompt.CODE_WRONG,)
    await turn_away(phone, office.rules)


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


@asynccontextmanager
async def claimed(phone: Phone, code: str, office: Office) -> AsyncIterator[Claim | None]:
    """Exchange the code for a session and its secret, and hold that for the block; None if the code is not right.

    A caller who is cut off before an agent answered may use the code again; after that it is gone.
    """
    claim = None
    try:
        secret = new_secret()
        session = await office.sessions.claim(code, call=phone.call, secret=secret, now=office.clock())
        claim = Claim(session, secret) if session else None
        yield claim
    finally:
        # Also when the hangup came while the store was at work: what it then did is undone by the call's name.
        if claim and claim.served:
            ended = await office.sessions.finish(phone.call)
            if ended:
                office.feedback.logout(ended)
        else:
            await office.sessions.release(phone.call)


async def admitted(phone: Phone, claim: Claim, office: Office) -> bool:
    """Decide whether this caller may be served; waits a while for an auth result that is under way."""
    reference = claim.session.reference
    admit_unverified = office.rules.purposes[claim.session.purpose].admit_unverified
    verdict = admission(claim.session.result, admit_unverified=admit_unverified)
    if verdict is Admission.WAIT:
        with office.progress.watch(reference) as news:
            playback = await phone.play((Prompt.DATA_AWAITED,))
            try:
                async with asyncio.timeout(office.rules.late):
                    while verdict is Admission.WAIT:
                        session = await office.sessions.by_reference(reference)
                        claim.session = session or claim.session
                        verdict = admission(claim.session.result, admit_unverified=admit_unverified)
                        if verdict is Admission.WAIT:
                            await news.changed()
            except TimeoutError:
                pass
            await playback.stop()
    if verdict is not Admission.ADMIT:
        log.info("login failed or missing", call=phone.call, session=reference, verdict=verdict.value)
    return verdict is Admission.ADMIT


async def serve(phone: Phone, claim: Claim, attempt: int, office: Office) -> bool:
    """Serve a caller whose code is right to the end of the call; False if this caller may not be served."""
    words = control_words(claim.secret, claim.session.language or office.rules.language)
    with office.progress.call(claim.session.reference, phone.call, words) as journey:
        accepted = await admitted(phone, claim, office)
        log.info("code", call=phone.call, attempt=attempt, accepted=accepted)
        if accepted:
            await connect(phone, claim, journey, office)
    return accepted


async def connect(phone: Phone, claim: Claim, journey: Journey, office: Office) -> None:
    """Queue a caller until an agent answers, and let both talk until one of them hangs up."""
    session, rules = claim.session, office.rules
    queue = rules.purposes[session.purpose].queue
    ticket = Ticket(phone.call, session.reference, session.purpose, queue, office.clock())
    tell_active("code_accepted", session, office)
    journey.enter(Stage.QUEUED)
    with office.desk.place(ticket) as place:
        await phone.play((Prompt.CODE_ACCEPTED, Prompt.PLEASE_WAIT))
        await phone.music()
        while not claim.served:
            async with place.offer() as offer, phone.ring(offer.endpoint, rules.ring) as leg:
                outcome = await leg.outcome()
                log.info("rang", call=phone.call, agent=offer.agent, outcome=outcome.value)
                if outcome is not RingOutcome.ANSWERED:
                    offer.refused(rules.rest)
                    continue
                async with phone.connected(leg):
                    claim.served = True
                    offer.connect(claim.secret, journey.words)
                    log.info("connected", call=phone.call, agent=offer.agent)
                    await talk(leg, journey, session, office)
    log.info("ended by agent", call=phone.call)
    await say(phone, Prompt.GOODBYE)
    await phone.hang_up()


async def talk(leg: AgentLeg, journey: Journey, session: Session, office: Office) -> None:
    """Let caller and agent talk until the agent hangs up."""

    async def keep_active() -> None:
        while True:
            await asyncio.sleep(office.rules.active_every)
            office.feedback.user_active(session.reference)

    journey.enter(Stage.CONNECTED)
    tell_active("connected", session, office)
    async with asyncio.TaskGroup() as group:
        active = group.create_task(keep_active())
        await leg.hung_up()
        active.cancel()


def tell_active(moment: ActiveMoment, session: Session, office: Office) -> None:
    """Tell the auth plugin that its session is in use, if it is to be told at this moment."""
    if moment in office.rules.active_moments:
        office.feedback.user_active(session.reference)


async def turn_away(phone: Phone, rules: CallRules) -> None:
    """Let a caller go who could not be verified: to the plain queue, or with a goodbye."""
    log.info("not verified", call=phone.call, way_out=rules.unverified)
    if rules.unverified == "plain":
        await say(phone, Prompt.NOT_VERIFIED)
        await phone.to_plain_queue()
    else:
        await say(phone, Prompt.NOT_VERIFIED_GOODBYE)
        await phone.hang_up()


async def say(phone: Phone, *prompts: Prompt) -> None:
    """Play prompts to their end."""
    playback = await phone.play(prompts)
    await playback.ended()
