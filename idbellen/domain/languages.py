"""The languages of pages and prompts. A new one stands here, and has a word list, a catalogue and prompts."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from idbellen.domain.wordlist_en import WORDS as ENGLISH
from idbellen.domain.wordlist_nl import WORDS as DUTCH

if TYPE_CHECKING:
    from collections.abc import Mapping

Language = Literal["nl", "en"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a language calls itself, the locale of its dates and times, and its control words."""

    name: str
    locale: str
    words: tuple[str, ...]


LANGUAGES: Mapping[Language, Facts] = MappingProxyType(
    {
        "nl": Facts("Nederlands", "nl", DUTCH),
        "en": Facts("English", "en_GB", ENGLISH),
    }
)
