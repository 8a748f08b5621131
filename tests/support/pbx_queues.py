"""An Asterisk with queues of its own for tests, plain and like FreePBX, and phones that hold and transfer."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from itertools import product
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from idbellen.demo.pbx import CHECKOUT, Pbx, _fill
from tests.support.installation import write_secret
from tests.support.ports import free_ports
from tests.support.scenarios import END, OK_TO_REQUEST, TAKE_INVITE, audio, cdata, hold_key, in_dialog, log, reply
from tests.support.sipp import PORTS_OF_A_PHONE, AgentPhone, Phones, Sipp

if TYPE_CHECKING:
    from pathlib import Path

    from idbellen.demo.pbx import PbxSettings

MODULES = (
    "app_queue", "app_stack", "bridge_builtin_interval_features", "res_speech", "res_agi", "func_devstate",
)  # fmt: skip
QUEUE, FREEPBX_QUEUE = "burgers", "400"
# One who is called otherwise than the devices.
USER = "user"
QUEUES_CONF = f"""
[general]
persistentmembers=no
[{QUEUE}](!)
strategy=rrmemory
timeout=15
retry=1
wrapuptime=0
ringinuse=no
musicclass=idbellen
joinempty=yes
[{QUEUE}]({QUEUE})
[{FREEPBX_QUEUE}]({QUEUE})
""".replace(f"[{QUEUE}](!)", "[template](!)").replace(f"({QUEUE})", "(template)")


class QueuePbx(Pbx):
    """A PBX that keeps its queues, and whose dialplan asks idbellen by FastAGI."""

    def __init__(self, settings: PbxSettings) -> None:
        super().__init__(settings)
        self.ami_port, self.agi_port = free_ports(), free_ports()
        self.ami_password = secrets.token_urlsafe(16)
        self.test_password = secrets.token_urlsafe(16)

    def write(self) -> Path:
        main = super().write()
        etc = self.settings.directory / "etc"
        for name, text in self._files().items():
            (etc / name).unlink(missing_ok=True)
            (etc / name).write_text(text)
        # Asterisk's own announcement of a transfer comes with its core sounds, which this one lacks.
        sounds = self.settings.directory / "data/sounds/nl"
        shutil.copy(sounds / "idbellen/one-moment.wav", sounds / "pbx-transfer.wav")
        return main

    def _files(self) -> dict[str, str]:
        conf = CHECKOUT / "asterisk-conf"
        manager = _fill(conf / "idbellen.d/manager.conf.in", {"AMI_PASSWORD": self.ami_password})
        agents = self.settings.agents
        members = "".join(
            f"exten => {extension},1,Dial(PJSIP/{name},20)\n"
            for number, name in enumerate(agents, 101)
            for extension in (name, number)
        )
        # As FreePBX writes it, with what its feature code *76 for "do not disturb" sets.
        hints = "".join(f"exten => {name},hint,PJSIP/{name}&Custom:DND{name}\n" for name in agents)
        return {
            "modules.conf": (conf / "modules.conf").read_text() + "".join(f"load={name}.so\n" for name in MODULES),
            # Where the PBX queues, phones transfer by themselves.
            "pjsip.conf": (conf / "pjsip.conf").read_text().replace("allow_transfer=no", "allow_transfer=yes"),
            "queues.conf": QUEUES_CONF,
            "features.conf": "[featuremap]\natxfer => *2\n",
            "manager.conf": (
                f"[general]\nenabled=yes\nport={self.ami_port}\nbindaddr=127.0.0.1\n"
                f"{manager}\n[test]\nsecret={self.test_password}\nread=all\nwrite=all\n"
            ),
            "extensions.conf": f"""
[general]
static=yes
[globals]
IDBELLEN_AGI=127.0.0.1:{self.agi_port}
IDBELLEN_LANGUAGE=nl
IDBELLEN_QUEUE={QUEUE}
SHAPE=plain
#include idbellen/idbellen-queue.conf
#include idbellen/idbellen-freepbx.conf

; Where the trunk's calls come in.
[idbellen]
exten => _[+0-9].,1,Goto(${{SHAPE}},1)
exten => plain,1,Goto(idbellen-queue,s,1)
; An inbound route to a custom destination that returns to a queue, as FreePBX writes it.
exten => freepbx,1,Goto(customdests,dest-1,1)

[customdests]
exten => dest-1,1,Gosub(idbellen-freepbx,s,1())
 same => n,Goto(ext-queues,{FREEPBX_QUEUE},1)

[ext-queues]
exten => {FREEPBX_QUEUE},1,Answer()
 same => n,Set(__FROMQUEUEEXTEN=${{CALLERID(number)}})
 same => n,Queue({FREEPBX_QUEUE},t,,,)
 same => n,Hangup()

[from-queue]
exten => _[a-z].,1,Goto(from-internal,${{EXTEN}},1)

[ext-local]
{hints}exten => {USER},hint,PJSIP/{agents[0]}&PJSIP/{agents[1]}&Custom:DND{USER}
[from-internal]
; A user of FreePBX with two devices.
exten => {USER},1,Dial(PJSIP/{agents[0]}&PJSIP/{agents[1]},20)
{members}exten => {QUEUE},1,Queue({QUEUE})

