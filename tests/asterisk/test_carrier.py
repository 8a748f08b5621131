"""What carriers, PBXs and phones of today do besides calling: keepalives, encryption, registration, silence."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import secrets
import signal
import socket
import ssl
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from idbellen.demo.pbx import Pbx, PbxSettings
from tests.conftest import AGENTS, PROMPTS
from tests.support.installation import Installation
from tests.support.ports import free_ports, reserved_ports
from tests.support.rtp import PCMA, Codec
from tests.support.scenarios import CALLER_HEADERS, HANG_UP, audio, cdata, invite
from tests.support.sipp import Sipp, phones

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.sipp import Caller, Phones

CARRIER, ELSEWHERE = "127.0.0.12", "127.0.0.13"
CRYPTO = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
# The least that Asterisk takes; by default it is 500.
T1_MS = 100
# Asterisk's complaints about its configuration come from these.
OF_CONFIGURATION = re.compile(r"(?:ERROR|WARNING)\[.* (?:res_pjsip|res_sorcery|config|sorcery)[\w/]*\.c: .*")


class Encrypted(Codec):
    """A-law in SRTP (RFC 4568)."""

    @property
    def sdp(self) -> str:
        return f"{super().sdp.replace('RTP/AVP', 'RTP/SAVP')}\n{CRYPTO}"


async def run_scenario(pbx: Pbx, telephony: Phones, scenario: str) -> Sipp:
    """Let the trunk do what a scenario says, once, and as it says."""
    sipp = Sipp(
        telephony._folder, "carrier", scenario, f"127.0.0.1:{pbx.settings.sip_port}", "-s", "+31201234567", "-m", "1",
        "-timeout", "20", "-timeout_error", address=pbx.settings.trunk_match,
    )  # fmt: skip
    await telephony._start(sipp)
    assert await sipp.wait(25) == 0, sipp.errors()
    return sipp


def request(method: str, cseq: int, headers: str = "", body: str = "") -> str:
    """Give a request of the caller, in the call if there is one."""
    kind, _, text = body.partition(":")
    content = f"\nContent-Type: {kind}" if kind else ""
    start = f"{method} sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n{CALLER_HEADERS}\nCSeq: {cseq} {method}"
    return f'<send retrans="500"><![CDATA[\n{start}{headers}{content}\nContent-Length: [len]\n\n{text}\n]]></send>'


class QuickPbx(Pbx):
    """Gives up sooner when a request is not answered: after 64 times this, as by default (RFC 3261, 17.1.1.2)."""

    def _write_includes(self, folder: Path) -> None:
        super()._write_includes(folder)
        with (folder / "pjsip.conf").open("a") as conf:
            conf.write(f"\n[system](+)\ntimer_t1={T1_MS}\ntimer_b={64 * T1_MS}\n")


@asynccontextmanager
async def own_pbx(folder: Path, kind: type[Pbx] = Pbx, **changes: object) -> AsyncIterator[Pbx]:
    """Give an Asterisk of its own, with a trunk of another kind."""
    with reserved_ports(200) as rtp:
        settings = PbxSettings(
            directory=folder, prompts=PROMPTS, ari_port=free_ports(), sip_port=free_ports(), rtp_start=rtp,
            rtp_end=rtp + 199, agents=AGENTS, **changes,  # type: ignore[arg-type]
        )  # fmt: skip
        pbx = kind(settings)
        await pbx.start()
        try:
            yield pbx
        finally:
            await pbx.stop()


# Keepalives, and what else is asked in a call


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (request("OPTIONS", 2), 200),
        (request("INFO", 2), 200),
        (request("INFO", 2, body="application/dtmf-relay:Signal=5\nDuration=100"), 200),
        (request("UPDATE", 2, headers="\nSupported: timer"), 200),
        (request("MESSAGE", 2, body="text/plain:goedemorgen"), 202),
        (request("REFER", 2, headers="\nRefer-To: <sip:112@127.0.0.1>"), 603),
        (request("PRACK", 2, headers="\nRAck: 1 1 INVITE"), 400),
        (invite(audio(None)).split("<recv")[0].replace("CSeq: 1", "CSeq: 2"), 200),
    ],
    ids=["OPTIONS", "INFO", "INFO with a key", "UPDATE", "MESSAGE", "REFER", "PRACK", "INVITE"],
)
async def test_what_is_asked_in_a_call_gets_a_final_answer_and_the_call_goes_on(
    pbx: Pbx, installation: Installation, telephony: Phones, asked: str, answer: int
) -> None:
    start = "ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0"
    ack = "<send>" + cdata(f"{start}\n{CALLER_HEADERS}\nCSeq: 2 ACK") + "</send>"
    after = ack if "INVITE sip" in asked else ""
    trying = '<recv response="100" optional="true"/>'
    await run_scenario(
        pbx, telephony, f'{invite(audio(None))}{asked}{trying}<recv response="{answer}"/>{after}{HANG_UP}'
    )
    await installation.until_log("caller hung up")


@pytest.mark.usefixtures("installation")
async def test_a_message_outside_a_call_is_no_caller(pbx: Pbx, telephony: Phones) -> None:
    before = await pbx.cli("core show calls")
    asked = request("MESSAGE", 1, body="text/plain:goedemorgen")
    await run_scenario(pbx, telephony, f'{asked}<recv response="404"/>')
    assert await pbx.cli("core show calls") == before


@pytest.mark.parametrize(("before", "status"), [("Ringing", 180), ("Progress", 183)])
async def test_a_carrier_can_be_told_something_before_the_answer(
    pbx: Pbx, installation: Installation, telephony: Phones, before: str, status: int
) -> None:
    await pbx.cli(f"dialplan set global IDBELLEN_BEFORE {before}")
    try:
        first, _, rest = invite(audio(None)).partition('<recv response="180" optional="true"/>')
        rest = rest.replace('<recv response="183" optional="true"/>', f'<recv response="{status}"/>')
        await run_scenario(pbx, telephony, f"{first}{rest}{HANG_UP}")
    finally:
        await pbx.cli("dialplan set global IDBELLEN_BEFORE ")
    await installation.until_log("caller hung up")


# Whom the carrier calls


@pytest.mark.parametrize(
    "user", ["", "+31201234567", "0201234567", "0031201234567", "31201234567", "5", "account", "A.b-c_1", "14020#1"]
)
async def test_whatever_number_or_name_is_called_reaches_idbellen(
    pbx: Pbx, installation: Installation, telephony: Phones, user: str
) -> None:
    scenario = f'{request("OPTIONS", 1)}<recv response="200"/>'
    await run_scenario(pbx, telephony, scenario.replace("[service]@", f"{user}@" if user else ""))
    scenario = f"{invite(audio(None))}{HANG_UP}"
    await run_scenario(pbx, telephony, scenario.replace("[service]@", f"{user}@" if user else ""))
    await installation.until_log("caller hung up")


# Encrypted audio


async def test_who_offers_encrypted_audio_gets_it_and_is_served(installation: Installation, telephony: Phones) -> None:
    async with installation.dashboard("agent1") as dashboard:
        await telephony.agent("agent1")
        await dashboard.available()
        codec = Encrypted(PCMA, "PCMA/8000", b"")
        caller = await telephony.call(await installation.log_in_citizen(), codec=codec, info=True)
        await dashboard.until("in_call")
        caller.go_on()
        assert await caller.ended() == "by caller"
        await dashboard.until("available")


def certificate(folder: Path) -> dict[str, str]:
    """Make a certificate of this machine; gives what a trunk with TLS is filled in with."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + dt.timedelta(1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = {
        "TLS_CERTIFICATE": folder / "tls.crt",
        "TLS_KEY": folder / "tls.key",
        "TLS_AUTHORITIES": folder / "tls.crt",
    }
    paths["TLS_CERTIFICATE"].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths["TLS_KEY"].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {kind: str(path) for kind, path in paths.items()} | {"TLS_PORT": str(free_ports())}


