"""The audit trail in Redis."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Literal

from idbellen.domain.audit import AuditEntry, Chain, ChainEnd, proven, seal_end, seal_entry, verify_chain
from idbellen.ports import AuditTrail
from idbellen.stores.redis_scripts import AUDIT, AUDIT_APPEND, AUDIT_FORGET

if TYPE_CHECKING:
    from idbellen.domain.audit import Break
    from idbellen.ports import Clock
    from idbellen.stores.redis_connection import RedisConnection

# As many entries at a time as hold the server up for nobody.
PAGE = 1000


class RedisAuditTrail(AuditTrail):
    """Implements :class:`idbellen.ports.AuditTrail`, sealed with ``key``.

    An entry is appended only to the head that it was sealed after; if another process was quicker, it is sealed anew.
    """

    def __init__(self, redis: RedisConnection, key: bytes, clock: Clock) -> None:
        self._redis = redis
        self._key = key
        self._clock = clock
        self._turn = asyncio.Lock()

    async def record(self, actor: str, action: str, subject: str, **detail: str) -> None:
        """Append an entry to the audit trail.

        Raises:
            StoreError: it cannot be written, or the end of the trail was changed from outside.

        """
        async with self._redis.bounded(), self._turn:
            while not await self._append(actor, action, subject, detail):
                pass

    async def entries(self, since: float, until: float) -> list[AuditEntry]:
        """Give the entries of the audit trail from ``since`` until just before ``until`` (epoch seconds), in order."""
        _, chain = await self._chain()
        return [entry for entry in chain.entries if since <= entry.at < until]

    async def chain(self) -> tuple[Chain, Break | None]:
        """Give the whole audit trail as of one moment, and its first break if it has one."""
        _, chain = await self._chain()
        return chain, verify_chain(self._key, chain)

    async def forget(self, before: float) -> int:
        """Delete the entries up to the first that was written at or after ``before``; gives how many.

        What is left can be verified as before.

        Raises:
            StoreError: it cannot be written, or the trail is broken; nothing is deleted then, because the anchor
                would vouch for what was changed.

        """
        anchor, chain = await self._chain()
        fault = verify_chain(self._key, chain)
        if fault:
            raise self._redis.fault(f"the audit trail is broken at entry {fault.sequence}: {fault.reason}")
        kept = next((number for number, entry in enumerate(chain.entries) if entry.at >= before), None)
        forgotten = chain.entries[:kept]
        if forgotten:
            last = forgotten[-1]
            end = self._sealed(ChainEnd("anchor", last.sequence, last.seal))
            if not await self._redis.script(AUDIT_FORGET, anchor, end, last.sequence):
                raise self._redis.fault("the anchor of the audit trail was changed meanwhile")
        return len(forgotten)

    async def _append(self, actor: str, action: str, subject: str, detail: dict[str, str]) -> bool:
        """Append an entry; False if another process was quicker."""
        anchor, found, first = await self._redis.script(AUDIT, 0, 1)
        virgin = not (anchor or found or first)
        head = seal_end(self._key, ChainEnd("head")) if virgin else _end("head", found)
        if head is None or not proven(self._key, head):
            # To go on from here would vouch for it.
            raise self._redis.fault("the head of the audit trail was changed: idbellen audit verify")
        entry = seal_entry(
            self._key, head.seal, AuditEntry(head.sequence + 1, self._clock(), actor, action, subject, detail)
        )
        outcome = await self._redis.script(
            AUDIT_APPEND,
            anchor or "",
            found or "",
            self._sealed(ChainEnd("anchor")) if virgin else "",
            self._sealed(ChainEnd("head", entry.sequence, entry.seal)),
            entry.sequence,
            json.dumps([entry.sequence, entry.at, actor, action, subject, detail, entry.seal]),
        )
        if outcome == "taken":
            raise self._redis.fault(f"the audit trail has an entry {entry.sequence} already: idbellen audit verify")
        return bool(outcome == "appended")

    async def _chain(self) -> tuple[str, Chain]:
        """Give the anchor as it is kept, and the chain as of one moment."""
        entries: list[AuditEntry] = []
        began = None
        while True:
            anchor, head, page = await self._redis.script(AUDIT, len(entries), PAGE)
            if entries and anchor != began:
                # The first of them have been forgotten meanwhile.
                entries.clear()
                continue
            began = anchor
            for text in page:
                entries.append(_entry(text, entries[-1].sequence + 1 if entries else 1))
            # All before are as they were, since entries are added at the end only.
            if len(page) < PAGE:
                break
        if not (anchor or head or entries):
            return "", Chain(seal_end(self._key, ChainEnd("anchor")), (), seal_end(self._key, ChainEnd("head")))
        return anchor or "", Chain(_end("anchor", anchor), entries, _end("head", head))

    def _sealed(self, end: ChainEnd) -> str:
        sealed = seal_end(self._key, end)
        return json.dumps([sealed.sequence, sealed.seal, sealed.proof])


def _end(which: Literal["anchor", "head"], text: str | None) -> ChainEnd | None:
    match _read(text or ""):
        case [int(sequence), str(seal), str(proof)]:
            return ChainEnd(which, sequence, seal, proof)
    return None


def _entry(text: str, place: int) -> AuditEntry:
    match _read(text):
        case [int(sequence), (int() | float()) as at, str(actor), str(action), str(subject), dict(detail), str(seal)]:
            return AuditEntry(sequence, at, actor, action, subject, detail, seal)
    # What is no entry was put there by somebody else; kept whole, it does not fit any seal.
    return AuditEntry(place, 0.0, "", "", "", {"unreadable": text})


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
