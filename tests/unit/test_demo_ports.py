"""The demo's ports: each is for one thing."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from idbellen.demo.ports import Ports, PortsError, must_be_free, ports_from_environment
from tests.support.ports import reserved_ports


def asked(monkeypatch: pytest.MonkeyPatch, web: int, sip: int) -> Ports:
    monkeypatch.setenv("IDBELLEN_DEMO_PORT", str(web))
    monkeypatch.setenv("IDBELLEN_DEMO_SIP_PORT", str(sip))
    return ports_from_environment()


@pytest.mark.parametrize(
    ("web", "sip", "shared"),
    [
        (8080, 8070, "port 8080 would be both municipality and agent phone"),
        (8081, 8070, "port 8081 would be both municipality and agent phone"),
        (8080, 8080, "port 8080 would be both municipality and SIP"),
        (8080, 8064, "port 8080 would be both municipality and citizen phone control"),
        (17398, 5070, "port 17398 would be both municipality and sound at Asterisk"),
        (8080, 17390, "port 17402 would be both agent phone control and sound of the phones"),
        (17499, 5070, "port 17499 would be both municipality and sound of the phones"),
    ],
)
def test_ports_that_meet_are_told(monkeypatch: pytest.MonkeyPatch, web: int, sip: int, shared: str) -> None:
    with pytest.raises(PortsError, match=f"{shared}: set IDBELLEN_DEMO_PORT .{web}. or"):
        asked(monkeypatch, web, sip)


@pytest.mark.parametrize(("web", "sip"), [(8080, 5070), (8080, 8087), (8080, 8053), (1024, 65000)])
def test_ports_that_do_not_meet_are_taken(monkeypatch: pytest.MonkeyPatch, web: int, sip: int) -> None:
    assert asked(monkeypatch, web, sip) == Ports(web, sip)


@pytest.mark.parametrize("web", ["80", "65001", "x", "-1", ""])
def test_what_is_no_port_is_told(monkeypatch: pytest.MonkeyPatch, web: str) -> None:
    monkeypatch.setenv("IDBELLEN_DEMO_PORT", web)
    with pytest.raises(PortsError, match="IDBELLEN_DEMO_PORT: expected a port from 1024 to 65000"):
        ports_from_environment()


@pytest.mark.parametrize(
    ("offset", "kind", "address"),
    [
        (0, socket.SOCK_STREAM, "127.0.0.1"),
        (20, socket.SOCK_DGRAM, "127.0.0.1"),
        # A phone's port for TLS, and the address of agents' phones.
        (31, socket.SOCK_STREAM, "127.0.0.2"),
    ],
)
def test_a_port_that_somebody_uses_is_told(offset: int, kind: socket.SocketKind, address: str) -> None:
    with reserved_ports(60) as first, closing(socket.socket(socket.AF_INET, kind)) as taken:
        ports = Ports(first, first + 20)
        must_be_free(ports)
        taken.bind((address, first + offset))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        with pytest.raises(PortsError, match=f"port {first + offset} .* cannot be used: Address already in use"):
            must_be_free(ports)
