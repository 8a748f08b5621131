"""The ``idbellen`` command."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import errno
import getpass
import io
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog

from idbellen import __version__, keys
from idbellen.asterisk.ari import AriError
from idbellen.asterisk.callers_left import send_away
from idbellen.domain.agents import joined
from idbellen.domain.codes import Fingerprints
from idbellen.domain.ids import AgentName, QueueName
from idbellen.domain.statistics import day_bounds
from idbellen.ports import Account, Role, StoreError
from idbellen.service.app import serve
from idbellen.service.check import Finding, check, check_keys, describe_key
from idbellen.service.config import DEFAULT_QUEUE, ConfigError, Settings, load, read_master_key, read_pem, read_secret
from idbellen.service.listening import notify_systemd
from idbellen.service.privileges import PrivilegeError, become, service_user
from idbellen.service.rules import StartError, TakenOverError
from idbellen.service.storage import open_store
from idbellen.service.telephony import ari_clients
from idbellen.service.turns import nobody_serves
from idbellen.telemetry import configure_log
from idbellen.web.login.passwords import LEAST_PASSWORD_LENGTH, hash_password

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from idbellen.service.privileges import User
    from idbellen.service.storage import Store

DEFAULT_CONFIG = Path("/etc/idbellen/idbellen.toml")
# What systemd does not start again (systemd/idbellen.service).
TAKEN_OVER = 3
DENIED = os.strerror(errno.EACCES)
log = structlog.get_logger()


class UsageError(Exception):
    """The command cannot do what was asked; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code: 0, 1 for a fault, 2 for wrong usage."""
    _open_outputs()
    options = _parser().parse_args(arguments)
    options.operator = _operator()
    options.user = None
    try:
        if os.geteuid() == 0 and "config" in options:
            options.user = _step_down(options.config)
        code = int(options.run(options))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough, as head does.
        _let_go_of_output()
        return 128 + signal.SIGPIPE
    except (ConfigError, StoreError, StartError, UsageError, PrivilegeError, OSError) as fault:
        for line in str(fault).splitlines():
            as_whom = f" for user {options.user}" if options.user and line.endswith(DENIED) else ""
            sys.stderr.write(f"idbellen: {line}{as_whom}\n")
        _let_go_of_output()
        return TAKEN_OVER if isinstance(fault, TakenOverError) else 1
    except KeyboardInterrupt:
        return 130
    return code


def _open_outputs() -> None:
    """See to it that there is something to write to, and that it takes every character."""
    for name in ("stdout", "stderr"):
        output = getattr(sys, name)
        if output is None:
            # Closed by whoever started us, who wants to know the exit code only.
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - to the end of the process
        elif isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """Write nothing more that is still to be written: at the end it would fail once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _step_down(config: Path) -> User | None:
    """As root, become the service's user, if there is one; gives whom."""
    try:
        store = load(config).sessions.store
    except Exception:  # noqa: BLE001 - it is told when the command reads it, with the service's eyes
        store = None
    user = service_user(config, store.parent if isinstance(store, Path) else None)
    if user:
        become(user)
    return user


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="idbellen", description="Verified calls with ID Contact and Asterisk.")
    parser.add_argument("--version", action="version", version=f"idbellen {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_action(commands, "serve", _serve, "Run the service.")
    text = "Say what is wrong with configuration, keys, store, ARI, modules, prompts and dialplan."
    _add_action(commands, "check", _check, text)
    text = "While no process serves: send callers who wait for one to the plain queue. Callers who talk, talk on."
    _add_action(commands, "send-away", _send_away, text)
    text = "Run all of it on this machine, with demo stand-ins and phones."
    demo = commands.add_parser("demo", help=text, description=text)
    demo.set_defaults(run=_demo)
    phone = demo.add_mutually_exclusive_group()
    phone.add_argument("--call", metavar="CODE", help="let the demo phone of a running demo call with this code")
    phone.add_argument(
        "--hangup", dest="call", action="store_const", const="", help="let the demo phone of a running demo hang up"
    )

    _add_agent_commands(commands)
    _add_audit_commands(commands)
    _add_keys_commands(commands)
    return parser


def _add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: object, text: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=text)
    action.set_defaults(run=run)
    action.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    return action


