"""Calls that a PBX queues and connects by itself, from the moment that their code was right: who sees which screen.

What the PBX tells comes in as events (:mod:`idbellen.domain.wiring`). A dashboard shows the secret while its agent's
phone is connected with the caller, by whatever way the PBX did that. Who is not verified is a caller too: whoever talks
with them is in a call, of which there is nothing to show.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from idbellen.calls.active import keeping_active, tell_active
from idbellen.calls.identify import UNTOLD_DIGITS, UNTOLD_SECONDS, Claim, claimed, words_of
from idbellen.domain.board import CallView, Stage
from idbellen.domain.codes import new_code, new_secret
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.domain.queueing import Ticket
from idbellen.domain.statistics import CallOutcome, CallRecord
from idbellen.domain.talk import Mode
from idbellen.domain.wiring import Answered, Channel, Gone, LeftQueue, Lost, PbxEvent, Queued, Snapshot, Wiring

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

    from idbellen.calls.desk import Reservation
    from idbellen.calls.office import Office
    from idbellen.calls.progress import Journey

log = structlog.get_logger()

# What the dashboards are told of is one of the places that calls come from.
PBX = "PBX"


@dataclass(frozen=True, slots=True)
class PbxRules:
    """What the PBX's queues are in ours, by name, and how long a call is believed in that nothing is heard of."""

    queues: Mapping[str, QueueName]
    lost: float = 30.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the dialplan is told of a caller. ``verified``: the code was right and the login succeeded."""

    verified: bool
    purpose: str = ""
    priority: int = 0
    reference: str = ""


class _PbxStay:
    """A caller in a queue of the PBX, from coming in to the end of the call, for the wallboard and the history."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.place = ExitStack()
        self.left: float | None = None
        self.answered: float | None = None
        self.abandoned = False
        self.agent: AgentName | None = None

    def record(self, now: float) -> CallRecord:
        """Give what is kept, at its end."""
        if self.answered is not None:
            outcome, until = CallOutcome.ANSWERED, self.answered
        else:
            outcome = CallOutcome.ABANDONED if self.abandoned or self.left is None else CallOutcome.LEFT
            until = now if self.left is None else self.left
        return CallRecord(
            call=self.ticket.call,
            queue=self.ticket.queue,
            purpose=self.ticket.purpose,
            verified=self.ticket.verified,
            arrived=self.ticket.since,
            waited=max(0.0, until - self.ticket.since),
            outcome=outcome,
            agent=self.agent,
            talked=0.0 if self.answered is None else now - self.answered,
        )


class PbxCaller:
    """A caller of whom we hold no session: not verified, or not asked for a code. One of whom we do is Followed."""

    secret: Secret | None = None
    words: tuple[str, str] | None = None

    def __init__(self, uid: str, ticket: Ticket) -> None:
        self.uid = uid
        self.ticket = ticket
        self.over = asyncio.Event()
        self.screen: Reservation | None = None
        self.view: CallView | None = None
        # The channel of the agent who has, or had, the caller.
        self.leg = ""

    def connected(self, office: Office) -> None:
        """Note that an agent talks with the caller."""

    def end(self) -> None:
        """Note that the call is over."""
        self.over.set()

    def leave_screen(self) -> None:
        """Clear the screen that shows the call, if one does."""
        if self.screen:
            self.screen.release()
            self.screen = None


class Followed(PbxCaller):
    """A call of which we hold the session."""

    def __init__(self, uid: str, ticket: Ticket, claim: Claim, journey: Journey) -> None:
        super().__init__(uid, ticket)
        self.claim = claim
        self.journey = journey
        self.secret, self.words = claim.secret, journey.words
        self.answered = asyncio.Event()
        self.out_of_sight = False

    @property
    def verdict(self) -> Verdict:
        """What the dialplan is told. Verified callers have a higher priority than others."""
        ticket = self.ticket
        priority = max(0, ticket.priority) + ticket.verified
        return Verdict(ticket.verified, ticket.purpose, priority, ticket.session)

    def connected(self, office: Office) -> None:
        """Note that an agent talks with the caller: from now on the code does not count again."""
        if not self.answered.is_set():
            self.answered.set()
            self.claim.served = True
            self.journey.enter(Stage.CONNECTED)
            tell_active("connected", self.claim.session, office)

    def end(self) -> None:
        """Note that the call is over."""
        super().end()
        self.answered.set()


