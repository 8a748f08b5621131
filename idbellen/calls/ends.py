"""The end of a call, as the store is told of it: also when the store cannot be used at that moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from idbellen.ports import SessionFeedback, SessionStore

log = structlog.get_logger()

RETRY_SECONDS = 1.0
STOP_SECONDS = 2.0


class Ends:
    """Gives back what calls had of the store. What it does not take is told again, and no caller waits for that.

    A crash before that is no loss: the next process undoes all claims of which no note tells.
    """

    def __init__(self, sessions: SessionStore, feedback: SessionFeedback) -> None:
        self._sessions = sessions
        self._feedback = feedback
        self._untold: dict[str, bool] = {}
        self._more = asyncio.Event()

    async def end(self, call: str, *, served: bool) -> None:
        """Delete the session of a call, if an agent has spoken with the caller, or else let its code count again.

        Does not fail.
        """
        try:
            await self._tell(call, served=served)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is tried again
            log.error(  # noqa: TRY400 - one line
                "the store could not be told of the end of a call, trying again", call=call, reason=_reason(fault)
            )
            self._untold[call] = served
            self._more.set()

    async def settle(self, call: str) -> None:
        """Tell what is left to be told of a call, before it claims another session; fails as the store does."""
        if call in self._untold:
            await self._tell(call, served=self._untold[call])
            self._untold.pop(call, None)

    async def run(self) -> None:
        """Tell what the store has not taken, until cancelled."""
        while True:
            await self._more.wait()
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await self._tell_all()
            except Exception:  # noqa: BLE001, S112 - it was logged at the first time
                continue
            self._more.clear()
            log.info("the store has been told of the end of all calls")

    async def flush(self) -> None:
        """Tell what is left, once, after :meth:`run` was cancelled."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._tell_all()
        except Exception as fault:  # noqa: BLE001 - whatever it is, the stop goes on
            log.error(  # noqa: TRY400 - one line
                "the store was not told of the end of calls", calls=len(self._untold), reason=_reason(fault)
            )

    async def _tell_all(self) -> None:
        for call in list(self._untold):
            await self.settle(call)

    async def _tell(self, call: str, *, served: bool) -> None:
        if not served:
            await self._sessions.release(call)
            return
        ended = await self._sessions.finish(call)
        if ended:
            self._feedback.logout(ended)


def _reason(fault: Exception) -> str:
    return str(fault) or type(fault).__name__
