"""The audit trail in the embedded store."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Literal

from idbellen.domain.audit import AuditEntry, Chain, ChainEnd, proven, seal_end, seal_entry, verify_chain
from idbellen.ports import AuditTrail, StoreError
from idbellen.stores.schema import PRAGMAS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from idbellen.domain.audit import Break
    from idbellen.ports import Clock

_ENTRY = "sequence, at, actor, action, subject, detail, seal"


class SqliteAuditTrail(AuditTrail):
    """Implements :class:`idbellen.ports.AuditTrail`, sealed with ``key``.

    Every method is one transaction, in a thread and on a connection of its own: on that of the rest of the store
    others' statements would get into it.
    """

    def __init__(self, path: Path, key: bytes, clock: Clock) -> None:
        self._path = path
        self._key = key
        self._clock = clock

    async def record(self, actor: str, action: str, subject: str, **detail: str) -> None:
        """Append an entry to the audit trail.

        Raises:
            StoreError: it cannot be written, or the end of the trail was changed from outside.

        """
        await asyncio.to_thread(self._append, actor, action, subject, detail)

    async def entries(self, since: float, until: float) -> list[AuditEntry]:
        """Give the entries of the audit trail from ``since`` until just before ``until`` (epoch seconds), in order."""
        return await asyncio.to_thread(self._entries, since, until)

    async def chain(self) -> tuple[Chain, Break | None]:
        """Give the whole audit trail as of one moment, and its first break if it has one."""
        return await asyncio.to_thread(self._verified_chain)

    async def forget(self, before: float) -> int:
        """Delete the entries up to the first that was written at or after ``before``; gives how many.

        What is left can be verified as before.

        Raises:
            StoreError: it cannot be written, or the trail is broken; nothing is deleted then, because the anchor
                would vouch for what was changed.

        """
        return await asyncio.to_thread(self._forget, before)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Give a connection with a transaction that has the store to itself for the block."""
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                connection.executescript(PRAGMAS)
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                # Without it, because of a fault, closing undoes all.
                connection.execute("COMMIT")
        except sqlite3.Error as fault:
            raise StoreError(f"store: audit trail: {fault}") from None

    def _entries(self, since: float, until: float) -> list[AuditEntry]:
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT {_ENTRY} FROM audit WHERE at >= ? AND at < ? ORDER BY sequence",  # noqa: S608
                (since, until),
            )
            return [_entry(row) for row in rows]

    def _append(self, actor: str, action: str, subject: str, detail: dict[str, str]) -> None:
        with self._transaction() as connection:
            self._begin_chain(connection)
            head = _end(connection, "head")
            if head is None or not proven(self._key, head):
                # To go on from here would vouch for it.
                raise StoreError("store: the head of the audit trail was changed: idbellen audit verify")
            entry = seal_entry(
                self._key,
                head.seal,
                AuditEntry(head.sequence + 1, self._clock(), actor, action, subject, detail),
            )
            connection.execute(
                f"INSERT INTO audit ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (entry.sequence, entry.at, actor, action, subject, json.dumps(detail), entry.seal),
            )
            self._set_end(connection, ChainEnd("head", entry.sequence, entry.seal))

    def _forget(self, before: float) -> int:
        with self._transaction() as connection:
            self._begin_chain(connection)
            chain = _chain(connection)
            fault = verify_chain(self._key, chain)
            if fault:
                raise StoreError(f"store: the audit trail is broken at entry {fault.sequence}: {fault.reason}")
            kept = next((number for number, entry in enumerate(chain.entries) if entry.at >= before), None)
            forgotten = chain.entries[:kept]
            if forgotten:
                last = forgotten[-1]
                connection.execute("DELETE FROM audit WHERE sequence <= ?", (last.sequence,))
                self._set_end(connection, ChainEnd("anchor", last.sequence, last.seal))
            return len(forgotten)

    def _verified_chain(self) -> tuple[Chain, Break | None]:
        with self._transaction() as connection:
            self._begin_chain(connection)
            chain = _chain(connection)
        return chain, verify_chain(self._key, chain)

    def _begin_chain(self, connection: sqlite3.Connection) -> None:
        """Set the ends of a trail that has never had an entry."""
        if not connection.execute("SELECT 1 FROM audit UNION ALL SELECT 1 FROM audit_ends").fetchone():
            self._set_end(connection, ChainEnd("anchor"))
            self._set_end(connection, ChainEnd("head"))

    def _set_end(self, connection: sqlite3.Connection, end: ChainEnd) -> None:
        sealed = seal_end(self._key, end)
        connection.execute(
            "INSERT OR REPLACE INTO audit_ends (which, sequence, seal, proof) VALUES (?, ?, ?, ?)",
            (sealed.which, sealed.sequence, sealed.seal, sealed.proof),
        )


def _entry(row: sqlite3.Row) -> AuditEntry:
    sequence, at, actor, action, subject, detail, seal = row
    try:
        read = json.loads(detail)
    except ValueError:
        read = None
    # What is no detail was put there by somebody else; kept whole, it does not fit the seal.
    return AuditEntry(
        sequence, at, actor, action, subject, read if isinstance(read, dict) else {"unreadable": detail}, seal
    )


def _end(connection: sqlite3.Connection, which: Literal["anchor", "head"]) -> ChainEnd | None:
    row = connection.execute("SELECT sequence, seal, proof FROM audit_ends WHERE which = ?", (which,)).fetchone()
    return ChainEnd(which, *row) if row else None


def _chain(connection: sqlite3.Connection) -> Chain:
    rows = connection.execute(f"SELECT {_ENTRY} FROM audit ORDER BY sequence").fetchall()  # noqa: S608
    return Chain(_end(connection, "anchor"), [_entry(row) for row in rows], _end(connection, "head"))
