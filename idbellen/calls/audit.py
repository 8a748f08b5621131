"""Notes in the audit trail on the way, where a fault of the trail must not become one of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from idbellen.ports import AuditTrail

log = structlog.get_logger()


async def note(trail: AuditTrail, actor: str, action: str, subject: str, **detail: str) -> bool:
    """Record an entry; False, and a line in the log, if that fails.

    Who may only do something that is on record looks at the answer.
    """
    try:
        await trail.record(actor, action, subject, **detail)
    except Exception as fault:  # noqa: BLE001 - whatever it is, no call shall notice
        reason = str(fault) or type(fault).__name__
        log.error("not in the audit trail", actor=actor, action=action, subject=subject, reason=reason)  # noqa: TRY400
        return False
    return True
