"""How far each citizen's call is, by session, as the citizen's page shows it.

It lives in one process and one event loop, like the desk. A page, and a call that waits for an auth result, wait
for news here.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from idbellen.calls.watch import Watches
from idbellen.domain.board import CitizenView, Stage
from idbellen.domain.idcontact import AuthStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from idbellen.calls.desk import Desk
    from idbellen.calls.watch import Watch
    from idbellen.domain.idcontact import AuthResult
    from idbellen.domain.ids import CallId, SessionRef

# The store has forgotten a session whose call has ended; its page says "ended" as long as it is among these.
MOST_ENDED = 10_000


class Journey:
    """The call of one session, from the accepted code on."""

    def __init__(self, progress: Progress, reference: SessionRef, call: CallId, words: tuple[str, str] | None) -> None:
        self._progress = progress
        self._reference = reference
        self.call = call
        self.words = words
        self.stage = Stage.ACCEPTED
        self.served = False

    def enter(self, stage: Stage) -> None:
        """Note that the call has come to another stage."""
        self.stage = stage
        self.served |= stage is Stage.CONNECTED
        self._progress.notify(self._reference)


class Progress:
    """The calls in hand by session, and who watches them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._journeys: dict[SessionRef, Journey] = {}
        self._ended: OrderedDict[SessionRef, None] = OrderedDict()
        self._watches: Watches[SessionRef] = Watches()
        desk.staff.news.on_change(self._queue_changed)

    @contextmanager
    def call(self, reference: SessionRef, call: CallId, words: tuple[str, str] | None) -> Iterator[Journey]:
        """Follow the call of a session for the block; one that was not connected can be made again."""
        journey = self._journeys[reference] = Journey(self, reference, call, words)
        self.notify(reference)
        try:
            yield journey
        finally:
            del self._journeys[reference]
            if journey.served:
                self.end(reference)
            else:
                self.notify(reference)

    def end(self, reference: SessionRef) -> None:
        """Note that a session is over."""
        self._ended[reference] = None
        if len(self._ended) > MOST_ENDED:
            self._ended.popitem(last=False)
        self.notify(reference)

    def view(self, reference: SessionRef) -> CitizenView:
        """Give what the page of a session shows now."""
        journey = self._journeys.get(reference)
        if journey is None:
            return CitizenView(Stage.ENDED if reference in self._ended else Stage.WAITING)
        if journey.stage is not Stage.QUEUED:
            return CitizenView(journey.stage, words=journey.words)
        standing = self._desk.standing(journey.call)
        return CitizenView(journey.stage, standing.place, standing.minutes, journey.words)

    def watch(self, reference: SessionRef) -> AbstractContextManager[Watch]:
        """Wait for news of a session for the block."""
        return self._watches.watch(reference)

    def result_arrived(self, reference: SessionRef, result: AuthResult) -> None:
        """Tell the page, the call and the agents of a session that its auth result is in the store."""
        self.notify(reference)
        self._desk.result_arrived(reference, verified=result.status is AuthStatus.SUCCESS)

    def notify(self, reference: SessionRef) -> None:
        """Tell those who watch a session."""
        self._watches.notify(reference)

    def _queue_changed(self) -> None:
        for reference in self._watches.names():
            journey = self._journeys.get(reference)
            if journey and journey.stage is Stage.QUEUED:
                self.notify(reference)
