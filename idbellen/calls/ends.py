"""The end of a call, as the store is told of it: also when the store cannot be used at that moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idbellen.calls.behind import Behind, Words

if TYPE_CHECKING:
    from idbellen.domain.ids import CallId
    from idbellen.ports import SessionFeedback, SessionStore

RETRY_SECONDS = 1.0
WORDS = Words(
    failing="the store could not be told of the end of a call, trying again",
    again="the store has been told of the end of all calls",
    lost="the store was not told of the end of calls",
)


class Ends:
    """Gives back what calls had of the store. What it does not take is told again, and no caller waits for that.

    A crash before that is no loss: the next process undoes all claims of which no note tells.
    """

    def __init__(self, sessions: SessionStore, feedback: SessionFeedback) -> None:
        self._sessions = sessions
        self._feedback = feedback
        self._untold: dict[CallId, bool] = {}
        self._behind = Behind(self._tell_all, WORDS, lambda: len(self._untold), first=RETRY_SECONDS)
        self.run = self._behind.run
        self.flush = self._behind.flush

    async def end(self, call: CallId, *, served: bool) -> None:
        """Delete the session of a call, if an agent has spoken with the caller, or else let its code count again.

        Does not fail.
        """
        try:
            await self._tell(call, served=served)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is tried again
            self._untold[call] = served
            self._behind.failed(fault)

    async def settle(self, call: CallId) -> None:
        """Tell what is left to be told of a call, before it claims another session; fails as the store does."""
        if call in self._untold:
            await self._tell(call, served=self._untold[call])
            self._untold.pop(call, None)

    async def _tell_all(self) -> None:
        for call in list(self._untold):
            await self.settle(call)

    async def _tell(self, call: CallId, *, served: bool) -> None:
        if not served:
            await self._sessions.release(call)
            return
        ended = await self._sessions.finish(call)
        if ended:
            self._feedback.logout(ended)
