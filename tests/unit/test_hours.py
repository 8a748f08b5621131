"""Opening hours: what is read, and what they come to when clocks change."""

import datetime as dt
import itertools
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from idbellen.domain.hours import MIDNIGHT, WHOLE_DAY, Interval, OpeningHours, parse_day

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
OFFICE = OpeningHours(
    dict.fromkeys(range(5), parse_day("09:00-12:30, 13:30-17:00")),
    {dt.date(2026, 4, 27): (), dt.date(2026, 5, 2): parse_day("10:00-12:00")},
    AMSTERDAM,
)
SPRING, AUTUMN = dt.date(2026, 3, 29), dt.date(2026, 10, 25)
DAY = 86400


def at(text: str, timezone: ZoneInfo = AMSTERDAM) -> float:
    """Epoch seconds of a local time, or of one with an offset."""
    moment = dt.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone)).timestamp()


def on(day: dt.date, text: str, timezone: ZoneInfo = AMSTERDAM) -> OpeningHours:
    return OpeningHours({}, {day: parse_day(text)}, timezone)


def openings(hours: OpeningHours, since: float) -> list[tuple[str, str]]:
    """All openings after a moment, in UTC."""
    found = []
    while (start := hours.next_opening(since)) is not None:
        end = hours.closing(start.timestamp())
        assert end is not None
        found.append((f"{start.astimezone(dt.UTC):%d %H:%M}", f"{dt.datetime.fromtimestamp(end, dt.UTC):%d %H:%M}"))
        since = start.timestamp()
    return found


def test_a_day_is_read() -> None:
    nine, half_past_twelve, six = dt.time(9), dt.time(12, 30), dt.time(18)
    assert parse_day("09:00-12:30,18:00 - 24:00 ") == (Interval(nine, half_past_twelve), Interval(six, MIDNIGHT))
    assert parse_day("09:00-12:30, 12:30-18:00") == (Interval(nine, half_past_twelve), Interval(half_past_twelve, six))
    assert parse_day("00:00-24:00") == (WHOLE_DAY,)
    assert parse_day(" closed ") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", '"" is not an interval such as'),
        ("09:00-12:30,", '"" is not an interval such as'),
        ("09:00-12:30, closed", '"closed" is not an interval such as'),
        ("9:00-12:30", '"9:00-12:30" is not an interval such as'),
        ("09:00-12:60", "is not an interval such as"),
        ("09:00-24:01", "is not an interval such as"),
        ("24:00-24:00", "is not an interval such as"),
        ("٠٩:00-12:30", "is not an interval such as"),
        ("09:00-09:00", "the interval 09:00-09:00 does not end after it begins"),
        ("12:30-09:00", "the interval 12:30-09:00 does not end after it begins"),
        ("09:00-00:00", "the end of a day is 24:00"),
        ("09:00-12:30, 12:00-17:00", "the interval 12:00-17:00 begins before the one in front of it has ended"),
        ("13:00-17:00, 09:00-12:30", "the interval 09:00-12:30 begins before"),
        ("13:00-24:00, 23:00-24:00", "the interval 23:00-24:00 begins before"),
    ],
)
def test_a_day_that_cannot_be_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_day(text)


def test_an_interval_begins_in_its_first_moment_and_has_ended_in_its_last() -> None:
    assert not OFFICE.open_at(at("2026-03-02T09:00") - 0.001)
    assert OFFICE.open_at(at("2026-03-02T09:00"))
    assert OFFICE.open_at(at("2026-03-02T12:30") - 0.001)
    assert not OFFICE.open_at(at("2026-03-02T12:30"))


def test_the_next_opening_after_lunch_after_a_weekend_and_while_open() -> None:
    for now, following in [
        ("2026-03-06T12:45", "2026-03-06T13:30"),
        ("2026-03-06T17:00", "2026-03-09T09:00"),
        ("2026-03-06T09:00", "2026-03-06T13:30"),
    ]:
        opening = OFFICE.next_opening(at(now))
        assert opening == dt.datetime.fromisoformat(following).replace(tzinfo=AMSTERDAM)
        assert opening.tzinfo is AMSTERDAM


