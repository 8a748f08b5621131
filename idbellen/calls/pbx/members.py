"""Members of the PBX's queues are our agents: who is available or paused here is so there, and the other way round.

A dashboard that opens, pauses or closes logs the agent's phone in to the PBX's queues, pauses it or logs it out; a
member who pauses by a feature code of the PBX is paused here too. The newest wish holds.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from idbellen.domain.agents import Agent, AgentState
from idbellen.domain.wiring import Lost, Member, MemberGone, Members, PbxEvent, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from idbellen.calls.staff import Staff
    from idbellen.domain.ids import AgentName, QueueName

log = structlog.get_logger()

# News of our own change comes this soon after it; what comes later is somebody else's.
OWN_NEWS_SECONDS = 3.0
# So long after a refusal it is tried again.
RETRY_SECONDS = 10.0


class MemberControl(Protocol):
    """Changes the members of the PBX's queues. Each gives whether it was done."""

    async def add_member(self, queue: str, interface: str, *, name: str, penalty: int, state: str) -> bool:
        """Log a member in, who is not paused; ``state``: the phone whose state counts."""
        ...

    async def remove_member(self, queue: str, interface: str) -> bool:
        """Log a member out."""
        ...

    async def pause_member(self, queue: str, interface: str, *, paused: bool, reason: str) -> bool:
        """Pause a member, or end the pause."""
        ...


@dataclass(frozen=True, slots=True)
class MemberRules:
    """``queues``: the PBX's, with ours. ``interface``: what a queue rings; ``state``: the phone whose state counts.

    In the latter two, ``{endpoint}`` stands for a phone of the agent (``PJSIP/ann``), each of which is a member then,
    or else ``{name}`` for the name of the first (``ann``), or ``{account}`` for the agent's own: a PBX that is given
    only a name knows itself which phones it rings for that.
    """

    queues: Mapping[str, QueueName]
    interface: str = "{endpoint}"
    state: str = "{endpoint}"

    def interfaces_of(self, agent: Agent) -> dict[str, str]:
        """Give what a queue rings to reach an agent, each with whose state counts."""
        phones = agent.phones if "{endpoint}" in self.interface else agent.phones[:1]
        return {_filled(self.interface, agent, phone): _filled(self.state, agent, phone) for phone in phones}


def _filled(pattern: str, agent: Agent, phone: str) -> str:
    values = {"{endpoint}": phone, "{name}": phone.partition("/")[2], "{account}": agent.name}
    for name, value in values.items():
        pattern = pattern.replace(name, value)
    return pattern


@dataclass(frozen=True, slots=True)
class _Wish:
    """What an agent wants of a member of a queue."""

    agent: Agent
    state: str
    paused: bool


@dataclass(frozen=True, slots=True)
class _Change:
    queue: str
    interface: str
    agent: AgentName
    # None: out of the queue.
    wish: _Wish | None
    known: Member | None

    @property
    def paused(self) -> bool | None:
        """What the member is to be; None: no member."""
        if self.wish:
            return self.wish.paused
        return None if self.known is None or self.known.dynamic else True


