"""Who has room at a listener, and who goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from idbellen.domain.crowd import Crowd, shares


def test_each_listener_has_what_it_wants_or_its_part_of_what_there_is() -> None:
    assert shares(100, {"a": 60, "b": 40}) == {"a": 60, "b": 40}
    assert shares(50, {"a": 60, "b": 40}) == {"a": 30, "b": 20}
    assert shares(0, {"a": 60, "b": 40}) == {"a": 1, "b": 1}
    assert shares(10, {}) == {}


def test_who_waits_longest_makes_room_and_who_works_stays() -> None:
    crowd: Crowd[str] = Crowd(3)
    for name in ("one", "two", "three"):
        assert crowd.enter(name) is None
    crowd.work("one")
    assert crowd.enter("four") == "two"
    assert list(crowd) == ["one", "three", "four"]
    crowd.work("three")
    crowd.work("four")
    assert crowd.enter("five") == "five"
    assert "five" not in crowd
    crowd.wait("four")
    assert crowd.first() == "four"
    assert crowd.enter("six") == "four"
    crowd.leave("one")
    assert crowd.enter("seven") is None
    assert crowd.enter("eight") == "six"


def test_a_flood_of_strangers_does_not_wash_away_who_worked_nor_the_other_way_round() -> None:
    crowd: Crowd[str] = Crowd(10)
    for name in ("known one", "known two"):
        crowd.enter(name)
        crowd.work(name)
        crowd.wait(name)
    for number in range(100):
        crowd.enter(f"stranger {number}")
    assert {"known one", "known two"} <= set(crowd)

    crowd = Crowd(10)
    for number in range(10):
        crowd.enter(f"idle {number}")
        crowd.work(f"idle {number}")
        crowd.wait(f"idle {number}")
    assert [crowd.enter(f"new {number}") for number in range(3)] == ["idle 0", "idle 1", "idle 2"]


def test_one_party_has_a_part_and_makes_room_for_its_own() -> None:
    crowd: Crowd[str] = Crowd(10, 2)
    assert [crowd.enter(name, "one") for name in ("a", "b", "c")] == [None, None, "a"]
    assert crowd.of("one") == 2
    crowd.work("b")
    crowd.work("c")
    assert crowd.enter("d", "one") == "d"
    assert crowd.enter("e", "another") is None
    # Nobody's have no limit of their own.
    assert [crowd.enter(name) for name in "fghijkl"] == [None] * 7
    assert crowd.enter("m") == "e"


STEPS = st.tuples(st.sampled_from(["enter", "work", "wait", "leave"]), st.integers(0, 9), st.sampled_from("ab"))


@given(st.lists(STEPS))
def test_whatever_happens_it_is_never_too_full(steps: list[tuple[str, int, str]]) -> None:
    crowd: Crowd[int] = Crowd(4, 3)
    inside: dict[int, str] = {}
    for what, member, party in steps:
        if what != "enter":
            getattr(crowd, what)(member)
            if what == "leave":
                inside.pop(member, None)
        elif member not in inside:
            goes = crowd.enter(member, party)
            inside[member] = party
            if goes is not None:
                del inside[goes]
        assert set(crowd) == set(inside)
        assert len(inside) <= 4
        for one in "ab":
            assert crowd.of(one) == sum(found == one for found in inside.values()) <= 3
        assert crowd.first() is None or crowd.first() in inside
