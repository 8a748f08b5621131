"""Waiting for a store that is away for a moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from idbellen.ports import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Answer = TypeVar("Answer")

RETRY_SECONDS = 0.25


async def patiently(ask: Callable[[], Awaitable[Answer]], seconds: float) -> Answer:
    """Ask the store, and again while it is away.

    Raises:
        StoreError: it was away for so many seconds, and by what one request may take longer.

    """
    now = asyncio.get_running_loop().time
    until = now() + seconds
    while True:
        try:
            return await ask()
        except StoreError:
            if now() >= until:
                raise
        await asyncio.sleep(RETRY_SECONDS)
