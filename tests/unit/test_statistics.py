"""Figures about calls, their CSV, and the figures of today beside the history."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from idbellen.calls import statistics as module
from idbellen.calls.statistics import Statistics
from idbellen.domain.board import Day
from idbellen.domain.ids import AgentName, CallId, QueueName
from idbellen.domain.statistics import (
    OFFERED,
    AgentFigures,
    CallOutcome,
    CallRecord,
    Figures,
    Target,
    agent_figures,
    by_day,
    by_quarter,
    daily_csv,
    day_bounds,
    figures,
    records_csv,
)
from tests.support import virtualtime
from tests.support.values import about

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ANN, BOB = AgentName("ann"), AgentName("bob")
MOVES = QueueName("moves")

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
NOON = dt.datetime(2026, 3, 10, 12, tzinfo=AMSTERDAM).timestamp()


def call(waited: float = 10.0, outcome: CallOutcome = CallOutcome.ANSWERED, **changes: Any) -> CallRecord:
    agent = ANN if outcome is CallOutcome.ANSWERED else None
    talked = 60.0 if agent else 0.0
    record = CallRecord(CallId("call"), MOVES, "report_move", True, NOON, waited, outcome, agent, talked)
    return replace(record, **changes)


def test_figures_of_a_queue() -> None:
    of = figures(
        [
            call(10.0),
            call(25.0, wrap_up=30.0),
            call(25.1),
            call(4.9, CallOutcome.ABANDONED),
            call(5.0, CallOutcome.ABANDONED),
            call(600.0, CallOutcome.TOO_LONG),
            call(40.0, CallOutcome.LEFT),
            call(0.0, CallOutcome.FULL),
            call(0.0, CallOutcome.CLOSED),
            call(0.0, CallOutcome.CLOSED),
            call(0.0, CallOutcome.UNSTAFFED),
        ]
    )
    assert (of.offered, of.answered, of.answered_within, of.abandoned, of.abandoned_short) == (7, 3, 2, 2, 1)
    assert of.sent_away == {
        CallOutcome.FULL: 1,
        CallOutcome.CLOSED: 2,
        CallOutcome.UNSTAFFED: 1,
        CallOutcome.TOO_LONG: 1,
        CallOutcome.LEFT: 1,
    }
    assert of.mean_wait == pytest.approx(20.0333, abs=1e-3)
    assert of.longest_wait == 600.0
    assert of.mean_handling == 70.0
    assert of.service_level == pytest.approx(2 / 6)
    assert of.on_target is False


def test_the_target_decides() -> None:
    calls = [call(10.0), call(10.0), call(10.0), call(10.0), call(30.0)]
    assert figures(calls).on_target is True, "80 % is enough"
    assert figures([*calls, call(30.0)]).on_target is False
    assert figures([*calls, call(30.0)], Target(within=30.0)).service_level == 1.0
    gone = call(8.0, CallOutcome.ABANDONED)
    assert figures([call(), gone], Target(short=10.0)).service_level == 1.0
    assert figures([call(), gone]).service_level == 0.5


def test_where_nobody_was_there_are_no_figures() -> None:
    assert figures([]) == Figures()
    of = figures([call(1.0, CallOutcome.ABANDONED), call(0.0, CallOutcome.CLOSED)])
    assert (of.offered, of.service_level, of.on_target, of.mean_wait, of.mean_handling) == (1, None, None, None, None)


@given(st.lists(st.builds(call, st.floats(0, 1000), st.sampled_from(CallOutcome))))
def test_every_caller_counts_once(calls: list[CallRecord]) -> None:
    of = figures(calls)
    assert of.answered + of.abandoned + sum(of.sent_away.values()) == len(calls)
    assert of.offered == sum(record.outcome in OFFERED for record in calls)
    assert of.service_level is None or 0 <= of.service_level <= 1


def test_figures_of_an_agent() -> None:
    calls = [call(talked=10.0, wrap_up=1.0), call(talked=20.0), call(agent="bob"), call(9.0, CallOutcome.ABANDONED)]
    assert agent_figures(calls, ANN) == AgentFigures(2, 30.0, 1.0)
    assert agent_figures(calls, AgentName("cas")) == AgentFigures()


def test_quarters_of_a_day() -> None:
    day = dt.date(2026, 3, 10)
    calls = [call(arrived=NOON), call(arrived=NOON + 899.9), call(arrived=NOON + 900), call(arrived=NOON + 86400)]
    quarters = by_quarter(calls, day, AMSTERDAM)
    assert len(quarters) == 96
    assert {begin.strftime("%H:%M"): of.offered for begin, of in quarters if of.offered} == {"12:00": 2, "12:15": 1}


@pytest.mark.parametrize(
    ("day", "zone", "count", "shown"),
    [
        (dt.date(2026, 3, 29), "Europe/Amsterdam", 92, ["01:45", "03:00"]),
        (dt.date(2026, 10, 25), "Europe/Amsterdam", 100, ["01:45", "02:00", "02:15", "02:30", "02:45", "02:00"]),
        (dt.date(2026, 4, 5), "Australia/Lord_Howe", 98, []),
        (dt.date(2026, 9, 6), "America/Santiago", 92, []),  # midnight itself is skipped
    ],
)
def test_quarters_of_days_on_which_clocks_change(day: dt.date, zone: str, count: int, shown: list[str]) -> None:
    timezone = ZoneInfo(zone)
    start, end = day_bounds(day, timezone)
    calls = [call(arrived=start), call(arrived=end - 0.1), call(arrived=end), call(arrived=start - 0.1)]
    quarters = by_quarter(calls, day, timezone)
    assert len(quarters) == count
    assert [quarters[0][1].offered, quarters[-1][1].offered] == [1, 1]
    assert sum(of.offered for _, of in quarters) == 2
    assert {begin.date() for begin, _ in quarters} == {day}
    told = " ".join(begin.strftime("%H:%M") for begin, _ in quarters)
    assert " ".join(shown) in told


def test_days_and_queues() -> None:
    calls = [call(arrived=NOON + 86400), call(queue="taxes"), call(), call(30.0)]
    days = by_day(calls, AMSTERDAM, {MOVES: Target(within=60.0)})
    assert [(day.isoformat(), queue, of.answered_within) for day, queue, of in days] == [
        ("2026-03-10", "moves", 2), ("2026-03-10", "taxes", 1), ("2026-03-11", "moves", 1),
    ]  # fmt: skip


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter=";"))


def test_csv_of_records() -> None:
    moment = dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC).timestamp()
    [row] = rows(records_csv([call(10.6, arrived=moment, verified=False, wrap_up=2.0)], AMSTERDAM))
    assert row == {
        "arrived": "2026-10-25T02:30:00+02:00", "queue": "moves", "purpose": "report_move", "verified": "no",
        "outcome": "answered", "waited": "11", "agent": "ann", "talked": "60", "wrap_up": "2", "call": "call",
    }  # fmt: skip
    [row] = rows(records_csv([call(outcome=CallOutcome.FULL)], AMSTERDAM))
    assert row["agent"] == ""


def test_csv_of_days() -> None:
    calls = [call(10.0), call(99.0), call(7.0, CallOutcome.ABANDONED), call(0.0, CallOutcome.CLOSED)]
    first, second = rows(daily_csv([*calls, call(2.0, CallOutcome.ABANDONED, queue="taxes")], AMSTERDAM, {}))
    assert first == {
        "day": "2026-03-10", "queue": "moves", "offered": "3", "answered": "2", "answered_within": "1",
        "abandoned": "1", "abandoned_short": "0", "full": "0", "closed": "1", "unstaffed": "0", "too_long": "0",
        "left": "0", "mean_wait": "54", "longest_wait": "99", "mean_handling": "60", "service_level": "33",
    }  # fmt: skip
    assert (second["longest_wait"], second["mean_wait"], second["service_level"]) == ("2", "", "")


@pytest.mark.parametrize("name", ["=1+1", "+31", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\uff1d1", '=1";\n'])
def test_no_cell_is_a_formula(name: str) -> None:
    [row] = rows(records_csv([call(agent=name)], AMSTERDAM))
    assert row["agent"] == f"'{name}"


# Today


class FakeHistory:
    """Keeps records in memory; fails as long as ``failing``."""

    def __init__(self, *kept: CallRecord) -> None:
        self.kept = list(kept)
        self.failing = False
        self.tried = 0
        self.forgotten: list[float] = []

    async def keep_call(self, record: CallRecord) -> None:
        await asyncio.sleep(0.001)
        self.tried += 1
        if self.failing:
            raise OSError("disk full")
        self.kept.append(record)

    async def calls(self, since: float, until: float, queue: str | None = None) -> list[CallRecord]:
        return [record for record in self.kept if since <= record.arrived < until and queue in (None, record.queue)]

    async def forget_calls(self, before: float) -> int:
        self.forgotten.append(before)
        return 1


class Scene:
    """Statistics in virtual time; noon is at the loop's 0."""

    def __init__(self, *kept: CallRecord) -> None:
        self.history = FakeHistory(*kept)
        self.statistics = Statistics(self.history, self.clock, AMSTERDAM)
        self.changes = 0
        self.statistics.on_change(self.count)

    def clock(self) -> float:
        return NOON + asyncio.get_running_loop().time()

    def count(self) -> None:
        self.changes += 1


