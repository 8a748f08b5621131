"""A day of 10,000 calls and 200 agents in virtual time, on the real flow, desk and staff.

What must always hold is checked at every match and at every change; how good the expected wait is, is measured on the
same day. Chance is the same each time. Its coverage is not measured: that would more than double what the day costs.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
import structlog
from coverage import Coverage

from idbellen.calls import desk as desk_module
from idbellen.calls.office import PurposeRules
from idbellen.calls.stories import Stories
from idbellen.domain.agents import AgentState
from idbellen.domain.codes import new_code
from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.domain.ids import AgentName, CallId, QueueName, SessionRef
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import Match, QueueRules, Queues, Strategy, ToQueue, match
from idbellen.domain.statistics import CallOutcome
from idbellen.domain.talk import Command, Mode, Target, Verb
from idbellen.ports import RingOutcome, Session
from tests.support import virtualtime
from tests.support.fakes import LOGGED_IN, AgentBehaviour, FakeCallLog, FakePhone, FakeSessions, now
from tests.support.logs import plain_logs
from tests.support.stories import RULES, account, new_office, prompts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from idbellen.calls.office import Office
    from idbellen.domain.agents import Agent
    from idbellen.domain.queueing import Ticket
    from idbellen.domain.statistics import CallRecord

RESIDENTS, TAXES, STREET, PERMITS = map(QueueName, ("residents", "taxes", "street", "permits"))

CALLS, AGENTS = 10_000, 200
DAY = 8 * 3600.0
# Real codes: their digits are the one thing that chance may choose anew each time.
CODES = tuple(itertools.islice(dict.fromkeys(new_code(10) for _ in range(CALLS + 100)), CALLS))
SEED = 20261124
# How many in a hundred call for each queue; so many agents of a hundred have it as their first.
SERVED = {RESIDENTS: 45, TAXES: 30, STREET: 18, PERMITS: 7}
QUEUES = Queues(
    {
        RESIDENTS: QueueRules(Strategy.LONGEST_IDLE, wrap_up=30.0, announce=0.0),
        TAXES: QueueRules(
            Strategy.ROUND_ROBIN,
            verified_first=False,
            longest=300.0,
            ways_out={CallOutcome.TOO_LONG: ToQueue(STREET)},
        ),
        STREET: QueueRules(verified_first=False, announce=120.0),
        PERMITS: QueueRules(Strategy.RING_ALL, verified_first=False, wrap_up=10.0, length=15),
    }
)
MEAN_TALK = 280.0


def in_turn(ticket: Ticket) -> tuple[bool, float, str]:
    """Give what callers are served by on this day: no purpose has a priority here, and no supervisor is there."""
    return QUEUES[ticket.queue].verified_first and not ticket.verified, ticket.since, ticket.call


@dataclass
class Day:
    """What is watched all day long. A failed check would be the fault of the call in which it failed, so it is kept."""

    office: Office
    log: FakeCallLog
    sessions: FakeSessions
    phones: list[FakePhone] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    matches: int = 0
    changes: int = 0
    transfers: Counter[str] = field(default_factory=Counter)

    def match(
        self,
        waiting: Iterable[Ticket],
        agents: Iterable[Agent],
        queues: Queues,
        moment: float,
        in_use: AbstractSet[str],
    ) -> list[Match]:
        """Match, and look whether it is right."""
        waiting, agents = list(waiting), list(agents)
        found = match(waiting, agents, queues, moment, in_use)
        self.matches += 1
        everybody = self.office.desk.staff.agents.values()
        if {agent.name for agent in everybody if agent.engaged} != self.office.desk._reserved.keys():
            self.faults.append(f"{moment}: somebody is reserved and not engaged, or the other way round")
        if {agent.name for agent in everybody if agent.state is AgentState.AVAILABLE} != {one.name for one in agents}:
            self.faults.append(f"{moment}: somebody is available and not looked at, or the other way round")
        names = [name for pair in found for name in pair.agents]
        if len(set(names)) < len(names) or len({pair.call for pair in found}) < len(found):
            self.faults.append(f"{moment}: somebody twice in {found}")
        served = {pair.call: pair.agents for pair in found}
        ahead: set[tuple[str, str | None]] = set()  # the queues in which somebody waits on, and who asks there
        for ticket in sorted(waiting, key=in_turn) if found else ():
            offered_to = served.get(ticket.call)
            if offered_to is None:
                ahead.add((ticket.queue, ticket.asker))
            elif len(offered_to) > 1 and queues[ticket.queue].strategy is not Strategy.RING_ALL:
                self.faults.append(f"{moment}: several phones for {ticket}")
            for name, (queue, asker) in itertools.product(offered_to or (), ahead):
                if queue in self.office.desk.staff[name].queues and name != asker:
                    self.faults.append(f"{moment}: {ticket} was served before somebody in {queue}")
        return found

    def check(self) -> None:
        """See that nobody has two callers, and that nobody idles while a matching caller waits."""
        desk, moment = self.office.desk, now()
        self.changes += 1
        if any((held.offer is None) == (held.call is None) for held in desk._reserved.values()):
            self.faults.append(f"{moment}: somebody has two callers, or is reserved for none")
        free = [agent for agent in desk.staff.available if agent.free(moment)]
        waiting = {place.ticket.queue for place in desk._places.values() if free and not place.being_offered}
        for agent in free:
            if not waiting.isdisjoint(agent.queues):
                self.faults.append(f"{moment}: {agent.name} idles")


def a_queue(chance: random.Random) -> QueueName:
    [queue] = chance.choices(list(SERVED), list(SERVED.values()))
    return queue


def people(chance: random.Random) -> Iterator[tuple[str, dict[QueueName, int]]]:
    firsts = [queue for queue, share in SERVED.items() for _ in range(share * AGENTS // 100)]
    for number, first in enumerate(firsts):
        others = [queue for queue in SERVED if queue not in (first, PERMITS)]
        more = {} if first == PERMITS else {chance.choice(others): chance.randint(0, 2)}
        yield f"agent {number}", {first: 0} | more


def sessions_of(chance: random.Random) -> FakeSessions:
    """Give sessions of all purposes, one in ten not verified."""
    sessions = FakeSessions()
    failed = AuthResult(AuthStatus.FAILED, {})
    for number in range(CALLS):
        result = failed if chance.random() < 0.1 else LOGGED_IN
        sessions.add(CODES[number], Session(SessionRef(f"session {number}"), a_queue(chance), result))
    return sessions


class AnyAgent(dict[str, AgentBehaviour]):
    """How whoever is rung behaves: three in a hundred phones are not answered."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    def get(self, _: str, __: object = None) -> AgentBehaviour:
        if self._chance.random() < 0.03:
            return AgentBehaviour(RingOutcome.NO_ANSWER, 20.0)
        return AgentBehaviour(RingOutcome.ANSWERED, 3.0, self._chance.expovariate(1 / MEAN_TALK))


