"""Whether the store can be written, tried now and then: a full disk is told before a citizen meets it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from idbellen.ports import StoreError

if TYPE_CHECKING:
    from idbellen.ports import WritableStore

log = structlog.get_logger()

PROBE_SECONDS = 5.0
# More than any store allows itself; a disk that hangs says nothing at all.
PATIENCE_SECONDS = 5.0


class StoreProbe:
    """Knows whether the store can be written. It works while :meth:`run` runs; before that it is taken to be so."""

    def __init__(self, store: WritableStore) -> None:
        self._store = store
        self._fault: str | None = None

    def why_not(self) -> str | None:
        """Give why it cannot be written, in one line; None if it can."""
        return self._fault

    async def run(self) -> None:
        """Try, until cancelled."""
        while True:
            trying = asyncio.ensure_future(self._try())
            try:
                # Only one at a time, also where it hangs: each takes a thread.
                if not (await asyncio.wait((trying,), timeout=PATIENCE_SECONDS))[0]:
                    self._tell(f"store: no answer in {PATIENCE_SECONDS:g} s")
                self._tell(await trying)
            finally:
                trying.cancel()
            await asyncio.sleep(PROBE_SECONDS)

    async def _try(self) -> str | None:
        try:
            await self._store.try_to_write()
        except StoreError as fault:
            return str(fault)
        return None

    def _tell(self, fault: str | None) -> None:
        if fault and not self._fault:
            log.error("the store cannot be written, so no session can begin", reason=fault)
        elif self._fault and not fault:
            log.info("the store can be written again")
        self._fault = fault
