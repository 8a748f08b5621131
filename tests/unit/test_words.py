"""The control words: the rules for the lists, and how two words are drawn."""

import itertools
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idbellen.domain.codes import new_secret
from idbellen.domain.ids import Secret
from idbellen.domain.languages import LANGUAGES as ALL
from idbellen.domain.words import control_words

WORDS: dict[str, tuple[str, ...]] = {tag: facts.words for tag, facts in ALL.items()}
LANGUAGES = sorted(WORDS)
SECRET = Secret("kP3vQ0yQpYh1V0bM0m0o5m2mJx8bq7S1c6d4e5f6g7h")

# Spellings of one sound, rewritten in this order.
SOUNDS = {
    "nl": {"sch": "sg", "ch": "g", "ij": "ei", "ou": "au", "y": "i", "c": "k", "z": "s", "v": "f", "d$": "t"},
    "en": {"ph": "f", "ck": "k", "wh": "w", "ee": "ea", "ou": "ow", "c": "k", "z": "s", "y": "i"},
}
NUMBERS = {
    "nl": "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf honderd duizend",
    "en": "zero one two three four five six seven eight nine ten eleven twelve hundred thousand",
}


def sound(word: str, language: str) -> str:
    for spelling, one in SOUNDS[language].items():
        word = re.sub(spelling, one, word)
    return re.sub(r"(.)\1", r"\1", word)


def close(one: str, other: str) -> bool:
    """Whether at most one letter has to be put in, left out or replaced."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    at = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return long[at + 1 :] in (short[at:], short[at + 1 :])


def test_close_is_an_edit_distance_of_at_most_one() -> None:
    assert all(close("tafel", other) for other in ("tafel", "tafels", "wafel", "afel", "tafl", "tatfel"))
    assert not any(close("tafel", other) for other in ("wafels", "tfael", "taf", "tafelss", "afels"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_list_has_512_plain_words(language: str) -> None:
    words = WORDS[language]
    assert len(words) == len(set(words)) == 512
    assert [word for word in words if not re.fullmatch("[a-z]{3,9}", word)] == []
    assert set(words).isdisjoint(NUMBERS[language].split())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_words_look_or_sound_alike(language: str) -> None:
    words = {word: sound(word, language) for word in WORDS[language]}
    alike = [
        (one, other)
        for one, other in itertools.combinations(words, 2)
        if close(one, other) or close(words[one], words[other]) or one in other or other in one
    ]
    assert alike == []


def test_no_word_sounds_like_a_plural() -> None:
    assert [word for word in WORDS["en"] if word.endswith("s")] == []


@pytest.mark.parametrize(("language", "words"), [("nl", ("reiger", "druif")), ("en", ("feather", "bread"))])
def test_the_words_of_a_secret_are_the_same_in_every_release_and_process(language: str, words: tuple[str, str]) -> None:
    assert control_words(SECRET, language) == words
    program = f"from idbellen.domain.words import control_words; print(*control_words({SECRET!r}, {language!r}))"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert tuple(printed.split()) == words


@given(st.text(), st.sampled_from(LANGUAGES))
def test_the_two_words_differ(secret: str, language: str) -> None:
    first, second = control_words(Secret(secret), language)
    assert first != second
    assert {first, second} <= set(WORDS[language])


@pytest.mark.parametrize("place", [0, 1])
def test_all_words_come_equally_often(place: int) -> None:
    draws = 512 * 50
    counts = Counter(control_words(Secret(f"secret {number}"), "nl")[place] for number in range(draws))
    chi_square = sum((counts[word] - 50) ** 2 / 50 for word in WORDS["nl"])
    assert 511 - 5 * 32 < chi_square < 511 + 5 * 32, "511 degrees of freedom, a standard deviation of 32"


def test_other_secrets_have_other_words() -> None:
    drawn = {control_words(new_secret(), "en") for _ in range(100)}
    assert len(drawn) > 95


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match='"fr"'):
        control_words(SECRET, "fr")
