"""The embedded store: one SQLite file, which survives a restart. For one idbellen process."""

from __future__ import annotations

import os
import sqlite3
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import aiosqlite

from idbellen.ports import Account, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from idbellen.domain.codes import Fingerprints

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    reference TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    created REAL NOT NULL,
    token TEXT,
    attr_handle TEXT UNIQUE NOT NULL,
    page_handle TEXT UNIQUE,
    code TEXT UNIQUE,
    code_valid_until REAL,
    claimed_by TEXT,
    secret TEXT UNIQUE
);
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY,
    endpoint TEXT NOT NULL,
    password_hash TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS logins (
    login TEXT PRIMARY KEY,
    name TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    created REAL NOT NULL,
    seen REAL NOT NULL
);
"""


class StoreError(Exception):
    """The store cannot be used; the message says which file and why."""


@asynccontextmanager
async def open_store(path: Path, fingerprints: Fingerprints) -> AsyncIterator[SqliteStore]:
    """Open the store, and make it if it is not there.

    Raises:
        StoreError: the file cannot be used.

    """
    try:
        # Made by hand, so that it is never readable for others, not even for a moment.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = await aiosqlite.connect(path, isolation_level=None)
    except (OSError, sqlite3.Error) as fault:
        raise StoreError(f"store {path}: {fault}") from None
    try:
        try:
            await connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=2000;"
                # What is deleted is overwritten, so that it is not left in the file.
                "PRAGMA secure_delete=ON; PRAGMA foreign_keys=ON;"
            )
            found = await _one(connection, "PRAGMA user_version")
            if found and found[0] not in (0, SCHEMA_VERSION):
                raise StoreError(f"store {path}: made by another version of idbellen (schema {found[0]})")
            await connection.executescript(f"{_SCHEMA} PRAGMA user_version={SCHEMA_VERSION};")
        except sqlite3.Error as fault:
            raise StoreError(f"store {path}: {fault}") from None
        yield SqliteStore(connection, fingerprints)
    finally:
        await connection.close()


async def _one(connection: aiosqlite.Connection, statement: str, *values: Any) -> sqlite3.Row | None:  # noqa: ANN401
    async with connection.execute(statement, values) as cursor:
        return await cursor.fetchone()


@contextmanager
def _faults() -> Iterator[None]:
    """Turn a full disk or a damaged file into our own error; a broken constraint is left to the caller."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as fault:
        raise StoreError(f"store: {fault}") from None