def _add_agent_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "Add, change, list and remove agents."
    actions = commands.add_parser("agent", help=text, description=text).add_subparsers(required=True, metavar="ACTION")
    roles = [role.value for role in Role]
    phone = "the phone as Asterisk names it: PJSIP/agent1; may be repeated, and all of them ring"
    queue = "a queue that they serve, and their penalty there (0, first choice, by default); may be repeated"

    added = _add_action(
        actions, "add", _agent_add, "Add an agent; asks for a password, or reads it from standard input."
    )
    added.add_argument("name")
    added.add_argument("--endpoint", required=True, action="append", help=phone)
    added.add_argument("--role", choices=roles, default=Role.AGENT.value, help="default: %(default)s")
    added.add_argument("--queue", action="append", metavar="NAME[:PENALTY]", help=f"{queue}; without it: all queues")

    changed = _add_action(actions, "set", _agent_set, "Change what is given of an agent.")
    changed.add_argument("name")
    changed.add_argument("--endpoint", action="append", help=f"{phone}; in place of all earlier")
    changed.add_argument("--role", choices=roles)
    queues = changed.add_mutually_exclusive_group()
    queues.add_argument("--queue", action="append", metavar="NAME[:PENALTY]", help=f"{queue}; in place of all earlier")
    queues.add_argument("--all-queues", action="store_true", help="they serve every queue, without penalty")
    changed.add_argument(
        "--password",
        action="store_true",
        help="ask for another password, or read it from standard input; this logs the agent out",
    )

    _add_action(actions, "list", _agent_list, "List the agents: name, phone, role, and queues with penalties.")
    removed = _add_action(
        actions, "remove", _agent_remove, "Remove an agent; an open dashboard of theirs ends within a minute."
    )
    removed.add_argument("name")


def _add_audit_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "Read the audit trail: who did what."
    actions = commands.add_parser("audit", help=text, description=text).add_subparsers(required=True, metavar="ACTION")
    _add_action(actions, "verify", _audit_verify, "Say whether anything in the audit trail was changed.")
    shown = _add_action(actions, "show", _audit_show, "Show the entries, one a line.")
    shown.add_argument("--since", metavar="DATE", help="from this day on, such as 2026-03-29")


def _add_keys_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "Make and check keys."
    key = commands.add_parser("keys", help=text, description=text)
    key_actions = key.add_subparsers(required=True, metavar="ACTION")
    text = "Make the master key and the key pair for auth results."
    made = key_actions.add_parser("generate", help=text, description=text)
    made.set_defaults(run=_keys_generate)
    made.add_argument("directory", type=Path)
    made.add_argument("--kind", choices=("rsa", "ec"), default="rsa", help="of the key pair; default: %(default)s")
    text = "Take over the key of the plugin before, for which the auth plugins encrypt already: nothing changes there."
    taken = key_actions.add_parser("import", help=text, description=text)
    taken.set_defaults(run=_keys_import)
    taken.add_argument(
        "file",
        type=Path,
        help="its private key (PEM, JWK), or its configuration (TOML, YAML) with decryption_privkey",
    )
    taken.add_argument("directory", type=Path, help="where the keys are")
    taken.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="the passphrase of an encrypted key; without it that is asked for, or read from standard input",
    )
    text = "Look at all keys that the configuration names; tells their thumbprints, to compare with the other side's."
    _add_action(key_actions, "check", _keys_check, text)


def _send_away(options: argparse.Namespace) -> int:
    return _run(_send_callers_away(load(options.config)))


async def _send_callers_away(settings: Settings) -> int:
    faults = []
    sent = 0
    async with nobody_serves(settings, _fingerprints(settings)):
        for ari in ari_clients(settings):
            try:
                async with ari:
                    sent += await send_away(ari)
            except AriError as fault:
                # On the others they still wait.
                faults.append(str(fault))
    sys.stdout.write(f"callers sent to the plain queue: {sent}\n")
    if faults:
        raise UsageError("\n".join(faults))
    return 0


def _serve(options: argparse.Namespace) -> int:
    settings = load(options.config)
    configure_log(settings.log.level, settings.log.format)
    if options.user:
        log.info("started as root, serves as the service's user", user=str(options.user))
    return _run(_serve_until_told(settings))


async def _serve_until_told(settings: Settings) -> int:
    serving = asyncio.current_task()
    assert serving is not None  # noqa: S101
    told = False

    def stop() -> None:
        nonlocal told
        told = True
        notify_systemd("STOPPING=1")
        serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await serve(settings)
    except asyncio.CancelledError:
        if not told:
            raise
    return 0


def _run(work: Coroutine[None, None, int]) -> int:
    return asyncio.run(work)


def _check(options: argparse.Namespace) -> int:
    async def report() -> int:
        faults = [_show(finding) async for finding in check(options.config)]
        return 1 if any(faults) else 0

    if options.user:
        _show(Finding("user", detail=f"looks as {options.user}, as which the service runs"))
    return _run(report())


