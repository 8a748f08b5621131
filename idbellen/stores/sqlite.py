"""The embedded store: one SQLite file, which survives a restart. For one idbellen process."""

from __future__ import annotations

import os
import sqlite3
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import aiosqlite

from idbellen.domain.vault import UnsealError, Vault
from idbellen.ports import Account, Attached, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator
    from pathlib import Path

    from idbellen.domain.codes import Fingerprints
    from idbellen.domain.idcontact import Received

SCHEMA_VERSION = 2
# Sessions live for hours at most, so those of the first schema are let go; accounts stay.
_FROM_FIRST_SCHEMA = "DROP TABLE IF EXISTS sessions;"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    reference TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    created REAL NOT NULL,
    language TEXT,
    result TEXT,
    result_identity TEXT,
    result_until REAL,
    attr_handle TEXT UNIQUE NOT NULL,
    page_handle TEXT UNIQUE NOT NULL,
    page_opened INTEGER NOT NULL DEFAULT 0,
    code TEXT UNIQUE,
    code_valid_until REAL,
    claimed_by TEXT UNIQUE,
    secret TEXT UNIQUE
);
-- Tokens that were accepted, until they would be refused as expired anyway. The triggers note them in the statement
-- that keeps their result, which thereby fails whole when the token was accepted before.
CREATE TABLE IF NOT EXISTS accepted_tokens (
    identity TEXT PRIMARY KEY,
    until REAL NOT NULL
);
CREATE TRIGGER IF NOT EXISTS result_came_along AFTER INSERT ON sessions WHEN NEW.result_identity IS NOT NULL
BEGIN
    INSERT INTO accepted_tokens VALUES (NEW.result_identity, NEW.result_until);
END;
CREATE TRIGGER IF NOT EXISTS result_came AFTER UPDATE OF result_identity ON sessions
WHEN NEW.result_identity IS NOT NULL
BEGIN
    INSERT INTO accepted_tokens VALUES (NEW.result_identity, NEW.result_until);
