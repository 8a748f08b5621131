"""The story of one call, told once: answer, collect the code, queue, ring an agent, connect, show, goodbye.

A hangup, at any step, is a cancellation (see :mod:`idbellen.calls.supervise`); everything that a step took is
given back where it was taken.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

import structlog

from idbellen.calls.conversation import Line, converse, converse_on
from idbellen.calls.queue import in_queue
from idbellen.calls.reach import reattach
from idbellen.calls.stay import Exit, Stay, recorded
from idbellen.domain.board import Stage
from idbellen.domain.codes import new_secret
from idbellen.domain.digits import Collector, Entry, EntryRules, Outcome
from idbellen.domain.idcontact import Admission, AuthStatus, admission
from idbellen.domain.notes import CallNote
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import Ticket, entry
from idbellen.domain.statistics import CallOutcome
from idbellen.domain.words import control_words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from idbellen.calls.desk import Desk
    from idbellen.calls.ends import Ends
    from idbellen.calls.notes import Memo, Notes
    from idbellen.calls.progress import Journey, Progress
    from idbellen.domain.hours import OpeningHours
    from idbellen.domain.notes import TalkNote
    from idbellen.ports import CallLog, Clock, Phone, Playback, Session, SessionFeedback, SessionStore

log = structlog.get_logger()

ActiveMoment = Literal["code_accepted", "connected"]

_OUTCOMES = {"closed": CallOutcome.CLOSED, "unstaffed": CallOutcome.UNSTAFFED, "full": CallOutcome.FULL}
_REASONS = {
    CallOutcome.CLOSED: Prompt.QUEUE_CLOSED,
    CallOutcome.UNSTAFFED: Prompt.QUEUE_UNSTAFFED,
    CallOutcome.FULL: Prompt.QUEUE_FULL,
    CallOutcome.TOO_LONG: Prompt.QUEUE_TOO_LONG,
}


class Handset(Protocol):
    """What asking for a code needs of a caller's channel, however it is reached (:class:`idbellen.ports.Phone`)."""

    @property
    def call(self) -> str:
        """The call's name, unguessable and meaningless; fit for a log."""
        ...

    async def answer(self) -> None:
        """Answer; from now on no digit is lost."""
        ...

    async def digit(self) -> str:
        """Wait for the next key that the caller presses."""
        ...

    async def play(self, prompts: Sequence[Prompt]) -> Playback:
        """Start to play prompts one after the other."""
        ...


@dataclass(frozen=True, slots=True)
class PurposeRules:
    """What a purpose means for a call: its queue, whether it lets in who did not log in, and its priority there."""

    queue: str
    admit_unverified: bool
    priority: int = 0


@dataclass(frozen=True, slots=True)
class CallRules:
    """What a call may take; times in seconds. ``unverified``: the way out for who has no right code.

    ``late``: how long a caller waits for an auth result that is still to come. ``language``: of the prompts.
    ``active_moments`` and ``active_every``: when the auth plugin is told that its session is in use. ``outside``:
    gives the endpoint over which an outside number is rung.
    """

    entry: EntryRules
    tries: int
    unverified: Literal["plain", "goodbye"]
    late: float
    language: str
    active_moments: frozenset[ActiveMoment]
    active_every: float
    outside: Callable[[str], str]
    purposes: Mapping[str, PurposeRules]


@dataclass(frozen=True, slots=True)
class Office:
    """What every call is told with: the rules, the sessions, the desk, the citizens' pages and the time.

    ``hours``: of every queue. ``notes``: of what is in hand, for the next process. ``ends``: tells the store.
    """

    rules: CallRules
    hours: Mapping[str, OpeningHours]
    sessions: SessionStore
    desk: Desk
    progress: Progress
    feedback: SessionFeedback
    calls: CallLog
    notes: Notes
    ends: Ends
    clock: Clock


