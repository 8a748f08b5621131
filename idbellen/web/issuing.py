"""Gives a session its code: for the citizen's page, and for a ``tel:`` address that the core asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from idbellen.domain.codes import new_code

if TYPE_CHECKING:
    from idbellen.domain.ids import SessionRef
    from idbellen.ports import Clock, SessionStore

CODE_ATTEMPTS = 20


class NoFreeCodeError(Exception):
    """Every code that was drawn is another session's: there are too many sessions for so few digits."""


@dataclass(frozen=True, slots=True)
class IssuedCode:
    """A code and until when it may be used, in epoch seconds."""

    code: str = field(repr=False)
    until: float


@dataclass(frozen=True, slots=True)
class CodeIssuer:
    """Issues codes of ``digits`` digits that may be used for ``seconds``."""

    sessions: SessionStore
    digits: int
    seconds: float
    clock: Clock

    async def issue(self, reference: SessionRef) -> IssuedCode:
        """Give a session a new code in place of an earlier one.

        Raises:
            NoFreeCodeError: none was free.

        """
        now = self.clock()
        until = now + self.seconds
        for _ in range(CODE_ATTEMPTS):
            code = new_code(self.digits)
            if await self.sessions.issue_code(reference, code, now, valid_until=until):
                return IssuedCode(code, until)
        raise NoFreeCodeError("no free code found: lengthen [sessions] code_digits")


def dial_address(phone_number: str, code: str) -> str:
    """Give the ``tel:`` address that dials and then sends the code (RFC 3966; a comma pauses some two seconds).

    Phones refuse ``*`` and ``#`` in such an address.
    """
    return f"tel:{phone_number},{code}"
