"""Caller and agent talk: hold, consult, transfer and conference, until somebody ends it or the caller goes on.

The parties tell what they want or that they have gone, in one row of events; the table of what is allowed when is
:mod:`idbellen.domain.talk`. The view of the citizen's data moves with the call, and only here.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

import structlog

from idbellen.calls.reach import Party, ring_agents, ring_outside
from idbellen.domain.board import CallView
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret
from idbellen.domain.notes import PartyNote, TalkNote
from idbellen.domain.talk import Command, Mode, Target, Verb, refusal
from idbellen.ports import RingOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from idbellen.calls.desk import Desk
    from idbellen.domain.ids import Secret
    from idbellen.domain.queueing import Ticket
    from idbellen.ports import Bridge, Phone

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a conversation needs besides its parties.

    ``outside``: gives the endpoint of an outside number. ``connected`` is called when caller and agent talk, and
    ``noted`` with what the next process would need to go on from here, whenever that changes; ``kept`` waits for a
    moment until the store has that.
    """

    phone: Phone
    desk: Desk
    ticket: Ticket
    secret: Secret
    words: tuple[str, str] | None
    outside: Callable[[str], str]
    connected: Callable[[], None]
    noted: Callable[[TalkNote], None]
    kept: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A party asks for something."""

    party: Party
    command: Command


@dataclass(frozen=True, slots=True)
class _Left:
    """A party has hung up."""

    party: Party


@dataclass(frozen=True, slots=True)
class _Holds:
    """A party's phone holds, by its own key, or no longer does."""

    party: Party
    on: bool


@dataclass(frozen=True, slots=True)
class _Reached:
    """Reaching somebody has ended, with the party or in vain."""

    party: Party | None
    why_not: str = ""


async def converse(around: Surroundings, main: Party, scope: AsyncExitStack) -> Ticket | None:
    """Let the caller talk until it is over (None), or until the caller waits again, with the ticket given.

    ``scope`` holds the parties.
    """
    music = around.desk.queues[around.ticket.queue].music
    async with around.phone.bridge(main.leg, music) as bridge, asyncio.TaskGroup() as group:
        conversation = _Conversation(around, main, bridge, group, scope)
        conversation.begin()
        return await conversation.run()


async def converse_on(
    around: Surroundings, talk: TalkNote, parties: Sequence[Party], scope: AsyncExitStack
) -> Ticket | None:
    """Go on with the conversation of an earlier process, as :func:`converse` does; whoever was being rung is let go.

    ``parties``: those of the note, in its order, without reservations yet.
    """
    music = around.desk.queues[around.ticket.queue].music
    held = talk.mode not in (Mode.TALKING, Mode.CONFERENCE)
    legs = [party.leg for party in parties]
    async with (
        around.phone.rejoin(talk.bridge, legs, music, held=held) as bridge,
        asyncio.TaskGroup() as group,
    ):
        left = talk.mode is Mode.CONSULTING and not parties[0].leg.alive
        if left or talk.over or talk.mode is Mode.TRANSFERRING or not bridge.open:
            # The colleague who was being rung for the caller is gone; or an agent had sent the caller on, and it
            # could not be noted.
            for party, note in zip(parties, talk.parties, strict=True):
                await party.leave()
                if note.agent:
                    around.desk.settle(note.agent, around.ticket.queue)
            return None if talk.over else _onward(around, talk.target)
        conversation = _Conversation(around, parties[0], bridge, group, scope)
        conversation.resume(talk, parties)
        return await conversation.run()


