"""Where waiting callers stand, and how long the wait will be."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idbellen.domain.expected_wait import expected_wait, spoken_minutes
from idbellen.domain.queueing import Queues, Ticket, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from idbellen.calls.staff import Staff
    from idbellen.domain.ids import CallId, QueueName
    from idbellen.ports import Clock

# So many of the latest calls of a queue tell how long the next will take.
RECENT_CALLS = 50


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a waiting caller stands: place in the queue, 1 for next, and the expected wait if it is known."""

    place: int | None
    minutes: int | None


class Standings:
    """Knows who is next, who serves whom, and how long calls have taken."""

    def __init__(self, clock: Clock, staff: Staff, queues: Queues) -> None:
        self._clock = clock
        self._staff = staff
        self._queues = queues
        self._handling: defaultdict[QueueName, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT_CALLS))
        # Both until the next change, since many citizens' pages ask at once.
        self._ranking: Mapping[CallId, int] | None = None
        self._crews: dict[QueueName, tuple[int, int]] = {}

    def changed(self) -> None:
        """Look anew at the next question."""
        self._ranking = None
        self._crews.clear()

    def handled(self, queue: QueueName, seconds: float) -> None:
        """Note how long a call of a queue took, until the agent was free again: that is what the next waits for."""
        self._handling[queue].append(seconds)

    def place(self, call: CallId, waiting: Callable[[], Iterable[Ticket]]) -> int | None:
        """Give the place of a call among those who wait; ``waiting`` is asked for them when anything has changed."""
        if self._ranking is None:
            self._ranking = places(waiting(), self._queues)
        return self._ranking.get(call)

    def minutes(self, ticket: Ticket, place: int) -> int | None:
        """Give the expected wait.

        For whom others will be served before who have yet to call, a wait by the place would be far too short.
        """
        queue = ticket.queue
        if self._queues[queue].verified_first and not ticket.verified:
            return None
        if queue not in self._crews:
            now = self._clock()
            agents = [agent for agent in self._staff.agents.values() if agent.penalty(queue) is not None]
            self._crews[queue] = sum(agent.works for agent in agents), sum(agent.free(now) for agent in agents)
        works, free = self._crews[queue]
        seconds = expected_wait(place, agents=works, free=free, handling=self._handling[queue])
        return None if seconds is None else spoken_minutes(seconds)
