"""All Asterisks of the contact centre, each with what keeps to it; together they ring every phone."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from idbellen.aio import first_of
from idbellen.asterisk.ari import Ari
from idbellen.asterisk.endpoints import Endpoints
from idbellen.asterisk.monitor import Monitor
from idbellen.asterisk.probe import Probe
from idbellen.asterisk.switchboard import Switchboard
from idbellen.calls.feature_codes import FeatureCodes
from idbellen.calls.stories import Stories
from idbellen.domain.whereabouts import Whereabouts
from idbellen.service.config import read_secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from idbellen.asterisk.ami import Ami
    from idbellen.calls.office import Office
    from idbellen.domain.agents import PhoneState
    from idbellen.domain.ids import AgentName
    from idbellen.domain.notes import CallNote
    from idbellen.ports import AccountStore, MonitorMode
    from idbellen.service.config import Settings
    from idbellen.service.pbx import Part

log = structlog.get_logger()


def ari_clients(settings: Settings, may_act: Callable[[], Awaitable[bool]] | None = None) -> Iterator[Ari]:
    """Give a client of each Asterisk.

    Raises:
        ConfigError: a password cannot be read.

    """
    app = settings.asterisk.app if settings.asterisk else ""
    for name, server in settings.servers.items():
        password = read_secret(server.password_file)
        yield Ari(server.url, app, server.user, password, may_act, server=name)


class Telephony:
    """The switchboards, and what they share. ``trunks``: over which the other Asterisks reach each of them.

    ``lent``: a PBX with queues of its own lends us its callers, and ``pbx`` tells what becomes of them.
    """

    def __init__(
        self,
        office: Office,
        accounts: AccountStore,
        trunks: Mapping[str, str],
        *,
        lent: bool = False,
        pbx: Ami | None = None,
    ) -> None:
        self._office = office
        self._accounts = accounts
        self._whereabouts = Whereabouts(trunks)
        self._endpoints: list[Endpoints] = []
        self._monitors: list[Monitor] = []
        self._probes: dict[str, Probe] = {}
        self._ready: list[asyncio.Event] = []
        self._lent, self._pbx = lent, pbx
        # The supervisors' phones that ring or listen now, on whichever Asterisk.
        self._listening: set[str] = set()
        self.parts: list[Part] = []
        office.desk.staff.news.on_change(self._want)

    def add(self, ari: Ari, earlier: Sequence[CallNote]) -> None:
        """Add an Asterisk; ``earlier``: the calls of an earlier process, of which it takes up its own."""
        name, staff = ari.server, self._office.desk.staff
        endpoints = Endpoints(ari, partial(self._tell, name), partial(self._forget, name))
        switchboard = Switchboard(
            ari,
            Stories(self._office),
            features=FeatureCodes(self._accounts, staff, endpoints),
            endpoints=endpoints,
            earlier=[note for note in earlier if note.server == name],
            dial=partial(self._whereabouts.dial, server=name),
        )
        monitor = Monitor(ari, switchboard.lines, switchboard.legs, staff.phones, self._listening)
        probe = Probe(ari, switchboard.ready)
        self._endpoints.append(endpoints)
        self._monitors.append(monitor)
        self._probes[name] = probe
        self._ready.append(switchboard.ready)
        self.parts += [(f"{type(part).__name__} {name}", part.run) for part in (switchboard, endpoints, monitor, probe)]
        self._want()

    async def close_strays(self, earlier: Sequence[CallNote]) -> None:
        """End the calls of an earlier process that were on an Asterisk which is no longer configured."""
        for note in earlier:
            if note.server not in self._probes:
                log.warning("call on an Asterisk that is no longer configured", call=note.call, server=note.server)
                await Stories(self._office).close(note)

    def readiness(self) -> tuple[bool, str]:
        """Give whether calls can be taken on one of them, or from a PBX, and what is wrong, in one line."""
        faults = {name: fault for name, probe in self._probes.items() if (fault := probe.why_not())}
        if self._pbx and not self._pbx.connected:
            faults["AMI"] = "no connection with the PBX"
        of_all = len(self._probes) + self._lent
        if of_all == 1:
            return not faults, "".join(faults.values())
        return len(faults) < of_all, "; ".join(f"{name}: {fault}" for name, fault in faults.items())

    async def ready(self) -> None:
        """Wait until one of them sends events, unless the dialplan of a PBX asks us: that waits for nothing."""
        if not self._lent:
            await first_of(*self._ready)

    async def request(self, agent: AgentName, endpoint: str, mode: MonitorMode, *, announce: bool) -> bool:
        """Let a supervisor listen, on the Asterisk that the agent's call is on (:class:`idbellen.ports.Monitor`)."""
        # Supervisors need not work as agents, so where their phone is may not have been asked yet.
        await asyncio.gather(*(endpoints.follow(endpoint) for endpoints in self._endpoints))
        for monitor in self._monitors:
            if monitor.has(agent):
                return await monitor.request(agent, endpoint, mode, announce=announce)
        return False

    def _want(self) -> None:
        for endpoints in self._endpoints:
            endpoints.want(phone for agent in self._office.desk.staff.agents.values() for phone in agent.phones)

    def _tell(self, server: str, endpoint: str, state: PhoneState | None) -> None:
        self._office.desk.staff.set_phone(endpoint, self._whereabouts.tell(server, endpoint, state))

    def _forget(self, server: str) -> None:
        for endpoint, state in self._whereabouts.forget(server).items():
            self._office.desk.staff.set_phone(endpoint, state)
