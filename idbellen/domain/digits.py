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

    ``first_digit`` counts from the end of the prompt, or from a star; ``between_digits`` from the digit before, and
    ``overall`` from the start of the entry. No silence is longer than the longer of the first two, but while digits
    come. ``trailing``: a digit that follows the last one of an entry this soon still belongs to that entry (one too
    many, or reported late), not to the next. ``without_code``: a hash before the first digit says that the caller has
    no code; but this soon after an earlier entry (``hash_trailing``) it is the end of that one, as some are used to.
    """

    length: int = 10
    first_digit: float = 10.0
    between_digits: float = 8.0
    overall: float = 120.0
    trailing: float = 0.8
    hash_trailing: float = 3.0
    without_code: bool = False


class Outcome(enum.Enum):
    """How an entry ended."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    SILENCE = "silence"
    WITHOUT_CODE = "without code"


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
    """Collects one entry.

    A key that adds nothing to it (a star before the first digit, A to D, the digit before once more; a hash before the
    first digit, unless that says something) changes nothing: the prompt goes on, and what time was left is left. So a
    caller who presses keys hears the next prompt as soon as one who presses none, but for the digits of the entry.
    """

    def __init__(self, rules: EntryRules, now: float, *, previous_key_at: float | None = None) -> None:
        self._rules = rules
        self._started = now
        self._digits = ""
        self._first_digit_from: float | None = None
        self._counted_at = now
        self._last_key_at = previous_key_at
        self._in_trail = previous_key_at is not None
        self._hash_counts_from = now if previous_key_at is None else now + rules.hash_trailing
        self._started_typing = False

    @property
    def started(self) -> bool:
        """Whether the caller has keyed in something that counts, so that the prompt need not go on."""
        return self._started_typing

    @property
    def last_key_at(self) -> float | None:
        """When the last key came, for the collector of the next entry."""
        return self._last_key_at

    @property
    def deadline(self) -> float:
        """When :meth:`expire` is due, if no key comes before."""
        overall = self._started + self._rules.overall
        if self._digits:
            return min(overall, self._counted_at + self._rules.between_digits)
        if self._first_digit_from is not None:
            return min(overall, self._first_digit_from + self._rules.first_digit)
        return overall

    def prompt_ended(self, now: float) -> None:
        """Start the first-digit timer: the caller now knows what to do."""
        self._first_digit_from = now

    def press(self, key: str, now: float) -> Entry | None:
        """Take one key (``0`` to ``9``, ``*``, ``#``; others are ignored); gives the entry that it ends."""
        before, self._last_key_at = self._last_key_at, now
        if self._in_trail and before is not None and now - before < self._rules.trailing:
            return None
        self._in_trail = False
        if not self._digits and key in (START_OVER, DONE):
            none = key == DONE and self._rules.without_code and now >= self._hash_counts_from
            return Entry(Outcome.WITHOUT_CODE) if none else None
        if key == DONE:
            return self._end()
        if key == START_OVER:
            self._digits, self._first_digit_from = "", now
            return None
        digits = with_key(self._digits, key)
        if digits != self._digits:
            self._digits, self._counted_at, self._started_typing = digits, now, True
        return self._end() if len(digits) == self._rules.length else None

    def expire(self) -> Entry:
        """End the entry because its deadline has passed."""
        return self._end()

    def _end(self) -> Entry:
        if len(self._digits) == self._rules.length:
            return Entry(Outcome.COMPLETE, self._digits)
        return Entry(Outcome.INCOMPLETE if self._digits else Outcome.SILENCE)
