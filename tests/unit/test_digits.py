"""Entries of digits: pure, with times as arguments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idbellen.domain.codes import new_code
from idbellen.domain.digits import Collector, Entry, EntryRules, Outcome

RULES = EntryRules(length=4, first_digit=10, between_digits=5, overall=30, trailing=0.8)


def type_in(collector: Collector, keys: str, *, at: float = 0.0, gap: float = 0.2) -> Entry | None:
    entry = None
    for position, key in enumerate(keys):
        entry = collector.press(key, at + position * gap)
        if entry:
            break
    return entry


def test_the_last_digit_completes_at_once() -> None:
    assert type_in(Collector(RULES, 0), "1234") == Entry(Outcome.COMPLETE, "1234")


def test_an_entry_does_not_show_its_code() -> None:
    assert "1234" not in repr(Entry(Outcome.COMPLETE, "1234"))


def test_star_starts_over_and_keys_that_are_no_digits_do_not_count() -> None:
    assert type_in(Collector(RULES, 0), "98*A1D234") == Entry(Outcome.COMPLETE, "1234")


def test_hash_ends_what_was_begun_and_nothing_else() -> None:
    assert type_in(Collector(RULES, 0), "##12#") == Entry(Outcome.INCOMPLETE)


@pytest.mark.parametrize("keys", ["11234", "1122334", "12344", "1 1 2 3 4".replace(" ", "")])
def test_a_digit_reported_twice_counts_once(keys: str) -> None:
    assert type_in(Collector(RULES, 0), keys) == Entry(Outcome.COMPLETE, "1234")


@given(st.integers(8, 20), st.data())
def test_any_code_survives_any_doubling(length: int, data: st.DataObject) -> None:
    code = new_code(length)
    keys = "".join(digit * data.draw(st.integers(1, 3)) for digit in code)
    assert type_in(Collector(EntryRules(length=length), 0), keys) == Entry(Outcome.COMPLETE, code)


def test_one_digit_too_many_is_not_taken_for_the_next_entry() -> None:
    first = Collector(RULES, 0)
    assert type_in(first, "1234")
    second = Collector(RULES, 1, previous_key_at=first.last_key_at)
    assert second.press("5", 0.9) is None
    assert type_in(second, "6789", at=2.0) == Entry(Outcome.COMPLETE, "6789")


def test_the_next_entry_may_begin_with_the_digit_that_ended_the_last() -> None:
    second = Collector(RULES, 1, previous_key_at=0.6)
    assert type_in(second, "4321", at=3.0) == Entry(Outcome.COMPLETE, "4321")


def test_deadlines() -> None:
    collector = Collector(RULES, 100)
    assert collector.deadline == 130, "while the prompt plays only the overall timer runs"
    collector.prompt_ended(107)
    assert collector.deadline == 117
    collector.press("1", 110)
    assert collector.deadline == 115
    collector.press("2", 129)
    assert collector.deadline == 130
    assert collector.expire() == Entry(Outcome.INCOMPLETE)


def test_silence() -> None:
    assert Collector(RULES, 0).expire() == Entry(Outcome.SILENCE)


def test_star_gives_the_time_for_a_first_digit_again() -> None:
    collector = Collector(RULES, 0)
    type_in(collector, "12*", at=1.0, gap=1.0)
    assert collector.deadline == 13


@pytest.mark.parametrize("key", "#*A")
def test_a_key_that_adds_nothing_changes_nothing(key: str) -> None:
    collector = Collector(RULES, 0)
    assert collector.press(key, 1) is None
    assert not collector.started
    collector.prompt_ended(4)
    assert collector.press(key, 9) is None
    assert collector.deadline == 14


def test_only_what_goes_on_with_the_code_gives_more_time() -> None:
    collector = Collector(RULES, 0)
    type_in(collector, "1111A1", at=1.0, gap=1.0)
    assert collector.deadline == 6
