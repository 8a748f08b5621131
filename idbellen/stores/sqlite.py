"""The embedded store: one SQLite file, which survives a restart. For one idbellen process."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import sqlite3
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import aiosqlite
import structlog

from idbellen.domain.agents import phones_of
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.domain.statistics import CallOutcome, CallRecord
from idbellen.domain.vault import UnsealError, Vault
from idbellen.ports import (
    Account,
    AccountStore,
    Attached,
    History,
    NoteStore,
    Role,
    Session,
    SessionStore,
    StoreError,
    UnfitStoreError,
    WritableStore,
)
from idbellen.stores.audit_trail import SqliteAuditTrail
from idbellen.stores.schema import MIGRATIONS, PRAGMAS, SCHEMA, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping
    from pathlib import Path

    from idbellen.domain.codes import Fingerprints
    from idbellen.domain.idcontact import Received
    from idbellen.domain.ids import CallId, QueueName, Secret
    from idbellen.ports import Clock

log = structlog.get_logger()

_ACCOUNT = "name, endpoint, password_hash, role, queues"
_CALL = "call, queue, purpose, verified, arrived, waited, outcome, agent, talked, wrap_up"
# What waiting does not mend: the file, or a file with it, is another user's, or no file.
_OUT_OF_REACH = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
# What it does mend: a full, failing or read-only disk, and others who use the file.
_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
# As much as a busy minute writes.
ROOM_BYTES = 64 * 1024


@asynccontextmanager
async def open_store(path: Path, fingerprints: Fingerprints, clock: Clock = time.time) -> AsyncIterator[SqliteStore]:
    """Open the store, and make it if it is not there. ``clock`` dates the entries of the audit trail.

    Raises:
        UnfitStoreError: the file is out of reach, damaged or of another version of idbellen.
        StoreError: the file cannot be used now.

    """
    try:
        # Made by hand, so that it is never readable for others, not even for a moment.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = await aiosqlite.connect(path, isolation_level=None)
    except (OSError, sqlite3.Error) as fault:
        raise _fault(path, fault) from None
    try:
        try:
            await connection.executescript(f"PRAGMA journal_mode=WAL; {PRAGMAS}")
            found = await _one(connection, "PRAGMA user_version")
            version = found[0] if found else 0
            if version not in MIGRATIONS:
                raise UnfitStoreError(f"store {path}: made by another version of idbellen (schema {version})")
            # Whole or not at all, also when this process is killed half way.
            await connection.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[version]} {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )
        except sqlite3.Error as fault:
            raise _fault(path, fault) from None
        yield SqliteStore(connection, path, fingerprints, clock)
    finally:
        await connection.close()


def _fault(path: Path, fault: OSError | sqlite3.Error) -> StoreError:
    """Say in our own error what went wrong with the file."""
    if isinstance(fault, OSError):
        kind = UnfitStoreError if fault.errno in _OUT_OF_REACH else StoreError
        return kind(f"store {path}: {fault.strerror or fault}")
    # Of an extended code the last byte is the plain one.
    plain = getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return (StoreError if plain in _AWAY else UnfitStoreError)(f"store {path}: {fault}")


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Keep other processes from serving with this store for the block; commands may use it all the same.

    Raises:
        UnfitStoreError: another process serves with it, or it is out of reach.
        StoreError: it cannot be used now.

    """
    try:
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as fault:
        raise _fault(path, fault) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UnfitStoreError(
                f"store {path}: another idbellen serves with it: stop that one, or let both use one store in Redis"
            ) from None
        yield
    finally:
        os.close(lock)


async def _one(connection: aiosqlite.Connection, statement: str, *values: Any) -> sqlite3.Row | None:  # noqa: ANN401
    # Whole in one step: a statement that is still open while others run would lock a checkpoint out.
    rows = await connection.execute_fetchall(statement, values)
    return next(iter(rows), None)


