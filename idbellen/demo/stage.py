"""``make run``: everything on this machine. A private Asterisk, the real idbellen, stand-ins around it, phones.

What stands in for others: the municipality with ID Contact's core (:mod:`idbellen.demo.core`), the
authentication plugin (:mod:`idbellen.demo.auth`), the citizen's and the agent's phone
(:mod:`idbellen.demo.phones`). idbellen itself runs as a process of its own, as an operator runs it.

What it keeps lies in ``.run/demo`` of the checkout, or where ``IDBELLEN_DEMO_HOME`` says.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from idbellen import keys
from idbellen.config import Settings, load, read_master_key
from idbellen.demo.auth import AuthSettings, auth_app
from idbellen.demo.core import CoreSettings, Purpose, core_app
from idbellen.demo.pbx import CHECKOUT, Pbx, PbxError, PbxSettings, find_build
from idbellen.demo.phones import AgentPhone, CitizenPhone, PhoneError
from idbellen.demo.ports import Ports, PortsError, must_be_free, ports_from_environment
from idbellen.domain.codes import Fingerprints
from idbellen.ports import Account
from idbellen.stores.sqlite import open_store
from idbellen.web.passwords import hash_password

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

HOME = Path(os.environ.get("IDBELLEN_DEMO_HOME") or CHECKOUT / ".run" / "demo").absolute()
PROMPTS = CHECKOUT / ".run" / "prompts"
PHONE_NUMBER = "+31201234567"
AGENT = "demo"
AGENT_PHONE = "agent1"
RTP_PORTS = (17000, 17399)
PHONE_RTP_PORTS = (17400, 17499)
READY_SECONDS = 15.0
STOP_SECONDS = 10.0

PURPOSES = (
    Purpose("report_move", "Verhuizing doorgeven", "Report a move", ("fullname", "bsn", "birthdate", "address")),
    Purpose("request_permit", "Parkeervergunning aanvragen", "Request a parking permit", ("fullname", "address")),
    Purpose("benefits", "Vraag over uw uitkering", "Question about your benefit", ("fullname", "bsn", "birthdate")),
)
LABELS = {
    "fullname": ("Naam", "Name"),
    "bsn": ("BSN", "BSN"),
    "birthdate": ("Geboortedatum", "Date of birth"),
    "address": ("Adres", "Address"),
}


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
    encryption_key, signing_key = _make_keys()
    citizen_phone = CitizenPhone(
        HOME / "citizen-phone",
        pbx=f"127.0.0.1:{ports.sip}",
        sip_port=ports.sip + 14,
        control_port=ports.named["citizen phone control"],
        rtp_ports=PHONE_RTP_PORTS,
    )
    stack.push_async_callback(citizen_phone.hangup)
    municipality = core_app(
        CoreSettings(
            plugin_url=ports.url("ID Contact interface"), auth_url=ports.url("authentication"), purposes=PURPOSES
        )
    )
    municipality.router.add_post("/phone", _phone_handler(citizen_phone, ports.url("citizen page")))
    await _listen(stack, municipality, ports.named["municipality"])
    authentication = auth_app(
        AuthSettings(
            public_url=ports.url("authentication"), signing_key=signing_key, encryption_key=encryption_key
        )
    )
    await _listen(stack, authentication, ports.named["authentication"])

    _say("idbellen: starting ...")
    (HOME / "ari-password").write_text(pbx.settings.ari_password)
    config = HOME / "idbellen.toml"
    config.write_text(_configuration(ports))
    password = await _add_agent(load(config))
    idbellen = await _start_idbellen(stack, config)

    _say("The agent's phone: registering ...")
    agent_phone = AgentPhone(
        HOME / "agent-phone",
        name=AGENT_PHONE,
        password=pbx.settings.agent_password(AGENT_PHONE),
        registrar=f"127.0.0.1:{ports.sip}",
        sip_port=ports.sip + 10,
        control_port=ports.named["agent phone control"],
        rtp_ports=PHONE_RTP_PORTS,
    )
    stack.push_async_callback(agent_phone.stop)
    await agent_phone.start()

    _say(
        f"""
idbellen runs.

  1. The municipality   {ports.url("municipality")}/
     Choose a subject, log in as one of the made-up citizens, and you get a number and a code.
  2. The dashboard      {ports.url("dashboard")}/
     Log in as {AGENT} with password {password}, and press "Beschikbaar".
  3. Call               press "Bel met de demotelefoon" under your code, or type: make call CODE=...
     The demo phone hangs up when you press "Hang op", or type: make hangup
     With a SIP phone on this machine, call sip:{PHONE_NUMBER}@127.0.0.1:{ports.sip} and key the code in.

