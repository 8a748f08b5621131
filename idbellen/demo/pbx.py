"""A private Asterisk for the demo and the tests: own configuration, own directories, own ports.

It runs the files of ``asterisk-conf/`` and ``dialplan/`` as they are, with the generated includes that
``asterisk-conf/idbellen.d/*.in`` describe, and never touches the Asterisk of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from idbellen.aio import timeout

CHECKOUT = Path(__file__).resolve().parents[2]
UNPACKED = CHECKOUT / ".run" / "asterisk"
OLDEST_ASTERISK = 20
START_SECONDS = 30.0
STOP_SECONDS = 10.0
# Parts of Asterisk that idbellen does not use, and that log an error where their file is missing.
UNUSED_CONFIGURATION = ("acl", "ccss", "cel", "features", "manager", "pjproject", "stasis", "udptl", "websocket_client")


class PbxError(Exception):
    """Asterisk could not be found or started; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Build:
    """An Asterisk that can be run: the command, and where its modules and its data lie."""

    command: tuple[str, ...]
    modules: Path
    data: Path

    def version(self) -> str:
        """What ``asterisk -V`` says, for instance ``Asterisk 22.10.1``."""
        answer = subprocess.run([*self.command, "-V"], capture_output=True, text=True, check=False)  # noqa: S603
        return answer.stdout.strip()

    def release(self) -> tuple[int, ...]:
        """Give the numbers of its version, such as (22, 10, 1); empty if it tells none."""
        found = re.search(r"Asterisk (?:certified[/-])?([0-9]+(?:\.[0-9]+)*)", self.version())
        return tuple(int(part) for part in found[1].split(".")) if found else ()


