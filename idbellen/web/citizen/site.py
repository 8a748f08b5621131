"""What the citizen's page is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from idbellen.calls.progress import Progress
    from idbellen.calls.results import Results
    from idbellen.domain.languages import Language
    from idbellen.ports import Clock, SessionFeedback, SessionStore
    from idbellen.web.issuing import CodeIssuer
    from idbellen.web.purposes import Purpose


@dataclass(frozen=True, slots=True)
class CitizenSite:
    """What the page needs.

    ``name``: of the municipality. ``begin_url``: where citizens begin, if that is known; ``theme_file``: style sheet of
    the municipality; ``language``: when the browser prefers none of ours. ``warn_seconds``: so long before a code
    ends the page warns. ``demo_phone_url``: only the demo sets it, and the page then offers its phone.
    """

    url: str
    name: Mapping[Language, str]
    begin_url: str | None
    theme_file: Path | None
    language: Language
    warn_seconds: float
    purposes: Mapping[str, Purpose]
    cookie_key: bytes
    sessions: SessionStore
    issuer: CodeIssuer
    results: Results
    progress: Progress
    feedback: SessionFeedback
    clock: Clock
    demo_phone_url: str | None = None
