"""What other machines show of themselves: a user name and a password, or a token."""

from __future__ import annotations

import hmac
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Credentials:
    """What callers must show, if anything: see :func:`basic` and :func:`bearer`.

    ``protect``: ``start`` leaves the delivery of auth results open, whose address is unguessable by itself and
    whose auth plugins know no credentials of ours.
    """

    accepted: Collection[str] = field(default=(), repr=False)
    protect: Literal["start", "all"] = "start"

    def fit(self, header: str) -> bool:
        """Whether a header shows one of them; the time it takes tells nothing."""
        scheme, _, value = header.partition(" ")
        given = f"{scheme.lower()} {value.strip()}".encode(errors="surrogateescape")
        return any(hmac.compare_digest(given, wanted.encode()) for wanted in self.accepted)


def basic(user: str, password: str) -> str:
    """Give what :class:`Credentials` accepts for a user name and password (RFC 7617)."""
    return f"basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def bearer(token: str) -> str:
    """Give what :class:`Credentials` accepts for a token (RFC 6750)."""
    return f"bearer {token}"
