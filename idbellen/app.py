"""The table of contents: builds every part, in order, and runs them until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from idbellen.asterisk.ari import Ari
from idbellen.asterisk.switchboard import ReplacedError, Switchboard
from idbellen.calls.desk import Desk
from idbellen.calls.flow import CallRules, Office
from idbellen.calls.supervise import supervise
from idbellen.config import Purpose, Settings, read_master_key, read_pem, read_secret
from idbellen.domain.codes import Fingerprints
from idbellen.domain.digits import EntryRules
from idbellen.domain.idcontact import TokenOpener, load_key
from idbellen.stores.sqlite import SqliteStore, StoreError, open_store
from idbellen.web.citizen import CitizenSite, citizen_app
from idbellen.web.dashboard import DashboardSite, PurposeView, dashboard_app
from idbellen.web.idcontact_api import InternalSite, internal_app
from idbellen.web.pages import LANGUAGES

if TYPE_CHECKING:
    from idbellen.ports import SessionStore
    from idbellen.web.pages import Language

log = structlog.get_logger()

PURGE_SECONDS = 30.0
SITE_STOP_SECONDS = 2.0


class StartError(Exception):
    """idbellen cannot start; the message says what to do."""


async def serve(settings: Settings) -> None:
    """Run idbellen until cancelled.

    Raises:
        ConfigError: a file that the configuration names cannot be used.
        StoreError: the store cannot be used.
        StartError: an address cannot be listened on, or another process took over our Stasis application.

    """
    fingerprints = Fingerprints(read_master_key(settings.sessions.master_key_file))
    opener = token_opener(settings)
    password = read_secret(settings.asterisk.password_file)
    clock = time.time
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings.sessions.store, fingerprints))
        released = await store.release_all()
        if released:
            log.info("sessions of an earlier process may be used again", sessions=released)

        desk = Desk(clock, grace=settings.dashboard.grace_seconds)
        office = Office(call_rules(settings), store, desk, clock)
        where = settings.asterisk
        ari = await stack.enter_async_context(Ari(where.url, where.app, where.user, password))
        switchboard = Switchboard(
            ari, partial(supervise, office=office), music_class=settings.calls.music_class
        )

        internal = InternalSite(
            settings.idcontact.url, settings.citizen.url, settings.purposes.keys(), store, opener, clock
        )
        citizen = _citizen_site(settings, fingerprints, store, opener)
        dashboard = _dashboard_site(settings, fingerprints, store, opener, desk)
        await _listen(stack, internal_app(internal), settings.idcontact.listen, "idcontact")
        await _listen(stack, citizen_app(citizen), settings.citizen.listen, "citizen")
        await _listen(stack, dashboard_app(dashboard), settings.dashboard.listen, "dashboard")

        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(switchboard.run(), name="switchboard")
                parts.create_task(_purge(store, settings.sessions.keep_seconds), name="purge")
                parts.create_task(_tell_when_ready(switchboard), name="ready")
        except ExceptionGroup as faults:
            replaced = faults.subgroup(ReplacedError)
            if replaced is None:
                raise
            raise StartError(
                f"another process took over the Stasis application {where.app!r}: "
                "stop it, or give one of both another [asterisk] app"
            ) from None


def call_rules(settings: Settings) -> CallRules:
    """Give the rules of calls that the configuration asks for."""
    calls = settings.calls
    entry = EntryRules(
        length=settings.sessions.code_digits,
        first_digit=calls.first_digit_seconds,
        between_digits=calls.between_digits_seconds,
        overall=calls.overall_seconds,
    )
    return CallRules(
        entry=entry,
        tries=calls.tries,
        unverified=calls.unverified,
        ring=calls.ring_seconds,
        rest=calls.rest_seconds,
    )


def token_opener(settings: Settings) -> TokenOpener:
    """Load the keys for auth results.

    Raises:
        ConfigError: a key file cannot be read.
        StartError: it holds something else.

    """
    own = settings.idcontact
    keys = []
    for path in (own.decryption_key_file, *own.verification_key_files):
        try:
            keys.append(load_key(read_pem(path)))
        except ValueError as fault:
            raise StartError(f"{path}: {fault}") from None
    if not keys[0].is_private:
        raise StartError(f"{own.decryption_key_file}: expected a private key")
    return TokenOpener(keys[0], keys[1:], own.leeway_seconds)


def _citizen_site(
    settings: Settings, fingerprints: Fingerprints, store: SqliteStore, opener: TokenOpener
) -> CitizenSite:
    titles = {
        language: {tag: purpose.title.in_language(language) for tag, purpose in settings.purposes.items()}
        for language in LANGUAGES
    }
    return CitizenSite(
        url=settings.citizen.url,
        phone_number=settings.calls.phone_number,
        language=settings.calls.language,
        code_digits=settings.sessions.code_digits,
        code_seconds=settings.sessions.code_seconds,
        titles=titles,
        cookie_key=fingerprints.derive("citizen cookie"),
        sessions=store,
        opener=opener,
        clock=time.time,
        demo_phone_url=settings.citizen.demo_phone_url,
    )


def _dashboard_site(
    settings: Settings, fingerprints: Fingerprints, store: SqliteStore, opener: TokenOpener, desk: Desk
) -> DashboardSite:
    own = settings.dashboard
    return DashboardSite(
        url=own.url,
        language=own.language,
        purposes={tag: _view(settings, purpose, own.language) for tag, purpose in settings.purposes.items()},
        cookie_key=fingerprints.derive("agent cookie"),
        idle_seconds=own.idle_seconds,
        absolute_seconds=own.absolute_seconds,
        accounts=store,
        sessions=store,
        opener=opener,
        desk=desk,
        clock=time.time,
    )


def _view(settings: Settings, purpose: Purpose, language: Language) -> PurposeView:
    labels = {
        name: settings.attributes[name].in_language(language) if name in settings.attributes else name
        for name in purpose.attributes
    }
    return PurposeView(purpose.title.in_language(language), labels)


async def _listen(stack: AsyncExitStack, app: web.Application, address: str, table: str) -> None:
    # No access log: the paths hold handles.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SITE_STOP_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host, int(port)).start()
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise StartError(f"[{table}] listen: {address} cannot be listened on: {reason}") from None


async def _purge(store: SessionStore, keep_seconds: float) -> None:
    while True:
        try:
            deleted = await store.purge(time.time(), keep_seconds)
            if deleted:
                log.info("old sessions deleted", sessions=deleted)
        except StoreError as fault:
            log.error("old sessions could not be deleted", reason=str(fault))  # noqa: TRY400
        await asyncio.sleep(PURGE_SECONDS)


async def _tell_when_ready(switchboard: Switchboard) -> None:
    await switchboard.ready.wait()
    notify_systemd("READY=1")


def notify_systemd(state: str) -> None:
    """Tell systemd, if it started us with ``Type=notify``, how we are (``man sd_notify``)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.connect(address)
            notify.sendall(state.encode())
        except OSError as fault:
            log.warning("systemd could not be told", state=state, reason=fault.strerror)
