"""What is special to the store in Redis: servers that go away, hang, come back, change roles or ask for a password."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import shutil
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from idbellen.domain.ids import AgentName, CallId, Secret, SessionRef
from idbellen.ports import Account, StoreError
from idbellen.stores import redis, redis_audit_trail
from idbellen.stores.redis import open_store
from idbellen.stores.redis_connection import RedisConnection
from idbellen.stores.redis_url import RedisUrl
from tests.redis.test_store import CALL, CODE, FINGERPRINTS, claim, received, start, with_code
from tests.support.installation import Installation, run_cli, write_secret
from tests.support.redis_servers import SECONDS, RedisProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from redis.asyncio import Redis

    from idbellen.demo.pbx import Pbx
    from tests.support.sipp import Phones

    Make = Callable[..., Awaitable[RedisProcess]]

ANN = AgentName("ann")
A_CALL = CallId("call")
SECRET_OF_CALL = Secret("secret of call")
S = SessionRef("s")

# What a request may take, and some for a busy machine.
BOUND_SECONDS = 4.0
PASSWORD = "a word of 22 letters.."


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Give a maker of running servers of the test's own."""
    async with AsyncExitStack() as stack:
        count = 0

        async def made(*settings: str, until: str = "Ready to accept connections", **options: str) -> RedisProcess:
            nonlocal count
            count += 1
            process = RedisProcess(tmp_path / f"redis{count}", *settings, **options)
            stack.push_async_callback(process.stop)
            await process.start(until)
            return process

        yield made


@asynccontextmanager
async def fails_in_time(reason: str) -> AsyncIterator[None]:
    started = time.monotonic()
    with pytest.raises(StoreError, match=reason) as caught:
        yield
    assert time.monotonic() - started < BOUND_SECONDS
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


async def opens(url: RedisUrl, *, password: str | None = None, ca: str | None = None) -> None:
    async with open_store(url, FINGERPRINTS, password=password, ca=ca) as store:
        await store.release_others([])


# What is kept


async def test_the_server_sees_no_code_secret_or_handle_and_nothing_of_a_result(make: Make) -> None:
    server = await make("appendonly yes", "aof-use-rdb-preamble no")
    async with open_store(server.url, FINGERPRINTS) as store:
        await with_code(store)
        await claim(store)
        await store.add_account(Account(ANN, "PJSIP/ann", "hash"))
        await store.log_in("login of ann", ANN, 0.0)
        await store.note({"desk": "a caller waits"})
    written = b"".join(file.read_bytes() for file in server.folder.rglob("*.aof"))
    assert b"PJSIP/ann" in written, "this is where all of it would be"
    for hidden in (
        CODE, "secret of call", "attr s", "page s", "token of s", "Someone", "auth.example", "login of ann", "waits",
    ):  # fmt: skip
        assert hidden.encode() not in written


async def test_a_finished_session_and_ended_logins_leave_nothing(redis_server: RedisProcess) -> None:
    async with open_store(redis_server.url, FINGERPRINTS) as store:
        await with_code(store)
        await store.issue_code(S, CODE, 1.0, valid_until=100.0)
        await claim(store)
        await store.finish(A_CALL)
        await with_code(store, "t")
        await store.discard(SessionRef("t"))
        await store.purge(1000.0, 1.0)
        await store.add_account(Account(ANN, "PJSIP/ann", "hash"))
        for login in ("one", "two"):
            await store.log_in(login, ANN, 0.0)
        assert await store.logged_in("one", 1.0, idle=10.0, absolute=10.0)
        await store.log_out("two")
        [left] = (await redis_server.cli("KEYS", "*:login:*")).splitlines()
        assert int(await redis_server.cli("PTTL", left)) <= 10_000, "it ends by itself"
        await store.log_out("one")
        await store.remove_account(ANN)
        assert await redis_server.cli("KEYS", "*") == "{idbellen}:schema"


async def test_a_result_that_was_changed_or_moved_is_not_opened(redis_server: RedisProcess) -> None:
    async with open_store(redis_server.url, FINGERPRINTS) as store:
        await start(store, "a", came_along=received("one"))
        await start(store, "b", came_along=received("two"))
        sealed = await redis_server.cli("HGET", "{idbellen}:session:b", "result")
        await redis_server.cli("HSET", "{idbellen}:session:a", "result", sealed)
        await redis_server.cli("HSET", "{idbellen}:session:b", "result", f"{'BA'[sealed[0] == 'B']}{sealed[1:]}")
        for name in ("a", "b"):
            with pytest.raises(StoreError, match=f"auth result of session {name} cannot be opened"):
                await store.by_reference(SessionRef(name))


