"""``idbellen check``: says what is wrong with an installation, a line for each fault."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from joserfc.jwk import RSAKey

from idbellen.asterisk.agi import who_listens
from idbellen.asterisk.ami import AmiError
from idbellen.asterisk.ari import AriError, GoneError
from idbellen.domain.codes import Fingerprints
from idbellen.domain.languages import LANGUAGES
from idbellen.domain.prompts import Prompt, media
from idbellen.domain.queueing import Plain
from idbellen.keys import IMPORTED_KEY
from idbellen.ports import StoreError
from idbellen.service.config import ConfigError, Settings, load, read_master_key, read_secret, secret_files
from idbellen.service.pbx import ami_client
from idbellen.service.privileges import how_to_hide, other_readers
from idbellen.service.rules import StartError, load_key_file
from idbellen.service.storage import open_store
from idbellen.service.telephony import ari_clients
from idbellen.stores.redis_url import RedisUrl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator

    from idbellen.asterisk.ami import AmiTrial
    from idbellen.asterisk.ari import Ari
    from idbellen.domain.idcontact import Key

NEEDED_MODULES = (
    "app_stasis.so",
    "chan_pjsip.so",
    "res_ari_applications.so",
    "res_ari_bridges.so",
    "res_ari_channels.so",
    "res_ari_endpoints.so",
    "res_ari_events.so",
    "res_ari_playbacks.so",
    "res_musiconhold.so",
    "res_pjsip_dtmf_info.so",
    "res_stasis_answer.so",
    "res_stasis_playback.so",
    "res_stasis_snoop.so",
)
# What falls short without these, most of it for some carriers only.
NEEDED_BY_CARRIERS = {
    "res_pjsip_dlg_options.so": "OPTIONS in a call get no answer, and some session border controllers hang up",
    "res_pjsip_empty_info.so": "an empty INFO in a call gets no answer, and some PBXs hang up after half a minute",
    "res_pjsip_messaging.so": "MESSAGE in a call gets no answer",
    "res_pjsip_outbound_registration.so": "no trunk registers",
    "res_pjsip_refer.so": "REFER gets no answer",
    "res_srtp.so": "calls with encrypted audio are refused (488)",
}
# Only where a PBX keeps its own queues.
NEEDED_FOR_QUEUES = ("app_queue.so", "res_agi.so")
# Without these two ARI answers 404 to what is asked here.
ABOUT_ASTERISK, ABOUT_SOUNDS = "res_ari_asterisk.so", "res_ari_sounds.so"
OLDEST_ASTERISK = 20
# Of the two files for a PBX that keeps its queues (dialplan/), which are called as their contexts.
QUEUE_CONTEXT, FREEPBX_CONTEXT = "idbellen-queue", "idbellen-freepbx"
OWN_CONTEXTS = (QUEUE_CONTEXT, FREEPBX_CONTEXT)
FREEPBX_AGI_PORT = "4573"
# What is there where FreePBX is, and the folders whose files its "fwconsole chown", which updates of it run, gives to
# the web server and opens for its group or for all (amp_conf/.../Console/Chown.class.php of its framework).
FREEPBX_MARK = Path("/etc/freepbx.conf")
FREEPBX_FOLDERS = tuple(
    map(
        Path,
        (
            "/etc/asterisk",
            "/home/asterisk",
            "/var/lib/asterisk",
            "/var/lib/php/session",
            "/var/log/asterisk",
            "/var/spool/asterisk",
            "/var/www",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``fault`` is empty when it is in order; ``detail`` says more of what is."""

    what: str
    fault: str = ""
    detail: str = ""


async def check(path: Path) -> AsyncIterator[Finding]:
    """Look at everything in turn; what cannot be looked at because of an earlier fault is left out.

    It does not fail: a fault that nobody thought of is a line too.
    """
    try:
        settings = load(path)
    except ConfigError as fault:
        for line in str(fault).splitlines():
            yield Finding("configuration", line)
        return
    except Exception as fault:  # noqa: BLE001 - told, as all below
        yield _unforeseen("configuration", fault)
        return
    yield Finding("configuration")
    looks = (
        ("keys", _each(check_keys(settings))),
        ("credentials", _each(_check_credentials(path, settings))),
        ("session feedback", _each(_check_feedback(settings))),
        ("login methods", _each(_check_methods(settings))),
        ("store", _check_store(settings)),
        ("ARI", _check_asterisk(settings)),
        ("FastAGI", _check_agi(settings)),
        ("AMI", _check_ami(settings)),
    )
    for what, look in looks:
        try:
            async for finding in look:
                yield finding
        except Exception as fault:  # noqa: BLE001
            yield _unforeseen(what, fault)


