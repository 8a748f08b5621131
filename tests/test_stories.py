"""The story of a call in virtual time, with fakes: timers, tries, agents, and hangups at every moment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from idbellen.calls.desk import Desk
from idbellen.calls.flow import CallRules, Office
from idbellen.calls.supervise import supervise
from idbellen.domain.agents import AgentState
from idbellen.domain.digits import EntryRules
from idbellen.domain.prompts import Prompt
from idbellen.ports import RingOutcome
from tests import virtualtime
from tests.fakes import PROMPT_SECONDS, AgentBehaviour, FakePhone, FakeSessions, now

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = CallRules(entry=EntryRules(), tries=3, unverified="plain", ring=20.0, rest=5.0)
CODE, WRONG = "1234567890", "9876543210"


def typed(code: str, *, at: float, gap: float = 0.3) -> list[tuple[float, str]]:
    return [(at + position * gap, key) for position, key in enumerate(code)]


def tell(
    *phones: FakePhone,
    agents: tuple[str, ...] = ("a",),
    rules: CallRules = RULES,
    codes: tuple[str, ...] = (CODE,),
    check: Callable[[Office], None] = lambda _: None,
) -> FakeSessions:
    """Tell the stories of some calls at once, in virtual time, and check that nothing is left behind."""
    sessions = FakeSessions(*codes)

    async def story() -> None:
        desk = Desk(now, grace=15.0)
        office = Office(rules, sessions, desk, now)
        watches = [desk.watch(name, name) for name in agents]
        for name, watch in zip(agents, watches, strict=True):
            watch.__enter__()
            desk.set_available(name)
        async with asyncio.TaskGroup() as calls:
            for phone in phones:
                calls.create_task(supervise(phone, office))
        check(office)
        for name in agents:
            view = desk.view(name)
            assert (view.waiting, view.offer, view.call) == (0, None, None)
            assert view.agent.state is AgentState.AVAILABLE
        for phone in phones:
            assert (phone.ringing, phone.talking) == (0, 0)
        assert sessions.claimed == {}
        for watch in watches:
            watch.__exit__(None, None, None)
        await asyncio.sleep(20)

    virtualtime.run(story())
    return sessions


def prompts(phone: FakePhone) -> list[Prompt]:
    return [prompt for _, prompt in phone.heard]


def test_right_at_once() -> None:
    phone = FakePhone(keys=typed(CODE, at=5))
    sessions = tell(phone)
    assert prompts(phone) == [
        Prompt.WELCOME,
        Prompt.ENTER_CODE,
        Prompt.CODE_ACCEPTED,
        Prompt.PLEASE_WAIT,
        Prompt.GOODBYE,
    ]
    assert phone.rung == ["a"]
    assert phone.end == "hung up"
    assert sessions.finished == [f"session {CODE}"]


def test_the_decision_is_made_at_the_last_digit() -> None:
    phone = FakePhone(keys=typed(CODE, at=5))
    tell(phone)
    accepted = next(at for at, prompt in phone.heard if prompt is Prompt.CODE_ACCEPTED)
    assert accepted == pytest.approx(5 + 9 * 0.3, abs=0.01)


def test_digits_before_and_during_the_prompt_count_and_stop_it() -> None:
    phone = FakePhone(keys=typed(CODE, at=0.0, gap=0.01))
    tell(phone)
    assert phone.rung == ["a"]
    assert phone.playbacks[0].stopped_at == pytest.approx(0, abs=0.02)


def test_wrong_wrong_right() -> None:
    keys = typed(WRONG, at=1) + typed(WRONG, at=10) + typed(CODE, at=20)
    phone = FakePhone(keys=keys)
    tell(phone)
    assert prompts(phone)[2:5] == [Prompt.CODE_WRONG, Prompt.CODE_WRONG, Prompt.CODE_ACCEPTED]


@pytest.mark.parametrize(
    ("way_out", "prompt", "end"),
    [("plain", Prompt.NOT_VERIFIED, "plain queue"), ("goodbye", Prompt.NOT_VERIFIED_GOODBYE, "hung up")],
)
def test_all_wrong(way_out: str, prompt: Prompt, end: str) -> None:
    keys = typed(WRONG, at=1) + typed(WRONG, at=10) + typed(WRONG, at=20) + typed(CODE, at=30)
    phone = FakePhone(keys=keys)
    tell(phone, rules=replace(RULES, unverified=way_out))
    assert prompts(phone)[-1] is prompt
    assert phone.end == end
    assert phone.rung == []


def test_silence_counts_from_the_end_of_the_prompt() -> None:
    phone = FakePhone()
    tell(phone)
    assert prompts(phone)[2:] == [Prompt.CODE_MISSING, Prompt.CODE_MISSING, Prompt.NOT_VERIFIED]
    first_again = phone.heard[2][0]
    assert first_again == pytest.approx(PROMPT_SECONDS + RULES.entry.first_digit, abs=0.1)


def test_a_slow_typist_is_not_cut_off() -> None:
    phone = FakePhone(keys=typed(CODE, at=9, gap=7.5))
    tell(phone)
    assert phone.rung == ["a"]


def test_a_pause_in_the_middle_is_told_and_the_code_can_be_keyed_in_again() -> None:
    phone = FakePhone(keys=typed(CODE[:5], at=5) + typed(CODE, at=20))
    tell(phone)
    assert prompts(phone)[2:4] == [Prompt.CODE_MISSING, Prompt.CODE_ACCEPTED]


def test_one_digit_too_many_after_a_wrong_code_does_not_spoil_the_next() -> None:
    phone = FakePhone(keys=typed(WRONG + "5", at=1) + typed(CODE, at=10))
    tell(phone)
    assert phone.rung == ["a"]


def test_an_agent_who_does_not_answer_passes_the_caller_on() -> None:
    phone = FakePhone(
        keys=typed(CODE, at=1),
        agents={
            "a": AgentBehaviour(RingOutcome.BUSY, after=0.1),
            "b": AgentBehaviour(RingOutcome.UNREACHABLE, after=0.0),
            "c": AgentBehaviour(RingOutcome.NO_ANSWER, after=20.0),
            "d": AgentBehaviour(),
        },
    )
    tell(phone, agents=("a", "b", "c", "d"))
    # While c rings for 20 s, a and b have rested; but d has been idle for longer.
    assert phone.rung == ["a", "b", "c", "d"]
    assert phone.end == "hung up"


def test_a_lone_agent_who_does_not_answer_is_rung_again_after_a_rest() -> None:
    phone = FakePhone(keys=typed(CODE, at=1), agents={"a": AgentBehaviour(RingOutcome.DECLINED, after=1)}, hangs_up=30)
    tell(phone)
    assert 3 <= len(phone.rung) <= 5


def test_two_callers_and_one_agent_are_served_in_turn() -> None:
    first = FakePhone("first", typed(CODE, at=1))
    second = FakePhone("second", typed(WRONG, at=2))
    sessions = tell(first, second, codes=(CODE, WRONG))
    assert sessions.finished == [f"session {CODE}", f"session {WRONG}"]
    assert first.rung == second.rung == ["a"]


def test_one_code_serves_one_of_two_callers() -> None:
    first = FakePhone("first", typed(CODE, at=1))
    second = FakePhone("second", typed(CODE, at=1))
    tell(first, second)
    assert sorted([first.end, second.end]) == ["hung up", "plain queue"]


def test_a_caller_who_is_cut_off_before_an_agent_answers_may_use_the_code_again() -> None:
    first = FakePhone("first", typed(CODE, at=1), hangs_up=5.0)
    second = FakePhone("second", typed(CODE, at=10))
    sessions = tell(first, second, agents=("a",), rules=RULES)
    assert second.end == "hung up"
    assert sessions.finished == [f"session {CODE}"]


MOMENTS = [round(0.0005 * n, 4) for n in range(60)] + [round(0.1 * n, 1) for n in range(120)]


@pytest.mark.parametrize("hangs_up", MOMENTS)
def test_a_hangup_at_any_moment_leaves_nothing_behind(hangs_up: float) -> None:
    agents = {"a": AgentBehaviour(after=2, talks=3)}
    phone = FakePhone(keys=typed(CODE, at=0.0, gap=0.001), agents=agents, hangs_up=hangs_up)
    tell(phone)


def test_a_fault_ends_one_call_with_an_apology_and_the_plain_queue() -> None:
    class Faulty(FakePhone):
        async def music(self) -> None:
            raise RuntimeError("a fault")

    faulty = Faulty("faulty", typed(CODE, at=1))
    other = FakePhone("other", typed(WRONG, at=1.1))
    sessions = tell(faulty, other, codes=(CODE, WRONG))
    assert prompts(faulty)[-1] is Prompt.APOLOGY
    assert faulty.end == "plain queue"
    assert sessions.finished == [f"session {WRONG}"]


def test_an_agent_without_a_dashboard_goes_offline_after_the_grace() -> None:
    async def story() -> None:
        desk = Desk(now, grace=15.0)
        with desk.watch("a", "a"):
            desk.set_available("a")
        await asyncio.sleep(14)
        assert desk.view("a").agent.state is AgentState.AVAILABLE
        with desk.watch("a", "a"):
            await asyncio.sleep(100)
            assert desk.view("a").agent.state is AgentState.AVAILABLE
        await asyncio.sleep(16)
        assert desk.view("a").agent.state is AgentState.OFFLINE

    virtualtime.run(story())


def test_only_the_agent_in_the_call_may_see_its_secret() -> None:
    phone = FakePhone(keys=typed(CODE, at=1), agents={"a": AgentBehaviour(after=1, talks=10)})
    seen: list[bool] = []

    async def story() -> None:
        desk = Desk(now, grace=15.0)
        office = Office(RULES, FakeSessions(CODE), desk, now)
        with desk.watch("a", "a"), desk.watch("b", "b"):
            desk.set_available("a")
            call = asyncio.create_task(supervise(phone, office))
            await asyncio.sleep(8)
            view = desk.view("a").call
            assert view is not None
            seen.extend([desk.may_see("a", view.secret), desk.may_see("b", view.secret), desk.may_see("a", "other")])
            desk.shown("a", view.call)
            await call
            seen.append(desk.may_see("a", view.secret))
        await asyncio.sleep(20)

    virtualtime.run(story())
    assert seen == [True, False, False, False]
