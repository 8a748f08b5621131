"""Opening hours as a citizen reads them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from babel.dates import format_date, format_time, get_day_names

from idbellen.domain.hours import MIDNIGHT, WHOLE_DAY
from idbellen.domain.languages import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from idbellen.domain.hours import Interval, OpeningHours
    from idbellen.domain.languages import Language

# So far ahead special days are told.
SPECIAL_DAYS = 14


@dataclass(frozen=True, slots=True)
class Day:
    """One day's name or date with its intervals, each as start and end; without any it is closed.

    An interval without start and end is the whole day.
    """

    name: str
    intervals: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class HoursView:
    """The hours of a queue: the next opening as date and time, if there is one, the week, and special days ahead."""

    opening: tuple[str, str] | None
    week: list[Day]
    special: list[Day]


def hours_view(hours: OpeningHours, now: float, language: Language) -> HoursView:
    """Write opening hours in a language, as they are at a moment (epoch seconds)."""
    locale = LANGUAGES[language].locale
    opening = hours.next_opening(now)
    names = get_day_names("wide", "stand-alone", locale)
    week = [Day(names[number], _intervals(hours.week.get(number, ()), locale)) for number in range(7)]
    today = dt.datetime.fromtimestamp(now, hours.timezone).date()
    last = today + dt.timedelta(days=SPECIAL_DAYS)
    special = [
        Day(_date(day, locale), _intervals(intervals, locale))
        for day, intervals in sorted(hours.special.items())
        if today <= day <= last
    ]
    return HoursView((_date(opening, locale), _time(opening, locale)) if opening else None, week, special)


def clock_time(moment: float, hours: OpeningHours, language: Language) -> str:
    """Give the time of day of a moment (epoch seconds) where these hours hold."""
    return _time(dt.datetime.fromtimestamp(moment, hours.timezone), LANGUAGES[language].locale)


def _intervals(intervals: Iterable[Interval], locale: str) -> list[tuple[str, str]]:
    return [
        ("", "") if each == WHOLE_DAY else (_time(each.start, locale), _end(each.end, locale)) for each in intervals
    ]


def _end(time: dt.time, locale: str) -> str:
    return "24:00" if time == MIDNIGHT else _time(time, locale)


def _date(day: dt.date, locale: str) -> str:
    return format_date(day, "EEEE d MMMM", locale)


def _time(time: dt.time | dt.datetime, locale: str) -> str:
    return format_time(time, "short", locale=locale)
