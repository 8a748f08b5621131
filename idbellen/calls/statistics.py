"""The figures of today, in memory, and the writing of call records to the history beside the calls."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from idbellen.calls.behind import Behind, Words
from idbellen.domain.board import Day
from idbellen.domain.statistics import (
    DEFAULT_TARGET,
    AgentFigures,
    CallRecord,
    Figures,
    Target,
    agent_figures,
    day_bounds,
    day_of,
    figures,
)
from idbellen.ports import CallLog

if TYPE_CHECKING:
    import zoneinfo
    from collections.abc import Callable

    from idbellen.domain.ids import AgentName, CallId, QueueName
    from idbellen.ports import Clock, History

log = structlog.get_logger()

# More waiting means that the history has been away for hours: the rest is lost, and that is logged.
MOST_UNWRITTEN = 10_000
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
WORDS = Words(
    failing="record of a call not written, trying again",
    again="records of calls are written again",
    lost="records of calls lost",
)
# A call ends for its agent a little before its record is made.
SAME_MOMENT_SECONDS = 5.0
# The wall clock can be set, so midnight is looked for again every so often.
LOOK_SECONDS = 60.0


class Statistics(CallLog):
    """Today's calls by queue and agent, in one event loop; ``timezone`` says when a day begins.

    Implements :class:`idbellen.ports.CallLog`. A call counts for the day on which it arrived.
    """

    def __init__(self, history: History, clock: Clock, timezone: zoneinfo.ZoneInfo) -> None:
        self._history = history
        self._clock = clock
        self._timezone = timezone
        self._start, self._end = self._bounds()
        self._today: dict[tuple[CallId, QueueName, float], CallRecord] = {}
        self._figures: dict[tuple[QueueName, Target], Figures] = {}
        self._agents: dict[AgentName, AgentFigures] = {}
        self._missed: Counter[AgentName] = Counter()
        self._unwritten: deque[CallRecord] = deque()
        self._behind = Behind(
            self._write, WORDS, lambda: len(self._unwritten), first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS
        )
        self.flush = self._behind.flush
        self._listeners: list[Callable[[], None]] = []

    async def load(self) -> None:
        """Read what today has brought so far, once, at the start; fails as the history does."""
        for record in await self._history.calls(*self._bounds()):
            self._today.setdefault(record.identity, record)
        self._changed()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call this after every change of today's figures, also when the day is over."""
        self._listeners.append(listener)

    def ended(self, record: CallRecord) -> None:
        """Take in a call that has left its queue; never blocks nor fails.

        A record of the same arrival in the same queue takes the place of the earlier, as when its wrap-up is known.
        """
        if len(self._unwritten) < MOST_UNWRITTEN:
            self._unwritten.append(record)
            self._behind.more()
        else:
            log.error("record of a call lost: the history cannot be written", call=record.call)
        self._turn_day()
        if self._start <= record.arrived < self._end:
            self._today[record.identity] = record
            self._changed()

    def wrapped_up(self, agent: AgentName, began: float, ended: float) -> None:
        """Add a wrap-up (epoch seconds) to the record of the call that it followed.

        There is none yet when the caller still talks with the colleague to whom the call was transferred.
        """
        self._turn_day()
        mine = (record for record in reversed(self._today.values()) if record.agent == agent)
        record = next(mine, None)
        if record and abs(record.arrived + record.waited + record.talked - began) < SAME_MOMENT_SECONDS:
            self.ended(replace(record, wrap_up=ended - began))

    def missed(self, agent: AgentName) -> None:
        """Count an offer that an agent did not answer; a restart forgets it."""
        self._turn_day()
        self._missed[agent] += 1
        self._changed()

    def today(self, queue: QueueName, target: Target = DEFAULT_TARGET) -> Figures:
        """Give the figures of a queue since midnight."""
        self._turn_day()
        known = self._figures.get((queue, target))
        if known is None:
            known = figures((record for record in self._today.values() if record.queue == queue), target)
            self._figures[queue, target] = known
        return known

    def agent_today(self, name: AgentName) -> AgentFigures:
        """Give the figures of an agent since midnight."""
        self._turn_day()
        known = self._agents.get(name)
        if known is None:
            known = self._agents[name] = agent_figures(self._today.values(), name)
        return known

    def day(self, agent: AgentName) -> Day:
        """Give what an agent's own dashboard shows of today."""
        own = self.agent_today(agent)
        return Day(own.calls, own.talked, self._missed[agent])

    async def run(self) -> None:
        """Write records to the history, and see to it that a day ends, until cancelled."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._behind.run())
            parts.create_task(self._watch_midnight())

    async def purge(self, keep_days: int) -> int:
        """Delete the records of days longer ago than ``keep_days``; gives how many."""
        start, _ = self._bounds(-keep_days)
        return await self._history.forget_calls(start)

    async def _write(self) -> None:
        while self._unwritten:
            await self._history.keep_call(self._unwritten[0])
            # Only now: a cancelled write is done again at the end.
            self._unwritten.popleft()

    async def _watch_midnight(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, max(0.0, self._end - self._clock()) + 0.01))
            self._turn_day()

    def _turn_day(self) -> None:
        if self._start <= self._clock() < self._end:
            return
        self._start, self._end = self._bounds()
        self._today = {
            identity: record for identity, record in self._today.items() if self._start <= record.arrived < self._end
        }
        self._missed.clear()
        self._changed()

    def _bounds(self, offset: int = 0) -> tuple[float, float]:
        """Give begin and end of today, or of the day that lies so many days after it."""
        today = day_of(self._clock(), self._timezone)
        return day_bounds(today + dt.timedelta(days=offset), self._timezone)

    def _changed(self) -> None:
        self._figures.clear()
        self._agents.clear()
        for listener in self._listeners:
            listener()
