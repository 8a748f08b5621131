"""The trunk is its address: whatever name From carries, and nobody else's name makes a trunk of who calls."""

from __future__ import annotations

import asyncio
import secrets
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from idbellen.demo.pbx import Pbx
    from tests.support.installation import Installation
    from tests.support.sipp import Phones

ELSEWHERE = "127.0.0.9"


async def answer_to_invite(pbx: Pbx, address: str, name: str) -> str:
    """Invite Asterisk from an address, under a name; gives the first line of the answer that is not provisional."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as phone:
        phone.bind((address, 0))
        phone.setblocking(False)
        own = f"{address}:{phone.getsockname()[1]}"
        there = f"127.0.0.1:{pbx.settings.sip_port}"
        lines = (
            f"INVITE sip:+31201234567@{there} SIP/2.0",
            f"Via: SIP/2.0/UDP {own};branch=z9hG4bK{secrets.token_hex(8)}",
            f"From: <sip:{name}@{own}>;tag=x",
            f"To: <sip:+31201234567@{there}>",
            f"Call-ID: {secrets.token_hex(8)}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:{name}@{own}>",
            "Max-Forwards: 70",
            "Content-Length: 0",
        )
        phone.sendto("\r\n".join([*lines, "", ""]).encode(), ("127.0.0.1", pbx.settings.sip_port))
        async with asyncio.timeout(5):
            while True:
                line = (await asyncio.get_running_loop().sock_recv(phone, 4096)).decode().partition("\r\n")[0]
                if not line.startswith("SIP/2.0 1"):
                    return line


@pytest.mark.parametrize("name", ["trunk", "agent1", "nobody", "+31687654321", "idbellen-trunk"])
async def test_who_calls_from_elsewhere_is_no_trunk(pbx: Pbx, name: str) -> None:
    before = await pbx.cli("core show calls")
    assert "calls processed" in before
    assert await answer_to_invite(pbx, ELSEWHERE, name) == "SIP/2.0 401 Unauthorized"
    assert await pbx.cli("core show calls") == before


@pytest.mark.parametrize("name", ["agent1", "trunk", "anonymous"])
async def test_who_calls_by_the_trunk_is_served_whatever_they_are_called(
    installation: Installation, telephony: Phones, name: str
) -> None:
    async with installation.dashboard("agent1") as dashboard:
        await telephony.agent("agent1")
        await dashboard.available()
        telephony.caller_number = name
        caller = await telephony.call(await installation.log_in_citizen())
        talking = await dashboard.until("in_call")
        assert (await dashboard.attributes(talking["call"]["secret"]))[1]["status"] == "verified"
        caller.go_on()
        assert await caller.ended() == "by caller"
        await dashboard.until("available")
