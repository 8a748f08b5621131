"""Codes, secrets and fingerprints."""

from itertools import pairwise

import pytest

from idbellen.domain.codes import Fingerprints, in_groups, new_code, new_handle, new_secret


def test_codes_have_no_equal_neighbours_and_use_every_digit_everywhere() -> None:
    codes = [new_code(10) for _ in range(3000)]
    assert all(len(code) == 10 and code.isdecimal() for code in codes)
    assert not any(a == b for code in codes for a, b in pairwise(code))
    for position in range(10):
        assert {code[position] for code in codes} == set("0123456789")
    assert len(set(codes)) == len(codes)


def test_secrets_have_256_bits_and_handles_128() -> None:
    assert len(new_secret()) == 43
    assert len(new_handle()) == 22


@pytest.mark.parametrize(
    ("code", "groups"),
    [
        ("12345678", ["123", "45678"]),
        ("123456789", ["123", "456", "789"]),
        ("1234567890", ["123", "456", "7890"]),
        ("1234567890123", ["123", "456", "789", "0123"]),
        ("12", ["12"]),
    ],
)
def test_groups(code: str, groups: list[str]) -> None:
    assert in_groups(code) == groups


def test_fingerprints_differ_by_use_and_by_key() -> None:
    fingerprints = Fingerprints(b"k" * 32)
    assert fingerprints.of("code", "123") == Fingerprints(b"k" * 32).of("code", "123")
    assert fingerprints.of("code", "123") != fingerprints.of("secret", "123")
    assert fingerprints.of("code", "123") != Fingerprints(b"l" * 32).of("code", "123")