@dataclass(slots=True)
class Claim:
    """A session that this call got for its code, with the secret. ``served``: an agent has spoken."""

    session: Session
    secret: str = field(repr=False)
    served: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller whose code was right."""

    phone: Phone
    claim: Claim
    journey: Journey
    memo: Memo


async def take_call(phone: Phone, office: Office) -> None:
    """Take one call from its first ring to its end."""
    memo = office.notes.call(CallNote(phone.call, phone.channel, server=phone.server))
    phone.on_play(memo.playing)

    async def serve(claim: Claim, journey: Journey) -> None:
        await connect(Caller(phone, claim, journey, memo), office)

    try:
        if not await identify(phone, office, serve):
            await turn_away(phone, office.rules)
    finally:
        memo.forget()


async def resume_call(phone: Phone, note: CallNote, office: Office) -> None:
    """Take up the call of an earlier process where that one left it; a code is asked for afresh."""
    try:
        async with _held(phone.call, _claimed_before(note, office), office, served=note.served) as claim:
            if claim:
                memo = office.notes.call(note)
                phone.on_play(memo.playing)
                words = control_words(claim.secret, claim.session.language or office.rules.language)
                try:
                    with office.progress.call(claim.session.reference, phone.call, words) as journey:
                        await connect(Caller(phone, claim, journey, memo), office)
                finally:
                    memo.forget()
                return
        await take_call(phone, office)
    finally:
        _let_go(note, office)


async def close_call(note: CallNote, office: Office) -> None:
    """End the call of an earlier process whose caller has gone meanwhile."""
    try:
        async with _held(note.call, _claimed_before(note, office), office, served=note.served):
            if note.ticket:
                with recorded(note.ticket, office.calls, office.notes, office.clock, arrived=note.entered) as stay:
                    if note.talk:
                        stay.answered(note.talk.main.agent, note.ticket, note.answered)
    finally:
        _let_go(note, office)


def _let_go(note: CallNote, office: Office) -> None:
    """Forget a call of an earlier process, and let those of its agents go who were not taken up."""
    office.notes.forget_call(note.call)
    for party in note.parties:
        if party.agent and note.ticket:
            office.desk.settle(party.agent, note.ticket.queue)


async def _claimed_before(note: CallNote, office: Office) -> Claim | None:
    """Give the session that a call got for its code, if it came as far as the queue."""
    if note.secret is None or note.ticket is None:
        return None
    session = await office.sessions.by_secret(note.secret)
    return Claim(session, note.secret, note.served) if session else None


async def identify(
    phone: Handset, office: Office, serve: Callable[[Claim, Journey], Awaitable[None]]
) -> bool:
    """Answer and ask for the code until one is accepted, and have that caller served; False if none is.

    The code is the caller's for as long as ``serve`` takes.
    """
    await phone.answer()
    prompts: Sequence[Prompt] = (Prompt.WELCOME, Prompt.ENTER_CODE)
    last_digit_at: float | None = None
    for attempt in range(1, office.rules.tries + 1):
        entry, last_digit_at = await collect(phone, prompts, office.rules.entry, last_digit_at)
        if entry.outcome is not Outcome.COMPLETE:
            log.info("code", call=phone.call, attempt=attempt, accepted=False, entry=entry.outcome.value)
            prompts = (Prompt.CODE_MISSING,)
            continue
        async with claimed(phone.call, entry.code, office) as claim:
            if claim is None:
                log.info("code", call=phone.call, attempt=attempt, accepted=False)
            elif await _serve_admitted(phone, claim, attempt, office, serve):
                return True
        # A wrong, a used and an expired code sound the same, and so does one of a login that failed.
        prompts = (Prompt.CODE_WRONG,)
    return False


async def collect(
    phone: Handset, prompts: Sequence[Prompt], rules: EntryRules, previous_digit_at: float | None
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
async def claimed(call: str, code: str, office: Office) -> AsyncIterator[Claim | None]:
    """Exchange the code for a session and its secret, and hold that for the block; None if the code is not right.

    A caller who is cut off before an agent answered may use the code again; after that it is gone.
    """

    async def exchange() -> Claim | None:
        # Or what is told of the try before would undo this one.
        await office.ends.settle(call)
        secret = new_secret()
        session = await office.sessions.claim(code, call=call, secret=secret, now=office.clock())
        return Claim(session, secret) if session else None

    async with _held(call, exchange(), office) as claim:
        yield claim


@asynccontextmanager
async def _held(
    call: str, getting: Awaitable[Claim | None], office: Office, *, served: bool = False
) -> AsyncIterator[Claim | None]:
    claim = None
    try:
        claim = await getting
        yield claim
    finally:
        # Also when the hangup came while the store was at work: what it then did is undone by the call's name.
        if office.notes.handed_over:
            log.info("left to the next process", call=call)
        else:
            await office.ends.end(call, served=claim.served if claim else served)


async def admitted(phone: Handset, claim: Claim, office: Office) -> bool:
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


async def _serve_admitted(
    phone: Handset, claim: Claim, attempt: int, office: Office, serve: Callable[[Claim, Journey], Awaitable[None]]
) -> bool:
    """Have a caller served whose code is right; False if this caller may not be served."""
    words = control_words(claim.secret, claim.session.language or office.rules.language)
    with office.progress.call(claim.session.reference, phone.call, words) as journey:
        accepted = await admitted(phone, claim, office)
        log.info("code", call=phone.call, attempt=attempt, accepted=accepted)
        if accepted:
            await serve(claim, journey)
    return accepted


async def connect(caller: Caller, office: Office) -> None:
    """Queue a caller until an agent answers and let them talk, as often as the caller is sent on to a queue.

    Who was in a queue or talked in an earlier process goes on from there.
    """
    phone, session = caller.phone, caller.claim.session
    before = caller.memo.note
    onward: Ticket | Exit | None = before.ticket
    arrived, sent, talk = before.entered, True, before.talk
    greeting = []
    if onward is None:
        rules = office.rules.purposes[session.purpose]
        verified = session.result is not None and session.result.status is AuthStatus.SUCCESS
        arrived, sent = office.clock(), False
        onward = Ticket(
            phone.call, session.reference, session.purpose, rules.queue, arrived, verified, rules.priority,
            server=phone.server,
        )  # fmt: skip
        tell_active("code_accepted", session, office)
        greeting = [Prompt.CODE_ACCEPTED]
    been = set()
    while isinstance(onward, Ticket):
        been.add(onward.queue)
        with recorded(onward, office.calls, office.notes, office.clock, arrived=arrived) as stay:
            if talk:
                onward = await talk_on(caller, stay, talk, office)
            else:
                onward = await wait_and_talk(caller, stay, greeting, office, sent=sent)
        sent = isinstance(onward, Ticket)
        if isinstance(onward, Exit) and onward.way.kind == "queue" and onward.way.target not in been:
            onward = replace(onward.ticket, queue=onward.way.target)
        greeting, arrived, talk = [], office.clock(), None
    if onward:
        await leave(phone, onward)
    else:
        log.info("ended by agent", call=phone.call)
        await say(phone, Prompt.GOODBYE)
        await phone.hang_up()


async def wait_and_talk(
    caller: Caller, stay: Stay, greeting: Sequence[Prompt], office: Office, *, sent: bool
) -> Ticket | Exit | None:
    """Go through one queue; gives the ticket to wait with again, the way out of the queue, or None when all is said.

    ``sent``: by an agent, a supervisor or an earlier process, and not by a configured way out.
    """
    phone, claim, memo = caller.phone, caller.claim, caller.memo
    ticket, desk = stay.ticket, office.desk
    rules = desk.queues[ticket.queue]
    # Whoever was sent here is not sent away for the crowd, nor because it closed while they talked.
    waiting = 0 if sent else desk.waiting_in(ticket.queue)
    is_open = sent or office.hours[ticket.queue].open_at(office.clock())
    refused = entry(ticket.queue, waiting, rules, desk.staff.agents.values(), is_open=is_open)
    if refused:
        reason, way = refused
        stay.outcome = _OUTCOMES[reason]
        return Exit(stay.outcome, way, ticket)
    caller.journey.enter(Stage.QUEUED)
    memo.change(secret=claim.secret, ticket=ticket, entered=stay.arrived, served=claim.served, talk=None)
    async with AsyncExitStack() as scope:
        answer = await in_queue(phone, stay, desk, greeting, lambda now: memo.change(ticket=now), scope)
        if isinstance(answer, Ticket):
            if answer.queue != ticket.queue:
                stay.outcome = CallOutcome.LEFT
                return answer
            stay.outcome = CallOutcome.TOO_LONG
            return Exit(stay.outcome, rules.on_longest, answer)
        assert answer.reservation  # noqa: S101 - in_queue() gives agents
        claim.served = True
        stay.answered(answer.agent, answer.reservation.ticket, office.clock())
        async with keeping_active(claim.session, office):
            return await converse(_line(caller, stay, office), answer, scope)


async def talk_on(caller: Caller, stay: Stay, talk: TalkNote, office: Office) -> Ticket | None:
    """Go on with the conversation of an earlier process; gives what :func:`wait_and_talk` does."""
    async with AsyncExitStack() as scope, keeping_active(caller.claim.session, office):
        parties = [await reattach(caller.phone, party, scope) for party in talk.parties]
        stay.answered(talk.main.agent, stay.ticket, caller.memo.note.answered)
        return await converse_on(_line(caller, stay, office), talk, parties, scope)


def _line(caller: Caller, stay: Stay, office: Office) -> Line:
    """Give what a conversation of this caller needs."""

    def connected() -> None:
        caller.journey.enter(Stage.CONNECTED)
        tell_active("connected", caller.claim.session, office)

    def noted(talk: TalkNote) -> None:
        caller.memo.change(ticket=stay.ticket, answered=stay.answered_at, served=True, talk=talk)

    return Line(
        caller.phone,
        office.desk,
        stay.ticket,
        caller.claim.secret,
        caller.journey.words,
        office.rules.outside,
        connected,
        noted,
    )


@asynccontextmanager
async def keeping_active(session: Session, office: Office) -> AsyncIterator[None]:
    """Tell the auth plugin now and then, for the block, that its session is in use."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(office.rules.active_every)
            office.feedback.user_active(session.reference)

    async with asyncio.TaskGroup() as group:
        telling = group.create_task(tell())
        yield
        telling.cancel()


async def leave(phone: Phone, exit_: Exit) -> None:
    """Let a caller go whom a queue cannot take or keep: the reason as a sentence, and the way out."""
    way = exit_.way
    log.info("out of the queue", call=phone.call, queue=exit_.ticket.queue, reason=exit_.reason.value, way=way.kind)
    if way.kind == "goodbye":
        await say(phone, _REASONS[exit_.reason], Prompt.GOODBYE)
        await phone.hang_up()
    elif way.kind == "extension":
        await say(phone, _REASONS[exit_.reason], Prompt.ONE_MOMENT)
        context, extension, priority = way.target.split(",")
        await phone.to_extension(context, extension, int(priority))
    else:
        # Also where queues send callers to each other in a circle.
        await say(phone, _REASONS[exit_.reason], Prompt.ONE_MOMENT)
        await phone.to_plain_queue()


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


async def say(phone: Handset, *prompts: Prompt) -> None:
    """Play prompts to their end."""
    playback = await phone.play(prompts)
    await playback.ended()