async def _each(findings: Iterable[Finding]) -> AsyncIterator[Finding]:
    for finding in findings:
        yield finding


def _unforeseen(what: str, fault: Exception) -> Finding:
    said = f"{type(fault).__name__}: {fault}"
    return Finding(
        what, f"cannot be looked at ({said}): mend what that names, or else report it as a fault of idbellen"
    )


def check_keys(settings: Settings) -> Iterator[Finding]:
    """Look at the master key and at each key for auth results; tells the latter's kind and thumbprint (RFC 7638)."""
    own = settings.idcontact
    thumbprints: dict[str, Path] = {}
    for path in (*own.decryption_key_files, *own.verification_key_files):
        ours = path in own.decryption_key_files
        what = f"{'decryption' if ours else 'verification'} key {path.name}"
        try:
            key = load_key_file(path)
        except (ConfigError, StartError) as fault:
            yield Finding(what, str(fault))
            continue
        first = thumbprints.setdefault(key.thumbprint(), path)
        if ours and not key.is_private:
            yield Finding(what, f"{path}: expected a private key")
        elif not ours and key.is_private:
            yield Finding(what, f"{path}: a private key; an auth plugin keeps that, and gives us its public half")
        elif first != path:
            yield Finding(what, f"{path}: the same key as {first}")
        else:
            taken_over = ", taken over from another plugin" if ours and path.name == IMPORTED_KEY else ""
            yield Finding(what, detail=describe_key(key) + taken_over)
    yield from _left_out(settings)
    try:
        read_master_key(settings.sessions.master_key_file)
    except ConfigError as fault:
        yield Finding("master key", str(fault))
    else:
        yield Finding("master key")
    yield from _hidden((settings.sessions.master_key_file, *own.decryption_key_files))


def describe_key(key: Key) -> str:
    """Give the kind of a key, and its thumbprint (RFC 7638)."""
    size = f"RSA {key.raw_value.key_size}" if isinstance(key, RSAKey) else f"EC {key.curve_name}"
    return f"{size}, thumbprint {key.thumbprint()}"


def _left_out(settings: Settings) -> Iterator[Finding]:
    """Look for a key that was taken over and that the configuration does not name."""
    named = {path.resolve() for path in settings.idcontact.decryption_key_files}
    folders = {path.parent for path in (*settings.idcontact.decryption_key_files, settings.sessions.master_key_file)}
    for path in sorted(folder / IMPORTED_KEY for folder in folders):
        with contextlib.suppress(OSError):
            if path.exists() and path.resolve() not in named:
                fault = f"{path} was taken over and is not used: add it to [idcontact] decryption_key_files"
                yield Finding(f"decryption key {path.name}", fault)


def _hidden(secrets: Iterable[Path]) -> Iterator[Finding]:
    """Look whether nobody but root, we and our own group can read these files; tells only what is wrong."""
    for path in secrets:
        try:
            readers = other_readers(path)
            if readers:
                yield Finding("secret files", f"{path}: {readers}; {how_to_hide(path)}")
        except (OSError, ValueError):
            # Told where it is read.
            continue


def _check_credentials(config: Path, settings: Settings) -> Iterator[Finding]:
    own = settings.idcontact
    files = [own.basic_password_file, own.bearer_token_file, settings.supervisors.api_token_file]
    files.append(settings.sessions.store_password_file)
    if settings.link_phone:
        files += [settings.link_phone.basic_password_file, settings.link_phone.bearer_token_file]
    for path in (path for path in files if path):
        try:
            read_secret(path)
        except ConfigError as fault:
            yield Finding("credentials", str(fault))
    keys = {settings.sessions.master_key_file, *own.decryption_key_files}
    secrets = dict.fromkeys(path for path in secret_files(settings) if path not in keys)
    store = settings.sessions.store
    if isinstance(store, RedisUrl) and store.password:
        secrets[config] = None
    yield from _hidden(secrets)
    yield from _out_of_reach(sorted({*keys, *secrets}))


