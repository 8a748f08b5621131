"""The audit trail as a chain: each entry is sealed together with the seal of the one before it.

The seals are HMAC-SHA256, so who can change the store but has no master key cannot change, insert, remove or move an
entry unnoticed. The same goes for the two ends, which are sealed too: the *anchor* is the last entry that was
forgotten, the *head* the last that was written.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """That ``actor`` did ``action`` to ``subject``, with what belongs to it.

    ``sequence`` counts from 1 without gaps; ``at`` is in epoch seconds; ``seal`` is hexadecimal, and empty as long
    as the entry is not sealed. No value of a citizen's attribute belongs in any of it, only the attributes' names.
    """

    sequence: int
    at: float
    actor: str
    action: str
    subject: str
    detail: Mapping[str, str]
    seal: str = ""


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """Where the kept entries begin (just after the anchor) or end (with the head).

    ``sequence`` and ``seal`` are those of that entry, 0 and empty where there is none yet; ``proof`` is the seal
    over these.
    """

    which: Literal["anchor", "head"]
    sequence: int = 0
    seal: str = ""
    proof: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """What a store holds of the trail, in order. An end is None if it is missing."""

    anchor: ChainEnd | None
    entries: Sequence[AuditEntry]
    head: ChainEnd | None


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where the chain does not hold: the entry with this ``sequence``, and what is wrong with it."""

    sequence: int
    reason: str


def seal_entry(key: bytes, previous: str, entry: AuditEntry) -> AuditEntry:
    """Give an entry with its seal. ``previous`` is the seal of the entry before it, empty for the first."""
    detail = sorted(entry.detail.items())
    content = ["entry", previous, entry.sequence, entry.at, entry.actor, entry.action, entry.subject, detail]
    return replace(entry, seal=_seal(key, content))


def seal_end(key: bytes, end: ChainEnd) -> ChainEnd:
    """Give an end of the chain with its proof."""
    return replace(end, proof=_seal(key, [end.which, end.sequence, end.seal]))


def proven(key: bytes, end: ChainEnd | None) -> bool:
    """Whether an end is there and is as it was sealed."""
    return end is not None and _same(end.proof, seal_end(key, end).proof)


def verify_chain(key: bytes, chain: Chain) -> Break | None:
    """Give the first break of a chain; None if it is whole."""
    anchor, head = chain.anchor, chain.head
    if anchor is None or not proven(key, anchor):
        first = chain.entries[0].sequence if chain.entries else 1
        return Break(first, "the anchor before it is missing or was changed")
    last, seal = anchor.sequence, anchor.seal
    for entry in chain.entries:
        if entry.sequence != last + 1:
            return Break(last + 1, "missing")
        if not _same(entry.seal, seal_entry(key, seal, entry).seal):
            return Break(entry.sequence, "changed, or not the entry that was written here")
        last, seal = entry.sequence, entry.seal
    if head is None or not proven(key, head):
        return Break(last, "the head that should name the last entry is missing or was changed")
    if head.sequence > last:
        return Break(last + 1, "missing, as all after it")
    if (head.sequence, head.seal) != (last, seal):
        return Break(head.sequence + 1, "the head was put back to before it")
    return None


def _seal(key: bytes, content: list[object]) -> str:
    return hmac.digest(key, json.dumps(content).encode(), hashlib.sha256).hex()


def _same(found: str, expected: str) -> bool:
    # What somebody put into a store can be any text, also one that has no bytes of its own.
    return hmac.compare_digest(found.encode(errors="backslashreplace"), expected.encode())
