"""The contract of stores, but for the audit trail; each runs it. And what is special to the embedded store."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from idbellen.domain.codes import Fingerprints
from idbellen.domain.idcontact import AuthResult, AuthStatus, Received
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.domain.statistics import CallOutcome, CallRecord
from idbellen.ports import Account, Attached, Role, Session, StoreError
from idbellen.stores.redis import open_store as open_redis_store
from idbellen.stores.schema import SCHEMA_VERSION
from idbellen.stores.sqlite import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from idbellen.service.storage import Store
    from tests.support.redis_servers import RedisProcess

ANN, BOB = AgentName("ann"), AgentName("bob")
ANOTHER, ANOTHER_CALL, A_CALL = CallId("another"), CallId("another call"), CallId("call")
MOVES = QueueName("moves")
SECRET_ANOTHER, SECRET_OF_CALL = Secret("another"), Secret("secret of call")
S, T, THIRD = SessionRef("s"), SessionRef("t"), SessionRef("third")

FINGERPRINTS = Fingerprints(b"m" * 32)
RESULT = AuthResult(AuthStatus.SUCCESS, {"fullname": "Someone"}, "https://auth.example/session", "auth-digid")
FAILED = AuthResult(AuthStatus.FAILED, {})
CODE, OTHER_CODE = "1234567890", "9876543210"
CALL = CallRecord(A_CALL, MOVES, "report_move", True, 10.0, 5.5, CallOutcome.ANSWERED, ANN, 60.0, 3.0)


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisProcess) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        opening: AbstractAsyncContextManager[Store] = open_store(tmp_path / "idbellen.db", FINGERPRINTS)
    else:
        opening = open_redis_store(redis_server.url, FINGERPRINTS)
    async with opening as opened:
        yield opened


def received(identity: str = "one", result: AuthResult = RESULT, *, until: float = 300.0) -> Received:
    return Received(result, identity, until)


async def start(store: Store, name: str = "s", *, came_along: Received | None = None, now: float = 0.0) -> bool:
    session = Session(SessionRef(name), "report_move", came_along.result if came_along else None)
    return await store.start(
        session, attr_handle=f"attr {name}", page_handle=f"page {name}", now=now, received=came_along
    )


async def with_code(store: Store, name: str = "s", code: str = CODE, *, until: float = 100.0) -> None:
    await start(store, name, came_along=received(f"token of {name}"))
    assert await store.issue_code(SessionRef(name), code, 0.0, valid_until=until)


async def claim(store: Store, code: str = CODE, call: str = "call", now: float = 1.0) -> Session | None:
    return await store.claim(code, call=CallId(call), secret=Secret(f"secret of {call}"), now=now)


async def test_a_try_to_write_leaves_nothing(store: Store, tmp_path: Path, redis_server: RedisProcess) -> None:
    await start(store)

    def on_disk() -> tuple[object, ...]:
        with closing(sqlite3.connect(tmp_path / "idbellen.db")) as connection:
            return list(connection.iterdump()), sorted(tmp_path.iterdir())

    before = on_disk(), await redis_server.cli("DEBUG", "DIGEST")
    for _ in range(3):
        await store.try_to_write()
    assert (on_disk(), await redis_server.cli("DEBUG", "DIGEST")) == before


async def test_a_code_is_exchanged_for_a_secret(store: Store) -> None:
    await with_code(store)
    session = await claim(store)
    assert session == Session(S, "report_move", RESULT)
    assert await store.by_secret(SECRET_OF_CALL) == session
    assert await store.by_secret(SECRET_ANOTHER) is None


@pytest.mark.parametrize(("code", "now"), [(OTHER_CODE, 1.0), (CODE, 100.0), (CODE, 101.0)])
async def test_wrong_and_expired_codes_give_nothing(store: Store, code: str, now: float) -> None:
    await with_code(store)
    assert await claim(store, code, now=now) is None


async def test_of_many_calls_with_one_code_one_gets_it(store: Store) -> None:
    await with_code(store)
    claims = await asyncio.gather(*(claim(store, call=f"call {number}") for number in range(50)))
    assert sum(claimed is not None for claimed in claims) == 1


async def test_a_call_that_got_no_answer_may_ask_again(store: Store) -> None:
    await with_code(store)
    first = await claim(store)
    assert first
    assert await claim(store) == first
    assert await store.claim(CODE, call=A_CALL, secret=SECRET_ANOTHER, now=1.0) is None
    assert await claim(store, call="another call") is None
    assert await store.by_secret(SECRET_OF_CALL) == first
    await store.release(A_CALL)
    assert await claim(store, call="another call") == first


async def test_a_released_code_counts_again_and_its_old_secret_does_not(store: Store) -> None:
    await with_code(store)
    await claim(store, call="first")
    await store.release(ANOTHER_CALL)
    assert await claim(store, call="second") is None
    await store.release(CallId("first"))
    assert await store.by_secret(Secret("secret of first")) is None
    assert await claim(store, call="second")


async def test_a_finished_session_is_gone(store: Store) -> None:
    await with_code(store)
    await claim(store)
    assert await store.finish(ANOTHER_CALL) is None
    assert await store.by_reference(S)
    assert await store.finish(A_CALL) == Session(S, "report_move", RESULT)
    assert await store.by_reference(S) is None
    assert await store.by_secret(SECRET_OF_CALL) is None
    assert await claim(store) is None


async def test_two_sessions_never_have_one_code(store: Store) -> None:
    await with_code(store, "s")
    await start(store, "t")
    assert not await store.issue_code(T, CODE, 1.0, valid_until=200.0)
    assert await store.issue_code(T, CODE, 100.0, valid_until=200.0), "a lapsed code makes room"
    session = await claim(store, now=150.0)
    assert session
    assert session.reference == "t"


async def test_a_new_code_takes_the_place_of_the_old(store: Store) -> None:
    await with_code(store)
    assert await store.issue_code(S, OTHER_CODE, 1.0, valid_until=100.0)
    assert await claim(store, CODE) is None
    assert await claim(store, OTHER_CODE)


async def test_a_page_opens_once(store: Store) -> None:
    await start(store)
    assert await store.open_page("page s") == Session(S, "report_move")
    assert await store.open_page("page s") is None
    assert await store.open_page("page t") is None
    assert await store.by_page_handle("page s") == Session(S, "report_move"), "to see whose it was"
    assert await store.by_page_handle("page t") is None


async def test_only_the_first_result_counts(store: Store) -> None:
    await start(store)
    assert await store.by_attr_handle("attr s") == Session(S, "report_move")
    assert await store.attach_result(S, received("first")) is Attached.KEPT
    assert await store.attach_result(S, received("second", FAILED)) is Attached.SECOND
    assert await store.by_reference(S) == Session(S, "report_move", RESULT)
    assert await store.by_attr_handle("attr t") is None
    assert await store.attach_result(T, received("third")) is Attached.SECOND


async def test_of_many_results_at_once_one_is_kept(store: Store) -> None:
    await start(store)
    ways = await asyncio.gather(*(store.attach_result(S, received(str(number))) for number in range(20)))
    assert sorted(way.value for way in ways) == ["kept"] + ["second"] * 19


async def test_a_token_is_accepted_once_whatever_became_of_its_session(store: Store) -> None:
    assert await start(store, "first", came_along=received())
    assert not await start(store, "second", came_along=received())
    assert await store.by_reference(SessionRef("second")) is None
    await start(store, "third")
    assert await store.attach_result(THIRD, received()) is Attached.REPLAYED
    assert await store.discard(SessionRef("first"))
    assert await store.attach_result(THIRD, received()) is Attached.REPLAYED
    assert await store.attach_result(THIRD, received("another")) is Attached.KEPT


async def test_what_was_accepted_is_forgotten_when_it_would_be_expired(store: Store) -> None:
    await start(store, came_along=received(until=300.0))
    await store.purge(300.0, 1000.0)
    assert not await start(store, "second", came_along=received())
    await store.purge(301.0, 1000.0)
    assert await start(store, "second", came_along=received())


async def test_the_language_of_the_page_is_kept(store: Store) -> None:
    await start(store)
    await store.set_language(S, "en")
    assert await store.by_reference(S) == Session(S, "report_move", language="en")


async def test_a_citizen_ends_a_session_unless_a_call_holds_it(store: Store) -> None:
    await with_code(store)
    await claim(store)
    assert await store.discard(S) is None
    await store.release(A_CALL)
    assert await store.discard(S) == Session(S, "report_move", RESULT)
    assert await store.discard(S) is None
    assert await claim(store) is None


async def test_sessions_of_purposes_that_are_no_more_are_deleted(store: Store) -> None:
    await start(store)
    assert await store.keep_purposes({"report_move", "other"}) == 0
    assert await store.keep_purposes({"other"}) == 1
    assert await store.by_reference(S) is None


async def test_old_sessions_are_purged_but_not_under_a_call(store: Store) -> None:
    await with_code(store, "held", CODE, until=5000.0)
    await claim(store)
    await start(store, "old")
    await start(store, "young", now=500.0)
    assert await store.purge(1001.0, 1000.0) == 1
    assert await store.by_reference(SessionRef("old")) is None
    assert await store.by_reference(SessionRef("young"))
    assert await store.by_reference(SessionRef("held"))
    assert await store.purge(2001.0, 1000.0) == 2, "the hard limit holds for a call too"


async def test_accounts_and_logins(store: Store) -> None:
    ann = Account(ANN, "PJSIP/ann", "hash")
    assert await store.add_account(ann)
    assert not await store.add_account(Account(ANN, "PJSIP/other", "hash"))
    assert await store.accounts() == [ann]
    limits = {"idle": 10.0, "absolute": 25.0}
    await store.log_in("login", ANN, 0.0)
    assert await store.logged_in("login", 9.0, **limits) == ann
    assert await store.logged_in("other", 9.0, **limits) is None
    assert await store.logged_in("login", 18.0, **limits) == ann, "use keeps a login alive"
    assert await store.logged_in("login", 25.0, **limits) is None, "but not for ever"
    await store.log_in("second", ANN, 0.0)
    assert await store.logged_in("second", 10.0, **limits) is None, "idle"
    await store.log_in("third", ANN, 0.0)
    await store.log_out("third")
    assert await store.logged_in("third", 1.0, **limits) is None
    await store.log_in("fourth", ANN, 0.0)
    assert await store.remove_account(ANN)
    assert not await store.remove_account(ANN)
    assert await store.logged_in("fourth", 1.0, **limits) is None


async def test_accounts_are_changed_and_found_by_their_phone(store: Store) -> None:
    ann = Account(ANN, "PJSIP/ann", "hash", Role.SUPERVISOR, {MOVES: 1})
    await store.add_account(ann)
    assert await store.by_endpoint("PJSIP/ann") == ann
    assert await store.by_endpoint("PJSIP/bob") is None
    assert not await store.change_account(BOB, role=Role.AGENT)
    await store.log_in("login", ANN, 0.0)
    assert await store.change_account(ANN, role=Role.AGENT, password_hash="hash")
    assert await store.change_account(ANN, endpoint="PJSIP/desk", queues={})
    ann = Account(ANN, "PJSIP/desk", "hash", Role.AGENT, {})
    assert await store.logged_in("login", 1.0, idle=10.0, absolute=10.0) == ann
    assert await store.change_account(ANN, password_hash="another")
    assert await store.logged_in("login", 1.0, idle=10.0, absolute=10.0) is None, "whoever knew the old one is out"
    await store.add_account(Account(BOB, "PJSIP/desk", "hash"))
    assert await store.by_endpoint("PJSIP/desk") is None, "a shared phone tells nobody apart"
    assert await store.change_account(BOB, endpoint="PJSIP/bob&PJSIP/bob-home")
    for phone in ("PJSIP/bob", "PJSIP/bob-home"):
        found = await store.by_endpoint(phone)
        assert found
        assert found.name == BOB
    assert await store.by_endpoint("PJSIP/bob&PJSIP/bob-home") is None, "that is no phone"


async def test_records_of_calls(store: Store) -> None:
    other = replace(
        CALL, queue=QueueName("taxes"), arrived=20.0, outcome=CallOutcome.ABANDONED, agent=None, verified=False
    )
    await store.keep_call(other)
    await store.keep_call(CALL)
    assert await store.calls(10.0, 20.1) == [CALL, other], "by arrival"
    assert await store.calls(10.0, 20.0) == [CALL]
    assert await store.calls(10.1, 20.1) == [other]
    assert await store.calls(0.0, 100.0, MOVES) == [CALL]
    later = replace(CALL, wrap_up=12.0)
    await store.keep_call(later)
    assert await store.calls(0.0, 100.0, MOVES) == [later]
    assert await store.forget_calls(20.0) == 1
    assert await store.calls(0.0, 100.0) == [other]


async def test_claims_of_calls_that_nobody_has_in_hand_are_undone(store: Store) -> None:
    for name, code in (("one", CODE), ("two", OTHER_CODE)):
        await with_code(store, name, code)
        await claim(store, code, call=f"call of {name}")
    assert await store.release_others([CallId("call of one"), ANOTHER]) == 1
    assert await claim(store, CODE) is None
    assert await claim(store, OTHER_CODE)
    assert await store.release_others([]) == 2


async def test_a_session_that_a_call_begins_for_a_caller_without_a_code(store: Store) -> None:
    """It has its result, of which nobody is told, from the start on, and is as good as over then."""
    result = AuthResult(AuthStatus.NOT_TRIED, {})
    for name, code in (("one", CODE), ("two", OTHER_CODE)):
        begun = Session(SessionRef(name), "report_move")
        received = Received(result, f"of {name}", 10.0)
        assert await store.start(
            begun, attr_handle=f"attr {name}", page_handle=f"page {name}", now=10.0, received=received
        )
        assert await store.issue_code(begun.reference, code, 10.0, valid_until=40.0)
    claimed = await store.claim(CODE, call=A_CALL, secret=Secret("secret"), now=10.0)
    assert claimed == Session(SessionRef("one"), "report_move", result)
    assert await store.by_secret(Secret("secret")) == claimed
    await store.release(A_CALL)
    assert await store.claim(CODE, call=ANOTHER, secret=Secret("another"), now=41.0) is None, "its code lapses"


async def test_notes_are_kept_replaced_and_deleted(store: Store) -> None:
    await store.note({})
    assert await store.notes() == {}
    await store.note({"a": "one\n\u00e9", "b": "two", "c": ""})
    await store.note({"a": "three", "b": None, "none": None, "d": "four"})
    assert await store.notes() == {"a": "three", "c": "", "d": "four"}


async def test_it_survives_a_restart_and_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "idbellen.db"
    async with open_store(path, FINGERPRINTS) as store:
        await with_code(store)
        await claim(store)
    async with open_store(path, FINGERPRINTS) as store:
        assert await claim(store, call="second") is None
        assert await store.release_others([A_CALL]) == 0
        assert await store.release_others([ANOTHER]) == 1
        assert await claim(store, call="second")


async def test_the_files_show_no_code_secret_or_handle_and_nothing_of_what_was_deleted(tmp_path: Path) -> None:
    path = tmp_path / "idbellen.db"

    def raw() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())

    async with open_store(path, FINGERPRINTS) as store:
        await with_code(store)
        await claim(store)
        held = raw()
        for hidden in (CODE, "secret of call", "attr s", "page s", "token of s", "Someone", "auth.example"):
            assert hidden.encode() not in held
        [sealed] = sealed_results(path)
        assert sealed.encode() in held
        await store.finish(A_CALL)
        assert sealed.encode() not in raw()
    assert path.stat().st_mode & 0o077 == 0


def sealed_results(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as reader:
        return [row[0] for row in reader.execute("SELECT result FROM sessions ORDER BY reference")]


async def test_a_sealed_result_that_was_changed_or_moved_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "idbellen.db"
    async with open_store(path, FINGERPRINTS) as store:
        await start(store, "a", came_along=received("one"))
        await start(store, "b", came_along=received("two"))
        sealed = sealed_results(path)
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("UPDATE sessions SET result = ? WHERE reference = 'a'", (sealed[1],))
            writer.execute("UPDATE sessions SET result = ? WHERE reference = 'b'", (f"A{sealed[1][1:]}",))
            writer.commit()
        for name in ("a", "b"):
            with pytest.raises(StoreError, match=f"session {name} cannot be opened"):
                await store.by_reference(SessionRef(name))


# The schemas of earlier versions, as they made them.
EARLIER = {
    1: """