def _out_of_reach(secrets: Iterable[Path]) -> Iterator[Finding]:
    """Look whether FreePBX opens these files for others now and then; tells only what is wrong."""
    if not FREEPBX_MARK.exists():
        return
    for path in secrets:
        places = {path, path.resolve()}
        folder = next((f for f in FREEPBX_FOLDERS if any(place.is_relative_to(f) for place in places)), None)
        if folder:
            fault = f"{path}: 'fwconsole chown' of FreePBX opens what lies in {folder}: keep it in /etc/idbellen"
            yield Finding("secret files", fault)


def _check_feedback(settings: Settings) -> Iterator[Finding]:
    hosts = settings.feedback.allowed_hosts
    told = (
        f"goes to {', '.join(hosts)}"
        if hosts
        else (
            "never sent, since [feedback] allowed_hosts is empty: ID Contact demands it where an auth result has a "
            "session_url; the log then names the host"
        )
    )
    yield Finding("session feedback", detail=told)


def _check_methods(settings: Settings) -> Iterator[Finding]:
    if settings.methods:
        names = ", ".join(settings.methods)
        yield Finding("login methods", detail=f"agents see one when the auth result says so (iss): {names}")


async def _check_store(settings: Settings) -> AsyncIterator[Finding]:
    try:
        fingerprints = Fingerprints(read_master_key(settings.sessions.master_key_file))
    except ConfigError:
        # Told among the keys.
        return
    try:
        async with open_store(settings, fingerprints) as opened:
            await opened.try_to_write()
            accounts = await opened.accounts()
    except (ConfigError, StoreError) as fault:
        yield Finding("store", str(fault))
        return
    yield Finding("store")
    yield Finding("agents", "" if accounts else "no agent yet: idbellen agent add NAME --endpoint PJSIP/...")


async def _check_asterisk(settings: Settings) -> AsyncIterator[Finding]:
    try:
        aris = list(ari_clients(settings))
    except ConfigError as fault:
        yield Finding("ARI password", str(fault))
        return
    for ari in aris:
        async for finding in _check_one_asterisk(settings, ari):
            # Which of several is meant.
            yield replace(finding, what=f"{finding.what} of {ari.server}") if len(aris) > 1 else finding


async def _check_one_asterisk(settings: Settings, ari: Ari) -> AsyncIterator[Finding]:
    async with ari:
        try:
            info = await ari.request("GET", "/asterisk/info", only="system")
            modules = {module["name"] for module in await ari.request("GET", "/asterisk/modules")}
        except GoneError as fault:
            yield Finding(
                "ARI", f"{fault}; is {ABOUT_ASTERISK} loaded in Asterisk, and does [asterisk] url end in /ari?"
            )
            return
        except AriError as fault:
            yield Finding("ARI", str(fault))
            return
        version = info["system"]["version"]
        major = version.split(".")[0].rpartition("/")[2]
        old = major.isdecimal() and int(major) < OLDEST_ASTERISK
        yield Finding("ARI", f"Asterisk {version} is older than {OLDEST_ASTERISK}" if old else "")
        needed = (*NEEDED_MODULES, ABOUT_SOUNDS, *(NEEDED_FOR_QUEUES if settings.agi else ()))
        missing = [name for name in needed if name not in modules]
        yield Finding("modules", f"not loaded in Asterisk: {', '.join(missing)}" if missing else "")
        lacking = [f"{name} ({why})" for name, why in NEEDED_BY_CARRIERS.items() if name not in modules]
        advice = f"not loaded in Asterisk: {', '.join(lacking)}; add them to modules.conf"
        yield Finding("modules for carriers", advice if lacking else "")
        yield await _answered("prompts", _missing_prompts(ari, settings))
        yield await _answered("dialplan", _dialplan_fault(ari, settings))
        for name, server in settings.servers.items():
            if name != ari.server:
                yield await _answered(f"trunk to {name}", _trunk_fault(ari, server.trunk))


async def _answered(what: str, look: Awaitable[str]) -> Finding:
    """Give what a look at Asterisk found, whatever it answers: the next look may do better."""
    try:
        return Finding(what, await look)
    except AriError as fault:
        return Finding(what, str(fault))
    except Exception as fault:  # noqa: BLE001
        return _unforeseen(what, fault)


async def _missing_prompts(ari: Ari, settings: Settings) -> str:
    language = settings.calls.language
    try:
        sounds = await ari.request("GET", "/sounds", lang=language)
    except GoneError:
        # There is none in this language.
        sounds = []
    present = {f"sound:{sound['id']}" for sound in sounds}
    missing = [prompt.value for prompt in Prompt if media(prompt) not in present]
    if not missing:
        return ""
    return (
        f"missing in language {language}: {', '.join(missing)}; run prompts/make-prompts, put its result into "
        "Asterisk's sounds, and type 'module reload sounds' on its console"
    )