; Where agents' phones send a caller to.
[idbellen-agents]
include => from-internal
""",
        }

    async def shape(self, shape: str) -> None:
        """Choose how calls of the trunk are routed."""
        await self.cli(f"dialplan set global SHAPE {shape}")

    async def ami(self, action: str, **fields: str) -> dict[str, str]:
        """Let the test do something over AMI; gives the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ami_port)
        try:
            await reader.readline()
            login = {"Username": "test", "Secret": self.test_password, "Events": "off"}
            for name, values in (("Login", login), (action, fields)):
                text = "".join(f"{key}: {value}\r\n" for key, value in {"Action": name, **values}.items())
                writer.write(f"{text}\r\n".encode())
                answer: dict[str, str] = {}
                async with asyncio.timeout(5):
                    while answer.get("Response") is None:
                        block = (await reader.readuntil(b"\r\n\r\n")).decode()
                        answer = dict(line.split(": ", 1) for line in block.split("\r\n") if ": " in line)
                assert answer["Response"] == "Success", answer
            return answer
        finally:
            writer.close()

    async def channel(self, endpoint: str) -> str:
        """Give the name of the latest channel of an endpoint."""
        lines = (await self.cli("core show channels concise")).splitlines()
        return next(line.split("!")[0] for line in lines if line.startswith(f"{endpoint}-"))

    async def members(self, queue: str) -> dict[str, bool]:
        """Give the members of a queue, and whether they are paused."""
        shown = await self.cli(f"queue show {queue}")
        rows = [line for line in shown.splitlines() if "(ringinuse" in line]
        found = {}
        for row in rows:
            name, _, rest = row.strip().partition(" (")
            found[name] = "(paused" in rest
        return found

    async def configure_members(self, queue: str, *interfaces: str) -> None:
        """Write the static members of a queue down, as FreePBX does when somebody presses "Apply Config"."""
        members = "".join(f"member={interface}\n" for interface in interfaces)
        text = QUEUES_CONF.replace(f"[{queue}](template)\n", f"[{queue}](template)\n{members}")
        (self.settings.directory / "etc/queues.conf").write_text(text)
        await self.cli("module reload app_queue.so")

    async def without_members(self) -> None:
        """Take out whom an earlier test has left."""
        shown = {queue: await self.cli(f"queue show {queue}") for queue in (QUEUE, FREEPBX_QUEUE)}
        patterns = ("PJSIP/{}", "Local/{}@from-queue/n")
        interfaces = [pattern.format(name) for name in (*self.settings.agents, USER) for pattern in patterns]
        for queue, interface in product(shown, interfaces):
            if interface in shown[queue]:
                await self.cli(f"queue remove member {interface} from {queue}")

    async def until_members(self, queue: str, wanted: dict[str, bool]) -> None:
        """Wait until a queue has these members."""
        try:
            async with asyncio.timeout(8):
                while await self.members(queue) != wanted:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(await self.cli(f"queue show {queue}")) from None


def pbx_tables(
    pbx: QueuePbx, folder: Path, *, ami_port: int | None = None, followed: bool = True, **pbx_values: Any
) -> str:
    """Give the tables of idbellen's configuration for such a PBX; ``followed``: its queues are too."""
    folder.mkdir(parents=True, exist_ok=True)
    write_secret(folder / "ami-password", pbx.ami_password)
    values = "".join(f"{name} = {value}\n" for name, value in pbx_values.items())
    queues = f'[pbx.queues]\n{QUEUE} = "default"\n{FREEPBX_QUEUE} = "default"' if followed else ""
    return f"""
[agi]
listen = "127.0.0.1:{pbx.agi_port}"
[ami]
port = {ami_port or pbx.ami_port}
password_file = "ami-password"
[pbx]
{values}
{queues}
"""


async def scripted_agent(telephony: Phones, name: str, *steps: str) -> AgentPhone:
    """Plug in a phone that answers and then, each time it is told, does the next step.

    Steps: ``hold``, ``unhold``, ``refer EXTENSION``, ``refer EXTENSION DIALOG`` which takes the place of that dialog
    (see :meth:`tests.support.sipp.Caller.dialog`); after the last it waits for the end.
    """
    port = free_ports(PORTS_OF_A_PHONE)
    await telephony._register(name, port, expires=300)
    parts = [TAKE_INVITE, reply("180 Ringing"), reply("200 OK", body=audio(None)), '<recv request="ACK"/>']
    parts.append(log("talking"))
    for number, step in enumerate(steps, 900):
        parts.append('<recv request="BYE" optional="true" next="2"/>\n<recv request="MESSAGE"/>')
        what, _, target = step.partition(" ")
        if what == "refer":
            extension, _, dialog = target.partition(" ")
            replaces = f"?Replaces={quote(dialog)}" if dialog else ""
            refer = (
                f"{in_dialog('REFER', number)}\nRefer-To: <sip:{extension}@127.0.0.1{replaces}>\n"
                f"Referred-By: <sip:{name}@127.0.0.1>\nContact: <sip:agent@[local_ip]:[local_port]>"
            )
            parts.append(f'<send retrans="500">{cdata(refer)}</send><recv response="202"/>{log("referred")}')
        else:
            parts += [hold_key(number, audio(None), on=what == "hold"), log(what)]
    parts.append(f"""
<recv request="BYE"/>
<label id="2"/>
{OK_TO_REQUEST}
{log("over")}
{END}
""")
    # How a transfer goes is told at any moment (NOTIFY), which SIPp then answers by itself.
    sipp = Sipp(telephony._folder, f"{name}-scripted", "\n".join(parts), "-aa", port=port)
    await telephony._start(sipp)
    telephony._agents[name] = sipp
    return AgentPhone(sipp, name)
