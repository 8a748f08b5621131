"""A whole idbellen for tests: configuration and keys in a folder, the real service as a process beside a Pbx."""

from __future__ import annotations

import asyncio
import functools
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, closing, contextmanager
from typing import IO, TYPE_CHECKING, Any
from unittest.mock import patch

import aiohttp
from argon2 import PasswordHasher

from idbellen import keys
from idbellen.demo.pbx import CHECKOUT, Pbx, PbxSettings
from idbellen.demo.tokens import auth_result
from idbellen.domain.codes import Fingerprints
from idbellen.domain.idcontact import LEAST_RSA_BITS, load_key
from idbellen.domain.ids import AgentName, QueueName
from idbellen.domain.notes import read_agent, read_call
from idbellen.ports import Account, Role
from idbellen.service.config import load, read_master_key
from idbellen.service.storage import open_store
from tests.support.dashboards import Dashboard, Wallboard
from tests.support.forks import FORKS
from tests.support.ports import free_ports, reserved_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from idbellen.domain.idcontact import Key
    from idbellen.domain.notes import CallNote
    from idbellen.ports import NoteStore
    from tests.support.forks import Forked
    from tests.support.proxy import Proxy

PASSWORD = "a long enough password"
# It says itself how much work it is to check it: here as little as can be, since agents log in all the time.
PASSWORD_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
PHONE_NUMBER = "+31201234567"
# Values that stand out, so that a search of the logs finds them wherever they leak.
ATTRIBUTES = {"fullname": "Quirijn Zevenaar-Vlinderslag", "bsn": "999990342", "birthdate": "1971-02-28"}
READY_SECONDS = 15.0
END_SECONDS = 10.0
# The cause with which the tests' plain queue hangs up, by which it can be told from everything else.
PLAIN_CAUSE = 58


class Installation:
    """The folder of one installation, and the parties that talk to it over HTTP."""

    def __init__(self, folder: Path, pbx: Pbx, public: Mapping[str, int] | None = None) -> None:
        """``public``: the ports under which the listeners are known outside, if others than they have."""
        self.folder = folder
        self.pbx = pbx
        self.ports = {name: free_ports() for name in ("idcontact", "citizen", "dashboard")}
        self._listen = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        known = (public or self.ports).values()
        self.internal_url, self.citizen_url, self.dashboard_url = (f"http://127.0.0.1:{port}" for port in known)
        self.config = folder / "idbellen.toml"
        self.log = folder / "idbellen.log"
        self.process: asyncio.subprocess.Process | Forked | None = None
        self._signing_keys: dict[str, Key] = {}
        self._encryption_keys: dict[str, Key] = {}
        self.codes: list[str] = []
        self.secrets: list[str] = []
        # What the service may have, as options of prlimit (1).
        self.limits: tuple[str, ...] = ()

    def write(self, keys_folder: Path, **changes: str) -> None:
        """Write the configuration; ``changes`` are TOML values.

        A change is named ``key`` in [calls], or else ``table__key``; further tables come whole, as ``more``.
        ``ari_port``: of a proxy before Asterisk; ``off``: there is no ARI, and no table for it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = {
            "calls": {"unverified": '"plain"', "rest_seconds": "0.5", "ring_seconds": "5"},
            "sessions": {"store": '"idbellen.db"', "code_seconds": "600"},
            "dashboard": {"grace_seconds": "1"},
            "idcontact": {},
            "citizen": {},
            "asterisk": {},
            "purpose": {},
        }
        more = changes.pop("more", "")
        ari_port = changes.pop("ari_port", self.pbx.settings.ari_port)
        for name, value in changes.items():
            table, _, key = name.rpartition("__")
            tables[table or "calls"][key] = value
        write_secret(self.folder / "ari-password", self.pbx.settings.ari_password)
        for kind in ("rsa", "ec"):
            self._signing_keys[kind] = _key(keys_folder / f"auth-{kind}/decryption-key.pem")
            self._encryption_keys[kind] = _key(keys_folder / f"own-{kind}/encryption-key.pub.pem")
        asterisk = f"""
