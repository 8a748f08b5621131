"""What Asterisk knows of agents' phones before they are rung: whether they are there, and have a channel.

Not its device states, which say the same: Asterisk 22 can lock itself up for good when it ends an application's
subscription to one that changes at that moment (asterisk/asterisk, issue 2170), and a process that dies ends them all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog

from idbellen import ports
from idbellen.asterisk.ari import Ari, AriError, AriUnreachableError, GoneError
from idbellen.asterisk.events import endpoint_state
from idbellen.domain.agents import PhoneState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from idbellen.asterisk.events import EndpointStateChanged

log = structlog.get_logger()

_STATES = {"online": PhoneState.IDLE, "offline": PhoneState.UNREGISTERED}


class Endpoints(ports.Endpoints):
    """Follows the phones that somebody uses; each change is told at once, in the order in which Asterisk tells it.

    ``tell`` gets None for what is no endpoint of this Asterisk; ``forget`` is called when it tells nothing any more.
    """

    def __init__(self, ari: Ari, tell: Callable[[str, PhoneState | None], None], forget: Callable[[], None]) -> None:
        self._ari = ari
        self._tell = tell
        self._forget = forget
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
        self._forget()

    def take(self, event: EndpointStateChanged) -> None:
        """Note one event."""
        self._heard.add(event.endpoint)
        self._tell(event.endpoint, _meaning(event))

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
        technology, _, resource = endpoint.partition("/")
        path = f"/endpoints/{technology}/{quote(resource, safe='')}"
        try:
            # Asked first, since Asterisk logs a warning when what it does not know is to be followed; and once more
            # afterwards, so that no change falls in between.
            await self._ari.request("GET", path)
            following = f"/applications/{self._ari.phones_app}/subscription"
            await self._ari.request("POST", following, eventSource=f"endpoint:{endpoint}")
            now = await self._ari.request("GET", path)
        except GoneError:
            # Such as a number behind a trunk (PJSIP/06@trunk), or a phone of another of several Asterisks.
            log.info("no endpoint of this Asterisk", endpoint=endpoint, server=self._ari.server)
            self._followed.add(endpoint)
            self._tell(endpoint, None)
            return
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
            self._tell(endpoint, _meaning(endpoint_state(now)))


def _meaning(event: EndpointStateChanged) -> PhoneState:
    return PhoneState.BUSY if event.busy else _STATES.get(event.state, PhoneState.UNKNOWN)