The log is {HOME / "idbellen.log"}. Ctrl-C stops everything."""
    )
    return idbellen


def _pbx_settings(ports: Ports) -> PbxSettings:
    return PbxSettings(
        directory=HOME / "asterisk",
        prompts=PROMPTS,
        ari_port=ports.named["ARI"],
        sip_port=ports.sip,
        rtp_start=RTP_PORTS[0],
        rtp_end=RTP_PORTS[1],
        agents=(AGENT_PHONE,),
    )


def _make_keys() -> tuple[str, str]:
    """Make our keys and the auth plugin's, once; gives our public key and its private key."""
    for name in ("keys", "auth-keys"):
        folder = HOME / name
        if not (folder / "decryption-key.pem").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            keys.generate(folder)
    return (HOME / "keys/encryption-key.pub.pem").read_text(), (HOME / "auth-keys/decryption-key.pem").read_text()


def _configuration(ports: Ports) -> str:
    lines = [
        "# Made by 'make run'. Every key is explained in idbellen.example.toml.",
        "[asterisk]",
        f'url = "{ports.url("ARI")}/ari"',
        'password_file = "ari-password"',
        "[calls]",
        f'phone_number = "{PHONE_NUMBER}"',
        # The demo's Asterisk has no plain queue to send callers to.
        'unverified = "goodbye"',
        "[sessions]",
        'store = "idbellen.db"',
        'master_key_file = "keys/master-key"',
        "[idcontact]",
        f'listen = "127.0.0.1:{ports.named["ID Contact interface"]}"',
        f'url = "{ports.url("ID Contact interface")}"',
        'decryption_key_file = "keys/decryption-key.pem"',
        'verification_key_files = ["auth-keys/encryption-key.pub.pem"]',
        "[citizen]",
        f'listen = "127.0.0.1:{ports.named["citizen page"]}"',
        f'url = "{ports.url("citizen page")}"',
        f'demo_phone_url = "{ports.url("municipality")}/phone"',
        "[dashboard]",
        f'listen = "127.0.0.1:{ports.named["dashboard"]}"',
        f'url = "{ports.url("dashboard")}"',
    ]
    for purpose in PURPOSES:
        names = ", ".join(f'"{name}"' for name in purpose.attributes)
        lines += [
            f"[purposes.{purpose.tag}]",
            f'title.nl = "{purpose.title_nl}"',
            f'title.en = "{purpose.title_en}"',
            f"attributes = [{names}]",
        ]
    lines.append("[attributes]")
    lines += [f'{name} = {{ nl = "{dutch}", en = "{english}" }}' for name, (dutch, english) in LABELS.items()]
    return "\n".join(lines) + "\n"


async def _add_agent(settings: Settings) -> str:
    kept = HOME / "agent-password"
    if not kept.is_file():
        kept.touch(mode=0o600)
        kept.write_text(secrets.token_urlsafe(9))
    password = kept.read_text()
    fingerprints = Fingerprints(read_master_key(settings.sessions.master_key_file))
    async with open_store(settings.sessions.store, fingerprints) as store:
        await store.add_account(Account(AGENT, f"PJSIP/{AGENT_PHONE}", hash_password(password)))
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


def _phone_handler(phone: CitizenPhone, citizen_url: str) -> Handler:
    calls: set[asyncio.Task[None]] = set()

    async def place(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        if form.get("do") == "hang up":
            await phone.hangup()
            done = "The demo phone has hung up.\n"
        else:
            code = str(form.get("code", ""))
            if not re.fullmatch(r"[0-9]{1,20}", code):
                raise web.HTTPBadRequest(text="expected code=, digits only")
            if phone.state != "idle":
                raise web.HTTPConflict(text="The demo phone is in a call already: let it hang up first.")
            call = asyncio.create_task(_call(phone, code))
            calls.add(call)
            call.add_done_callback(calls.discard)
            done = "The demo phone is calling.\n"
        back = str(form.get("back", ""))
        if back == f"{citizen_url}/":
            return web.Response(status=303, headers={"Location": back})
        return web.Response(text=done)

    return place


async def _call(phone: CitizenPhone, code: str) -> None:
    try:
        await phone.call(PHONE_NUMBER, code)
    except PhoneError as fault:
        _say(f"The demo phone: {fault}")


async def call(code: str) -> int:
    """Let the demo phone of a running demo call with a code, or without a code hang up.

    Raises:
        StageError: no demo runs here, or its phone cannot call now.

    """
    try:
        url = f"{ports_from_environment().url('municipality')}/phone"
        form = {"do": "call", "code": code} if code else {"do": "hang up"}
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