[asterisk]
url = "http://127.0.0.1:{ari_port}/ari"
password_file = "ari-password"
{_lines(tables["asterisk"])}
"""
        self.config.write_text(
            f"""
{asterisk if ari_port != "off" else ""}
[calls]
phone_number = "{PHONE_NUMBER}"
{_lines(tables["calls"])}
[sessions]
master_key_file = "{keys_folder}/own-rsa/master-key"
{_lines(tables["sessions"])}
[idcontact]
listen = "{self._listen["idcontact"]}"
url = "{self.internal_url}"
decryption_key_files = ["{keys_folder}/own-rsa/decryption-key.pem", "{keys_folder}/own-ec/decryption-key.pem"]
verification_key_files = [
    "{keys_folder}/auth-rsa/encryption-key.pub.pem", "{keys_folder}/auth-ec/encryption-key.pub.pem",
]
{_lines(tables["idcontact"])}
[citizen]
listen = "{self._listen["citizen"]}"
url = "{self.citizen_url}"
{_lines(tables["citizen"])}
[dashboard]
listen = "{self._listen["dashboard"]}"
url = "{self.dashboard_url}"
{_lines(tables["dashboard"])}
[purposes.report_move]
title.nl = "Verhuizing doorgeven"
title.en = "Report a move"
attributes = ["fullname", "bsn"]
{_lines(tables["purpose"])}
{more}
[attributes]
fullname = {{ nl = "Naam", en = "Name" }}
bsn = {{ nl = "bsn", en = "bsn", masked = false }}
"""
        )

    async def add_agents(
        self,
        *names: str,
        queues: Mapping[str, Mapping[str, int]] | None = None,
        role: Role = Role.AGENT,
        password_hash: str = PASSWORD_HASH,
        endpoint: str = "",
    ) -> None:
        """Add agents, each with the phone of the same name; ``queues``: the penalties of who serves only some."""
        settings = load(self.config)
        fingerprints = Fingerprints(read_master_key(settings.sessions.master_key_file))
        async with open_store(settings, fingerprints) as store:
            for name in map(AgentName, names):
                served = {QueueName(queue): penalty for queue, penalty in (queues or {}).get(name, {}).items()}
                account = Account(name, endpoint or f"PJSIP/{name}", password_hash, role, served)
                await store.add_account(account)

    async def start(self) -> None:
        """Start the service and wait until it says that it is ready."""
        # An abstract name: paths of sockets are short, and those of tests are not.
        name = f"\0idbellen-{os.getpid()}-{secrets.token_hex(4)}"
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as notify:
            notify.bind(name)
            notify.setblocking(False)
            with self._sink() as sink:
                await self._run(sink, {"NOTIFY_SOCKET": f"@{name[1:]}"})
            try:
                async with asyncio.timeout(READY_SECONDS):
                    assert await asyncio.get_running_loop().sock_recv(notify, 64) == b"READY=1"
            except TimeoutError:
                await self.kill()
                raise AssertionError(f"not ready in {READY_SECONDS} s\n{self.log.read_text()}") from None

    async def _run(self, sink: IO[bytes], environment: dict[str, str]) -> None:
        own, arguments = self._environment(), ["serve", "--config", str(self.config)]
        everything = os.environ | own | environment
        if FORKS.usable and not own and not self.limits:
            self.process = await FORKS.run(arguments, everything, sink)
            return
        limited = ("prlimit", *self.limits) if self.limits else ()
        self.process = await asyncio.create_subprocess_exec(
            *limited, sys.executable, "-m", "idbellen", *arguments,
            stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True, env=everything,
        )  # fmt: skip

    async def until_process(self) -> None:
        """Wait until a start that is under way in another task has made the process."""
        async with asyncio.timeout(5):
            while not self.process:
                await asyncio.sleep(0)

    def _environment(self) -> dict[str, str]:
        """Give what the service's environment has besides ours."""
        return {}

    @contextmanager
    def _sink(self) -> Iterator[IO[bytes]]:
        """Give where the service writes its log, for its start."""
        with self.log.open("ab") as sink:
            yield sink

    async def stop(self) -> int:
        """End the service as systemd does; gives its exit code."""
        assert self.process
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(END_SECONDS):
            return await self.process.wait()

    async def restart_if_ended(self) -> None:
        """Start the service if a test has ended it and went no further."""
        if self.process and self.process.returncode is not None:
            await self.start()

    async def kill(self) -> None:
        """End the service at once."""
        assert self.process
        self.process.kill()
        await self.process.wait()

    # What the service has noted for the next one

    @asynccontextmanager
    async def _notes(self) -> AsyncIterator[NoteStore]:
        settings = load(self.config)
        fingerprints = Fingerprints(read_master_key(settings.sessions.master_key_file))
        async with open_store(settings, fingerprints) as store:
            yield store

    async def _calls(self) -> list[CallNote]:
        async with self._notes() as store:
            return [read_call(text) for name, text in (await store.notes()).items() if name.startswith("call ")]

    async def noted(self) -> list[str]:
        """Give the stage of every call that is noted."""
        return ["talking" if c.talk else "waiting" if c.ticket else "asking" for c in await self._calls()]

    async def waiting(self) -> list[tuple[str, float]]:
        """Give the names of the waiting calls and since when they wait, by that."""
        tickets = [call.ticket for call in await self._calls() if call.ticket and not call.talk]
        return sorted(((ticket.call, ticket.since) for ticket in tickets), key=lambda found: found[1])

    async def until_noted_mode(self, mode: str, *, muted: bool = False, holds: bool = False) -> None:
        """Wait until a conversation is noted in a mode, and whether the agent is muted in it, or the phone holds."""
        async with asyncio.timeout(5):
            while (mode, muted, holds) not in [
                (call.talk.mode.value, call.talk.main.muted, call.talk.main.holds)
                for call in await self._calls()
                if call.talk
            ]:
                await asyncio.sleep(0.01)

    async def until_agents_noted(self, **states: str) -> None:
        """Wait until agents are noted with these states."""
        async with asyncio.timeout(5), self._notes() as store:
            while True:
                texts = [text for name, text in (await store.notes()).items() if name.startswith("agent ")]
                agents = [read_agent(text) for text in texts]
                if states.items() <= {agent.name: agent.state.value for agent in agents}.items():
                    return
                await asyncio.sleep(0.01)

    async def forget_notes(self) -> None:
        """Delete all notes."""
        async with self._notes() as store:
            await store.note(dict.fromkeys(await store.notes()))

    # ID Contact's core, an auth plugin, and the citizen's browser

    def token(self, attributes: Mapping[str, str] | None = ATTRIBUTES, *, keys: str = "rsa", **changes: Any) -> str:
        """Make an auth result as an auth plugin with keys of this kind does."""
        values: dict[str, Any] = {
            "status": "succes",
            "subject": "id-contact-attributes",
            "now": time.time(),
            "signing_key": self._signing_keys[keys],
            "encryption_key": self._encryption_keys[keys],
            "signature": {"rsa": "RS256", "ec": "ES256"}[keys],
            "key_encryption": {"rsa": "RSA-OAEP", "ec": "ECDH-ES"}[keys],
        }
        return auth_result(attributes, **(values | changes))

    async def log_in_citizen(self, *, attributes: Mapping[str, str] | None = ATTRIBUTES) -> str:
        """Walk the protocol: start, log in, deliver, open the page; gives the code on the page."""
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar, raise_for_status=True) as http:
            async with http.post(f"{self.internal_url}/start_communication", json={"purpose": "report_move"}) as answer:
                started = await answer.json()
            headers = {"Content-Type": "application/jwt"}
            async with http.post(started["attr_url"], data=self.token(attributes), headers=headers):
                pass
            async with http.get(started["client_url"]) as answer:
                page = await answer.text()
        code = page.split('name="code" value="')[1].split('"')[0] if 'name="code"' in page else _code(page)
        self.codes.append(code)
        return code

    @asynccontextmanager
    async def dashboard(self, agent: str, *, proxy: Proxy | None = None) -> AsyncIterator[Dashboard]:
        """Log an agent in and open a dashboard, as the browser does; its websocket can go through a proxy."""
        jar = aiohttp.CookieJar(unsafe=True)
        headers = {"Origin": self.dashboard_url}
        async with aiohttp.ClientSession(cookie_jar=jar, headers=headers) as http:
            form = {"name": agent, "password": PASSWORD}
            async with http.post(f"{self.dashboard_url}/login", data=form) as answer:
                assert answer.status == 200, await answer.text()
            live = f"http://127.0.0.1:{proxy.port}/live" if proxy else f"{self.dashboard_url}/live"
            dashboard = Dashboard(self, http, await http.ws_connect(live), live)
            try:
                yield dashboard
            finally:
                await dashboard.close()

    @asynccontextmanager
    async def wallboard(self, supervisor: str) -> AsyncIterator[Wallboard]:
        """Log a supervisor in and open the wallboard, as the browser does."""
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar, headers={"Origin": self.dashboard_url}) as http:
            form = {"name": supervisor, "password": PASSWORD}
            async with http.post(f"{self.dashboard_url}/login", data=form) as answer:
                assert answer.status == 200, await answer.text()
            async with http.ws_connect(f"{self.dashboard_url}/wallboard/live") as socket:
                yield Wallboard(socket)

    async def ready(self) -> str:
        """Ask as whoever watches over the service does; gives ``ready``, or the reason why it is not."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.internal_url}/ready") as answer:
            text = (await answer.text()).removesuffix("\n")
            assert answer.status == (200 if text.startswith("ready") else 503)
            return text

    async def _says_ready(self) -> bool | None:
        """Ask whether it is ready; None: it cannot be asked, as when another process begins to serve."""
        try:
            return await self.ready() == "ready"
        except aiohttp.ClientError:
            return None

    async def until_ready(self, *, ready: bool = True, seconds: float = 15.0) -> float:
        """Wait until the service says that it is ready, or that it is not; gives how long that took."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                while await self._says_ready() is not ready:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not {'ready' if ready else 'unready'} in {seconds} s") from None
        return time.monotonic() - began

    # Asterisk's side

    async def channels(self) -> list[dict[str, Any]]:
        return await self._ari("channels")

    async def bridges(self) -> list[dict[str, Any]]:
        return await self._ari("bridges")

    async def applications(self) -> list[dict[str, Any]]:
        return [app for app in await self._ari("applications") if not app["name"].startswith("spy-")]

    async def _ari(self, path: str) -> list[dict[str, Any]]:
        headers = {"Authorization": aiohttp.encode_basic_auth("idbellen", self.pbx.settings.ari_password)}
        url = f"http://127.0.0.1:{self.pbx.settings.ari_port}/ari/{path}"
        async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http, http.get(url) as answer:
            found: list[dict[str, Any]] = await answer.json()
            return found

    async def until_nothing_is_left(self, *, seconds: float = 5.0) -> None:
        """Wait until Asterisk has no channel and no bridge any more."""
        try:
            async with asyncio.timeout(seconds):
                while await self.channels() or await self.bridges():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"left: {await self.channels()} {await self.bridges()}") from None

    async def until_log(self, text: str, *, times: int = 1, seconds: float = 10.0) -> None:
        """Wait until the service has logged a text so many times."""
        try:
            async with asyncio.timeout(seconds):
                while self.log.read_text().count(text) < times:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not logged {times} times: {text!r}\n{self.log.read_text()}") from None


