"""Keys that callers press where none is asked for, in virtual time: no caller is left in silence."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from idbellen.calls.identify import AWAITED_AGAIN_SECONDS
from idbellen.calls.stories import Stories
from idbellen.domain.prompts import Prompt
from tests.support import virtualtime
from tests.support.fakes import LOGGED_IN, PROMPT_SECONDS, FakePhone, FakeSessions, now
from tests.support.stories import CODE, FAILED, RULES, WRONG, new_office, prompts, tell, typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idbellen.domain.idcontact import AuthResult

KEYS = "0123456789*#ABCD"
# What a test's clock is asked for a little later than it was.
SLACK = 0.1
LONGEST_SILENCE = max(RULES.entry.first_digit, RULES.entry.between_digits, AWAITED_AGAIN_SECONDS)


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
    assert asked[6] is Prompt.CODE_WRONG, "the code that is keyed in afterwards is taken for what it is"


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


PRESSES = st.lists(st.tuples(st.floats(0.01, 15.0), st.sampled_from([*KEYS, CODE, WRONG, CODE[:4]])), max_size=30)


@given(PRESSES, st.sampled_from([LOGGED_IN, FAILED, None]))
@example([(1.0, "#")], LOGGED_IN)
@example([(3.0, WRONG), (2.0, "#")], LOGGED_IN)
@example([(0.5, "1")] * 300, LOGGED_IN)
@example([(9.0, "*")] * 30, LOGGED_IN)
def test_whatever_keys_are_pressed_no_silence_is_long(
    presses: list[tuple[float, str]], result: AuthResult | None
) -> None:
    keys: list[tuple[float, str]] = []
    at = 0.0
    for gap, pressed in presses:
        for number, key in enumerate(pressed):
            at += 0.2 if number else gap
            keys.append((at, key))
    phone, sessions = FakePhone(keys=keys), FakeSessions(CODE)
    sessions.set_result(CODE, result)

    async def story() -> float:
        office = new_office(RULES, sessions)
        # Nobody serves the queue, so whoever came that far hangs up there.
        phone.hangs_up = 3600.0
        await Stories(office).take(phone)
        return now()

    over: float = virtualtime.run(story())
    served = [at for at, prompt in phone.heard if prompt is Prompt.CODE_ACCEPTED]
    for begin, end in silences(phone, served[0] if served else over):
        moments = [begin, *typing(keys, begin, end), end]
        assert max(after - before for before, after in pairwise(moments)) <= LONGEST_SILENCE + SLACK
        assert end - begin <= RULES.entry.overall + SLACK
