"""What a caller keys in, and when it counts as a code.

Pure: digits and times go in, an :class:`Entry` comes out. Times are seconds on any one clock.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

START_OVER = "*"
DONE = "#"


@dataclass(frozen=True, slots=True)
class EntryRules:
    """How long a code is and how long a caller may take; times in seconds.

    ``first_digit`` counts from the end of the prompt, ``between_digits`` from the digit before, ``overall``
    from the start of the entry. ``trailing``: a digit that follows the last one of an entry this soon still
    belongs to that entry (one too many, or reported late), not to the next.
    """

    length: int = 10
    first_digit: float = 10.0
    between_digits: float = 8.0
    overall: float = 120.0
    trailing: float = 0.8


class Outcome(enum.Enum):
    """How an entry ended."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished entry. ``code`` holds the digits of a complete one; it never shows in a representation."""

    outcome: Outcome
    code: str = field(default="", repr=False)


def with_key(digits: str, key: str) -> str:
    """Give digits with one more key; what is no digit does not count.

    Equal neighbours count once, because Asterisk can report one digit twice when the network stalls, and
    no code has equal neighbours (:func:`idbellen.domain.codes.new_code`).
    """
    counts = key.isascii() and key.isdecimal() and not digits.endswith(key)
    return digits + key if counts else digits


def code_in(keys: str) -> str:
    """Give the code in keys that came all at once: those after the last star, up to a hash."""
    code = ""
    for key in keys.rpartition(START_OVER)[2].partition(DONE)[0]:
        code = with_key(code, key)
    return code


class Collector:
    """Collects one entry."""

    def __init__(self, rules: EntryRules, now: float, *, previous_digit_at: float | None = None) -> None:
        self._rules = rules
        self._started = now
        self._digits = ""
        self._prompt_ended: float | None = None
        self._last_digit_at = previous_digit_at
        self._in_trail = previous_digit_at is not None
        self._started_typing = False

    @property
    def started(self) -> bool:
        """Whether the caller has keyed in something that counts, so that the prompt need not go on."""
        return self._started_typing

    @property
    def last_digit_at(self) -> float | None:
        """When the last digit came, for the collector of the next entry."""
        return self._last_digit_at

    @property
    def deadline(self) -> float:
        """When :meth:`expire` is due, if no digit comes before."""
        overall = self._started + self._rules.overall
        if self._digits and self._last_digit_at is not None:
            return min(overall, self._last_digit_at + self._rules.between_digits)
        if self._prompt_ended is not None:
            return min(overall, self._prompt_ended + self._rules.first_digit)
        return overall

    def prompt_ended(self, now: float) -> None:
        """Start the first-digit timer: the caller now knows what to do."""
        self._prompt_ended = now

    def press(self, key: str, now: float) -> Entry | None:
        """Take one key (``0`` to ``9``, ``*``, ``#``; others are ignored); gives the entry that it ends."""
        before, self._last_digit_at = self._last_digit_at, now
        if self._in_trail and before is not None and now - before < self._rules.trailing:
            return None
        self._in_trail = False
        self._started_typing = True
        if key == START_OVER:
            self._digits = ""
            self._prompt_ended = now
        elif key == DONE and self._digits:
            return self._end()
        else:
            self._digits = with_key(self._digits, key)
            if len(self._digits) == self._rules.length:
                return self._end()
        return None

    def expire(self) -> Entry:
        """End the entry because its deadline has passed."""
        return self._end()

    def _end(self) -> Entry:
        if len(self._digits) == self._rules.length:
            return Entry(Outcome.COMPLETE, self._digits)
        return Entry(Outcome.INCOMPLETE if self._digits else Outcome.SILENCE)
