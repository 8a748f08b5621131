"""Listening for HTTP, and telling systemd."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from idbellen.domain.idcontact import LARGEST_TOKEN
from idbellen.rules import StartError

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

log = structlog.get_logger()

SITE_STOP_SECONDS = 2.0


async def listen(
    stack: AsyncExitStack, app: web.Application, address: str, table: str, *, stop: float = SITE_STOP_SECONDS
) -> None:
    """Listen for as long as the stack is open; ``table`` of the configuration has the address.

    ``stop``: how long requests under way may take at its end, in seconds.

    Raises:
        StartError: it cannot be listened on.

    """
    # No access log: the paths hold handles.
    # And room for an auth result in the address of the citizen's page.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=stop, max_line_size=LARGEST_TOKEN + 1024)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host, int(port)).start()
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise StartError(f"[{table}] listen: {address} cannot be listened on: {reason}") from None


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
