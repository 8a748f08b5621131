"""The figures of the wallboard and its chart, without anything around them."""

from __future__ import annotations

import datetime as dt
import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from idbellen.calls.desk import Desk, DeskRules
from idbellen.calls.staff import Staff, StaffRules
from idbellen.calls.statistics import Statistics
from idbellen.calls.wallboard import Wallboard
from idbellen.domain.board import CallView
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.domain.queueing import QueueRules, Queues, Ticket
from idbellen.domain.statistics import CallOutcome, CallRecord, Figures, Target, day_bounds, figures, quarters, total
from idbellen.ports import Account
from idbellen.web.messages import Titles, board_snapshot
from idbellen.web.wallboard.chart import HEIGHT, LEFT, RIGHT, WIDTH, chart
from tests.support.supervision import FakeStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ANNA = AgentName("anna")
CALL = CallId("call")
RESIDENTS, TAXES = QueueName("residents"), QueueName("taxes")
SESSION = SessionRef("session")

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
DAY = dt.date(2026, 3, 10)
START = day_bounds(DAY, AMSTERDAM)[0]
NOON = START + 12 * 3600.0
TITLES = Titles({"report_move": "Verhuizing"}, {RESIDENTS: "Burgerzaken"})
numbers = itertools.count()


def record(outcome: CallOutcome = CallOutcome.ANSWERED, **changes: object) -> CallRecord:
    values = {
        "call": f"call {next(numbers)}", "queue": "residents", "purpose": "report_move", "verified": True,
        "arrived": START + 9 * 3600, "waited": 10.0, "outcome": outcome, "talked": 100.0,
    }  # fmt: skip
    return CallRecord(**(values | changes))  # type: ignore[arg-type]


class Scene:
    """A desk at noon."""

    def __init__(self, scope: ExitStack) -> None:
        self.now = NOON
        self._scope = scope
        self.staff = Staff(lambda: self.now, StaffRules())
        self.figures = Statistics(FakeStore(), lambda: self.now, AMSTERDAM)
        rules = Queues({RESIDENTS: QueueRules(wrap_up=30.0), TAXES: QueueRules()})
        self.desk = Desk(lambda: self.now, self.staff, DeskRules(rules), self.figures)
        self.wallboard = Wallboard(self.desk, self.figures, {RESIDENTS: Target(), TAXES: Target(within=60.0)})

    def agent(self, name: str, *queues: str) -> None:
        served = dict.fromkeys(map(QueueName, queues), 0)
        account = Account(AgentName(name), f"PJSIP/{name}", "", queues=served)
        self._scope.enter_context(self.staff.present(account))
        self.staff.set_available(account.name)

    def caller(self, call: str, queue: QueueName = RESIDENTS, *, waited: float, verified: bool = True) -> None:
        ticket = Ticket(CallId(call), SESSION, "report_move", queue, self.now - waited, verified)
        self._scope.enter_context(self.desk.place(ticket))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    with ExitStack() as scope:
        yield Scene(scope)


async def test_a_queue_counts_its_own(scene: Scene) -> None:
    scene.caller("a", waited=90)
    scene.caller("b", waited=30, verified=False)
    scene.caller("c", TAXES, waited=10)
    scene.agent("anna", "residents")
    scene.agent("bert", "taxes")
    scene.agent("carla")
    scene.staff.pause(ANNA, "lunch")
    residents, taxes = scene.wallboard.board().queues
    assert (residents.name, residents.waiting, residents.longest_since) == ("residents", 2, NOON - 90)
    assert (taxes.waiting, taxes.longest_since) == (1, NOON - 10)
    assert residents.agents == {
        "available": 1, "ringing": 0, "in_call": 0, "wrap_up": 0, "paused": 1, "not_answering": 0,
    }  # fmt: skip
    assert sum(taxes.agents.values()) == 2
    assert taxes.target.within == 60.0


async def test_an_empty_board(scene: Scene) -> None:
    board = scene.wallboard.board()
    message = board_snapshot(board, TITLES, NOON)
    assert message["agents"] == message["callers"] == []
    assert message["total"]["longest_wait"] is None
    assert message["total"]["today"]["service_level"] is None
    assert message["queues"][0]["expected_wait"] is None, "nobody takes calls"
    assert (message["queues"][0]["title"], message["queues"][1]["title"]) == ("Burgerzaken", "taxes")


async def test_callers_stand_in_the_order_in_which_they_are_served(scene: Scene) -> None:
    scene.caller("a", waited=90, verified=False)
    scene.caller("b", waited=30)
    callers = board_snapshot(scene.wallboard.board(), TITLES, NOON)["callers"]
    assert [(caller["call"], caller["seconds"], caller["verified"]) for caller in callers] == [
        ("b", 30.0, True), ("a", 90.0, False),
    ]  # fmt: skip


async def test_the_expected_wait_goes_by_todays_calls(scene: Scene) -> None:
    scene.agent("anna", "residents")
    assert scene.wallboard.board().queues[0].expected == 0.0, "somebody is free"
    scene.caller("a", waited=5)
    assert scene.wallboard.board().queues[0].expected is None, "not known yet"
    scene.figures.ended(record(talked=100.0, wrap_up=20.0))
    assert scene.wallboard.board().queues[0].expected == pytest.approx(120.0)


