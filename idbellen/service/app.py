"""The table of contents: builds every part, in order, and runs them until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog

from idbellen.asterisk.switchboard import ReplacedError
from idbellen.calls.desk import Desk
from idbellen.calls.ends import Ends
from idbellen.calls.found import as_claimed
from idbellen.calls.notes import Notes
from idbellen.calls.office import Office
from idbellen.calls.progress import Progress
from idbellen.calls.results import Results
from idbellen.calls.staff import Staff
from idbellen.calls.statistics import Statistics
from idbellen.calls.supervision import Supervision, SupervisionRules
from idbellen.calls.wallboard import Wallboard
from idbellen.clock import SteadyClock
from idbellen.domain.codes import Fingerprints
from idbellen.domain.statistics import Target
from idbellen.ports import StoreError
from idbellen.service.config import Settings, read_master_key, read_secret
from idbellen.service.listening import Listeners, notify_systemd, raise_descriptors, rooms
from idbellen.service.pbx import ami_client, open_pbx
from idbellen.service.rules import (
    StartError,
    TakenOverError,
    accepted_credentials,
    call_rules,
    credentials,
    desk_rules,
    masked,
    opening_hours,
    purpose_view,
    queue_titles,
    staff_rules,
    token_opener,
    web_purposes,
)
from idbellen.service.storage import open_store, wait_for_store
from idbellen.service.telephony import Telephony, ari_clients
from idbellen.service.turns import serve_in_turn
from idbellen.stores.probe import StoreProbe
from idbellen.stores.redis import RedisStore
from idbellen.stores.sqlite import only_process
from idbellen.telemetry import watch_loop
from idbellen.web.addresses import Addresses
from idbellen.web.citizen.page import citizen_app
from idbellen.web.citizen.site import CitizenSite
from idbellen.web.credentials import Credentials, bearer
from idbellen.web.dashboard.page import DashboardSite, dashboard_app
from idbellen.web.issuing import CodeIssuer
from idbellen.web.login.form import PasswordForm
from idbellen.web.login.logins import Logins
from idbellen.web.machines.idcontact import InternalSite, internal_app
from idbellen.web.machines.link_phone import LinkPhoneSite, link_phone_app
from idbellen.web.machines.readiness import tells_readiness
from idbellen.web.machines.session_feedback import FeedbackRules, HttpFeedback
from idbellen.web.messages import Titles
from idbellen.web.wallboard.site import SupervisorSite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from idbellen.asterisk.ami import Ami
    from idbellen.domain.idcontact import TokenOpener
    from idbellen.domain.notes import CallNote
    from idbellen.ports import Clock, SessionStore
    from idbellen.service.config import Supervisors
    from idbellen.service.pbx import Part
    from idbellen.service.storage import Store
    from idbellen.stores.redis_turns import Turns

log = structlog.get_logger()

PURGE_SECONDS = 30.0
DAY_SECONDS = 24 * 3600.0


async def serve(settings: Settings) -> None:
    """Run idbellen until cancelled; a store that cannot be used now is waited for.

    Raises:
        ConfigError: a file that the configuration names cannot be used.
        UnfitStoreError: the store cannot be used, and waiting does not mend it.
        StartError: an address cannot be listened on, or another process took over our Stasis application.

    """
    watch_loop()
    raise_descriptors()
    # The program itself is no garbage: to look through it takes the collector 100 ms, in which nobody is served.
    gc.freeze()
    fingerprints = Fingerprints(read_master_key(settings.sessions.master_key_file))
    # What is wrong with a file is told now, and not when it is this process's turn.
    opener = token_opener(settings)
    credentials(settings)
    await wait_for_store(partial(_serve_with_store, settings, fingerprints, opener))


async def _serve_with_store(
    settings: Settings, fingerprints: Fingerprints, opener: TokenOpener, usable: Callable[[], None]
) -> None:
    async with AsyncExitStack() as stack:
        if isinstance(settings.sessions.store, Path):
            stack.enter_context(only_process(settings.sessions.store))
        store = await stack.enter_async_context(open_store(settings, fingerprints))
        await store.try_to_write()
        usable()
        if isinstance(store, RedisStore):
            await serve_in_turn(settings, store, partial(_serve, settings, fingerprints, opener, store))
        else:
            await _serve(settings, fingerprints, opener, store, None)


async def _serve(
    settings: Settings, fingerprints: Fingerprints, opener: TokenOpener, store: Store, turns: Turns | None
) -> None:
    aris = list(ari_clients(settings, turns.confirm if turns else None))
    ami = ami_client(settings)
    purposes = web_purposes(settings)
    core_credentials = credentials(settings)
    clock = SteadyClock()
    async with AsyncExitStack() as stack:
        forgotten = await store.keep_purposes(settings.purposes.keys())
        if forgotten:
            log.info("sessions whose purpose is no longer configured deleted", sessions=forgotten)
        calls = Statistics(store, clock, ZoneInfo(settings.calls.timezone))
        await calls.load()
        # Also the calls of the last moment are in the history.
        stack.push_async_callback(calls.flush)
        staff = Staff(clock, staff_rules(settings))
        staff.on_wrapped_up(calls.wrapped_up)
        notes = Notes(store)
        earlier = await _earlier(store, notes, staff)
        # Also what the stop itself changed, and what the store would not take until now.
        stack.push_async_callback(notes.flush)
        desk = Desk(clock, staff, desk_rules(settings), calls)
        progress = Progress(desk)
        own = settings.feedback
        feedback = await stack.enter_async_context(
            HttpFeedback(FeedbackRules(frozenset(own.allowed_hosts), own.timeout_seconds), store)
        )
        hours = {queue: opening_hours(settings, queue) for queue in desk.queues.rules}
        ends = Ends(store, feedback)
        stack.push_async_callback(ends.flush)
        office = Office(call_rules(settings), hours, store, desk, progress, feedback, calls, notes, ends, clock)
        trunks = {name: server.trunk for name, server in settings.servers.items()}
        telephony = Telephony(office, store, trunks, lent=settings.agi is not None, pbx=ami)
        earlier = await as_claimed(earlier, office)
        for ari in aris:
            await stack.enter_async_context(ari)
            telephony.add(ari, earlier)
        await telephony.close_strays(earlier)

        issuer = CodeIssuer(store, settings.sessions.code_digits, settings.sessions.code_seconds, clock)
        kept = {tag: purpose.attributes for tag, purpose in purposes.items()}
        results = Results(opener, store, progress, kept, time.time)
        internal = InternalSite(
            url=settings.idcontact.url,
            page_url=settings.citizen.url,
            purposes=purposes,
            default_purpose=settings.idcontact.default_purpose,
            credentials=core_credentials,
            sessions=store,
            issuer=issuer,
            results=results,
            clock=clock,
        )
        citizen = CitizenSite(
            url=settings.citizen.url,
            name=settings.citizen.name,
            begin_url=settings.citizen.begin_url,
            theme_file=settings.citizen.theme_file,
            language=settings.calls.language,
            warn_seconds=settings.citizen.warn_seconds,
            purposes=purposes,
            cookie_key=fingerprints.derive("citizen cookie"),
            sessions=store,
            issuer=issuer,
            results=results,
            progress=progress,
            feedback=feedback,
            clock=clock,
            demo_phone_url=settings.citizen.demo_phone_url,
        )
        dashboard = _dashboard_site(settings, fingerprints, store, desk)
        interface = internal_app(internal)
        probe = StoreProbe(store)
        interface.middlewares.insert(0, tells_readiness(partial(_readiness, probe, telephony)))
        listeners = await stack.enter_async_context(Listeners(settings))
        await listeners.listen(interface, "idcontact")
        await listeners.listen(citizen_app(citizen), "citizen")
        await _open_link_phone(listeners, settings, office, store)
        pbx = await _open_pbx(stack, settings, office, ami)
        supervisors = _supervisor_site(settings, store, desk, calls, telephony)
        await listeners.listen(dashboard_app(dashboard, supervisors), "dashboard")

        running: list[Part] = [
            *telephony.parts,
            *pbx,
            ("history", calls.run),
            ("notes", notes.run),
            ("ends of calls", ends.run),
            ("store", probe.run),
            ("clock", clock.run),
            ("purge", partial(_purge, store, settings.sessions.keep_seconds, clock)),
            ("purge of the history", partial(_purge_history, store, calls, settings.supervisors)),
            ("ready", partial(_tell_when_ready, telephony)),
        ]
        await _run(running, settings.asterisk.app if settings.asterisk else "")


def _readiness(probe: StoreProbe, telephony: Telephony) -> tuple[bool, str]:
    """Give whether calls can be taken, and what is wrong, in one line; without the store nobody can be verified."""
    ready, fault = telephony.readiness()
    unwritable = probe.why_not()
    return (False, "; ".join(filter(None, (unwritable, fault)))) if unwritable else (ready, fault)


async def _run(running: Sequence[Part], app: str) -> None:
    """Run all parts until cancelled, or until one of them fails."""
    try:
        async with asyncio.TaskGroup() as parts:
            for name, run in running:
                parts.create_task(run(), name=name)
    except ExceptionGroup as faults:
        if faults.subgroup(ReplacedError) is None:
            raise
        raise TakenOverError(
            f"another process took over the Stasis application {app!r}: "
            "stop it, or give one of both another [asterisk] app"
        ) from None


async def _earlier(store: Store, notes: Notes, staff: Staff) -> Sequence[CallNote]:
    """Let the agents be as an earlier process left them, and give the calls that it had in hand."""
    earlier = await notes.load()
    staff.on_agent(notes.keep_agent)
    talking = {party.agent for note in earlier.calls for party in note.parties if party.agent}
    staff.restore(earlier.agents, {account.name: account for account in await store.accounts()}, talking)
    released = await store.release_others({note.call for note in earlier.calls})
    if released:
        log.info("sessions of an earlier process may be used again", sessions=released)
    return earlier.calls


async def _open_link_phone(listeners: Listeners, settings: Settings, office: Office, store: Store) -> None:
    """Listen for any other telephone platform, if that is configured."""
    own = settings.link_phone
    if own:
        site = LinkPhoneSite(
            credentials=accepted_credentials(own, "all"),
            sessions=store,
            audit=store.audit,
            purposes={tag: purpose.admit_unverified for tag, purpose in settings.purposes.items()},
            digits=settings.sessions.code_digits,
            tries=settings.calls.tries,
            keep=settings.sessions.keep_seconds,
            clock=office.clock,
        )
        await listeners.listen(link_phone_app(site), "link_phone")


async def _open_pbx(stack: AsyncExitStack, settings: Settings, office: Office, ami: Ami | None) -> list[Part]:
    try:
        return await open_pbx(stack, settings, office, ami, rooms(settings).get("agi", 0))
    except OSError as fault:
        raise StartError(f"[agi] listen: cannot be listened on: {fault.strerror or fault}") from None


def _dashboard_site(settings: Settings, fingerprints: Fingerprints, store: Store, desk: Desk) -> DashboardSite:
    own = settings.dashboard
    return DashboardSite(
        url=own.url,
        language=own.language,
        purposes={tag: purpose_view(settings, purpose, own.language) for tag, purpose in settings.purposes.items()},
        queues=queue_titles(settings, own.language),
        methods={name: texts[own.language] for name, texts in settings.methods.items()},
        pause_reasons={word: texts[own.language] for word, texts in own.pause_reasons.items()},
        masked=frozenset(masked(settings)),
        logins=Logins(
            store, fingerprints.derive("agent cookie"), own.url, own.idle_seconds, own.absolute_seconds, desk.clock
        ),
        way_in=PasswordForm(own.language, Addresses(settings.proxies.trusted)),
        sessions=store,
        audit=store.audit,
        staff=desk.staff,
        desk=desk,
        clock=desk.clock,
    )


def _supervisor_site(
    settings: Settings, store: Store, desk: Desk, calls: Statistics, monitor: Telephony
) -> SupervisorSite:
    own, language = settings.supervisors, settings.dashboard.language
    purposes = {tag: purpose.title[language] for tag, purpose in settings.purposes.items()}
    reasons = {word: texts[language] for word, texts in settings.dashboard.pause_reasons.items()}
    targets = {
        name: Target(rules.answered_within, own.service_level_percent / 100, own.short_abandon_seconds)
        for name, rules in desk.queues.rules.items()
    }
    return SupervisorSite(
        language=language,
        timezone=ZoneInfo(settings.calls.timezone),
        titles=Titles(purposes, queue_titles(settings, language)),
        pause_reasons=reasons,
        targets=targets,
        percent=round(own.service_level_percent),
        history_days=own.history_days,
        wallboard=Wallboard(desk, calls, targets),
        supervision=Supervision(
            desk, store.audit, SupervisionRules(reasons, own.monitor, own.announce_monitor), monitor
        ),
        history=store,
        audit=store.audit,
        clock=desk.clock,
        credentials=Credentials([bearer(read_secret(own.api_token_file))]) if own.api_token_file else None,
    )


async def _purge(store: SessionStore, keep_seconds: float, clock: Clock) -> None:
    while True:
        try:
            deleted = await store.purge(clock(), keep_seconds)
            if deleted:
                log.info("old sessions deleted", sessions=deleted)
        except StoreError as fault:
            log.error("old sessions could not be deleted", reason=str(fault))  # noqa: TRY400
        await asyncio.sleep(PURGE_SECONDS)


async def _purge_history(store: Store, calls: Statistics, own: Supervisors) -> None:
    while True:
        try:
            records = await calls.purge(own.history_days)
            if records:
                log.info("old records of calls deleted", calls=records)
            entries = await store.audit.forget(time.time() - own.audit_days * DAY_SECONDS)
            if entries:
                log.info("old entries of the audit trail deleted", entries=entries)
        except StoreError as fault:
            log.error("the history or the audit trail could not be shortened", reason=str(fault))  # noqa: TRY400
        await asyncio.sleep(DAY_SECONDS)


async def _tell_when_ready(telephony: Telephony) -> None:
    await telephony.ready()
    notify_systemd("READY=1")
