"""A day of 10,000 calls and 200 agents in virtual time, on the real flow, desk and staff.

What must always hold is checked whenever anything changes; how good the expected wait is, is measured on the same day.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
import structlog

from idbellen.calls.flow import PurposeRules
from idbellen.calls.supervise import supervise
from idbellen.domain.agents import AgentState
from idbellen.domain.codes import new_code
from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.domain.queueing import QueueRules, Queues, Strategy, WayOut
from idbellen.domain.statistics import CallOutcome
from idbellen.domain.talk import Command, Target, Verb
from idbellen.ports import RingOutcome, Session
from tests import virtualtime
from tests.fakes import LOGGED_IN, AgentBehaviour, FakeCallLog, FakePhone, FakeSessions, now
from tests.stories import RULES, account, new_office

if TYPE_CHECKING:
    from collections.abc import Iterator

    from idbellen.calls.desk import Desk
    from idbellen.calls.flow import Office

CALLS, AGENTS = 10_000, 200
DAY = 8 * 3600.0
# Real codes: their digits are the one thing that chance may choose anew each time.
CODES = tuple(itertools.islice(dict.fromkeys(new_code(10) for _ in range(CALLS + 100)), CALLS))
SEED = 20261124
SERVED = ("residents", "taxes", "permits", "street")
QUEUES = Queues(
    {
        "residents": QueueRules(Strategy.LONGEST_IDLE, wrap_up=30.0, announce=0.0),
        "taxes": QueueRules(Strategy.ROUND_ROBIN, longest=900.0, on_longest=WayOut("queue", "residents"), announce=0.0),
        "permits": QueueRules(Strategy.RING_ALL, wrap_up=10.0, length=15, announce=0.0),
        "street": QueueRules(verified_first=False, announce=120.0),
    }
)


@dataclass
class Day:
    """What is watched all day long."""

    desk: Desk
    checks: int = 0
    # The minutes that each caller was told on entry.
    told: dict[str, int | None] = field(default_factory=dict)

    def check(self) -> None:
        """Nobody is offered twice, and no agent idles while a matching caller waits."""
        desk, moment = self.desk, now()
        if desk._matching:
            return
        self.checks += 1
        offered = [offer.call for offer in desk._offers.values()]
        rung = set()
        for name, reservation in desk._reserved.items():
            assert reservation.agent == name
            assert name in desk._offers or name in desk._calls, f"{name} is reserved for nobody"
            assert not (name in desk._offers and name in desk._calls), f"{name} is offered and talks"
        for call in offered:
            ring_all = desk._places.get(call) and desk.queues[desk._places[call].ticket.queue].strategy
            assert ring_all is Strategy.RING_ALL or call not in rung, f"{call} is offered twice"
            rung.add(call)
        for place in desk._places.values():
            call = place.ticket.call
            if call not in self.told and not place.being_offered:
                self.told[call] = desk.standing(call).minutes
        waiting = {place.ticket.queue for place in desk._places.values() if not place.being_offered}
        if waiting:
            free = [agent for agent in desk.staff.agents.values() if agent.free(moment)]
            for agent in free:
                assert all(agent.penalty(queue) is None for queue in waiting), f"{agent.name} idles"


def people(chance: random.Random) -> Iterator[tuple[str, dict[str, int]]]:
    for number in range(AGENTS):
        first, second = chance.sample(SERVED, 2)
        yield f"agent {number}", {first: 0, second: chance.randint(0, 2)}


class Sessions(FakeSessions):
    """Sessions of all purposes, one in ten not verified."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        failed = AuthResult(AuthStatus.FAILED, {})
        for number in range(CALLS):
            result = failed if chance.random() < 0.1 else LOGGED_IN
            self.codes[CODES[number]] = Session(f"session {number}", chance.choice(SERVED), result)
        self._references = {session.reference: session for session in self.codes.values()}

    async def by_reference(self, reference: str) -> Session | None:
        await asyncio.sleep(0.001)
        return self._references.get(reference)


class AnyAgent(dict[str, AgentBehaviour]):
    """How whoever is rung behaves: three in a hundred phones are not answered."""

    def __init__(self, chance: random.Random, talks: float) -> None:
        super().__init__()
        self._chance = chance
        self._talks = talks

    def get(self, _: str, __: object = None) -> AgentBehaviour:  # type: ignore[override]
        if self._chance.random() < 0.03:
            return AgentBehaviour(RingOutcome.NO_ANSWER, 20.0)
        return AgentBehaviour(RingOutcome.ANSWERED, 3.0, self._talks)