class PbxCalls:
    """All calls in the PBX's queues: who waits, who talks with whom, and whose dashboard shows what.

    Nothing in it awaits but the coroutines of the calls, so every change is seen whole.
    """

    def __init__(self, office: Office, rules: PbxRules) -> None:
        self._office = office
        self._desk = office.desk
        self._rules = rules
        self._wiring = Wiring()
        self._followed: dict[str, Followed] = {}
        self._strangers: dict[str, PbxCaller] = {}
        self._stays: dict[str, _PbxStay] = {}
        self._adopting: set[str] = set()
        self._connected = False
        self._giving_up: asyncio.TimerHandle | None = None
        self._due: asyncio.Handle | None = None
        self._desk.staff.news.on_change(self._settle_soon)

    async def run(self, next_event: Callable[[], Awaitable[PbxEvent]]) -> None:
        """Follow the PBX until cancelled; callers of an earlier process who still wait or talk are taken up."""
        try:
            async with asyncio.TaskGroup() as adopted:
                while True:
                    event = await next_event()
                    try:
                        self.take(event, adopted)
                    except Exception:
                        # What was misunderstood of one call must not cost the others their screens.
                        log.exception("event of the PBX failed", kind=type(event).__name__)
        finally:
            for handle in (self._giving_up, self._due):
                if handle:
                    handle.cancel()
            for uid in list(self._stays):
                self._end_stay(uid)
            for uid in list(self._strangers):
                self._forget_stranger(uid)

    def take(self, event: PbxEvent, adopted: asyncio.TaskGroup) -> None:
        """Take one event in; calls of an earlier process get their coroutines in ``adopted``."""
        if isinstance(event, Snapshot):
            self._begin(event, adopted)
        elif isinstance(event, Lost):
            self._lose()
        else:
            self._wiring.take(event)
            match event:
                case Queued():
                    self._queue(event)
                case LeftQueue(uid=uid, queue=queue, abandoned=abandoned):
                    self._leave_queue(uid, queue, abandoned=abandoned)
                case Answered(uid=uid, interface=interface):
                    self._answer(uid, interface)
                case Gone(uid=uid):
                    self._end_stay(uid)
                    self._forget_stranger(uid)
                    if uid in self._followed:
                        self._followed[uid].end()
        self._settle()

    # Callers of ours

    @contextmanager
    def followed(self, uid: str, name: CallId, claim: Claim, journey: Journey) -> Iterator[Followed]:
        """Follow a call for the block; the screen that shows it is cleared at the end."""
        session = claim.session
        call = self._followed[uid] = Followed(uid, self._office.ticket(name, session), claim, journey)
        log.info("call followed", call=name, channel=uid)
        self._forget_stranger(uid)
        stay = self._stays.get(uid)
        if stay and stay.left is None:
            # It waits already, and was taken for a stranger until now.
            self._queue(Queued(uid, "", call.ticket.since - stay.ticket.since), stay.ticket.queue)
        if self._connected and uid not in self._wiring:
            call.end()
        elif not self._connected and self._giving_up is None:
            self._lose()
        self._settle()
        try:
            yield call
        finally:
            del self._followed[uid]
            call.leave_screen()
            self._settle()

    def expect_stranger(self, uid: str) -> None:
        """Follow a caller who is not verified, on the way through the dialplan to an agent."""
        if self._connected and uid in self._wiring:
            self._strangers.setdefault(uid, PbxCaller(uid, self._stranger_ticket(QueueName(""))))

    def _stranger_ticket(self, queue: QueueName, since: float | None = None) -> Ticket:
        now = self._desk.clock()
        return Ticket(
            CallId(str(uuid.uuid4())), SessionRef(""), "", queue, now if since is None else since, verified=False
        )

    def _forget_stranger(self, uid: str) -> None:
        stranger = self._strangers.pop(uid, None)
        if stranger:
            stranger.leave_screen()

    async def until_over(self, call: Followed) -> None:
        """Wait until a call is over, and hold its session until then.

        A call that is lost sight of, and at a planned stop every one, is left to the PBX. Its session is then kept,
        under a code that nobody knows, for when the call is seen again.
        """
        session = call.claim.session
        ended = False
        try:
            await call.answered.wait()
            if not call.over.is_set():
                call.claim.served = True
                async with keeping_active(session, self._office):
                    await call.over.wait()
            ended = not call.out_of_sight
        finally:
            if not ended and call.claim.served:
                call.claim.served = False
                code, now = new_code(UNTOLD_DIGITS), self._desk.clock()
                await self._office.sessions.issue_code(session.reference, code, now, valid_until=now)

    async def _adopt(self, uid: str, reference: SessionRef) -> None:
        """Take up a call that carries the reference of a session, after a restart or a long absence."""
        sessions, now = self._office.sessions, self._desk.clock()
        name = CallId(str(uuid.uuid4()))
        try:
            code = new_code(UNTOLD_DIGITS)
            if not await sessions.issue_code(reference, code, now, valid_until=now + UNTOLD_SECONDS):
                return
            async with claimed(name, code, new_secret(), self._office) as claim:
                if claim is None:
                    return
                words = words_of(claim, self._office)
                with (
                    self._office.progress.call(reference, name, words) as journey,
                    self.followed(uid, name, claim, journey) as call,
                ):
                    log.info("call of an earlier process taken up", call=name, session=reference)
                    await self.until_over(call)
            log.info("call over", call=name)
        except Exception:
            log.exception("call failed", call=name)
        finally:
            self._adopting.discard(uid)
            # Whose session is gone is a caller still.
            self.expect_stranger(uid)
            self._settle_soon()

    # What the PBX tells

    def _begin(self, snapshot: Snapshot, adopted: asyncio.TaskGroup) -> None:
        self._connected = True
        self._desk.set_telephony(PBX, up=True)
        if self._giving_up:
            self._giving_up.cancel()
            self._giving_up = None
        self._wiring = Wiring(snapshot.channels)
        for uid, call in self._followed.items():
            if uid not in self._wiring:
                call.end()
        for uid in [uid for uid in self._strangers if uid not in self._wiring]:
            self._forget_stranger(uid)
        self._queue_anew(snapshot.queued)
        for channel in snapshot.channels:
            if channel.uid not in self._followed and channel.uid not in self._adopting:
                self._take_up(channel, adopted)

    def _queue_anew(self, all_queued: Collection[Queued]) -> None:
        waiting = {queued.uid for queued in all_queued}
        for uid in list(self._stays):
            if uid not in self._wiring:
                self._end_stay(uid)
            elif uid not in waiting and self._stays[uid].left is None:
                self._leave_queue(uid, "", abandoned=False)
        for queued in all_queued:
            self._queue(queued)

    def _take_up(self, channel: Channel, adopted: asyncio.TaskGroup) -> None:
        """Follow a channel that is new to us, if it is a caller's."""
        if channel.reference:
            self._adopting.add(channel.uid)
            adopted.create_task(self._adopt(channel.uid, SessionRef(channel.reference)))
        elif channel.asked:
            self.expect_stranger(channel.uid)

    def _lose(self) -> None:
        self._connected = False
        self._desk.set_telephony(PBX, up=False)
        if self._giving_up is None:
            self._giving_up = asyncio.get_running_loop().call_later(self._rules.lost, self._give_up)

    def _give_up(self) -> None:
        self._giving_up = None
        if self._followed:
            log.error("calls lost sight of: their screens are cleared", calls=len(self._followed))
        for call in self._followed.values():
            call.out_of_sight = True
            call.end()
        for uid in list(self._stays):
            self._leave_queue(uid, "", abandoned=False)
            self._end_stay(uid)
        for uid in list(self._strangers):
            self._forget_stranger(uid)

    def _queue(self, queued: Queued, known_as: QueueName | None = None) -> None:
        ours = known_as or self._rules.queues.get(queued.queue)
        before = self._stays.get(queued.uid)
        if ours is None or (before and before.left is None and before.ticket.queue == ours and not known_as):
            return
        now = self._desk.clock()
        since = now - queued.waited
        call = self._followed.get(queued.uid)
        if known_as:
            self._stays.pop(queued.uid).place.close()
        else:
            self._end_stay(queued.uid)
        if call:
            call.ticket = ticket = replace(call.ticket, queue=ours, since=since)
            call.journey.enter(Stage.QUEUED)
        else:
            ticket = self._stranger_ticket(ours, since)
            self._strangers.setdefault(queued.uid, PbxCaller(queued.uid, ticket)).ticket = ticket
        stay = self._stays[queued.uid] = _PbxStay(ticket)
        stay.place.enter_context(self._desk.place(ticket))

    def _leave_queue(self, uid: str, queue: str, *, abandoned: bool) -> None:
        stay = self._stays.get(uid)
        if stay is None or (queue and self._rules.queues.get(queue) != stay.ticket.queue):
            return
        stay.abandoned |= abandoned
        if stay.left is None:
            stay.left = self._desk.clock()
            stay.place.close()

    def _answer(self, uid: str, interface: str) -> None:
        stay = self._stays.get(uid)
        if stay and stay.answered is None:
            self._leave_queue(uid, "", abandoned=False)
            stay.answered = self._desk.clock()
            stay.agent = self._desk.staff.here_with(interface)

    def _end_stay(self, uid: str) -> None:
        stay = self._stays.pop(uid, None)
        if stay:
            stay.place.close()
            self._office.calls.ended(stay.record(self._desk.clock()))
            # The agent may have been free for a moment, and their figures change only now.
            self._desk.staff.news.changed()

    # Screens

    def _settle_soon(self) -> None:
        if (self._followed or self._strangers) and self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        """Let each screen show what it should: free first, then give."""
        if self._due:
            self._due.cancel()
            self._due = None
        with self._desk.staff.news.change():
            calls = [*self._followed.values(), *self._strangers.values()]
            wanted = {call: self._wanted(call) for call in calls}
            for call, (agent, _) in wanted.items():
                if call.screen and (agent != call.screen.agent or call.over.is_set()):
                    call.leave_screen()
            for call, (agent, mode) in wanted.items():
                if agent and not call.over.is_set():
                    self._show(call, agent, mode)

    def _wanted(self, call: PbxCaller) -> tuple[AgentName | None, Mode]:
        """Give whose dashboard is to show a call: who shows it already, as long as they talk, else who is nearest.

        An agent whom the PBX takes out to ask a colleague keeps the screen, while the caller is alone in the bridge.
        """
        channels = self._wiring.talking_with(call.uid)
        if channels:
            call.connected(self._office)
        asks = call.screen and not channels and self._wiring.in_bridge(call.uid) and call.leg in self._wiring
        if call.screen and asks:
            return call.screen.agent, Mode.HELD
        agents = {name: uid for uid in reversed(channels) if (name := self._agent_at(uid, call))}
        nearest = next(reversed(agents), None)
        name = call.screen.agent if call.screen and call.screen.agent in agents else nearest
        if name is not None:
            call.leg = agents[name]
        held = name is not None and self._wiring.holds(agents[name])
        return name, Mode.HELD if held else Mode.TALKING

    def _agent_at(self, uid: str, call: PbxCaller) -> AgentName | None:
        """Give the agent of a channel: of those who share a phone, the one who shows the call already."""
        phone, staff = self._wiring.endpoint(uid), self._desk.staff
        if call.screen and phone in staff.phones(call.screen.agent):
            return call.screen.agent
        return staff.here_with(phone)

    def _show(self, call: PbxCaller, agent: AgentName, mode: Mode) -> None:
        if call.screen:
            if call.view and call.view.mode is not mode:
                call.view = replace(call.view, mode=mode)
                call.screen.show(call.view)
            return
        ticket = call.ticket
        view = CallView(
            call=ticket.call,
            session=ticket.session,
            purpose=ticket.purpose,
            queue=ticket.queue,
            since=self._desk.clock(),
            secret=call.secret,
            words=call.words,
            mode=mode,
            ours=False,
        )
        call.screen = self._desk.link(agent, ticket, view)
        call.view = view
        stay = self._stays.get(call.uid)
        if call.screen:
            log.info("in a call of the PBX", call=ticket.call, agent=agent, shown=call.secret is not None)
        if call.screen and stay:
            stay.agent = stay.agent or agent
