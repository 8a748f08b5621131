"""Places and waits as sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idbellen.domain.expected_wait import spoken_minutes
from idbellen.domain.prompts import Prompt, media, standing_prompts

P = Prompt


@pytest.mark.parametrize(
    ("place", "minutes", "told"),
    [
        (1, 1, [P.PLACE_1, P.WAIT_1]),
        (10, 30, [P.PLACE_10, P.WAIT_30]),
        (11, 35, [P.PLACE_MORE, P.WAIT_MORE]),
        (4, None, [P.PLACE_4]),
        (None, 5, [P.WAIT_5]),
        (None, None, []),
    ],
)
def test_what_is_known_is_told(place: int | None, minutes: int | None, told: list[Prompt]) -> None:
    assert standing_prompts(place, minutes) == told


@given(st.integers(1, 500), st.floats(0, 36_000))
def test_every_place_and_every_wait_has_its_own_sentence_or_is_more_than_all(place: int, seconds: float) -> None:
    told, wait = standing_prompts(place, spoken_minutes(seconds))
    assert told is (Prompt[f"PLACE_{place}"] if place <= 10 else P.PLACE_MORE)
    assert (wait is P.WAIT_MORE) is (seconds > 1800)
    if wait is not P.WAIT_MORE:
        minutes = int(wait.name.removeprefix("WAIT_"))
        assert 0 <= 60 * minutes - seconds < 300 or seconds == 0, "never less than expected, nor much more"


def test_where_the_sounds_lie() -> None:
    assert media(P.PLACE_1) == "sound:idbellen/place-1"