async def _trunk_fault(ari: Ari, trunk: str) -> str:
    try:
        endpoint = await ari.request("GET", f"/endpoints/PJSIP/{trunk}")
    except GoneError:
        return f"there is no PJSIP endpoint {trunk!r}"
    return f"the PJSIP endpoint {trunk!r} is offline" if endpoint["state"] == "offline" else ""


async def _dialplan_fault(ari: Ari, settings: Settings) -> str:
    app = await ari.request("GET", "/asterisk/variable", variable="IDBELLEN_APP")
    if settings.agi and not app["value"]:
        # Calls come by FastAGI alone.
        return ""
    own = settings.asterisk.app if settings.asterisk else ""
    if app["value"] != own:
        return f"IDBELLEN_APP is {app['value']!r} in Asterisk, but [asterisk] app is {own!r}"
    plain = await ari.request("GET", "/asterisk/variable", variable="IDBELLEN_PLAIN")
    for key in ("unverified", "without_code"):
        if getattr(settings.calls, key) in ("plain", Plain()) and not plain["value"]:
            return f'IDBELLEN_PLAIN is empty in Asterisk, but [calls] {key} is "plain": nobody would be helped'
    return ""


async def _check_agi(settings: Settings) -> AsyncIterator[Finding]:
    if settings.agi is None:
        return
    address = settings.agi.listen
    host, _, port = address.rpartition(":")
    match await who_listens(host, int(port)):
        case "idbellen":
            yield Finding("FastAGI")
        case "nobody":
            yield Finding("FastAGI", detail=f"nobody listens on {address}: idbellen does while it runs")
        case _:
            freepbx = " (FreePBX's own FastAGI server has that port)" if port == FREEPBX_AGI_PORT else ""
            yield Finding(
                "FastAGI",
                f"something else than idbellen answers on {address}{freepbx}: give [agi] another listen, and the "
                "dialplan's IDBELLEN_AGI the same",
            )


async def _check_ami(settings: Settings) -> AsyncIterator[Finding]:
    try:
        ami = ami_client(settings)
        if ami is None:
            return
        async with ami.trying_out() as trial:
            yield Finding("AMI")
            missing = ", ".join(sorted(trial.missing))
            yield Finding("queues", missing and f"[pbx.queues]: the PBX has no such queue: {missing}")
            if settings.agi:
                faults = [fault async for fault in _pbx_dialplan_faults(trial, settings, settings.agi.listen)]
                for fault in faults or [""]:
                    yield Finding("PBX's dialplan", fault)
    except (AmiError, ConfigError) as fault:
        yield Finding("AMI", str(fault))


async def _pbx_dialplan_faults(trial: AmiTrial, settings: Settings, listen: str) -> AsyncIterator[str]:
    """Say what the dialplan of a PBX with queues of its own lacks."""
    own = [name for name in OWN_CONTEXTS if await trial.has_context(name)]
    if not own:
        files = " or ".join(f"dialplan/{name}.conf" for name in OWN_CONTEXTS)
        yield f"there is no context {' or '.join(OWN_CONTEXTS)}: include {files}"
    # Where a queue's members are rung, and whose state counts.
    patterns = (settings.pbx.member_interface, settings.pbx.state_interface)
    named = dict.fromkeys(found[1] for pattern in patterns if (found := re.search(r"@([^/]+)", pattern)))
    for context in named if settings.pbx.queues else ():
        if not await trial.has_context(context):
            yield f"there is no context {context}, which [pbx] names"
    agi = await trial.variable("IDBELLEN_AGI")
    if agi.rpartition(":")[2] != listen.rpartition(":")[2]:
        yield f"IDBELLEN_AGI is {agi!r}, but [agi] listen is {listen!r}"
    language = await trial.variable("IDBELLEN_LANGUAGE")
    if language not in LANGUAGES:
        yield f"IDBELLEN_LANGUAGE is {language!r}: expected {' or '.join(LANGUAGES)}"
    if QUEUE_CONTEXT in own:
        queue = await trial.variable("IDBELLEN_QUEUE")
        if not queue or (settings.pbx.queues and queue not in settings.pbx.queues):
            yield f"IDBELLEN_QUEUE is {queue!r}: expected a queue that [pbx.queues] names"
