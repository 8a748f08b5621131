"""All calls of a process, as the switchboard has their stories told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from idbellen.calls.adoption import close_call, resume_call
from idbellen.calls.flow import take_call
from idbellen.calls.found import as_found
from idbellen.calls.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from idbellen.calls.found import Found
    from idbellen.calls.office import Office
    from idbellen.domain.notes import CallNote
    from idbellen.ports import Phone

log = structlog.get_logger()


class Stories:
    """The stories of all calls."""

    def __init__(self, office: Office) -> None:
        self._office = office

    async def take(self, phone: Phone) -> None:
        """Tell the story of a new call to its end."""
        await run(phone, lambda: take_call(phone, self._office), self._office, phone.to_plain_queue)

    def as_found(self, notes: Sequence[CallNote], found: Mapping[str, Found]) -> list[CallNote]:
        """Give notes of an earlier process as Asterisk shows their calls (:mod:`idbellen.calls.found`)."""
        return as_found(notes, found, self._office.desk)

    async def take_up(self, phone: Phone, note: CallNote) -> None:
        """Tell the story of a call of an earlier process from where that one was."""
        await run(phone, lambda: resume_call(phone, note, self._office), self._office, phone.to_plain_queue)

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
