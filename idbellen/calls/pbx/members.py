"""Members of the PBX's queues are our agents: who is available or paused here is so there, and the other way round.

A dashboard that opens, pauses or closes logs the agent's phone in to the PBX's queues, pauses it or logs it out; a
member who pauses by a feature code of the PBX is paused here too. The newest wish holds.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from idbellen.domain.agents import Agent, AgentState
from idbellen.domain.wiring import Lost, Member, MemberGone, PbxEvent, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from idbellen.calls.staff import Staff
    from idbellen.domain.ids import QueueName

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
    """``queues``: the PBX's, with ours. ``interface``: what a queue rings, with ``{endpoint}`` or ``{name}`` in it.

    The endpoint is ``PJSIP/ann`` and its name ``ann``.
    """

    queues: Mapping[str, QueueName]
    interface: str = "{endpoint}"

    def interface_of(self, endpoint: str) -> str:
        """Give what a queue rings to reach an endpoint."""
        return self.interface.replace("{endpoint}", endpoint).replace("{name}", endpoint.partition("/")[2])


@dataclass(frozen=True, slots=True)
class _Change:
    queue: str
    interface: str
    agent: Agent
    # None: out of the queue.
    paused: bool | None
    known: Member | None


class PbxMembers:
    """Keeps agents and members alike."""

    def __init__(self, staff: Staff, control: MemberControl, rules: MemberRules) -> None:
        self._staff = staff
        self._control = control
        self._rules = rules
        self._known: dict[tuple[str, str], Member] = {}
        # Those whom a dashboard has brought here, and takes with it when it goes.
        self._ours: set[tuple[str, str]] = set()
        self._own_news: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._connected = False
        self._wake = asyncio.Event()
        staff.news.on_change(self._wake.set)

    async def run(self) -> None:
        """Carry over what changes here, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
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
            case Member(queue=queue, interface=interface):
                before = self._known.get((queue, interface))
                if not self._is_own((queue, interface)):
                    self._known[queue, interface] = event
                    if before is None or before.paused != event.paused:
                        self._follow(interface, available=not event.paused)
            case MemberGone(queue=queue, interface=interface):
                if not self._is_own((queue, interface)):
                    self._known.pop((queue, interface), None)
                    self._ours.discard((queue, interface))
                    self._follow(interface, available=False)

    def _is_own(self, key: tuple[str, str]) -> bool:
        expected, now = self._own_news[key], asyncio.get_running_loop().time()
        while expected and expected[0] < now - OWN_NEWS_SECONDS:
            expected.popleft()
        if expected:
            expected.popleft()
            return True
        return False

    def _follow(self, interface: str, *, available: bool) -> None:
        for agent in list(self._staff.agents.values()):
            if self._rules.interface_of(agent.endpoint) == interface and _here(agent) and available != _wants(agent):
                log.info("agent follows the PBX", agent=agent.name, available=available)
                if available:
                    self._staff.set_available(agent.name)
                else:
                    self._staff.pause(agent.name, "")

    def _changes(self) -> Iterator[_Change]:
        if not self._connected:
            return
        for agent in self._staff.agents.values():
            interface = self._rules.interface_of(agent.endpoint)
            for queue, ours in self._rules.queues.items():
                key = queue, interface
                known = self._known.get(key)
                if _here(agent) and agent.penalty(ours) is not None:
                    self._ours.add(key)
                    paused = not _wants(agent)
                    # An agent who is paused and no member may stay out.
                    if known.paused != paused if known else not paused:
                        yield _Change(queue, interface, agent, paused, known)
                elif known and key in self._ours:
                    if known.dynamic or not known.paused:
                        yield _Change(queue, interface, agent, None if known.dynamic else True, known)
                    self._ours.discard(key)

    async def _apply(self, change: _Change) -> bool:
        key = change.queue, change.interface
        self._own_news[key].append(asyncio.get_running_loop().time())
        agent = change.agent
        if change.paused is None:
            self._known.pop(key, None)
            done = await self._control.remove_member(*key)
        elif change.known is None:
            self._known[key] = Member(*key, paused=False)
            penalty = agent.penalty(self._rules.queues[change.queue]) or 0
            done = await self._control.add_member(*key, name=agent.name, penalty=penalty, state=agent.endpoint)
        else:
            self._known[key] = Member(*key, paused=change.paused, dynamic=change.known.dynamic)
            done = await self._control.pause_member(*key, paused=change.paused, reason=agent.reason)
        if done:
            log.info("member of the PBX's queue", agent=agent.name, queue=change.queue, paused=change.paused)
        elif change.known:
            self._known[key] = change.known
        else:
            self._known.pop(key, None)
        return done


def _here(agent: Agent) -> bool:
    return agent.state is not AgentState.OFFLINE


def _wants(agent: Agent) -> bool:
    """Whether the queue may ring them, when the call in hand is over."""
    return (agent.afterwards if agent.engaged else agent.state) is AgentState.AVAILABLE
