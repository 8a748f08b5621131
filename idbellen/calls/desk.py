"""The desk: waiting callers and agents together, reservations between them, and who sees whose secret.

It lives in one process and one event loop. Nothing in it awaits but :meth:`Place.offered`, so every change is seen
whole; callers and dashboards wait for it through :class:`Place` and :class:`~idbellen.calls.watch.Watch`.
"""

from __future__ import annotations

import asyncio
import hmac
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from idbellen.calls.standings import Standing, Standings
from idbellen.domain.agents import AgentEvent, AgentState
from idbellen.domain.board import AgentView, CallView, Colleague, OfferView
from idbellen.domain.queueing import Queues, Ticket, match, next_rested
from idbellen.domain.refusals import Refusal
from idbellen.domain.talk import Command, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from idbellen.calls.staff import Staff
    from idbellen.domain.agents import Agent
    from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
    from idbellen.ports import CallLog, Clock

log = structlog.get_logger()

# A dashboard that has not shown the attributes by then is broken, and the operator should know.
SHOWN_WITHIN_SECONDS = 5.0
# An agent who leans on a button shall not fill the memory.
MOST_COMMANDS = 16


@dataclass(frozen=True, slots=True)
class DeskRules:
    """``ring``: how long a phone rings, in seconds; ``numbers``: outside numbers can be rung too."""

    queues: Queues
    ring: float = 20.0
    numbers: bool = False


class Reservation:
    """An agent who is reserved for a caller, from the offer to the end of their part in the call.

    ``offer`` is what their dashboards show until they talk, and ``call`` from then on.
    """

    def __init__(self, desk: Desk, ticket: Ticket, agent: Agent, offer: OfferView | None = None) -> None:
        self._desk = desk
        self.ticket = ticket
        self.agent = agent.name
        self.phones = desk.staff.worth_ringing(agent)
        self.commands: asyncio.Queue[Command] = asyncio.Queue(MOST_COMMANDS)
        self.offer = offer
        self.call: CallView | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._held = True

    def ringing(self) -> None:
        """Note that the phone rings."""
        self._desk.staff.happen(self.agent, AgentEvent.RING)

    def missed(self) -> None:
        """Note that the phone was not answered, which counts against the agent; ends the reservation."""
        self._end(AgentEvent.MISS)

    def connect(self, view: CallView) -> None:
        """Note that the agent talks, and push what their dashboards show of it."""
        with self._desk.staff.news.change():
            self.linked(view)
            self._desk.staff.happen(self.agent, AgentEvent.CONNECT)

    def linked(self, view: CallView) -> None:
        """Push what the dashboards of the agent show, who is known to talk."""
        self.offer, self.call = None, view
        self._expect_shown(view)
        self._desk.staff.news.changed()

    def show(self, view: CallView) -> None:
        """Change what the agent's dashboards show of the call, while it is theirs."""
        if not self._held or self.call is None:
            return
        before, self.call = self.call, replace(view, results=self.call.results)
        if self.call.secret is not None and before.secret is None:
            self._expect_shown(self.call)
        if self.call != before:
            self._desk.staff.news.changed()

    def result_arrived(self, session: SessionRef) -> None:
        """Let the agent's dashboards fetch the data again, if they are in the call of this session."""
        if self.call and self.call.session == session:
            self.call = replace(self.call, results=self.call.results + 1)

    def shown(self) -> None:
        """Note that a dashboard shows the attributes, or need not any more."""
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None

    def release(self) -> None:
        """Free the agent, and clear their dashboards, if that has not happened yet."""
        self._end(None)

    def _end(self, event: AgentEvent | None) -> None:
        if self._held:
            self._held = False
            self.shown()
            self._desk.release(self, event)

    def _expect_shown(self, view: CallView) -> None:
        self.shown()
        if view.secret is not None and not self._desk.staff.with_phone_alone(self.agent):
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(SHOWN_WITHIN_SECONDS, self._not_shown, view.call)

    def _not_shown(self, call: CallId) -> None:
        self._alarm = None
        log.error("agent talks, but no dashboard showed the attributes", agent=self.agent, call=call)