async def calls(day: Day) -> None:
    """Let them call, busier towards the middle of the day; one in five does not wait for as long as it takes."""
    chance = random.Random(SEED + 1)
    async with asyncio.TaskGroup() as group:
        for number, at in enumerate(sorted(chance.triangular(0.0, DAY - 1800.0) for _ in range(CALLS))):
            await asyncio.sleep(at - now())
            phone = FakePhone(f"call {number}", [(at, key) for key in CODES[number]])
            phone.hangs_up = at + chance.expovariate(1 / 1200.0) if chance.random() < 0.2 else float("inf")
            phone.agents = AnyAgent(random.Random(SEED + number))
            day.phones.append(phone)
            group.create_task(Stories(day.office).take(phone))


async def moods(day: Day) -> None:
    """Let agents pause and come back, and some ask others in the call they are in, or send it on."""
    chance = random.Random(SEED + 2)
    desk, staff = day.office.desk, day.office.desk.staff
    later = asyncio.get_running_loop().call_later

    def ask(name: AgentName, call: CallId, verb: Verb, target: Target | None = None) -> None:
        if desk.command(name, call, Command(verb, target)) is None:
            day.transfers[verb.value] += 1

    while now() < DAY:
        await asyncio.sleep(5.0)
        name = chance.choice(list(staff.agents))
        what = chance.random()
        call = desk.in_hand.get(name)
        if staff[name].state is AgentState.NOT_ANSWERING:
            staff.set_available(name)
        elif what < 0.3:
            staff.pause(name, "lunch")
            later(chance.uniform(60.0, 1800.0), staff.set_available, name)
        elif what < 0.6 and call and call.mode is Mode.TALKING:
            colleague, queue = chance.choice(list(staff.agents)), a_queue(chance)
            target = chance.choice([Target("agent", colleague), Target("queue", queue), Target("number", "14020")])
            verb = chance.choice([Verb.BLIND, Verb.CONSULT])
            ask(name, call.call, verb, target)
            if verb is Verb.CONSULT:
                then = chance.choice([Verb.TRANSFER, Verb.RESUME, Verb.CONFERENCE])
                later(45.0, ask, name, call.call, then)
                later(90.0, ask, name, call.call, Verb.RESUME)


async def whole_day() -> Day:
    chance = random.Random(SEED)
    log, sessions = FakeCallLog(), sessions_of(chance)
    purposes: dict[str, PurposeRules] = {queue: PurposeRules(queue, admit_unverified=True) for queue in SERVED}
    rules = replace(RULES, purposes=purposes, active_every=DAY)
    office = new_office(rules, sessions, QUEUES, log=log, most_missed=3)
    day = Day(office, log, sessions)
    for name, queues in people(chance):
        office.desk.staff.log_in_by_phone(account(name, **queues))
    office.desk.staff.news.on_change(day.check)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk_module, "match", day.match)
        async with asyncio.TaskGroup() as group:
            group.create_task(moods(day))
            group.create_task(calls(day))
    return day


