"""Whether Asterisk answers, asked now and then: some of its requests can hang while its events still come."""

from __future__ import annotations

import asyncio

import structlog

from idbellen.asterisk.ari import Ari, AriError

log = structlog.get_logger()

PROBE_SECONDS = 5.0
_NOT_ASKED = "Asterisk has not been asked yet"


class Probe:
    """Knows whether calls can be taken; ``connected``: whether events come. It works while :meth:`run` runs."""

    def __init__(self, ari: Ari, connected: asyncio.Event) -> None:
        self._ari = ari
        self._connected = connected
        self._fault: str | None = _NOT_ASKED

    def why_not(self) -> str | None:
        """Give why calls cannot be taken, in one line; None if they can."""
        return self._fault if self._connected.is_set() else "no connection for Asterisk's events"

    async def run(self) -> None:
        """Ask, until cancelled."""
        while True:
            before, self._fault = self._fault, await self._ask()
            # Without events the loss of the connection has been logged.
            if self._fault and before in (None, _NOT_ASKED) and self._connected.is_set():
                log.error("Asterisk sends events and answers no requests", reason=self._fault)
            await asyncio.sleep(PROBE_SECONDS)

    async def _ask(self) -> str | None:
        try:
            # The request of those that hang when a channel of Asterisk's is locked for ever.
            await self._ari.request("GET", "/channels")
        except AriError as fault:
            return str(fault)
        return None