def find_build(unpacked: Path = UNPACKED) -> Build:
    """Find the machine's own Asterisk, 20 or newer, or else the one that ``make setup`` unpacked.

    Raises:
        PbxError: there is neither.

    """
    installed = shutil.which("asterisk", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if installed:
        modules = next(iter(sorted(Path("/usr").glob("lib*/**/asterisk/modules"))), None)
        data = next((d for d in (Path("/usr/share/asterisk"), Path("/var/lib/asterisk")) if d.is_dir()), None)
        if modules and data:
            build = Build((installed,), modules, data)
            if build.release() >= (OLDEST_ASTERISK,):
                return build
    for loader in sorted(unpacked.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*")):
        # An unpacked tree of a newer Debian runs on an older one through its own loader and C library.
        libraries = loader.parent
        program = unpacked / "usr/sbin/asterisk"
        command = (str(loader), "--argv0", "asterisk", "--library-path", str(libraries), str(program))
        return Build(command, libraries / "asterisk/modules", unpacked / "usr/share/asterisk")
    raise PbxError("no Asterisk 20 or newer on this machine, and none unpacked: run 'make setup' first")


@dataclass(frozen=True, slots=True)
class PbxSettings:
    """Where a private Asterisk lives and listens. Every address is loopback unless said otherwise."""

    directory: Path
    prompts: Path
    ari_port: int
    sip_port: int
    rtp_start: int
    rtp_end: int
    agents: tuple[str, ...]
    app: str = "idbellen"
    language: str = "nl"
    sip_bind: str = "127.0.0.1"
    trunk_match: str = "127.0.0.1"
    # Where calls to outside numbers go: nobody listens there.
    trunk_contact: str = "127.0.0.1:9"
    # What it is like: one of asterisk-conf/idbellen.d/trunk-*.conf.in, and what that has filled in besides.
    trunk: str = "address"
    trunk_values: dict[str, str] = field(default_factory=dict, repr=False)
    plain: str = ""
    # Among several its name, and where each other one takes SIP.
    name: str = "main"
    beside: dict[str, int] = field(default_factory=dict)
    between_password: str = field(default="", repr=False)
    max_seconds: int = 7200
    ari_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    agent_passwords: dict[str, str] = field(default_factory=dict, repr=False)

    def agent_password(self, agent: str) -> str:
        """Give the SIP password of an agent's phone; made up at the first question, then the same."""
        return self.agent_passwords.setdefault(agent, secrets.token_urlsafe(18))


def _fill(template: Path, values: dict[str, str]) -> str:
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    left = re.search(r"@[A-Z_]+@", text)
    if left:
        raise PbxError(f"{template}: nothing to put in for {left[0]}")
    return text


class Pbx:
    """One private Asterisk, from its configuration to its end."""

    def __init__(self, settings: PbxSettings, build: Build | None = None) -> None:
        self.settings = settings
        self.build = build or find_build()
        self._process: asyncio.subprocess.Process | None = None
        self._control = ""

    @property
    def log(self) -> Path:
        """Asterisk's own log of notices, warnings and errors."""
        return self.settings.directory / "log" / "messages"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def write(self) -> Path:
        """Write configuration and directories afresh; gives the path of ``asterisk.conf``."""
        top = self.settings.directory
        etc, data = top / "etc", top / "data"
        for folder in (etc, data):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (etc / "idbellen.d", data / "sounds", top / "log", top / "db", top / "spool", top / "cache"):
            folder.mkdir(parents=True, exist_ok=True)
        top.chmod(0o700)
        for conf in (CHECKOUT / "asterisk-conf").glob("*.conf"):
            (etc / conf.name).symlink_to(conf)
        (etc / "idbellen").symlink_to(CHECKOUT / "dialplan")
        for name in UNUSED_CONFIGURATION:
            (etc / f"{name}.conf").touch()
        self._link_data(data)
        self._write_includes(etc / "idbellen.d")

        # The control socket's path may not be longer than 108 bytes, so it cannot lie below the checkout.
        self._remove_control()
        self._control = tempfile.mkdtemp(prefix="idbellen-")
        main = etc / "asterisk.conf"
        main.write_text(
            "[directories]\n"
            f"astetcdir => {etc}\nastmoddir => {self.build.modules}\nastvarlibdir => {data}\n"
            f"astdbdir => {top / 'db'}\nastkeydir => {top / 'db'}\nastdatadir => {data}\n"
            f"astagidir => {data}/agi-bin\nastspooldir => {top / 'spool'}\nastrundir => {self._control}\n"
            f"astcachedir => {top / 'cache'}\n"
            f"astlogdir => {top / 'log'}\nastsbindir => /usr/sbin\n"
            "[options]\nverbose = 0\ndebug = 0\nnocolor = yes\nhighpriority = no\n"
        )
        return main

    def _link_data(self, data: Path) -> None:
        """Asterisk looks for prompts, music and its own documentation below one data directory."""
        for part in self.build.data.iterdir():
            if part.name != "sounds":
                (data / part.name).symlink_to(part)
        for language in (d for d in self.settings.prompts.iterdir() if d.is_dir() and d.name != "moh"):
            # Asterisk's index of sounds passes symbolic links over, so these are copies.
            try:
                shutil.copytree(language, data / "sounds" / language.name)
            except shutil.Error as fault:
                # It names every file that could not be copied.
                _, copy, why = fault.args[0][0]
                raise PbxError(f"cannot copy prompts to {Path(copy).parent}: {why.partition(': ')[0]}") from None
        (data / "idbellen-moh").symlink_to(self.settings.prompts / "moh")

    def _write_includes(self, folder: Path) -> None:
        own = self.settings
        values = {
            "ARI_PORT": str(own.ari_port),
            "ARI_PASSWORD": own.ari_password,
            "RTP_START": str(own.rtp_start),
            "RTP_END": str(own.rtp_end),
            "APP": own.app,
            "LANGUAGE": own.language,
            "MAX_SECONDS": str(own.max_seconds),
            "PLAIN": own.plain,
            "SIP_BIND": own.sip_bind,
            "SIP_PORT": str(own.sip_port),
            "TRUNK_MATCH": own.trunk_match,
            "TRUNK_CONTACT": own.trunk_contact,
        } | own.trunk_values
        templates = CHECKOUT / "asterisk-conf/idbellen.d"
        for name in ("http", "ari", "rtp", "extensions", "pjsip"):
            text = _fill(templates / f"{name}.conf.in", values)
            if name == "pjsip":
                text += _fill(templates / f"trunk-{own.trunk}.conf.in", values)
                for agent in own.agents:
                    names = {"AGENT": agent, "AGENT_PASSWORD": own.agent_password(agent)}
                    text += _fill(templates / "pjsip-agent.conf.in", names)
                for other, port in own.beside.items():
                    between = {
                        "TRUNK": f"to-{other}",
                        "OWN_TRUNK": f"to-{own.name}",
                        "ADDRESS": f"127.0.0.1:{port}",
                        "BETWEEN_PASSWORD": own.between_password,
                    }
                    text += _fill(templates / "pjsip-between.conf.in", between)
            path = folder / f"{name}.conf"
            path.touch(mode=0o600)
            path.write_text(text)

    async def start(self) -> None:
        """Start Asterisk and return when it has booted fully.

        Raises:
            PbxError: it ended, or did not boot within half a minute.

        """
        main = self.write()
        output = self.settings.directory / "log" / "output"
        with output.open("wb") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *self.build.command, "-f", "-C", str(main), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip
        try:
            async with timeout(START_SECONDS):
                while "fully booted" not in await self.cli("core waitfullybooted"):
                    if self._process.returncode is not None:
                        raise PbxError(f"Asterisk ended while starting: see {output} and {self.log}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            await self.stop()
            raise PbxError(f"Asterisk did not boot in {START_SECONDS:.0f} s: see {output}") from None

    async def cli(self, command: str) -> str:
        """Run one command on Asterisk's console and give what it printed."""
        config = self.settings.directory / "etc/asterisk.conf"
        process = await asyncio.create_subprocess_exec(
            *self.build.command, "-C", str(config), "-rx", command,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        return output.decode(errors="replace")

    async def kill(self) -> None:
        """End Asterisk as a power cut would."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """End Asterisk, hanging up what is left, and take away its control socket."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
            await self.kill()
        self._remove_control()

    def _remove_control(self) -> None:
        if self._control:
            shutil.rmtree(self._control, ignore_errors=True)
            self._control = ""
