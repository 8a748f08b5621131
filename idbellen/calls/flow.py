"""The story of one call, told once: answer, collect the code, queue, ring an agent, connect, show, goodbye.

A hangup, at any step, is a cancellation (see :mod:`idbellen.calls.run`); everything that a step took is
given back where it was taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

import structlog

from idbellen.calls.active import keeping_active, tell_active
from idbellen.calls.conversation import Surroundings, converse
from idbellen.calls.identify import identify, say
from idbellen.calls.queue import in_queue, keep_company
from idbellen.calls.reach import ring_agents
from idbellen.calls.stay import Exit, Stay, recorded
from idbellen.domain.board import Stage
from idbellen.domain.codes import new_secret
from idbellen.domain.notes import CallNote
from idbellen.domain.prompts import Prompt, reason_prompt
from idbellen.domain.queueing import Goodbye, Plain, Ticket, ToExtension, ToQueue, entry
from idbellen.domain.statistics import CallOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idbellen.calls.identify import Claim, Farewell
    from idbellen.calls.notes import Memo
    from idbellen.calls.office import Office
    from idbellen.calls.progress import Journey
    from idbellen.domain.notes import TalkNote
    from idbellen.ports import Phone

log = structlog.get_logger()
# Where a caller goes after a queue: into one again, out of it, or home, when all is said.
Onward = Ticket | Exit | None
Through = Callable[[Stay], Awaitable[Onward]]


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
        ticket = office.ticket(phone.call, claim.session, phone.server)
        await connect(Caller(phone, claim, journey, memo), office, ticket)

    try:
        farewell = await identify(phone, office, serve, secret)
        if farewell:
            await turn_away(phone, farewell)
    finally:
        memo.forget()


async def connect(caller: Caller, office: Office, ticket: Ticket) -> None:
    """Queue a caller whose code was right, until an agent answers, and let them talk."""
    tell_active("code_accepted", caller.claim.session, office)
    greeting = (caller.claim.greeting,)
    await through_queues(caller, office, ticket, ticket.since, partial(wait_and_talk, caller, office, greeting))


async def through_queues(caller: Caller, office: Office, ticket: Ticket, arrived: float, through: Through) -> None:
    """Let a caller go through a queue, and as often as the caller is sent on, through another one; to the end."""
    onward: Onward = ticket
    been = set()
    while isinstance(onward, Ticket):
        been.add(onward.queue)
        with recorded(onward, office.calls, office.notes, office.clock, arrived=arrived) as stay:
            onward = await through(stay)
        sent = isinstance(onward, Ticket)
        if isinstance(onward, Exit) and isinstance(onward.way, ToQueue) and onward.way.queue not in been:
            onward = replace(onward.ticket, queue=onward.way.queue)
        arrived, through = office.clock(), partial(wait_and_talk, caller, office, (), sent=sent)
    if onward:
        await leave(caller.phone, onward)
    else:
        log.info("ended by agent", call=caller.phone.call)
        await say(caller.phone, Prompt.GOODBYE)
        await caller.phone.hang_up()


async def wait_and_talk(
    caller: Caller, office: Office, greeting: Sequence[Prompt], stay: Stay, *, sent: bool = False
) -> Onward:
    """Go through one queue: wait until an agent answers, and talk.

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
        stay.outcome = refused
        return Exit(refused, rules.way_out(refused), ticket)
    caller.journey.enter(Stage.QUEUED)
    memo.change(secret=claim.secret, ticket=ticket, entered=stay.arrived, served=claim.served, talk=None)
    async with AsyncExitStack() as scope:
        answer = await in_queue(
            stay,
            desk,
            lambda now: memo.change(ticket=now),
            lambda offered: ring_agents(phone, offered, desk.ring, scope),
            partial(keep_company, phone, desk, greeting),
        )
        if isinstance(answer, Ticket):
            if answer.queue != ticket.queue:
                stay.outcome = CallOutcome.LEFT
                return answer
            stay.outcome = CallOutcome.TOO_LONG
            return Exit(stay.outcome, rules.way_out(stay.outcome), answer)
        assert answer.reservation  # noqa: S101 - in_queue() gives agents
        claim.served = True
        stay.answered(answer.agent, answer.reservation.ticket, office.clock())
        async with keeping_active(claim.session, office):
            return await converse(surroundings_of(caller, stay, office), answer, scope)


def surroundings_of(caller: Caller, stay: Stay, office: Office) -> Surroundings:
    """Give what a conversation of this caller needs."""

    def connected() -> None:
        caller.journey.enter(Stage.CONNECTED)
        tell_active("connected", caller.claim.session, office)

    def noted(talk: TalkNote) -> None:
        caller.memo.change(ticket=stay.ticket, answered=stay.answered_at, served=True, talk=talk)

    return Surroundings(
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
    way, reason = exit_.way, reason_prompt(exit_.reason)
    log.info("out of the queue", call=phone.call, queue=exit_.ticket.queue, reason=exit_.reason.value, way=way.kind)
    match way:
        case Goodbye():
            await say(phone, reason, Prompt.GOODBYE)
            await phone.hang_up()
        case ToExtension(context, extension, priority):
            await say(phone, reason, Prompt.ONE_MOMENT)
            await phone.to_extension(context, extension, priority)
        case Plain() | ToQueue():
            # A queue only where queues send callers to each other in a circle.
            await say(phone, reason, Prompt.ONE_MOMENT)
            await phone.to_plain_queue()
        case _:
            assert_never(way)


async def turn_away(phone: Phone, farewell: Farewell) -> None:
    """Let a caller go whom no code verified: to the plain queue, or with a goodbye."""
    await say(phone, farewell.prompt)
    if farewell.way_out == "plain":
        await phone.to_plain_queue()
    else:
        await phone.hang_up()