def plain_invite(own: str, uri: str, *, sdp: str = "", transport: str = "UDP") -> bytes:
    body = sdp.replace("\n", "\r\n") + "\r\n" if sdp else ""
    lines = (
        f"INVITE {uri} SIP/2.0",
        f"Via: SIP/2.0/{transport} {own};branch=z9hG4bK{secrets.token_hex(8)}",
        f"From: <sip:0612345678@{own}>;tag=x",
        f"To: <{uri}>",
        f"Call-ID: {secrets.token_hex(8)}",
        "CSeq: 1 INVITE",
        f"Contact: <sip:0612345678@{own};transport={transport.lower()}>",
        "Max-Forwards: 70",
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
    )
    return ("\r\n".join([*lines, "", ""]) + body).encode()


async def test_a_trunk_by_tls_is_answered_with_srtp_and_never_without(tmp_path: Path) -> None:
    values = certificate(tmp_path)
    async with own_pbx(tmp_path / "a", trunk="tls", trunk_values=values):
        unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        answers = {}
        for codec in (Encrypted(PCMA, "PCMA/8000", b""), Codec(PCMA, "PCMA/8000", b"")):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(values["TLS_PORT"]), ssl=unchecked)
            sdp = audio(None, codec).replace("[media_port]", "9")
            own = "127.0.0.1:{}".format(writer.get_extra_info("sockname")[1])
            writer.write(plain_invite(own, f"sip:31201234567@{own}", sdp=sdp, transport="TLS"))
            async with asyncio.timeout(10):
                status = "SIP/2.0 1"
                while status.startswith("SIP/2.0 1"):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    status = head.partition("\r\n")[0]
                    length = re.search(r"Content-Length: *(\d+)", head)
                    body = (await reader.readexactly(int(length[1]) if length else 0)).decode()
            answers[type(codec)] = status, "RTP/SAVP" in body and "a=crypto" in body
            writer.close()
        assert answers == {Encrypted: ("SIP/2.0 200 OK", True), Codec: ("SIP/2.0 488 Not Acceptable Here", False)}


