"""Keys that callers press where none is asked for, in virtual time: no caller is left in silence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from idbellen.calls.identify import AWAITED_AGAIN_SECONDS
from idbellen.calls.stories import Stories
from idbellen.domain.board import Stage
from idbellen.domain.codes import new_code
from idbellen.domain.digits import Collector, EntryRules, Outcome
from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.domain.ids import AgentName
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import ForPurpose, Goodbye, Plain
from idbellen.domain.statistics import CallOutcome
from tests.support import virtualtime
from tests.support.fakes import LOGGED_IN, PROMPT_SECONDS, FakeCallLog, FakePhone, FakeSessions, now
from tests.support.stories import ADMITTING, CODE, FAILED, RULES, WRONG, new_office, prompts, tell, typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idbellen.calls.office import CallRules, Office
    from idbellen.domain.queueing import WithoutCode
    from idbellen.ports import Session

KEYS = "0123456789*#ABCD"
# What a test's clock is asked for a little later than it was.
SLACK = 0.1
LONGEST_SILENCE = max(RULES.entry.first_digit, RULES.entry.between_digits, AWAITED_AGAIN_SECONDS)


def tell_alone(phone: FakePhone, rules: CallRules, sessions: FakeSessions | None = None) -> float:
    """Tell the story of a call while no agent is there; gives when it was over."""

    async def story() -> float:
        await Stories(new_office(rules, sessions or FakeSessions())).take(phone)
        return now()

    over: float = virtualtime.run(story())
    return over


def asked_again(phone: FakePhone) -> float:
    """Give when the caller first heard that the code is missing."""
    return next(at for at, prompt in phone.heard if prompt is Prompt.CODE_MISSING)


@pytest.mark.parametrize("key", "*#ABCD")
def test_a_key_that_adds_nothing_does_not_stop_the_prompt(key: str) -> None:
    phone = FakePhone(keys=[(1.0, key), (1.5, key)])
    tell(phone)
    assert phone.playbacks[0].heard_out
    assert asked_again(phone) == pytest.approx(PROMPT_SECONDS + RULES.entry.first_digit, abs=SLACK)


@pytest.mark.parametrize("key", "*#ABCD")
def test_a_key_that_adds_nothing_gives_no_more_time(key: str) -> None:
    phone = FakePhone(keys=[(float(at), key) for at in range(1, 30)])
    tell(phone)
    assert asked_again(phone) == pytest.approx(PROMPT_SECONDS + RULES.entry.first_digit, abs=SLACK)


@pytest.mark.parametrize("key", "*#ABCD")
def test_a_key_that_adds_nothing_late_after_a_wrong_code(key: str) -> None:
    keys = typed(WRONG, at=1)
    phone = FakePhone(keys=[*keys, (keys[-1][0] + RULES.entry.trailing + 0.5, key)])
    tell(phone)
    wrong, again = [at for at, prompt in phone.heard if prompt in (Prompt.CODE_WRONG, Prompt.CODE_MISSING)][:2]
    assert again - wrong == pytest.approx(PROMPT_SECONDS + RULES.entry.first_digit, abs=SLACK)


def test_whoever_leans_on_a_digit_is_asked_again_as_soon_as_whoever_lets_go() -> None:
    phone = FakePhone(keys=[(5 + 0.25 * number, "1") for number in range(200)])
    tell(phone)
    assert asked_again(phone) == pytest.approx(5 + RULES.entry.between_digits, abs=SLACK)


def test_keys_while_a_result_is_awaited_are_not_taken_for_the_next_code() -> None:
    sessions = FakeSessions(CODE)
    sessions.set_result(CODE, None)
    phone = FakePhone(keys=typed(CODE, at=1) + typed("121212", at=6) + typed("2109876543", at=34))
    tell(phone, sessions=sessions)
    asked = prompts(phone)
    assert asked[2:6] == [*[Prompt.DATA_AWAITED] * 3, Prompt.CODE_WRONG]
    assert phone.playbacks[4].heard_out
    assert asked[6:8] == [Prompt.START_OVER, Prompt.CODE_WRONG], (
        "the code that is keyed in afterwards is taken for what it is"
    )


def silences(phone: FakePhone, until: float) -> list[tuple[float, float]]:
    """Give when the caller heard nothing, from the answer on."""
    found, silent_from = [], 0.0
    for playback in phone.playbacks:
        if playback.began >= until:
            break
        found.append((silent_from, playback.began))
        silent_from = max(silent_from, playback.silent_from)
    return [*found, (silent_from, max(until, silent_from))]


def typing(keys: Sequence[tuple[float, str]], begin: float, end: float) -> list[float]:
    """Give when a caller went on with an entry in a silence: by another digit, or by the star after one."""
    found, before = [], ""
    for at, key in keys:
        if begin - SLACK <= at <= end:
            if key != before and (key.isdecimal() or (key == "*" and before.isdecimal())):
                found.append(at)
            before = key if key.isdecimal() or key == "*" else before
    return found


# Callers without a code


def saying_so(way: WithoutCode, rules: CallRules = RULES) -> CallRules:
    """Give rules by which a caller can say that they have no code."""
    return replace(rules, entry=replace(rules.entry, without_code=True), without_code=way)


PLAIN, GOODBYE, SERVED = saying_so(Plain()), saying_so(Goodbye()), saying_so(ForPurpose("report_move"), ADMITTING)


@pytest.mark.parametrize("at", [0.5, 6.0, 13.0])
def test_a_caller_without_a_code_is_in_the_plain_queue_within_ten_seconds(at: float) -> None:
    phone = FakePhone(keys=[(at, "#")])
    came = tell_alone(phone, PLAIN)
    assert prompts(phone)[:3] == [Prompt.WELCOME, Prompt.ENTER_CODE_10, Prompt.WITHOUT_CODE]
    assert (prompts(phone)[3:], phone.end) == ([Prompt.WITHOUT_CODE_CONNECT], "plain queue")
    assert came - at < 10
    assert phone.heard[3][0] == pytest.approx(at, abs=SLACK), "what played is stopped"


def test_a_caller_without_a_code_may_be_told_how_to_get_one() -> None:
    phone = FakePhone(keys=[(2.0, "#")])
    tell(phone, rules=GOODBYE)
    assert (prompts(phone)[3:], phone.end) == ([Prompt.WITHOUT_CODE_GOODBYE], "hung up")


def test_where_it_is_off_no_sentence_names_the_key() -> None:
    phone = FakePhone(keys=[*typed(WRONG, at=1), (8.0, "#")])
    tell(phone)
    assert Prompt.WITHOUT_CODE not in prompts(phone)
    assert prompts(phone).count(Prompt.CODE_MISSING) == 1


def test_the_key_and_the_star_are_named_with_what_went_wrong() -> None:
    phone = FakePhone(keys=[*typed(WRONG, at=1), *typed(CODE[:4], at=10)])
    tell(phone, rules=PLAIN)
    assert prompts(phone)[3:] == [
        *(Prompt.CODE_WRONG, Prompt.START_OVER, Prompt.WITHOUT_CODE),
        *(Prompt.CODE_MISSING, Prompt.START_OVER, Prompt.WITHOUT_CODE),
        Prompt.NOT_VERIFIED,
    ]


def test_silence_is_no_mistake_that_a_star_would_mend() -> None:
    phone = FakePhone()
    tell(phone, rules=PLAIN)
    assert prompts(phone)[3:] == [*[Prompt.CODE_MISSING, Prompt.WITHOUT_CODE] * 2, Prompt.NOT_VERIFIED]


@pytest.mark.parametrize(("after", "goes"), [(0.4, False), (1.5, False), (2.9, False), (3.5, True)])
def test_a_hash_that_ends_a_code_does_not_say_that_there_is_none(after: float, *, goes: bool) -> None:
    keys = typed(WRONG, at=1)
    phone = FakePhone(keys=[*keys, (keys[-1][0] + after, "#")], hangs_up=keys[-1][0] + 8)
    tell(phone, rules=PLAIN)
    assert (Prompt.WITHOUT_CODE_CONNECT in prompts(phone)) is goes


def test_a_hash_after_digits_ends_them_also_where_it_could_say_that_there_is_no_code() -> None:
    phone = FakePhone(keys=[*typed("12#", at=1), *typed(CODE, at=12)])
    tell(phone, rules=PLAIN)
    assert prompts(phone)[3] is Prompt.CODE_MISSING
    assert Prompt.CODE_ACCEPTED in prompts(phone)


@given(st.integers(8, 20), st.data())
def test_no_code_says_that_there_is_none(length: int, data: st.DataObject) -> None:
    rules = EntryRules(length=length, without_code=True)
    keys = "".join(digit * data.draw(st.integers(1, 2)) for digit in new_code(length))
    begins = data.draw(st.integers(0, length))
    collector, entry = Collector(rules, 0.0), None
    for number, key in enumerate(keys[begins:]):
        entry = entry or collector.press(key, 0.1 * number)
    # Also where its first digits were lost.
    assert entry is None or entry.outcome is Outcome.COMPLETE


def test_a_caller_without_a_code_may_be_served_as_not_verified() -> None:
    words: list[tuple[str, str] | None] = []
    log = FakeCallLog()

    async def look(office: Office) -> None:
        await asyncio.sleep(20)
        view = office.desk.view(AgentName("a")).call
        assert view
        assert view.secret
        assert view.purpose == "report_move"
        assert office.progress.view(view.session).stage is Stage.CONNECTED
        session = await office.sessions.by_secret(view.secret)
        assert session
        assert session.result == AuthResult(AuthStatus.NOT_TRIED, {})
        words.append(view.words)
        office.desk.shown(AgentName("a"), view.call)

    phone = FakePhone(keys=[(2.0, "#")])
    sessions = tell(phone, rules=SERVED, beside=look, log=log)
    assert prompts(phone)[3:5] == [Prompt.WITHOUT_CODE_CONNECT, Prompt.PLEASE_WAIT]
    assert (phone.rung, len(sessions.finished)) == (["a"], 1)
    assert words == [None], "no page shows them"
    [record] = log.records
    assert (record.outcome, record.verified, record.purpose) == (CallOutcome.ANSWERED, False, "report_move")


def test_a_store_that_is_away_for_a_moment_is_waited_for_by_a_caller_without_a_code() -> None:
    phone, sessions = FakePhone(keys=[(2.0, "#")]), FakeSessions(CODE)
    sessions.away_until = 5.0
    tell(phone, rules=SERVED, sessions=sessions)
    assert phone.rung == ["a"]


def test_a_store_that_loses_what_a_call_has_begun_costs_only_the_queue() -> None:
    class Losing(FakeSessions):
        async def claim(self, code: str, *, call: str, secret: str, now: float) -> Session | None:  # noqa: ARG002
            return None

    phone = FakePhone(keys=[(2.0, "#")])
    tell(phone, rules=SERVED, sessions=Losing(CODE))
    assert (prompts(phone)[-1], phone.end) == (Prompt.APOLOGY, "plain queue")


@pytest.mark.parametrize("hangs_up", [2.0 + 0.0005 * number for number in range(24)] + [4.0, 7.0, 20.0])
def test_a_caller_without_a_code_who_hangs_up_leaves_nothing_behind(hangs_up: float) -> None:
    tell(FakePhone(keys=[(2.0, "#")], hangs_up=hangs_up), rules=SERVED)


PRESSES = st.lists(st.tuples(st.floats(0.01, 15.0), st.sampled_from([*KEYS, CODE, WRONG, CODE[:4]])), max_size=30)


@given(PRESSES, st.sampled_from([LOGGED_IN, FAILED, None]), st.sampled_from([RULES, PLAIN, GOODBYE, SERVED]))
@example([(1.0, "#")], LOGGED_IN, RULES)
@example([(3.0, WRONG), (2.0, "#")], LOGGED_IN, RULES)
@example([(0.5, "1")] * 300, LOGGED_IN, RULES)
@example([(9.0, "*")] * 30, LOGGED_IN, RULES)
@example([(3.0, WRONG), (2.0, "#")], LOGGED_IN, PLAIN)
def test_whatever_keys_are_pressed_no_silence_is_long(
    presses: list[tuple[float, str]], result: AuthResult | None, rules: CallRules
) -> None:
    keys: list[tuple[float, str]] = []
    at = 0.0
    for gap, pressed in presses:
        for number, key in enumerate(pressed):
            at += 0.2 if number else gap
            keys.append((at, key))
    phone, sessions = FakePhone(keys=keys), FakeSessions(CODE)
    sessions.set_result(CODE, result)

    # Nobody serves the queue, so whoever came that far hangs up there.
    phone.hangs_up = 3600.0
    over = tell_alone(phone, rules, sessions)
    served = [at for at, prompt in phone.heard if prompt in (Prompt.CODE_ACCEPTED, Prompt.WITHOUT_CODE_CONNECT)]
    for begin, end in silences(phone, served[0] if served else over):
        moments = [begin, *typing(keys, begin, end), end]
        assert max(after - before for before, after in pairwise(moments)) <= LONGEST_SILENCE + SLACK
        assert end - begin <= RULES.entry.overall + SLACK
