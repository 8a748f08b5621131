"""Listening for HTTP, with a share of the descriptors for each listener, and telling systemd."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

import structlog

from idbellen.asterisk.agi import MOST_CALLS
from idbellen.domain.crowd import shares
from idbellen.domain.idcontact import LARGEST_TOKEN
from idbellen.service.rules import StartError
from idbellen.web.addresses import Addresses
from idbellen.web.connections import Front

if TYPE_CHECKING:
    from aiohttp import web

    from idbellen.service.config import Settings

log = structlog.get_logger()

SITE_STOP_SECONDS = 2.0
# Room for an auth result in the address of the citizen's page.
LARGEST_LINE = LARGEST_TOKEN + 1024
# As systemd/idbellen.service has it.
WANTED_DESCRIPTORS = 65_536
# So many connections each listener has, if there are descriptors for all.
ROOM = {"citizen": 4096, "dashboard": 2048, "idcontact": 512, "link_phone": 512, "agi": MOST_CALLS}
# A relayed one goes on to another process, and one that gets a file reads that.
DESCRIPTORS_EACH = 2
# What else needs some: the store (of SQLite three for each thread), session feedback, AMI and the log; ARI's requests;
# and connections that are accepted and not yet counted, or refused and not yet closed.
OWN_DESCRIPTORS = 256
DESCRIPTORS_OF_AN_ASTERISK = 64
DESCRIPTORS_AT_THE_DOOR = 32


def raise_descriptors() -> None:
    """Take as many descriptors as the system lets us have, and as we have use for.

    By ``prlimit``, which the unit's filter of system calls allows, while it ends who calls ``setrlimit``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, WANTED_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.prlimit(0, resource.RLIMIT_NOFILE, (wanted, hard))


def rooms(settings: Settings) -> dict[str, int]:
    """Give how many connections each listener may have, by the table of the configuration.

    All together leave what everything else needs, ARI above all.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = WANTED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    wanted = {name: room for name, room in ROOM.items() if getattr(settings, name) is not None}
    others = OWN_DESCRIPTORS + DESCRIPTORS_OF_AN_ASTERISK * len(settings.servers)
    available = limit - others - DESCRIPTORS_AT_THE_DOOR * len(wanted)
    return shares(max(0, available) // DESCRIPTORS_EACH, wanted)


class Listeners:
    """The listeners for HTTP of this process, for as long as the context is open; at its end all end at once.

    One after the other they could take longer than systemd gives a planned stop. ``stop``: how long requests under
    way may take then, in seconds.
    """

    def __init__(self, settings: Settings, *, stop: float = SITE_STOP_SECONDS) -> None:
        self._settings = settings
        self._stop = stop
        self._open: list[AsyncExitStack] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        ends = asyncio.gather(*(listener.aclose() for listener in self._open), return_exceptions=True)
        try:
            await asyncio.shield(ends)
        except asyncio.CancelledError:
            # Cancelled once more, as a task group does since Python 3.13: the addresses must be free after us.
            await ends
            raise
        for end in ends.result():
            # What was cancelled in there is no cancellation of ours, which would hide why we end.
            if isinstance(end, Exception):
                raise end

    async def listen(self, app: web.Application, table: str) -> None:
        """Listen at the address in a table of the configuration.

        Raises:
            StartError: it cannot be listened on.

        """
        own = self._settings
        address: str = getattr(own, table).listen
        host, _, port = address.rpartition(":")
        addresses = Addresses(own.proxies.trusted) if table == "citizen" else None
        front = Front(table, rooms(own)[table], LARGEST_LINE, addresses)
        listener = AsyncExitStack()
        try:
            await listener.enter_async_context(front.open(app, host, int(port), stop=self._stop))
        except OSError as fault:
            reason = fault.strerror or str(fault)
            raise StartError(f"[{table}] listen: {address} cannot be listened on: {reason}") from None
        self._open.append(listener)


def notify_systemd(state: str) -> None:
    """Tell systemd, if it started us with ``Type=notify``, how we are (``man sd_notify``)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.connect(address)
            notify.sendall(state.encode())
        except OSError as fault:
            log.warning("systemd could not be told", state=state, reason=fault.strerror)