CREATE TABLE sessions (
    reference TEXT PRIMARY KEY, purpose TEXT NOT NULL, created REAL NOT NULL, token TEXT,
    attr_handle TEXT UNIQUE NOT NULL, page_handle TEXT UNIQUE, code TEXT UNIQUE, code_valid_until REAL,
    claimed_by TEXT, secret TEXT UNIQUE
);
CREATE TABLE accounts (name TEXT PRIMARY KEY, endpoint TEXT NOT NULL, password_hash TEXT NOT NULL);
CREATE TABLE logins (
    login TEXT PRIMARY KEY, name TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    created REAL NOT NULL, seen REAL NOT NULL
);
PRAGMA user_version=1;
""",
    2: """
CREATE TABLE sessions (
    reference TEXT PRIMARY KEY, purpose TEXT NOT NULL, created REAL NOT NULL, language TEXT, result TEXT,
    result_identity TEXT, result_until REAL, attr_handle TEXT UNIQUE NOT NULL, page_handle TEXT UNIQUE NOT NULL,
    page_opened INTEGER NOT NULL DEFAULT 0, code TEXT UNIQUE, code_valid_until REAL, claimed_by TEXT UNIQUE,
    secret TEXT UNIQUE
);
CREATE TABLE accepted_tokens (identity TEXT PRIMARY KEY, until REAL NOT NULL);
CREATE TRIGGER result_came_along AFTER INSERT ON sessions WHEN NEW.result_identity IS NOT NULL
BEGIN
    INSERT INTO accepted_tokens VALUES (NEW.result_identity, NEW.result_until);
