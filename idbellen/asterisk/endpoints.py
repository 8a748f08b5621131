"""What Asterisk knows of agents' phones before they are rung: its device states."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog

from idbellen.asterisk.ari import Ari, AriError, AriUnreachableError
from idbellen.domain.agents import PhoneState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from idbellen.asterisk.events import DeviceStateChanged

log = structlog.get_logger()

# So many phones are let go in one request; a stop waits no longer for all of them.
AT_ONCE = 50
LET_GO_SECONDS = 2.0

_STATES = {
    "NOT_INUSE": PhoneState.IDLE,
    "INUSE": PhoneState.BUSY,
    "BUSY": PhoneState.BUSY,
    "RINGING": PhoneState.BUSY,
    "RINGINUSE": PhoneState.BUSY,
    "ONHOLD": PhoneState.BUSY,
    "UNAVAILABLE": PhoneState.UNREGISTERED,
    # Not INVALID: that is also said of what is no device at all, such as a number behind a trunk (PJSIP/06@trunk).
}


class Endpoints:
    """Follows the phones that somebody uses; each change is told at once, in the order in which Asterisk tells it."""

    def __init__(self, ari: Ari, tell: Callable[[str, PhoneState], None]) -> None:
        self._ari = ari
        self._tell = tell
        self._wanted: dict[str, None] = {}
        self._followed: set[str] = set()
        # Of which an event came since they were last asked for.
        self._heard: set[str] = set()
        self._work = asyncio.Event()

    def want(self, endpoints: Iterable[str]) -> None:
        """Follow these phones from now on too."""
        new = [endpoint for endpoint in endpoints if endpoint not in self._wanted]
        if new:
            self._wanted.update(dict.fromkeys(new))
            self._work.set()

    def connected(self) -> None:
        """Look at all phones again after a time without events."""
        self._followed.clear()
        self._work.set()

    def lost(self) -> None:
        """Know of no phone any more how it is: nobody shall wait for one whose change is never told."""
        for endpoint in self._wanted:
            self._tell(endpoint, PhoneState.UNKNOWN)

    async def let_go(self) -> None:
        """Follow no phone any more, before the connection is closed in good order.

        Asterisk 22 can lock itself up for good when it ends what a closed connection follows while one of these phones
        changes (asterisk/asterisk, issue 2170).
        """
        followed = sorted(self._followed)
        self._followed.clear()
        try:
            async with asyncio.timeout(LET_GO_SECONDS):
                for first in range(0, len(followed), AT_ONCE):
                    sources = ",".join(f"deviceState:{endpoint}" for endpoint in followed[first : first + AT_ONCE])
                    path = f"/applications/{self._ari.app}/subscription"
                    await self._ari.request("DELETE", path, eventSource=sources)
        except (AriError, TimeoutError) as fault:
            log.warning("phones still followed at the end", reason=str(fault) or "no answer in time")

    def take(self, event: DeviceStateChanged) -> None:
        """Note one event."""
        self._heard.add(event.device)
        self._tell(event.device, _STATES.get(event.state, PhoneState.UNKNOWN))

    async def run(self) -> None:
        """Follow what is wanted, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            for endpoint in self._wanted.keys() - self._followed:
                await self.follow(endpoint)

    async def follow(self, endpoint: str) -> None:
        """Follow a phone from now on, and tell how it is now.

        Where Asterisk does not tell, the phone stays *unknown*: it is rung to find out.
        """
        self._wanted[endpoint] = None
        self._heard.discard(endpoint)
        try:
            # In this order, so that no change falls in between.
            path = f"/applications/{self._ari.app}/subscription"
            await self._ari.request("POST", path, eventSource=f"deviceState:{endpoint}")
            now = await self._ari.request("GET", f"/deviceStates/{quote(endpoint, safe='')}")
        except AriUnreachableError:
            # We shall be told when it is back.
            return
        except AriError as fault:
            log.error("state of a phone is not told: run 'idbellen check'", endpoint=endpoint, reason=str(fault))  # noqa: TRY400
            self._followed.add(endpoint)
            return
        self._followed.add(endpoint)
        # The answer may have been on its way for longer than an event, which then is the newer of the two.
        if endpoint not in self._heard:
            self._tell(endpoint, _STATES.get(now["state"], PhoneState.UNKNOWN))
