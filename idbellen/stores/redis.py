"""The store in Redis: for where that is kept anyway, or where another machine is to take over."""

from __future__ import annotations

import json
import math
import secrets
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

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
    UnfitStoreError,
    WritableStore,
)
from idbellen.stores import redis_scripts as scripts
from idbellen.stores.redis_audit_trail import RedisAuditTrail
from idbellen.stores.redis_connection import open_connection
from idbellen.stores.redis_turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence

    from idbellen.domain.codes import Fingerprints
    from idbellen.domain.idcontact import Received
    from idbellen.domain.ids import CallId, QueueName, Secret
    from idbellen.ports import Clock
    from idbellen.stores.redis_connection import RedisConnection
    from idbellen.stores.redis_url import RedisUrl

# As many records of calls at a time as hold the server up for nobody.
PAGE = 5000
INCARNATION_BYTES = 8
log = structlog.get_logger()


@asynccontextmanager
async def open_store(
    url: RedisUrl,
    fingerprints: Fingerprints,
    clock: Clock = time.time,
    *,
    password: str | None = None,
    ca: str | None = None,
) -> AsyncIterator[RedisStore]:
    """Open the store. ``clock`` dates the entries of the audit trail.

    ``password`` goes before that of the URL; ``ca`` holds the certificates, in PEM, of whom to trust for TLS; None:
    whom the system trusts.

    Raises:
        UnfitStoreError: the server refuses us, or has the store of another version of idbellen.
        StoreError: the server cannot be used now.

    """
    async with open_connection(url, password, ca) as connection:
        store = RedisStore(connection, fingerprints, clock)
        await store.try_to_write()
        yield store