def run(story: Callable[[Scene], Coroutine[None, None, None]], *kept: CallRecord) -> None:
    """Tell a story while the statistics are running."""

    async def told() -> None:
        scene = Scene(*kept)
        running = asyncio.create_task(scene.statistics.run())
        try:
            await story(scene)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    virtualtime.run(told())


def test_a_call_counts_at_once_and_is_stored_beside_it() -> None:
    async def story(scene: Scene) -> None:
        statistics = scene.statistics
        assert statistics.today(MOVES) == Figures()
        statistics.ended(call())
        assert statistics.today(MOVES).answered == 1
        assert statistics.today(MOVES, Target(within=1.0)).answered_within == 0
        assert statistics.today(QueueName("taxes")).answered == 0
        assert statistics.agent_today(ANN) == AgentFigures(1, 60.0, 0.0)
        assert (scene.changes, scene.history.kept) == (1, [])
        await asyncio.sleep(1)
        assert scene.history.kept == [call()]
        statistics.ended(call(wrap_up=9.0))
        assert statistics.agent_today(ANN) == AgentFigures(1, 60.0, 9.0), "the same call, with its wrap-up"
        assert statistics.today(MOVES).offered == 1
        statistics.missed(ANN)
        assert statistics.day(ANN) == Day(1, 60.0, 1)
        assert statistics.day(BOB) == Day()

    run(story)