# Each kind of trunk


SHAPES = {
    "address": {},
    "pbx": {},
    "registers": {"TRUNK_HOST": "127.0.0.1:9", "TRUNK_ACCOUNT": "account", "TRUNK_PASSWORD": "password"},
    "proxy": {"TRUNK_HOST": "carrier.example", "TRUNK_PROXY": "127.0.0.1:9"},
    "tls": {},
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_asterisk_takes_each_kind_of_trunk_without_a_word(tmp_path: Path, shape: str) -> None:
    values = SHAPES[shape] | (certificate(tmp_path) if shape == "tls" else {})
    async with own_pbx(tmp_path / "a", trunk=shape, trunk_values=values) as pbx:
        shown = await pbx.cli("pjsip show endpoint trunk")
        assert re.search(r"^ *timers +: always$", shown, re.MULTILINE), shown
        assert re.search(r"^ *aors +: trunk$", shown, re.MULTILINE), shown
        # That nobody is there is another matter.
        said = [line for line in pbx.log.read_text().splitlines() if OF_CONFIGURATION.search(line)]
        assert [
            line for line in said if "registration attempt" not in line and "No response received" not in line
        ] == []


REGISTRAR = """
<recv request="OPTIONS" optional="true" next="1"/>
<recv request="REGISTER"/>
<send><![CDATA[
SIP/2.0 401 Unauthorized
[last_Via:]
[last_From:]
[last_To:];tag=carrier
[last_Call-ID:]
[last_CSeq:]
WWW-Authenticate: Digest realm="carrier", nonce="5f2c"
Content-Length: 0

]]></send>
<recv request="REGISTER"><action>
<ereg regexp="username=.account.," search_in="hdr" header="Authorization:" check_it="true" assign_to="proof"/>
<ereg regexp="sip:[^&gt;]*" search_in="hdr" header="Contact:" check_it="true" assign_to="contact"/>
<log message="registered [$contact]"/>
</action></recv>
<Reference variables="proof"/>
<send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=carrier
[last_Call-ID:]
[last_CSeq:]
[last_Contact:]
Expires: 300
Content-Length: 0

]]></send>
<nop next="2"/>
<label id="1"/>
<send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=carrier
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
<label id="2"/>
<nop/>
"""


async def answer_to(pbx: Pbx, address: str, uri: str) -> str:
    """Invite an address of Asterisk's from elsewhere; gives the first line of the answer that is not provisional."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as phone:
        phone.bind((address, 0))
        phone.setblocking(False)
        own = f"{address}:{phone.getsockname()[1]}"
        phone.sendto(plain_invite(own, uri), ("127.0.0.1", pbx.settings.sip_port))
        async with asyncio.timeout(5):
            while True:
                line = (await asyncio.get_running_loop().sock_recv(phone, 4096)).decode().partition("\r\n")[0]
                if not line.startswith("SIP/2.0 1"):
                    return line


async def test_a_trunk_that_registers_is_known_by_what_it_was_told_and_not_by_its_address(tmp_path: Path) -> None:
    port = free_ports()
    carrier = Sipp(tmp_path, "registrar", REGISTRAR, port=port, address=CARRIER)
    await carrier.start()
    values = {"TRUNK_HOST": f"{CARRIER}:{port}", "TRUNK_ACCOUNT": "account", "TRUNK_PASSWORD": "secret-of-the-trunk"}
    try:
        async with own_pbx(tmp_path / "a", trunk="registers", trunk_values=values) as pbx:
            await carrier.until("registered", seconds=15)
            [told] = [line.removeprefix("registered ") for line in carrier.logged() if line.startswith("registered")]
            assert re.fullmatch(r"sip:account@[\d.:]+;line=\w+", told)
            assert await answer_to(pbx, ELSEWHERE, told) == "SIP/2.0 200 OK"
            assert await answer_to(pbx, ELSEWHERE, told.partition(";")[0]) == "SIP/2.0 401 Unauthorized"
            assert await answer_to(pbx, ELSEWHERE, f"{told[:-3]}xxx") == "SIP/2.0 401 Unauthorized"
            assert "Registered" in await pbx.cli("pjsip show registrations")
    finally:
        await carrier.end()


# Who is silent, and who is gone


# Half of the session timer of asterisk-conf/pjsip.conf, and twice SIP's patience (RFC 3261, timers B and F): for an
# answer to the question whether somebody is there, and from Asterisk 22 on to the goodbye.
GONE_SECONDS = 45 + round(2 * 64 * T1_MS / 1000)
# On a busy machine.
MARGIN_SECONDS = 8
# After so long without RTP calls were cut off once.
FORMER_BOUND_SECONDS = 60


async def silent_call(telephony: Phones, code: str) -> Caller:
    """Call without ever sending RTP; whoever is asked whether they are still there says so."""
    return await telephony.call(code, info=True)


async def test_who_is_silent_stays_and_who_is_gone_is_noticed_on_both_sides(tmp_path: Path, keys_folder: Path) -> None:
    async with own_pbx(tmp_path / "a", QuickPbx) as pbx, phones(pbx, tmp_path) as telephony:
        telephony.call_seconds = GONE_SECONDS + 60
        installation = Installation(tmp_path / "i", pbx)
        installation.write(keys_folder, more="[queues.default]\nannounce_seconds = 600\n")
        await installation.add_agents(*AGENTS)
        await installation.start()
        loop = asyncio.get_running_loop()
        try:
            async with (
                installation.dashboard("agent1") as one,
                installation.dashboard("agent2") as two,
                installation.dashboard("agent3") as three,
            ):
                talks: list[Caller] = []
                for name, board in (("agent1", one), ("agent2", two), ("agent3", three)):
                    await telephony.agent(name)
                    await board.available()
                    talks.append(await silent_call(telephony, await installation.log_in_citizen()))
                    await board.until("in_call")
                for board in (two, three):
                    await board.pause()
                waits = await silent_call(telephony, await installation.log_in_citizen())
                gone = await silent_call(telephony, await installation.log_in_citizen())
                await one._until(lambda now: now["waiting"] == 2, "two who wait", 15)
                began = loop.time()
                # A caller who talks and one who waits lose their network; the phone of an agent loses its power.
                for caller in (talks[1], gone):
                    caller._sipp.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
                await telephony._agents["agent3"].end()
                bound = GONE_SECONDS + MARGIN_SECONDS
                await asyncio.gather(
                    two.until("paused", seconds=bound),
                    three.until("paused", seconds=bound),
                    one._until(lambda now: now["waiting"] == 1, "one who waits", bound),
                )
                assert await talks[2].ended(seconds=10) == "by asterisk"
                # Nobody else was cut off, though that was done once after a minute.
                await asyncio.sleep(max(0.0, began + FORMER_BOUND_SECONDS + MARGIN_SECONDS - loop.time()))
                assert (one.snapshot["state"], one.snapshot["waiting"]) == ("in_call", 1)
                for caller in (talks[0], waits):
                    caller.go_on()
                    assert await caller.ended() == "by caller"
                for caller in (talks[1], gone):
                    caller._sipp.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
                await installation.until_nothing_is_left()
        finally:
            await installation.stop()
