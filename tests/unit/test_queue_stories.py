"""Waiting in a queue, in virtual time: what callers hear, how long they wait, and the ways out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from idbellen.calls.identify import claimed
from idbellen.calls.office import PurposeRules
from idbellen.calls.queue import in_queue
from idbellen.calls.reach import Party
from idbellen.calls.stay import recorded
from idbellen.calls.stories import Stories
from idbellen.domain.agents import AgentState, PhoneState
from idbellen.domain.hours import OpeningHours, parse_day
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.domain.notes import CallNote
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import Goodbye, Plain, QueueRules, Queues, Strategy, ToExtension, ToQueue, WayOut
from idbellen.domain.statistics import CallOutcome
from idbellen.domain.talk import Command, Target, Verb
from idbellen.ports import RingOutcome
from tests.support import virtualtime
from tests.support.fakes import (
    LOGGED_IN,
    PROMPT_SECONDS,
    AgentBehaviour,
    FakeCallLog,
    FakeLeg,
    FakePhone,
    FakeSessions,
    now,
)
from tests.support.stories import ALWAYS, CODE, FAILED, RULES, WRONG, account, new_office, prompts, typed
from tests.support.values import about, agent_now

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from idbellen.calls.desk import Reservation
    from idbellen.calls.office import CallRules, Office

A = AgentName("a")
CALL, CALLBACK, CALL_3, NOBODY = CallId("call"), CallId("callback"), CallId("call 3"), CallId("nobody")
DEFAULT, SECOND, TAXES = QueueName("default"), QueueName("second"), QueueName("taxes")

NEVER = OpeningHours({}, {}, ALWAYS.timezone)
P = Prompt
CODES = (CODE, WRONG, "5757575757", "3131313131")


def tell(  # noqa: PLR0913 - each has its usual value
    *phones: FakePhone,
    queue: QueueRules,
    more: Mapping[QueueName, QueueRules] | None = None,
    agents: tuple[str, ...] = (),
    hours: OpeningHours | Mapping[QueueName, OpeningHours] = ALWAYS,
    rules: CallRules = RULES,
    beside: Callable[[Office], Coroutine[Any, Any, None]] | None = None,
    sessions: FakeSessions | None = None,
) -> FakeCallLog:
    """Tell calls at once in an office with these queues; gives what was recorded."""
    log = FakeCallLog()
    sessions = sessions or FakeSessions(*CODES)

    async def story() -> None:
        queues = Queues({DEFAULT: queue, **(more or {})})
        office = new_office(rules, sessions, queues, hours, log, most_missed=3)
        staff = office.desk.staff
        for name in agents:
            staff.log_in_by_phone(account(name))
        async with asyncio.TaskGroup() as group:
            for phone in phones:
                group.create_task(Stories(office).take(phone))
            if beside:
                group.create_task(beside(office))
        assert office.desk.waiting == []
        assert sessions.claimed == {}
        for phone in phones:
            assert (phone.ringing, phone.talking) == (0, 0)
            assert P.APOLOGY not in prompts(phone), "a call failed"

    virtualtime.run(story())
    return log


def outcomes(log: FakeCallLog) -> list[tuple[str, str]]:
    return [(record.queue, record.outcome.value) for record in log.records]


def when(phone: FakePhone, prompt: Prompt) -> list[float]:
    return [round(at, 1) for at, heard in phone.heard if heard is prompt]


def waiting_caller(call: str = "call", code: str = CODE, **how: Any) -> FakePhone:
    return FakePhone(call, typed(code, at=1.0, gap=0.0), **how)


def moves_at(at: float, queue: QueueName) -> Callable[[Office], Coroutine[Any, Any, None]]:
    async def move(office: Office) -> None:
        await asyncio.sleep(at)
        assert office.desk.move_to_queue(CALL, queue)

    return move


# What a caller hears


def test_the_place_on_entry_and_at_intervals_and_comfort_in_between() -> None:
    phone = waiting_caller(hangs_up=200.0)
    tell(phone, queue=QueueRules(announce=60.0, comfort=25.0, music="harp"))
    entered = 1.0
    assert prompts(phone)[2:5] == [P.CODE_ACCEPTED, P.PLACE_1, P.HEAR_AGAIN]
    assert when(phone, P.PLACE_1) == pytest.approx([entered, 61.0, 121.0, 181.0], abs=5)
    assert when(phone, P.STILL_WAITING) == pytest.approx([entered + 25.0 * n for n in range(1, 8)], abs=5)
    assert phone.music_class == "harp"


def test_the_key_tells_the_place_again_and_other_keys_do_nothing() -> None:
    phone = waiting_caller(hangs_up=58.0)
    phone.keys = [*phone.keys, (20.0, "5"), (30.0, "1"), (40.0, "1")]
    tell(phone, queue=QueueRules(announce=60.0))
    assert when(phone, P.PLACE_1) == pytest.approx([1.0, 30.0, 40.0], abs=0.2)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (20.0, [1.0, 20.0]),  # while music plays: the other four come while the place is told
        (3.0, [1.0, 1.0 + PROMPT_SECONDS]),  # while the caller is told which key to press
        (41.0, [1.0, 40.0 + PROMPT_SECONDS]),  # while a friendly sentence plays
        (1.0, [1.0]),  # with the code
    ],
)
def test_the_key_pressed_five_times_tells_the_place_once(first: float, told: list[float]) -> None:
    phone = waiting_caller(hangs_up=58.0)
    phone.keys = [*phone.keys, *[(first + 0.2 * number, "1") for number in range(5)]]
    tell(phone, queue=QueueRules(announce=0.0, comfort=39.0))
    assert when(phone, P.PLACE_1) == pytest.approx(told, abs=0.2)
    assert all(playback.heard_out for playback in phone.playbacks[1:]), "no sentence is cut"


def test_no_interval_is_no_announcement() -> None:
    phone = waiting_caller(hangs_up=500.0)
    tell(phone, queue=QueueRules(announce=0.0))
    assert len(when(phone, P.PLACE_1)) == 1


def test_the_second_hears_their_place_and_the_expected_wait() -> None:
    agents = {"a": AgentBehaviour(after=2.0, talks=118.0)}
    first, second, third = (
        FakePhone(f"call {number}", typed(code, at=at, gap=0.0), agents=agents)
        for number, (code, at) in enumerate(zip(CODES, (1.0, 201.0, 203.0), strict=False))
    )

    async def later(office: Office) -> None:
        await asyncio.sleep(200.0)
        async with asyncio.TaskGroup() as group:
            for phone in (second, third):
                group.create_task(Stories(office).take(phone))

    tell(first, queue=QueueRules(announce=0.0), agents=("a",), beside=later)
    assert prompts(first)[2:4] == prompts(second)[2:4] == [P.CODE_ACCEPTED, P.PLEASE_WAIT], "an agent was free"
    assert prompts(third)[2:6] == [P.CODE_ACCEPTED, P.PLACE_2, P.WAIT_4, P.HEAR_AGAIN], (
        "a call of two minutes had ended"
    )


def test_the_expected_wait_is_shorter_as_soon_as_more_agents_are_at_work() -> None:
    minutes: list[int | None] = []

    async def come(office: Office) -> None:
        desk = office.desk
        await asyncio.sleep(10.0)
        minutes.append(desk.standing(CALL).minutes)
        desk._standings.handled(DEFAULT, 240.0)
        for name in ("a", "b"):
            desk.staff.set_phone(name, PhoneState.BUSY)
            desk.staff.log_in_by_phone(account(name))
            minutes.append(desk.standing(CALL).minutes)
        desk.staff.pause(A, "lunch")
        minutes.append(desk.standing(CALL).minutes)

    tell(waiting_caller(hangs_up=20.0), queue=QueueRules(), beside=come)
    assert minutes == [None, 4, 2, 4]


def test_an_unverified_caller_is_told_no_wait_where_verified_callers_go_first() -> None:
    """Whoever calls later and is verified goes first, and nobody knows how many that will be."""
    rules = replace(RULES, purposes={"report_move": PurposeRules(DEFAULT, admit_unverified=True)})

    def heard(*, verified: bool, verified_first: bool) -> list[Prompt]:
        sessions = FakeSessions(*CODES)
        sessions.set_result(WRONG, LOGGED_IN if verified else FAILED)
        first = waiting_caller("first", agents={"a": AgentBehaviour(after=1.0, talks=99.0)})
        second = FakePhone("second", typed(WRONG, at=150.0, gap=0.0), hangs_up=170.0)
        busy = FakePhone("busy", typed(CODES[2], at=120.0, gap=0.0))

        async def come(office: Office) -> None:
            async with asyncio.TaskGroup() as group:
                for at, phone in ((120.0, busy), (150.0, second)):
                    await asyncio.sleep(at - now())
                    group.create_task(Stories(office).take(phone))

        queue = QueueRules(verified_first=verified_first)
        tell(first, queue=queue, agents=("a",), rules=rules, beside=come, sessions=sessions)
        return prompts(second)[3:]

    assert heard(verified=False, verified_first=True) == [P.PLACE_1, P.HEAR_AGAIN]
    assert heard(verified=False, verified_first=False) == [P.PLACE_1, P.WAIT_2, P.HEAR_AGAIN]
    assert heard(verified=True, verified_first=True) == [P.PLACE_1, P.WAIT_2, P.HEAR_AGAIN]


def test_who_logs_in_while_waiting_goes_ahead_where_verified_callers_go_first() -> None:
    rules = replace(RULES, purposes={"report_move": PurposeRules(DEFAULT, admit_unverified=True)})
    order: list[list[CallId]] = []
    sessions = FakeSessions(*CODES)
    for code in (CODE, WRONG):
        sessions.set_result(code, None)

    async def log_in(office: Office) -> None:
        for code, result in (("another", LOGGED_IN), (WRONG, FAILED), (WRONG, LOGGED_IN)):
            await asyncio.sleep(5.0)
            office.progress.result_arrived(SessionRef(f"session {code}"), result)
            order.append([ticket.call for ticket in office.desk.waiting])

    first = waiting_caller("first", hangs_up=20.0)
    second = waiting_caller("second", WRONG, hangs_up=20.0)
    tell(first, second, queue=QueueRules(verified_first=True), rules=rules, beside=log_in, sessions=sessions)
    assert order == [["first", "second"], ["first", "second"], ["second", "first"]]


# Who gets them


def test_an_offer_in_vain_puts_the_caller_back_in_front() -> None:
    agents = {"a": AgentBehaviour(RingOutcome.DECLINED, after=1.0), "b": AgentBehaviour(after=1.0, talks=5.0)}
    first = waiting_caller(agents=agents)
    second = FakePhone("second", typed(WRONG, at=1.5, gap=0.0), agents=agents)

    async def come(office: Office) -> None:
        await asyncio.sleep(10.0)
        office.desk.staff.log_in_by_phone(account("b"))
        await asyncio.sleep(0.5)
        assert [place.ticket.call for place in office.desk._places.values()] == ["call", "second"]

    log = tell(first, second, queue=QueueRules(), agents=("a",), beside=come)
    assert [record.call for record in log.records] == ["call", "second"]
    assert [record.agent for record in log.records] == ["b", "b"]
    assert log.misses == ["a", "a", "a"], "after three of them no more"


def test_ring_all_goes_to_the_first_who_answers_and_nobody_else_missed_it() -> None:
    agents = {"a": AgentBehaviour(after=5.0), "b": AgentBehaviour(after=2.0, talks=9.0), "c": AgentBehaviour(after=7.0)}
    phone = waiting_caller(agents=agents)
    states: list[str] = []

    async def look(office: Office) -> None:
        for at in (2.0, 4.0):
            await asyncio.sleep(at - now())
            states.append(" ".join(agent.state.value for agent in office.desk.staff.agents.values()))

    log = tell(phone, queue=QueueRules(Strategy.RING_ALL), agents=("a", "b", "c"), beside=look)
    assert phone.rung == ["a", "b", "c"]
    assert states == ["ringing ringing ringing", "available in_call available"]
    assert (log.misses, log.records[0].agent) == ([], "b")


def test_skills_decide_who_is_rung() -> None:
    phone = waiting_caller()

    async def come(office: Office) -> None:
        office.desk.staff.log_in_by_phone(account("helper", default=3))
        office.desk.staff.log_in_by_phone(account("expert", default=1))
        office.desk.staff.log_in_by_phone(account("other", taxes=0))

    tell(phone, queue=QueueRules(), beside=come)
    assert phone.rung == ["expert"]


def test_priority_of_the_purpose_and_a_supervisor_decide_who_is_next() -> None:
    rules = replace(RULES, purposes={"report_move": PurposeRules(DEFAULT, admit_unverified=False, priority=7)})
    phones = [FakePhone(f"call {n}", typed(code, at=1.0 + n, gap=0.0)) for n, code in enumerate(CODES)]
    for phone in phones:
        phone.agents = {"a": AgentBehaviour(after=1.0, talks=5.0)}

    async def supervisor(office: Office) -> None:
        await asyncio.sleep(10.0)
        desk = office.desk
        assert {ticket.priority for ticket in desk.waiting} == {7}
        assert desk.move_to_front(CallId("call 2"))
        assert desk.move_to_front(CALL_3)
        assert not desk.move_to_front(NOBODY)
        assert desk.standing(CALL_3).place == 1
        desk.staff.log_in_by_phone(account("a"))

    log = tell(*phones, queue=QueueRules(), rules=rules, beside=supervisor)
    assert [record.call for record in log.records] == ["call 3", "call 2", "call 0", "call 1"]


IN_VAIN = [RingOutcome.BUSY, RingOutcome.DECLINED, RingOutcome.NO_ANSWER, RingOutcome.UNREACHABLE]


@pytest.mark.parametrize("outcome", IN_VAIN)
def test_however_an_offer_fails_the_caller_stays_ahead_of_who_came_later(outcome: RingOutcome) -> None:
    agents = {"a": AgentBehaviour(outcome, after=3.0), "b": AgentBehaviour(after=1.0, talks=5.0)}
    first = waiting_caller("first", agents=agents)
    second = FakePhone("second", typed(WRONG, at=2.0, gap=0.0), agents=agents)

    async def come(office: Office) -> None:
        await asyncio.sleep(3.0)
        assert office.desk.staff[A].state is AgentState.RINGING
        office.desk.staff.pause(A, "lunch")
        await asyncio.sleep(7.0)
        assert agent_now(office.desk.staff, A).state is AgentState.PAUSED
        assert [ticket.call for ticket in office.desk.waiting] == ["first", "second"]
        office.desk.staff.log_in_by_phone(account("b"))

    log = tell(first, second, queue=QueueRules(), agents=("a",), beside=come)
    assert [(record.call, record.agent) for record in log.records] == [("first", "b"), ("second", "b")]
    assert log.misses == ["a"]


def test_ring_all_in_vain_is_missed_by_all_who_were_rung() -> None:
    no = AgentBehaviour(RingOutcome.NO_ANSWER, after=20.0)
    phone = waiting_caller(agents={"a": no, "b": replace(no, outcome=RingOutcome.DECLINED, after=4.0)}, hangs_up=24.0)
    log = tell(phone, queue=QueueRules(Strategy.RING_ALL), agents=("a", "b"))
    assert log.misses == ["b", "a"]
    assert phone.rung == ["a", "b", "b"], "the next round is for who has rested"
    assert outcomes(log) == [("default", "abandoned")]


def test_a_phone_that_can_be_rung_again_gets_the_caller_at_once() -> None:
    phone = waiting_caller()

    async def states(office: Office) -> None:
        staff = office.desk.staff
        for at, state in ((10.0, PhoneState.BUSY), (20.0, PhoneState.UNREGISTERED)):
            await asyncio.sleep(at - now())
            staff.set_phone("a", state)
            assert phone.rung == []
        await asyncio.sleep(10.0)
        staff.set_phone("a", PhoneState.IDLE)
        assert staff[A].state is AgentState.OFFERED

    async def come(office: Office) -> None:
        office.desk.staff.set_phone("a", PhoneState.UNREGISTERED)
        office.desk.staff.log_in_by_phone(account("a"))
        await states(office)

    [record] = tell(phone, queue=QueueRules(), beside=come).records
    assert record.waited == pytest.approx(31.0, abs=0.1), "until 30 s, and 2 s of ringing"


def test_an_expired_rest_gets_the_caller_at_once() -> None:
    phone = waiting_caller(agents={"a": AgentBehaviour(RingOutcome.DECLINED, after=1.0)}, hangs_up=13.5)
    log = tell(phone, queue=QueueRules(), agents=("a",))
    assert log.misses == ["a", "a"]
    assert phone.rung == ["a", "a", "a"], "at 1, 7 and 13 s: each rang for 1 s, and then came 5 s of rest"


def test_a_call_without_a_channel_holds_a_code_and_waits_in_turn() -> None:
    async def story() -> None:
        sessions = FakeSessions(CODE)
        office = new_office(RULES, sessions, Queues({DEFAULT: QueueRules()}), ALWAYS, FakeCallLog(), most_missed=3)
        rung: list[str] = []

        async def ring(reservations: Sequence[Reservation]) -> Party:
            rung.extend(reservation.agent for reservation in reservations)
            return Party(FakeLeg("a", AgentBehaviour(), "channel"), reservations[0], AsyncExitStack())

        async with claimed(CALLBACK, CODE, Secret("secret"), office) as claim:
            assert claim
            memo = office.notes.call(CallNote(CALLBACK, "", claim.secret, server=""))
            ticket = office.ticket(CALLBACK, claim.session, server="")
            memo.change(ticket=ticket)
            with recorded(ticket, office.calls, office.notes, office.clock, arrived=now()) as stay:
                waiting = asyncio.create_task(
                    in_queue(stay, office.desk, lambda moved: memo.change(ticket=moved), ring, None)
                )
                await asyncio.sleep(5.0)
                assert [ticket.call for ticket in office.desk.waiting] == ["callback"]
                assert office.desk.standing(CALLBACK).place == 1
                assert office.desk.move_to_front(CALLBACK)
                office.desk.staff.log_in_by_phone(account("a"))
                party = await waiting
            assert isinstance(party, Party)
            assert (rung, party.agent) == (["a"], "a")
            assert memo.note.ticket
            assert memo.note.ticket.ahead == 1, "noted as it was moved"
            assert party.reservation
            party.reservation.release()
        assert sessions.claimed == {}

    virtualtime.run(story())


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_caller_who_hangs_up_at_any_moment_frees_all_whose_phones_ring(strategy: Strategy) -> None:
    no = AgentBehaviour(RingOutcome.DECLINED, after=0.02)
    for moment in range(3, 120):
        phone = waiting_caller(agents={"a": AgentBehaviour(after=0.05, talks=0.02), "b": no, "c": no})
        phone.hangs_up = 1.0 + moment / 1000
        names = tuple(map(AgentName, "abc"))

        async def look(office: Office, names: tuple[AgentName, ...] = names) -> None:
            await asyncio.sleep(10.0)
            assert {office.desk.staff[name].state for name in names} == {AgentState.AVAILABLE}
            assert office.desk._reserved == {}

        log = tell(phone, queue=QueueRules(strategy), agents=names, beside=look)
        assert len(log.records) == 1


@pytest.mark.parametrize("turns", range(6))
def test_a_hangup_in_the_very_moment_of_the_offer_frees_the_agent(turns: int) -> None:
    phone = waiting_caller(hangs_up=10.0)

    async def come(office: Office) -> None:
        await asyncio.sleep(10.0 - now())
        for _ in range(turns):
            await asyncio.sleep(0)
        office.desk.staff.log_in_by_phone(account("a"))
        await asyncio.sleep(1.0)
        assert office.desk.staff[A].state is AgentState.AVAILABLE
        assert office.desk._reserved == {}

    tell(phone, queue=QueueRules(), beside=come)


# Moved by a supervisor


def test_who_is_moved_keeps_the_waiting_time_and_is_recorded_in_both_queues() -> None:
    phone = waiting_caller(agents={"a": AgentBehaviour(after=1.0, talks=5.0)})

    async def supervisor(office: Office) -> None:
        desk = office.desk
        await asyncio.sleep(21.0)
        assert desk.move_to_queue(CALL, TAXES)
        assert not desk.move_to_queue(NOBODY, TAXES)
        await asyncio.sleep(10.0)
        assert [(ticket.queue, round(ticket.since)) for ticket in desk.waiting] == [("taxes", 1)]
        desk.staff.log_in_by_phone(account("a", taxes=0))

    log = tell(phone, queue=QueueRules(music="harp"), more={TAXES: QueueRules(music="drum")}, beside=supervisor)
    assert outcomes(log) == [("default", "left"), ("taxes", "answered")]
    assert [round(record.waited) for record in log.records] == [20, 11]
    assert when(phone, P.PLACE_1) == pytest.approx([1.0, 21.0], abs=0.2), "the place in the new queue is told"
    assert phone.music_class == "drum"


def test_who_is_moved_and_hangs_up_has_abandoned_the_new_queue() -> None:
    log = tell(
        waiting_caller(hangs_up=30.0), queue=QueueRules(), more={TAXES: QueueRules()}, beside=moves_at(10.0, TAXES)
    )
    assert outcomes(log) == [("default", "left"), ("taxes", "abandoned")]


@pytest.mark.parametrize(
    ("old", "new", "told_at"), [(60.0, 0.0, []), (0.0, 60.0, [70.0]), (60.0, 90.0, [100.0]), (60.0, 5.0, [15.0])]
)
def test_the_longest_wait_is_that_of_the_queue_one_is_in(old: float, new: float, told_at: list[float]) -> None:
    phone = waiting_caller(hangs_up=300.0)
    more = {TAXES: QueueRules(longest=new, ways_out={CallOutcome.TOO_LONG: ToExtension("taxes", "1", 1)})}
    tell(phone, queue=QueueRules(longest=old), more=more, beside=moves_at(10.0, TAXES))
    assert when(phone, P.QUEUE_TOO_LONG) == pytest.approx(told_at, abs=0.1)
    assert phone.end == ("taxes,1,1" if told_at else "")


def test_who_is_moved_is_let_into_a_full_queue() -> None:
    phones = [waiting_caller("there", hangs_up=30.0), FakePhone("moved", typed(WRONG, at=5.0, gap=0.0), hangs_up=30.0)]
    rules = replace(RULES, purposes={"report_move": PurposeRules(TAXES, admit_unverified=False)})

    async def supervisor(office: Office) -> None:
        await asyncio.sleep(3.0)
        office.desk.move_to_queue(CallId("there"), DEFAULT)
        await asyncio.sleep(7.0)
        assert office.desk.move_to_queue(CallId("moved"), DEFAULT)
        await asyncio.sleep(1.0)
        assert office.desk.waiting_in(DEFAULT) == 2

    tell(*phones, queue=QueueRules(length=1), more={TAXES: QueueRules()}, rules=rules, beside=supervisor)


def test_who_is_moved_while_a_phone_rings_in_vain_waits_in_the_new_queue() -> None:
    phone = waiting_caller(agents={"a": AgentBehaviour(RingOutcome.DECLINED, after=15.0)}, hangs_up=30.0)
    log = tell(phone, queue=QueueRules(), more={TAXES: QueueRules()}, agents=("a",), beside=moves_at(10.0, TAXES))
    assert outcomes(log) == [("default", "left"), ("taxes", "abandoned")]


def test_who_is_moved_while_a_phone_rings_is_of_the_queue_that_was_answered() -> None:
    phone = waiting_caller(agents={"a": AgentBehaviour(after=15.0, talks=5.0)})
    log = tell(phone, queue=QueueRules(), more={TAXES: QueueRules()}, agents=("a",), beside=moves_at(10.0, TAXES))
    assert outcomes(log) == [("default", "answered")]


# The ways out

WAYS = [
    (Goodbye(), P.GOODBYE, "hung up"),
    (Plain(), P.ONE_MOMENT, "plain queue"),
    (ToExtension("reception", "100", 1), P.ONE_MOMENT, "reception,100,1"),
]


@pytest.mark.parametrize(("way", "last", "end"), WAYS)
def test_closed(way: WayOut, last: Prompt, end: str) -> None:
    phone = waiting_caller()
    log = tell(phone, queue=QueueRules(ways_out={CallOutcome.CLOSED: way}), hours=NEVER)
    assert (prompts(phone)[-2:], phone.end) == ([P.QUEUE_CLOSED, last], end)
    assert outcomes(log) == [("default", "closed")]


@pytest.mark.parametrize(("way", "last", "end"), WAYS)
def test_nobody_logged_in(way: WayOut, last: Prompt, end: str) -> None:
    phone = waiting_caller()
    log = tell(phone, queue=QueueRules(ways_out={CallOutcome.UNSTAFFED: way}))
    assert (prompts(phone)[-2:], phone.end) == ([P.QUEUE_UNSTAFFED, last], end)
    assert outcomes(log) == [("default", "unstaffed")]


@pytest.mark.parametrize(("way", "last", "end"), WAYS)
def test_full(way: WayOut, last: Prompt, end: str) -> None:
    first = waiting_caller(hangs_up=20.0)
    second = FakePhone("second", typed(WRONG, at=2.0, gap=0.0))
    log = tell(first, second, queue=QueueRules(length=1, ways_out={CallOutcome.FULL: way}))
    assert (prompts(second)[-2:], second.end) == ([P.QUEUE_FULL, last], end)
    assert outcomes(log) == [("default", "full"), ("default", "abandoned")]


@pytest.mark.parametrize(("way", "last", "end"), WAYS)
def test_too_long(way: WayOut, last: Prompt, end: str) -> None:
    phone = waiting_caller()
    log = tell(phone, queue=QueueRules(longest=90.0, announce=0.0, ways_out={CallOutcome.TOO_LONG: way}))
    assert (prompts(phone)[-2:], phone.end) == ([P.QUEUE_TOO_LONG, last], end)
    assert when(phone, P.QUEUE_TOO_LONG) == pytest.approx([91.0], abs=0.2)
    assert outcomes(log) == [("default", "too_long")]


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        (QueueRules(ways_out={CallOutcome.UNSTAFFED: ToQueue(SECOND)}), "unstaffed"),
        (QueueRules(longest=30.0, ways_out={CallOutcome.TOO_LONG: ToQueue(SECOND)}), "too_long"),
        (QueueRules(longest=0.5, length=1, ways_out={CallOutcome.FULL: ToQueue(SECOND)}), "full"),
    ],
)
def test_another_queue_takes_whom_this_one_cannot(rules: QueueRules, outcome: str) -> None:
    first = FakePhone("first", typed(WRONG, at=0.9, gap=0.0), hangs_up=1.2 if outcome == "full" else 0.1)
    phone = waiting_caller(hangs_up=60.0)
    log = tell(first, phone, queue=rules, more={SECOND: QueueRules()})
    records = [record for record in log.records if record.call == "call"]
    assert [(record.queue, record.outcome.value) for record in records] == [
        ("default", outcome), ("second", "abandoned"),
    ]  # fmt: skip
    assert phone.end == ""


def test_a_closed_queue_sends_on_to_one_that_is_open() -> None:
    phone = waiting_caller(hangs_up=60.0)
    to_second = QueueRules(ways_out={CallOutcome.CLOSED: ToQueue(SECOND)})
    log = tell(phone, queue=to_second, more={SECOND: QueueRules()}, hours={DEFAULT: NEVER, SECOND: ALWAYS})
    assert outcomes(log) == [("default", "closed"), ("second", "abandoned")]


def test_the_longest_wait_does_not_cut_a_ringing_phone_off() -> None:
    phone = waiting_caller(agents={"a": AgentBehaviour(after=15.0)})

    async def come(office: Office) -> None:
        await asyncio.sleep(25.0)
        office.desk.staff.log_in_by_phone(account("a"))

    log = tell(phone, queue=QueueRules(longest=30.0), beside=come)
    assert outcomes(log) == [("default", "answered")]
    assert log.records[0].waited == pytest.approx(39.0, abs=0.2)


def test_another_queue_keeps_the_waiting_time_and_a_circle_ends_in_the_plain_queue() -> None:
    phone = waiting_caller()
    to = {"default": ToQueue(DEFAULT), "second": ToQueue(SECOND)}
    since: list[float] = []

    async def look(office: Office) -> None:
        for at in (5.0, 45.0):
            await asyncio.sleep(at - now())
            since.extend(ticket.since for ticket in office.desk.waiting)

    log = tell(
        phone,
        queue=QueueRules(longest=30.0, ways_out={CallOutcome.TOO_LONG: to["second"]}),
        more={SECOND: QueueRules(longest=30.0, ways_out={CallOutcome.TOO_LONG: to["default"]})},
        rules=RULES,
        hours=ALWAYS,
        beside=look,
    )
    assert outcomes(log) == [("default", "too_long"), ("second", "too_long")]
    assert phone.end == "plain queue"
    assert len(set(since)) == 1


def test_who_comes_back_from_a_transfer_in_vain_is_not_turned_away_because_it_closed() -> None:
    # The loop's 0 is one o'clock in the night of a Thursday in Amsterdam: open for one more minute.
    hours = OpeningHours({3: parse_day("00:00-01:01")}, {}, ALWAYS.timezone)
    agents = {"a": AgentBehaviour(after=1.0, talks=900.0), "b": AgentBehaviour(RingOutcome.DECLINED, after=1.0)}
    phone = waiting_caller(agents=agents, hangs_up=150.0)

    async def send_on(office: Office) -> None:
        await asyncio.sleep(100.0)
        office.desk.staff.log_in_by_phone(account("b", taxes=0))
        assert office.desk.command(A, CALL, Command(Verb.BLIND, Target("agent", "b"))) is None
        office.desk.staff.pause(A, "lunch")
        await asyncio.sleep(20.0)
        assert [ticket.queue for ticket in office.desk.waiting] == ["default"]

    log = tell(phone, queue=QueueRules(), agents=("a",), hours=hours, beside=send_on)
    assert P.QUEUE_CLOSED not in prompts(phone)
    assert outcomes(log) == [("default", "answered"), ("default", "abandoned")]


# The history


def test_every_outcome_is_recorded_with_its_times() -> None:
    phone = waiting_caller(agents={"a": AgentBehaviour(after=4.0, talks=60.0)})
    [record] = tell(phone, queue=QueueRules(), agents=("a",)).records
    assert (record.outcome, record.agent, record.verified) == (CallOutcome.ANSWERED, "a", True)
    assert (record.waited, record.talked) == (about(4.0, within=0.1), about(60.0, within=0.1))
    assert record.arrived == pytest.approx(1.0, abs=0.1)


def test_who_hangs_up_has_abandoned_and_may_use_the_code_again() -> None:
    first = waiting_caller(hangs_up=31.0)
    second = FakePhone("second", typed(CODE, at=40.0, gap=0.0), agents={"a": AgentBehaviour(after=1.0)})

    async def come(office: Office) -> None:
        await asyncio.sleep(45.0)
        office.desk.staff.log_in_by_phone(account("a"))

    log = tell(first, second, queue=QueueRules(), beside=come)
    assert outcomes(log) == [("default", "abandoned"), ("default", "answered")]
    assert log.records[0].waited == pytest.approx(30.0, abs=0.1)


def test_whom_the_next_process_takes_up_is_not_recorded_by_this_one() -> None:
    async def story() -> FakeCallLog:
        log = FakeCallLog()
        office = new_office(RULES, FakeSessions(CODE), log=log)
        call = asyncio.create_task(Stories(office).take(waiting_caller()))
        await asyncio.sleep(10.0)
        office.notes.hand_over()
        call.cancel()
        await asyncio.wait([call])
        return log

    assert outcomes(virtualtime.run(story())) == []
