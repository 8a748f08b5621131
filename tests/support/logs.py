"""The search of all logs of a run for what must never be in one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog

from tests.support.installation import ATTRIBUTES
from tests.support.scenarios import CALLER_NUMBER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from idbellen.demo.pbx import Pbx
    from tests.support.installation import Installation


def plain_logs() -> None:
    """Let what the tests' own process logs be written plainly: coloured columns took a fifth of the time of a story."""
    structlog.reset_defaults()
    structlog.configure(
        [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ]
    )


def personal_data_in_logs(
    pbx: Pbx, installations: Iterable[Installation], also: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """Give what was found, each with the name of the log; ``also``: what is to be hidden besides what they know."""
    of_asterisk = (path for path in (pbx.settings.directory / "log").rglob("*") if path.is_file())
    logs = {path: path.read_text(errors="replace") for path in of_asterisk}
    hidden = {CALLER_NUMBER, *ATTRIBUTES.values(), *also}
    for one in installations:
        if one.log.exists():
            logs[one.log] = one.log.read_text()
        hidden |= {*one.codes, *one.secrets}
    assert logs[pbx.log], "there is a log to be searched"
    found = [(path.name, text) for path, content in logs.items() for text in hidden if text in content]
    # Asterisk's log of keys would show a code one digit a line. A reference, drawn at random, may have those letters.
    keys = re.compile(r"(?<![\w-])dtmf(?![\w-])", re.IGNORECASE)
    return found + [(path.name, "dtmf") for path, content in logs.items() if keys.search(content)]
