"""One number in every form that carriers want."""

from __future__ import annotations

import pytest

from idbellen.domain.numbers import in_form


@pytest.mark.parametrize("dialled", ["+31201234567", "0031201234567", "0201234567"])
@pytest.mark.parametrize(
    ("form", "expected"),
    [("e164", "+31201234567"), ("international", "0031201234567"), ("national", "0201234567")],
)
def test_a_number_of_this_country_has_one_face_in_each_form(dialled: str, form: str, expected: str) -> None:
    assert in_form(dialled, form) == expected
    assert in_form(dialled, "number") == dialled


@pytest.mark.parametrize("dialled", ["+4915112345678", "004915112345678"])
@pytest.mark.parametrize(
    ("form", "expected"),
    [("e164", "+4915112345678"), ("international", "004915112345678"), ("national", "004915112345678")],
)
def test_a_number_abroad_keeps_its_country(dialled: str, form: str, expected: str) -> None:
    assert in_form(dialled, form) == expected


@pytest.mark.parametrize("form", ["number", "e164", "international", "national"])
@pytest.mark.parametrize("dialled", ["112", "14020", "1001", "00", "+0201234567", "0880", "020123456789"])
def test_what_is_no_public_number_stays_as_it_is(dialled: str, form: str) -> None:
    assert in_form(dialled, form) == dialled