async def test_an_agent_through_a_call(scene: Scene) -> None:
    scene.agent("anna", "residents")

    def shown() -> dict[str, object]:
        found: dict[str, object] = board_snapshot(scene.wallboard.board(), TITLES, scene.now)["agents"][0]
        return found

    ticket = Ticket(CALL, SESSION, "report_move", RESIDENTS, scene.now)
    reservation = scene.desk.reserve(ANNA, ticket)
    assert reservation
    assert shown()["state"] == "ringing"
    reservation.ringing()
    reservation.connect(CallView(CALL, SESSION, "report_move", RESIDENTS, scene.now, Secret("secret"), None))
    scene.staff.pause(ANNA, "")
    scene.now += 75
    assert shown() == {
        "name": "anna", "state": "in_call", "reason": "", "seconds": 75.0, "afterwards": "paused", "phone": "unknown",
        "queues": ["Burgerzaken"], "call": {"queue": "Burgerzaken", "purpose": "Verhuizing", "seconds": 75.0},
    }  # fmt: skip
    scene.staff.set_available(ANNA)
    reservation.release()
    assert (shown()["state"], shown()["call"]) == ("wrap_up", None)
    scene.staff.log_out_by_phone(ANNA)


async def test_who_is_being_offered_is_told(scene: Scene) -> None:
    scene.caller("a", waited=10)
    scene.agent("anna")
    reservation = scene.desk.reserve(ANNA, scene.desk.waiting[0])
    assert reservation
    assert scene.wallboard.board().callers[0].offered_to == ("anna",)
    reservation.release()
    assert scene.wallboard.board().callers[0].offered_to == ()


async def test_every_change_is_heard(scene: Scene) -> None:
    changes: tuple[Callable[[], None], ...] = (
        lambda: scene.agent("anna"),
        lambda: scene.staff.pause(ANNA, "lunch"),
        lambda: scene.caller("a", waited=0),
        lambda: scene.figures.ended(record()),
    )
    with scene.wallboard.watch() as watch:
        for change in changes:
            change()
            await watch.changed()


# Sums


def test_a_sum_of_queues_weighs_means_and_keeps_each_target() -> None:
    one = figures([record(waited=10.0), record(waited=20.0), record(CallOutcome.ABANDONED, waited=2.0)])
    other = figures([record(waited=50.0, talked=400.0), record(CallOutcome.FULL)], Target(within=60.0))
    both = total([one, other])
    assert (both.offered, both.answered, both.answered_within, both.abandoned, both.abandoned_short) == (4, 3, 3, 1, 1)
    assert both.sent_away == {CallOutcome.FULL: 1}
    assert both.service_level == 1.0
    assert both.mean_wait == pytest.approx(80 / 3)
    assert both.mean_handling == pytest.approx(200.0)
    assert both.longest_wait == 50.0
    assert total([]) == Figures()


def test_quarters_add_up_queues_by_their_own_targets() -> None:
    records = [record(waited=40.0), record(waited=40.0, queue="taxes"), record(arrived=START + 9 * 3600 + 900)]
    found = quarters(records, DAY, AMSTERDAM, {RESIDENTS: Target(), TAXES: Target(within=60.0)})
    assert len(found) == 96
    busy = [(f"{begin:%H:%M}", of.answered, of.service_level) for begin, of in found if of.offered]
    assert busy == [("09:00", 2, 0.5), ("09:15", 1, 1.0)]


# The chart


def test_an_empty_day_has_axes_and_nothing_else() -> None:
    drawn = chart(quarters([], DAY, AMSTERDAM, {}), Figures(), 80)
    assert not drawn.bars
    assert not drawn.rows
    assert [tick.label for tick in drawn.hours] == [f"{hour}:00" for hour in range(8, 18)]
    assert [tick.label for tick in drawn.counts] == ["0", "1", "2", "3", "4"]


def test_bars_are_stacked_in_proportion() -> None:
    outcomes = [CallOutcome.ANSWERED] * 5 + [CallOutcome.ABANDONED] * 2 + [CallOutcome.FULL]
    records = [record(outcome) for outcome in outcomes]
    drawn = chart(quarters(records, DAY, AMSTERDAM, {}), figures(records), 80)
    answered, abandoned, sent_away = drawn.bars
    assert [bar.kind for bar in drawn.bars] == ["answered", "abandoned", "sent_away"]
    assert answered.height / 5 == pytest.approx(sent_away.height, abs=0.02)
    assert abandoned.y + abandoned.height == pytest.approx(answered.y)
    assert sent_away.y + sent_away.height == pytest.approx(abandoned.y)
    assert all(LEFT <= bar.x <= WIDTH - RIGHT and 0 <= bar.y <= HEIGHT for bar in drawn.bars)
    [row] = drawn.rows
    assert (row.begin, row.answered, row.abandoned, row.sent_away, row.level) == ("09:00", 5, 2, 1, 71)


def test_the_line_is_not_drawn_across_quarters_without_callers() -> None:
    at = [START + 9 * 3600 + quarter * 900 for quarter in (0, 1, 2, 5, 8, 9)]
    records = [record(arrived=moment) for moment in at]
    drawn = chart(quarters(records, DAY, AMSTERDAM, {}), figures(records), 80)
    assert len(drawn.lines) == 2
    assert len(drawn.dots) == 6


def test_calls_at_night_widen_the_chart() -> None:
    records = [record(arrived=START + 60), record(arrived=START + 23.9 * 3600)]
    drawn = chart(quarters(records, DAY, AMSTERDAM, {}), figures(records), 80)
    assert (drawn.hours[0].label, drawn.hours[-1].label) == ("0:00", "22:00")
    assert len(drawn.bars) == 2


@pytest.mark.parametrize(("day", "quarters_of_it"), [(dt.date(2026, 3, 29), 92), (dt.date(2026, 10, 25), 100)])
def test_days_on_which_clocks_change(day: dt.date, quarters_of_it: int) -> None:
    start, end = day_bounds(day, AMSTERDAM)
    records = [record(arrived=start), record(arrived=end - 1)]
    by_quarter = quarters(records, day, AMSTERDAM, {})
    assert len(by_quarter) == quarters_of_it
    assert len(chart(by_quarter, figures(records), 80).bars) == 2
