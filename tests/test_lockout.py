"""Slowing guesses down."""

from idbellen.domain import lockout
from idbellen.domain.lockout import Lockout


def test_the_wait_doubles_up_to_a_limit_and_a_success_ends_it() -> None:
    guard = Lockout(tries=3, wait=10, longest=35)
    for _ in range(2):
        guard.failed("a", 0.0)
    assert guard.remaining("a", 0.0) == 0
    waits = []
    for _ in range(4):
        guard.failed("a", 0.0)
        waits.append(guard.remaining("a", 0.0))
    assert waits == [10, 20, 35, 35]
    assert guard.remaining("a", 30.0) == 5
    assert guard.remaining("b", 0.0) == 0
    guard.succeeded("a")
    assert guard.remaining("a", 0.0) == 0


def test_many_names_do_not_fill_the_memory(monkeypatch) -> None:  # noqa: ANN001
    monkeypatch.setattr(lockout, "MOST_NAMES", 3)
    guard = Lockout(tries=1, wait=10, longest=35)
    for name in "abcd":
        guard.failed(name, 0.0)
    assert [bool(guard.remaining(name, 0.0)) for name in "abcd"] == [False, True, True, True]
