"""Figures about calls: per queue and period, per quarter-hour, per day and per agent; and the same as CSV.

Pure. Moments go in as epoch seconds and lengths as seconds; days and quarters are those of a time zone.
"""

from __future__ import annotations

import csv
import datetime as dt
import enum
import io
from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zoneinfo
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from idbellen.domain.ids import AgentName, CallId, QueueName

QUARTER_SECONDS = 900
# What a Dutch spreadsheet splits at, where a comma is the decimal point.
SEPARATOR = ";"
# A cell that begins with one of these is a formula to some spreadsheet, the wide ones too.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


class CallOutcome(enum.Enum):
    """How a caller's time in a queue ended. The value is what the store and the exports say."""

    ANSWERED = "answered"
    ABANDONED = "abandoned"  # the caller hung up
    FULL = "full"
    CLOSED = "closed"
    UNSTAFFED = "unstaffed"
    TOO_LONG = "too_long"
    LEFT = "left"  # moved to elsewhere, or sent to the plain queue after a fault of ours


# Those who came into the queue; the others were sent away at its door.
OFFERED = frozenset({CallOutcome.ANSWERED, CallOutcome.ABANDONED, CallOutcome.TOO_LONG, CallOutcome.LEFT})
SENT_AWAY = tuple(outcome for outcome in CallOutcome if outcome not in (CallOutcome.ANSWERED, CallOutcome.ABANDONED))


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What is kept of a caller's time in one queue: nothing of the citizen.

    ``call`` is the call's meaningless name, ``arrived`` is in epoch seconds; ``waited``, ``talked`` and ``wrap_up``
    are in seconds. A caller who is moved has a record in each queue.
    """

    call: CallId
    queue: QueueName
    purpose: str
    verified: bool
    arrived: float
    waited: float
    outcome: CallOutcome
    agent: AgentName | None = None
    talked: float = 0.0
    wrap_up: float = 0.0

    @property
    def identity(self) -> tuple[CallId, QueueName, float]:
        """What no two records have in common."""
        return self.call, self.queue, self.arrived

    @property
    def handling(self) -> float:
        """How long the agent was busy with the call, in seconds."""
        return self.talked + self.wrap_up


@dataclass(frozen=True, slots=True)
class Target:
    """The service level that is aimed at: a ``share`` of the callers answered ``within`` so many seconds.

    Who hangs up before ``short`` seconds may have misdialled and does not count.
    """

    within: float = 25.0
    share: float = 0.8
    short: float = 5.0


DEFAULT_TARGET = Target()


@dataclass(frozen=True, slots=True)
class Figures:
    """What callers of a queue met in a period; lengths in seconds, None where there was nobody.

    ``offered`` counts who came into the queue, ``answered_within`` who was answered in the target's time,
    ``abandoned`` all who hung up in it and ``abandoned_short`` those of them who did so at once; ``sent_away`` the
    others by outcome, of whom too_long and left were in the queue. ``mean_wait`` is of those who were answered,
    ``longest_wait`` of all who came in, ``mean_handling`` of talk and wrap-up together. ``on_target`` says whether
    the service level is reached.
    """

    offered: int = 0
    answered: int = 0
    answered_within: int = 0
    abandoned: int = 0
    abandoned_short: int = 0
    sent_away: Mapping[CallOutcome, int] = field(default_factory=dict)
    mean_wait: float | None = None
    longest_wait: float | None = None
    mean_handling: float | None = None
    service_level: float | None = None
    on_target: bool | None = None


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """What an agent did in a period; lengths in seconds."""

    calls: int = 0
    talked: float = 0.0
    wrap_up: float = 0.0


def figures(records: Iterable[CallRecord], target: Target = DEFAULT_TARGET) -> Figures:
    """Count records.

    The service level is those answered within the target, divided by all who came into the queue and did not hang up
    at once. A caller who was moved out or waited too long counts as not answered: moving callers improves nothing.
    """
    records = list(records)
    counts = Counter(record.outcome for record in records)
    entered = [record for record in records if record.outcome in OFFERED]
    answered = [record for record in entered if record.outcome is CallOutcome.ANSWERED]
    within = sum(record.waited <= target.within for record in answered)
    short = sum(record.outcome is CallOutcome.ABANDONED and record.waited < target.short for record in entered)
    counted = len(entered) - short
    level = within / counted if counted else None
    return Figures(
        offered=len(entered),
        answered=len(answered),
        answered_within=within,
        abandoned=counts[CallOutcome.ABANDONED],
        abandoned_short=short,
        sent_away={outcome: counts[outcome] for outcome in SENT_AWAY if counts[outcome]},
        mean_wait=fmean(record.waited for record in answered) if answered else None,
        longest_wait=max((record.waited for record in entered), default=None),
        mean_handling=fmean(record.handling for record in answered) if answered else None,
        service_level=level,
        on_target=None if level is None else level >= target.share,
    )


def agent_figures(records: Iterable[CallRecord], agent: AgentName) -> AgentFigures:
    """Count the calls of one agent."""
    own = [record for record in records if record.agent == agent and record.outcome is CallOutcome.ANSWERED]
    return AgentFigures(len(own), sum(record.talked for record in own), sum(record.wrap_up for record in own))


def day_of(moment: float, timezone: zoneinfo.ZoneInfo) -> dt.date:
    """Give the local date of a moment (epoch seconds)."""
    return dt.datetime.fromtimestamp(moment, timezone).date()


def day_bounds(day: dt.date, timezone: zoneinfo.ZoneInfo) -> tuple[float, float]:
    """Give the moments (epoch seconds) at which a local day begins and the next one does."""
    following = day + dt.timedelta(days=1)
    start, end = (dt.datetime.combine(date, dt.time.min, timezone).timestamp() for date in (day, following))
    return start, end


def by_quarter(
    records: Iterable[CallRecord], day: dt.date, timezone: zoneinfo.ZoneInfo, target: Target = DEFAULT_TARGET
) -> list[tuple[dt.datetime, Figures]]:
    """Give the figures of each quarter-hour of a local day, with its begin, by arrival.

    There are 96, but 92 on the day that loses an hour and 100 on the day that gains one.
    """
    start, end = day_bounds(day, timezone)
    quarters: dict[int, list[CallRecord]] = {begin: [] for begin in range(int(start), int(end), QUARTER_SECONDS)}
    for record in records:
        if start <= record.arrived < end:
            quarters[int(start + (record.arrived - start) // QUARTER_SECONDS * QUARTER_SECONDS)].append(record)
    return [(dt.datetime.fromtimestamp(begin, timezone), figures(within, target)) for begin, within in quarters.items()]


def by_day(
    records: Iterable[CallRecord], timezone: zoneinfo.ZoneInfo, targets: Mapping[QueueName, Target]
) -> list[tuple[dt.date, QueueName, Figures]]:
    """Give the figures of each local day and queue that has records, in order.

    ``targets`` holds those of the queues that have one of their own.
    """
    found: dict[tuple[dt.date, QueueName], list[CallRecord]] = {}
    for record in records:
        found.setdefault((day_of(record.arrived, timezone), record.queue), []).append(record)
    return [
        (day, queue, figures(found[day, queue], targets.get(queue, DEFAULT_TARGET))) for day, queue in sorted(found)
    ]


def total(parts: Iterable[Figures]) -> Figures:
    """Add up figures of several queues, each counted by its own target.

    Whether the sum is on target is not said: the targets may differ.
    """
    parts = list(parts)
    offered = sum(part.offered for part in parts)
    answered = sum(part.answered for part in parts)
    within = sum(part.answered_within for part in parts)
    short = sum(part.abandoned_short for part in parts)
    sent_away = {outcome: sum(part.sent_away.get(outcome, 0) for part in parts) for outcome in SENT_AWAY}
    return Figures(
        offered=offered,
        answered=answered,
        answered_within=within,
        abandoned=sum(part.abandoned for part in parts),
        abandoned_short=short,
        sent_away={outcome: count for outcome, count in sent_away.items() if count},
        mean_wait=_mean(parts, lambda part: part.mean_wait),
        longest_wait=max((part.longest_wait for part in parts if part.longest_wait is not None), default=None),
        mean_handling=_mean(parts, lambda part: part.mean_handling),
        service_level=within / (offered - short) if offered > short else None,
    )


def quarters(
    records: Sequence[CallRecord], day: dt.date, timezone: zoneinfo.ZoneInfo, targets: Mapping[QueueName, Target]
) -> list[tuple[dt.datetime, Figures]]:
    """Give the figures of each quarter-hour of a day, of all queues in the records together."""
    by_queue: dict[QueueName, list[CallRecord]] = {}
    for record in records:
        by_queue.setdefault(record.queue, []).append(record)
    own = [by_quarter(found, day, timezone, targets.get(queue, DEFAULT_TARGET)) for queue, found in by_queue.items()]
    empty = by_quarter([], day, timezone)
    return [(begin, total(each[number][1] for each in own)) for number, (begin, _) in enumerate(empty)]


def _mean(parts: Sequence[Figures], of: Callable[[Figures], float | None]) -> float | None:
    """Weigh means by how many were answered."""
    known = [(value, part.answered) for part in parts if (value := of(part)) is not None]
    if not known:
        return None
    return sum(value * answered for value, answered in known) / sum(answered for _, answered in known)


def records_csv(records: Iterable[CallRecord], timezone: zoneinfo.ZoneInfo) -> str:
    """Give records as CSV with a header: local times with their offset, whole seconds."""
    header = (
        "arrived", "queue", "purpose", "verified", "outcome", "waited", "agent", "talked", "wrap_up", "call",
    )  # fmt: skip
    return _csv(
        header,
        (
            (
                dt.datetime.fromtimestamp(record.arrived, timezone).isoformat(timespec="seconds"),
                record.queue,
                record.purpose,
                "yes" if record.verified else "no",
                record.outcome.value,
                round(record.waited),
                record.agent,
                round(record.talked),
                round(record.wrap_up),
                record.call,
            )
            for record in records
        ),
    )


def daily_csv(records: Iterable[CallRecord], timezone: zoneinfo.ZoneInfo, targets: Mapping[QueueName, Target]) -> str:
    """Give the figures of :func:`by_day` as CSV with a header: whole seconds, the service level in whole percent.

    A cell is empty where there was nobody.
    """
    header = (
        "day", "queue", "offered", "answered", "answered_within", "abandoned", "abandoned_short",
        *(outcome.value for outcome in SENT_AWAY),
        "mean_wait", "longest_wait", "mean_handling", "service_level",
    )  # fmt: skip
    return _csv(
        header,
        (
            (
                day.isoformat(),
                queue,
                of.offered,
                of.answered,
                of.answered_within,
                of.abandoned,
                of.abandoned_short,
                *(of.sent_away.get(outcome, 0) for outcome in SENT_AWAY),
                _whole(of.mean_wait),
                _whole(of.longest_wait),
                _whole(of.mean_handling),
                _whole(None if of.service_level is None else 100 * of.service_level),
            )
            for day, queue, of in by_day(records, timezone, targets)
        ),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _csv(header: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=SEPARATOR)
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: str | int | None) -> str | int | None:
    """Let no spreadsheet take a text for a formula."""
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(_FORMULA) else value
