"""How long a caller will probably wait, and how that is told."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_IN_MEDIANS = 5
STEP_MINUTES = 5


def expected_wait(place: int, *, agents: int, free: int, handling: Sequence[float]) -> float | None:
    """Estimate the wait in seconds of the caller in this place of the queue, where 1 is next.

    ``agents`` counts those who take calls now, ``free`` those of them who are idle; ``handling`` holds how long
    agents were occupied with each of the recent calls, in seconds.

    The estimate is ``(place - free) * mean handling time / agents``: while all agents are busy, one of them becomes
    free every ``mean / agents`` seconds, and after the free agents have taken their callers, that has to happen
    ``place - free`` times. It is exact for exponential handling times. 0 when an agent is free for this caller.

    A call of more than five times the median counts as five times the median, so one that was forgotten moves the
    estimate little; of exponential handling times this takes 3 % off the mean.

    None when nobody takes calls, or when it depends on handling times and none are known yet.
    """
    if agents < 1:
        return None
    if place <= free:
        return 0.0
    if not handling:
        return None
    longest = LONGEST_IN_MEDIANS * statistics.median(handling)
    mean = statistics.fmean(min(seconds, longest) for seconds in handling)
    return (place - free) * mean / agents


def spoken_minutes(seconds: float) -> int:
    """Round a wait up to the minutes that people are told: 1, 2, 3, 4, 5, then 10, 15 and so on."""
    minutes = max(1, math.ceil(seconds / 60))
    return minutes if minutes <= STEP_MINUTES else math.ceil(minutes / STEP_MINUTES) * STEP_MINUTES
