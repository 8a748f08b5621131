"""Entries in the audit trail, where a fault of the trail must not become one of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from idbellen.ports import AuditTrail

log = structlog.get_logger()


async def on_record(trail: AuditTrail, actor: str, action: str, subject: str, **detail: str) -> bool:
    """Put an entry on record; False, and a line in the log, if that fails.

    For what may only be done when it is on record.
    """
    try:
        await trail.record(actor, action, subject, **detail)
    except Exception as fault:  # noqa: BLE001 - whatever it is, no call shall notice
        reason = str(fault) or type(fault).__name__
        log.error("not in the audit trail", actor=actor, action=action, subject=subject, reason=reason)  # noqa: TRY400
        return False
    return True
