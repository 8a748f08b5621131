"""The story of a call in virtual time, with fakes: timers, tries, agents, and hangups at every moment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest
from structlog.testing import capture_logs

from idbellen.calls import progress
from idbellen.calls.identify import PATIENCE_SECONDS
from idbellen.calls.patience import RETRY_SECONDS
from idbellen.calls.stories import Stories
from idbellen.domain.agents import AgentState
from idbellen.domain.board import CitizenView, Stage
from idbellen.domain.ids import AgentName, Secret, SessionRef
from idbellen.domain.prompts import Prompt
from idbellen.ports import RingOutcome, Session, StoreError
from tests.support import virtualtime
from tests.support.fakes import (
    LOGGED_IN,
    PROMPT_SECONDS,
    AgentBehaviour,
    FakeFeedback,
    FakePhone,
    FakeSessions,
    now,
)
from tests.support.stories import (
    ADMITTING,
    CODE,
    FAILED,
    RULES,
    WRONG,
    account,
    new_office,
    prompts,
    tell,
    typed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from idbellen.calls.office import Office
    from idbellen.domain.idcontact import AuthResult

A = AgentName("a")
SESSION_OF_THIRD = SessionRef("session 5757575757")


def test_right_at_once() -> None:
    phone = FakePhone(keys=typed(CODE, at=5))
    sessions = tell(phone)
    assert prompts(phone) == [
        Prompt.WELCOME,
        Prompt.ENTER_CODE_10,
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


LAST_DIGIT = 5 + 9 * 0.3


def test_a_short_absence_of_the_store_is_not_noticed() -> None:
    phone, sessions = FakePhone(keys=typed(CODE, at=5)), FakeSessions(CODE)
    sessions.away_until = LAST_DIGIT + PATIENCE_SECONDS - 0.5
    tell(phone, sessions=sessions)
    [accepted] = [at for at, prompt in phone.heard if prompt is Prompt.CODE_ACCEPTED]
    assert accepted == pytest.approx(sessions.away_until, abs=2 * RETRY_SECONDS)
    assert prompts(phone)[:3] == [Prompt.WELCOME, Prompt.ENTER_CODE_10, Prompt.CODE_ACCEPTED]


def test_nobody_waits_long_for_a_store_that_is_away() -> None:
    phone, sessions = FakePhone(keys=typed(CODE, at=5)), FakeSessions(CODE)
    sessions.away_until = 60.0
    tell(phone, sessions=sessions)
    [apology] = [at for at, prompt in phone.heard if prompt is Prompt.APOLOGY]
    assert apology == pytest.approx(LAST_DIGIT + PATIENCE_SECONDS, abs=2 * RETRY_SECONDS)
    assert phone.end == "plain queue"


def test_digits_before_and_during_the_prompt_count_and_stop_it() -> None:
    phone = FakePhone(keys=typed(CODE, at=0.0, gap=0.01))
    tell(phone)
    assert phone.rung == ["a"]
    assert phone.playbacks[0].stopped_at == pytest.approx(0, abs=0.02)


def test_wrong_wrong_right() -> None:
    keys = typed(WRONG, at=1) + typed(WRONG, at=10) + typed(CODE, at=20)
    phone = FakePhone(keys=keys)
    tell(phone)
    assert prompts(phone)[2:7] == [*[Prompt.CODE_WRONG, Prompt.START_OVER] * 2, Prompt.CODE_ACCEPTED]


@pytest.mark.parametrize(
    ("way_out", "prompt", "end"),
    [("plain", Prompt.NOT_VERIFIED, "plain queue"), ("goodbye", Prompt.NOT_VERIFIED_GOODBYE, "hung up")],
)
def test_all_wrong(way_out: Literal["plain", "goodbye"], prompt: Prompt, end: str) -> None:
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
    assert prompts(phone)[2:5] == [Prompt.CODE_MISSING, Prompt.START_OVER, Prompt.CODE_ACCEPTED]


def test_one_digit_too_many_after_a_wrong_code_does_not_spoil_the_next() -> None:
    phone = FakePhone(keys=typed(WRONG + "5", at=1) + typed(CODE, at=10))
    tell(phone)
    assert phone.rung == ["a"]


# Auth results: failed, missing, late


def with_result(result: AuthResult | None) -> FakeSessions:
    sessions = FakeSessions(CODE)
    sessions.set_result(CODE, result)
    return sessions


def arrives(sessions: FakeSessions, result: AuthResult, at: float) -> Callable[[Office], Coroutine[Any, Any, None]]:
    async def arrive(office: Office) -> None:
        await asyncio.sleep(at)
        sessions.set_result(CODE, result)
        office.progress.result_arrived(SessionRef(f"session {CODE}"), result)

    return arrive


def test_a_failed_login_sounds_like_a_wrong_code_and_leaves_the_session_alone() -> None:
    phone = FakePhone(keys=typed(CODE, at=1) + typed(CODE, at=12) + typed(CODE, at=24))
    sessions = tell(phone, sessions=with_result(FAILED))
    assert prompts(phone)[2:] == [*[Prompt.CODE_WRONG, Prompt.START_OVER] * 2, Prompt.NOT_VERIFIED]
    assert (phone.rung, sessions.finished) == ([], [])


@pytest.mark.parametrize("result", [FAILED, None])
def test_a_purpose_can_let_in_who_is_not_verified(result: AuthResult | None) -> None:
    phone = FakePhone(keys=typed(CODE, at=1))
    tell(phone, sessions=with_result(result), rules=ADMITTING)
    assert phone.rung == ["a"]
    assert Prompt.DATA_AWAITED not in prompts(phone)


def test_a_caller_waits_for_a_late_result_and_goes_on_when_it_arrives() -> None:
    sessions = with_result(None)
    phone = FakePhone(keys=typed(CODE, at=1))
    tell(phone, sessions=sessions, beside=arrives(sessions, LOGGED_IN, at=12.0))
    assert prompts(phone)[2:4] == [Prompt.DATA_AWAITED, Prompt.CODE_ACCEPTED]
    accepted = next(at for at, prompt in phone.heard if prompt is Prompt.CODE_ACCEPTED)
    assert accepted == pytest.approx(12.0, abs=0.1)


def test_a_late_result_that_failed_refuses_the_code() -> None:
    sessions = with_result(None)
    phone = FakePhone(keys=typed(CODE, at=1))
    tell(phone, sessions=sessions, beside=arrives(sessions, FAILED, at=12.0))
    assert prompts(phone)[2:4] == [Prompt.DATA_AWAITED, Prompt.CODE_WRONG]
    assert phone.heard[3][0] == pytest.approx(12.0, abs=0.1)


def test_a_result_that_does_not_come_in_time_refuses_the_code_until_it_is_there() -> None:
    sessions = with_result(None)
    phone = FakePhone(keys=typed(CODE, at=1) + typed(CODE, at=30))
    tell(phone, sessions=sessions, beside=arrives(sessions, LOGGED_IN, at=29.0))
    assert prompts(phone)[2:6] == [*[Prompt.DATA_AWAITED] * 3, Prompt.CODE_WRONG]
    assert Prompt.CODE_ACCEPTED in prompts(phone)
    assert phone.heard[5][0] == pytest.approx(1 + 9 * 0.3 + RULES.late, abs=0.1)


@pytest.mark.parametrize("hangs_up", [round(0.001 * n, 3) for n in range(30)] + [2.0, 19.999, 20.0, 20.001, 20.005])
def test_a_hangup_while_a_result_is_awaited_leaves_nothing_behind(hangs_up: float) -> None:
    phone = FakePhone(keys=typed(CODE, at=0.0, gap=0.0001), hangs_up=hangs_up)
    tell(phone, sessions=with_result(None))


def test_a_store_that_fails_while_a_result_is_awaited_is_named_in_the_log() -> None:
    class Failing(FakeSessions):
        async def by_reference(self, reference: str) -> Session | None:
            raise StoreError(f"no answer about {reference}")

    sessions = Failing(CODE)
    sessions.set_result(CODE, None)
    phone = FakePhone(keys=typed(CODE, at=1))
    with capture_logs() as lines:
        tell(phone, sessions=sessions)
    [line] = [line for line in lines if line["log_level"] == "error"]
    assert line["reason"] == f"no answer about session {CODE}"
    assert (prompts(phone)[-1], phone.end) == (Prompt.APOLOGY, "plain queue")


def test_a_late_result_reaches_the_agent_who_talks() -> None:
    sessions = with_result(None)
    results: list[int] = []

    async def look(office: Office) -> None:
        for at in (14.0, 16.0):
            await asyncio.sleep(at - now())
            call = office.desk.view(A).call
            assert call
            results.append(call.results)
            office.desk.shown(A, call.call)
            if at == 14.0:
                await arrives(sessions, LOGGED_IN, at=0.0)(office)

    phone = FakePhone(keys=typed(CODE, at=1), agents={"a": AgentBehaviour(talks=30)})
    tell(phone, sessions=sessions, rules=ADMITTING, beside=look)
    assert results == [0, 1]


# What the citizen's page and the auth plugin are told


def test_the_page_follows_the_call_and_shows_the_words_that_the_agent_sees() -> None:
    seen: list[tuple[float, CitizenView]] = []
    words: list[tuple[str, str] | None] = []
    reference = SessionRef(f"session {CODE}")

    async def follow(office: Office) -> None:
        with office.progress.watch(reference) as news:
            while True:
                view = office.progress.view(reference)
                seen.append((round(now(), 1), view))
                call = office.desk.view(A).call
                if call:
                    words.append(call.words)
                    office.desk.shown(A, call.call)
                if view.stage is Stage.ENDED:
                    return
                await news.changed()

    sessions = with_result(None)

    async def follow_and_arrive(office: Office) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(follow(office))
            both.create_task(arrives(sessions, LOGGED_IN, at=8.0)(office))

    phone = FakePhone(keys=typed(CODE, at=1), agents={"a": AgentBehaviour(after=2, talks=10)})
    tell(phone, sessions=sessions, beside=follow_and_arrive)
    stages = [view.stage for _, view in seen]
    assert list(dict.fromkeys(stages)) == [
        Stage.WAITING,
        Stage.ACCEPTED,
        Stage.QUEUED,
        Stage.CONNECTED,
        Stage.ENDED,
    ]
    assert {view.words for _, view in seen if view.stage in (Stage.QUEUED, Stage.CONNECTED)} == set(words)
    assert len(set(words)) == 1
    assert seen[0][1].words is None
    assert next(view.place for _, view in seen if view.stage is Stage.QUEUED) == 1


def test_place_and_expected_wait_are_those_of_the_queue() -> None:
    first = FakePhone("first", typed(CODE, at=1), agents={"a": AgentBehaviour(after=2, talks=100)})
    second = FakePhone("second", typed(WRONG, at=20), agents={"a": AgentBehaviour(after=2, talks=100)})
    third = FakePhone("third", typed("5757575757", at=30), agents={"a": AgentBehaviour(after=2, talks=100)})
    views: list[CitizenView] = []

    async def look(office: Office) -> None:
        await asyncio.sleep(50)
        views.append(office.progress.view(SessionRef(f"session {WRONG}")))
        views.append(office.progress.view(SESSION_OF_THIRD))
        await asyncio.sleep(100)
        views.append(office.progress.view(SESSION_OF_THIRD))

    tell(first, second, third, codes=(CODE, WRONG, "5757575757"), beside=look)
    assert [(view.stage, view.place) for view in views] == [(Stage.QUEUED, 1), (Stage.QUEUED, 2), (Stage.QUEUED, 1)]
    assert [view.minutes for view in views] == [None, None, 2], "no call had ended yet; then one of 100 s had"


def test_a_caller_who_is_cut_off_in_the_queue_can_call_again() -> None:
    stages: list[Stage] = []

    async def look(office: Office) -> None:
        for _ in range(3):
            await asyncio.sleep(5)
            stages.append(office.progress.view(SessionRef(f"session {CODE}")).stage)

    phone = FakePhone(keys=typed(CODE, at=1), agents={"a": AgentBehaviour(after=60)}, hangs_up=12)
    tell(phone, beside=look)
    assert stages == [Stage.QUEUED, Stage.QUEUED, Stage.WAITING]


def test_of_the_sessions_that_have_ended_the_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(progress, "MOST_ENDED", 2)
        pages = new_office(RULES, FakeSessions()).progress
        for number in range(3):
            pages.end(SessionRef(f"session {number}"))
        stages = [pages.view(SessionRef(f"session {number}")).stage for number in range(3)]
        assert stages == [Stage.WAITING, Stage.ENDED, Stage.ENDED]

    virtualtime.run(story())


def test_the_auth_plugin_is_told_at_each_configured_moment() -> None:
    told: list[tuple[float, str]] = []

    async def remember(office: Office) -> None:
        await asyncio.sleep(200)
        assert isinstance(office.feedback, FakeFeedback)
        told.extend(office.feedback.told)

    phone = FakePhone(keys=typed(CODE, at=1), agents={"a": AgentBehaviour(after=2, talks=60)})
    tell(phone, beside=remember)
    reference = SessionRef(f"session {CODE}")
    assert [what for _, what in told] == [f"active {reference}"] * 4 + [f"logout {reference}"]
    connected = told[1][0]
    assert [round(at - connected) for at, _ in told[1:4]] == [0, 25, 50]

    told.clear()
    phone = FakePhone(keys=typed(CODE, at=1), agents={"a": AgentBehaviour(after=60)}, hangs_up=12)
    tell(phone, rules=replace(RULES, active_moments=frozenset({"connected"})), beside=remember)
    assert told == [], "never connected, and the session is not over"


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
        async def music(self, music_class: str) -> None:  # noqa: ARG002
            raise RuntimeError("a fault")

    faulty = Faulty("faulty", typed(CODE, at=1))
    other = FakePhone("other", typed(WRONG, at=1.1))
    sessions = tell(faulty, other, codes=(CODE, WRONG))
    assert prompts(faulty)[-1] is Prompt.APOLOGY
    assert faulty.end == "plain queue"
    assert sessions.finished == [f"session {WRONG}"]


def test_a_caller_who_cannot_even_be_sent_to_the_plain_queue_is_in_the_log_and_others_go_on() -> None:
    class Lost(FakePhone):
        async def music(self, music_class: str) -> None:  # noqa: ARG002
            raise RuntimeError("a fault")

        async def to_plain_queue(self) -> None:
            raise RuntimeError("Asterisk is away")

    lost = Lost("lost", typed(CODE, at=1))
    other = FakePhone("other", typed(WRONG, at=1.1))
    with capture_logs() as logs:
        sessions = tell(lost, other, codes=(CODE, WRONG))
    [line] = [line for line in logs if line["event"] == "caller could not be sent to the plain queue"]
    assert (line["call"], line["log_level"]) == ("lost", "error")
    assert sessions.finished == [f"session {WRONG}"]


def test_an_agent_without_a_dashboard_goes_offline_after_the_grace() -> None:
    async def story() -> None:
        desk = new_office(RULES, FakeSessions(CODE)).desk
        with desk.staff.present(account("a")):
            desk.staff.set_available(A)
        await asyncio.sleep(14)
        assert desk.view(A).agent.state is AgentState.AVAILABLE
        with desk.staff.present(account("a")):
            await asyncio.sleep(100)
            assert desk.view(A).agent.state is AgentState.AVAILABLE
        await asyncio.sleep(16)
        assert desk.view(A).agent.state is AgentState.OFFLINE

    virtualtime.run(story())


def test_only_the_agent_in_the_call_may_see_its_secret() -> None:
    phone = FakePhone(keys=typed(CODE, at=1), agents={"a": AgentBehaviour(after=1, talks=10)})
    seen: list[bool] = []

    async def story() -> None:
        office = new_office(RULES, FakeSessions(CODE))
        desk = office.desk
        with desk.staff.present(account("a")), desk.staff.present(account("b")):
            desk.staff.set_available(A)
            call = asyncio.create_task(Stories(office).take(phone))
            await asyncio.sleep(8)
            view = desk.view(A).call
            assert view is not None
            assert view.secret is not None
            seen.extend([desk.may_see(A, view.secret), desk.may_see(AgentName("b"), view.secret)])
            seen.extend([desk.may_see(A, Secret("other")), desk.may_see(A, Secret("é"))])
            desk.shown(A, view.call)
            await call
            seen.append(desk.may_see(A, view.secret))
        await asyncio.sleep(20)

    virtualtime.run(story())
    assert seen == [True, False, False, False, False]