class SqliteStore(AccountStore, History, NoteStore, SessionStore, WritableStore):
    """Implements the stores of :mod:`idbellen.ports`: of sessions, notes, accounts and history.

    Every method is one statement, so it happens whole or not at all. ``audit`` is its audit trail.
    """

    def __init__(self, connection: aiosqlite.Connection, path: Path, fingerprints: Fingerprints, clock: Clock) -> None:
        self._connection = connection
        self._path = path
        self.audit = SqliteAuditTrail(path, fingerprints.derive("audit trail"), clock)
        self._fingerprint = fingerprints.of
        self._vault = Vault(fingerprints.derive("auth results"))

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn a full disk or a damaged file into our own error; a broken constraint is left to the caller."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as fault:
            raise _fault(self._path, fault) from None

    async def _row(self, statement: str, *values: Any) -> sqlite3.Row | None:  # noqa: ANN401
        with self._faults():
            return await _one(self._connection, statement, *values)

    async def _rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:  # noqa: ANN401
        with self._faults():
            return list(await self._connection.execute_fetchall(statement, values))

    async def _change(self, statement: str, *values: Any) -> int:  # noqa: ANN401
        with self._faults():
            async with self._connection.execute(statement, values) as cursor:
                return cursor.rowcount

    async def try_to_write(self) -> None:
        """Write what needs room, and leave nothing behind; :exc:`StoreError` if it cannot be written."""
        # Said once more, it is written once more, like any change.
        await self._change(f"PRAGMA user_version={SCHEMA_VERSION}")
        # A change may still fit into what the file and its write-ahead log have had before.
        try:
            await asyncio.to_thread(_take_room, self._path.parent)
        except OSError as fault:
            raise _fault(self._path, fault) from None

    # Sessions

    def _session(self, row: sqlite3.Row | None) -> Session | None:
        if row is None:
            return None
        name, purpose, sealed, language = row
        reference = SessionRef(name)
        try:
            result = self._vault.unseal(sealed, reference) if sealed else None
        except UnsealError:
            raise StoreError(
                f"store: the auth result of session {reference} cannot be opened: another master key, or a changed file"
            ) from None
        return Session(reference, purpose, result, language)

    def _sealed(self, reference: SessionRef, received: Received | None) -> tuple[str | None, str | None, float | None]:
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

    async def attach_result(self, reference: SessionRef, received: Received) -> Attached:
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

    async def by_reference(self, reference: SessionRef) -> Session | None:
        """Give a session by its reference."""
        return self._session(
            await self._row("SELECT reference, purpose, result, language FROM sessions WHERE reference = ?", reference)
        )

    async def set_language(self, reference: SessionRef, language: str) -> None:
        """Note in which language the citizen sees the page."""
        await self._change("UPDATE sessions SET language = ? WHERE reference = ?", language, reference)

    async def discard(self, reference: SessionRef) -> Session | None:
        """Delete a session that the citizen ends; gives it, or None if a call holds it or it is gone."""
        row = await self._row(
            "DELETE FROM sessions WHERE reference = ? AND claimed_by IS NULL"
            " RETURNING reference, purpose, result, language",
            reference,
        )
        await self._overwrite()
        return self._session(row)

    async def issue_code(self, reference: SessionRef, code: str, now: float, *, valid_until: float) -> bool:
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

    async def claim(self, code: str, *, call: CallId, secret: Secret, now: float) -> Session | None:
        """Exchange a valid code for a secret, atomically: of several calls with one code, one gets it.

        A call that has it, and asks again with the same secret since it got no answer, is given it once more.
        """
        claim = call, self._fingerprint("secret", secret)
        return self._session(
            await self._row(
                "UPDATE sessions SET claimed_by = ?, secret = ?"
                " WHERE code = ? AND code_valid_until > ? AND (claimed_by IS NULL OR claimed_by = ? AND secret = ?)"
                " RETURNING reference, purpose, result, language",
                *claim,
                self._fingerprint("code", code),
                now,
                *claim,
            )
        )

    async def release(self, call: CallId) -> None:
        """Undo the claim of a call, if it has one, that did not reach an agent: the code counts again."""
        await self._change("UPDATE sessions SET claimed_by = NULL, secret = NULL WHERE claimed_by = ?", call)

    async def by_secret(self, secret: Secret) -> Session | None:
        """Give the session that a secret was exchanged for."""
        return self._session(
            await self._row(
                "SELECT reference, purpose, result, language FROM sessions WHERE secret = ?",
                self._fingerprint("secret", secret),
            )
        )

    async def finish(self, call: CallId) -> Session | None:
        """Delete the session of a call that reached an agent and has ended; gives it as it was."""
        row = await self._row(
            "DELETE FROM sessions WHERE claimed_by = ? RETURNING reference, purpose, result, language", call
        )
        await self._overwrite()
        return self._session(row)

    async def release_others(self, calls: Collection[CallId]) -> int:
        """Undo the claims of an earlier process but for those of these calls; gives how many."""
        return await self._change(
            "UPDATE sessions SET claimed_by = NULL, secret = NULL"
            " WHERE claimed_by IS NOT NULL AND claimed_by NOT IN (SELECT value FROM json_each(?))",
            json.dumps(list(calls)),
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

    # Notes

    async def note(self, notes: Mapping[str, str | None]) -> None:
        """Keep notes in place of earlier ones of the same names, and delete those that are None."""
        sealed = {name: None if text is None else self._vault.seal_text(text, name) for name, text in notes.items()}
        await self._change("INSERT OR REPLACE INTO notes SELECT key, value FROM json_each(?)", json.dumps(sealed))
        await self._change("DELETE FROM notes WHERE sealed IS NULL")

    async def notes(self) -> dict[str, str]:
        """Give all notes by name; one that another key has sealed is left out."""
        found = {}
        for name, sealed in await self._rows("SELECT name, sealed FROM notes WHERE sealed IS NOT NULL"):
            try:
                found[name] = self._vault.unseal_text(sealed, name)
            except UnsealError:
                log.warning("note cannot be opened and is left alone: another master key, or a changed file", note=name)
        return found

    # Accounts

    async def add_account(self, account: Account) -> bool:
        """Keep a new account; False if the name is taken."""
        return bool(
            await self._change(
                f"INSERT INTO accounts ({_ACCOUNT}) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",  # noqa: S608
                account.name,
                account.endpoint,
                account.password_hash,
                account.role.value,
                json.dumps(dict(account.queues)),
            )
        )

    async def remove_account(self, name: AgentName) -> bool:
        """Delete an account and its logins; False if there is none."""
        return bool(await self._change("DELETE FROM accounts WHERE name = ?", name))

    async def accounts(self) -> list[Account]:
        """Give all accounts by name."""
        return [_account(row) for row in await self._rows(f"SELECT {_ACCOUNT} FROM accounts ORDER BY name")]  # noqa: S608

    async def account(self, name: AgentName) -> Account | None:
        """Give one account."""
        row = await self._row(f"SELECT {_ACCOUNT} FROM accounts WHERE name = ?", name)  # noqa: S608
        return _account(row) if row else None

    async def by_endpoint(self, endpoint: str) -> Account | None:
        """Give the account with this phone, be it one of several; None if there is none, or if accounts share it."""
        found = [account for account in await self.accounts() if endpoint in phones_of(account.endpoint)]
        return found[0] if len(found) == 1 else None

    async def change_account(
        self,
        name: AgentName,
        *,
        endpoint: str | None = None,
        role: Role | None = None,
        queues: Mapping[QueueName, int] | None = None,
        password_hash: str | None = None,
    ) -> bool:
        """Change what is given of an account; False if there is none. Another password ends its logins."""
        return bool(
            await self._change(
                "UPDATE accounts SET endpoint = coalesce(?, endpoint), role = coalesce(?, role),"
                " queues = coalesce(?, queues), password_hash = coalesce(?, password_hash) WHERE name = ?",
                endpoint,
                role.value if role else None,
                None if queues is None else json.dumps(dict(queues)),
                password_hash,
                name,
            )
        )

    async def log_in(self, login: str, name: AgentName, now: float) -> None:
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

    # History

    async def keep_call(self, record: CallRecord) -> None:
        """Keep a record, in place of an earlier one of the same arrival in the same queue."""
        await self._change(
            f"INSERT OR REPLACE INTO calls ({_CALL}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            record.call,
            record.queue,
            record.purpose,
            record.verified,
            record.arrived,
            record.waited,
            record.outcome.value,
            record.agent,
            record.talked,
            record.wrap_up,
        )

    async def calls(self, since: float, until: float, queue: QueueName | None = None) -> list[CallRecord]:
        """Give the records of those who arrived from ``since`` until just before ``until``, by arrival."""
        rows = await self._rows(
            f"SELECT {_CALL} FROM calls WHERE arrived >= ? AND arrived < ? AND queue = coalesce(?, queue)"  # noqa: S608
            " ORDER BY arrived",
            since,
            until,
            queue,
        )
        return [_call(row) for row in rows]

    async def forget_calls(self, before: float) -> int:
        """Delete the records of those who arrived before this; gives how many."""
        return await self._change("DELETE FROM calls WHERE arrived < ?", before)


def _take_room(folder: Path) -> None:
    # A file without a name, which is gone however this ends.
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        written = file.write(bytes(ROOM_BYTES))
        if written < ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Some file systems tell only now.
        os.fdatasync(file.fileno())


def _account(row: sqlite3.Row) -> Account:
    name, endpoint, password_hash, role, queues = row
    return Account(AgentName(name), endpoint, password_hash, Role(role), json.loads(queues))


def _call(row: sqlite3.Row) -> CallRecord:
    call, queue, purpose, verified, arrived, waited, outcome, agent, talked, wrap_up = row
    return CallRecord(
        call, queue, purpose, bool(verified), arrived, waited, CallOutcome(outcome), agent, talked, wrap_up
    )
