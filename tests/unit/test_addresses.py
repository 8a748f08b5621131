"""From which address a request comes."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request

from idbellen.web.addresses import Addresses, network_of

OURS = Addresses((ip_network("127.0.0.0/8"), ip_network("10.0.0.5/32")))


def asked(peer: str, *forwarded: str, addresses: Addresses = OURS) -> str:
    headers = [("X-Forwarded-For", line) for line in forwarded]
    request = make_mocked_request("GET", "/", headers)
    return addresses.of(request.clone(remote=peer))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        # Who is not trusted may write what they like.
        ("192.0.2.1", ["192.0.2.2"], "192.0.2.1"),
        # What stands before the address that our web server saw was sent by who asks.
        ("127.0.0.1", ["192.0.2.9, 192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.9", "192.0.2.1"], "192.0.2.1"),
        # Two of ours, one behind the other.
        ("127.0.0.1", ["192.0.2.1, 10.0.0.5"], "192.0.2.1"),
        ("127.0.0.1", ["10.0.0.5"], "10.0.0.5"),
        ("127.0.0.1", ["unknown"], ""),
        ("127.0.0.1", [""], ""),
        ("::ffff:127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
    ],
)
def test_the_address_is_what_our_own_web_servers_saw(peer: str, forwarded: list[str], expected: str) -> None:
    assert asked(peer, *forwarded) == expected


def test_who_has_an_ipv6_network_is_one_party() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::2") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("nobody") == ""
