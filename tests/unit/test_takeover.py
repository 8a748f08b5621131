"""A process ends at any moment of a story, and the next one takes up what its notes tell of, in virtual time.

What a process leaves behind is in the fakes: the phones and bridges that Asterisk has, sessions, notes, history.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from structlog.testing import capture_logs

from idbellen.calls.adoption import IN_HAND_SECONDS
from idbellen.calls.found import Found, as_claimed, as_found
from idbellen.calls.stories import Stories
from idbellen.domain.agents import AgentState
from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.domain.notes import CallNote
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import QueueRules, Queues, Ticket
from idbellen.domain.statistics import CallOutcome
from idbellen.domain.talk import Command, Mode, Target, Verb
from idbellen.ports import RingOutcome, StoreError
from tests.support import virtualtime
from tests.support.fakes import LOGGED_IN, AgentBehaviour, FakeCallLog, FakeNotes, FakePhone, FakeSessions, now
from tests.support.stories import FAILED, RULES, account, new_office, prompts, typed
from tests.support.values import about

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from idbellen.calls.office import Office
    from idbellen.domain.board import CallView
    from idbellen.domain.notes import TalkNote
    from idbellen.ports import Session

ANN, BOB, CARLA = AgentName("ann"), AgentName("bob"), AgentName("carla")
FIRST = CallId("first")
DEFAULT = QueueName("default")

Way = Literal["planned", "kill -9"]
Step = tuple[float, AgentName, Verb, Target | None]

WAYS: tuple[Way, ...] = ("planned", "kill -9")
V = Verb
TO_BOB, TO_TAXES, TO_NUMBER = Target("agent", "bob"), Target("queue", "taxes"), Target("number", "+31201234567")
OUTSIDE = "PJSIP/+31201234567@trunk"
QUEUES = Queues({DEFAULT: QueueRules(wrap_up=30.0), QueueName("taxes"): QueueRules()})
# bob serves only the second queue, so that the first caller is ann's.
AGENTS = {ANN: {"default": 0}, BOB: {"taxes": 0}, CARLA: {"default": 1, "taxes": 1}}
CODES = tuple(f"{first}234567890" for first in "135790")
LONG = 1000.0
# What the page takes to come back.
BACK_SECONDS = 0.3
# After this all calls of the notes are told on.
SETTLED_SECONDS = 0.05


class World:
    """What outlasts a process, and the process that there is now; None in between."""

    def __init__(self, *, at_once: bool, agents: Sequence[AgentName] = (ANN, BOB)) -> None:
        self.sessions = FakeSessions(*CODES, at_once=at_once)
        self.log = FakeCallLog()
        self.phones: dict[str, FakePhone] = {}
        self.codes: dict[str, str] = {}
        self.answered: set[str] = set()
        self.secrets: defaultdict[str, set[str]] = defaultdict(set)
        self.faults: list[str] = []
        self.office: Office | None = None
        self.notes = FakeNotes(at_once=at_once)
        self._before: dict[tuple[CallId, AgentName], TalkNote] = {}
        self._settled = 0.0
        self._agents = agents
        self._tasks: set[asyncio.Task[None]] = set()
        self._pages = ExitStack()

    async def start(self) -> None:
        """Start a process, as :mod:`idbellen.service.app` does, and take up what the one before has left."""
        office = new_office(RULES, self.sessions, QUEUES, log=self.log, store=self.notes)
        self.office = office
        self._settled = now() + SETTLED_SECONDS
        earlier = await office.notes.load()
        talking = {party.agent for note in earlier.calls for party in note.parties if party.agent}
        office.desk.staff.restore(
            earlier.agents, {name: account(name, **AGENTS[name]) for name in self._agents}, talking
        )
        await self.sessions.release_others({note.call for note in earlier.calls})
        office.desk.staff.news.on_change(self._look)
        self._run(office.notes.run())
        self._run(office.ends.run())
        self._reconcile(await as_claimed(earlier.calls, office))
        for name in self._agents:
            asyncio.get_running_loop().call_later(BACK_SECONDS, self._open_page, office, name)

    def _open_page(self, office: Office, name: AgentName) -> None:
        if office is self.office:
            watch = self._pages.enter_context(office.desk.staff.present(account(name, **AGENTS[name])))
            watch.notify()

    def _reconcile(self, notes: Sequence[CallNote]) -> None:
        """Do what the switchboard does when it comes to an Asterisk in which an earlier process was at work."""
        assert self.office
        notes = Stories(self.office).as_found(notes, self._found())
        # An answer of the very last moment was not noted: these wait again.
        self.answered -= {note.call for note in notes if not note.served}
        self._before = {
            (note.call, party.agent): note.talk
            for note in notes
            for party in note.parties
            if party.agent and note.talk and note.talk.mode is not Mode.TRANSFERRING and self._goes_on(note)
        }
        left = {channel: phone for channel, phone in self.phones.items() if self._alive(phone)}
        for channel, phone in self.phones.items():
            told_of: list[CallNote | None] = [note for note in notes if note.channel == channel]
            [note] = told_of or [None]
            kept = {party.channel for party in note.parties} if note else set()
            for leg in list(phone.legs.values()):
                if leg.channel not in kept or not leg.alive:
                    phone.drop(leg)
            if phone.bridges and not (note and note.talk):
                phone.bridges[-1].open = False
            if note and channel in left:
                keys = None if note.ticket else typed(self.codes[channel], at=now() + 3.0, gap=0.0)
                self._take_up(phone.for_the_next(note.call, keys), note)
            elif note:
                self._run(self._close(phone, note))
            elif channel in left:
                keys = typed(self.codes[channel], at=now() + 3.0, gap=0.0)
                self.call(phone.for_the_next(f"{phone.call} again", keys), self.codes[channel])

    def _goes_on(self, note: CallNote) -> bool:
        assert note.talk
        bridges = {bridge.name for bridge in self.phones[note.channel].bridges if bridge.open}
        return note.talk.bridge in bridges and not note.talk.over

    def _found(self) -> dict[str, Found]:
        found = {}
        for channel, phone in self.phones.items():
            for bridge in phone.bridges[-1:]:
                phones = {leg.channel: leg.endpoint for leg in phone.legs.values() if leg.endpoint in bridge.inside}
                if bridge.open and "caller" in bridge.inside and phones:
                    found[channel] = Found(bridge.name, phones)
        return found

    async def _close(self, phone: FakePhone, note: CallNote) -> None:
        self._tidy(phone)
        assert self.office
        await Stories(self.office).close(note)

    def _take_up(self, phone: FakePhone, note: CallNote) -> None:
        async def story(office: Office) -> None:
            await Stories(office).take_up(phone, note)
            if not phone.ended:
                self._tidy(phone)

        assert self.office
        self.phones[phone.channel] = phone
        self._run(story(self.office))

    def _tidy(self, phone: FakePhone) -> None:
        for leg in list(phone.legs.values()):
            phone.drop(leg)
        for bridge in phone.bridges:
            bridge.open = False

    def _alive(self, phone: FakePhone) -> bool:
        return not phone.end and phone.hangs_up > now()

    def call(self, phone: FakePhone, code: str) -> None:
        """Let somebody call who will key this code in when they are asked afresh."""
        assert self.office
        self.phones[phone.channel] = phone
        self.codes[phone.channel] = code
        self._run(Stories(self.office).take(phone))

    async def end(self, way: Way) -> None:
        """End the process; what a killed one has not written by then is lost."""
        office, self.office = self.office, None
        assert office
        for phone in self.phones.values():
            phone.ended = way
        office.notes.hand_over()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError | None):
                raise result
        if way == "planned":
            await office.ends.flush()
            await office.notes.flush()
        self._pages.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.create_task(work))

    # What must hold

    def _look(self) -> None:
        """See, at every change, that everybody is in one place and the data are where they belong."""
        if self.office is None:
            return
        desk = self.office.desk
        waiting = {call for call, place in desk._places.items() if place.ticket.asker is None}
        by_call = defaultdict(list)
        for name, view in desk.in_hand.items():
            self._compare(name, view)
            by_call[view.call].append((name, view))
            self.answered.add(view.call)
            if view.secret:
                self.secrets[view.call].add(view.secret)
                desk.shown(name, view.call)
            if (view.secret is not None) != (view.part == "main" or view.shared):
                self.faults.append(f"{now()}: {name} sees what is not theirs, or not what is: {view.mode}")
        for call, views in by_call.items():
            main = [name for name, view in views if view.part == "main"]
            if call in waiting or len(main) > 1:
                self.faults.append(f"{now()}: {call} waits and talks, or with two: {main}")
        if any((held.offer is None) == (held.call is None) for held in desk._reserved.values()):
            self.faults.append(f"{now()}: {desk._reserved}")

    def _compare(self, name: AgentName, view: CallView) -> None:
        """See that an agent whose call was taken up goes on as they were."""
        before = self._before.pop((view.call, name), None)
        if before:
            mode = Mode.HELD if before.mode is Mode.CONSULTING else before.mode
            [party] = [party for party in before.parties if party.agent == name]
            if (view.mode, view.shared, view.muted, view.since) != (mode, before.shared, party.muted, party.since):
                self.faults.append(f"{now()}: not as before: {view} after {before}")

    def check(self) -> None:
        """Raise what was found so far."""
        assert self.faults == []
        assert all(len(secrets) == 1 for secrets in self.secrets.values()), "a secret has changed within a call"
        for phone in self.phones.values():
            assert Prompt.APOLOGY not in prompts(phone), "a story has failed"
            if self.office and now() >= self._settled:
                assert len(phone.legs) <= phone.ringing, "somebody is rung or talks whom no story knows of"

    async def over(self) -> None:
        """When all callers have gone: see that nothing is left, and that every call counted once."""
        assert self.office
        # The longest wrap-up, twice: also the caller who was in front of another has one.
        await asyncio.sleep(70.0)
        self.check()
        desk = self.office.desk
        assert (desk._places, desk._reserved) == ({}, {})
        assert [name for name in self.notes.texts if name.startswith("call ")] == []
        states = {name: desk.staff[name].state for name in self._agents}
        assert set(states.values()) <= {AgentState.AVAILABLE, AgentState.PAUSED}, states
        assert self.sessions.claimed == {}
        assert len(self.sessions.finished) == len(set(self.sessions.finished)), "finished twice"
        records = {record.identity: record for record in self.log.records}
        stays = defaultdict(list)
        for record in records.values():
            stays[record.call].append(record)
        for phone in self.phones.values():
            assert (phone.legs, phone.ringing, phone.talking) == ({}, 0, 0)
            assert not any(bridge.open for bridge in phone.bridges)
            assert phone.end or phone.hangs_up <= now(), f"{phone.call} is forgotten"
            served = any(record.outcome is CallOutcome.ANSWERED for record in stays[phone.call])
            assert served == (phone.call in self.answered)
            queues = [record.queue for record in stays[phone.call]]
            assert len(queues) == len({(record.queue, record.arrived) for record in stays[phone.call]})
        for code in CODES:
            served = f"session {code}" in self.sessions.finished
            claimed = await self.sessions.claim(code, call=CallId("afterwards"), secret=Secret(code), now=now())
            assert (claimed is None) == served, "a session is over if and only if an agent spoke with the citizen"

    async def close(self) -> None:
        """End the process for good."""
        await self.end("planned")
        # Timers of those whose page is gone.
        await asyncio.sleep(20.0)


# At every moment of some stories

STEPS: dict[str, Sequence[Step]] = {
    "talk and be hung up on": [(3.0, ANN, V.HANG_UP, None)],
    "hold": [(1.3, ANN, V.HOLD, None), (1.4, ANN, V.RESUME, None)],
    "consult and transfer": [
        (1.3, ANN, V.CONSULT, TO_BOB), (2.5, ANN, V.SHARE, None), (2.6, ANN, V.TRANSFER, None),
    ],
    "consult a queue and return": [(1.3, ANN, V.CONSULT, TO_TAXES), (2.5, ANN, V.RESUME, None)],
    "call off": [(1.3, ANN, V.CONSULT, TO_BOB), (1.4, ANN, V.RESUME, None)],
    "conference": [
        (1.3, ANN, V.CONSULT, TO_BOB), (2.5, ANN, V.CONFERENCE, None), (2.6, ANN, V.HANG_UP, None),
    ],
    "blind": [(1.3, ANN, V.BLIND, TO_BOB)],
    "blind to a queue": [(1.3, ANN, V.BLIND, TO_TAXES)],
    "outside": [(1.3, ANN, V.CONSULT, TO_NUMBER), (2.5, ANN, V.TRANSFER, None)],
}  # fmt: skip
# Around everything that a step takes: a millisecond each.
MOMENTS = sorted(
    {round(at + 0.0005 + 0.001 * n, 4) for at in (0.0, 1.1, 1.3, 2.3, 2.5, 3.0) for n in range(12)} | {0.5, 4.0, 8.0}
)


async def _begin(world: World) -> FakePhone:
    """Let somebody call who talks with ann from 1.1 s on."""
    phone = FakePhone("first", typed(CODES[0], at=0.0, gap=0.0), hangs_up=40.0)
    long = AgentBehaviour(after=1.0, talks=LONG)
    phone.agents = {"ann": long, "bob": long, OUTSIDE: long}
    await world.start()
    assert world.office
    for name in (ANN, BOB):
        world._open_page(world.office, name)
        world.office.desk.staff.set_available(name)
    world.call(phone, CODES[0])
    return phone


async def _ask(world: World, steps: Sequence[Step], phone: FakePhone) -> None:
    for at, agent, verb, target in steps:
        await asyncio.sleep(max(0.0, at - now()))
        if world.office:
            world.office.desk.command(agent, phone.call, Command(verb, target))


async def _story(steps: Sequence[Step], way: Way, moment: float, away: float, *, at_once: bool) -> World:
    world = World(at_once=at_once)
    asked = asyncio.create_task(_ask(world, steps, await _begin(world)))
    await asyncio.sleep(moment - now())
    await world.end(way)
    await asyncio.sleep(away)
    await world.start()
    await asked
    await asyncio.sleep(41.0 - now())
    await world.over()
    await world.close()
    return world


@pytest.mark.no_cover
@pytest.mark.parametrize("at_once", [False, True], ids=["lost on the way", "answer lost"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STEPS)
def test_a_process_that_ends_at_any_moment_loses_nobody(name: str, way: Way, *, at_once: bool) -> None:
    for moment in MOMENTS:
        world = virtualtime.run(_story(STEPS[name], way, moment, 0.2, at_once=at_once))
        # Only an agent who hangs up sends a caller away.
        if all(verb is not V.HANG_UP for _, _, verb, _ in STEPS[name]):
            assert [phone.end for phone in world.phones.values()] == [""], f"sent away, after an end at {moment}"


# When nothing can be noted, when what is asked, and who talks with the caller then.
NOT_NOTED: dict[str, tuple[float, AgentName]] = {
    "": (0.5, ANN),
    "blind": (1.25, BOB),
    "blind to a queue": (1.25, BOB),
    "conference": (1.25, BOB),
    "consult and transfer": (1.25, BOB),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NOT_NOTED)
def test_who_talks_but_could_not_be_noted_talks_on(name: str, way: Way) -> None:
    async def main() -> None:
        away, agent = NOT_NOTED[name]
        world = World(at_once=False)
        phone = await _begin(world)
        asyncio.get_running_loop().call_later(away, setattr, world.notes, "away", True)
        await _ask(world, STEPS.get(name, []), phone)
        await asyncio.sleep(4.5 - now())
        await world.end(way)
        world.notes.away = False
        await world.start()
        assert world.office
        desk = world.office.desk
        assert desk.staff[agent].state is AgentState.IN_CALL, "at once, so that nobody is offered"
        await asyncio.sleep(0.5)
        assert list(desk.in_hand) == [agent]
        assert desk.in_hand[agent].secret
        assert prompts(phone)[-1] not in (Prompt.GOODBYE, Prompt.APOLOGY)
        await asyncio.sleep(41.0 - now())
        await world.over()
        await world.close()

    virtualtime.run(main())


# When the process ends, and whether the caller is there when the next one starts.
ACCEPTED: dict[str, tuple[float, bool]] = {"waits": (1.2, True), "talks": (3.0, True), "has gone": (1.2, False)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ACCEPTED)
def test_whose_code_was_right_but_could_not_be_noted_is_not_asked_again(name: str, way: Way) -> None:
    async def main() -> None:
        ends, there = ACCEPTED[name]
        world = World(at_once=False)
        await world.start()
        assert world.office
        world._open_page(world.office, ANN)
        world.office.desk.staff.set_available(ANN)
        phone = FakePhone("first", typed(CODES[0], at=1.0, gap=0.0), hangs_up=40.0 if there else 1.5)
        phone.agents = {"ann": AgentBehaviour(after=1.0, talks=LONG)}
        world.call(phone, CODES[0])
        asyncio.get_running_loop().call_later(0.5, setattr, world.notes, "away", True)
        await asyncio.sleep(ends - now())
        assert prompts(phone).count(Prompt.WELCOME) == 1
        secrets = set(world.secrets.get("first", ()))
        await world.end(way)
        world.notes.away = False
        await asyncio.sleep(0.4)
        await world.start()
        await asyncio.sleep(5.0 - now())
        phone = world.phones[phone.channel]
        assert prompts(phone).count(Prompt.WELCOME) == 1, "not asked again"
        assert prompts(phone).count(Prompt.CODE_ACCEPTED) == {"waits": 2, "talks": 1, "has gone": 1}[name]
        assert list(world.office.desk.in_hand) == (["ann"] if there else [])
        assert secrets <= world.secrets.get("first", secrets), "the screen shows the same"
        assert phone.rung == ["ann", "ann"][: {"waits": 2, "talks": 1, "has gone": 1}[name]]
        await asyncio.sleep(41.0 - now())
        await world.over()
        [record] = world.log.records
        assert record.outcome is (CallOutcome.ANSWERED if there else CallOutcome.ABANDONED)
        await world.close()

    virtualtime.run(main())


def test_who_shares_a_phone_is_not_taken_for_the_other() -> None:
    async def main() -> None:
        office = new_office(RULES, FakeSessions(*CODES), QUEUES)
        ticket = Ticket(FIRST, SessionRef("session"), "report_move", DEFAULT, 0.0, verified=True)
        note = CallNote(FIRST, "channel", Secret("secret"), ticket)
        with ExitStack() as here:
            for name in (ANN, BOB):
                here.enter_context(office.desk.staff.present(replace(account(name), endpoint="PJSIP/shared")))
            [found] = as_found([note], {"channel": Found("bridge", {"leg": "PJSIP/shared"})}, office.desk)
            assert [party.agent for party in found.parties] == [None]

    virtualtime.run(main())


@pytest.mark.parametrize("way", WAYS)
def test_who_was_sent_on_but_could_not_be_noted_waits(way: Way) -> None:
    async def main() -> None:
        world = World(at_once=False)
        phone = await _begin(world)
        assert world.office
        world.office.desk.staff.pause(BOB, "")
        asyncio.get_running_loop().call_later(1.25, setattr, world.notes, "away", True)
        await _ask(world, STEPS["blind to a queue"], phone)
        await asyncio.sleep(4.5 - now())
        assert world.office.desk.in_hand == {}
        await world.end(way)
        world.notes.away = False
        await world.start()
        # ann, in whose queue the caller is again, wraps up for half a minute.
        await asyncio.sleep(33.0)
        assert list(world.office.desk.in_hand) == ["ann"]
        assert Prompt.GOODBYE not in prompts(phone)
        await asyncio.sleep(41.0 - now())
        await world.over()
        await world.close()

    virtualtime.run(main())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ends", [2.4, 3.0], ids=["consulted", "transferred to"])
def test_somebody_outside_talks_on(way: Way, ends: float) -> None:
    async def main() -> None:
        world = World(at_once=False)
        phone = await _begin(world)
        asked = asyncio.create_task(_ask(world, STEPS["outside"][: 1 if ends < 2.5 else 2], phone))
        await asyncio.sleep(ends - now())
        inside = {OUTSIDE, "ann" if ends < 2.5 else "caller"}
        assert phone.bridges[-1].inside == inside
        await world.end(way)
        await asyncio.sleep(0.2)
        await world.start()
        await asyncio.sleep(10.0 - now())
        assert (phone.bridges[-1].inside, phone.rung) == (inside, ["ann", OUTSIDE])
        assert world.office
        assert world.office.desk.in_hand.keys() == ({"ann"} if ends < 2.5 else set())
        await asked
        await asyncio.sleep(41.0 - now())
        await world.over()
        await world.close()

    virtualtime.run(main())


@pytest.mark.parametrize("to_number", [False, True], ids=["with an agent", "with somebody outside"])
def test_whose_bridge_is_gone_waits_in_front_again(*, to_number: bool) -> None:
    async def main() -> None:
        world = World(at_once=False)
        phone = await _begin(world)
        await _ask(world, STEPS["outside"] if to_number else [], phone)
        await asyncio.sleep(3.0 - now())
        await world.end("kill -9")
        phone.bridges[-1].open = False
        await world.start()
        # ann wraps up for half a minute, unless she has done so.
        await asyncio.sleep(36.0 - now())
        assert world.office
        assert phone.rung == ["ann", *([OUTSIDE] if to_number else []), "ann"]
        assert world.office.desk.in_hand.keys() == {"ann"}
        assert Prompt.GOODBYE not in prompts(phone)
        await asyncio.sleep(41.0 - now())
        await world.over()
        await world.close()

    virtualtime.run(main())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("gone", [False, True], ids=["asked afresh", "has hung up"])
def test_who_had_not_keyed_the_code_in_has_no_stay_that_could_end(way: Way, *, gone: bool) -> None:
    async def main() -> None:
        world = World(at_once=False, agents=())
        await world.start()
        phone = FakePhone("first", typed(CODES[0], at=2.0, gap=0.0), hangs_up=1.1 if gone else 40.0)
        world.call(phone, CODES[0])
        await asyncio.sleep(1.0)
        assert Prompt.WELCOME in prompts(phone)
        await world.end(way)
        await asyncio.sleep(0.2)
        await world.start()
        await asyncio.sleep(2.0)
        assert world.log.records == []
        [phone] = world.phones.values()
        assert prompts(phone).count(Prompt.WELCOME) == (1 if gone else 2)
        await asyncio.sleep(41.0 - now())
        assert [record.outcome for record in world.log.records] == ([] if gone else [CallOutcome.ABANDONED])
        await world.over()
        await world.close()

    virtualtime.run(main())


def test_whose_code_was_found_accepted_is_let_go_when_the_agent_hangs_up() -> None:
    async def main() -> None:
        world = World(at_once=False, agents=(ANN,))
        await world.start()
        await asyncio.sleep(2 * BACK_SECONDS)
        assert world.office
        world.office.desk.staff.set_available(ANN)
        phone = FakePhone("first", typed(CODES[0], at=1.0, gap=0.0))
        phone.agents = {"ann": AgentBehaviour(after=1.0, talks=5.0)}
        asyncio.get_running_loop().call_later(0.2, setattr, world.notes, "away", True)
        world.call(phone, CODES[0])
        await asyncio.sleep(1.5 - now())
        await world.end("kill -9")
        world.notes.away = False
        await world.start()
        await asyncio.sleep(20.0 - now())
        [phone] = world.phones.values()
        assert (prompts(phone).count(Prompt.WELCOME), phone.rung, phone.end) == (1, ["ann", "ann"], "hung up")
        [record] = world.log.records
        assert (record.outcome, record.talked) == (CallOutcome.ANSWERED, about(5.0, within=0.1))
        await world.over()
        await world.close()

    virtualtime.run(main())


# What is found beside the notes


@pytest.mark.parametrize(
    ("result", "away", "found"),
    [(LOGGED_IN, False, True), (FAILED, False, False), (None, False, False), (LOGGED_IN, True, False)],
    ids=["logged in", "failed", "may still log in", "the store is away"],
)
def test_only_a_caller_whose_code_was_right_is_found_to_have_been_let_in(
    result: AuthResult | None, *, away: bool, found: bool
) -> None:
    async def main() -> None:
        sessions = FakeSessions(CODES[0])
        sessions.set_result(CODES[0], result)
        await sessions.claim(CODES[0], call=FIRST, secret=Secret("secret"), now=now())
        if away:
            sessions.away_until = 10.0
        office = new_office(RULES, sessions, QUEUES)
        notes = [CallNote(FIRST, "channel", Secret("secret")), CallNote(CallId("other"), "other", Secret("never used"))]
        with capture_logs() as logs:
            mine, other = await as_claimed(notes, office)
        assert (mine.ticket is not None, other) == (found, notes[1])
        warned = [line["call"] for line in logs if line["log_level"] == "warning"]
        assert warned == (["first", "other"] if away else [])

    virtualtime.run(main())


def test_a_call_that_cannot_be_ended_properly_does_not_keep_the_others_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(_: Secret) -> None:
        raise RuntimeError("a fault of ours")

    async def main() -> None:
        office = new_office(RULES, FakeSessions(*CODES), QUEUES)
        monkeypatch.setattr(office.sessions, "by_secret", fail)
        ticket = Ticket(FIRST, SessionRef("session"), "report_move", DEFAULT, 0.0, verified=True)
        with capture_logs() as logs:
            await Stories(office).close(CallNote(FIRST, "channel", Secret("secret"), ticket))
        assert [(line["event"], line["log_level"], line["call"]) for line in logs] == [
            ("call of an earlier process not ended properly", "error", "first"),
            ("call over", "info", "first"),
        ]

    virtualtime.run(main())


def test_who_talked_talks_on_and_who_waited_is_served() -> None:
    """The same as above, at two moments that are easily told."""
    for way in WAYS:
        for moment in (0.5, 2.0):
            world = virtualtime.run(_story([], way, moment, 5.0, at_once=False))
            [record] = world.log.records
            assert (record.call, record.outcome, record.agent) == ("first", CallOutcome.ANSWERED, "ann")
            assert record.arrived < 0.1
            assert record.arrived + record.waited + record.talked == pytest.approx(40.0, abs=0.1)
            assert world.phones["channel"].rung == (["ann", "ann"] if moment < 1.0 else ["ann"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("verb", "ends"), [(V.CONSULT, 2.0), (V.BLIND, 1.302)], ids=["hangs up", "blind"])
@pytest.mark.parametrize("target", [TO_BOB, TO_TAXES], ids=["to a colleague", "to a queue"])
def test_whom_an_agent_left_to_others_waits_for_them(way: Way, verb: Verb, ends: float, target: Target) -> None:
    """The agent hangs up while the other phone rings and no process is there, or a transfer is under way."""

    async def story() -> None:
        world = World(at_once=False)
        await world.start()
        assert world.office
        for name in (ANN, BOB):
            world._open_page(world.office, name)
            world.office.desk.staff.set_available(name)
        phone = FakePhone("first", typed(CODES[0], at=0.0, gap=0.0), hangs_up=20.0)
        # She answers at 1.1, and has gone at 2.1.
        phone.agents = {"ann": AgentBehaviour(after=1.0, talks=1.0), "bob": AgentBehaviour(after=1.0, talks=LONG)}
        world.call(phone, CODES[0])
        await asyncio.sleep(1.3 - now())
        assert world.office.desk.command(ANN, FIRST, Command(verb, target)) is None
        await asyncio.sleep(ends - now())
        await world.end(way)
        await asyncio.sleep(0.5)
        await world.start()
        await asyncio.sleep(10.0 - now())
        [phone] = world.phones.values()
        desk = world.office.desk
        assert (phone.end, desk.staff[ANN].state) == ("", AgentState.WRAP_UP)
        if target is TO_TAXES:
            assert desk.in_hand.keys() == {"bob"}
        else:
            assert [ticket.queue for ticket in desk.waiting] == ["default"]
        await asyncio.sleep(21.0 - now())
        await world.over()
        await world.close()

    virtualtime.run(story())


@pytest.mark.parametrize("way", WAYS)
def test_who_has_hung_up_meanwhile_is_ended_as_if_now(way: Way) -> None:
    world = virtualtime.run(_story([], way, 2.0, 50.0, at_once=False))
    [record] = world.log.records
    assert (record.outcome, record.agent) == (CallOutcome.ANSWERED, "ann")
    assert world.sessions.finished == [f"session {CODES[0]}"]
    world = virtualtime.run(_story([], way, 0.5, 50.0, at_once=False))
    assert [record.outcome for record in world.log.records] == [CallOutcome.ABANDONED]
    assert world.sessions.finished == []


@pytest.mark.parametrize("in_queue", [False, True], ids=["asked for the code", "taken up in the queue"])
def test_a_call_that_failed_is_no_longer_noted_when_the_apology_is_played(*, in_queue: bool) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the store is away")

    async def story() -> None:
        world = World(at_once=False, agents=())
        await world.start()
        phone = FakePhone("first", typed(CODES[0], at=5.0, gap=0.0))
        world.call(phone, CODES[0])
        if in_queue:
            await asyncio.sleep(10.0)
            await world.end("kill -9")
            await world.start()
            await asyncio.sleep(1.0)
            [phone] = world.phones.values()
            assert world.office
            wanted = world.office.desk._places[FIRST].wanted
            assert wanted
            wanted.set_exception(RuntimeError("a fault of ours"))
        else:
            world.sessions.claim = fail  # type: ignore[method-assign]
        await asyncio.sleep(30.0)
        assert (prompts(phone)[-1], phone.end) == (Prompt.APOLOGY, "plain queue")
        assert world.notes.texts == {}
        await world.close()

    virtualtime.run(story())


async def _in_call(*, served: bool, hangs_up: float) -> tuple[World, FakePhone]:
    """Give a world nine seconds after its start, with a caller who waits, or talks with an agent."""
    world = World(at_once=False, agents=(ANN,))
    await world.start()
    await asyncio.sleep(2 * BACK_SECONDS)
    assert world.office
    if served:
        world.office.desk.staff.set_available(ANN)
    phone = FakePhone("first", typed(CODES[0], at=2.0, gap=0.0), hangs_up=hangs_up)
    world.call(phone, CODES[0])
    await asyncio.sleep(9.0 - now())
    return world, phone


@pytest.mark.parametrize("fault", [RuntimeError("Asterisk is away"), StoreError("another process serves")], ids=repr)
def test_what_fails_after_the_hand_over_is_the_next_processs(fault: Exception) -> None:
    async def story() -> None:
        world, phone = await _in_call(served=False, hangs_up=100.0)
        assert world.office
        world.office.notes.hand_over()
        wanted = world.office.desk._places[FIRST].wanted
        assert wanted
        wanted.set_exception(fault)
        await asyncio.sleep(30.0)
        assert (phone.end, Prompt.APOLOGY in prompts(phone)) == ("", False)
        await world.close()

    virtualtime.run(story())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("talks", [False, True], ids=["waited", "talked"])
def test_whose_session_was_deleted_meanwhile_talks_on_or_is_asked_afresh(way: Way, *, talks: bool) -> None:
    async def story() -> None:
        world, phone = await _in_call(served=talks, hangs_up=30.0)
        await world.end(way)
        world.sessions.forget(CODES[0])
        before = len(phone.heard)
        await world.start()
        await asyncio.sleep(29.0 - now())
        assert world.office
        [phone] = world.phones.values()
        if talks:
            assert (phone.rung, phone.heard[before:]) == (["ann"], [])
            assert world.office.desk.in_hand[ANN].secret
        else:
            assert Prompt.WELCOME in prompts(phone)[before:]
            assert world.office.desk.waiting == []
        await asyncio.sleep(100.0 - now())
        assert world.notes.texts.keys() == {"agent ann"}
        await world.close()

    virtualtime.run(story())


@pytest.mark.parametrize("restart", [None, *WAYS])
@pytest.mark.parametrize("served", [False, True], ids=["given up", "served"])
def test_a_store_that_is_away_when_a_call_ends_is_told_afterwards(restart: Way | None, *, served: bool) -> None:
    async def story() -> None:
        world, phone = await _in_call(served=served, hangs_up=10.0)
        # The first process is told in time, or ends before that.
        world.sessions.away_until = 15.0 if restart is None else 10.2
        await asyncio.sleep(10.5 - now())
        assert world.sessions.claimed == {f"session {CODES[0]}": "first"}
        assert Prompt.APOLOGY not in prompts(phone)
        if restart:
            await world.end(restart)
            await world.start()
        await asyncio.sleep(17.0 - now())
        assert world.sessions.claimed == {}
        # Of a crash in between only the next process is told, to which nothing is noted any more.
        assert world.sessions.finished == ([f"session {CODES[0]}"] if served and restart != "kill -9" else [])
        await world.close()

    virtualtime.run(story())


@pytest.mark.parametrize(
    ("away", "talks", "stays"),
    [
        (IN_HAND_SECONDS - 1.0, False, True),
        (IN_HAND_SECONDS + 5.0, False, False),
        (IN_HAND_SECONDS + 5.0, True, True),
    ],
)
def test_a_call_of_an_earlier_process_waits_for_the_store(away: float, *, talks: bool, stays: bool) -> None:
    async def story() -> None:
        world, phone = await _in_call(served=talks, hangs_up=100.0)
        await world.end("kill -9")
        world.sessions.away_until = now() + away
        await world.start()
        await asyncio.sleep(110.0 - now())
        phone = world.phones[phone.channel]
        [record] = world.log.records
        assert record.outcome is (CallOutcome.ANSWERED if talks else CallOutcome.ABANDONED)
        if stays:
            assert Prompt.APOLOGY not in prompts(phone)
            # The agent hangs up, half a minute after they were found again; or the caller.
            over = 9.0 + away + 30.0 if talks else 100.0
            assert record.arrived + record.waited + record.talked == pytest.approx(over, abs=0.3)
        else:
            assert (prompts(phone)[-1], phone.end) == (Prompt.APOLOGY, "plain queue")
        await world.close()

    virtualtime.run(story())


@pytest.mark.parametrize("served", [False, True])
def test_who_hangs_up_before_the_next_process_goes_on_is_in_the_history(
    monkeypatch: pytest.MonkeyPatch, *, served: bool
) -> None:
    async def story() -> None:
        world, _ = await _in_call(served=served, hangs_up=10.0)
        await world.end("kill -9")
        by_secret = world.sessions.by_secret

        async def busy(secret: Secret) -> Session | None:
            await asyncio.sleep(3.0)
            return await by_secret(secret)

        monkeypatch.setattr(world.sessions, "by_secret", busy)
        await world.start()
        await asyncio.sleep(17.0 - now())
        [record] = world.log.records
        assert record.outcome is (CallOutcome.ANSWERED if served else CallOutcome.ABANDONED)
        assert record.waited + record.talked == pytest.approx(10.0 - record.arrived, abs=0.1)
        assert world.sessions.claimed == {}
        await world.close()

    virtualtime.run(story())


def test_a_stay_whose_session_has_gone_ends_with_the_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        world = World(at_once=False, agents=())
        await world.start()
        phone = FakePhone("first", typed(CODES[0], at=2.0, gap=0.0), hangs_up=60.0)
        world.call(phone, CODES[0])
        await asyncio.sleep(9.0 - now())
        await world.end("kill -9")

        async def gone(_: str) -> None:
            await asyncio.sleep(0.001)

        monkeypatch.setattr(world.sessions, "by_secret", gone)
        await world.start()
        taken_over = now()
        await asyncio.sleep(12.0 - now())
        [record] = world.log.records
        assert record.outcome is CallOutcome.ABANDONED
        assert record.arrived + record.waited == pytest.approx(taken_over, abs=0.1)
        assert prompts(world.phones[phone.channel])[-2:] == [Prompt.WELCOME, Prompt.ENTER_CODE_10], "asked afresh"
        await asyncio.sleep(70.0 - now())
        await world.close()

    virtualtime.run(story())


def test_what_is_told_late_does_not_undo_the_next_try() -> None:
    async def story() -> None:
        world = World(at_once=False, agents=())
        world.sessions.set_result(CODES[0], AuthResult(AuthStatus.FAILED, {}))
        await world.start()
        keys = typed(CODES[0], at=2.0, gap=0.0) + typed(CODES[1], at=4.7, gap=0.0)
        claim = world.sessions.claim

        async def claim_and_go_away(code: str, **how: Any) -> Session | None:
            session = await claim(code, **how)
            # Until after the first session should have been given back.
            world.sessions.away_until = max(world.sessions.away_until, 4.5)
            return session

        world.sessions.claim = claim_and_go_away  # type: ignore[method-assign]
        world.call(FakePhone("first", keys, hangs_up=10.0), CODES[0])
        await asyncio.sleep(5.0)
        assert world.sessions.claimed == {f"session {CODES[1]}": "first"}
        await asyncio.sleep(10.0)
        assert world.sessions.claimed == {}
        await world.close()

    virtualtime.run(story())


# At random moments of random stories

OUTCOMES = [RingOutcome.ANSWERED] * 4 + [RingOutcome.DECLINED, RingOutcome.NO_ANSWER, RingOutcome.UNREACHABLE]
BEHAVIOURS = st.builds(
    AgentBehaviour,
    outcome=st.sampled_from(OUTCOMES),
    after=st.sampled_from([0.0, 0.5, 1.0, 15.0]),
    talks=st.sampled_from([0.0, 0.002, 1.0, 20.0, LONG]),
)
SECONDS = st.sampled_from([0.0005, 0.001, 0.0015, 0.0025, 0.1, 0.3, 1.0, 5.0, 31.0])
PEOPLE = st.sampled_from(sorted(AGENTS))
TARGETS = st.sampled_from([TO_BOB, Target("agent", "carla"), TO_TAXES, TO_NUMBER])
MOST_CALLERS = len(CODES)
LONGEST_CALL = 120.0


class Takeovers(RuleBasedStateMachine):
    """Callers, three agents and processes that end, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=virtualtime.VirtualTimeLoop)
        self.world: World | None = None

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        self.runner.run(work)

    @precondition(lambda self: self.world is None)
    @rule(at_once=st.booleans())
    def begins(self, *, at_once: bool) -> None:
        async def begin() -> None:
            self.world = World(at_once=at_once, agents=sorted(AGENTS))
            await self.world.start()
            await asyncio.sleep(2 * BACK_SECONDS)
            assert self.world.office
            for name in AGENTS:
                self.world.office.desk.staff.set_available(name)

        self.do(begin())

    @property
    def up(self) -> bool:
        return self.world is not None and self.world.office is not None

    @property
    def there(self) -> World:
        """The world, once it has begun."""
        assert self.world
        return self.world

    @property
    def office(self) -> Office:
        """The office of the process that is up."""
        assert self.there.office
        return self.there.office

    @precondition(lambda self: self.up and len(self.world.phones) < MOST_CALLERS)
    @rule(
        keyed=st.sampled_from(["right", "right", "right", "wrong", "nothing"]),
        stays=st.sampled_from([0.001, 0.01, 2.0, 10.0, 60.0, LONGEST_CALL]),
        behaviours=st.fixed_dictionaries(dict.fromkeys([*sorted(AGENTS), OUTSIDE], BEHAVIOURS)),
    )
    def a_caller_comes(self, keyed: str, stays: float, behaviours: dict[str, AgentBehaviour]) -> None:
        async def come() -> None:
            world, number = self.there, len(self.there.phones)
            code = {"right": CODES[number], "wrong": "99", "nothing": ""}[keyed]
            phone = FakePhone(
                f"call {number}", typed(code, at=now(), gap=0.0), now() + stays, behaviours, channel=f"channel {number}"
            )
            world.call(phone, code)

        self.do(come())

    @precondition(lambda self: self.world is not None)
    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @precondition(lambda self: self.up and self.world.office.desk.in_hand)
    @rule(
        number=st.integers(0, 2),
        verb=st.sampled_from(sorted(Verb, key=lambda verb: verb.value)),
        whom=TARGETS,
    )
    def an_agent_asks(self, number: int, verb: Verb, whom: Target) -> None:
        async def ask() -> None:
            desk = self.office.desk
            names = sorted(desk.in_hand)
            name = names[number % len(names)]
            command = Command(verb, whom if verb in (V.CONSULT, V.BLIND) else None)
            desk.command(name, desk.in_hand[name].call, command)

        self.do(ask())

    @precondition(lambda self: self.up)
    @rule(name=PEOPLE, works=st.booleans())
    def an_agent_pauses_or_not(self, name: AgentName, *, works: bool) -> None:
        async def wish() -> None:
            staff = self.office.desk.staff
            if works:
                staff.set_available(name)
            else:
                staff.pause(name, "lunch")

        if name in self.office.desk.staff.agents:
            self.do(wish())

    @precondition(lambda self: self.up and self.world.phones)
    @rule(way=st.sampled_from(WAYS))
    def the_process_ends(self, way: Way) -> None:
        self.do(self.there.end(way))

    @precondition(lambda self: self.world is not None and not self.up)
    @rule()
    def another_starts(self) -> None:
        self.do(self.there.start())

    @invariant()
    def everybody_is_where_they_should_be(self) -> None:
        async def look() -> None:
            self.there.check()

        if self.world:
            self.do(look())

    def teardown(self) -> None:
        async def end() -> None:
            if self.there.office is None:
                await self.there.start()
            await asyncio.sleep(2 * LONGEST_CALL)
            await self.there.over()
            await self.there.close()

        try:
            if self.world:
                self.do(end())
        finally:
            self.runner.close()


# Like the simulated day: measuring makes the stories more than twice as slow, and these are many examples.
@pytest.mark.no_cover
def test_processes_that_end_at_random_moments_lose_nobody() -> None:
    run_state_machine_as_test(
        Takeovers,
        settings=settings(
            max_examples=300,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
