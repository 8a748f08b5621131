"""The staff: who works here, in which state, reached how. It lives in one process and one event loop.

Nothing in it awaits, so every change is seen whole.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from idbellen.calls.watch import News, Watches
from idbellen.domain.agents import NO_TERMS, Agent, AgentEvent, AgentState, PhoneState, Terms, phones_of, together

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from idbellen.calls.watch import Watch
    from idbellen.domain.ids import AgentName
    from idbellen.domain.notes import AgentNote
    from idbellen.ports import Account, Clock

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StaffRules:
    """Times in seconds.

    ``grace``: how long an agent may be without a dashboard; ``extension``: how much longer a wrap-up gets;
    ``rest`` and ``most_missed``: see :class:`idbellen.domain.agents.Terms`.
    """

    grace: float = 15.0
    extension: float = 60.0
    rest: float = 5.0
    most_missed: int = 3


@dataclass(slots=True)
class _Presence:
    """What holds an agent here: dashboards, and a desk phone that logged in by a feature code."""

    dashboards: int = 0
    by_phone: bool = False
    leaving: asyncio.TimerHandle | None = None


class Staff:
    """All agents who have been here since the start, and those who watch them. ``news``: of agents and callers."""

    def __init__(self, clock: Clock, rules: StaffRules) -> None:
        self._clock = clock
        self._rules = rules
        self._agents: dict[AgentName, Agent] = {}
        self._available: dict[AgentName, Agent] = {}
        self._engaged: dict[AgentName, Agent] = {}
        self._presences: dict[AgentName, _Presence] = {}
        self._phones: dict[str, PhoneState] = {}
        self._wrap_ups: dict[AgentName, asyncio.TimerHandle] = {}
        self._watches: Watches[AgentName] = Watches()
        self.news = News()
        self.news.on_change(self._watches.notify_all)
        self._wrapped_up: list[Callable[[AgentName, float, float], None]] = []
        self._kept: list[Callable[[Agent, bool], None]] = []

    def __getitem__(self, name: AgentName) -> Agent:
        """Give an agent; :exc:`KeyError` for one who has never been here."""
        return self._agents[name]

    @property
    def agents(self) -> Mapping[AgentName, Agent]:
        """All agents by name."""
        return self._agents

    @property
    def available(self) -> Collection[Agent]:
        """Those whose state is available, so that nobody looks for them among all at each change."""
        return self._available.values()

    @property
    def phones_in_use(self) -> set[str]:
        """The phones of all to whom a caller is offered or who talk: nobody else is offered a caller on them."""
        return {phone for agent in self._engaged.values() for phone in agent.phones}

    def phones(self, name: AgentName) -> tuple[str, ...]:
        """Give the phones of an agent; none for one who has never been here."""
        return self._agents[name].phones if name in self._agents else ()

    def worth_ringing(self, agent: Agent) -> tuple[str, ...]:
        """Give those of an agent's phones that are there, as far as is known; all of them if none is."""
        there = [phone for phone in agent.phones if self._phones.get(phone) is not PhoneState.UNREGISTERED]
        return tuple(there) or agent.phones

    def here_with(self, phone: str) -> AgentName | None:
        """Give who is here with a phone.

        Of several who share it, the one who is available, or else the one who works; None if that is not one.
        """
        here = [
            agent for agent in self._agents.values() if phone in agent.phones and agent.state is not AgentState.OFFLINE
        ]
        available = [agent for agent in here if agent.state is AgentState.AVAILABLE]
        works = [agent for agent in here if agent.works]
        return next((found[0].name for found in (here, available, works) if len(found) == 1), None)

    def restore(
        self, notes: Iterable[AgentNote], accounts: Mapping[AgentName, Account], talking: Collection[AgentName]
    ) -> None:
        """Let the agents whom an earlier process knew be as they were; their dashboards have the grace to come back.

        ``talking``: whose calls are taken up; for others a call in hand has ended.
        """
        for note in notes:
            account = accounts.get(note.name)
            if account is None:
                self._keep(Agent(note.name, ""))
                continue
            agent = note.agent(account.endpoint, dict(account.queues))
            if agent.state is AgentState.IN_CALL and agent.name not in talking:
                agent = agent.after(AgentEvent.FINISH, self._clock())
            self._set(agent)
            presence = self._presences[agent.name] = _Presence(by_phone=note.by_phone)
            if not note.by_phone:
                self._go(agent.name, presence)
            self._time_wrap_up(agent)
            self._keep(agent)
            log.info("agent as before", agent=agent.name, state=agent.state.value)

    # Presence

    @contextmanager
    def present(self, account: Account) -> Iterator[Watch]:
        """Be present with one dashboard for the block; the last one to go takes the agent offline after the grace."""
        presence = self._enrol(account)
        presence.dashboards += 1
        try:
            with self._watches.watch(account.name) as watch:
                self._arrive(account.name)
                yield watch
        finally:
            presence.dashboards -= 1
            if not presence.dashboards and not presence.by_phone:
                self._go(account.name, presence)

    def log_in_by_phone(self, account: Account) -> None:
        """Be present with the desk phone alone, and available."""
        self._enrol(account).by_phone = True
        self._arrive(account.name)
        self.set_available(account.name)
        self._keep(self._agents[account.name])

    def log_out_by_phone(self, name: AgentName) -> None:
        """Leave with the desk phone; an agent who has a dashboard open is paused instead."""
        presence = self._presences.get(name)
        if presence is None or not presence.by_phone:
            return
        presence.by_phone = False
        self._keep(self._agents[name])
        if presence.dashboards:
            self.pause(name, "")
        else:
            self._leave(name)

    def with_phone_alone(self, name: AgentName) -> bool:
        """Whether an agent works with the desk phone and has no dashboard to look at."""
        presence = self._presences.get(name)
        return presence is not None and presence.by_phone and not presence.dashboards

    def _enrol(self, account: Account) -> _Presence:
        known = self._agents.get(account.name)
        if known is None:
            known = Agent(account.name, account.endpoint, account.queues)
            self._set(replace(known, phone=self._phone_state(account.endpoint)))
        elif not known.engaged:
            phone = self._phone_state(account.endpoint)
            self._set(replace(known, endpoint=account.endpoint, queues=account.queues, phone=phone))
        return self._presences.setdefault(account.name, _Presence())

    def _arrive(self, name: AgentName) -> None:
        presence = self._presences[name]
        if presence.leaving:
            presence.leaving.cancel()
            presence.leaving = None
        self.happen(name, AgentEvent.ARRIVE)

    def _go(self, name: AgentName, presence: _Presence) -> None:
        presence.leaving = asyncio.get_running_loop().call_later(self._rules.grace, self._leave, name)

    def _leave(self, name: AgentName) -> None:
        self._presences[name].leaving = None
        if self._agents[name].state is not AgentState.OFFLINE:
            log.info("agent leaves", agent=name)
            self.happen(name, AgentEvent.LEAVE)

    # What agents, supervisors and phones say

    def set_available(self, name: AgentName) -> None:
        """Note that an agent wants calls; without effect for an agent who is not here."""
        self._wish(name, AgentEvent.SET_AVAILABLE)

    def pause(self, name: AgentName, reason: str) -> None:
        """Note that an agent wants no calls, from the end of the call in hand on."""
        self._wish(name, AgentEvent.PAUSE, reason)

    def end_wrap_up(self, name: AgentName) -> None:
        """End an agent's wrap-up early."""
        if name in self._agents and self._agents[name].state is AgentState.WRAP_UP:
            self.happen(name, AgentEvent.WRAPPED_UP)

    def extend_wrap_up(self, name: AgentName) -> None:
        """Lengthen an agent's wrap-up."""
        if name in self._agents:
            self._put(self._agents[name].extended(self._rules.extension))

    def set_phone(self, endpoint: str, phone: PhoneState) -> None:
        """Note what Asterisk says of an endpoint, whether somebody with it is here or not."""
        self._phones[endpoint] = phone
        for agent in list(self._agents.values()):
            if endpoint in agent.phones:
                self._put(replace(agent, phone=self._phone_state(agent.endpoint)))

    def _phone_state(self, endpoint: str) -> PhoneState:
        return together([self._phones.get(phone, PhoneState.UNKNOWN) for phone in phones_of(endpoint)])

    def _wish(self, name: AgentName, event: AgentEvent, reason: str = "") -> None:
        if name in self._agents and self._agents[name].state is not AgentState.OFFLINE:
            self.happen(name, event, reason=reason)

    # What happens to them

    def happen(self, name: AgentName, event: AgentEvent, *, reason: str = "", wrap_up: float = 0.0) -> None:
        """Let an event happen to an agent; ``wrap_up`` in seconds goes with the end of a call.

        Raises:
            IllegalTransitionError: their state does not allow it.

        """
        terms = NO_TERMS
        if event is AgentEvent.MISS:
            terms = Terms(rest=self._rules.rest, most_missed=self._rules.most_missed)
        elif event is AgentEvent.FINISH:
            terms = Terms(wrap_up=wrap_up)
        self._put(self._agents[name].after(event, self._clock(), reason=reason, terms=terms))

    def _set(self, agent: Agent) -> None:
        self._agents[agent.name] = agent
        if agent.state is AgentState.AVAILABLE:
            self._available[agent.name] = agent
        else:
            self._available.pop(agent.name, None)
        if agent.engaged:
            self._engaged[agent.name] = agent
        else:
            self._engaged.pop(agent.name, None)

    def _put(self, agent: Agent) -> None:
        before = self._agents[agent.name]
        if agent == before:
            return
        self._set(agent)
        if agent.state is not before.state:
            log.info("agent state", agent=agent.name, state=agent.state.value)
        if replace(agent, phone=before.phone) != before:
            self._keep(agent)
        self._time_wrap_up(agent)
        if before.state is AgentState.WRAP_UP and agent.state is not AgentState.WRAP_UP:
            for told in self._wrapped_up:
                told(agent.name, before.since, self._clock())
        self.news.changed()

    def _time_wrap_up(self, agent: Agent) -> None:
        timer = self._wrap_ups.pop(agent.name, None)
        if timer:
            timer.cancel()
        if agent.state is AgentState.WRAP_UP:
            left = max(0.0, agent.wrap_up_until - self._clock())
            loop = asyncio.get_running_loop()
            self._wrap_ups[agent.name] = loop.call_later(left, self.end_wrap_up, agent.name)

    def _keep(self, agent: Agent) -> None:
        presence = self._presences.get(agent.name)
        for kept in self._kept:
            kept(agent, presence is not None and presence.by_phone)

    # Who wants to know

    def on_agent(self, kept: Callable[[Agent, bool], None]) -> None:
        """Call somebody with every agent who has changed, and with whether they are logged in by their desk phone."""
        self._kept.append(kept)

    def on_wrapped_up(self, listener: Callable[[AgentName, float, float], None]) -> None:
        """Call somebody with an agent's name whenever a wrap-up has ended, and with when it began and ended."""
        self._wrapped_up.append(listener)