END;
CREATE TRIGGER result_came AFTER UPDATE OF result_identity ON sessions WHEN NEW.result_identity IS NOT NULL
BEGIN
    INSERT INTO accepted_tokens VALUES (NEW.result_identity, NEW.result_until);
END;
CREATE TABLE accounts (name TEXT PRIMARY KEY, endpoint TEXT NOT NULL, password_hash TEXT NOT NULL);
CREATE TABLE logins (
    login TEXT PRIMARY KEY, name TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    created REAL NOT NULL, seen REAL NOT NULL
);
PRAGMA user_version=2;
""",
}


def made_by(path: Path, version: int) -> None:
    """Make a store of an earlier version, with an agent who is logged in and a session."""
    with closing(sqlite3.connect(path)) as earlier:
        earlier.executescript(EARLIER[version])
        earlier.execute("INSERT INTO accounts VALUES ('ann', 'PJSIP/ann', 'hash')")
        earlier.execute("INSERT INTO logins VALUES (?, 'ann', 0, 0)", (FINGERPRINTS.of("login", "login"),))
        earlier.execute(
            "INSERT INTO sessions (reference, purpose, created, attr_handle, page_handle)"
            " VALUES ('s', 'p', 0, 'a', 'b')"
        )
        earlier.commit()


@pytest.mark.parametrize("version", [1, 2])
async def test_accounts_and_logins_of_earlier_schemas_stay(tmp_path: Path, version: int) -> None:
    path = tmp_path / "idbellen.db"
    made_by(path, version)
    ann = Account(ANN, "PJSIP/ann", "hash", Role.AGENT, {})
    for _ in range(2):
        async with open_store(path, FINGERPRINTS) as store:
            assert await store.accounts() == [ann]
            assert await store.logged_in("login", 1.0, idle=10.0, absolute=10.0) == ann
            assert (await store.by_reference(S) is not None) == (version == 2), "sessions of the first are let go"
            await store.keep_call(CALL)
            await store.audit.record("ann", "look", "call")
    async with open_store(path, FINGERPRINTS) as store:
        assert await store.calls(0.0, 1e10) == [CALL]
        assert len(await store.audit.entries(0.0, 1e10)) == 2


async def test_a_migration_happens_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "idbellen.db"
    made_by(path, 2)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("CREATE TABLE calls_by_arrival (x)")
    with pytest.raises(StoreError, match="calls_by_arrival"):
        async with open_store(path, FINGERPRINTS):
            pass
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("PRAGMA user_version").fetchone() == (2,)
        assert len(reader.execute("PRAGMA table_info(accounts)").fetchall()) == 3


async def test_a_store_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "idbellen.db"
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=rf"another version of idbellen \(schema {SCHEMA_VERSION + 1}\)"):
        async with open_store(path, FINGERPRINTS):
            pass


async def test_a_file_that_is_no_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "idbellen.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        async with open_store(path, FINGERPRINTS):
            pass
    with pytest.raises(StoreError, match="No such file or directory"):
        async with open_store(tmp_path / "none" / "x.db", FINGERPRINTS):
            pass
