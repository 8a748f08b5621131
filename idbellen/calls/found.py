"""Calls that came further than an earlier process could note, as the store and Asterisk show them: these are right.

A process that is cut off from the store goes on with its calls, and its notes are some seconds old when the next one
reads them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from idbellen.domain.idcontact import Admission, admission
from idbellen.domain.notes import CallNote, PartyNote, TalkNote
from idbellen.domain.talk import Mode
from idbellen.ports import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from idbellen.calls.desk import Desk
    from idbellen.calls.office import Office

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """Where Asterisk has a caller: the bridge, and the endpoints of our phones in it by their channels."""

    bridge: str
    phones: Mapping[str, str]


async def as_claimed(notes: Sequence[CallNote], office: Office) -> list[CallNote]:
    """Give the notes, but with a ticket for those whose code was right, as the store knows."""
    return list(await asyncio.gather(*(_as_claimed(note, office) for note in notes)))


def as_found(notes: Sequence[CallNote], found: Mapping[str, Found], desk: Desk) -> list[CallNote]:
    """Give the notes, but those of callers who talk with somebody else than they say as Asterisk has it.

    ``found`` is by the caller's channel. Agents are where they were found, at once: nobody is offered to one who talks.
    """
    result = [_as_found(note, found.get(note.channel), desk) for note in notes]
    here = {party.agent for note in result for party in note.parties}
    for note in notes:
        for party in note.parties:
            if note.ticket and party.agent and party.agent not in here:
                desk.settle(party.agent, note.ticket.queue)
    noted = {party.agent for note in notes for party in note.parties}
    for agent in here - noted:
        if agent:
            desk.occupy(agent)
    return result


async def _as_claimed(note: CallNote, office: Office) -> CallNote:
    if note.ticket or note.secret is None:
        return note
    try:
        session = await office.sessions.by_secret(note.secret)
    except StoreError as fault:
        log.warning("caller asked for the code afresh: the store cannot be used", call=note.call, reason=str(fault))
        return note
    if session is None:
        return note
    rules = office.rules.purposes[session.purpose]
    if admission(session.result, admit_unverified=rules.admit_unverified) is not Admission.ADMIT:
        return note
    log.info("code found accepted", call=note.call)
    return replace(note, ticket=office.ticket(note.call, session, note.server))


def _as_found(note: CallNote, found: Found | None, desk: Desk) -> CallNote:
    known = {party.channel: party for party in note.parties}
    # Without a ticket there is no session that could be shown.
    if note.ticket is None or found is None or found.phones.keys() <= known.keys():
        return note
    now = desk.clock()
    main, *others = [party for channel, party in known.items() if channel in found.phones] + [
        PartyNote(channel, endpoint, desk.staff.here_with(endpoint), now)
        for channel, endpoint in found.phones.items()
        if channel not in known
    ]
    log.info("call found further than noted", call=note.call, agent=main.agent)
    talk = TalkNote(found.bridge, main, others[0] if others else None, Mode.CONFERENCE if others else Mode.TALKING)
    answered = note.answered if note.talk else now
    return replace(note, entered=note.entered or note.ticket.since, served=True, answered=answered, talk=talk)