def test_a_wrap_up_is_added_to_the_call_that_it_followed() -> None:
    async def story(scene: Scene) -> None:
        first, last = call(arrived=NOON - 500.0, talked=100.0), call(call="last", arrived=NOON - 90.0, talked=80.0)
        for record in (first, last):
            scene.statistics.ended(record)
        scene.statistics.wrapped_up(ANN, NOON + 0.2, NOON + 25.2)
        assert scene.statistics.agent_today(ANN) == AgentFigures(2, 180.0, about(25.0))
        # Of a call that a colleague has now, of which there is no record yet; and of somebody who had none.
        scene.statistics.wrapped_up(ANN, NOON + 60.0, NOON + 70.0)
        scene.statistics.wrapped_up(BOB, NOON + 60.0, NOON + 70.0)
        assert scene.statistics.agent_today(ANN).wrap_up == pytest.approx(25.0)
        await asyncio.sleep(1.0)
        assert [record.wrap_up for record in scene.history.kept if record.call == "last"][-1] == pytest.approx(25.0)

    run(story)


def test_a_start_reads_what_today_has_brought() -> None:
    async def story(scene: Scene) -> None:
        scene.statistics.ended(call(wrap_up=5.0))
        await scene.statistics.load()
        assert scene.statistics.today(MOVES).offered == 2
        assert scene.statistics.agent_today(ANN).wrap_up == 5.0, "what came in meanwhile is newer"

    run(story, call(), call(call="other"), call(call="yesterday", arrived=NOON - 86400))


