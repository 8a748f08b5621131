"""``make run``: everything on this machine. A private Asterisk, the real idbellen, stand-ins around it, phones.

What stands in for others: the municipality with ID Contact's core (:mod:`idbellen.demo.core`), two authentication
plugins (:mod:`idbellen.demo.auth`), the citizen's and the agent's phone (:mod:`idbellen.demo.phones`). idbellen itself
runs as a process of its own, as an operator runs it.

What it keeps lies in ``.run/demo`` of the checkout, or where ``IDBELLEN_DEMO_HOME`` says.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from idbellen.demo.auth import auth_app
from idbellen.demo.backstage import PATH as BACKSTAGE
from idbellen.demo.configuration import PHONE_NUMBER, PLUGINS, PURPOSES, configuration
from idbellen.demo.core import CoreSettings, core_app
from idbellen.demo.pbx import CHECKOUT, Pbx, PbxError, PbxSettings, find_build
from idbellen.demo.phones import AgentPhone, CitizenPhone, PhoneError
from idbellen.demo.ports import PHONE_RTP_PORTS, RTP_PORTS, Ports, PortsError, must_be_free, ports_from_environment
from idbellen.demo.remote import CALL, HANG_UP, phone_handler
from idbellen.domain.codes import Fingerprints
from idbellen.domain.ids import AgentName
from idbellen.ports import Account, Role
from idbellen.service.config import Settings, load, read_master_key
from idbellen.service.storage import open_store
from idbellen.web.login.passwords import hash_password

HOME = Path(os.environ.get("IDBELLEN_DEMO_HOME") or CHECKOUT / ".run" / "demo").absolute()
PROMPTS = CHECKOUT / ".run" / "prompts"


@dataclass(frozen=True, slots=True)
class Worker:
    """Somebody with an account of the demo and a phone of its own that answers by itself."""

    name: str
    phone: str
    port: str
    role: Role = Role.AGENT


AGENT = Worker("demo", "agent1", "agent phone")
COLLEAGUE = Worker("collega", "agent2", "colleague's phone")
SUPERVISOR = Worker("leiding", "supervisor1", "supervisor's phone", Role.SUPERVISOR)
WORKERS = (AGENT, COLLEAGUE, SUPERVISOR)
READY_SECONDS = 15.0
STOP_SECONDS = 10.0


class StageError(Exception):
    """The demo cannot start or go on; the message says what to do."""


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def run() -> int:
    """Run the demo until Ctrl-C.

    Raises:
        StageError: it cannot start.

    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with AsyncExitStack() as stack:
            idbellen = await _set_up(stack, ports_from_environment())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({stopped, idbellen}, return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                raise StageError(f"idbellen has ended by itself: see {HOME / 'idbellen.log'}")
            _say("\nStopping ...")
    except (PbxError, PhoneError, PortsError) as fault:
        raise StageError(str(fault)) from None
    _say("Everything that the demo started has stopped.")
    return 0


async def _set_up(stack: AsyncExitStack, ports: Ports) -> asyncio.Task[int]:
    must_be_free(ports)
    if not (PROMPTS / "nl").is_dir():
        raise StageError("no prompts yet: run 'make setup' first")
    HOME.mkdir(parents=True, exist_ok=True)
    HOME.chmod(0o700)

    build = find_build()
    _say(f"{build.version()}: starting ...")
    pbx = Pbx(_pbx_settings(ports), build)
    stack.push_async_callback(pbx.stop)
    await pbx.start()

    _say("Stand-ins for municipality and authentication: starting ...")
    citizen_phone = CitizenPhone(
        HOME / "citizen-phone",
        pbx=f"127.0.0.1:{ports.sip}",
        sip_port=ports.sip + 14,
        control_port=ports.named["citizen phone control"],
        rtp_ports=PHONE_RTP_PORTS,
    )
    stack.push_async_callback(citizen_phone.hangup)
    await _start_stand_ins(stack, ports, citizen_phone)

    _say("idbellen: starting ...")
    ari_password = HOME / "ari-password"
    ari_password.touch(mode=0o600)
    ari_password.write_text(pbx.settings.ari_password)
    config = HOME / "idbellen.toml"
    config.write_text(configuration(ports))
    password = await _add_accounts(load(config))
    idbellen = await _start_idbellen(stack, config)

    _say("The phones of those who work there: registering ...")
    for worker in WORKERS:
        phone = AgentPhone(
            HOME / f"{worker.phone}-phone",
            name=worker.phone,
            password=pbx.settings.agent_password(worker.phone),
            registrar=f"127.0.0.1:{ports.sip}",
            sip_port=ports.phones[worker.port],
            control_port=ports.named[f"{worker.port} control"],
            rtp_ports=PHONE_RTP_PORTS,
        )
        stack.push_async_callback(phone.stop)
        await phone.start()

    _say(
        f"""
idbellen runs.

  1. The municipality   {ports.url("municipality")}/
     Choose a subject, how to call and how to log in, log in as one of the made-up citizens, and you get a number
     and a code.
  2. The dashboard      {ports.url("dashboard")}/
     Log in as {AGENT.name} with password {password}, and press "Beschikbaar".
     In other browsers, same password: {COLLEAGUE.name}, for transfers, and {SUPERVISOR.name}, for the wallboard.
  3. Call               press "Bel met de demotelefoon" under your code, or type: make call CODE=...
     The demo phone hangs up when you press "Hang op", or type: make hangup
     With a SIP phone on this machine, call sip:{PHONE_NUMBER}@127.0.0.1:{ports.sip} and key the code in.
  4. Behind the scenes  {" and ".join(f"{ports.url(plugin.port)}{BACKSTAGE}" for plugin in PLUGINS)}
     What became of each login. Results that are to come late are delivered there.

The log is {HOME / "idbellen.log"}. Ctrl-C stops everything."""
    )
    return idbellen


async def _start_stand_ins(stack: AsyncExitStack, ports: Ports, phone: CitizenPhone) -> None:
    settings = CoreSettings(
        public_url=ports.url("municipality"),
        plugin_url=ports.url("ID Contact interface"),
        methods=tuple(plugin.login_method(ports) for plugin in PLUGINS),
        purposes=PURPOSES,
        demo_phone=True,
    )
    municipality = core_app(settings)
    municipality.router.add_post("/phone", phone_handler(phone, PHONE_NUMBER, ports.url("citizen page")))
    await _listen(stack, municipality, ports.named["municipality"])
    for plugin in PLUGINS:
        await _listen(stack, auth_app(plugin.auth_settings(HOME, ports)), ports.named[plugin.port])


def _pbx_settings(ports: Ports) -> PbxSettings:
    return PbxSettings(
        directory=HOME / "asterisk",
        prompts=PROMPTS,
        ari_port=ports.named["ARI"],
        sip_port=ports.sip,
        rtp_start=RTP_PORTS[0],
        rtp_end=RTP_PORTS[1],
        agents=tuple(worker.phone for worker in WORKERS),
    )


async def _add_accounts(settings: Settings) -> str:
    kept = HOME / "agent-password"
    if not kept.is_file():
        kept.touch(mode=0o600)
        kept.write_text(secrets.token_urlsafe(9))
    password = kept.read_text()
    fingerprints = Fingerprints(read_master_key(settings.sessions.master_key_file))
    async with open_store(settings, fingerprints) as store:
        for worker in WORKERS:
            account = Account(AgentName(worker.name), f"PJSIP/{worker.phone}", hash_password(password), worker.role)
            await store.add_account(account)
    return password


async def _start_idbellen(stack: AsyncExitStack, config: Path) -> asyncio.Task[int]:
    """Start ``idbellen serve`` and wait until it says, as it says it to systemd, that it is ready."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="idbellen-"))
    notify = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)))
    notify.bind(f"{folder}/notify")
    notify.setblocking(False)  # noqa: FBT003 - the name of the argument is not taken
    log_path = HOME / "idbellen.log"
    with log_path.open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "idbellen",
            "serve",
            "--config",
            str(config),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env=os.environ | {"NOTIFY_SOCKET": f"{folder}/notify"},
        )
    stack.push_async_callback(_end, process)
    ended = asyncio.create_task(process.wait())
    ready = asyncio.create_task(asyncio.get_running_loop().sock_recv(notify, 64))
    done, _ = await asyncio.wait({ended, ready}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    if ready not in done:
        ready.cancel()
        last = log_path.read_text().splitlines()[-1:]
        raise StageError(f"idbellen did not start: {''.join(last) or 'no reason given'}; see {log_path}")
    return ended


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _listen(stack: AsyncExitStack, app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", port).start()


async def call(code: str) -> int:
    """Let the demo phone of a running demo call with a code, or without a code hang up.

    Raises:
        StageError: no demo runs here, or its phone cannot call now.

    """
    try:
        url = f"{ports_from_environment().url('municipality')}/phone"
        form = {"do": CALL, "code": code} if code else {"do": HANG_UP}
        async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
            text = await answer.text()
            if not answer.ok:
                raise StageError(text)
    except PortsError as fault:
        raise StageError(str(fault)) from None
    except aiohttp.ClientError:
        raise StageError(f"no demo answers at {url}: type 'make run' in another terminal first") from None
    sys.stdout.write(text)
    return 0
