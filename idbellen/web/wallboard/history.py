"""The supervisors' history: calls, waits and outcomes by queue and day, to look at and to take along as CSV."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from babel.dates import format_date

from idbellen.calls.audit import on_record
from idbellen.domain.ids import QueueName
from idbellen.domain.statistics import by_day, daily_csv, day_bounds, day_of, quarters, records_csv, total
from idbellen.web.wallboard.chart import chart

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from idbellen.domain.statistics import CallRecord, Figures
    from idbellen.web.wallboard.chart import Chart
    from idbellen.web.wallboard.site import Door, SupervisorSite

USUAL_DAYS = 7
# More calls than these make a page that nobody reads; the CSV file has all.
MOST_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Period:
    """Days from ``first`` up to and including ``last``, and one queue or, empty, all."""

    first: dt.date
    last: dt.date
    queue: QueueName

    def days(self) -> Iterator[dt.date]:
        """Give each day."""
        for number in range((self.last - self.first).days + 1):
            yield self.first + dt.timedelta(days=number)


class History:
    """The pages and files of the history."""

    def __init__(self, site: SupervisorSite, door: Door) -> None:
        self._site = site
        self._door = door

    async def overview(self, request: web.Request) -> web.Response:
        """Show the figures of each day and queue in a period."""
        account = await self._door.enter(request)
        period, wrong = self._asked(request)
        rows: list[tuple[dt.date, QueueName, Figures]] = []
        async for records in self._days(period):
            rows.extend(by_day(records, self._site.timezone, self._site.targets))
        return self._door.render(
            "supervisor_history.html",
            status=400 if wrong else 200,
            agent=account.name,
            wrong=wrong,
            period=period,
            oldest=self._oldest(),
            today=self._today(),
            history_days=self._site.history_days,
            queues={name: self._site.titles.queue(name) for name in self._site.targets},
            percent=self._site.percent,
            rows=[(day, self._site.titles.queue(queue), of) for day, queue, of in reversed(rows)],
            total=total(of for _, _, of in rows),
            duration=duration,
            day_text=self._day_text,
        )

    async def day(self, request: web.Request) -> web.Response:
        """Show one day: its chart, its figures and its calls."""
        account = await self._door.enter(request)
        try:
            day = dt.date.fromisoformat(request.match_info["day"])
        except ValueError:
            raise web.HTTPNotFound(text="There is no such day.") from None
        if not self._oldest() <= day <= self._today():
            raise web.HTTPNotFound(text="Of that day there is no history.")
        queue = self._queue(request)
        records = await self._records(day, queue)
        titles = self._site.titles
        return self._door.render(
            "supervisor_day.html",
            agent=account.name,
            day=day,
            queue=queue,
            day_title=self._day_text(day),
            chart=self._chart_of(records, day),
            percent=self._site.percent,
            rows=[(titles.queue(name), of) for _, name, of in by_day(records, self._site.timezone, self._site.targets)],
            calls=[
                {
                    "at": f"{dt.datetime.fromtimestamp(record.arrived, self._site.timezone):%H:%M:%S}",
                    "queue": titles.queue(record.queue),
                    "purpose": titles.purpose(record.purpose),
                    "verified": record.verified,
                    "outcome": record.outcome.value,
                    "waited": duration(record.waited),
                    "agent": record.agent,
                    "talked": duration(record.talked) if record.talked else "",
                }
                for record in records[:MOST_SHOWN]
            ],
            number=len(records),
            duration=duration,
        )

    async def chart(self, request: web.Request) -> web.Response:
        """Give the chart of today, as a piece of a page, for the wallboard to fetch anew."""
        await self._door.enter(request)
        today = self._today()
        queue = self._queue(request)
        records = await self._records(today, queue)
        drawn = self._chart_of(records, today)
        return self._door.render("supervisor_chart.html", chart=drawn, percent=self._site.percent)

    async def records_file(self, request: web.Request) -> web.StreamResponse:
        """Give the records of a period; they name agents, so who takes them along is on record."""
        account = await self._door.enter(request)
        period = self._wanted(request)
        span = f"{period.first} {period.last}"
        if not await on_record(self._site.audit, account.name, "records exported", span, queue=period.queue):
            raise web.HTTPServiceUnavailable(text="This cannot be exported, because it cannot be recorded.")
        return await self._send(request, period, "records", lambda found: records_csv(found, self._site.timezone))

    async def days_file(self, request: web.Request) -> web.StreamResponse:
        """Give the figures of each day and queue in a period."""
        await self._door.enter(request)
        period = self._wanted(request)
        return await self._send(
            request, period, "days", lambda found: daily_csv(found, self._site.timezone, self._site.targets)
        )

    def _chart_of(self, records: list[CallRecord], day: dt.date) -> Chart:
        """Lay out the chart of a day."""
        site = self._site
        whole = total(of for _, _, of in by_day(records, site.timezone, site.targets))
        return chart(quarters(records, day, site.timezone, site.targets), whole, site.percent)

    async def _send(
        self, request: web.Request, period: Period, name: str, as_csv: Callable[[list[CallRecord]], str]
    ) -> web.StreamResponse:
        """Send a file day by day: a whole period at once would keep the calls waiting, which are in this process."""
        file = f"idbellen-{name}-{period.first}-{period.last}.csv"
        response = web.StreamResponse(headers={"Content-Disposition": f'attachment; filename="{file}"'})
        response.content_type = "text/csv"
        response.charset = "utf-8"
        await response.prepare(request)
        await response.write(as_csv([]).encode())
        async for records in self._days(period):
            _, _, rows = as_csv(records).partition("\r\n")
            await response.write(rows.encode())
        await response.write_eof()
        return response

    async def _days(self, period: Period) -> AsyncIterator[list[CallRecord]]:
        for day in period.days():
            records = await self._records(day, period.queue)
            if records:
                yield records

    async def _records(self, day: dt.date, queue: QueueName) -> list[CallRecord]:
        return await self._site.history.calls(*day_bounds(day, self._site.timezone), queue or None)

    # What is asked for

    def _wanted(self, request: web.Request) -> Period:
        period, wrong = self._asked(request)
        if wrong:
            raise web.HTTPBadRequest(text="Give two days that are kept, such as from=2026-01-01&to=2026-01-31.")
        return period

    def _asked(self, request: web.Request) -> tuple[Period, str]:
        """Give the period that is asked for, and what is wrong with it; the usual one in its place if it is wrong."""
        oldest, today = self._oldest(), self._today()
        queue = self._queue(request)
        usual = Period(max(oldest, today - dt.timedelta(days=USUAL_DAYS - 1)), today, queue)
        try:
            first, last = (
                dt.date.fromisoformat(text) if (text := request.query.get(key)) else day
                for key, day in (("from", usual.first), ("to", usual.last))
            )
        except ValueError:
            return usual, "date"
        if first > last:
            return usual, "order"
        if first < oldest or last > today:
            return usual, "kept"
        return Period(first, last, queue), ""

    def _queue(self, request: web.Request) -> QueueName:
        queue = QueueName(request.query.get("queue", ""))
        if queue and queue not in self._site.targets:
            raise web.HTTPNotFound(text="There is no such queue.")
        return queue

    def _today(self) -> dt.date:
        return day_of(self._site.clock(), self._site.timezone)

    def _oldest(self) -> dt.date:
        return self._today() - dt.timedelta(days=self._site.history_days)

    def _day_text(self, day: dt.date, form: str = "full") -> str:
        return format_date(day, form, locale=self._site.language)


def duration(seconds: float | None) -> str:
    """Give a length as people read it: 1:05, or 1:00:05."""
    if seconds is None:
        return "–"  # noqa: RUF001 - a dash, as in print
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