@asynccontextmanager
async def own_pbx(folder: Path, agents: tuple[str, ...], *, rtp_ports: int = 1000) -> AsyncIterator[Pbx]:
    """Give an Asterisk of one's own, for what does not run under pytest; who is not verified is hung up on there."""
    directory = folder / "asterisk"
    directory.mkdir(parents=True)
    with reserved_ports(rtp_ports) as rtp:
        pbx = Pbx(
            PbxSettings(
                directory=directory, prompts=CHECKOUT / ".run/prompts", ari_port=free_ports(), sip_port=free_ports(),
                rtp_start=rtp, rtp_end=rtp + rtp_ports - 1, agents=agents,
            )
        )  # fmt: skip
        try:
            await pbx.start()
            yield pbx
        finally:
            await pbx.stop()


def write_secret(file: Path, text: str) -> None:
    """Write a file that nobody else can read."""
    file.touch(mode=0o600)
    file.write_text(text)


@functools.cache
def _key(file: Path) -> Key:
    """Load a key of a test; that takes a tenth of a second, and they stay the same for a run."""
    return load_key(file.read_bytes())


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{name} = {value}" for name, value in values.items())


def _code(page: str) -> str:
    block = page.split('id="code">')[1].split("</li>", maxsplit=1)[0]
    return "".join(part.split("<")[0] for part in block.split("<span>")[1:])


def make_keys(folder: Path) -> Path:
    """Make our keys and an auth plugin's, of both kinds, as weak as they are taken: strong ones are slow to load."""
    with patch.object(keys, "RSA_BITS", LEAST_RSA_BITS):
        for name in ("own", "auth"):
            keys.generate(folder / f"{name}-rsa", "rsa")
            keys.generate(folder / f"{name}-ec", "ec")
    return folder


async def run_cli(*arguments: str, given: str = "", whole: bool = False) -> tuple[int, str]:
    """Run the ``idbellen`` command; gives its exit code and all that it printed.

    ``whole``: with the start of Python, where that is looked at.
    """
    with tempfile.TemporaryFile() as typed, tempfile.TemporaryFile() as said:
        typed.write(given.encode())
        typed.seek(0)
        if FORKS.usable and not whole:
            process: asyncio.subprocess.Process | Forked = await FORKS.run(arguments, os.environ, said, typed)
        else:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "idbellen", *arguments, stdin=typed, stdout=said, stderr=said
            )
        code = await process.wait()
        said.seek(0)
        return code, said.read().decode()
