"""A change is told once, when it is whole."""

from __future__ import annotations

import pytest

from idbellen.calls.watch import News


def test_a_change_is_told_once_with_what_it_leads_to() -> None:
    news, told = News(), list[str]()
    left = ["an offer"]

    def settle() -> None:
        told.append("settled")
        if left:
            left.pop()
            news.changed()

    news.settle = settle
    news.on_change(lambda: told.append("told"))
    with news.change():
        news.changed()
        news.changed()
        assert told == []
    assert told == ["settled", "settled", "told"]


def test_what_a_listener_changes_is_told_too() -> None:
    news, told = News(), list[int]()

    def listener() -> None:
        told.append(len(told))
        if len(told) == 1:
            news.changed()

    news.on_change(listener)
    news.changed()
    assert told == [0, 1]


def test_what_had_changed_before_a_fault_is_told() -> None:
    news, told = News(), list[str]()
    news.on_change(lambda: told.append("told"))

    def fail() -> None:
        with news.change():
            news.changed()
            raise ValueError("fault")

    with pytest.raises(ValueError, match="fault"):
        fail()
    assert told == ["told"]
    with news.change():
        pass
    assert told == ["told"], "nothing has changed since"
