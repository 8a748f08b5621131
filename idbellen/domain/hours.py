"""When a queue is open: hours by weekday and special days, in local time.

Pure: moments go in and come out as epoch seconds. A local time stands for the first moment at which the clock there
shows it or a later one. So what begins in the hour that spring skips begins when that hour would have begun, and what
ends in the hour that autumn repeats ends the first time: nothing opens twice.
"""

from __future__ import annotations

import bisect
import datetime as dt
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import zoneinfo
    from collections.abc import Iterator, Mapping

CLOSED = "closed"
MIDNIGHT = dt.time.min
LOOK_AHEAD_DAYS = 400

_ONE_DAY = dt.timedelta(days=1)
_INTERVAL = re.compile(r"((?:[01]\d|2[0-3]):[0-5]\d)\s*-\s*((?:[01]\d|2[0-3]):[0-5]\d|24:00)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Interval:
    """Opening hours from ``start`` until just before ``end``, in local time.

    An ``end`` of 00:00 is the midnight at the end of the day. :exc:`ValueError` if ``end`` is not after ``start``.
    """

    start: dt.time
    end: dt.time

    def __post_init__(self) -> None:
        if self.end != MIDNIGHT and self.end <= self.start:
            raise ValueError(f"the interval {self.start:%H:%M}-{self.end:%H:%M} does not end after it begins")


WHOLE_DAY = Interval(MIDNIGHT, MIDNIGHT)


def parse_day(text: str) -> tuple[Interval, ...]:
    """Read the hours of one day, such as ``09:00-12:30, 13:30-24:00``, or ``closed``.

    :exc:`ValueError` says what is wrong with a text that is anything else, or whose intervals are empty, overlap or
    are out of order.
    """
    if text.strip() == CLOSED:
        return ()
    intervals: list[Interval] = []
    for part in text.split(","):
        found = _INTERVAL.fullmatch(part.strip())
        if not found:
            raise ValueError(f'"{part.strip()}" is not an interval such as 09:00-12:30, nor is the day "{CLOSED}"')
        start, end = found.groups()
        if end == "00:00":
            raise ValueError(f"the interval {start}-{end} does not end after it begins; the end of a day is 24:00")
        interval = Interval(
            dt.time.fromisoformat(start),
            MIDNIGHT if end == "24:00" else dt.time.fromisoformat(end),
        )
        if intervals and (intervals[-1].end == MIDNIGHT or interval.start < intervals[-1].end):
            raise ValueError(f"the interval {start}-{end} begins before the one in front of it has ended")
        intervals.append(interval)
    return tuple(intervals)


@dataclass(frozen=True, slots=True)
class OpeningHours:
    """The hours of a queue.

    ``week`` holds the intervals of each weekday (0 is Monday; a weekday that is not there is closed), ``special`` those
    of days on which they replace the weekday's; both in order and without overlap, as from :func:`parse_day`.
    """

    week: Mapping[int, tuple[Interval, ...]]
    special: Mapping[dt.date, tuple[Interval, ...]]
    timezone: zoneinfo.ZoneInfo

    @classmethod
    def always(cls, timezone: zoneinfo.ZoneInfo) -> Self:
        """Give the hours of a queue that never closes."""
        return cls(dict.fromkeys(range(7), (WHOLE_DAY,)), {}, timezone)

    def open_at(self, now: float) -> bool:
        """Whether the queue is open at a moment (epoch seconds)."""
        start, _ = next(self._spans(now), (None, None))
        return start is not None and start <= now

    def next_opening(self, now: float) -> dt.datetime | None:
        """Give the first moment after ``now`` (epoch seconds) at which the queue opens, in its own timezone.

        An interval that begins where another ends opens nothing. None if the queue does not open within 400 days.
        """
        start = next((start for start, _ in self._openings(now) if start > now), None)
        if start is None or start > _horizon(now):
            return None
        return dt.datetime.fromtimestamp(start, self.timezone)

    def closing(self, now: float) -> float | None:
        """Give when the present opening ends (epoch seconds), over midnight where hours go on.

        None if the queue is closed at ``now`` (epoch seconds) or does not close within 400 days.
        """
        start, end = next(self._openings(now), (None, None))
        if start is None or end is None or start > now or end > _horizon(now):
            return None
        return end

    def _openings(self, now: float) -> Iterator[tuple[float, float]]:
        """Join the spans that touch."""
        begun = ended = -math.inf
        for start, end in self._spans(now):
            if start > ended:
                if begun < ended:
                    yield begun, ended
                begun = start
            ended = end
        if begun < ended:
            yield begun, ended

    def _spans(self, now: float) -> Iterator[tuple[float, float]]:
        """Give start and end of every interval that ends after ``now``, in order, to beyond the horizon."""
        today = dt.datetime.fromtimestamp(now, self.timezone).date()
        # From yesterday to tomorrow and beyond: a clock put back at midnight shows yesterday's date once more.
        for offset in range(-1, LOOK_AHEAD_DAYS + 2):
            day = today + dt.timedelta(days=offset)
            for interval in self.special.get(day, self.week.get(day.weekday(), ())):
                last_day = day + _ONE_DAY if interval.end == MIDNIGHT else day
                end = self._moment(last_day, interval.end)
                start = self._moment(day, interval.start)
                if start < end and now < end:
                    yield start, end

    def _moment(self, day: dt.date, time: dt.time) -> float:
        """Give the first moment (epoch seconds) at which the local clock shows this time or a later one."""
        wall = dt.datetime.combine(day, time)
        late = wall.replace(tzinfo=self.timezone).timestamp()
        if self._wall(late) == wall:
            return late
        # The clock skips this time: its two readings, with the offset before and after, lie around the jump.
        early = wall.replace(tzinfo=self.timezone, fold=1).timestamp()
        moments = range(int(early), int(late) + 1)
        return float(moments[bisect.bisect_left(moments, wall, key=self._wall)])

    def _wall(self, moment: float) -> dt.datetime:
        return dt.datetime.fromtimestamp(moment, self.timezone).replace(tzinfo=None, fold=0)


def _horizon(now: float) -> float:
    return now + LOOK_AHEAD_DAYS * _ONE_DAY.total_seconds()
