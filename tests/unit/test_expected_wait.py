"""The expected wait, and how it is told."""

import heapq
import random
from statistics import fmean

import pytest

from idbellen.domain.expected_wait import expected_wait, spoken_minutes


def test_every_place_costs_one_agents_share_of_a_call() -> None:
    waits = [expected_wait(place, agents=4, free=0, handling=[100, 300]) for place in (1, 2, 3)]
    assert waits == [50, 100, 150]


def test_who_is_next_to_a_free_agent_does_not_wait() -> None:
    assert expected_wait(2, agents=4, free=2, handling=[200]) == 0
    assert expected_wait(3, agents=4, free=2, handling=[200]) == 50


def test_nothing_is_said_when_nobody_takes_calls_or_nothing_is_known() -> None:
    assert expected_wait(1, agents=0, free=0, handling=[200]) is None
    assert expected_wait(1, agents=2, free=0, handling=[]) is None
    assert expected_wait(1, agents=2, free=1, handling=[]) == 0, "a free agent needs no history"


def test_one_forgotten_call_moves_the_estimate_little() -> None:
    usual = expected_wait(1, agents=1, free=0, handling=[200] * 20)
    forgotten = expected_wait(1, agents=1, free=0, handling=[200] * 19 + [8 * 3600])
    assert usual == 200
    assert forgotten == 240


@pytest.mark.parametrize(
    ("seconds", "minutes"),
    [(0, 1), (60, 1), (60.5, 2), (240, 4), (241, 5), (300, 5), (301, 10), (600, 10), (601, 15), (3500, 60)],
)
def test_minutes_are_told_as_people_tell_them(seconds: float, minutes: int) -> None:
    assert spoken_minutes(seconds) == minutes


@pytest.mark.parametrize("seed", range(5))
def test_in_a_busy_queue_the_estimates_mean_is_close_to_the_waits_mean(seed: int) -> None:
    chance = random.Random(seed)
    agents, mean, load = 4, 240.0, 0.95
    free_from = [0.0] * agents
    calls: list[tuple[float, float]] = []  # when each was taken and when it ended
    estimates, waits = [], []
    now = 0.0
    for _ in range(2000):
        now += chance.expovariate(agents * load / mean)
        recent = calls[-300:]
        estimate = expected_wait(
            1 + sum(taken > now for taken, _ in recent),
            agents=agents,
            free=agents - sum(taken <= now < ended for taken, ended in recent),
            handling=[ended - taken for taken, ended in recent if ended <= now][-50:],
        )
        taken = max(now, heapq.heappop(free_from))
        ended = taken + chance.expovariate(1 / mean)
        heapq.heappush(free_from, ended)
        calls.append((taken, ended))
        if estimate is not None:
            estimates.append(estimate)
            waits.append(taken - now)
    assert fmean(waits) > mean / 2, "the queue is busy"
    assert fmean(estimates) == pytest.approx(fmean(waits), rel=0.25)