def test_a_special_day_replaces_the_weekdays_hours() -> None:
    assert not OFFICE.open_at(at("2026-04-27T10:00")), "a Monday"
    assert OFFICE.open_at(at("2026-05-02T10:00")), "a Saturday"
    assert OFFICE.closing(at("2026-05-02T11:00")) == at("2026-05-02T12:00")


def test_closing() -> None:
    assert OFFICE.closing(at("2026-03-02T10:00")) == at("2026-03-02T12:30")
    assert OFFICE.closing(at("2026-03-02T12:45")) is None


def test_intervals_that_touch_are_one_opening() -> None:
    hours = OpeningHours({0: parse_day("20:00-22:00, 22:00-24:00"), 1: parse_day("00:00-02:00")}, {}, AMSTERDAM)
    assert hours.closing(at("2026-03-02T21:00")) == at("2026-03-03T02:00")
    following = hours.next_opening(at("2026-03-02T21:00"))
    assert following is not None
    assert following.timestamp() == at("2026-03-09T20:00")


def test_what_never_opens_and_what_never_closes() -> None:
    now = at("2026-03-02T10:00")
    always, never = OpeningHours.always(AMSTERDAM), OpeningHours({}, {}, AMSTERDAM)
    assert always.open_at(now)
    assert not never.open_at(now)
    assert [hours.closing(now) for hours in (always, never)] == [None, None]
    assert [hours.next_opening(now) for hours in (always, never)] == [None, None]


def test_nothing_is_looked_for_after_400_days() -> None:
    soon = on(dt.date(2027, 4, 6), "10:00-12:00")
    assert soon.next_opening(at("2026-03-02T10:00")) is not None
    assert soon.next_opening(at("2026-03-01T10:00")) is None
    until = OpeningHours(OpeningHours.always(AMSTERDAM).week, {dt.date(2027, 4, 6): ()}, AMSTERDAM)
    assert until.closing(at("2026-03-02T00:00")) == at("2027-04-06T00:00")
    assert until.closing(at("2026-02-28T00:00")) is None


@pytest.mark.parametrize(
    ("day", "text", "expected"),
    [
        # Spring: at 01:00 UTC the clock goes from 02:00 to 03:00.
        (SPRING, "01:30-03:30", [("29 00:30", "29 01:30")]),
        (SPRING, "02:30-09:00", [("29 01:00", "29 07:00")]),
        (SPRING, "01:30-02:30", [("29 00:30", "29 01:00")]),
        (SPRING, "02:15-02:45", []),
        (SPRING, "01:00-02:15, 02:45-04:00", [("29 00:00", "29 02:00")]),
        (SPRING, "00:00-24:00", [("28 23:00", "29 22:00")]),
        # Autumn: at 01:00 UTC the clock goes from 03:00 to 02:00.
        (AUTUMN, "01:30-03:30", [("24 23:30", "25 02:30")]),
        (AUTUMN, "02:30-09:00", [("25 00:30", "25 08:00")]),
        (AUTUMN, "01:30-02:30", [("24 23:30", "25 00:30")]),
        (AUTUMN, "02:00-03:00", [("25 00:00", "25 02:00")]),
        (AUTUMN, "02:15-02:45", [("25 00:15", "25 00:45")]),
        (AUTUMN, "00:00-24:00", [("24 22:00", "25 23:00")]),
    ],
)
def test_when_the_clock_changes(day: dt.date, text: str, expected: list[tuple[str, str]]) -> None:
    assert openings(on(day, text), at(f"{day - dt.timedelta(days=2)}T12:00")) == expected


