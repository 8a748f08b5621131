"""Passwords of local accounts: Argon2id, computed beside the event loop."""

from __future__ import annotations

import asyncio
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

LEAST_PASSWORD_LENGTH = 12

_hasher = PasswordHasher()


@cache
def _nobody() -> str:
    # Checked when there is no such account, so that the answer takes as long as when there is.
    return _hasher.hash("nobody")


def hash_password(password: str) -> str:
    """Give the hash under which a password is kept."""
    return _hasher.hash(password)


async def password_fits(password_hash: str | None, password: str) -> bool:
    """Whether a password is the one of this hash; None for an account that does not exist."""
    return await asyncio.to_thread(_fits, password_hash, password)


def _fits(password_hash: str | None, password: str) -> bool:
    try:
        _hasher.verify(password_hash or _nobody(), password)
    except (Argon2Error, InvalidHashError):
        return False
    return password_hash is not None