class _Conversation:
    def __init__(
        self, around: Surroundings, main: Party, bridge: Bridge, group: asyncio.TaskGroup, scope: AsyncExitStack
    ) -> None:
        self._around = around
        self._bridge = bridge
        self._group = group
        self._scope = scope
        self._events: asyncio.Queue[_Asked | _Left | _Holds | _Reached] = asyncio.Queue()
        self._listeners: dict[Party, list[asyncio.Task[None]]] = {}
        self._reaching: asyncio.Task[None] | None = None
        self._main = main
        self._second: Party | None = None
        self._target: Target | None = None
        self._mode = Mode.TALKING
        self._shared = False
        self._notice = ""

    def begin(self) -> None:
        """Begin, with the agent who has just been put into the bridge."""
        self._welcome(self._main)
        self._around.connected()
        self._note()

    def resume(self, talk: TalkNote, parties: Sequence[Party]) -> None:
        """Be as an earlier process left it, but that nobody is being rung."""
        ringing = talk.mode is Mode.CONSULTING
        self._mode = Mode.HELD if ringing else talk.mode
        self._target = None if ringing else talk.target
        self._notice = RingOutcome.NO_ANSWER.value if ringing else ""
        self._shared = talk.shared
        self._second = parties[1] if talk.second else None
        for party, note in zip(parties, talk.parties, strict=True):
            if note.agent:
                # None for somebody who has no account any more: they go on as somebody from outside.
                party.reservation = self._around.desk.link(note.agent, self._around.ticket, self._view(party))
            if party.reservation:
                party.hold.callback(party.reservation.release)
            log.info("connected as before", call=self._around.phone.call, agent=note.agent)
            self._listen(party)
        self._around.connected()
        self._note()

    async def run(self) -> Ticket | None:
        """Go on until it is over; see :func:`converse`."""
        try:
            return await self._run()
        finally:
            self._stop_listening()

    async def _run(self) -> Ticket | None:
        while True:
            onward: Ticket | None = None
            match await self._events.get():
                case _Left(party) | _Asked(party, Command(verb=Verb.HANG_UP)) if party is self._main:
                    if self._mode in (Mode.TALKING, Mode.HELD):
                        self._note(over=True)
                        return None
                    onward = await self._main_left()
                case _Left(party) | _Asked(party, Command(verb=Verb.HANG_UP)) if party is self._second:
                    await self._take_back()
                case _Asked(party, command) if party in (self._main, self._second):
                    onward = await self._carry_out(party, command)
                case _Holds(party, on) if party in (self._main, self._second):
                    await self._phone_holds(party, on=on)
                case _Reached(party, why_not):
                    # A blind transfer in vain: back to the front, since nobody waits for longer.
                    onward = None if await self._reached(party, why_not) else self._around.ticket
            if onward:
                return onward
            self._show()
            self._note()

    # Listening to the parties

    def _welcome(self, party: Party) -> None:
        party.since = self._around.desk.clock()
        reservation = party.reservation
        if reservation:
            reservation.connect(self._view(party))
        log.info("connected", call=self._around.phone.call, agent=party.agent)
        self._listen(party)

    def _listen(self, party: Party) -> None:
        async def leaves() -> None:
            await party.leg.hung_up()
            self._events.put_nowait(_Left(party))

        async def asks() -> None:
            while party.reservation:
                self._events.put_nowait(_Asked(party, await party.reservation.commands.get()))

        async def holds() -> None:
            while True:
                self._events.put_nowait(_Holds(party, await party.leg.hold_changed()))

        self._listeners[party] = [self._group.create_task(one()) for one in (leaves, asks, holds)]

    def _stop_listening(self) -> None:
        for tasks in self._listeners.values():
            for task in tasks:
                task.cancel()
        if self._reaching:
            self._reaching.cancel()

    async def _dismiss(self, party: Party) -> None:
        for task in self._listeners.pop(party, ()):
            task.cancel()
        await party.leave()

    # What the agents see

    def _view(self, party: Party) -> CallView:
        around = self._around
        is_main = party is self._main
        sees = is_main or self._shared
        asker = self._main.agent
        return CallView(
            call=around.phone.call,
            session=around.ticket.session,
            purpose=around.ticket.purpose,
            queue=around.ticket.queue,
            since=party.since,
            secret=around.secret if sees else None,
            words=around.words if sees else None,
            part="main" if is_main else "consulted",
            mode=self._mode,
            muted=party.muted,
            other=self._target if is_main else Target("agent", asker or ""),
            shared=self._shared,
            notice=self._notice if is_main else "",
            phone_holds=party.holds,
        )

    def _note(self, *, over: bool = False) -> None:
        """Tell what the next process would need."""
        self._around.noted(
            TalkNote(
                self._bridge.name,
                _noted(self._main),
                _noted(self._second) if self._second else None,
                self._mode,
                self._target,
                self._shared,
                over,
            )
        )

    def _show(self) -> None:
        for party in (self._main, self._second):
            if party and party.reservation:
                party.reservation.show(self._view(party))

    # What happens

    async def _carry_out(self, party: Party, command: Command) -> Ticket | None:
        """Do what an agent asks for; gives the ticket if the caller is to wait again."""
        # Much may have changed since the desk let the command through.
        if refusal(self._mode, command, consulted=party is self._second, phone_holds=party.holds):
            return None
        log.info("agent asks", call=self._around.phone.call, agent=party.agent, verb=command.verb.value)
        match command.verb:
            case Verb.MUTE | Verb.UNMUTE:
                party.muted = command.verb is Verb.MUTE
                await self._bridge.mute(party.leg, on=party.muted)
            case Verb.HOLD:
                await self._hold()
                self._mode = Mode.HELD
            case Verb.RESUME:
                await self._take_back()
            case Verb.CONFERENCE:
                await self._bridge.resume()
                self._mode = Mode.CONFERENCE
            case Verb.SHARE:
                self._shared = self._second is not None and self._second.agent is not None
            case Verb.TRANSFER:
                return await self._main_left()
            case Verb.CONSULT | Verb.BLIND if command.target:  # pragma: no branch - refused above without one
                return await self._call_in(command.target, blind=command.verb is Verb.BLIND)
        return None

    async def _call_in(self, target: Target, *, blind: bool) -> Ticket | None:
        if blind and target.kind == "queue":
            self._target = target
            return await self._main_left()
        await self._hold()
        self._target, self._notice = target, ""
        self._mode = Mode.CONSULTING
        self._reaching = self._group.create_task(self._reach(target, self._main.agent))
        return await self._main_left() if blind else None

    async def _hold(self) -> None:
        if self._mode is Mode.TALKING:
            await self._bridge.hold()

    async def _phone_holds(self, party: Party, *, on: bool) -> None:
        """Take in that a phone's own key holds, or no longer does.

        For who has the caller that is the button on the page. A colleague who is held hears music by Asterisk, and
        who holds in a conference only leaves the others alone.
        """
        if party.holds is on:
            return
        party.holds = on
        log.info("phone holds" if on else "phone holds no longer", call=self._around.phone.call, agent=party.agent)
        if party is self._main and self._mode is (Mode.TALKING if on else Mode.HELD):
            await self._connect()

    async def _connect(self) -> None:
        """Let who has the caller and the caller talk; while that one's phone holds the caller hears music."""
        if self._main.holds:
            await self._bridge.hold()
            self._mode = Mode.HELD
        else:
            await self._bridge.resume()
            self._mode = Mode.TALKING

    async def _take_back(self) -> None:
        """Let go of the colleague who is consulted, or of the attempt, and let agent and caller talk."""
        self._stop_reaching()
        if self._second:
            second, self._second = self._second, None
            await self._dismiss(second)
        await self._connect()
        self._target, self._shared, self._notice = None, False, ""

    def _stop_reaching(self) -> None:
        if self._reaching:
            self._reaching.cancel()
            self._reaching = None

    async def _main_left(self) -> Ticket | None:
        """Let the one who had the caller go: who is consulted has the caller then, or who is being rung.

        Gives the ticket if that is a queue: the caller waits there as everybody does.
        """
        if self._second:
            await self._dismiss(self._main)
            self._main, self._second = self._second, None
            await self._connect()
            self._target, self._shared, self._notice = None, False, ""
            log.info("transferred", call=self._around.phone.call, agent=self._main.agent)
            return None
        to_queue = self._target is not None and self._target.kind == "queue"
        if to_queue:
            self._stop_reaching()
        # Noted first, or the next process might find a caller whose agent has hung up, and say goodbye.
        self._mode = Mode.TRANSFERRING
        self._note()
        await self._around.kept()
        await self._dismiss(self._main)
        return _onward(self._around, self._target) if to_queue else None

    async def _reached(self, party: Party | None, why_not: str) -> bool:
        """Take in who was reached; False if the caller has nobody now."""
        self._reaching = None
        if self._mode not in (Mode.CONSULTING, Mode.TRANSFERRING):
            # The agent took the caller back in the very moment of the answer.
            if party:
                await party.leave()
            return True
        if party is None:
            self._notice = why_not
            self._target = None
            transferring = self._mode is Mode.TRANSFERRING
            self._mode = Mode.HELD
            return not transferring
        await self._bridge.join(party.leg)
        if self._mode is Mode.TRANSFERRING:
            await self._bridge.resume()
            self._main, self._mode, self._target = party, Mode.TALKING, None
        else:
            self._second, self._mode = party, Mode.CONSULTED
        self._welcome(party)
        return True

    async def _reach(self, target: Target, asker: AgentName | None) -> None:
        async with AsyncExitStack() as attempt:
            answer = await self._answer_of(target, asker, attempt)
            if isinstance(answer, Party):
                self._scope.push_async_exit(attempt.pop_all())
                self._events.put_nowait(_Reached(answer))
            else:
                self._events.put_nowait(_Reached(None, answer))

    async def _answer_of(self, target: Target, asker: AgentName | None, scope: AsyncExitStack) -> Party | str:
        around, desk = self._around, self._around.desk
        call = CallId(f"{around.phone.call} consult")
        ticket = replace(around.ticket, call=call, since=around.desk.clock(), asker=asker)
        match target.kind:
            case "number":
                answer = await ring_outside(around.phone, around.outside(target.name), desk.ring, scope)
            case "agent":
                reservation = desk.reserve(AgentName(target.name), ticket)
                if reservation is None:
                    return "not free"
                answer = await ring_agents(around.phone, [reservation], desk.ring, scope)
            case "queue":
                with desk.place(replace(ticket, queue=QueueName(target.name))) as place:
                    while True:
                        answer = await ring_agents(around.phone, await place.offered(), desk.ring, scope)
                        if isinstance(answer, Party):
                            break
            case _:
                assert_never(target.kind)
        return answer if isinstance(answer, Party) else answer.value


def _onward(around: Surroundings, target: Target | None) -> Ticket:
    """Give the ticket of a caller whose agent has left: for the queue that was the target, or at the front again."""
    if target and target.kind == "queue" and target.name in around.desk.queues.rules:
        return replace(around.ticket, queue=QueueName(target.name))
    return around.ticket


def _noted(party: Party) -> PartyNote:
    return PartyNote(party.leg.channel, party.leg.endpoint, party.agent, party.since, party.muted, party.holds)