END;
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
            if found and found[0] not in (0, 1, SCHEMA_VERSION):
                raise StoreError(f"store {path}: made by another version of idbellen (schema {found[0]})")
            migration = _FROM_FIRST_SCHEMA if found and found[0] == 1 else ""
            await connection.executescript(f"{migration} {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION};")
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
        self._vault = Vault(fingerprints.derive("auth results"))

    async def _row(self, statement: str, *values: Any) -> sqlite3.Row | None:  # noqa: ANN401
        with _faults():
            return await _one(self._connection, statement, *values)

    async def _change(self, statement: str, *values: Any) -> int:  # noqa: ANN401
        with _faults():
            async with self._connection.execute(statement, values) as cursor:
                return cursor.rowcount

    # Sessions

    def _session(self, row: sqlite3.Row | None) -> Session | None:
        if row is None:
            return None
        reference, purpose, sealed, language = row
        try:
            result = self._vault.unseal(sealed, reference) if sealed else None
        except UnsealError:
            raise StoreError(
                f"store: the auth result of session {reference} cannot be opened: another master key, or a changed file"
            ) from None
        return Session(reference, purpose, result, language)

    def _sealed(self, reference: str, received: Received | None) -> tuple[str | None, str | None, float | None]:
        """Give the columns result, result_identity and result_until."""
        if received is None:
            return None, None, None
        identity = self._fingerprint("auth result", received.identity)
        return self._vault.seal(received.result, reference), identity, received.until

    async def start(
        self, session: Session, *, attr_handle: str, page_handle: str, now: float, received: Received | None = None
    ) -> bool:
        """Keep a new session, with its auth result if that came along; False if the token was accepted before."""
        try:
            await self._change(
                "INSERT INTO sessions (reference, purpose, created, language, result, result_identity, result_until,"
                " attr_handle, page_handle) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                session.reference,
                session.purpose,
                now,
                session.language,
                *self._sealed(session.reference, received),
                self._fingerprint("attr", attr_handle),
                self._fingerprint("page", page_handle),
            )
        except sqlite3.IntegrityError:
            return False
        return True

    async def by_attr_handle(self, attr_handle: str) -> Session | None:
        """Give the session for which an auth plugin delivers at this address."""
        return self._session(
            await self._row(
                "SELECT reference, purpose, result, language FROM sessions WHERE attr_handle = ?",
                self._fingerprint("attr", attr_handle),
            )
        )

    async def attach_result(self, reference: str, received: Received) -> Attached:
        """Keep the first auth result of a session, if its token was never accepted before."""
        try:
            changed = await self._change(
                "UPDATE sessions SET result = ?, result_identity = ?, result_until = ?"
                " WHERE reference = ? AND result IS NULL",
                *self._sealed(reference, received),
                reference,
            )
        except sqlite3.IntegrityError:
            return Attached.REPLAYED
        return Attached.KEPT if changed else Attached.SECOND

    async def open_page(self, page_handle: str) -> Session | None:
        """Give the session of a citizen's page to the first browser that opens it; afterwards to none."""
        return self._session(
            await self._row(
                "UPDATE sessions SET page_opened = 1 WHERE page_handle = ? AND page_opened = 0"
                " RETURNING reference, purpose, result, language",
                self._fingerprint("page", page_handle),
            )
        )

    async def by_page_handle(self, page_handle: str) -> Session | None:
        """Give the session of a citizen's page, also when it was opened before."""
        return self._session(
            await self._row(
                "SELECT reference, purpose, result, language FROM sessions WHERE page_handle = ?",
                self._fingerprint("page", page_handle),
            )
        )

    async def by_reference(self, reference: str) -> Session | None:
        """Give a session by its reference."""
        return self._session(
            await self._row(
                "SELECT reference, purpose, result, language FROM sessions WHERE reference = ?", reference
            )
        )

    async def set_language(self, reference: str, language: str) -> None:
        """Note in which language the citizen sees the page."""
        await self._change("UPDATE sessions SET language = ? WHERE reference = ?", language, reference)

    async def discard(self, reference: str) -> Session | None:
        """Delete a session that the citizen ends; gives it, or None if a call holds it or it is gone."""
        row = await self._row(
            "DELETE FROM sessions WHERE reference = ? AND claimed_by IS NULL"
            " RETURNING reference, purpose, result, language",
            reference,
        )
        await self._overwrite()
        return self._session(row)

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
        return self._session(
            await self._row(
                "UPDATE sessions SET claimed_by = ?, secret = ?"
                " WHERE code = ? AND code_valid_until > ? AND claimed_by IS NULL"
                " RETURNING reference, purpose, result, language",
                call,
                self._fingerprint("secret", secret),
                self._fingerprint("code", code),
                now,
            )
        )

    async def release(self, call: str) -> None:
        """Undo the claim of a call, if it has one, that did not reach an agent: the code counts again."""
        await self._change("UPDATE sessions SET claimed_by = NULL, secret = NULL WHERE claimed_by = ?", call)

    async def by_secret(self, secret: str) -> Session | None:
        """Give the session that a secret was exchanged for."""
        return self._session(
            await self._row(
                "SELECT reference, purpose, result, language FROM sessions WHERE secret = ?",
                self._fingerprint("secret", secret),
            )
        )

    async def finish(self, call: str) -> Session | None:
        """Delete the session of a call that reached an agent and has ended; gives it as it was."""
        row = await self._row(
            "DELETE FROM sessions WHERE claimed_by = ? RETURNING reference, purpose, result, language", call
        )
        await self._overwrite()
        return self._session(row)

    async def release_all(self) -> int:
        """Undo the claims of an earlier process; gives how many."""
        return await self._change(
            "UPDATE sessions SET claimed_by = NULL, secret = NULL WHERE claimed_by IS NOT NULL"
        )

    async def keep_purposes(self, purposes: Collection[str]) -> int:
        """Delete the sessions of all other purposes, which the configuration no longer has; gives how many."""
        marks = ", ".join("?" * len(purposes))
        return await self._change(f"DELETE FROM sessions WHERE purpose NOT IN ({marks})", *purposes)  # noqa: S608

    async def purge(self, now: float, keep_seconds: float) -> int:
        """Delete sessions older than ``keep_seconds`` that no call holds, or twice as old; gives how many."""
        deleted = await self._change(
            "DELETE FROM sessions WHERE created < ? AND (claimed_by IS NULL OR created < ?)",
            now - keep_seconds,
            now - 2 * keep_seconds,
        )
        await self._change("DELETE FROM accepted_tokens WHERE until < ?", now)
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