def _show(finding: Finding) -> bool:
    """Print a line for one thing that was looked at; gives whether something is wrong with it."""
    said = " ".join((finding.fault or finding.detail).splitlines())
    sys.stdout.write(f"{'FAULT' if finding.fault else 'ok   '} {finding.what}{': ' if said else ''}{said}\n")
    return bool(finding.fault)


def _demo(options: argparse.Namespace) -> int:
    # The demo is the one part that production never loads.
    from idbellen.demo.stage import StageError, call, run  # noqa: PLC0415

    try:
        return _run(run() if options.call is None else call(options.call))
    except StageError as fault:
        raise UsageError(str(fault)) from None


def _agent_add(options: argparse.Namespace) -> int:
    settings = load(options.config)
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", options.name):
        raise UsageError("agent add: the name may hold letters, digits, dots, dashes, underscores and @ only")
    endpoint = _endpoint("agent add", options.endpoint)
    queues = _queues("agent add", options.queue or (), settings)
    role = Role(options.role)
    account = Account(AgentName(options.name), endpoint, hash_password(_ask_password("agent add")), role, queues)

    async def add() -> int:
        async with _store(settings) as store:
            if not await store.add_account(account):
                raise UsageError(f"agent add: there is an agent {account.name!r} already; remove it first")
            await store.audit.record(
                options.operator,
                "agent added",
                account.name,
                endpoint=endpoint,
                role=role.value,
                queues=_queues_text(queues),
            )
        return 0

    return _run(add())


def _agent_set(options: argparse.Namespace) -> int:
    settings = load(options.config)
    endpoint = None if options.endpoint is None else _endpoint("agent set", options.endpoint)
    role = None if options.role is None else Role(options.role)
    queues = _queues("agent set", options.queue or (), settings) if options.queue or options.all_queues else None
    if endpoint is None and role is None and queues is None and not options.password:
        raise UsageError("agent set: give what to change: --endpoint, --role, --queue, --all-queues or --password")
    password_hash = hash_password(_ask_password("agent set")) if options.password else None
    detail = {
        "endpoint": endpoint,
        "role": role and role.value,
        "queues": None if queues is None else _queues_text(queues),
        "password": "changed" if password_hash else None,
    }

    async def change() -> int:
        async with _store(settings) as store:
            if not await store.change_account(
                options.name, endpoint=endpoint, role=role, queues=queues, password_hash=password_hash
            ):
                raise UsageError(f"agent set: there is no agent {options.name!r}")
            told = {name: value for name, value in detail.items() if value}
            await store.audit.record(options.operator, "agent changed", options.name, **told)
        return 0

    return _run(change())


def _endpoint(command: str, texts: Sequence[str]) -> str:
    if not all(re.fullmatch(r"[A-Za-z]+/[A-Za-z0-9_.@:-]{1,80}", text) for text in texts):
        raise UsageError(f"{command}: expected --endpoint TECHNOLOGY/NAME, such as PJSIP/agent1")
    return joined(texts)


def _queues(command: str, texts: Sequence[str], settings: Settings) -> dict[QueueName, int]:
    known = {DEFAULT_QUEUE, *settings.queues, *(purpose.queue for purpose in settings.purposes.values())}
    queues: dict[QueueName, int] = {}
    for text in texts:
        found = re.fullmatch(r"([A-Za-z0-9_.-]{1,64})(?::([0-9]{1,3}))?", text)
        if not found:
            raise UsageError(f"{command}: expected --queue NAME or NAME:PENALTY, such as moves:1, not {text!r}")
        name = QueueName(found[1])
        if name not in known:
            raise UsageError(f"{command}: there is no queue {name!r}; there are: {', '.join(sorted(known))}")
        if name in queues:
            raise UsageError(f"{command}: queue {name!r} is given twice")
        queues[name] = int(found[2] or 0)
    return queues


def _queues_text(queues: Mapping[QueueName, int]) -> str:
    return " ".join(f"{name}:{penalty}" for name, penalty in queues.items()) or "all queues"


