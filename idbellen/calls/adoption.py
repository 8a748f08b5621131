"""Taking up what an earlier process has left: each caller where that one left off (decision 0009)."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from idbellen.calls.active import keeping_active
from idbellen.calls.conversation import converse_on
from idbellen.calls.flow import Caller, connect, surroundings_of, take_call, through_queues, wait_and_talk
from idbellen.calls.identify import Claim, held, words_of
from idbellen.calls.patience import patiently
from idbellen.calls.reach import reattach
from idbellen.calls.stay import recorded
from idbellen.ports import Session

if TYPE_CHECKING:
    from idbellen.calls.office import Office
    from idbellen.calls.stay import Stay
    from idbellen.domain.notes import CallNote, TalkNote
    from idbellen.domain.queueing import Ticket
    from idbellen.ports import Phone

# So long the store is waited for by a caller whom an earlier process had queued, beside what one request may take:
# many are taken up in the same moment, and whoever waited already would rather wait on.
IN_HAND_SECONDS = 20.0


async def resume_call(phone: Phone, note: CallNote, office: Office) -> None:
    """Take up the call of an earlier process where that one left it; a code is asked for afresh."""
    gone_on = False
    try:
        async with held(phone.call, _claimed_before(note, office), office, served=note.served) as claim:
            if claim:
                memo = office.notes.call(note)
                phone.on_play(memo.playing)
                words = words_of(claim, office)
                try:
                    with office.progress.call(claim.session.reference, phone.call, words) as journey:
                        gone_on = True
                        await _go_on(Caller(phone, claim, journey, memo), note, office)
                finally:
                    memo.forget()
                return
        # The session has gone: the stay ends here, and the call begins anew.
        gone_on = True
        _end_stay(note, office)
        await take_call(phone, office)
    finally:
        if not gone_on:
            # The caller hung up before that, for instance.
            _end_stay(note, office)
        _let_go(note, office)


async def _go_on(caller: Caller, note: CallNote, office: Office) -> None:
    """Let a caller wait on, or talk on, in the queue that an earlier process had led the caller to."""
    assert note.ticket  # noqa: S101 - whose code was right
    if not note.entered:
        await connect(caller, office, note.ticket)
        return
    through = (
        partial(talk_on, caller, office, note.talk)
        if note.talk
        else partial(wait_and_talk, caller, office, (), sent=True)
    )
    await through_queues(caller, office, note.ticket, note.entered, through)


async def talk_on(caller: Caller, office: Office, talk: TalkNote, stay: Stay) -> Ticket | None:
    """Go on with the conversation of an earlier process."""
    async with AsyncExitStack() as scope, keeping_active(caller.claim.session, office):
        parties = [await reattach(caller.phone, party, scope) for party in talk.parties]
        stay.answered(talk.main.agent, stay.ticket, caller.memo.note.answered)
        return await converse_on(surroundings_of(caller, stay, office), talk, parties, scope)


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
