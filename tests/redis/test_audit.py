"""The audit trail: a chain in which nothing can be changed unnoticed, and its store."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from idbellen.calls.audit import on_record
from idbellen.domain.audit import AuditEntry, Break, Chain, ChainEnd, seal_end, seal_entry, verify_chain
from idbellen.domain.codes import Fingerprints
from idbellen.ports import StoreError
from idbellen.stores.sqlite import open_store
from tests.support.trails import RedisTrail, SqliteTrail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from idbellen.service.storage import Store
    from tests.support.redis_servers import RedisProcess
    from tests.support.trails import Trail

KEY = b"k" * 32
FINGERPRINTS = Fingerprints(b"m" * 32)
ALWAYS = (0.0, float("inf"))


def chain(length: int, key: bytes = KEY) -> Chain:
    entries: list[AuditEntry] = []
    seal = ""
    for number in range(1, length + 1):
        entries.append(seal_entry(key, seal, AuditEntry(number, 10.0 * number, "ann", "show", "call", {"a": "b"})))
        seal = entries[-1].seal
    return Chain(seal_end(key, ChainEnd("anchor")), entries, seal_end(key, ChainEnd("head", length, seal)))


def fault(of: Chain) -> Break | None:
    return verify_chain(KEY, of)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_whole_chain_has_no_break(length: int) -> None:
    assert fault(chain(length)) is None


@pytest.mark.parametrize(
    "change",
    [{"at": 31.0}, {"actor": "bob"}, {"action": "hide"}, {"subject": "x"}, {"detail": {}}, {"detail": {"a": "c"}}],
)
def test_a_changed_entry_is_named(change: dict[str, Any]) -> None:
    whole = chain(5)
    entries = [replace(entry, **change) if entry.sequence == 3 else entry for entry in whole.entries]
    assert fault(replace(whole, entries=entries)) == Break(3, "changed, or not the entry that was written here")


def test_what_is_removed_moved_or_added_is_named() -> None:
    whole = chain(5)
    first, second, third, *rest = whole.entries
    assert fault(replace(whole, entries=[first, third, *rest])) == Break(2, "missing")
    assert fault(replace(whole, entries=[second, third, *rest])) == Break(1, "missing")
    moved = [first, replace(third, sequence=2), replace(second, sequence=3), *rest]
    assert fault(replace(whole, entries=moved)).sequence == 2  # type: ignore[union-attr]
    assert fault(replace(whole, entries=[first, second])) == Break(3, "missing, as all after it")
    forged = seal_entry(b"x" * 32, rest[-1].seal, AuditEntry(6, 60.0, "ann", "show", "call", {}))
    assert fault(replace(whole, entries=[*whole.entries, forged])).sequence == 6  # type: ignore[union-attr]
    assert fault(chain(5, b"x" * 32)) == Break(1, "the anchor before it is missing or was changed")


def test_the_ends_cannot_be_set_without_the_key() -> None:
    whole = chain(5)
    third = whole.entries[2]
    for which, entries in (("anchor", whole.entries[3:]), ("head", whole.entries[:3])):
        end = ChainEnd(which, third.sequence, third.seal)  # type: ignore[arg-type]
        for put in (end, seal_end(b"x" * 32, end), None):
            found = fault(replace(whole, entries=entries, **{which: put}))
            assert found
            assert which in found.reason
        assert fault(replace(whole, entries=entries, **{which: seal_end(KEY, end)})) is None
    assert whole.anchor
    assert fault(replace(whole, head=replace(whole.anchor, which="head"))), "an anchor is no head"
    behind = seal_end(KEY, ChainEnd("head", 3, third.seal))
    assert fault(replace(whole, head=behind)) == Break(4, "the head was put back to before it")


# The store


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "redis"])
def trail(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisProcess) -> Trail:
    return SqliteTrail(tmp_path / "idbellen.db") if request.param == "sqlite" else RedisTrail(redis_server)


@pytest.fixture
async def store(trail: Trail, clock: Clock) -> AsyncIterator[Store]:
    async with trail.open(FINGERPRINTS, clock) as opened:
        yield opened


async def broken(store: Store) -> Break | None:
    return (await store.audit.chain())[1]


async def test_entries_are_read_as_they_were_written(store: Store, clock: Clock) -> None:
    await store.audit.record("ann", "attributes shown", "call 1", names="fullname bsn")
    clock.now = 1001.5
    await store.audit.record("bob", "agent paused", "bob", reason="é\n")
    first, second = await store.audit.entries(*ALWAYS)
    assert (first.sequence, first.at, first.actor, first.action, first.subject, first.detail) == (
        1, 1000.0, "ann", "attributes shown", "call 1", {"names": "fullname bsn"},
    )  # fmt: skip
    assert second.detail == {"reason": "é\n"}
    assert await store.audit.entries(1000.0, 1001.5) == [first]
    assert await store.audit.entries(1001.5, 2000.0) == [second]
    assert await broken(store) is None


async def test_many_at_once_make_one_chain(store: Store) -> None:
    work = [store.audit.record("ann", "act", str(number)) for number in range(40)]
    # Beside it, statements that a transaction on the same connection would catch up in itself.
    others = [store.log_out(f"login {number}") for number in range(40)]
    await asyncio.gather(*(job for pair in zip(work, others, strict=True) for job in pair))
    chain, fault = await store.audit.chain()
    assert (len(chain.entries), fault) == (40, None)


async def test_processes_at_once_make_one_chain(store: Store, trail: Trail) -> None:
    names, where = trail.opening
    program = f"""
