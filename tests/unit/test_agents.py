"""The table of agents' states, and the staff that lives by it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from idbellen.calls.staff import Staff, StaffRules
from idbellen.domain.agents import (
    TRANSITIONS,
    Agent,
    AgentEvent,
    AgentState,
    IllegalTransitionError,
    PhoneState,
    Terms,
)
from idbellen.domain.ids import AgentName, QueueName
from idbellen.domain.notes import note_agent
from tests.support import virtualtime
from tests.support.fakes import now
from tests.support.stories import account
from tests.support.values import about, agent_now

if TYPE_CHECKING:
    from collections.abc import Collection

A = AgentName("a")
MOVES, TAXES = QueueName("moves"), QueueName("taxes")

S, E = AgentState, AgentEvent
WRAP_UP = Terms(wrap_up=30.0)
PATHS: dict[AgentState, tuple[AgentEvent, ...]] = {
    S.OFFLINE: (),
    S.PAUSED: (E.ARRIVE,),
    S.AVAILABLE: (E.ARRIVE, E.SET_AVAILABLE),
    S.OFFERED: (E.ARRIVE, E.SET_AVAILABLE, E.OFFER),
    S.RINGING: (E.ARRIVE, E.SET_AVAILABLE, E.OFFER, E.RING),
    S.IN_CALL: (E.ARRIVE, E.SET_AVAILABLE, E.OFFER, E.RING, E.CONNECT),
    S.WRAP_UP: (E.ARRIVE, E.SET_AVAILABLE, E.OFFER, E.RING, E.CONNECT, E.FINISH),
    S.NOT_ANSWERING: (E.ARRIVE, E.SET_AVAILABLE, E.OFFER, E.RING, E.MISS),
}


def agent_in(state: AgentState) -> Agent:
    agent = Agent(A, "PJSIP/a")
    terms = Terms(wrap_up=30.0, most_missed=1 if state is S.NOT_ANSWERING else 0)
    for event in PATHS[state]:
        agent = agent.after(event, 1.0, terms=terms)
    assert agent.state is state
    return agent


def test_what_the_table_says_happens() -> None:
    for state, events in TRANSITIONS.items():
        for event, after in events.items():
            assert agent_in(state).after(event, 2.0, terms=WRAP_UP).state is after


def test_what_it_does_not_say_cannot_happen() -> None:
    wishes = {E.ARRIVE, E.LEAVE, E.SET_AVAILABLE, E.PAUSE}
    for state in S:
        for event in set(E) - TRANSITIONS[state].keys() - wishes:
            with pytest.raises(IllegalTransitionError):
                agent_in(state).after(event, 2.0)
    with pytest.raises(IllegalTransitionError):
        agent_in(S.OFFLINE).after(E.LEAVE, 2.0)


@pytest.mark.parametrize("engaged", [S.OFFERED, S.RINGING, S.IN_CALL])
@pytest.mark.parametrize(("wish", "then"), [(E.PAUSE, S.PAUSED), (E.LEAVE, S.OFFLINE), (E.SET_AVAILABLE, S.AVAILABLE)])
def test_a_wish_during_a_call_holds_from_its_end_on(engaged: AgentState, wish: AgentEvent, then: AgentState) -> None:
    agent = agent_in(engaged).after(wish, 2.0, reason="lunch")
    assert agent.state is engaged
    ended = agent.after(E.FINISH if engaged is S.IN_CALL else E.WITHDRAW, 3.0)
    assert (ended.state, ended.reason) == (then, "lunch")


def test_a_pause_wished_for_in_a_call_follows_the_wrap_up() -> None:
    agent = agent_in(S.IN_CALL).after(E.PAUSE, 2.0, reason="lunch").after(E.FINISH, 3.0, terms=WRAP_UP)
    assert agent.state is S.WRAP_UP
    done = agent.after(E.WRAPPED_UP, 33.0)
    assert (done.state, done.reason) == (S.PAUSED, "lunch")


def test_who_left_during_a_call_has_no_wrap_up() -> None:
    assert agent_in(S.IN_CALL).after(E.LEAVE, 2.0).after(E.FINISH, 3.0, terms=WRAP_UP).state is S.OFFLINE


def test_coming_back_during_a_call_undoes_having_gone() -> None:
    agent = agent_in(S.IN_CALL).after(E.LEAVE, 2.0).after(E.ARRIVE, 3.0)
    assert agent.after(E.FINISH, 4.0).state is S.PAUSED
    assert agent_in(S.IN_CALL).after(E.ARRIVE, 2.0).after(E.FINISH, 4.0).state is S.AVAILABLE


def test_three_offers_missed_in_a_row_is_not_answering() -> None:
    terms = Terms(rest=5.0, most_missed=3)
    agent = agent_in(S.AVAILABLE)
    for missed in (1, 2, 3):
        agent = agent.after(E.OFFER, 10.0).after(E.RING, 10.0).after(E.MISS, 10.0, terms=terms)
        assert agent.missed == missed
    assert agent.state is S.NOT_ANSWERING
    back = agent.after(E.SET_AVAILABLE, 20.0)
    assert (back.state, back.missed, back.free(20.0)) == (S.AVAILABLE, 0, True)


def test_an_answer_makes_up_for_what_was_missed() -> None:
    terms = Terms(most_missed=2)
    agent = agent_in(S.RINGING).after(E.MISS, 2.0, terms=terms)
    agent = agent.after(E.OFFER, 3.0).after(E.RING, 3.0).after(E.CONNECT, 4.0).after(E.FINISH, 5.0)
    agent = agent.after(E.OFFER, 6.0).after(E.RING, 6.0).after(E.MISS, 7.0, terms=terms)
    assert agent.state is S.AVAILABLE


def test_who_missed_an_offer_rests() -> None:
    agent = agent_in(S.RINGING).after(E.MISS, 10.0, terms=Terms(rest=5.0))
    assert (agent.free(14.9), agent.free(15.0)) == (False, True)
    assert agent_in(S.RINGING).after(E.WITHDRAW, 10.0, terms=Terms(rest=5.0)).free(10.0), "it was not theirs to answer"


def test_who_missed_an_offer_goes_behind_the_others_and_who_lost_one_does_not() -> None:
    agent = agent_in(S.RINGING)
    assert agent.after(E.MISS, 10.0).idle_since == 10.0
    assert agent.after(E.WITHDRAW, 10.0).idle_since == agent.idle_since == 1.0


@pytest.mark.parametrize("engaged", [S.OFFERED, S.RINGING, S.IN_CALL])
def test_who_has_left_during_a_call_cannot_be_made_available_by_somebody_else(engaged: AgentState) -> None:
    gone = agent_in(engaged).after(E.LEAVE, 2.0)
    for wish in (E.SET_AVAILABLE, E.PAUSE):
        ended = gone.after(wish, 3.0).after(E.FINISH if engaged is S.IN_CALL else E.WITHDRAW, 4.0)
        assert ended.state is S.OFFLINE, "nobody is there to answer"
    assert gone.after(E.ARRIVE, 3.0).after(E.SET_AVAILABLE, 3.0).afterwards is S.AVAILABLE


def test_only_a_wrap_up_can_be_extended() -> None:
    wrapping_up = agent_in(S.WRAP_UP)
    assert wrapping_up.extended(60.0).wrap_up_until == wrapping_up.wrap_up_until + 60.0
    for state in set(S) - {S.WRAP_UP}:
        assert agent_in(state).extended(60.0) == agent_in(state)


def test_who_is_available_already_stays_as_they_were() -> None:
    agent = agent_in(S.AVAILABLE)
    assert agent.after(E.SET_AVAILABLE, 100.0) == agent, "or they would seem to be idle only since then"


def test_a_pause_with_another_reason_takes_its_place() -> None:
    agent = agent_in(S.AVAILABLE).after(E.PAUSE, 2.0, reason="lunch").after(E.PAUSE, 3.0, reason="training")
    assert (agent.state, agent.reason, agent.since) == (S.PAUSED, "training", 3.0)
    assert agent.after(E.SET_AVAILABLE, 4.0).reason == ""


@pytest.mark.parametrize(
    ("phone", "free"),
    [(PhoneState.UNKNOWN, True), (PhoneState.IDLE, True), (PhoneState.UNREGISTERED, False), (PhoneState.BUSY, False)],
)
def test_a_phone_that_cannot_be_rung_keeps_offers_away(phone: PhoneState, free: bool) -> None:  # noqa: FBT001
    assert replace(agent_in(S.AVAILABLE), phone=phone).free(2.0) is free


def test_skills() -> None:
    assert Agent(A, "x").penalty(MOVES) == 0, "who has no queues serves all"
    agent = Agent(A, "x", {MOVES: 2})
    assert (agent.penalty(MOVES), agent.penalty(TAXES)) == (2, None)


# The staff


def staffed() -> Staff:
    return Staff(now, StaffRules(grace=15.0, extension=60.0, most_missed=1))


def test_several_tabs_are_one_state_and_the_last_to_go_leaves_a_grace() -> None:
    async def story() -> None:
        staff = staffed()
        with staff.present(account("a")):
            with staff.present(account("a")):
                staff.set_available(A)
            await asyncio.sleep(100)
            assert staff[A].state is S.AVAILABLE, "one tab is enough"
        await asyncio.sleep(14)
        assert staff[A].state is S.AVAILABLE
        with staff.present(account("a")):
            await asyncio.sleep(100)
            assert staff[A].state is S.AVAILABLE, "back in time"
        await asyncio.sleep(16)
        assert agent_now(staff, A).state is S.OFFLINE

    virtualtime.run(story())


def test_a_call_goes_on_without_a_dashboard_and_ends_offline_after_the_grace() -> None:
    async def story() -> None:
        staff = staffed()
        for away, state in ((14.0, S.WRAP_UP), (16.0, S.OFFLINE)):
            with staff.present(account("a")):
                staff.set_available(A)
                for event in (E.OFFER, E.RING, E.CONNECT):
                    staff.happen(A, event)
            await asyncio.sleep(away)
            assert staff[A].state is S.IN_CALL
            staff.set_available(A)
            staff.happen(A, E.FINISH, wrap_up=30.0)
            assert staff[A].state is state
        await asyncio.sleep(40)

    virtualtime.run(story())


def test_who_comes_back_to_a_call_after_the_grace_is_paused_at_its_end() -> None:
    async def story() -> None:
        staff = staffed()
        with staff.present(account("a")):
            staff.set_available(A)
            for event in (E.OFFER, E.RING, E.CONNECT):
                staff.happen(A, event)
        await asyncio.sleep(16.0)
        with staff.present(account("a")):
            staff.happen(A, E.FINISH)
            assert staff[A].state is S.PAUSED, "until they say otherwise"
        await asyncio.sleep(16.0)

    virtualtime.run(story())


def test_every_tab_is_told_of_every_change() -> None:
    async def story() -> None:
        staff = staffed()
        with staff.present(account("a")) as one, staff.present(account("a")) as two:
            await one.changed()  # their own arrival
            staff.set_available(A)
            async with asyncio.timeout(1.0):
                await asyncio.gather(one.changed(), two.changed())
        await asyncio.sleep(16.0)

    virtualtime.run(story())


def test_who_changes_phone_or_queues_has_them_at_the_next_arrival_but_not_during_a_call() -> None:
    async def story() -> None:
        staff = staffed()
        with staff.present(account("a", moves=0)):
            staff.set_available(A)
            staff.happen(A, E.OFFER)
            with staff.present(replace(account("a", taxes=1), endpoint="new")):
                assert staff.phones(A) == ("a",), "it is being rung"
            staff.happen(A, E.WITHDRAW)
            staff.set_phone("new", PhoneState.BUSY)
            with staff.present(replace(account("a", taxes=1), endpoint="new")):
                assert staff.phones(A) == ("new",)
                assert (staff[A].penalty(QueueName("moves")), staff[A].penalty(QueueName("taxes"))) == (None, 1)
                assert staff[A].phone is PhoneState.BUSY
        await asyncio.sleep(16.0)

    virtualtime.run(story())


def test_a_desk_phone_alone_is_presence() -> None:
    async def story() -> None:
        staff = staffed()
        staff.log_in_by_phone(account("a"))
        assert staff[A].state is S.AVAILABLE
        with staff.present(account("a")):
            pass
        await asyncio.sleep(100)
        assert staff[A].state is S.AVAILABLE, "a dashboard that goes does not take the phone along"
        staff.log_out_by_phone(A)
        assert agent_now(staff, A).state is S.OFFLINE
        staff.log_out_by_phone(A)
        staff.log_out_by_phone(AgentName("nobody"))

    virtualtime.run(story())


def test_logging_out_the_phone_with_a_dashboard_open_is_a_pause() -> None:
    async def story() -> None:
        staff = staffed()
        with staff.present(account("a")):
            staff.log_in_by_phone(account("a"))
            staff.log_out_by_phone(A)
            assert staff[A].state is S.PAUSED
        await asyncio.sleep(16)

    virtualtime.run(story())


def test_wrap_up_ends_by_itself_early_or_later() -> None:
    async def story() -> None:
        staff = staffed()
        with staff.present(account("a")):
            staff.set_available(A)
            for ways, seconds in (("itself", 30.0), ("early", 10.0), ("later", 90.0)):
                for event in (E.OFFER, E.RING, E.CONNECT):
                    staff.happen(A, event)
                staff.happen(A, E.FINISH, wrap_up=30.0)
                began = now()
                if ways == "early":
                    asyncio.get_running_loop().call_later(10.0, staff.end_wrap_up, A)
                if ways == "later":
                    staff.extend_wrap_up(A)
                while staff[A].state is S.WRAP_UP:
                    await asyncio.sleep(0.5)
                assert now() - began == pytest.approx(seconds, abs=0.6), ways
                assert staff[A].state is S.AVAILABLE
        staff.end_wrap_up(A)
        staff.extend_wrap_up(A)
        staff.extend_wrap_up(AgentName("nobody"))
        assert list(staff.agents) == [A]
        await asyncio.sleep(16)

    virtualtime.run(story())


def test_the_length_of_a_wrap_up_is_told_at_its_end() -> None:
    told: list[tuple[str, float]] = []

    async def story() -> None:
        staff = staffed()
        staff.on_wrapped_up(lambda name, began, ended: told.append((name, ended - began)))
        staff.log_in_by_phone(account("a"))
        for event in (E.OFFER, E.RING, E.CONNECT):
            staff.happen(A, event)
        staff.happen(A, E.FINISH, wrap_up=30.0)
        await asyncio.sleep(12.0)
        staff.set_phone("a", PhoneState.IDLE)
        assert told == []
        staff.pause(A, "lunch")

    virtualtime.run(story())
    assert told == [("a", about(12.0))]


def test_what_the_phone_does_is_known_before_its_owner_comes() -> None:
    async def story() -> None:
        staff = staffed()
        staff.set_phone("a", PhoneState.UNREGISTERED)
        with staff.present(account("a")):
            assert staff[A].phone is PhoneState.UNREGISTERED
            staff.set_phone("a", PhoneState.IDLE)
            staff.set_phone("another", PhoneState.BUSY)
            assert agent_now(staff, A).phone is PhoneState.IDLE
        await asyncio.sleep(16)

    virtualtime.run(story())


# After an earlier process


def restored(agent: Agent, *, by_phone: bool = False, talking: Collection[AgentName] = ()) -> Staff:
    """Give the staff of a process that takes over from one that knew this agent."""
    staff = staffed()
    staff.restore([note_agent(agent, by_phone=by_phone)], {A: account("a")}, talking)
    return staff


def test_who_logged_in_by_desk_phone_is_here_still_and_nobody_waits_for_a_dashboard() -> None:
    async def story() -> None:
        staff = restored(agent_in(S.AVAILABLE), by_phone=True)
        await asyncio.sleep(100)
        assert (staff[A].state, staff.with_phone_alone(A)) == (S.AVAILABLE, True)

    virtualtime.run(story())


def test_who_was_in_a_call_that_nobody_takes_up_is_free_and_who_talks_on_is_not() -> None:
    async def story() -> None:
        for talking, state in (((), S.AVAILABLE), ((A,), S.IN_CALL)):
            staff = restored(agent_in(S.IN_CALL), talking=talking)
            assert staff[A].state is state
            with staff.present(account("a")):
                await asyncio.sleep(100)
                assert agent_now(staff, A).state is state
            await asyncio.sleep(16)

    virtualtime.run(story())


def test_who_had_left_during_a_call_that_has_ended_meanwhile_is_offline_and_stays_so() -> None:
    async def story() -> None:
        kept: list[AgentState] = []
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        staff = restored(agent_in(S.IN_CALL).after(E.LEAVE, 2.0))
        staff.on_agent(lambda agent, _: kept.append(agent.state))
        assert staff[A].state is S.OFFLINE
        await asyncio.sleep(100)
        assert (staff[A].state, kept) == (S.OFFLINE, [])
        assert faults == [], "the grace passes, and there is nobody to leave"

    virtualtime.run(story())


def test_who_has_no_account_any_more_is_let_go() -> None:
    async def story() -> None:
        kept: list[tuple[str, AgentState]] = []
        staff = staffed()
        staff.on_agent(lambda agent, _: kept.append((agent.name, agent.state)))
        staff.restore([note_agent(agent_in(S.AVAILABLE), by_phone=False)], {}, ())
        assert not staff.agents
        assert kept == [("a", S.OFFLINE)], "so that the note is forgotten"

    virtualtime.run(story())