def test_a_day_ends_at_local_midnight() -> None:
    async def story(scene: Scene) -> None:
        statistics = scene.statistics
        statistics.ended(call())
        statistics.missed(ANN)
        changes = scene.changes
        await asyncio.sleep(12 * 3600 - 1)
        assert (statistics.today(MOVES).offered, scene.changes) == (1, changes)
        await asyncio.sleep(2)
        assert scene.changes == changes + 1, "dashboards are told although nobody calls"
        assert statistics.today(MOVES) == Figures()
        assert statistics.day(ANN) == Day()
        statistics.ended(call(call="late", arrived=NOON + 12 * 3600 - 5))
        assert statistics.today(MOVES) == Figures(), "who arrived yesterday counts for yesterday"
        statistics.ended(call(call="new", arrived=NOON + 12 * 3600 + 1))
        assert statistics.today(MOVES).offered == 1
        await asyncio.sleep(1)
        assert len(scene.history.kept) == 3

    run(story)


def test_a_history_that_fails_is_tried_again_and_told_once() -> None:
    async def story(scene: Scene) -> None:
        scene.history.failing = True
        with capture_logs() as lines:
            scene.statistics.ended(call())
            scene.statistics.ended(call(call="second"))
            await asyncio.sleep(200)
            assert scene.statistics.today(MOVES).offered == 2
            assert 6 <= scene.history.tried <= 9, "with growing pauses"
            scene.history.failing = False
            await asyncio.sleep(61)
        assert [record.call for record in scene.history.kept] == ["call", "second"]
        assert [(line["log_level"], line["event"]) for line in lines] == [
            ("error", "record of a call not written, trying again"),
            ("info", "records of calls are written again"),
        ]
        assert lines[0]["reason"] == "disk full"

    run(story)


def test_a_history_that_stays_away_costs_records_but_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNWRITTEN", 3)

    async def story(scene: Scene) -> None:
        scene.history.failing = True
        with capture_logs() as lines:
            for number in range(5):
                scene.statistics.ended(call(call=str(number)))
        assert [line["call"] for line in lines] == ["3", "4"]
        assert scene.statistics.today(MOVES).offered == 5

    run(story)


def test_a_stop_writes_what_is_left() -> None:
    async def told() -> None:
        scene = Scene()
        running = asyncio.create_task(scene.statistics.run())
        scene.statistics.ended(call())
        await asyncio.sleep(0.0005)  # in the middle of the write
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        scene.statistics.ended(call(9.0, CallOutcome.LEFT, call="left"))
        await scene.statistics.flush()
        assert [record.call for record in scene.history.kept] == ["call", "left"]
        scene.history.failing = True
        scene.statistics.ended(call())
        with capture_logs() as lines:
            await scene.statistics.flush()
        assert (lines[0]["event"], lines[0]["calls"]) == ("records of calls lost", 1)

    virtualtime.run(told())


def test_old_records_are_deleted_by_whole_days() -> None:
    async def story(scene: Scene) -> None:
        assert await scene.statistics.purge(2) == 1
        [before] = scene.history.forgotten
        assert dt.datetime.fromtimestamp(before, AMSTERDAM).isoformat() == "2026-03-08T00:00:00+01:00"

    run(story)