@pytest.fixture(scope="module")
def day() -> Day:
    # Nobody reads what 10,000 calls have to say.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    # The marker no_cover is for tests, and does not reach their fixtures.
    coverage = Coverage.current()
    if coverage:
        coverage.stop()
    try:
        return virtualtime.run(whole_day())  # type: ignore[no-any-return]
    finally:
        if coverage:
            coverage.start()
        plain_logs()


def test_nobody_is_offered_twice_nor_before_those_ahead_nor_waits_while_an_agent_idles(day: Day) -> None:
    assert day.faults == []
    assert day.matches > CALLS
    assert day.changes > 5 * CALLS, "it was looked at all day"


def test_every_call_ends_once_and_leaves_nothing_behind(day: Day) -> None:
    records: defaultdict[str, list[CallRecord]] = defaultdict(list)
    for record in day.log.records:
        records[record.call].append(record)
    ends = {
        CallOutcome.ANSWERED: {"hung up", ""},  # by the agent, or by the caller
        CallOutcome.ABANDONED: {""},
        CallOutcome.FULL: {"plain queue"},
        CallOutcome.TOO_LONG: {"plain queue"},  # a circle of queues
    }
    assert len(day.phones) == CALLS
    for phone in day.phones:
        *before, last = records[phone.call]
        assert phone.end in ends[last.outcome], (phone.end, last)
        # Sent on by an agent, or by a queue.
        assert {record.outcome for record in before} <= {CallOutcome.ANSWERED, CallOutcome.TOO_LONG}
        assert (phone.ringing, phone.talking) == (0, 0)
        assert Prompt.APOLOGY not in prompts(phone)
    desk = day.office.desk
    assert (desk._places, desk._reserved) == ({}, {})
    assert day.sessions.claimed == {}
    assert not any(agent.engaged for agent in desk.staff.agents.values())


def test_all_of_it_happened(day: Day) -> None:
    outcomes = Counter(record.outcome for record in day.log.records)
    assert outcomes[CallOutcome.ANSWERED] > 0.9 * CALLS
    assert min(outcomes[one] for one in (CallOutcome.ABANDONED, CallOutcome.FULL, CallOutcome.TOO_LONG)) > 30
    assert len({record.agent for record in day.log.records if record.agent}) == AGENTS, "everybody worked"
    assert len(day.log.misses) > 200
    assert min(day.transfers[verb.value] for verb in (Verb.BLIND, Verb.CONSULT, Verb.TRANSFER, Verb.CONFERENCE)) > 30


def tellings(day: Day) -> Iterator[tuple[float, float]]:
    """Give each wait that a caller was told, at whichever time, and how long they then still waited; in seconds."""
    first: dict[str, CallRecord] = {}
    for record in day.log.records:
        first.setdefault(record.call, record)
    for phone in day.phones:
        record = first[phone.call]
        for at, prompt in phone.heard:
            left = record.arrived + record.waited - at
            minutes = prompt.name.removeprefix("WAIT_")
            if record.outcome is CallOutcome.ANSWERED and left > 0 and minutes.isdecimal():
                yield 60.0 * int(minutes), left


def test_the_expected_wait_is_worth_telling(day: Day) -> None:
    """Seen: 8800 waits told, real ones of 139 s in the mean; the bias is -8 s, the mean error 64 s.

    Waits are told in minutes, rounded up, and from five on in steps of five: by that alone who knew the future would
    err by 47 s. Who told everybody the median, which nobody knows beforehand either, would err by 91 s. On the days of
    other seeds the bias is up to -26 s and the mean error up to 69 s; the bounds leave some room beyond those.
    """
    told = list(tellings(day))
    assert len(told) > 5000
    errors = [seconds - left for seconds, left in told]
    mean_error = statistics.fmean(map(abs, errors))
    usual = statistics.median(left for _, left in told)
    by_the_median = statistics.fmean(abs(usual - left) for _, left in told)
    assert abs(statistics.fmean(errors)) < 30.0
    assert mean_error < 80.0
    assert mean_error < 0.8 * by_the_median


def test_no_wait_is_told_to_whom_others_overtake(day: Day) -> None:
    overtaken = {one.call for one in day.log.records if one.queue == "residents" and not one.verified}
    sent_on = {one.call for one in day.log.records if one.queue != "residents"}
    heard = [prompt.value for phone in day.phones if phone.call in overtaken - sent_on for prompt in prompts(phone)]
    assert any(prompt.startswith("place-") for prompt in heard)
    assert not any(prompt.startswith("wait-") for prompt in heard)
