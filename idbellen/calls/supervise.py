"""Runs the story of a call so that a hangup ends it, and so that its faults stay its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from idbellen.aio import timeout
from idbellen.calls.adoption import close_call, resume_call
from idbellen.calls.flow import take_call
from idbellen.calls.found import as_found
from idbellen.calls.identify import say
from idbellen.domain.prompts import Prompt
from idbellen.ports import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from idbellen.calls.found import Found
    from idbellen.calls.office import Office
    from idbellen.domain.notes import CallNote
    from idbellen.ports import Phone

log = structlog.get_logger()
APOLOGY_SECONDS = 15.0


class HungUpError(Exception):
    """The caller has gone: cancels the story."""


async def supervise(phone: Phone, office: Office, note: CallNote | None = None) -> None:
    """Tell one call's story to its end, whatever happens in it; with a note, from where an earlier process was."""
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_watch(phone))
            await (resume_call(phone, note, office) if note else take_call(phone, office))
            watcher.cancel()
    except* HungUpError:
        log.info("caller hung up", call=phone.call)
    except* StoreError as faults:
        if not office.notes.handed_over:
            reason = str(faults.exceptions[0])
            log.error("call not served: the store cannot be used", call=phone.call, reason=reason)  # noqa: TRY400
            await _apologise(phone)
    except* Exception as faults:
        # Whatever fails when the next process has the call already is nothing.
        if not office.notes.handed_over:
            # Whatever the fault was, only this call knows of it: the caller hears so and is helped otherwise.
            log.exception("call failed", call=phone.call, exc_info=faults)
            await _apologise(phone)
    log.info("call over", call=phone.call)


class Stories:
    """All calls of this process, as the switchboard has them told."""

    def __init__(self, office: Office) -> None:
        self._office = office

    async def take(self, phone: Phone) -> None:
        """Tell the story of a new call to its end."""
        await supervise(phone, self._office)

    def as_found(self, notes: Sequence[CallNote], found: Mapping[str, Found]) -> list[CallNote]:
        """Give notes of an earlier process as Asterisk shows their calls (:mod:`idbellen.calls.found`)."""
        return as_found(notes, found, self._office.desk)

    async def take_up(self, phone: Phone, note: CallNote) -> None:
        """Tell the story of a call of an earlier process from where that one was."""
        await supervise(phone, self._office, note)

    async def close(self, note: CallNote) -> None:
        """End a call of an earlier process whose caller has gone meanwhile."""
        try:
            await close_call(note, self._office)
        except Exception:
            # The others are taken up all the same.
            log.exception("call of an earlier process not ended properly", call=note.call)
        log.info("call over", call=note.call)

    def connected(self, server: str) -> None:
        """Note that an Asterisk can be reached."""
        self._office.desk.set_telephony(server, up=True)

    def lost(self, server: str) -> None:
        """Note that it cannot: agents shall know when nobody can call them."""
        self._office.desk.set_telephony(server, up=False)

    def hand_over(self) -> None:
        """Leave all calls to the next process, from now on."""
        self._office.notes.hand_over()


async def _watch(phone: Phone) -> None:
    await phone.hung_up()
    raise HungUpError


async def _apologise(phone: Phone) -> None:
    with suppress(Exception):
        async with timeout(APOLOGY_SECONDS):
            await say(phone, Prompt.APOLOGY)
    try:
        await phone.to_plain_queue()
    except Exception:  # noqa: BLE001 - the last thing that is tried for this caller
        log.error("caller could not be sent to the plain queue", call=phone.call)  # noqa: TRY400