def _ask_password(command: str) -> str:
    if sys.stdin.isatty():
        password = _typed("Password: ")
        if _typed("Again: ") != password:
            raise UsageError(f"{command}: the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < LEAST_PASSWORD_LENGTH:
        raise UsageError(f"{command}: a password has at least {LEAST_PASSWORD_LENGTH} characters")
    return password


def _typed(prompt: str) -> str:
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise UsageError("nothing was typed") from None


def _agent_list(options: argparse.Namespace) -> int:
    settings = load(options.config)

    async def show() -> int:
        async with _store(settings) as store:
            for account in await store.accounts():
                sys.stdout.write(
                    f"{account.name}\t{account.endpoint}\t{account.role.value}\t{_queues_text(account.queues)}\n"
                )
        return 0

    return _run(show())


def _agent_remove(options: argparse.Namespace) -> int:
    settings = load(options.config)

    async def remove() -> int:
        async with _store(settings) as store:
            if not await store.remove_account(options.name):
                raise UsageError(f"agent remove: there is no agent {options.name!r}")
            await store.audit.record(options.operator, "agent removed", options.name)
        return 0

    return _run(remove())


def _audit_verify(options: argparse.Namespace) -> int:
    settings = load(options.config)

    async def verify() -> int:
        async with _store(settings) as store:
            chain, fault = await store.audit.chain()
        if fault:
            return int(_show(Finding("audit trail", f"entry {fault.sequence}: {fault.reason}")))
        if not chain.entries:
            said = "no entries"
        else:
            first, last = chain.entries[0].sequence, chain.entries[-1]
            # Noting the last seal elsewhere also shows when the whole file is put back to an earlier state.
            said = f"entries {first} to {last.sequence} are as they were written; the last seal is {last.seal}"
        _show(Finding("audit trail", detail=said))
        return 0

    return _run(verify())


def _audit_show(options: argparse.Namespace) -> int:
    settings = load(options.config)
    timezone = ZoneInfo(settings.calls.timezone)
    since = 0.0
    if options.since is not None:
        try:
            since, _ = day_bounds(dt.date.fromisoformat(options.since), timezone)
        except (ValueError, OverflowError):
            raise UsageError("audit show: expected --since YEAR-MONTH-DAY, such as 2026-03-29") from None

    async def show() -> int:
        async with _store(settings) as store:
            entries = await store.audit.entries(since, float("inf"))
        for entry in entries:
            at = dt.datetime.fromtimestamp(entry.at, timezone).isoformat(timespec="seconds")
            detail = json.dumps(dict(entry.detail), ensure_ascii=False)
            cells = (str(entry.sequence), at, entry.actor, entry.action, entry.subject, detail)
            sys.stdout.write("\t".join(_printable(cell) for cell in cells) + "\n")
        return 0

    return _run(show())


def _printable(text: str) -> str:
    """Let what somebody typed into a form not move the cursor of whoever reads it."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _operator() -> str:
    """Name who runs this command, for the audit trail."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        # A container's user often has no name.
        name = str(os.getuid())
    return f"shell:{name}"


def _store(settings: Settings) -> AbstractAsyncContextManager[Store]:
    return open_store(settings, _fingerprints(settings))


def _fingerprints(settings: Settings) -> Fingerprints:
    return Fingerprints(read_master_key(settings.sessions.master_key_file))


def _keys_generate(options: argparse.Namespace) -> int:
    started = time.monotonic()
    group, readers = _readers(options.directory)
    made = keys.generate(options.directory, options.kind, group=group)
    for path in made:
        sys.stdout.write(f"{path}\n")
    sys.stdout.write(
        f"Made in {time.monotonic() - started:.1f} s."
        f" Give {made[-1].name} to the auth plugins; keep the others secret{readers}.\n"
    )
    return 0


def _readers(directory: Path) -> tuple[int | None, str]:
    """Give the group that may read what is made in a folder, besides the owner, and how that is told."""
    user = service_user(directory, directory) if os.geteuid() == 0 else None
    return (user.gid, f": user {user} can read them, with its group") if user else (None, "")


def _keys_import(options: argparse.Namespace) -> int:
    def passphrase() -> bytes:
        if options.passphrase_file:
            return read_secret(options.passphrase_file).encode()
        if sys.stdin.isatty():
            return _typed("Passphrase of the key: ").encode()
        return sys.stdin.readline().rstrip("\n").encode()

    try:
        key = keys.read_private_key(read_pem(options.file), passphrase)
    except ValueError as fault:
        raise UsageError(f"keys import: {options.file}: {fault}") from None
    group, readers = _readers(options.directory)
    made = keys.take_over(options.directory, key, group=group)
    for path in made:
        sys.stdout.write(f"{path}\n")
    own = options.directory / keys.DECRYPTION_KEY
    files = [str(path.absolute()) for path in (own, made[0]) if path == made[0] or path.exists()]
    sys.stdout.write(
        f"Taken over: {describe_key(key)}. Keep the first file secret{readers}; the second is what the auth plugins"
        " encrypt for already.\n"
        "Let the configuration name it, beside all others that are there, and start the service again:\n"
        f"[idcontact]\ndecryption_key_files = {json.dumps(files)}\n"
    )
    return 0


def _keys_check(options: argparse.Namespace) -> int:
    faults = [_show(finding) for finding in check_keys(load(options.config))]
    return 1 if any(faults) else 0
