"""From which address a request comes, also when a web server stands before us."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiohttp import web

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
FORWARDED = "X-Forwarded-For"
# Whoever has one IPv6 address has all of its network (RFC 6177).
IPV6_PREFIX = 64


@dataclass(frozen=True, slots=True)
class Addresses:
    """Tells who is behind a request. ``trusted``: the web servers before us, whose ``X-Forwarded-For`` is believed."""

    trusted: Collection[Network] = field(default=())

    def trusts(self, address: str) -> bool:
        """Whether this is the address of a web server before us."""
        found = _parse(address)
        return found is not None and any(found in network for network in self.trusted)

    def of(self, request: web.Request) -> str:
        """Give the address that a request comes from: that of a network for IPv6, empty if it is not known.

        Of the addresses in ``X-Forwarded-For`` each web server adds one at the end, so only what ours have added
        counts: the last one that is none of them. What stands before that may be made up by whoever asks.
        """
        address = request.remote or ""
        written = [part.strip() for line in request.headers.getall(FORWARDED, ()) for part in line.split(",")]
        while written and self.trusts(address):
            address = written.pop()
        return network_of(address)


def network_of(address: str) -> str:
    """Give the address under which one party is known; empty for what is no address."""
    found = _parse(address)
    if found is None:
        return ""
    if found.version == 6:  # noqa: PLR2004
        return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))
    return str(found)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