class SqliteStore:
    """Implements :class:`idbellen.ports.SessionStore` and :class:`idbellen.ports.AccountStore`.

    Every method is one statement, so it happens whole or not at all.
    """

    def __init__(self, connection: aiosqlite.Connection, fingerprints: Fingerprints) -> None:
        self._connection = connection
        self._fingerprint = fingerprints.of

    async def _row(self, statement: str, *values: Any) -> sqlite3.Row | None:  # noqa: ANN401
        with _faults():
            return await _one(self._connection, statement, *values)

    async def _change(self, statement: str, *values: Any) -> int:  # noqa: ANN401
        with _faults():
            async with self._connection.execute(statement, values) as cursor:
                return cursor.rowcount

    # Sessions

    async def start(self, session: Session, *, attr_handle: str, page_handle: str, now: float) -> None:
        """Keep a new session."""
        await self._change(
            "INSERT INTO sessions (reference, purpose, created, token, attr_handle, page_handle)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            session.reference,
            session.purpose,
            now,
            session.token,
            self._fingerprint("attr", attr_handle),
            self._fingerprint("page", page_handle),
        )

    async def by_attr_handle(self, attr_handle: str) -> Session | None:
        """Give the session for which an auth plugin delivers at this address."""
        return _session(
            await self._row(
                "SELECT reference, purpose, token FROM sessions WHERE attr_handle = ?",
                self._fingerprint("attr", attr_handle),
            )
        )

    async def attach_result(self, reference: str, token: str) -> bool:
        """Keep the first auth result of a session; False if it has one, or is gone."""
        return bool(
            await self._change(
                "UPDATE sessions SET token = ? WHERE reference = ? AND token IS NULL", token, reference
            )
        )

    async def open_page(self, page_handle: str) -> Session | None:
        """Give the session of a citizen's page to the first browser that opens it; afterwards to none."""
        return _session(
            await self._row(
                "UPDATE sessions SET page_handle = NULL WHERE page_handle = ?"
                " RETURNING reference, purpose, token",
                self._fingerprint("page", page_handle),
            )
        )

    async def by_reference(self, reference: str) -> Session | None:
        """Give a session by its reference."""
        return _session(
            await self._row("SELECT reference, purpose, token FROM sessions WHERE reference = ?", reference)
        )

    async def issue_code(self, reference: str, code: str, now: float, *, valid_until: float) -> bool:
        """Give a session its code, in place of an earlier one; False if another session has that code.

        A code that has lapsed makes room.
        """
        fingerprint = self._fingerprint("code", code)
        await self._change(
            "UPDATE sessions SET code = NULL WHERE code = ? AND code_valid_until <= ? AND claimed_by IS NULL",
            fingerprint,
            now,
        )
        try:
            changed = await self._change(
                "UPDATE sessions SET code = ?, code_valid_until = ? WHERE reference = ?",
                fingerprint,
                valid_until,
                reference,
            )
        except sqlite3.IntegrityError:
            return False
        return changed == 1

    async def claim(self, code: str, *, call: str, secret: str, now: float) -> Session | None:
        """Exchange a valid code for a secret, atomically: of several calls with one code, one gets it."""
        return _session(
            await self._row(
                "UPDATE sessions SET claimed_by = ?, secret = ?"
                " WHERE code = ? AND code_valid_until > ? AND claimed_by IS NULL"
                " RETURNING reference, purpose, token",
                call,
                self._fingerprint("secret", secret),
                self._fingerprint("code", code),
                now,
            )
        )

    async def release(self, reference: str, call: str) -> None:
        """Undo a claim of a call that did not reach an agent: the code counts again while it is valid."""
        await self._change(
            "UPDATE sessions SET claimed_by = NULL, secret = NULL WHERE reference = ? AND claimed_by = ?",
            reference,
            call,
        )

    async def by_secret(self, secret: str) -> Session | None:
        """Give the session that a secret was exchanged for."""
        return _session(
            await self._row(
                "SELECT reference, purpose, token FROM sessions WHERE secret = ?",
                self._fingerprint("secret", secret),
            )
        )

    async def finish(self, reference: str, call: str) -> None:
        """Delete the session of a call that reached an agent and has ended."""
        await self._change("DELETE FROM sessions WHERE reference = ? AND claimed_by = ?", reference, call)
        await self._overwrite()

    async def release_all(self) -> int:
        """Undo the claims of an earlier process; gives how many."""
        return await self._change(
            "UPDATE sessions SET claimed_by = NULL, secret = NULL WHERE claimed_by IS NOT NULL"
        )

    async def purge(self, now: float, keep_seconds: float) -> int:
        """Delete sessions older than ``keep_seconds`` that no call holds, or twice as old; gives how many."""
        deleted = await self._change(
            "DELETE FROM sessions WHERE created < ? AND (claimed_by IS NULL OR created < ?)",
            now - keep_seconds,
            now - 2 * keep_seconds,
        )
        if deleted:
            await self._overwrite()
        return deleted

    async def _overwrite(self) -> None:
        # The write-ahead log still holds what was deleted; a truncating checkpoint empties it.
        await self._row("PRAGMA wal_checkpoint(TRUNCATE)")

    # Accounts

    async def add_account(self, account: Account) -> bool:
        """Keep a new account; False if the name is taken."""
        return bool(
            await self._change(
                "INSERT INTO accounts (name, endpoint, password_hash) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                account.name,
                account.endpoint,
                account.password_hash,
            )
        )

    async def remove_account(self, name: str) -> bool:
        """Delete an account and its logins; False if there is none."""
        return bool(await self._change("DELETE FROM accounts WHERE name = ?", name))

    async def accounts(self) -> list[Account]:
        """Give all accounts by name."""
        async with self._connection.execute(
            "SELECT name, endpoint, password_hash FROM accounts ORDER BY name"
        ) as cursor:
            return [Account(*row) for row in await cursor.fetchall()]

    async def account(self, name: str) -> Account | None:
        """Give one account."""
        row = await self._row("SELECT name, endpoint, password_hash FROM accounts WHERE name = ?", name)
        return Account(*row) if row else None

    async def log_in(self, login: str, name: str, now: float) -> None:
        """Keep that a browser is logged in as an agent."""
        await self._change(
            "INSERT INTO logins (login, name, created, seen) VALUES (?, ?, ?, ?)",
            self._fingerprint("login", login),
            name,
            now,
            now,
        )

    async def logged_in(self, login: str, now: float, *, idle: float, absolute: float) -> Account | None:
        """Give the account of a login that has not ended, and count this as activity."""
        row = await self._row(
            "UPDATE logins SET seen = ? WHERE login = ? AND seen > ? AND created > ? RETURNING name",
            now,
            self._fingerprint("login", login),
            now - idle,
            now - absolute,
        )
        return await self.account(row[0]) if row else None

    async def log_out(self, login: str) -> None:
        """End a login."""
        await self._change("DELETE FROM logins WHERE login = ?", self._fingerprint("login", login))


def _session(row: sqlite3.Row | None) -> Session | None:
    return Session(*row) if row else None
