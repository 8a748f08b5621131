"""Telephone numbers as carriers want them: +31201234567, 0031201234567 or 0201234567 for one and the same."""

from __future__ import annotations

import re

COUNTRY = "31"
# What an operator may write into an endpoint, and what that makes of an international number.
FORMS = ("number", "e164", "international", "national")

_INTERNATIONAL = re.compile(r"(?:\+|00)([1-9][0-9]+)", re.ASCII)
_NATIONAL = re.compile(r"0([1-9][0-9]{8})", re.ASCII)


def in_form(number: str, form: str) -> str:
    """Give a number in a form: ``e164`` (+31...), ``international`` (0031...) or ``national`` (0..., abroad 00...).

    ``number``, and whatever is no number of the public network, such as an extension or 112, stays as it is dialled.
    """
    found = _INTERNATIONAL.fullmatch(number)
    national = _NATIONAL.fullmatch(number)
    if form == "number" or not (found or national):
        return number
    digits = found[1] if found else f"{COUNTRY}{national[1] if national else ''}"
    if form == "national" and digits.startswith(COUNTRY):
        return f"0{digits.removeprefix(COUNTRY)}"
    return f"{'+' if form == 'e164' else '00'}{digits}"
