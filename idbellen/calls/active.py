"""Telling the auth plugin that its session is in use."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from idbellen.calls.office import ActiveMoment, Office
    from idbellen.ports import Session


def tell_active(moment: ActiveMoment, session: Session, office: Office) -> None:
    """Tell the auth plugin that its session is in use, if it is to be told at this moment."""
    if moment in office.rules.active_moments:
        office.feedback.user_active(session.reference)


@asynccontextmanager
async def keeping_active(session: Session, office: Office) -> AsyncIterator[None]:
    """Tell the auth plugin now and then, for the block, that its session is in use."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(office.rules.active_every)
            office.feedback.user_active(session.reference)

    async with asyncio.TaskGroup() as group:
        telling = group.create_task(tell())
        yield
        telling.cancel()