async def test_an_account_made_anew_has_none_of_the_logins_of_the_old(redis_server: RedisProcess) -> None:
    ann = Account(ANN, "PJSIP/ann", "hash")
    async with open_store(redis_server.url, FINGERPRINTS) as store:
        await store.add_account(ann)
        await store.log_in("login", ANN, 0.0)
        await store.remove_account(ANN)
        await store.log_in("nobody's", ANN, 0.0)
        await store.add_account(ann)
        for login in ("login", "nobody's"):
            assert await store.logged_in(login, 1.0, idle=10.0, absolute=10.0) is None


async def test_a_note_opens_under_its_own_name_only(redis_server: RedisProcess) -> None:
    async with open_store(redis_server.url, FINGERPRINTS) as store:
        await store.note({"a": "three", "c": "", "d": "four"})
        await redis_server.cli("HSET", "{idbellen}:notes", "c", await redis_server.cli("HGET", "{idbellen}:notes", "a"))
        await redis_server.cli("HSET", "{idbellen}:notes", "d", "never sealed \u00e9")
        with capture_logs() as lines:
            assert await store.notes() == {"a": "three"}
    assert sorted((line["log_level"], line["note"]) for line in lines) == [("warning", "c"), ("warning", "d")]


async def test_long_trails_and_histories_come_in_parts(
    redis_server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "PAGE", 3)
    monkeypatch.setattr(redis_audit_trail, "PAGE", 3)
    records = [replace(CALL, call=CallId(f"call {number}"), arrived=10.5 + number // 2) for number in range(11)]
    async with open_store(redis_server.url, FINGERPRINTS) as store:
        for record in records:
            await store.keep_call(record)
            await store.audit.record("ann", "act", record.call)
        assert sorted(await store.calls(0.0, 1e10), key=records.index) == records
        assert [record.arrived for record in await store.calls(11.5, 14.5)] == [11.5, 11.5, 12.5, 12.5, 13.5, 13.5]
        chain, fault = await store.audit.chain()
        assert ([entry.subject for entry in chain.entries], fault) == ([record.call for record in records], None)


async def test_a_trail_that_is_read_while_its_beginning_is_forgotten_is_whole(
    redis_server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_audit_trail, "PAGE", 3)
    times = iter(range(10))
    async with (
        open_store(redis_server.url, FINGERPRINTS, lambda: float(next(times))) as store,
        open_store(redis_server.url, FINGERPRINTS) as other,
    ):
        for _ in range(10):
            await store.audit.record("ann", "act", "x")
        script = store._redis.script
        forgotten: list[int] = []

        async def then_forget(text: str, *values: str | float) -> Any:
            answer = await script(text, *values)
            if not forgotten:
                forgotten.append(await other.audit.forget(5.0))
            return answer

        monkeypatch.setattr(store._redis, "script", then_forget)
        chain, fault = await store.audit.chain()
        assert (forgotten, [entry.sequence for entry in chain.entries], fault) == ([5], [6, 7, 8, 9, 10], None)


async def test_a_store_of_a_later_version_is_left_alone(redis_server: RedisProcess) -> None:
    await redis_server.cli("SET", "{idbellen}:schema", "2")
    async with fails_in_time(r"made by another version of idbellen \(schema 2\)"):
        await opens(redis_server.url)


async def test_installations_with_databases_of_their_own_do_not_meet(redis_server: RedisProcess) -> None:
    async with (
        open_store(redis_server.url, FINGERPRINTS) as store,
        open_store(replace(redis_server.url, database=3), FINGERPRINTS) as other,
    ):
        await with_code(store)
        assert await claim(other) is None
        assert await claim(store)


async def test_of_several_processes_calls_with_one_code_one_gets_it(redis_server: RedisProcess) -> None:
    async with (
        open_store(redis_server.url, FINGERPRINTS) as store,
        open_store(redis_server.url, FINGERPRINTS) as other,
    ):
        await with_code(store)
        claims = await asyncio.gather(*(claim((store, other)[n % 2], call=f"call {n}") for n in range(40)))
        assert sum(claimed is not None for claimed in claims) == 1


# Servers that go away


async def test_a_server_that_always_syncs_loses_nothing_that_it_acknowledged(make: Make) -> None:
    server = await make("appendonly yes", "appendfsync always")
    acknowledged: list[str] = []
    async with open_store(server.url, FINGERPRINTS) as store:
        await with_code(store)
        await claim(store)
        enough = asyncio.Event()

        async def work() -> None:
            for number in range(10_000):
                try:
                    await store.audit.record("ann", "act", str(number))
                except StoreError:
                    return
                acknowledged.append(str(number))
                if number == 100:
                    enough.set()

        working = asyncio.create_task(work())
        await enough.wait()
        await server.stop(signal.SIGKILL)
        await working
        async with fails_in_time(f"store redis://127.0.0.1:{server.port}/0: Connection (refused|reset)"):
            await store.by_reference(S)
        await server.start()
        # The same store, without a restart of ours.
        chain, fault = await store.audit.chain()
        assert fault is None
        assert [entry.subject for entry in chain.entries][: len(acknowledged)] == acknowledged
        assert len(chain.entries) - len(acknowledged) in (0, 1), "what was under way may be there or not"
        assert await claim(store, call="second") is None
        assert await store.by_secret(SECRET_OF_CALL) == await store.finish(A_CALL) is not None


async def test_a_server_that_hangs_is_told_in_time_and_works_again_afterwards(make: Make) -> None:
    server = await make()
    async with open_store(server.url, FINGERPRINTS) as store:
        await with_code(store)
        server.send(signal.SIGSTOP)
        async with fails_in_time("no answer within 2 seconds"):
            await claim(store)
        # Also many at once, of whom most wait for a connection, and those that take turns.
        async with fails_in_time("no answer within 2 seconds"):
            work = [store.by_reference(S) for _ in range(100)]
            await asyncio.gather(*work, *(store.audit.record("ann", "act", str(number)) for number in range(10)))
        async with fails_in_time("no answer within 2 seconds"):
            await opens(server.url)
        server.send(signal.SIGCONT)
        assert await store.by_reference(S)


async def test_a_claim_that_a_hanging_server_does_later_is_undone(make: Make) -> None:
    server = await make()
    async with open_store(server.url, FINGERPRINTS) as store:
        await with_code(store)
        server.send(signal.SIGSTOP)
        async with fails_in_time("no answer"):
            await claim(store)
        async with fails_in_time("no answer"):
            await store.release(A_CALL)
        server.send(signal.SIGCONT)
        await store.by_reference(S)
        assert await store.by_secret(SECRET_OF_CALL), "it was done after all"
        assert await store.purge(0.0, 1000.0) == 0
        assert await claim(store, call="second")
        assert await store.purge(0.0, 1000.0) == 0
        assert await store.by_secret(Secret("secret of second")), "only what is in doubt is undone"


async def test_a_caller_who_hangs_up_while_the_server_is_at_work_leaves_the_code_free(make: Make) -> None:
    server = await make()
    async with open_store(server.url, FINGERPRINTS) as store:
        await with_code(store)
        server.send(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await claim(store)
        server.send(signal.SIGCONT)
        await store.release(A_CALL)
        await store.purge(0.0, 1000.0)
        assert await claim(store, call="second")


async def test_a_server_that_is_busy_for_long_is_told_in_time(make: Make) -> None:
    server = await make()
    async with open_store(server.url, FINGERPRINTS) as store:
        sleeping = asyncio.create_task(server.cli("DEBUG", "SLEEP", "4"))
        async with fails_in_time("no answer within 2 seconds"):
            while True:
                await store.accounts()
        assert await sleeping == "OK"
        assert await store.accounts() == []


async def test_nobody_there_is_told_in_one_line(make: Make) -> None:
    server = await make()
    await server.stop()
    async with fails_in_time(f"^store redis://127.0.0.1:{server.port}/0: Connection refused$"):
        await opens(server.url)
    async with fails_in_time("^store redis://no-such-host.invalid:6379/0: .*(not known|failure in name resolution)"):
        await opens(RedisUrl((("no-such-host.invalid", 6379),)))


async def test_a_full_server_refuses_and_keeps_what_it_has(make: Make) -> None:
    server = await make("maxmemory-policy noeviction")
    async with open_store(server.url, FINGERPRINTS) as store:
        await with_code(store)
        await server.cli("CONFIG", "SET", "maxmemory", "100kb")
        async with fails_in_time("maxmemory"):
            await start(store, "t")
        assert await store.by_reference(S)


async def test_a_server_that_takes_no_changes_is_told_until_it_does(make: Make) -> None:
    server = await make("maxmemory-policy noeviction", 'save "3600 1"')
    async with open_store(server.url, FINGERPRINTS) as store:
        await store.try_to_write()
        await server.cli("CONFIG", "SET", "maxmemory", "100kb")
        async with fails_in_time("maxmemory"):
            await store.try_to_write()
        await server.cli("CONFIG", "SET", "maxmemory", "0")
        await store.try_to_write()

        await server.cli("REPLICAOF", "127.0.0.1", "1")
        async with fails_in_time("a read-only replica, not the primary"):
            await store.try_to_write()
        await server.cli("REPLICAOF", "NO", "ONE")
        await store.try_to_write()

        # A disk on which it can keep nothing.
        shutil.rmtree(server.folder)
        await server.cli("BGSAVE")
        await server.said("Background saving error")
        async with fails_in_time("MISCONF"):
            await store.try_to_write()
        await server.cli("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        await store.try_to_write()

        server.send(signal.SIGSTOP)
        async with fails_in_time("no answer within 2 seconds"):
            await store.try_to_write()
        server.send(signal.SIGCONT)
        await store.try_to_write()
        # One that cannot save would not end otherwise.
        await server.stop(signal.SIGKILL)
        async with fails_in_time(f"store redis://127.0.0.1:{server.port}/0: "):
            await store.try_to_write()


# Passwords and TLS


async def test_a_wrong_password_is_told(make: Make) -> None:
    server = await make(
        f'requirepass "{PASSWORD}"', f'user ann on ">{PASSWORD}" "~{{idbellen}}*" +@read +@write +eval +select'
    )
    told = f"^store redis://127.0.0.1:{server.port}/0: password refused: "
    for password in (None, "another"):
        async with fails_in_time(told):
            await opens(server.url, **({"password": password} if password else {}))
    async with fails_in_time(told):
        await opens(replace(server.url, user="bob"), password=PASSWORD)
    await opens(server.url, password=PASSWORD)
    await opens(replace(server.url, password=PASSWORD))
    await opens(replace(server.url, user="ann"), password=PASSWORD)


async def test_a_user_who_may_do_too_little_is_told(make: Make) -> None:
    server = await make(f'user ann on ">{PASSWORD}" "~other*" +@all')
    async with fails_in_time("[Nn]o permissions to access (a|one of the) key"):
        await opens(replace(server.url, user="ann"), password=PASSWORD)


def make_certificate(folder: Path) -> str:
    """Make a key and a certificate for 127.0.0.1 that vouches for itself; gives it in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis of a test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "redis.key").write_bytes(private)
    text = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "redis.crt").write_bytes(text)
    return text.decode()


async def test_tls_with_a_ca_of_ones_own(make: Make, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server = await make(*tls_only(tmp_path))
    url = replace(server.url, tls=True)
    await opens(url, ca=certificate)
    async with fails_in_time(f"^store rediss://127.0.0.1:{server.port}/0: .*certificate verify failed"):
        await opens(url)
    async with fails_in_time("store rediss.*mismatch"):
        await opens(replace(url, hosts=(("localhost", server.port),)), ca=certificate)
    async with fails_in_time("^store redis://"):
        await opens(server.url)
    async with fails_in_time("^store rediss://"):
        await opens(url, ca="no certificate")


def tls_only(folder: Path) -> list[str]:
    return [
        "port 0", "tls-port @PORT@", "tls-auth-clients no", "tls-replication yes",
        f"tls-cert-file {folder}/redis.crt", f"tls-key-file {folder}/redis.key", f"tls-ca-cert-file {folder}/redis.crt",
    ]  # fmt: skip


async def test_a_server_that_hangs_behind_tls_is_told_in_time(make: Make, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server = await make(*tls_only(tmp_path))
    async with open_store(replace(server.url, tls=True), FINGERPRINTS, ca=certificate) as store:
        server.send(signal.SIGSTOP)
        async with fails_in_time("no answer within 2 seconds"):
            await store.accounts()
        server.send(signal.SIGCONT)
        assert await store.accounts() == []


@pytest.mark.parametrize("refusal", [None, ResponseError("FENCED"), ConnectionResetError()], ids=repr)
async def test_a_cancellation_in_the_moment_of_the_answer_is_not_lost(refusal: Exception | None) -> None:
    class Client:
        async def execute_command(self, *_: str) -> str:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if refusal:
                raise refusal
            return "an answer"

    connection = RedisConnection(cast("Redis", Client()), RedisUrl((("127.0.0.1", 1),)))
    command = asyncio.create_task(connection.command("PING"))
    await asyncio.sleep(0)
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command


# Several servers


async def with_replica(make: Make, *settings: str) -> tuple[RedisProcess, RedisProcess]:
    """Give a primary and its replica."""
    primary = await make(*settings)
    replica = await make(
        *settings, f"replicaof 127.0.0.1 {primary.port}", until="MASTER <-> REPLICA sync: Finished with success"
    )
    return primary, replica


async def test_a_read_only_replica_is_told(make: Make) -> None:
    primary, replica = await with_replica(make)
    await opens(primary.url)
    async with fails_in_time(f"^store redis://127.0.0.1:{replica.port}/0: a read-only replica, not the primary"):
        await opens(replica.url)


async def test_a_primary_without_its_replicas_refuses_where_it_is_told_to(make: Make) -> None:
    server = await make("min-replicas-to-write 1")
    async with fails_in_time("Not enough good replicas to write"):
        await opens(server.url)


async def test_who_has_become_a_replica_is_left_for_who_has_its_name_now(make: Make) -> None:
    first, second = await make(), await make()
    target = first

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", target.port)
        await asyncio.gather(pass_on(reader, onward[1]), pass_on(onward[0], writer))

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as named:
        url = RedisUrl((("127.0.0.1", named.sockets[0].getsockname()[1]),))
        async with open_store(url, FINGERPRINTS) as store:
            target = second
            await store.set_language(S, "en")
            await start(store)
            await first.cli("REPLICAOF", "127.0.0.1", str(second.port))
            async with fails_in_time("a read-only replica"):
                await start(store, "t")
            assert await start(store, "t")
            assert await store.by_reference(S) is None, "this is the other server"


async def test_after_a_fail_over_sentinel_leads_to_the_new_primary(make: Make) -> None:
    primary, replica = await with_replica(make)
    sentinel = await make(
        f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1",
        "sentinel down-after-milliseconds mymaster 300",
        "sentinel failover-timeout mymaster 3000",
        name="redis-sentinel",
        until="+slave slave",
    )
    silent = await make(
        f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1", name="redis-sentinel", until="+monitor master"
    )
    silent.send(signal.SIGSTOP)
    url = RedisUrl((*silent.url.hosts, *sentinel.url.hosts), "mymaster")
    async with open_store(url, FINGERPRINTS) as store:
        await with_code(store)
        assert await claim(store)
        async with asyncio.timeout(SECONDS):
            while await replica.cli("HLEN", "{idbellen}:call") != "1":
                await asyncio.sleep(0.02)
        await primary.stop(signal.SIGKILL)
        async with fails_in_time(
            f"^store redis[+]sentinel://127.0.0.1:{silent.port},127.0.0.1:{sentinel.port}/mymaster"
        ):
            await store.by_reference(S)
        await sentinel.said("+switch-master")
        assert await store.by_secret(SECRET_OF_CALL)
        assert await claim(store, call="second") is None
        await store.release(A_CALL)
        assert await claim(store, call="second")
    async with fails_in_time("no Sentinel that answers knows a primary named 'other' that is up"):
        await opens(replace(url, service="other"))
    await sentinel.stop()
    async with fails_in_time("no Sentinel that answers knows a primary named 'mymaster' that is up"):
        await opens(url)


async def test_sentinel_with_passwords_and_tls(make: Make, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server = await make(*tls_only(tmp_path), f'requirepass "{PASSWORD}"')
    sentinel = await make(
        *tls_only(tmp_path),
        f"sentinel monitor mymaster 127.0.0.1 {server.port} 1",
        f'sentinel auth-pass mymaster "{PASSWORD}"',
        name="redis-sentinel",
        until="+monitor master",
    )
    url = replace(sentinel.url, service="mymaster", tls=True)
    await opens(url, password=PASSWORD, ca=certificate)
    async with fails_in_time("password refused"):
        await opens(url, password="another", ca=certificate)


# The whole of it


async def test_a_call_with_the_store_in_redis(
    install: Callable[..., Awaitable[Installation]], telephony: Phones, make: Make, tmp_path: Path
) -> None:
    make_certificate(tmp_path)
    server = await make(*tls_only(tmp_path), f'requirepass "{PASSWORD}"')
    url = replace(server.url, tls=True)
    file = tmp_path / "redis-password"
    write_secret(file, f"{PASSWORD}\n")
    installation = await install(
        sessions__store=f'"{url}"',
        sessions__store_password_file=f'"{file}"',
        sessions__store_ca_file=f'"{tmp_path}/redis.crt"',
    )
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        await dashboard.until("in_call")
        await agent.talking()
        agent.hang_up()
        await dashboard.until("available")
        await caller.ended()
    await installation.until_nothing_is_left()
    config = str(installation.config)
    assert "ok    store\n" in (await run_cli("check", "--config", config))[1]
    assert (await run_cli("audit", "verify", "--config", config))[0] == 0
    file.write_text("another")
    code, output = await run_cli("check", "--config", config)
    assert (code, output.count("FAULT")) == (1, 1)
    assert f"FAULT store: store {url}: password refused" in output
    file.unlink()
    assert "redis-password: No such file or directory" in (await run_cli("check", "--config", config))[1]
    assert (await run_cli("agent", "list", "--config", config))[0] == 1


# A start without Redis


@pytest.fixture
async def without_redis(make: Make, pbx: Pbx, keys_folder: Path, tmp_path: Path) -> tuple[Installation, RedisProcess]:
    """Give an installation whose Redis is away."""
    server = await make()
    await server.stop()
    installation = Installation(tmp_path / "i", pbx)
    installation.write(keys_folder, sessions__store=f'"{server.url}"')
    return installation, server


async def test_who_starts_without_redis_waits_for_it(without_redis: tuple[Installation, RedisProcess]) -> None:
    installation, server = without_redis
    starting = asyncio.create_task(installation.start())
    await installation.until_process()
    await installation.until_log(f"waiting for the store reason='store {server.url}: Connection refused'")
    assert not starting.done()
    await server.start()
    await starting
    assert await installation.ready() == "ready"
    log = installation.log.read_text()
    assert log.count("waiting for the store") == log.count("the store can be used") == 1
    assert await installation.stop() == 0
    assert "Traceback" not in installation.log.read_text()


async def test_who_waits_for_redis_stops_at_once(without_redis: tuple[Installation, RedisProcess]) -> None:
    installation, _ = without_redis
    starting = asyncio.create_task(installation.start())
    await installation.until_process()
    await installation.until_log("waiting for the store")
    began = time.monotonic()
    assert await installation.stop() == 0
    assert time.monotonic() - began < 3
    starting.cancel()
    await asyncio.wait((starting,))


async def test_a_start_that_waiting_does_not_mend_ends(make: Make, keys_folder: Path, tmp_path: Path) -> None:
    server = await make(f'requirepass "{PASSWORD}"')
    no_pbx = SimpleNamespace(settings=SimpleNamespace(ari_port=1, ari_password="password"))
    installation = Installation(tmp_path / "i", cast("Pbx", no_pbx))
    password = installation.folder / "redis-password"
    url = f'"{server.url}"\nstore_password_file = "redis-password"'
    installation.write(keys_folder, sessions__store=url)
    for word, schema, told in (
        ("another", "1", "password refused: "),
        (PASSWORD, "99", "made by another version of idbellen (schema 99)"),
    ):
        password.write_text(word)
        await server.cli("SET", "{idbellen}:schema", schema, options=("--no-auth-warning", "-a", PASSWORD))
        async with asyncio.timeout(SECONDS):
            code, output = await run_cli("serve", "--config", str(installation.config))
        assert (code, output.count("\n")) == (1, 1)
        assert output.startswith(f"idbellen: store {server.url}: {told}")
