"""The desk: waiting callers and agents together, offers between them, and who sees whose secret.

It lives in one process and one event loop. Nothing in it awaits, so every change is seen whole; callers and
dashboards wait for it through :class:`Place` and :class:`~idbellen.calls.watch.Watch`.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from idbellen.calls.watch import Watches
from idbellen.domain.agents import Agent, AgentEvent, AgentState
from idbellen.domain.board import AgentView, CallView, OfferView
from idbellen.domain.queueing import Ticket, match, next_rested, places
from idbellen.domain.waiting import expected_wait, spoken_minutes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from idbellen.calls.watch import Watch
    from idbellen.ports import Clock

log = structlog.get_logger()

# A dashboard that has not shown the attributes by then is broken, and the operator should know.
SHOWN_WITHIN_SECONDS = 5.0
# So many of the latest calls tell how long the next will take.
RECENT_CALLS = 50


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a waiting caller stands: place in the queue, 1 for next, and the expected wait if it is known."""

    place: int | None
    minutes: int | None


class Offer:
    """An agent who is reserved for a caller."""

    def __init__(self, desk: Desk, ticket: Ticket, agent: Agent) -> None:
        self._desk = desk
        self._ticket = ticket
        self.agent = agent.name
        self.endpoint = agent.endpoint
        self.rest = 0.0

    def refused(self, rest: float) -> None:
        """Note that the phone was not answered: this agent gets no offer for ``rest`` seconds."""
        self.rest = rest

    def connect(self, secret: str, words: tuple[str, str]) -> None:
        """Note that agent and caller talk, and push secret and control words to the agent's dashboards."""
        self._desk.connect(self.agent, self._ticket, secret, words)


class Place:
    """A caller's place in the queue; the caller keeps it while offers come to nothing."""

    def __init__(self, desk: Desk, ticket: Ticket) -> None:
        self.ticket = ticket
        self.wanted: asyncio.Future[Offer] | None = None
        self._desk = desk

    @asynccontextmanager
    async def offer(self) -> AsyncIterator[Offer]:
        """Wait until an agent is reserved for this caller; at the end of the block the agent is free again."""
        wanted = self.wanted = asyncio.get_running_loop().create_future()
        self._desk.match()
        try:
            yield await wanted
        finally:
            self.wanted = None
            # A hangup can come in the very moment of the offer: then it was given and never seen.
            if wanted.done() and not wanted.cancelled():
                self._desk.end(wanted.result())