class RedisStore(AccountStore, History, NoteStore, SessionStore, WritableStore):
    """Implements the stores of :mod:`idbellen.ports`: of sessions, notes, accounts and history.

    Every method that changes something is one script, so it happens whole or not at all. ``audit`` is its audit trail.
    """

    def __init__(self, redis: RedisConnection, fingerprints: Fingerprints, clock: Clock) -> None:
        self._redis = redis
        self.audit = RedisAuditTrail(redis, fingerprints.derive("audit trail"), clock)
        self._fingerprint = fingerprints.of
        self._vault = Vault(fingerprints.derive("auth results"))
        self._in_doubt: set[str] = set()
        self._noted = 0

    def turns(self, addresses: Mapping[str, str]) -> Turns:
        """Give the turns of this process at serving with this store."""
        return Turns(self._redis, addresses)

    async def try_to_write(self) -> None:
        """Write what needs room, and leave nothing behind; :exc:`StoreError` if it cannot be written."""
        # A server that is full, read-only or cannot keep anything refuses every script that might write.
        version = await self._redis.script(scripts.OPEN, scripts.SCHEMA_VERSION)
        if version != str(scripts.SCHEMA_VERSION):
            raise self._redis.fault(f"made by another version of idbellen (schema {version})", UnfitStoreError)

    # Sessions

    def _session(self, row: tuple[str, str, str | None, str | None] | None) -> Session | None:
        if row is None:
            return None
        name, purpose, sealed, language = row
        reference = SessionRef(name)
        try:
            result = self._vault.unseal(sealed, reference) if sealed else None
        except UnsealError:
            raise self._redis.fault(
                f"the auth result of session {reference} cannot be opened: another master key, or changed from outside"
            ) from None
        return Session(reference, purpose, result, language)

    def _sealed(self, reference: SessionRef, received: Received) -> tuple[str, str, float]:
        """Give the result, the fingerprint of its token and until when that is kept."""
        identity = self._fingerprint("auth result", received.identity)
        return self._vault.seal(received.result, reference), identity, received.until

    async def start(
        self, session: Session, *, attr_handle: str, page_handle: str, now: float, received: Received | None = None
    ) -> bool:
        """Keep a new session, with its auth result if that came along; False if the token was accepted before."""
        return bool(
            await self._redis.script(
                scripts.START,
                session.reference,
                session.purpose,
                now,
                session.language or "",
                self._fingerprint("attr", attr_handle),
                self._fingerprint("page", page_handle),
                *(self._sealed(session.reference, received) if received else ("", "", 0)),
            )
        )

    async def by_attr_handle(self, attr_handle: str) -> Session | None:
        """Give the session for which an auth plugin delivers at this address."""
        return await self._by("attr", attr_handle)

    async def _by(self, index: str, value: str) -> Session | None:
        return self._session(await self._redis.script(scripts.BY_INDEX, index, self._fingerprint(index, value)))

    async def attach_result(self, reference: SessionRef, received: Received) -> Attached:
        """Keep the first auth result of a session, if its token was never accepted before."""
        return Attached(await self._redis.script(scripts.ATTACH_RESULT, reference, *self._sealed(reference, received)))

    async def open_page(self, page_handle: str) -> Session | None:
        """Give the session of a citizen's page to the first browser that opens it; afterwards to none."""
        return self._session(await self._redis.script(scripts.OPEN_PAGE, self._fingerprint("page", page_handle)))

    async def by_page_handle(self, page_handle: str) -> Session | None:
        """Give the session of a citizen's page, also when it was opened before."""
        return await self._by("page", page_handle)

    async def by_reference(self, reference: SessionRef) -> Session | None:
        """Give a session by its reference."""
        return self._session(await self._redis.script(scripts.BY_REFERENCE, reference))

    async def set_language(self, reference: SessionRef, language: str) -> None:
        """Note in which language the citizen sees the page."""
        await self._redis.script(scripts.SET_LANGUAGE, reference, language)

    async def discard(self, reference: SessionRef) -> Session | None:
        """Delete a session that the citizen ends; gives it, or None if a call holds it or it is gone."""
        return self._session(await self._redis.script(scripts.DISCARD, reference))

    async def issue_code(self, reference: SessionRef, code: str, now: float, *, valid_until: float) -> bool:
        """Give a session its code, in place of an earlier one; False if another session has that code.

        A code that has lapsed makes room.
        """
        fingerprint = self._fingerprint("code", code)
        return bool(await self._redis.script(scripts.ISSUE_CODE, reference, fingerprint, now, valid_until))

    async def claim(self, code: str, *, call: CallId, secret: Secret, now: float) -> Session | None:
        """Exchange a valid code for a secret, atomically: of several calls with one code, one gets it.

        A call that has it, and asks again with the same secret since it got no answer, is given it once more.
        """
        fingerprints = self._fingerprint("code", code), self._fingerprint("secret", secret)
        self._in_doubt.discard(call)
        with self._doubt(call):
            row = await self._redis.script(scripts.CLAIM, fingerprints[0], now, call, fingerprints[1])
        return self._session(row)

    async def release(self, call: CallId) -> None:
        """Undo the claim of a call, if it has one, that did not reach an agent: the code counts again.

        Where the server does not answer, the next :meth:`purge` that it answers makes up for it.
        """
        with self._doubt(call):
            await self._redis.script(scripts.RELEASE, call)

    @contextmanager
    def _doubt(self, call: CallId) -> Iterator[None]:
        """Remember the call if the block fails: what the server was sent it may do later, when the call is over."""
        try:
            yield
        except BaseException:
            self._in_doubt.add(call)
            raise

    async def by_secret(self, secret: Secret) -> Session | None:
        """Give the session that a secret was exchanged for."""
        return await self._by("secret", secret)

    async def finish(self, call: CallId) -> Session | None:
        """Delete the session of a call that reached an agent and has ended; gives it as it was."""
        return self._session(await self._redis.script(scripts.FINISH, call))

    async def release_others(self, calls: Collection[CallId]) -> int:
        """Undo the claims of an earlier process but for those of these calls; gives how many."""
        return int(await self._redis.script(scripts.RELEASE_OTHERS, *calls))

    async def keep_purposes(self, purposes: Collection[str]) -> int:
        """Delete the sessions of all other purposes, which the configuration no longer has; gives how many."""
        return int(await self._redis.script(scripts.KEEP_PURPOSES, *purposes))

    async def purge(self, now: float, keep_seconds: float) -> int:
        """Delete sessions older than ``keep_seconds`` that no call holds, or twice as old; gives how many."""
        for call in tuple(self._in_doubt):
            await self._redis.script(scripts.RELEASE, call)
            self._in_doubt.discard(call)
        return int(await self._redis.script(scripts.PURGE, now, now - keep_seconds, now - 2 * keep_seconds))

    # Accounts

    async def add_account(self, account: Account) -> bool:
        """Keep a new account; False if the name is taken."""
        return bool(
            await self._redis.script(
                scripts.ADD_ACCOUNT,
                account.name,
                account.endpoint,
                account.password_hash,
                account.role.value,
                json.dumps(dict(account.queues)),
                secrets.token_hex(INCARNATION_BYTES),
            )
        )

    async def remove_account(self, name: AgentName) -> bool:
        """Delete an account and its logins; False if there is none."""
        return bool(await self._redis.script(scripts.REMOVE_ACCOUNT, name))

    async def accounts(self) -> list[Account]:
        """Give all accounts by name."""
        return [_account(row) for row in sorted(await self._redis.script(scripts.ACCOUNTS))]

    async def account(self, name: AgentName) -> Account | None:
        """Give one account."""
        row = await self._redis.script(scripts.ACCOUNT, name)
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
            await self._redis.script(
                scripts.CHANGE_ACCOUNT,
                name,
                endpoint or "",
                password_hash or "",
                role.value if role else "",
                "" if queues is None else json.dumps(dict(queues)),
                secrets.token_hex(INCARNATION_BYTES),
            )
        )

    async def log_in(self, login: str, name: AgentName, now: float) -> None:
        """Keep that a browser is logged in as an agent."""
        await self._redis.script(scripts.LOG_IN, self._fingerprint("login", login), name, now)

    async def logged_in(self, login: str, now: float, *, idle: float, absolute: float) -> Account | None:
        """Give the account of a login that has not ended, and count this as activity."""
        fingerprint = self._fingerprint("login", login)
        milliseconds = math.ceil(1000 * idle)
        row = await self._redis.script(scripts.LOGGED_IN, fingerprint, now, now - idle, now - absolute, milliseconds)
        return _account(row) if row else None

    async def log_out(self, login: str) -> None:
        """End a login."""
        await self._redis.command("DEL", f"{scripts.PREFIX}:login:{self._fingerprint('login', login)}")

    # History

    async def keep_call(self, record: CallRecord) -> None:
        """Keep a record, in place of an earlier one of the same arrival in the same queue."""
        rest = [
            record.purpose,
            record.verified,
            record.waited,
            record.outcome.value,
            record.agent,
            record.talked,
            record.wrap_up,
        ]
        identity = json.dumps(record.identity)
        await self._redis.script(scripts.KEEP_CALL, record.arrived, f"{identity}\n", json.dumps(rest))

    async def calls(self, since: float, until: float, queue: QueueName | None = None) -> list[CallRecord]:
        """Give the records of those who arrived from ``since`` until just before ``until``, by arrival."""
        found: dict[tuple[CallId, QueueName, float], CallRecord] = {}
        while True:
            page = await self._redis.command(
                "ZRANGEBYSCORE", f"{scripts.PREFIX}:calls", since, f"({until}", "LIMIT", 0, PAGE
            )
            records = [_call(text) for text in page]
            before = len(found)
            found |= {record.identity: record for record in records}
            if len(page) < PAGE or len(found) == before:
                break
            # Once more from the last arrival on, of which there may be others.
            since = records[-1].arrived
        return [record for record in found.values() if queue in (None, record.queue)]

    async def forget_calls(self, before: float) -> int:
        """Delete the records of those who arrived before this; gives how many."""
        return int(await self._redis.command("ZREMRANGEBYSCORE", f"{scripts.PREFIX}:calls", "-inf", f"({before}"))

    # Notes

    async def note(self, notes: Mapping[str, str | None]) -> None:
        """Keep these notes in place of earlier ones of the same names, and delete those that are None.

        It happens whole or not at all.
        """
        self._noted += 1
        words: list[str | float] = [self._redis.fence or "", self._noted]
        for name, text in notes.items():
            words += name, "" if text is None else self._vault.seal_text(text, name)
        await self._redis.script(scripts.NOTE, *words)

    async def notes(self) -> dict[str, str]:
        """Give all notes by name; without those that another master key sealed, or somebody changed."""
        kept: dict[str, str] = await self._redis.command("HGETALL", f"{scripts.PREFIX}:notes")
        notes = {}
        for name, sealed in kept.items():
            try:
                notes[name] = self._vault.unseal_text(sealed, name)
            except UnsealError:
                log.warning("a note cannot be opened: another master key, or changed from outside", note=name)
        return notes


def _account(row: Sequence[str]) -> Account:
    name, endpoint, password_hash, role, queues, _ = row
    return Account(AgentName(name), endpoint, password_hash, Role(role), json.loads(queues))


def _call(text: str) -> CallRecord:
    identity, rest = map(json.loads, text.split("\n"))
    call, queue, arrived = identity
    purpose, verified, waited, outcome, agent, talked, wrap_up = rest
    return CallRecord(call, queue, purpose, verified, arrived, waited, CallOutcome(outcome), agent, talked, wrap_up)
