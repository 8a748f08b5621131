"""The table of agents' states, and the matching of callers and agents."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idbellen.domain.agents import TRANSITIONS, Agent, AgentEvent, AgentState, IllegalTransitionError
from idbellen.domain.queueing import Ticket, match, next_rested

S, E = AgentState, AgentEvent


def agent_in(state: AgentState) -> Agent:
    path = {
        S.OFFLINE: (),
        S.AWAY: (E.ARRIVE,),
        S.AVAILABLE: (E.ARRIVE, E.SET_AVAILABLE),
        S.OFFERED: (E.ARRIVE, E.SET_AVAILABLE, E.OFFER),
        S.IN_CALL: (E.ARRIVE, E.SET_AVAILABLE, E.OFFER, E.CONNECT),
    }[state]
    agent = Agent("a", "PJSIP/a")
    for event in path:
        agent = agent.after(event, 1.0)
    assert agent.state is state
    return agent


def test_what_the_table_says_happens() -> None:
    for state, events in TRANSITIONS.items():
        for event, after in events.items():
            assert agent_in(state).after(event, 2.0).state is after


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (S.AWAY, E.OFFER),
        (S.OFFLINE, E.OFFER),
        (S.OFFERED, E.OFFER),
        (S.IN_CALL, E.OFFER),
        (S.AVAILABLE, E.CONNECT),
        (S.AVAILABLE, E.FINISH),
        (S.OFFERED, E.FINISH),
        (S.IN_CALL, E.WITHDRAW),
        (S.OFFLINE, E.LEAVE),
    ],
)
def test_what_it_does_not_say_cannot_happen(state: AgentState, event: AgentEvent) -> None:
    with pytest.raises(IllegalTransitionError):
        agent_in(state).after(event, 2.0)


@pytest.mark.parametrize("engaged", [S.OFFERED, S.IN_CALL])
@pytest.mark.parametrize(("wish", "then"), [(E.SET_AWAY, S.AWAY), (E.LEAVE, S.OFFLINE), (E.SET_AVAILABLE, S.AVAILABLE)])
def test_a_wish_during_a_call_holds_from_its_end_on(engaged: AgentState, wish: AgentEvent, then: AgentState) -> None:
    agent = agent_in(engaged).after(wish, 2.0)
    assert agent.state is engaged
    ended = agent.after(E.WITHDRAW if engaged is S.OFFERED else E.FINISH, 3.0)
    assert ended.state is then


def test_coming_back_during_a_call_undoes_having_gone() -> None:
    agent = agent_in(S.IN_CALL).after(E.LEAVE, 2.0).after(E.ARRIVE, 3.0)
    assert agent.after(E.FINISH, 4.0).state is S.AWAY
    assert agent_in(S.IN_CALL).after(E.ARRIVE, 2.0).after(E.FINISH, 4.0).state is S.AVAILABLE


def test_an_agent_who_did_not_answer_rests_and_goes_behind_the_others() -> None:
    agent = agent_in(S.OFFERED).after(E.WITHDRAW, 10.0, rest=5.0)
    ticket = Ticket("c", "s", "p", "default", 0.0)
    assert match([ticket], [agent], 14.9) == []
    assert next_rested([agent], 14.9) == 15.0
    assert len(match([ticket], [agent], 15.0)) == 1
    assert next_rested([agent], 15.0) is None


tickets = st.lists(st.floats(0, 100), max_size=8).map(
    lambda times: [Ticket(f"c{number}", f"s{number}", "p", "default", time) for number, time in enumerate(times)]
)
agents = st.lists(st.tuples(st.sampled_from(list(S)), st.floats(0, 100), st.floats(0, 200)), max_size=8).map(
    lambda rows: [
        Agent(f"a{number}", "PJSIP/x", state, idle_since=idle, rests_until=rests)
        for number, (state, idle, rests) in enumerate(rows)
    ]
)


@given(tickets, agents)
def test_matching(waiting: list[Ticket], staff: list[Agent]) -> None:
    now = 100.0
    found = match(waiting, staff, now)
    free = {a.name: a for a in staff if a.state is S.AVAILABLE and a.rests_until <= now}
    assert len(found) == min(len(waiting), len(free)), "nobody idles while a caller waits"
    assert len({m.call for m in found}) == len({m.agent for m in found}) == len(found)
    assert all(m.agent in free for m in found)
    by_call = {ticket.call: ticket for ticket in waiting}
    served = [by_call[m.call].since for m in found]
    assert served == sorted(served)
    passed_over = [t.since for t in waiting if t.call not in {m.call for m in found}]
    assert all(a <= b for a, b in itertools.product(served, passed_over))
    idle = [free[m.agent].idle_since for m in found]
    assert idle == sorted(idle)
