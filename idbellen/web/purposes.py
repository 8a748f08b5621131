"""What a purpose means for those who come over HTTP: the core, and the citizen on the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.domain.hours import OpeningHours
    from idbellen.domain.languages import Language

ClientUrl = Literal["page", "tel"]


@dataclass(frozen=True, slots=True)
class Purpose:
    """Why citizens call.

    ``attributes``: those that are kept of an auth result; ``hours``: of its queue; ``client_url``: whether the core
    sends the citizen to our page or gets the address to dial.
    """

    titles: Mapping[Language, str]
    attributes: tuple[str, ...]
    phone_number: str
    hours: OpeningHours
    admit_unverified: bool
    client_url: ClientUrl
