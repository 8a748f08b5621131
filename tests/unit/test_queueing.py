"""Who is offered to whom, and how callers stand in line."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idbellen.domain.agents import Agent, AgentState, PhoneState
from idbellen.domain.ids import AgentName, CallId, QueueName, SessionRef
from idbellen.domain.prompts import reason_prompt
from idbellen.domain.queueing import (
    ForPurpose,
    Goodbye,
    Plain,
    QueueRules,
    Queues,
    Strategy,
    Ticket,
    ToExtension,
    ToQueue,
    WayOut,
    WithoutCode,
    entry,
    match,
    next_rested,
    parse_way_out,
    parse_without_code,
    places,
    staffed,
)
from idbellen.domain.statistics import SENT_AWAY, CallOutcome

MOVES, TAXES = QueueName("moves"), QueueName("taxes")

S = AgentState
NAMES = (MOVES, TAXES)


def ticket(call: str, since: float = 0.0, queue: QueueName = MOVES, **more: Any) -> Ticket:
    return replace(Ticket(CallId(call), SessionRef(f"session {call}"), "p", queue, since), **more)


def agent(name: str, *, idle: float = 0.0, offered: float = 0.0, **queues: int) -> Agent:
    served = {QueueName(queue): penalty for queue, penalty in queues.items()}
    return Agent(AgentName(name), f"PJSIP/{name}", served, S.AVAILABLE, idle_since=idle, offered_at=offered)


def pairs(waiting: list[Ticket], agents: list[Agent], rules: QueueRules | None = None) -> list[tuple[str, ...]]:
    queues = Queues(dict.fromkeys(NAMES, rules or QueueRules()))
    return [(found.call, *found.agents) for found in match(waiting, agents, queues, 100.0)]


def test_verified_then_priority_then_the_longest_wait() -> None:
    waiting = [
        ticket("new", 30.0),
        ticket("old", 10.0),
        ticket("unverified", 1.0, verified=False),
        ticket("urgent", 40.0, priority=1),
        ticket("put ahead", 50.0, verified=False, ahead=1),
        ticket("unverified and urgent", 60.0, verified=False, priority=2),
    ]
    first_verified = Queues({MOVES: QueueRules()})
    assert [one.call for one in first_verified.in_order(waiting)] == [
        "put ahead", "urgent", "old", "new", "unverified and urgent", "unverified",
    ]  # fmt: skip
    all_alike = Queues({MOVES: QueueRules(verified_first=False)})
    assert [one.call for one in all_alike.in_order(waiting)] == [
        "put ahead", "unverified and urgent", "urgent", "unverified", "old", "new",
    ]  # fmt: skip
    assert places(waiting, first_verified)[CallId("old")] == 3


def test_places_are_counted_in_each_queue() -> None:
    waiting = [ticket("a", 1.0), ticket("b", 2.0, TAXES), ticket("c", 3.0), ticket("d", 4.0, TAXES)]
    assert places(waiting, Queues({})) == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_the_longest_idle_of_the_lowest_penalty() -> None:
    agents = [
        agent("far", idle=1.0, moves=2),
        agent("short", idle=50.0, moves=1),
        agent("long", idle=20.0, moves=1),
        agent("other", idle=0.0, taxes=0),
    ]
    assert pairs([ticket("a")], agents) == [("a", "long")]
    assert pairs([ticket("a", 1.0), ticket("b", 2.0), ticket("c", 3.0), ticket("d", 4.0)], agents) == [
        ("a", "long"), ("b", "short"), ("c", "far"),
    ]  # fmt: skip


def test_round_robin_is_whoever_was_offered_longest_ago() -> None:
    agents = [agent("x", idle=1.0, offered=50.0), agent("y", idle=90.0, offered=10.0)]
    assert pairs([ticket("a")], agents, QueueRules(Strategy.ROUND_ROBIN)) == [("a", "y")]


def test_ring_all_offers_to_all_of_the_lowest_penalty_and_to_nobody_twice() -> None:
    agents = [agent("x", moves=0), agent("y", moves=0), agent("z", moves=1)]
    found = pairs([ticket("a", 1.0), ticket("b", 2.0), ticket("c", 3.0)], agents, QueueRules(Strategy.RING_ALL))
    assert found == [("a", "x", "y"), ("b", "z")]


def test_a_caller_whom_nobody_serves_does_not_hold_up_others() -> None:
    assert pairs([ticket("a", 1.0), ticket("b", 2.0, TAXES)], [agent("x", taxes=0)]) == [("b", "x")]


def test_an_agent_does_not_consult_themselves() -> None:
    assert pairs([ticket("a", asker="x")], [agent("x"), agent("y", idle=50.0)]) == [("a", "y")]


def test_who_rests_or_has_no_phone_gets_nothing() -> None:
    resting = replace(agent("x"), rests_until=100.1)
    assert pairs([ticket("a")], [resting, replace(agent("y"), phone=PhoneState.UNREGISTERED)]) == []
    assert next_rested([resting, agent("z")], 100.0) == 100.1
    assert next_rested([replace(resting, rests_until=105.0), resting], 100.0) == 100.1, "the first of them"
    assert next_rested([resting], 100.1) is None


def test_a_queue_is_staffed_by_whoever_is_logged_in() -> None:
    paused = replace(agent("x", moves=0), state=S.PAUSED)
    assert staffed(MOVES, [paused])
    assert not staffed(TAXES, [paused])
    assert not staffed(MOVES, [replace(paused, state=S.OFFLINE)])


@pytest.mark.parametrize(
    ("rules", "waiting", "is_open", "expected"),
    [
        (QueueRules(), 1000, True, None),
        (QueueRules(), 0, False, (CallOutcome.CLOSED, Goodbye())),
        (QueueRules(ways_out={CallOutcome.UNSTAFFED: Plain()}), 0, True, (CallOutcome.UNSTAFFED, Plain())),
        (QueueRules(length=3), 3, True, (CallOutcome.FULL, Plain())),
        (QueueRules(length=3), 2, True, None),
    ],
)
def test_why_somebody_cannot_come_in(
    rules: QueueRules,
    waiting: int,
    is_open: bool,  # noqa: FBT001
    expected: tuple[CallOutcome, WayOut] | None,
) -> None:
    reason = entry(MOVES, waiting, rules, [], is_open=is_open)
    assert (reason and (reason, rules.way_out(reason))) == expected


@pytest.mark.parametrize("reason", [outcome for outcome in SENT_AWAY if outcome is not CallOutcome.LEFT])
def test_whoever_is_sent_away_hears_why(reason: CallOutcome) -> None:
    assert reason_prompt(reason).value == f"queue-{reason.value.replace('_', '-')}"


calls = st.lists(
    st.tuples(
        st.floats(0, 99),
        st.sampled_from(NAMES),
        st.booleans(),
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from([None, None, "a0", "a1"]),
    ),
    max_size=10,
).map(
    lambda rows: [
        ticket(f"c{number}", since, queue, verified=verified, priority=priority, ahead=ahead, asker=asker)
        for number, (since, queue, verified, priority, ahead, asker) in enumerate(rows)
    ]
)
people = st.lists(
    st.tuples(
        st.sampled_from([*S, *[S.AVAILABLE] * 4]),  # mostly at work
        st.floats(0, 100),
        st.floats(0, 200),
        st.floats(0, 99),
        st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2)),
        st.sampled_from([*PhoneState, PhoneState.IDLE]),
    ),
    max_size=10,
).map(
    lambda rows: [
        Agent(
            AgentName(f"a{number}"),
            f"PJSIP/a{number}",
            queues,
            state,
            idle_since=idle,
            rests_until=rests,
            offered_at=offered,
            phone=phone,
        )
        for number, (state, idle, rests, offered, queues, phone) in enumerate(rows)
    ]
)


def could_take(somebody: Agent, caller: Ticket) -> bool:
    return somebody.name != caller.asker and somebody.penalty(caller.queue) is not None


all_rules = st.builds(QueueRules, st.sampled_from(list(Strategy)), st.booleans())


@given(calls, people, all_rules, all_rules)
def test_nobody_twice_in_order_and_nobody_idle(
    waiting: list[Ticket], staff: list[Agent], moves: QueueRules, taxes: QueueRules
) -> None:
    queues = Queues({MOVES: moves, TAXES: taxes})
    found = match(waiting, staff, queues, 100.0)
    free = {one.name: one for one in staff if one.free(100.0)}
    offered = [name for pair in found for name in pair.agents]
    assert len(offered) == len(set(offered)), "an agent was offered two callers"
    assert len({pair.call for pair in found}) == len(found), "a caller was offered twice"
    by_call = {one.call: one for one in waiting}
    for pair in found:
        queue = by_call[pair.call].queue
        penalties = {free[name].penalty(queue) for name in pair.agents}
        assert len(penalties) == 1
        assert None not in penalties
    order = [one.call for one in queues.in_order(waiting)]
    assert [pair.call for pair in found] == sorted((pair.call for pair in found), key=order.index)
    passed_over = [by_call[call] for call in order if call not in {pair.call for pair in found}]
    idle = [free[name] for name in free.keys() - set(offered)]
    for caller, somebody in itertools.product(passed_over, idle):
        assert not could_take(somebody, caller), "an agent idles while a matching caller waits"
    for caller, pair in itertools.product(passed_over, found):
        if order.index(caller.call) < order.index(pair.call):
            assert not any(could_take(free[name], caller) for name in pair.agents), "somebody jumped the queue"


@given(calls, people, all_rules, all_rules)
def test_each_gets_the_best_of_those_who_are_left(
    waiting: list[Ticket], staff: list[Agent], moves: QueueRules, taxes: QueueRules
) -> None:
    queues = Queues({MOVES: moves, TAXES: taxes})
    by_call = {one.call: one for one in waiting}
    left = {one.name: one for one in staff if one.free(100.0)}
    for pair in match(waiting, staff, queues, 100.0):
        caller = by_call[pair.call]
        fit = [one for one in left.values() if could_take(one, caller)]
        lowest = min(one.queues.get(caller.queue, 0) for one in fit)
        best = [one for one in fit if one.queues.get(caller.queue, 0) == lowest]
        match queues[caller.queue].strategy:
            case Strategy.RING_ALL:
                assert set(pair.agents) == {one.name for one in best}
            case Strategy.LONGEST_IDLE:
                assert left[pair.agents[0]].idle_since == min(one.idle_since for one in best)
            case Strategy.ROUND_ROBIN:
                assert left[pair.agents[0]].offered_at == min(one.offered_at for one in best)
        for name in pair.agents:
            del left[name]


@given(calls, st.dictionaries(st.sampled_from(NAMES), all_rules))
def test_places_count_from_one_in_each_queue_in_the_order_of_service(
    waiting: list[Ticket], rules: dict[QueueName, QueueRules]
) -> None:
    queues = Queues(rules)
    found = places(waiting, queues)
    for name in NAMES:
        here = [one.call for one in queues.in_order(waiting) if one.queue == name]
        assert [found[call] for call in here] == list(range(1, len(here) + 1))


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("goodbye", Goodbye()),
        ("plain", Plain()),
        ("queue:taxes", ToQueue(TAXES)),
        ("extension:reception,100,1", ToExtension("reception", "100", 1)),
    ],
)
def test_a_way_out_as_it_is_written(text: str, way: WayOut) -> None:
    assert parse_way_out(text) == way


@pytest.mark.parametrize(
    ("text", "way"),
    [("off", None), ("goodbye", Goodbye()), ("plain", Plain()), ("purpose:no_code", ForPurpose("no_code"))],
)
def test_where_callers_without_a_code_go_as_it_is_written(text: str, way: WithoutCode | None) -> None:
    assert parse_without_code(text) == way


@pytest.mark.parametrize("text", ["", "on", "purpose", "purpose:", "plain:x", "queue:taxes"])
def test_what_is_no_way_for_callers_without_a_code_is_told(text: str) -> None:
    with pytest.raises(ValueError, match='"plain", "goodbye", "purpose:NAME" or "off"'):
        parse_without_code(text)


@pytest.mark.parametrize(
    "text", ["", "Goodbye", "plain:x", "queue", "queue:", "queue:a b", "extension:a,b", "extension:a,b,c", "other:x"]
)
def test_what_is_no_way_out_is_told(text: str) -> None:
    with pytest.raises(ValueError, match='"goodbye", "plain", "queue:NAME"'):
        parse_way_out(text)
