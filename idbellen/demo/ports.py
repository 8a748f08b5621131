"""The demo's ports, all on loopback: what listens where, and whether it can."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations

from idbellen.demo.phones import AGENTS_ADDRESS

# Of Asterisk, and of all phones.
RTP_PORTS = (17000, 17399)
PHONE_RTP_PORTS = (17400, 17499)


class PortsError(Exception):
    """A port cannot be used; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The demo's ports, all on loopback: a row of web ports, and those of telephony."""

    web: int
    sip: int

    @property
    def named(self) -> dict[str, int]:
        """The TCP ports by what they are for."""
        names = (
            "municipality", "citizen page", "dashboard", "ID Contact interface", "authentication", "ARI",
            "second authentication",
        )  # fmt: skip
        return {name: self.web + offset for offset, name in enumerate(names)} | {
            "agent phone control": self.sip + 12,
            "citizen phone control": self.sip + 16,
            "colleague's phone control": self.sip + 22,
            "supervisor's phone control": self.sip + 26,
        }

    @property
    def phones(self) -> dict[str, int]:
        """The ports of SIP by what they are for, of UDP and TCP; two above that of a phone is for its control."""
        return {
            "SIP": self.sip,
            "agent phone": self.sip + 10,
            "citizen phone": self.sip + 14,
            "colleague's phone": self.sip + 20,
            "supervisor's phone": self.sip + 24,
        }

    @property
    def claimed(self) -> list[tuple[str, range]]:
        """All of them, each with what it is for; a phone also takes the port after its SIP port, for TLS."""
        rtp = (("sound at Asterisk", RTP_PORTS), ("sound of the phones", PHONE_RTP_PORTS))
        return [
            *((name, range(port, port + 1)) for name, port in self.named.items()),
            *((name, range(port, port + 2)) for name, port in self.phones.items()),
            *((name, range(first, last + 1)) for name, (first, last) in rtp),
        ]

    def url(self, name: str) -> str:
        """The address of one of them."""
        return f"http://127.0.0.1:{self.named[name]}"


def ports_from_environment() -> Ports:
    """Give the ports that ``IDBELLEN_DEMO_PORT`` and ``IDBELLEN_DEMO_SIP_PORT`` ask for.

    Raises:
        PortsError: they are no port numbers, or lead to one port for two things.

    """
    found = []
    for name, default in (("IDBELLEN_DEMO_PORT", "8080"), ("IDBELLEN_DEMO_SIP_PORT", "5070")):
        value = os.environ.get(name, default)
        if not value.isdecimal() or not 1024 <= int(value) <= 65000:  # noqa: PLR2004
            raise PortsError(f"{name}: expected a port from 1024 to 65000")
        found.append(int(value))
    ports = Ports(*found)
    for (name, some), (other, others) in combinations(ports.claimed, 2):
        if shared := range(max(some.start, others.start), min(some.stop, others.stop)):
            raise PortsError(
                f"port {shared.start} would be both {name} and {other}: set IDBELLEN_DEMO_PORT ({ports.web}) or "
                f"IDBELLEN_DEMO_SIP_PORT ({ports.sip}) to another number"
            )
    return ports


def must_be_free(ports: Ports) -> None:
    """Make sure that nobody uses them.

    Raises:
        PortsError: somebody does.

    """
    for name, port in ports.named.items():
        _try(name, port, socket.SOCK_STREAM)
    for name, port in ports.phones.items():
        for address in ("127.0.0.1", AGENTS_ADDRESS):
            _try(name, port, socket.SOCK_DGRAM, address)
            _try(name, port, socket.SOCK_STREAM, address)
            _try(name, port + 1, socket.SOCK_STREAM, address)


def _try(name: str, port: int, kind: socket.SocketKind, address: str = "127.0.0.1") -> None:
    with closing(socket.socket(socket.AF_INET, kind)) as attempt:
        if kind is socket.SOCK_STREAM:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address, port))
        except OSError as fault:
            raise PortsError(
                f"port {port} ({name}) cannot be used: {fault.strerror}. Does the demo run already? "
                "Stop what uses it, or set IDBELLEN_DEMO_PORT and IDBELLEN_DEMO_SIP_PORT to other numbers"
            ) from None
