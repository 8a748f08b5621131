"""The two addresses for other telephone platforms: credentials, limits, and that a code counts once."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import encode_basic_auth, web
from aiohttp.test_utils import TestClient, TestServer

from idbellen.domain.codes import Fingerprints
from idbellen.domain.idcontact import AuthResult, AuthStatus, Received
from idbellen.domain.ids import SessionRef
from idbellen.ports import Session
from idbellen.stores.sqlite import open_store
from idbellen.web.credentials import Credentials, basic
from idbellen.web.machines.link_phone import LinkPhoneSite, link_phone_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from idbellen.stores.sqlite import SqliteStore

    Client = TestClient[web.Request, Any]

CODE = "1234567890"
PLATFORM = {"Authorization": encode_basic_auth("platform", "secret")}
RESULT = AuthResult(AuthStatus.SUCCESS, {"fullname": "Quirijn Zevenaar-Vlinderslag"})


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def platform(
    folder: Path, clock: Clock, *, admit: bool = False, result: AuthResult | None = RESULT
) -> AsyncIterator[tuple[Client, SqliteStore]]:
    """Give the interface, as a platform with the right credentials reaches it, and a session with a code."""
    async with open_store(folder / "db", Fingerprints(b"x" * 32)) as store:
        await add(store, clock, CODE, result)
        site = LinkPhoneSite(
            credentials=Credentials([basic("platform", "secret")], "all"),
            sessions=store,
            audit=store.audit,
            purposes={"report_move": admit},
            digits=10,
            tries=3,
            keep=3600.0,
            clock=clock,
        )
        async with TestClient(TestServer(link_phone_app(site)), headers=PLATFORM) as client:
            yield client, store


async def add(store: SqliteStore, clock: Clock, code: str, result: AuthResult | None) -> None:
    session = Session(SessionRef(f"session {code}"), "report_move")
    await store.start(session, attr_handle=f"a{code}", page_handle=f"p{code}", now=clock())
    if result:
        await store.attach_result(session.reference, Received(result, code, clock() + 600))
    assert await store.issue_code(session.reference, code, clock(), valid_until=clock() + 600)


async def link(client: Client, dtmf: str, sessionid: str = "call 1") -> int:
    async with client.post("/link_phone", json={"dtmf": dtmf, "sessionid": sessionid}) as answer:
        return answer.status


async def info(client: Client, sessionid: str = "call 1") -> tuple[int, dict[str, object]]:
    async with client.get(f"/session_info/{sessionid}") as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json()


async def test_a_code_is_linked_once(tmp_path: Path) -> None:
    async with platform(tmp_path, Clock()) as (client, store):
        assert (await info(client))[0] == 404
        assert await link(client, CODE) == 200
        assert await info(client) == (
            200,
            {"purpose": "report_move", "auth_result": {"status": "success", "attributes": RESULT.attributes}},
        )
        assert await link(client, CODE, "call 2") == 403
        assert (await info(client, "call 2"))[0] == 404
        [entry] = [e for e in await store.audit.entries(0.0, float("inf")) if e.action == "attributes shown"]
        assert entry.actor == "telephone platform"
        assert entry.detail == {"attributes": "fullname"}


async def test_keys_are_read_as_on_the_phone(tmp_path: Path) -> None:
    async with platform(tmp_path, Clock()) as (client, _):
        assert await link(client, "99*11234567890#") == 200


@pytest.mark.parametrize("header", ["", encode_basic_auth("platform", "another"), encode_basic_auth("", "")])
async def test_without_credentials_nothing_is_told(tmp_path: Path, header: str) -> None:
    async with platform(tmp_path, Clock()) as (right, _):
        await link(right, CODE)
        async with TestClient[web.Request, None](right.server, headers={"Authorization": header}) as client:
            assert await link(client, CODE, "call 2") == 401
            assert (await info(client))[0] == 401


async def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    clock = Clock()
    async with platform(tmp_path, clock) as (client, _):
        for _ in range(3):
            assert await link(client, "0101010101") == 403
        assert await link(client, CODE) == 429, "this call has had its tries"
        # New names for every guess do not help.
        answers = [await link(client, "0101010101", f"guess {number}") for number in range(40)]
        assert answers.count(403) < 20
        assert answers[-1] == 429
        clock.now += 100
        assert await link(client, CODE, "call 2") == 200


async def test_a_late_result_is_seen_and_a_failed_one_is_told(tmp_path: Path) -> None:
    clock = Clock()
    async with platform(tmp_path, clock, admit=True, result=None) as (client, store):
        assert await link(client, CODE) == 200
        assert (await info(client))[1]["auth_result"] is None
        failed = AuthResult(AuthStatus.FAILED, {})
        await store.attach_result(SessionRef(f"session {CODE}"), Received(failed, "late", clock() + 600))
        assert (await info(client))[1]["auth_result"] == {"status": "failed", "attributes": {}}


async def test_who_failed_to_log_in_is_refused_where_a_login_is_needed(tmp_path: Path) -> None:
    async with platform(tmp_path, Clock(), result=AuthResult(AuthStatus.FAILED, {})) as (client, _):
        assert await link(client, CODE) == 403
        assert (await info(client))[0] == 404


async def test_it_is_forgotten_in_the_end(tmp_path: Path) -> None:
    clock = Clock()
    async with platform(tmp_path, clock) as (client, store):
        assert await link(client, CODE) == 200
        clock.now += 3601
        assert (await info(client))[0] == 404
        await add(store, clock, "0987654321", RESULT)
        assert await link(client, "0987654321", "call 2") == 200
        assert await store.by_reference(SessionRef(f"session {CODE}")) is None


@pytest.mark.parametrize(
    "body", ["", "nonsense", "[]", "{}", '{"dtmf": 1, "sessionid": "x"}', '{"dtmf": "1", "sessionid": ""}',
             json.dumps({"dtmf": "1" * 65, "sessionid": "x"}), json.dumps({"dtmf": "1", "sessionid": "x" * 129})],
)  # fmt: skip
async def test_what_is_not_understood_is_refused(tmp_path: Path, body: str) -> None:
    async with platform(tmp_path, Clock()) as (client, _), client.post("/link_phone", data=body) as answer:
        assert answer.status == 400