class Place:
    """A caller's place in the queue; the caller keeps it while offers come to nothing."""

    def __init__(self, desk: Desk, ticket: Ticket, noted: Callable[[Ticket], None] | None) -> None:
        self._desk = desk
        self._noted = noted
        self.ticket = ticket
        self.wanted: asyncio.Future[list[Reservation]] | None = None

    @property
    def being_offered(self) -> bool:
        """Whether agents are reserved for this caller at this moment."""
        return self.wanted is None or self.wanted.done()

    async def offered(self) -> list[Reservation]:
        """Wait until agents are reserved for this caller: whoever gets them has to release them.

        There are none when the caller was moved to another queue meanwhile.
        """
        wanted = self.wanted = asyncio.get_running_loop().create_future()
        self._desk.match()
        try:
            reservations: list[Reservation] = await wanted
        except asyncio.CancelledError:
            # A hangup can come in the very moment of the offer: then it was given and never seen.
            if wanted.done() and not wanted.cancelled():
                for reservation in wanted.result():
                    reservation.release()
            raise
        finally:
            self.wanted = None
        return reservations

    def moved(self, ticket: Ticket) -> None:
        """Take another ticket; who waits in another queue from now on is told so."""
        elsewhere = ticket.queue != self.ticket.queue
        self.ticket = ticket
        if self._noted:
            self._noted(ticket)
        if elsewhere and self.wanted and not self.wanted.done():
            self.wanted.set_result([])


