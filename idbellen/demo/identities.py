"""The made-up citizens of the demo's authentication plugins."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody to be; ``key`` names them in the form. Every identity has the same attributes."""

    key: str
    attributes: Mapping[str, str]

    @property
    def name(self) -> str:
        """What people call them."""
        return self.attributes["fullname"]


# The numbers pass the 11-test and lie in 99999xxxx, which is kept for tests: nobody has them.
DEMO_IDENTITIES = (
    Identity(
        "sanne",
        MappingProxyType(
            {
                "fullname": "Sanne Voorbeeld",
                "bsn": "999990007",
                "birthdate": "14-02-1986",
                "address": "Dorpsstraat 12, 1234 AB Voorbeeld",
            }
        ),
    ),
    Identity(
        "joris",
        MappingProxyType(
            {
                "fullname": "Joris van Probeersel",
                "bsn": "999993318",
                "birthdate": "30-09-1951",
                "address": "Molenweg 3 A, 1234 CD Voorbeeld",
            }
        ),
    ),
    Identity(
        "noor",
        MappingProxyType(
            {
                "fullname": "Noor Demir-Schijn",
                "bsn": "999996605",
                "birthdate": "07-05-2001",
                "address": "Stationsplein 101, 1234 EF Voorbeeld",
            }
        ),
    ),
)