def test_office_hours_stay_at_the_same_local_time() -> None:
    for friday, monday in [("2026-03-27", "2026-03-30"), ("2026-10-23", "2026-10-26")]:
        following = OFFICE.next_opening(at(f"{friday}T18:00"))
        assert following is not None
        assert following.isoformat()[:16] == f"{monday}T09:00"


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        # At 00:00 the clock went to 01:00, and back from 00:00 to 23:00 of the day before.
        ("America/Sao_Paulo", dt.date(2018, 11, 4), [("04 03:00", "05 02:00")]),
        ("America/Sao_Paulo", dt.date(2018, 2, 17), [("17 02:00", "18 03:00")]),
        ("America/Sao_Paulo", dt.date(2018, 2, 18), [("18 03:00", "19 03:00")]),
        # Samoa had no 30 December.
        ("Pacific/Apia", dt.date(2011, 12, 30), []),
    ],
)
def test_clocks_that_change_at_midnight(zone: str, day: dt.date, expected: list[tuple[str, str]]) -> None:
    timezone = ZoneInfo(zone)
    since = at(f"{day - dt.timedelta(days=2)}T12:00", timezone)
    assert openings(on(day, "00:00-24:00", timezone), since) == expected


def intervals_of(minutes: set[int]) -> tuple[Interval, ...]:
    times = [dt.time(minute // 60 % 24, minute % 60) for minute in sorted(minutes)]
    return tuple(itertools.starmap(Interval, zip(times[::2], times[1::2], strict=False)))


# Early hours are drawn often, because clocks change then.
MINUTES = st.one_of(st.integers(0, 1440), st.integers(0, 240), st.sampled_from([0, 1440]))
DAYS = st.sets(MINUTES, max_size=6).map(intervals_of)
NEAR_CHANGES = st.tuples(st.sampled_from([SPRING, AUTUMN]), st.integers(-3, 3)).map(
    lambda drawn: drawn[0] + dt.timedelta(days=drawn[1])
)
HOURS = st.builds(
    OpeningHours,
    st.dictionaries(st.integers(0, 6), DAYS),
    st.dictionaries(NEAR_CHANGES, DAYS, max_size=4),
    st.sampled_from([AMSTERDAM, ZoneInfo("America/Sao_Paulo"), ZoneInfo("UTC")]),
)
MOMENTS = st.tuples(
    st.sampled_from([at("2018-02-17T12:00"), at(f"{SPRING}T01:00"), at(f"{AUTUMN}T01:00")]),
    st.integers(-3 * DAY, 3 * DAY),
).map(sum)
PARTS = st.floats(0, 0.999)


@given(HOURS, MOMENTS, PARTS)
def test_it_opens_at_the_next_opening_and_not_before(hours: OpeningHours, now: float, part: float) -> None:
    following = hours.next_opening(now)
    assume(following is not None)
    assert following is not None
    start = following.timestamp()
    assert start > now
    assert hours.open_at(start)
    assert not hours.open_at(start - 0.001)
    if not hours.open_at(now):
        assert not hours.open_at(now + part * (start - now))


@given(HOURS, MOMENTS, PARTS)
def test_closing_is_the_first_moment_that_is_not_open(hours: OpeningHours, now: float, part: float) -> None:
    end = hours.closing(now)
    if end is None:
        assert not hours.open_at(now) or hours.open_at(now + part * 400 * DAY)
    else:
        assert hours.open_at(now + part * (end - now))
        assert hours.open_at(end - 0.001)
        assert not hours.open_at(end)


@given(HOURS, MOMENTS)
def test_on_a_day_on_which_no_clock_changes_the_clock_decides(hours: OpeningHours, now: float) -> None:
    local = dt.datetime.fromtimestamp(now, hours.timezone)
    offsets = {dt.datetime.fromtimestamp(now + days * DAY, hours.timezone).utcoffset() for days in (-1, 0, 1)}
    assume(len(offsets) == 1)
    today = hours.special.get(local.date(), hours.week.get(local.weekday(), ()))
    shown = [i for i in today if i.start <= local.time() and (i.end == MIDNIGHT or local.time() < i.end)]
    assert hours.open_at(now) == bool(shown)
