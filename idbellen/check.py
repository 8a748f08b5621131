"""``idbellen check``: says what is wrong with an installation, a line for each fault."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from joserfc.jwk import RSAKey

from idbellen.asterisk.ami import AmiError
from idbellen.asterisk.ari import AriError, GoneError
from idbellen.config import ConfigError, Settings, load, read_master_key, read_secret
from idbellen.domain.codes import Fingerprints
from idbellen.domain.prompts import Prompt, media
from idbellen.pbx import ami_client
from idbellen.ports import StoreError
from idbellen.rules import StartError, load_key_file
from idbellen.storage import open_store
from idbellen.telephony import ari_clients

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from idbellen.asterisk.ari import Ari

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
# Only where a PBX keeps its own queues.
NEEDED_FOR_QUEUES = ("app_queue.so", "res_agi.so")
OLDEST_ASTERISK = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``fault`` is empty when it is in order; ``detail`` says more of what is."""

    what: str
    fault: str = ""
    detail: str = ""


async def check(path: Path) -> AsyncIterator[Finding]:
    """Look at everything in turn; what cannot be looked at because of an earlier fault is left out."""
    try:
        settings = load(path)
    except ConfigError as fault:
        for line in str(fault).splitlines():
            yield Finding("configuration", line)
        return
    yield Finding("configuration")
    for finding in check_keys(settings):
        yield finding
    for finding in _check_credentials(settings):
        yield finding
    async for finding in _check_store(settings):
        yield finding
    async for finding in _check_asterisk(settings):
        yield finding
    if settings.ami:
        yield await _check_ami(settings)


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
        size = f"RSA {key.raw_value.key_size}" if isinstance(key, RSAKey) else f"EC {key.curve_name}"
        detail = f"{size}, thumbprint {key.thumbprint()}"
        if ours and not key.is_private:
            yield Finding(what, f"{path}: expected a private key")
        elif not ours and key.is_private:
            yield Finding(what, f"{path}: a private key; an auth plugin keeps that, and gives us its public half")
        elif first != path:
            yield Finding(what, f"{path}: the same key as {first}")
        else:
            yield Finding(what, detail=detail)
    try:
        read_master_key(settings.sessions.master_key_file)
    except ConfigError as fault:
        yield Finding("master key", str(fault))
    else:
        yield Finding("master key")
    for secret in (settings.sessions.master_key_file, *own.decryption_key_files):
        if secret.exists() and secret.stat().st_mode & 0o077:
            yield Finding("secret files", f"{secret}: readable for others; chmod 600 {secret}")


def _check_credentials(settings: Settings) -> Iterator[Finding]:
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


async def _check_store(settings: Settings) -> AsyncIterator[Finding]:
    try:
        fingerprints = Fingerprints(read_master_key(settings.sessions.master_key_file))
    except ConfigError:
        # Told among the keys.
        return
    store = settings.sessions.store
    if isinstance(store, Path) and not store.exists() and not os.access(store.parent, os.W_OK):
        yield Finding("store", f"store {store}: the folder is not there, or not writable for this user")
        return
    try:
        async with open_store(settings, fingerprints) as opened:
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
        except AriError as fault:
            yield Finding("ARI", str(fault))
            return
        version = info["system"]["version"]
        major = version.split(".")[0].rpartition("/")[2]
        old = major.isdecimal() and int(major) < OLDEST_ASTERISK
        yield Finding("ARI", f"Asterisk {version} is older than {OLDEST_ASTERISK}" if old else "")
        needed = (*NEEDED_MODULES, *(NEEDED_FOR_QUEUES if settings.agi else ()))
        missing = [name for name in needed if name not in modules]
        yield Finding("modules", f"not loaded in Asterisk: {', '.join(missing)}" if missing else "")
        yield Finding("prompts", await _missing_prompts(ari, settings))
        yield Finding("dialplan", await _dialplan_fault(ari, settings))
        for name, server in settings.asterisk.servers.items():
            if name != ari.server:
                yield Finding(f"trunk to {name}", await _trunk_fault(ari, server.trunk))


async def _missing_prompts(ari: Ari, settings: Settings) -> str:
    language = settings.calls.language
    sounds = await ari.request("GET", "/sounds", lang=language)
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
    if app["value"] != settings.asterisk.app:
        return f"IDBELLEN_APP is {app['value']!r} in Asterisk, but [asterisk] app is {settings.asterisk.app!r}"
    plain = await ari.request("GET", "/asterisk/variable", variable="IDBELLEN_PLAIN")
    if settings.calls.unverified == "plain" and not plain["value"]:
        return 'IDBELLEN_PLAIN is empty in Asterisk, but [calls] unverified is "plain": nobody would be helped'
    return ""


async def _check_ami(settings: Settings) -> Finding:
    try:
        ami = ami_client(settings)
        if ami:
            await ami.try_out()
    except (AmiError, ConfigError) as fault:
        return Finding("AMI", str(fault))
    return Finding("AMI")
