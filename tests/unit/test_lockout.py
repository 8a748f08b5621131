"""Slowing guesses down: what a key can do, and what it cannot do to others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idbellen.domain import lockout
from idbellen.domain.ids import AgentName
from idbellen.domain.lockout import Lockout, Try
from idbellen.domain.login_limits import Attack, AttackWatch, LoginLimits

if TYPE_CHECKING:
    from collections.abc import Hashable

ANN = AgentName("ann")

HOUR = 3600.0


def fail(guard: Lockout, key: Hashable, now: float) -> float:
    """Fail once; gives how long the key then waits."""
    assert Try((guard, key)).begin(now) == 0
    guard.failed(key, now)
    return guard.remaining(key, now)


def test_the_wait_doubles_up_to_a_limit_and_a_success_ends_it() -> None:
    guard = Lockout(tries=3, wait=10, longest=35, forget=HOUR * 1000)
    now, waits = 0.0, []
    for _ in range(6):
        waits.append(round(fail(guard, "a", now), 1))
        now += waits[-1]
    assert waits == [0, 0, 10, 20, 35, 35]
    assert guard.remaining("a", now - 5) == pytest.approx(5)
    assert guard.remaining("b", now) == 0
    guard.begin("a", now)
    guard.succeeded("a", now)
    assert fail(guard, "a", now) == 0


def test_failures_are_forgotten_one_after_the_other() -> None:
    guard = Lockout(tries=3, wait=10, longest=10, forget=60)
    assert [fail(guard, "a", 0.0) for _ in range(3)] == [0, 0, 10]
    assert fail(guard, "a", 60.0) == 10, "there is room for one more"
    assert [fail(guard, "a", 60.0 + 3 * 60.0) for _ in range(3)] == [0, 0, 10]
    assert [fail(guard, "b", float(seconds)) for seconds in range(3)] == [0, 0, 10], "none is forgotten so soon"


def test_a_success_takes_back_as_many_as_it_forgives() -> None:
    guard = Lockout(tries=3, wait=10, longest=10, forget=HOUR, forgives=1)
    for _ in range(2):
        fail(guard, "a", 0.0)
    guard.begin("a", 0.0)
    guard.succeeded("a", 0.0)
    assert [fail(guard, "a", 0.0) for _ in range(2)] == [0, 10]


def test_tries_at_once_are_no_more_than_those_one_after_the_other() -> None:
    guard = Lockout(tries=5, wait=10, longest=900, forget=900)
    begun = sum(not Try((guard, "a")).begin(0.0) for _ in range(60))
    assert begun == 5
    for _ in range(begun):
        guard.failed("a", 0.0)
    # When it has waited it has one more, and not again five at once.
    assert [bool(Try((guard, "a")).begin(15.0)) for _ in range(3)] == [False, True, True]


def test_what_was_not_evaluated_leaves_nothing() -> None:
    guard = Lockout(tries=2, wait=10, longest=900, forget=900)
    for now in range(20):
        guard.begin("a", now)
        guard.withdrawn("a", now)
    assert fail(guard, "a", 20.0) == 0


def test_a_try_counts_under_all_its_keys_or_none() -> None:
    narrow, wide = (Lockout(tries=tries, wait=10, longest=10, forget=HOUR) for tries in (1, 2))
    for name in "ab":
        attempt = Try((narrow, name), (wide, "all"))
        assert attempt.begin(0.0) == 0
        attempt.failed(0.0)
    assert Try((narrow, "c"), (wide, "all")).begin(0.0) == 10
    attempt = Try((narrow, "d"), (wide, "another"))
    assert attempt.begin(0.0) == 0
    assert attempt.weight(0.0) == 2
    attempt.withdrawn(0.0)
    assert attempt.weight(0.0) == 0
    assert narrow.weight("c", 0.0) == 0


# What happens: after how many seconds, under which key, and how it ends (or that it is still under way).
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 400),
        st.sampled_from("abcdef"),
        st.sampled_from(["failed", "succeeded", "withdrawn", "under way"]),
    ),
    max_size=60,
)


def play(guard: Lockout, events: list[tuple[float, str, str]], *, only: str = "") -> list[tuple[float, str, float]]:
    """Let things happen, or only those of one key; gives when who was told what."""
    now, told = 0.0, []
    for seconds, key, end in events:
        now += seconds
        if key not in (only or key):
            continue
        remaining = Try((guard, key)).begin(now)
        told.append((now, key, remaining))
        if not remaining and end != "under way":
            getattr(guard, end)(key, now)
    return told


@given(EVENTS)
def test_no_key_has_a_say_in_anothers(events: list[tuple[float, str, str]]) -> None:
    def limits() -> Lockout:
        return Lockout(tries=3, wait=10, longest=900, forget=900)

    together = play(limits(), events)
    for key in "abcdef":
        assert [answer for answer in together if answer[1] == key] == play(limits(), events, only=key)


@given(
    st.lists(st.tuples(st.floats(0, 2000), st.booleans()), max_size=200),
    st.integers(1, 10),
)
def test_who_guesses_for_long_has_few_tries(moments: list[tuple[float, bool]], tries: int) -> None:
    longest = forget = 900.0
    guard = Lockout(tries=tries, wait=10, longest=longest, forget=forget)
    now, begun = 0.0, []
    for seconds, at_once in moments:
        # Never later than is needed, the worst there is.
        now += seconds if at_once else guard.remaining("a", now)
        if not Try((guard, "a")).begin(now):
            begun.append(now)
            guard.failed("a", now)
    for number, start in enumerate(begun):
        within = [moment for moment in begun[number:] if moment <= start + HOUR]
        # All at once, then some with waits that double, then as many as are forgotten.
        assert len(within) <= tries + math.log2(longest / 10) + 1 + HOUR / forget + 1


@given(EVENTS)
def test_no_more_is_kept_than_was_tried_lately(events: list[tuple[float, str, str]]) -> None:
    guard = Lockout(tries=3, wait=10, longest=100, forget=100)
    ended = [(seconds, key, "failed" if end == "under way" else end) for seconds, key, end in events]
    play(guard, ended)
    end = sum(seconds for seconds, _, _ in ended)
    guard.begin("last", end + 100.0 * len(ended) + 1)
    assert len(guard._entries) == 1


def test_a_full_table_keeps_those_that_failed_most_and_those_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockout, "MOST_KEYS", 5)
    guard = Lockout(tries=3, wait=10, longest=900, forget=900)
    for _ in range(3):
        fail(guard, "locked", 0.0)
    guard.begin("under way", 0.0)
    for number in range(100):
        fail(guard, f"flood {number}", float(number) / 100)
    assert len(guard._entries) == 5
    assert guard.remaining("locked", 1.0) == 9
    guard.failed("under way", 1.0)
    assert guard.weight("under way", 1.0) == 1
    # What has lapsed makes room first.
    fail(guard, "much later", 5000.0)
    assert set(guard._entries) == {"much later"}


def test_a_full_table_of_which_all_are_under_way_grows_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockout, "MOST_KEYS", 3)
    guard = Lockout(tries=3, wait=10, longest=900, forget=900)
    for number in range(5):
        guard.begin(f"try {number}", 0.0)
    for number in range(5):
        guard.failed(f"try {number}", 1.0)
        assert guard.weight(f"try {number}", 1.0) == 1


# Logins


def tried(limits: LoginLimits, name: str, address: str, now: float = 0.0, *, browser: str = "") -> bool:
    """Try a wrong password; gives whether it was evaluated."""
    attempt = limits.attempt(AgentName(name), address=address, browser=browser)
    evaluated = not attempt.begin(now)
    if evaluated:
        attempt.failed(now)
    return evaluated


def test_a_name_that_others_guess_at_is_open_to_who_has_not_failed() -> None:
    limits = LoginLimits()
    for number in range(1000):
        tried(limits, "ann", f"address {number % 100}")
    assert not tried(limits, "ann", "address 1")
    assert tried(limits, "ann", "her own")


def test_one_address_that_tries_many_names_has_to_wait() -> None:
    limits = LoginLimits()
    evaluated = [tried(limits, f"name {number}", "one") for number in range(200)]
    assert sum(evaluated) == 50
    hour = sum(tried(limits, f"later {second}", "one", second) for second in range(1, 3600))
    assert hour <= HOUR / 20


def test_colleagues_behind_one_address_do_not_notice_who_mistypes() -> None:
    limits = LoginLimits()
    # Somebody does not stop for an hour.
    for second in range(3600):
        tried(limits, "forgetful", "town hall", second)
        for number in range(3):
            colleague = limits.attempt(AgentName(f"colleague {number}"), address="town hall")
            assert colleague.begin(second) == 0
            colleague.succeeded(second)


def test_a_known_browser_is_its_own_party() -> None:
    limits = LoginLimits()
    for number in range(200):
        tried(limits, "ann", "town hall")
        tried(limits, f"name {number}", "town hall")
    assert not tried(limits, "ann", "town hall")
    assert tried(limits, "ann", "town hall", browser="hers")
    # It is not free to guess either, and what it does is not counted for the others.
    assert sum(tried(limits, "ann", "elsewhere", browser="stolen") for _ in range(60)) == 5
    assert tried(limits, "ann", "elsewhere")


def test_an_attack_on_one_account_is_told_once_in_a_while() -> None:
    def watch() -> AttackWatch:
        return AttackWatch(failures=4, addresses=3, seconds=60)

    one = watch()
    assert not any(one.failed(ANN, f"address {number % 2}", 0.0) for number in range(50)), "two addresses"
    slow = watch()
    assert not any(slow.failed(ANN, f"address {number}", 21.0 * number) for number in range(50)), "too slow"
    wide = watch()
    assert not any(wide.failed(AgentName(f"agent {number}"), f"address {number}", 0.0) for number in range(50)), (
        "many accounts"
    )
    many = watch()
    told = [many.failed(ANN, f"address {number}", float(number)) for number in range(120)]
    assert [number for number, attack in enumerate(told) if attack] == [3, 63]
    assert told[3] == Attack(failures=4, addresses=4)
