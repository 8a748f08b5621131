"""What a citizen's page shows at a moment: found from the browser's cookie, the store, the call and the hours.

The page and its live events find it in the same way, so that a reload shows what the events told.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

from itsdangerous import BadSignature, URLSafeSerializer

from idbellen.domain.board import CitizenView, Stage
from idbellen.domain.idcontact import Admission, admission

if TYPE_CHECKING:
    from idbellen.domain.ids import SessionRef
    from idbellen.domain.languages import Language
    from idbellen.ports import Session
    from idbellen.web.citizen.site import CitizenSite
    from idbellen.web.issuing import IssuedCode

# "code": number and code, or the call; "new": a code can be given; the others say why there is none.
Kind = Literal["code", "new", "expired", "closed", "failed", "ended", "over"]
# Nothing follows upon these.
LAST_KINDS: frozenset[Kind] = frozenset({"failed", "ended", "over"})


@dataclass(frozen=True, slots=True)
class Known:
    """What the cookie holds: a session's reference, its code and until when that counts (epoch seconds).

    ``code`` is empty before one was given and after the citizen has stopped. ``language``: the one that the citizen
    chose, None for what the browser prefers.
    """

    session: SessionRef
    code: str = field(default="", repr=False)
    until: float = 0.0
    language: Language | None = None

    def with_code(self, issued: IssuedCode) -> Self:
        """Put a new code in place of the old one."""
        return replace(self, code=issued.code, until=issued.until)


class Cookies:
    """Signs what the cookie holds, and reads only what it signed."""

    def __init__(self, key: bytes) -> None:
        self._serializer = URLSafeSerializer(key, salt="citizen")

    def dump(self, known: Known) -> str:
        """Give the value of the cookie."""
        value: str = self._serializer.dumps(asdict(known))
        return value

    def load(self, value: str) -> Known | None:
        """Read the value of a cookie; None if it is not ours, or of a version that had other fields."""
        try:
            return Known(**self._serializer.loads(value))
        except (BadSignature, TypeError, UnicodeError):
            return None


@dataclass(frozen=True, slots=True)
class Situation:
    """What the page shows. ``session`` is None when it is gone.

    ``open``: whether a new code may be given; ``ends_soon``: whether the code does. ``next_change`` (epoch seconds):
    when time alone changes this.
    """

    kind: Kind
    view: CitizenView
    session: Session | None = None
    open: bool = False
    ends_soon: bool = False
    next_change: float = math.inf

    @property
    def renewable(self) -> bool:
        """Whether the citizen may have a new code now."""
        return self.open and self.view.stage is Stage.WAITING and self.kind in ("code", "new", "expired")


async def find(site: CitizenSite, known: Known) -> Situation:
    """Find what the page of this browser shows now."""
    session = await site.sessions.by_reference(known.session)
    view = site.progress.view(known.session)
    if view.stage is Stage.ENDED:
        return Situation("ended", view)
    if session is None:
        return Situation("over", view)
    if view.stage is not Stage.WAITING:
        return Situation("code", view, session)
    purpose, now = site.purposes[session.purpose], site.clock()
    if admission(session.result, admit_unverified=purpose.admit_unverified) is Admission.REFUSE:
        return Situation("failed", view, session)
    is_open = purpose.hours.open_at(now)
    if now < known.until:
        warn_at = known.until - site.warn_seconds
        next_change = warn_at if now < warn_at else known.until
        return Situation("code", view, session, is_open, ends_soon=warn_at <= now, next_change=next_change)
    if not is_open:
        opening = purpose.hours.next_opening(now)
        return Situation("closed", view, session, next_change=opening.timestamp() if opening else math.inf)
    return Situation("expired" if known.code else "new", view, session, open=True)