class Desk:
    """Waiting callers and agents. ``grace``: how long, in seconds, an agent may be without a dashboard."""

    def __init__(self, clock: Clock, *, grace: float) -> None:
        self._clock = clock
        self._grace = grace
        self._agents: dict[str, Agent] = {}
        self._places: dict[str, Place] = {}
        self._offers: dict[str, OfferView] = {}
        self._calls: dict[str, CallView] = {}
        self._unshown: dict[str, asyncio.TimerHandle] = {}
        self._watches = Watches()
        self._listeners: list[Callable[[], None]] = []
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._rested: asyncio.TimerHandle | None = None
        self._handling: deque[float] = deque(maxlen=RECENT_CALLS)
        self._ranking: dict[str, int] | None = None

    # Agents and their dashboards

    @contextmanager
    def watch(self, name: str, endpoint: str) -> Iterator[Watch]:
        """Be present with one dashboard for the block; the last one to go takes the agent offline."""
        leaving = self._leaving.pop(name, None)
        if leaving:
            leaving.cancel()
        agent = self._agents.get(name)
        if agent is None or (agent.endpoint != endpoint and not agent.engaged):
            state = agent.state if agent else AgentState.OFFLINE
            self._agents[name] = Agent(name, endpoint, state)
        try:
            with self._watches.watch(name) as watch:
                self._happen(name, AgentEvent.ARRIVE)
                yield watch
        finally:
            if not self._watches.watched(name):
                loop = asyncio.get_running_loop()
                self._leaving[name] = loop.call_later(self._grace, self._leave, name)

    def _leave(self, name: str) -> None:
        self._leaving.pop(name, None)
        if self._agents[name].state is AgentState.OFFLINE:
            return
        log.info("agent offline", agent=name, reason=f"no dashboard for {self._grace:g} s")
        self._happen(name, AgentEvent.LEAVE)

    def set_available(self, name: str) -> None:
        """Note that an agent wants calls."""
        self._happen(name, AgentEvent.SET_AVAILABLE)

    def set_away(self, name: str) -> None:
        """Note that an agent wants no calls, from the end of the call in hand on."""
        if name in self._agents and self._agents[name].state is not AgentState.OFFLINE:
            self._happen(name, AgentEvent.SET_AWAY)

    def view(self, name: str) -> AgentView:
        """Give what an agent's dashboard shows now."""
        waiting = len(self._places) - len(self._offers) - len(self._calls)
        return AgentView(self._agents[name], waiting, self._offers.get(name), self._calls.get(name))

    def may_see(self, name: str, secret: str) -> bool:
        """Whether this secret belongs to the call that this agent is in at this moment."""
        call = self._calls.get(name)
        return call is not None and hmac.compare_digest(call.secret, secret)

    # Callers

    def standing(self, call: str) -> Standing:
        """Give where the caller of a call stands."""
        if self._ranking is None:
            talking = {talk.call for talk in self._calls.values()}
            waiting = (place.ticket for place in self._places.values() if place.ticket.call not in talking)
            self._ranking = places(waiting)
        place = self._ranking.get(call)
        if place is None:
            return Standing(None, None)
        now = self._clock()
        working = [agent for agent in self._agents.values() if agent.works]
        free = sum(agent.state is AgentState.AVAILABLE and agent.rests_until <= now for agent in working)
        seconds = expected_wait(place, agents=len(working), free=free, handling=self._handling)
        return Standing(place, None if seconds is None else spoken_minutes(seconds))

    def result_arrived(self, session: str) -> None:
        """Let the dashboard of the agent who talks with the caller of this session fetch the data again."""
        for name, call in self._calls.items():
            if call.session == session:
                self._calls[name] = replace(call, results=call.results + 1)
                self._watches.notify(name)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call somebody whenever callers or agents have changed."""
        self._listeners.append(listener)

    @contextmanager
    def place(self, ticket: Ticket) -> Iterator[Place]:
        """Keep a caller's place in the queue for the block."""
        place = self._places[ticket.call] = Place(self, ticket)
        self._notify_all()
        try:
            yield place
        finally:
            del self._places[ticket.call]
            self._notify_all()

    def connect(self, name: str, ticket: Ticket, secret: str, words: tuple[str, str]) -> None:
        """Note that an agent talks with the caller of a ticket."""
        self._offers.pop(name, None)
        self._calls[name] = CallView(ticket.call, ticket.session, ticket.purpose, self._clock(), secret, words)
        self._happen(name, AgentEvent.CONNECT)
        loop = asyncio.get_running_loop()
        self._unshown[name] = loop.call_later(SHOWN_WITHIN_SECONDS, self._alarm, name, ticket.call)

    def shown(self, name: str, call: str) -> None:
        """Note that a dashboard of this agent shows the attributes of the call."""
        if name in self._calls and self._calls[name].call == call:
            self._stop_alarm(name)

    def _alarm(self, name: str, call: str) -> None:
        del self._unshown[name]
        log.error("agent talks, but no dashboard showed the attributes", agent=name, call=call)

    def _stop_alarm(self, name: str) -> None:
        alarm = self._unshown.pop(name, None)
        if alarm:
            alarm.cancel()

    def end(self, offer: Offer) -> None:
        """Free an agent of the offer or the call in hand, and clear their dashboards."""
        self._offers.pop(offer.agent, None)
        call = self._calls.pop(offer.agent, None)
        if call:
            self._handling.append(self._clock() - call.since)
        self._stop_alarm(offer.agent)
        event = AgentEvent.FINISH if call else AgentEvent.WITHDRAW
        self._happen(offer.agent, event, rest=offer.rest)

    # Matching and telling

    def _happen(self, name: str, event: AgentEvent, *, rest: float = 0.0) -> None:
        before = self._agents[name]
        after = before.after(event, self._clock(), rest=rest)
        self._agents[name] = after
        if after.state is not before.state:
            log.info("agent state", agent=name, state=after.state.value)
        self.match()
        self._notify_all()

    def match(self) -> None:
        """Offer waiting callers to available agents."""
        now = self._clock()
        wanted = {name: p.wanted for name, p in self._places.items() if p.wanted and not p.wanted.done()}
        for found in match((self._places[call].ticket for call in wanted), self._agents.values(), now):
            ticket = self._places[found.call].ticket
            agent = self._agents[found.agent].after(AgentEvent.OFFER, now)
            self._agents[found.agent] = agent
            self._offers[found.agent] = OfferView(ticket.purpose, ticket.since)
            wanted[found.call].set_result(Offer(self, ticket, agent))
            log.info("offer", call=found.call, agent=found.agent)
            self._notify_all()
        if self._rested:
            self._rested.cancel()
        rested = next_rested(self._agents.values(), now)
        loop = asyncio.get_running_loop()
        self._rested = loop.call_later(max(0.0, rested - now), self.match) if rested else None

    def _notify_all(self) -> None:
        self._ranking = None
        self._watches.notify_all()
        for listener in self._listeners:
            listener()