class PbxMembers:
    """Keeps agents and members alike."""

    def __init__(self, staff: Staff, control: MemberControl, rules: MemberRules) -> None:
        self._staff = staff
        self._control = control
        self._rules = rules
        self._known: dict[tuple[str, str], Member] = {}
        # Those whom a dashboard has brought here, and takes with it when it goes, with the agent's name.
        self._ours: dict[tuple[str, str], AgentName] = {}
        self._own_news: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._connected = False
        self._wake = asyncio.Event()
        staff.news.on_change(self._wake.set)

    async def run(self) -> None:
        """Carry over what changes here, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._let_one_work_with_each_phone()
            failed = False
            for change in list(self._changes()):
                failed |= not await self._apply(change)
            if failed and self._connected:
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    def take(self, event: PbxEvent) -> None:
        """Take in what the PBX tells of its members."""
        match event:
            case Snapshot(members=members):
                self._connected = True
                self._own_news.clear()
                self._known = {(member.queue, member.interface): member for member in members}
                self._wake.set()
            case Lost():
                self._connected = False
            case Members(members=members):
                self._compare({(member.queue, member.interface): member for member in members})
            case Member(queue=queue, interface=interface):
                if not self._is_own((queue, interface)):
                    self._changed(event)
            case MemberGone(queue=queue, interface=interface):
                if not self._is_own((queue, interface)):
                    self._gone((queue, interface))

    def _changed(self, member: Member) -> None:
        key = member.queue, member.interface
        before = self._known.get(key)
        self._known[key] = member
        if before is None or before.paused != member.paused:
            self._follow(member.interface, available=not member.paused)

    def _gone(self, key: tuple[str, str]) -> None:
        self._known.pop(key, None)
        self._ours.pop(key, None)
        self._follow(key[1], available=False)

    def _compare(self, found: Mapping[tuple[str, str], Member]) -> None:
        """Take in what has changed without news: most likely somebody has changed the PBX's configuration.

        Of what we have just changed ourselves the news is still to come.
        """
        for key in self._known.keys() - found.keys():
            if not self._expects_own(key):
                log.info("member is gone from the PBX's queue", queue=key[0], interface=key[1])
                self._gone(key)
        for key, member in found.items():
            if self._expects_own(key):
                continue
            if key not in self._known and not member.dynamic:
                # Whoever wrote it down there says that the agent serves the queue, and not that they are there now.
                self._known[key] = member
            else:
                self._changed(member)
        self._wake.set()

    def _expects_own(self, key: tuple[str, str]) -> bool:
        expected, now = self._own_news[key], asyncio.get_running_loop().time()
        while expected and expected[0] < now - OWN_NEWS_SECONDS:
            expected.popleft()
        return bool(expected)

    def _is_own(self, key: tuple[str, str]) -> bool:
        own = self._expects_own(key)
        if own:
            self._own_news[key].popleft()
        return own

    def _follow(self, interface: str, *, available: bool) -> None:
        agents = [
            agent
            for agent in self._staff.agents.values()
            if _here(agent) and interface in self._rules.interfaces_of(agent)
        ]
        if available:
            # Of those who share a phone, whoever has come last is at it.
            agents = sorted(agents, key=lambda agent: (_wants(agent), agent.since))[-1:]
        for agent in agents:
            if available != _wants(agent):
                log.info("agent follows the PBX", agent=agent.name, available=available)
                if available:
                    self._staff.set_available(agent.name)
                else:
                    self._staff.pause(agent.name, "")

    def _let_one_work_with_each_phone(self) -> None:
        """Pause whoever was available with a phone before somebody else was.

        The PBX knows the phone, and not who is at it.
        """
        taken: set[str] = set()
        for agent in sorted(self._staff.agents.values(), key=lambda agent: agent.since, reverse=True):
            if _here(agent) and _wants(agent):
                if taken.isdisjoint(agent.phones):
                    taken.update(agent.phones)
                else:
                    log.info("somebody else works with this phone now", agent=agent.name)
                    self._staff.pause(agent.name, "")

    def _wishes(self) -> dict[tuple[str, str], _Wish]:
        wishes: dict[tuple[str, str], _Wish] = {}
        for agent in filter(_here, self._staff.agents.values()):
            interfaces = self._rules.interfaces_of(agent)
            # Who talks on one of several phones is not rung on another: the PBX takes each for a member of its own.
            paused = not _wants(agent) or (agent.engaged and len(interfaces) > 1)
            for queue, ours in self._rules.queues.items():
                for interface, state in interfaces.items() if agent.penalty(ours) is not None else ():
                    before = wishes.get((queue, interface))
                    if before is None or before.paused:
                        wishes[queue, interface] = _Wish(agent, state, paused)
        return wishes

    def _changes(self) -> Iterator[_Change]:
        if not self._connected:
            return
        wishes = self._wishes()
        for key, wish in wishes.items():
            known = self._known.get(key)
            self._ours[key] = wish.agent.name
            # An agent who is paused and no member may stay out.
            if known.paused != wish.paused if known else not wish.paused:
                yield _Change(*key, wish.agent.name, wish, known)
        for key in self._ours.keys() - wishes.keys():
            name, known = self._ours.pop(key), self._known.get(key)
            if known and (known.dynamic or not known.paused):
                yield _Change(*key, name, None, known)

    async def _apply(self, change: _Change) -> bool:
        key = change.queue, change.interface
        since = asyncio.get_running_loop().time()
        self._own_news[key].append(since)
        wish, known, paused = change.wish, change.known, change.paused
        if paused is None:
            self._known.pop(key, None)
            done = await self._control.remove_member(*key)
        elif wish and known is None:
            self._known[key] = Member(*key, paused=False)
            penalty = wish.agent.penalty(self._rules.queues[change.queue]) or 0
            done = await self._control.add_member(*key, name=change.agent, penalty=penalty, state=wish.state)
        else:
            self._known[key] = Member(*key, paused=paused, dynamic=known is None or known.dynamic)
            reason = wish.agent.reason if wish else ""
            done = await self._control.pause_member(*key, paused=paused, reason=reason)
        if done:
            log.info("member of the PBX's queue", agent=change.agent, queue=change.queue, paused=paused)
            return True
        # No news of it will come, and who has left is taken out at the next try.
        with suppress(ValueError):
            self._own_news[key].remove(since)
        if wish is None:
            self._ours[key] = change.agent
        if known:
            self._known[key] = known
        else:
            self._known.pop(key, None)
        return False


def _here(agent: Agent) -> bool:
    return agent.state is not AgentState.OFFLINE


def _wants(agent: Agent) -> bool:
    """Whether the queue may ring them, when the call in hand is over."""
    return (agent.afterwards if agent.engaged else agent.state) is AgentState.AVAILABLE
