"""Agents and phones are many to many: several phones of one agent, several agents with one phone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from idbellen.calls.feature_codes import FeatureCodes
from idbellen.calls.stories import Stories
from idbellen.domain.agents import Agent, AgentState, PhoneState, joined, phones_of, together
from idbellen.domain.ids import AgentName, CallId, QueueName, SessionRef
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import QueueRules, Queues, Strategy, Ticket, match
from idbellen.ports import Account, RingOutcome
from tests.support import virtualtime
from tests.support.fakes import AgentBehaviour, FakeCallLog, FakePhone, FakeSessions
from tests.support.stories import CODE, RULES, new_office, prompts, typed
from tests.support.values import agent_now

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

BOTH = "desk&home"
ANN, BOB, Q = AgentName("ann"), AgentName("bob"), QueueName("q")


def available(name: str, endpoint: str) -> Agent:
    return Agent(AgentName(name), endpoint, state=AgentState.AVAILABLE)


def pairs(
    agents: list[Agent],
    callers: int = 2,
    strategy: Strategy = Strategy.LONGEST_IDLE,
    in_use: AbstractSet[str] = frozenset(),
) -> list[tuple[str, ...]]:
    tickets = [Ticket(CallId(f"{number}"), SessionRef(""), "", Q, float(number)) for number in range(callers)]
    return [pair.agents for pair in match(tickets, agents, Queues({Q: QueueRules(strategy)}), 0.0, in_use)]


def test_an_endpoint_may_be_several_phones() -> None:
    assert phones_of("PJSIP/ann") == ("PJSIP/ann",)
    assert phones_of(joined(["PJSIP/ann", "PJSIP/home", "PJSIP/ann"])) == ("PJSIP/ann", "PJSIP/home")


@pytest.mark.parametrize(
    ("states", "meant"),
    [
        ((), PhoneState.UNKNOWN),
        ((PhoneState.UNREGISTERED, PhoneState.UNKNOWN), PhoneState.UNKNOWN),
        ((PhoneState.UNREGISTERED, PhoneState.IDLE), PhoneState.IDLE),
        ((PhoneState.IDLE, PhoneState.BUSY), PhoneState.BUSY),
    ],
)
def test_who_talks_on_one_phone_is_not_free_on_another(states: tuple[PhoneState, ...], meant: PhoneState) -> None:
    assert together(states) is meant


def test_of_agents_with_one_phone_one_is_offered_a_caller() -> None:
    ann, bob, cas = available("ann", "shared"), available("bob", "shared&bobs"), available("cas", "bobs")
    assert pairs([ann, bob]) == [("ann",)]
    assert pairs([ann, bob, cas]) == [("ann",), ("cas",)], "a row of shared phones"
    assert pairs([ann, bob, cas], in_use={"shared"}) == [("cas",)], "somebody talks on it"


def test_ring_all_rings_each_phone_for_one() -> None:
    ann, bob = replace(available("ann", "shared"), idle_since=5.0), available("bob", "shared")
    assert pairs([ann, bob, available("cas", "own")], 1, Strategy.RING_ALL) == [("bob", "cas")]


def call_in(phone: FakePhone) -> list[str]:
    """Let a caller with the right code come to Ann with two phones and Bob with the first of them; gives what rang."""

    async def story() -> None:
        office = new_office(RULES, FakeSessions(CODE))
        staff = office.desk.staff
        with staff.present(Account(ANN, BOTH, "")), staff.present(Account(BOB, "desk", "")):
            staff.set_available(ANN)
            call = asyncio.create_task(Stories(office).take(phone))
            await asyncio.sleep(9.5)
            staff.set_available(BOB)
            view = office.desk.view(BOB)
            assert [(other.name, other.free) for other in view.colleagues] == [("ann", False)]
            assert (
                office.desk.reserve(BOB, Ticket(CallId("other"), SessionRef(""), "", QueueName("default"), 0.0)) is None
            )
            await call
            assert (phone.ringing, phone.talking) == (0, 0)
        await asyncio.sleep(60)

    virtualtime.run(story())
    return phone.rung


LATER = AgentBehaviour(RingOutcome.NO_ANSWER, after=8.0)


@pytest.mark.parametrize("quicker", ["desk", "home"])
def test_all_phones_of_an_agent_ring_and_the_first_to_answer_has_the_call(quicker: str) -> None:
    phone = FakePhone(keys=typed(CODE, at=1.0))
    phone.agents = {"desk": LATER, "home": LATER, quicker: AgentBehaviour(after=3.0, talks=10.0)}
    assert call_in(phone) == ["desk", "home"]
    assert phone.bridges[0].inside == {"caller"}, "hung up"
    assert [leg.endpoint for leg in phone.legs.values()] == []


def test_an_offer_is_missed_when_none_of_the_phones_was_answered() -> None:
    busy = AgentBehaviour(RingOutcome.BUSY, after=1.0)
    phone = FakePhone(keys=typed(CODE, at=1.0), agents={"desk": busy, "home": LATER})

    async def story() -> None:
        log = FakeCallLog()
        office = new_office(RULES, FakeSessions(CODE), log=log)
        staff = office.desk.staff
        with staff.present(Account(ANN, BOTH, "")):
            staff.set_available(ANN)
            call = asyncio.create_task(Stories(office).take(phone))
            await asyncio.sleep(11)
            assert (phone.rung, log.misses) == (["desk", "home"], []), "one still rings"
            await asyncio.sleep(8)
            assert log.misses == ["ann"]
            call.cancel()
            await asyncio.wait([call])
        await asyncio.sleep(60)

    virtualtime.run(story())


def test_a_phone_that_is_not_there_is_not_rung_beside_one_that_is() -> None:
    async def story() -> None:
        staff = new_office(RULES, FakeSessions()).desk.staff
        staff.set_phone("home", PhoneState.UNREGISTERED)
        with staff.present(Account(ANN, BOTH, "")):
            assert agent_now(staff, ANN).phone is PhoneState.UNKNOWN
            assert staff.worth_ringing(staff[ANN]) == ("desk",)
            staff.set_phone("desk", PhoneState.BUSY)
            assert agent_now(staff, ANN).phone is PhoneState.BUSY
            staff.set_phone("desk", PhoneState.UNREGISTERED)
            assert staff.worth_ringing(staff[ANN]) == ("desk", "home"), "to find out"
        await asyncio.sleep(60)

    virtualtime.run(story())


class NoAccount:
    """Accounts of which several share each phone."""

    async def by_endpoint(self, endpoint: str) -> None:
        """Give none."""


class Follows:
    """What is known of phones: nothing."""

    async def follow(self, endpoint: str) -> None:
        """Follow none."""


@pytest.mark.parametrize(
    ("code", "says", "states"),
    [
        ("pause", Prompt.AGENT_PAUSED, ("paused", "paused")),
        ("logout", Prompt.AGENT_PAUSED, ("paused", "paused")),
        ("login", Prompt.AGENT_UNKNOWN, ("available", "paused")),
    ],
)
def test_a_feature_code_of_a_shared_phone_is_of_who_works_with_it(
    code: str, says: Prompt, states: tuple[str, ...]
) -> None:
    async def story() -> None:
        staff = new_office(RULES, FakeSessions()).desk.staff
        features = FeatureCodes(cast("Any", NoAccount()), staff, cast("Any", Follows()))
        with staff.present(Account(ANN, "shared", "")), staff.present(Account(BOB, "shared", "")):
            nobody = FakePhone()
            await features.serve(nobody, "shared", code)
            assert prompts(nobody) == [Prompt.AGENT_UNKNOWN]
            staff.set_available(ANN)
            phone = FakePhone()
            await features.serve(phone, "shared", code)
            assert prompts(phone) == [says]
            assert (staff[ANN].state.value, staff[BOB].state.value) == states
        await asyncio.sleep(60)

    virtualtime.run(story())