class Desk:
    """Waiting callers and agents."""

    def __init__(self, clock: Clock, staff: Staff, rules: DeskRules, calls: CallLog) -> None:
        self.clock = clock
        self.staff = staff
        self._rules = rules
        self._log = calls
        self._places: dict[CallId, Place] = {}
        self._reserved: dict[AgentName, Reservation] = {}
        self._rested: asyncio.TimerHandle | None = None
        self._standings = Standings(clock, staff, rules.queues)
        # Which Asterisks can be reached, of those of which that was told.
        self._reached: dict[str, bool] = {}
        staff.news.settle = self._settle

    @property
    def queues(self) -> Queues:
        """The rules of the queues."""
        return self._rules.queues

    @property
    def ring(self) -> float:
        """How long a phone rings, in seconds."""
        return self._rules.ring

    @property
    def telephony(self) -> bool:
        """Whether calls can come in, on one of the Asterisks."""
        return any(self._reached.values()) or not self._reached

    def set_telephony(self, server: str, *, up: bool) -> None:
        """Note whether an Asterisk can be reached; who waits on one that cannot is offered to nobody."""
        if up is not self._reached.get(server):
            self._reached[server] = up
            self.staff.news.changed()

    # What dashboards show

    def view(self, name: AgentName) -> AgentView:
        """Give what an agent's dashboard shows now."""
        agents = self.staff.agents
        agent = agents[name]
        now = self.clock()
        others = [other for other in agents.values() if other.name != name and other.state is not AgentState.OFFLINE]
        in_use = self.staff.phones_in_use
        colleagues = [
            Colleague(other.name, other.state, other.free(now) and in_use.isdisjoint(other.phones)) for other in others
        ]
        reservation = self._reserved.get(name)
        waiting = {queue: count for queue, count in self.waiting_by_queue().items() if agent.penalty(queue) is not None}
        return AgentView(
            agent,
            waiting,
            reservation.offer if reservation else None,
            reservation.call if reservation else None,
            tuple(sorted(colleagues, key=lambda other: other.name)),
            tuple(self._rules.queues.rules),
            self._rules.numbers,
            self._log.day(name),
            self.telephony,
        )

    def may_see(self, name: AgentName, secret: Secret) -> bool:
        """Whether this secret belongs to the call that this agent is in, and is theirs to see, at this moment."""
        call = self.talks(name)
        # Ours are ASCII, and nothing else can be compared.
        own = call.secret if call else None
        return own is not None and secret.isascii() and hmac.compare_digest(own, secret)

    def shown(self, name: AgentName, call: CallId) -> None:
        """Note that a dashboard of this agent shows the attributes of the call."""
        reservation = self._reserved.get(name)
        if reservation and reservation.call and reservation.call.call == call:
            reservation.shown()

    def command(self, name: AgentName, call: CallId, command: Command) -> Refusal | None:
        """Hand what an agent asks for to the call; gives why not, if it cannot be done now.

        Besides the refusals of :func:`idbellen.domain.talk.refusal`: GONE when the agent is not in this call.
        """
        reservation = self._reserved.get(name)
        view = reservation.call if reservation else None
        if reservation is None or view is None or view.call != call:
            return Refusal.GONE
        reason = refusal(view.mode, command, consulted=view.part == "consulted", phone_holds=view.phone_holds)
        if reason is None and command.target and not self._possible(name, command):
            reason = Refusal.TARGET
        if reason is None and reservation.commands.full():
            reason = Refusal.LATER
        if reason is None:
            reservation.commands.put_nowait(command)
        return reason

    def _possible(self, name: AgentName, command: Command) -> bool:
        target = command.target
        match target and target.kind:
            case "agent":
                return target is not None and target.name != name and target.name in self.staff.agents
            case "queue":
                return target is not None and target.name in self._rules.queues.rules
        return self._rules.numbers

    # Callers

    @property
    def waiting(self) -> list[Ticket]:
        """The waiting callers in the order in which they are served; who is being offered waits too."""
        tickets = [place.ticket for place in self._places.values()]
        return self._rules.queues.in_order(ticket for ticket in tickets if ticket.asker is None)

    def waiting_by_queue(self) -> dict[QueueName, int]:
        """Count the callers who wait and are not being offered, by queue."""
        offered = {offer.call for offer in self.offers.values()}
        counts = dict.fromkeys(self._rules.queues.rules, 0)
        for place in self._places.values():
            ticket = place.ticket
            if ticket.asker is None and ticket.call not in offered:
                counts[ticket.queue] = counts.get(ticket.queue, 0) + 1
        return counts

    def waiting_in(self, queue: QueueName) -> int:
        """Count the callers who wait in a queue, those who are being offered too."""
        tickets = (place.ticket for place in self._places.values())
        return sum(ticket.queue == queue and ticket.asker is None for ticket in tickets)

    def standing(self, call: CallId) -> Standing:
        """Give where the caller of a call stands."""
        place = self._standings.place(call, lambda: self.waiting)
        if place is None:
            return Standing(None, None)
        return Standing(place, self._standings.minutes(self._places[call].ticket, place))

    @contextmanager
    def place(self, ticket: Ticket, noted: Callable[[Ticket], None] | None = None) -> Iterator[Place]:
        """Keep a caller's place in the queue for the block; ``noted`` is called when the ticket has changed."""
        place = self._places[ticket.call] = Place(self, ticket, noted)
        self.staff.news.changed()
        try:
            yield place
        finally:
            del self._places[ticket.call]
            self.staff.news.changed()

    def move_to_front(self, call: CallId) -> bool:
        """Let a waiting caller go before everybody else; False if nobody waits under this name."""
        ahead = max((ticket.ahead for ticket in self.waiting), default=0) + 1
        return self._move(call, lambda ticket: replace(ticket, ahead=ahead))

    def move_to_queue(self, call: CallId, queue: QueueName) -> bool:
        """Let a waiting caller wait in another queue, since the same time; False if nobody waits under this name."""
        return self._move(call, lambda ticket: replace(ticket, queue=queue, ahead=0))

    def _move(self, call: CallId, change: Callable[[Ticket], Ticket]) -> bool:
        place = self._places.get(call)
        if place is None or place.ticket.asker is not None:
            return False
        place.moved(change(place.ticket))
        self.staff.news.changed()
        return True

    def result_arrived(self, session: SessionRef, *, verified: bool) -> None:
        """Let the dashboards of the agents in the call of this session fetch the data again.

        ``verified``: the login succeeded, which counts for the place of a caller who still waits.
        """
        for reservation in self._reserved.values():
            reservation.result_arrived(session)
        for place in self._places.values():
            if place.ticket.session == session:
                place.moved(replace(place.ticket, verified=verified))
        self.staff.news.changed()

    # Reservations

    @property
    def offers(self) -> Mapping[AgentName, OfferView]:
        """What agents are offered at this moment, by the agents' names."""
        return {name: reservation.offer for name, reservation in self._reserved.items() if reservation.offer}

    @property
    def in_hand(self) -> Mapping[AgentName, CallView]:
        """The calls that agents are in, by the agents' names."""
        return {name: reservation.call for name, reservation in self._reserved.items() if reservation.call}

    def talks(self, name: AgentName) -> CallView | None:
        """Give the call that an agent is in."""
        reservation = self._reserved.get(name)
        return reservation.call if reservation else None

    def reserve(self, name: AgentName, ticket: Ticket) -> Reservation | None:
        """Reserve one agent for a colleague's call, past the queue; None if they are not free."""
        agent = self.staff.agents.get(name)
        if agent is None or not agent.free(self.clock()):
            return None
        if not self.staff.phones_in_use.isdisjoint(agent.phones):
            return None
        return self._reserve(agent, ticket)

    def link(self, name: AgentName, ticket: Ticket, view: CallView) -> Reservation | None:
        """Note that an agent talks with a caller whom we have not connected; None while that cannot be.

        A PBX's own queue did, or an earlier process of ours. They need not have been available for that: their phone
        is answered. None: not here, or in another call.
        """
        with self.staff.news.change():
            if not self.occupy(name):
                return None
            reservation = self._reserved[name] = Reservation(self, ticket, self.staff[name])
            reservation.linked(view)
        return reservation

    def occupy(self, name: AgentName) -> bool:
        """Note that an agent is in a call that is to be linked with them; False while that cannot be."""
        agent = self.staff.agents.get(name)
        if agent and agent.state is AgentState.IN_CALL and name not in self._reserved:
            return True
        if agent is None or agent.engaged or agent.state is AgentState.OFFLINE:
            return False
        # As one change: nobody may be offered to them in between.
        with self.staff.news.change():
            if agent.state is not AgentState.AVAILABLE:
                self.staff.set_available(name)
            for event in (AgentEvent.OFFER, AgentEvent.RING, AgentEvent.CONNECT):
                self.staff.happen(name, event)
            if agent.state in (AgentState.PAUSED, AgentState.NOT_ANSWERING):
                self.staff.pause(name, agent.reason)
        return True

    def settle(self, name: AgentName, queue: QueueName) -> None:
        """Let an agent go whose call, of this queue, ended before this process could take it up."""
        agent = self.staff.agents.get(name)
        if agent and agent.state is AgentState.IN_CALL and name not in self._reserved:
            self.staff.happen(name, AgentEvent.FINISH, wrap_up=self._rules.queues[queue].wrap_up)

    def _reserve(self, agent: Agent, ticket: Ticket) -> Reservation:
        now = self.clock()
        until = now + self._rules.ring
        offer = OfferView(ticket.call, ticket.purpose, ticket.queue, ticket.since, until, ticket.asker)
        reservation = self._reserved[agent.name] = Reservation(self, ticket, agent, offer)
        log.info("offer", call=ticket.call, agent=agent.name)
        self.staff.happen(agent.name, AgentEvent.OFFER)
        return reservation

    def release(self, reservation: Reservation, event: AgentEvent | None) -> None:
        """Free the agent of a reservation, and clear their dashboards."""
        name, ticket = reservation.agent, reservation.ticket
        del self._reserved[name]
        call = reservation.call
        wrap_up = 0.0
        if call:
            event = AgentEvent.FINISH
            if call.part == "main":
                wrap_up = self._rules.queues[call.queue].wrap_up
                self._standings.handled(call.queue, self.clock() - call.since + wrap_up)
        elif event is AgentEvent.MISS:
            self._log.missed(name)
            log.info("offer missed", call=ticket.call, agent=name)
        self.staff.happen(name, event or AgentEvent.WITHDRAW, wrap_up=wrap_up)

    # Matching

    def match(self) -> None:
        """Offer waiting callers to free agents, as one change."""
        with self.staff.news.change():
            self._match()

    def _settle(self) -> None:
        self._standings.changed()
        self._match()

    def _match(self) -> None:
        if self._rested:
            self._rested.cancel()
            self._rested = None
        # On a busy day hundreds wait and nobody is free: then there is nothing to put in order.
        available = self.staff.available
        if not available or not any(map(self._can_be_offered, self._places.values())):
            return
        now = self.clock()
        if any(agent.free(now) for agent in available):
            self._pair(now)
        rested = next_rested(self.staff.available, now)
        if rested is not None:
            loop = asyncio.get_running_loop()
            self._rested = loop.call_later(max(0.0, rested - now), self.staff.news.changed)

    def _can_be_offered(self, place: Place) -> bool:
        return not place.being_offered and self._reached.get(place.ticket.server, True)

    def _pair(self, now: float) -> None:
        wanted = {
            p.ticket.call: (p.ticket, p.wanted) for p in self._places.values() if p.wanted and self._can_be_offered(p)
        }
        tickets = (ticket for ticket, _ in wanted.values())
        for pair in match(tickets, self.staff.available, self._rules.queues, now, self.staff.phones_in_use):
            ticket, future = wanted[pair.call]
            future.set_result([self._reserve(self.staff[name], ticket) for name in pair.agents])
