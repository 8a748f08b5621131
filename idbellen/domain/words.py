"""Two control words that the citizen's page and the agent's screen both show: who says them is in the same session."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from idbellen.domain.languages import LANGUAGES

if TYPE_CHECKING:
    from idbellen.domain.ids import Secret


def control_words(secret: Secret, language: str) -> tuple[str, str]:
    """Give the two different words of a session secret in a language; :exc:`ValueError` for one that we do not have.

    They are drawn from the secret's HMAC-SHA256, so they are the same in every process, and hold 18 bits that say
    nothing about the secret's 256. The 256 bits are so many that the remainder favours no pair measurably.
    """
    words = next((facts.words for tag, facts in LANGUAGES.items() if tag == language), None)
    if words is None:
        raise ValueError(f'there are no control words in the language "{language}"')
    digest = hmac.digest(secret.encode(), b"idbellen control words " + language.encode(), hashlib.sha256)
    others = len(words) - 1
    first, second = divmod(int.from_bytes(digest) % (len(words) * others), others)
    return words[first], words[second + (second >= first)]