import asyncio
from pathlib import Path
from idbellen.domain.codes import Fingerprints
{names}
async def write():
    async with open_store({where}, Fingerprints(b"m" * 32)) as store:
        for number in range(30):
            await store.audit.record("process", "act", str(number))
asyncio.run(write())
"""
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=subprocess.PIPE) for _ in range(2)
    ]
    for number in range(30):
        await store.audit.record("this", "act", str(number))
    for process in processes:
        assert (await process.communicate())[1] == b""
    chain, fault = await store.audit.chain()
    assert (len(chain.entries), fault) == (90, None)


async def test_what_was_forgotten_leaves_a_chain_that_verifies(store: Store, clock: Clock, trail: Trail) -> None:
    assert await store.audit.forget(5000.0) == 0
    for _ in range(6):
        await store.audit.record("ann", "act", "x")
        clock.now += 10
    assert await store.audit.forget(1030.0) == 3
    assert [entry.sequence for entry in await store.audit.entries(*ALWAYS)] == [4, 5, 6]
    assert await broken(store) is None
    await store.audit.record("ann", "act", "x")
    assert await broken(store) is None
    await trail.remove(4)
    assert await broken(store) == Break(4, "missing")


async def test_all_can_be_forgotten_and_the_numbers_go_on(store: Store) -> None:
    await store.audit.record("ann", "act", "x")
    assert await store.audit.forget(5000.0) == 1
    await store.audit.record("ann", "act", "x")
    assert [entry.sequence for entry in await store.audit.entries(*ALWAYS)] == [2]
    assert await broken(store) is None


async def test_a_clock_that_was_put_back_keeps_what_is_after_a_kept_entry(store: Store, clock: Clock) -> None:
    for now in (1000.0, 2000.0, 1500.0):
        clock.now = now
        await store.audit.record("ann", "act", "x")
    assert await store.audit.forget(1800.0) == 1
    assert [entry.at for entry in await store.audit.entries(*ALWAYS)] == [2000.0, 1500.0]


async def put_back(trail: Trail) -> None:
    for sequence in (1, 2):
        await trail.change(sequence, at=0.0)


@pytest.mark.parametrize(
    ("tamper", "sequence"),
    [
        (lambda trail: trail.change(2, actor="eve"), 2),
        (lambda trail: trail.change(2, seal="\u00e9"), 2),
        (lambda trail: trail.garble(2, "no json"), 2),
        (lambda trail: trail.garble(2, "[]"), 2),
        (put_back, 1),
        (lambda trail: trail.remove(2), 2),
        (lambda trail: trail.remove(3), 3),
        (lambda trail: trail.put_end("anchor"), 1),
        (lambda trail: trail.put_end("head", sequence=2), 3),
        (lambda trail: trail.put_end("head", proof="\u00e9"), 3),
    ],
)
async def test_nothing_is_forgotten_of_a_broken_trail(
    store: Store, trail: Trail, tamper: Callable[[Trail], Awaitable[None]], sequence: int
) -> None:
    for _ in range(3):
        await store.audit.record("ann", "act", "x")
    await tamper(trail)
    found = await broken(store)
    assert found
    assert found.sequence == sequence
    kept = len(await store.audit.entries(*ALWAYS))
    # To forget what was changed would hide it behind an anchor that vouches for it.
    with pytest.raises(StoreError, match=f"broken at entry {sequence}"):
        await store.audit.forget(5000.0)
    assert len(await store.audit.entries(*ALWAYS)) == kept


async def test_nothing_is_written_after_a_head_that_was_changed(store: Store, trail: Trail) -> None:
    for _ in range(3):
        await store.audit.record("ann", "act", "x")
    # Cut the last entry off, and let the head name the one before.
    seal = (await store.audit.entries(*ALWAYS))[1].seal
    await trail.remove(3)
    await trail.put_end("head", sequence=2, seal=seal)
    with pytest.raises(StoreError, match="head of the audit trail was changed"):
        await store.audit.record("ann", "act", "x")
    assert await broken(store)


async def test_an_old_head_before_later_entries_writes_over_nothing(store: Store, trail: Trail) -> None:
    await store.audit.record("ann", "act", "x")
    old = await trail.end("head")
    await store.audit.record("ann", "act", "x")
    await trail.put_end("head", **old)
    with pytest.raises(StoreError, match=trail.taken):
        await store.audit.record("ann", "act", "x")
    assert await broken(store) == Break(2, "the head was put back to before it")


async def test_another_master_key_verifies_nothing(store: Store, trail: Trail, clock: Clock) -> None:
    await store.audit.record("ann", "act", "x")
    async with trail.open(Fingerprints(b"o" * 32), clock) as other:
        assert await broken(other) == Break(1, "the anchor before it is missing or was changed")


async def test_a_trail_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "idbellen.db"
    async with open_store(path, FINGERPRINTS) as store:
        assert await on_record(store.audit, "ann", "act", "call", names="fullname")
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("DROP TABLE audit")
        with capture_logs() as lines:
            assert not await on_record(store.audit, "ann", "act", "call", names="fullname")
    assert lines == [
        {
            "log_level": "error",
            "event": "not in the audit trail",
            "actor": "ann",
            "action": "act",
            "subject": "call",
            "reason": "store: audit trail: no such table: audit",
        }
    ]