async def one_call(office: Office, chance: random.Random, number: int) -> None:
    # Busier towards the middle of the day than at its ends.
    await asyncio.sleep(chance.triangular(0.0, DAY - 1800.0))
    talks = chance.expovariate(1 / 240.0)
    phone = FakePhone(
        f"call {number}",
        [(now(), key) for key in CODES[number]],
        hangs_up=now() + chance.expovariate(1 / 1200.0) if chance.random() < 0.2 else 1e9,
    )
    phone.agents = AnyAgent(chance, talks)
    await supervise(phone, office)
    assert (phone.ringing, phone.talking) == (0, 0)


async def moods(day: Day, chance: random.Random) -> None:
    """Agents pause and come back, and some transfer the call they are in."""
    staff, desk = day.desk.staff, day.desk
    while now() < DAY:
        await asyncio.sleep(5.0)
        name = chance.choice(list(staff.agents))
        what = chance.random()
        if what < 0.3:
            staff.pause(name, "lunch")
            asyncio.get_running_loop().call_later(chance.uniform(60.0, 1800.0), staff.set_available, name)
        elif what < 0.6 and name in desk.in_hand:
            verb = chance.choice([Verb.BLIND, Verb.CONSULT])
            target = Target("queue", chance.choice(SERVED))
            desk.command(name, desk.in_hand[name].call, Command(verb, target))
            if verb is Verb.CONSULT:
                then = chance.choice([Verb.TRANSFER, Verb.RESUME, Verb.CONFERENCE])
                call = desk.in_hand[name].call
                asyncio.get_running_loop().call_later(45.0, desk.command, name, call, Command(then))
        elif staff[name].state is AgentState.NOT_ANSWERING:
            staff.set_available(name)


async def whole_day() -> tuple[FakeCallLog, Day, FakeSessions]:
    chance = random.Random(SEED)
    log, sessions = FakeCallLog(), Sessions(chance)
    rules = replace(RULES, purposes={queue: PurposeRules(queue, admit_unverified=True) for queue in SERVED})
    office = new_office(rules, sessions, QUEUES, log=log, most_missed=3)
    day = Day(office.desk)
    for name, queues in people(chance):
        office.desk.staff.log_in_by_phone(account(name, **queues))
    office.desk.on_change(day.check)
    async with asyncio.TaskGroup() as group:
        group.create_task(moods(day, chance))
        for number in range(CALLS):
            group.create_task(one_call(office, random.Random(SEED + number), number))
    assert office.desk._places == {}
    assert office.desk._reserved == {}
    return log, day, sessions


@pytest.fixture(scope="module")
def simulated() -> tuple[FakeCallLog, Day, FakeSessions]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        return virtualtime.run(whole_day())  # type: ignore[no-any-return]
    finally:
        structlog.reset_defaults()


def test_nobody_is_lost(simulated: tuple[FakeCallLog, Day, FakeSessions]) -> None:
    log, day, sessions = simulated
    assert day.checks > CALLS, "it was looked at all day"
    first = {record.call: record for record in reversed(log.records)}
    last = {record.call: record for record in log.records}
    assert len(last) == CALLS
    assert sessions.claimed == {}
    outcomes = Counter(record.outcome for record in last.values())
    assert outcomes[CallOutcome.ANSWERED] > 0.8 * CALLS
    assert set(outcomes) <= {CallOutcome.ANSWERED, CallOutcome.ABANDONED, CallOutcome.FULL, CallOutcome.TOO_LONG}
    assert outcomes[CallOutcome.LEFT] == 0
    several = sum(record is not first[call] for call, record in last.items())
    assert several > 50, "callers were sent on to other queues"


def test_everybody_worked(simulated: tuple[FakeCallLog, Day, FakeSessions]) -> None:
    log, _, _ = simulated
    calls = Counter(record.agent for record in log.records if record.agent)
    assert len(calls) == AGENTS
    assert log.misses


def test_the_expected_wait_is_worth_telling(simulated: tuple[FakeCallLog, Day, FakeSessions]) -> None:
    log, day, _ = simulated
    answered = {record.call: record for record in log.records if record.outcome is CallOutcome.ANSWERED}
    told = [(60.0 * minutes, answered[call]) for call, minutes in day.told.items() if minutes and call in answered]
    errors = [seconds - record.waited for seconds, record in told]
    assert len(errors) > 1000
    # Seen: 3700 callers, who waited for 64 s in the mean; the bias was -3 s and the mean error 79 s. Talks of 240 s,
    # exponential as these are, cannot be foretold better than that by whoever does not know which will end.
    assert abs(statistics.fmean(errors)) < 20.0
    assert statistics.fmean(map(abs, errors)) < 100.0
