"""The log: what is told once and then counted, and that nothing of what was sent gets into it by way of others."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from typing import TYPE_CHECKING

import pytest
import structlog
from structlog.testing import capture_logs

from idbellen import telemetry
from idbellen.domain.idcontact import TokenRefusedError
from idbellen.domain.tally import Tally
from idbellen.telemetry import Repeated, configure_log, trace, watch_loop
from tests.support.logs import plain_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SENT = "what a citizen has sent"


@pytest.fixture(params=["text", "json"])
def written(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Give what the log has written since it was last asked, as the service writes it."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure_log("info", request.param)

    def since() -> str:
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return text

    yield since
    plain_logs()


def test_the_first_is_told_and_others_by_their_number() -> None:
    tally = Tally(60.0)
    assert [tally.happened(now) for now in (0.0, 1.0, 59.0)] == [1, 0, 0]
    assert tally.due(59.9) == 0
    assert tally.due(60.0) == 2
    assert tally.due(60.0) == 0
    # What was told last keeps it quiet.
    assert [tally.happened(now) for now in (61.0, 119.0)] == [0, 0]
    assert tally.happened(120.0) == 3
    assert tally.happened(500.0) == 1


async def test_what_happens_often_is_a_line_and_then_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "QUIET_SECONDS", 0.05)
    with capture_logs() as log:
        bad = Repeated("bad", listener="citizen")
        for number in range(1000):
            bad(first=number)
        await asyncio.sleep(0.1)
    assert log == [
        {"event": "bad", "log_level": "warning", "listener": "citizen", "first": 0},
        {"event": "bad", "log_level": "warning", "listener": "citizen", "times": 999},
    ]


async def test_at_the_end_the_number_is_told_and_nothing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "QUIET_SECONDS", 0.05)
    with capture_logs() as log:
        bad, once = Repeated("bad"), Repeated("once")
        for _ in range(3):
            bad()
        once()
        for lines in (bad, once):
            lines.close()
        told = [(line["event"], line.get("times")) for line in log]
        await asyncio.sleep(0.1)
        assert (
            told == [(line["event"], line.get("times")) for line in log] == [("bad", None), ("once", None), ("bad", 2)]
        )


def fault() -> Exception:
    """Give an exception that others led to, all of which quote what was sent, except ours."""
    try:
        both()
    except ExceptionGroup as found:
        return found
    raise AssertionError


def both() -> None:
    try:
        refused()
    except TokenRefusedError:
        raise ExceptionGroup(SENT, [ValueError(SENT), OSError(28, "No space left on device", SENT)])  # noqa: B904


def refused() -> None:
    try:
        missing()
    except KeyError as reason:
        raise TokenRefusedError("expired") from reason


def missing() -> None:
    raise KeyError(SENT)


def test_a_traceback_says_where_and_what_kind_and_only_our_own_words() -> None:
    text = trace(fault())
    assert SENT not in text
    assert text.count("Traceback (most recent call last):") == 5
    for expected in (
        "builtins.KeyError", "idbellen.domain.idcontact.TokenRefusedError: expired", "builtins.ExceptionGroup",
        "builtins.ValueError", "builtins.OSError: No space left on device", 'test_telemetry.py", line ', "in missing",
    ):  # fmt: skip
        assert expected in text
    circle = ValueError(SENT)
    circle.__cause__ = KeyError()
    circle.__cause__.__cause__ = circle
    assert trace(circle).count("Traceback") == 2


def test_libraries_log_their_fixed_words_only_and_not_for_ever(written: Callable[[], str]) -> None:
    for _ in range(100):
        logging.getLogger("aiohttp.server").error("Error handling request from %s", SENT, exc_info=fault())
    logging.getLogger("asyncio").warning("first line\n%s", SENT)
    logging.getLogger("aiohttp.access").info(SENT)
    said = written()
    assert SENT not in said
    assert said.count("Error handling request from %s") == 1
    assert "first line" in said
    assert "in missing" in said


def test_our_own_faults_do_not_quote_either(written: Callable[[], str]) -> None:
    structlog.get_logger().error("request failed", exc_info=fault())
    said = written()
    assert SENT not in said
    assert "in missing" in said


async def test_what_an_event_loop_finds_is_told_without_what_it_is_about() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def callback(_: str) -> None:
        raise fault()

    try:
        watch_loop()
        with capture_logs() as log:
            loop.call_soon(callback, SENT)
            loop.call_soon(callback, SENT)
            loop.call_exception_handler({"message": f"Task <Task {SENT}> failed", "task": SENT})
            await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)
    assert [entry["says"] for entry in log] == ["Task ", "Exception in callback"]
    assert SENT not in str(log)
    assert "in missing" in log[1]["exception"]
