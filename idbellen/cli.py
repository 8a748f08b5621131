"""The ``idbellen`` command."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from idbellen import __version__, keys
from idbellen.app import StartError, notify_systemd, serve
from idbellen.check import Finding, check, check_keys
from idbellen.config import ConfigError, Settings, load, read_master_key
from idbellen.domain.codes import Fingerprints
from idbellen.ports import Account
from idbellen.stores.sqlite import StoreError, open_store
from idbellen.telemetry import configure_log
from idbellen.web.passwords import LEAST_PASSWORD_LENGTH, hash_password

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

DEFAULT_CONFIG = Path("/etc/idbellen/idbellen.toml")
log = structlog.get_logger()


class UsageError(Exception):
    """The command cannot do what was asked; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code: 0, 1 for a fault, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ConfigError, StoreError, StartError, UsageError, OSError) as fault:
        for line in str(fault).splitlines():
            sys.stderr.write(f"idbellen: {line}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="idbellen", description="Verified calls with ID Contact and Asterisk.")
    parser.add_argument("--version", action="version", version=f"idbellen {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: object, text: str, *, config: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if config:
            command.add_argument(
                "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s"
            )
        return command

    add("serve", _serve, "Run the service.")
    add("check", _check, "Say what is wrong with configuration, keys, store, ARI, modules, prompts and dialplan.")
    demo = add("demo", _demo, "Run all of it on this machine, with demo stand-ins and phones.", config=False)
    phone = demo.add_mutually_exclusive_group()
    phone.add_argument("--call", metavar="CODE", help="let the demo phone of a running demo call with this code")
    phone.add_argument(
        "--hangup", dest="call", action="store_const", const="", help="let the demo phone of a running demo hang up"
    )

    agent = add("agent", _agent_list, "Add, list and remove agents.", config=False)
    actions = agent.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("add", _agent_add, "Add an agent; asks for a password, or reads it from standard input."),
        ("list", _agent_list, "List the agents."),
        ("remove", _agent_remove, "Remove an agent; an open dashboard of theirs ends within a minute."),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(run=run)
        action.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
        if name != "list":
            action.add_argument("name")
        if name == "add":
            action.add_argument("--endpoint", required=True, help="the phone as Asterisk names it: PJSIP/agent1")

    text = "Make and check keys."
    key = commands.add_parser("keys", help=text, description=text)
    key_actions = key.add_subparsers(required=True, metavar="ACTION")
    text = "Make the master key and the key pair for auth results."
    made = key_actions.add_parser("generate", help=text, description=text)
    made.set_defaults(run=_keys_generate)
    made.add_argument("directory", type=Path)
    made.add_argument("--kind", choices=("rsa", "ec"), default="rsa", help="of the key pair; default: %(default)s")
    text = "Look at all keys that the configuration names; tells their thumbprints, to compare with the other side's."
    checked = key_actions.add_parser("check", help=text, description=text)
    checked.set_defaults(run=_keys_check)
    checked.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    return parser


def _serve(options: argparse.Namespace) -> int:
    settings = load(options.config)
    configure_log(settings.log.level, settings.log.format)
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

    return _run(report())


def _show(finding: Finding) -> bool:
    """Print a line for one thing that was looked at; gives whether something is wrong with it."""
    said = finding.fault or finding.detail
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
    if not re.fullmatch(r"[A-Za-z]+/[A-Za-z0-9_.@:-]{1,80}", options.endpoint):
        raise UsageError("agent add: expected --endpoint TECHNOLOGY/NAME, such as PJSIP/agent1")
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise UsageError("agent add: the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < LEAST_PASSWORD_LENGTH:
        raise UsageError(f"agent add: a password has at least {LEAST_PASSWORD_LENGTH} characters")
    account = Account(options.name, options.endpoint, hash_password(password))

    async def add() -> int:
        async with open_store(settings.sessions.store, _fingerprints(settings)) as store:
            if not await store.add_account(account):
                raise UsageError(f"agent add: there is an agent {account.name!r} already; remove it first")
        return 0

    return _run(add())


def _agent_list(options: argparse.Namespace) -> int:
    settings = load(options.config)

    async def show() -> int:
        async with open_store(settings.sessions.store, _fingerprints(settings)) as store:
            for account in await store.accounts():
                sys.stdout.write(f"{account.name}\t{account.endpoint}\n")
        return 0

    return _run(show())


def _agent_remove(options: argparse.Namespace) -> int:
    settings = load(options.config)

    async def remove() -> int:
        async with open_store(settings.sessions.store, _fingerprints(settings)) as store:
            if not await store.remove_account(options.name):
                raise UsageError(f"agent remove: there is no agent {options.name!r}")
        return 0

    return _run(remove())


def _fingerprints(settings: Settings) -> Fingerprints:
    return Fingerprints(read_master_key(settings.sessions.master_key_file))


def _keys_generate(options: argparse.Namespace) -> int:
    started = time.monotonic()
    made = keys.generate(options.directory, options.kind)
    for path in made:
        sys.stdout.write(f"{path}\n")
    sys.stdout.write(
        f"Made in {time.monotonic() - started:.1f} s."
        f" Give {made[-1].name} to the auth plugins; keep the others secret.\n"
    )
    return 0


def _keys_check(options: argparse.Namespace) -> int:
    faults = [_show(finding) for finding in check_keys(load(options.config))]
    return 1 if any(faults) else 0
