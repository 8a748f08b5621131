"""The chart of a day: what its SVG consists of, computed from figures by quarter-hour. No styles, no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    from idbellen.domain.statistics import Figures

# Units of the SVG's own; the page scales it.
WIDTH, HEIGHT = 960, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 52, 16, 34
# An ordinary day, for the axis to stay the same while the first calls come in.
FIRST_HOUR, LAST_HOUR = 8, 18
GAP = 1.5


@dataclass(frozen=True, slots=True)
class Bar:
    """One kind of calls in one quarter-hour."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis, at ``at`` along it."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Row:
    """A quarter-hour, for the table beside the chart; ``level`` in whole percent."""

    begin: str
    answered: int
    abandoned: int
    sent_away: int
    level: int | None


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything that the template draws. ``lines`` and ``dots`` are of the service level.

    ``rows`` are the quarter-hours with calls; ``answered``, ``abandoned`` and ``sent_away`` those of the day.
    """

    bars: tuple[Bar, ...]
    lines: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    hours: tuple[Tick, ...]
    counts: tuple[Tick, ...]
    percents: tuple[Tick, ...]
    target: Tick
    rows: tuple[Row, ...]
    answered: int
    abandoned: int
    sent_away: int
    level: int | None


def chart(quarters: Sequence[tuple[dt.datetime, Figures]], whole: Figures, target: int) -> Chart:
    """Lay out a day; ``whole`` are the figures of all of it, ``target`` is the service level's, in percent."""
    rows = [_row(begin, of) for begin, of in quarters]
    begin, end = _shown(quarters, rows)
    shown = rows[begin:end]
    most = _round_up(max((row.answered + row.abandoned + row.sent_away for row in shown), default=0))
    step = (WIDTH - LEFT - RIGHT) / len(shown)

    def high(share: float) -> float:
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 2)

    bars = []
    for number, row in enumerate(shown):
        below = 0
        for kind in ("answered", "abandoned", "sent_away"):
            count = getattr(row, kind)
            if count:
                top, foot = high((below + count) / most), high(below / most)
                x = round(LEFT + number * step + GAP, 2)
                bars.append(Bar(kind, x, top, round(step - 2 * GAP, 2), round(foot - top, 2)))
                below += count
    points = [
        None if row.level is None else (round(LEFT + (number + 0.5) * step, 2), high(row.level / 100))
        for number, row in enumerate(shown)
    ]
    hours = [
        Tick(round(LEFT + (number - begin) * step, 2), f"{moment.hour}:00")
        for number, (moment, _) in list(enumerate(quarters))[begin:end]
        if moment.minute == 0 and moment.hour % (1 if end - begin <= 4 * 14 else 2) == 0
    ]
    return Chart(
        bars=tuple(bars),
        lines=tuple(_lines(points)),
        dots=tuple(point for point in points if point),
        hours=tuple(hours),
        counts=tuple(Tick(high(part / 4), str(most * part // 4)) for part in range(5)),
        percents=tuple(Tick(high(part / 2), f"{50 * part}%") for part in range(3)),
        target=Tick(high(target / 100), f"{target}%"),
        rows=tuple(row for row in rows if row.answered or row.abandoned or row.sent_away),
        answered=whole.answered,
        abandoned=whole.abandoned,
        sent_away=sum(whole.sent_away.values()),
        level=_percent(whole.service_level),
    )


def _row(begin: dt.datetime, of: Figures) -> Row:
    level = _percent(of.service_level)
    return Row(f"{begin:%H:%M}", of.answered, of.abandoned, sum(of.sent_away.values()), level)


def _shown(quarters: Sequence[tuple[dt.datetime, Figures]], rows: Sequence[Row]) -> tuple[int, int]:
    """Give from which quarter to before which the chart goes: an ordinary day and all calls, in whole hours."""
    wanted = [
        number
        for number, ((begin, _), row) in enumerate(zip(quarters, rows, strict=True))
        if FIRST_HOUR <= begin.hour < LAST_HOUR or row.answered or row.abandoned or row.sent_away
    ]
    return wanted[0] // 4 * 4, wanted[-1] // 4 * 4 + 4


def _lines(points: Iterable[tuple[float, float] | None]) -> list[str]:
    """Give a line for each run of neighbours: nothing is drawn across quarters without callers."""
    runs: list[list[str]] = [[]]
    for point in points:
        if point:
            runs[-1].append(f"{point[0]},{point[1]}")
        elif runs[-1]:
            runs.append([])
    return [" ".join(run) for run in runs if len(run) > 1]


def _round_up(most: int) -> int:
    """Give the top of the axis, which four equal steps reach."""
    return max(4, -(-most // 4) * 4)


def _percent(share: float | None) -> int | None:
    return None if share is None else round(100 * share)
