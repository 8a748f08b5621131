"""The story of one call, told once: answer, collect the code, queue, ring an agent, connect, show, goodbye.

A hangup, at any step, is a cancellation (see :mod:`idbellen.calls.supervise`); everything that a step took is
given back where it was taken.
"""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from idbellen.calls.active import keeping_active, tell_active
from idbellen.calls.conversation import Line, converse, converse_on
from idbellen.calls.identify import Claim, held, identify, say
from idbellen.calls.patience import patiently
from idbellen.calls.queue import in_queue
from idbellen.calls.reach import reattach
from idbellen.calls.stay import Exit, Stay, recorded
from idbellen.domain.board import Stage
from idbellen.domain.codes import new_secret
from idbellen.domain.notes import CallNote
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import Ticket, entry
from idbellen.domain.statistics import CallOutcome
from idbellen.domain.words import control_words
from idbellen.ports import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idbellen.calls.notes import Memo
    from idbellen.calls.office import CallRules, Office
    from idbellen.calls.progress import Journey
    from idbellen.domain.notes import TalkNote
    from idbellen.ports import Phone

log = structlog.get_logger()
# So long the store is waited for by a caller whom an earlier process had queued, beside what one request may take:
# many are taken up in the same moment, and whoever waited already would rather wait on.
IN_HAND_SECONDS = 20.0

_OUTCOMES = {"closed": CallOutcome.CLOSED, "unstaffed": CallOutcome.UNSTAFFED, "full": CallOutcome.FULL}
_REASONS = {
    CallOutcome.CLOSED: Prompt.QUEUE_CLOSED,
    CallOutcome.UNSTAFFED: Prompt.QUEUE_UNSTAFFED,
    CallOutcome.FULL: Prompt.QUEUE_FULL,
    CallOutcome.TOO_LONG: Prompt.QUEUE_TOO_LONG,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller whose code was right."""

    phone: Phone
    claim: Claim
    journey: Journey
    memo: Memo


async def take_call(phone: Phone, office: Office) -> None:
    """Take one call from its first ring to its end."""
    # It is noted before it counts, so that the next process can ask the store whether the code was right.
    secret = new_secret()
    memo = office.notes.call(CallNote(phone.call, phone.channel, secret, server=phone.server))
    phone.on_play(memo.playing)

    async def serve(claim: Claim, journey: Journey) -> None:
        await connect(Caller(phone, claim, journey, memo), office)

    try:
        if not await identify(phone, office, serve, secret):
            await turn_away(phone, office.rules)
    finally:
        memo.forget()


async def resume_call(phone: Phone, note: CallNote, office: Office) -> None:
    """Take up the call of an earlier process where that one left it; a code is asked for afresh."""
    gone_on = False
    try:
        async with held(phone.call, _claimed_before(note, office), office, served=note.served) as claim:
            if claim:
                memo = office.notes.call(note)
                phone.on_play(memo.playing)
                words = control_words(claim.secret, claim.session.language or office.rules.language)
                try:
                    with office.progress.call(claim.session.reference, phone.call, words) as journey:
                        gone_on = True
                        await connect(Caller(phone, claim, journey, memo), office)
                finally:
                    memo.forget()
                return
        # The session has gone: the stay ends here, and the call begins anew.
        gone_on = True
        _end_stay(note, office)
        await take_call(phone, office)
    finally:
        if not gone_on:
            # Who hung up before that, for instance.
            _end_stay(note, office)
        _let_go(note, office)


async def close_call(note: CallNote, office: Office) -> None:
    """End the call of an earlier process whose caller has gone meanwhile."""
    try:
        async with held(note.call, _claimed_before(note, office), office, served=note.served):
            _end_stay(note, office)
    finally:
        _let_go(note, office)


def _end_stay(note: CallNote, office: Office) -> None:
    """Keep the record of a stay in a queue that an earlier process began, and with which nobody goes on."""
    if note.ticket:
        with recorded(
            note.ticket, office.calls, office.notes, office.clock, arrived=note.entered or note.ticket.since
        ) as stay:
            if note.talk:
                stay.answered(note.talk.main.agent, note.ticket, note.answered)


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
    secret = note.secret
    # A pair that talks needs nothing of us for now.
    seconds = IN_HAND_SECONDS if note.talk is None else math.inf
    session = await patiently(lambda: office.sessions.by_secret(secret), seconds)
    if session is None and note.talk:
        # Deleted meanwhile, as of a purpose that is no longer configured: they talk on, with nothing to be shown.
        session = Session(note.ticket.session, note.ticket.purpose)
    return Claim(session, secret, note.served) if session else None


async def connect(caller: Caller, office: Office) -> None:
    """Queue a caller until an agent answers and let them talk, as often as the caller is sent on to a queue.

    Who was in a queue or talked in an earlier process goes on from there.
    """
    phone, session = caller.phone, caller.claim.session
    before = caller.memo.note
    ticket = before.ticket or office.ticket(phone.call, session, phone.server)
    onward: Ticket | Exit | None = ticket
    arrived, sent, talk = before.entered or ticket.since, before.entered > 0.0, before.talk
    greeting = []
    if not sent:
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
        office.notes.kept,
    )


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


async def turn_away(phone: Phone, rules: CallRules) -> None:
    """Let a caller go who could not be verified: to the plain queue, or with a goodbye."""
    log.info("not verified", call=phone.call, way_out=rules.unverified)
    if rules.unverified == "plain":
        await say(phone, Prompt.NOT_VERIFIED)
        await phone.to_plain_queue()
    else:
        await say(phone, Prompt.NOT_VERIFIED_GOODBYE)
        await phone.hang_up()
