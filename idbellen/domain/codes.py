"""Codes, secrets and the keyed hashes under which a store keeps them."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from idbellen.domain.ids import Secret

SECRET_BYTES = 32
HANDLE_BYTES = 16


def new_code(digits: int) -> str:
    """Draw a code from the system's CSPRNG in which no two neighbouring digits are equal.

    Asterisk can report one keyed digit twice when the network stalls; a code without equal
    neighbours lets :mod:`idbellen.domain.digits` tell the two apart. Ten digits leave 10 x 9^9 codes.
    """
    code = str(secrets.randbelow(10))
    while len(code) < digits:
        code += secrets.choice([digit for digit in "0123456789" if digit != code[-1]])
    return code


def new_secret() -> Secret:
    """Draw a session secret of 256 bits, safe in JSON and in a header."""
    return Secret(secrets.token_urlsafe(SECRET_BYTES))


def new_handle() -> str:
    """Draw an unguessable name of 128 bits for a page or an address."""
    return secrets.token_urlsafe(HANDLE_BYTES)


def in_groups(code: str) -> list[str]:
    """Split a code into groups of three digits, the last of three, four or five, as people read it out."""
    groups = [code[start : start + 3] for start in range(0, len(code), 3)]
    if len(groups) > 1 and len(groups[-1]) < 3:  # noqa: PLR2004 - a short last group joins the one before
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


class Fingerprints:
    """Keyed hashes (HMAC-SHA256) of codes, secrets and handles: a stolen store shows none of them."""

    def __init__(self, master_key: bytes) -> None:
        self._master_key = master_key

    def derive(self, use: str) -> bytes:
        """Give the 32-byte key of one use, derived from the master key."""
        return hmac.digest(self._master_key, b"idbellen " + use.encode(), hashlib.sha256)

    def of(self, use: str, value: str) -> str:
        """Give the hex fingerprint of a value for one use, such as ``code`` or ``secret``."""
        return hmac.digest(self.derive(use), value.encode(), hashlib.sha256).hex()
