"""The log: one line for each thing that an operator can use, on standard error, in UTC.

Personal data, codes, secrets and digits are not given to it; callers and sessions have meaningless names. What
libraries and exceptions have to say can hold what somebody sent, so of those it is told where and of which kind.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Literal

import structlog

from idbellen.domain.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
QUIET_SECONDS = 60.0

log = structlog.get_logger()


def configure_log(level: Literal["debug", "info", "warning", "error"], form: Literal["text", "json"]) -> None:
    """Set the log up, for this process."""
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(lambda found: trace(found[1])),
    ]
    if form == "json":
        shared.append(structlog.processors.JSONRenderer())
    else:
        shared.append(
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            )
        )
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # What libraries have to say comes out only when something is wrong.
    logging.basicConfig(level=logging.WARNING, handlers=[_Libraries()])


def trace(fault: BaseException) -> str:
    """Give the traceback of an exception, and of those that led to it, each by its kind.

    Of its message only what we wrote ourselves, or what the operating system says: others quote what was sent.
    """
    return "\n".join(_trace(fault, set()))


def _trace(fault: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(fault))
    earlier = fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__)
    if earlier is not None and id(earlier) not in seen:
        yield from _trace(earlier, seen)
        yield "which led to:"
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(fault.__traceback__)) + _kind(fault)
    if isinstance(fault, BaseExceptionGroup):
        for one in fault.exceptions:
            if id(one) not in seen:
                yield f"of which one is a {type(one).__name__}:"
                yield from _trace(one, seen)


def _kind(fault: BaseException) -> str:
    kind = type(fault)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.partition(".")[0] == __package__:
        return f"{name}: {fault}"
    if isinstance(fault, OSError) and fault.strerror:
        return f"{name}: {fault.strerror}"
    return name


class Repeated:
    """A line of the log for what can happen ever so often: the first is told at once, more by their number."""

    def __init__(self, event: str, *, level: Literal["warning", "error"] = "warning", **values: object) -> None:
        self._event = event
        self._level = level
        self._values = values
        self._tally = Tally(QUIET_SECONDS)
        self._later: asyncio.TimerHandle | None = None

    def __call__(self, **values: object) -> None:
        """Note that it happened, in an event loop; ``values`` are told with the first one."""
        loop = asyncio.get_running_loop()
        if self._tally.happened(loop.time()):
            self._tell(**values)
        elif self._later is None:
            self._later = loop.call_at(self._tally.next, self._tell_number)

    def close(self) -> None:
        """Tell now what would be told later, for instance at the end of a listener."""
        if self._later:
            self._later.cancel()
            self._tell_number()

    def _tell_number(self) -> None:
        self._later = None
        # A timer may come a moment early.
        number = self._tally.due(max(asyncio.get_running_loop().time(), self._tally.next))
        self._tell(times=number)

    def _tell(self, **values: object) -> None:
        log.log(LEVELS[self._level], self._event, **self._values, **values)


class _Libraries(logging.Handler):
    """Writes what libraries log: their fixed words, without what those are about."""

    def __init__(self) -> None:
        super().__init__()
        self._tallies: dict[tuple[str, int], Tally] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it if the same place has just told something."""
        tally = self._tallies.setdefault((record.pathname, record.lineno), Tally(QUIET_SECONDS))
        number = tally.happened(time.monotonic())
        if number:
            fault = record.exc_info[1] if record.exc_info else None
            words: dict[str, Any] = {"exception": trace(fault)} if fault else {}
            if number > 1:
                words["times"] = number
            says = str(record.msg).partition("\n")[0]
            log.log(max(record.levelno, logging.WARNING), "library", name=record.name, says=says, **words)


def watch_loop() -> None:
    """Let the running event loop log faults that nobody else gets, without what they are about."""
    tallies: dict[str, Tally] = {}

    def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # What follows quotes callbacks and tasks, with what they were given.
        says = str(context.get("message")).partition("<")[0]
        if "handle" in context:
            says = "Exception in callback"
        fault = context.get("exception")
        number = tallies.setdefault(f"{says} {_kind(fault) if fault else ''}", Tally(QUIET_SECONDS)).happened(
            time.monotonic()
        )
        if number:
            words = {"exception": trace(fault)} if fault else {}
            log.error("fault in the event loop", says=says, times=number, **words)

    asyncio.get_running_loop().set_exception_handler(tell)
