"""What supervisors can do about queues, agents and calls: nothing of a citizen, and all of it on record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from idbellen.calls.audit import on_record
from idbellen.domain.agents import AgentState, phones_of
from idbellen.domain.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from idbellen.calls.desk import Desk
    from idbellen.domain.ids import AgentName, CallId, QueueName
    from idbellen.domain.queueing import Ticket
    from idbellen.ports import Account, AuditTrail, Monitor, MonitorMode


@dataclass(frozen=True, slots=True)
class SupervisionRules:
    """What the configuration lets supervisors do.

    ``pause_reasons``: the configured words; ``modes``: how they may listen in; ``announce``: the agent is told before.
    """

    pause_reasons: Collection[str] = ()
    modes: Collection[MonitorMode] = ()
    announce: bool = True


class Supervision:
    """What supervisors may do. Each action gives why not, or None if it was done.

    Nothing is done that is not on record first.
    """

    def __init__(self, desk: Desk, audit: AuditTrail, rules: SupervisionRules, monitor: Monitor | None) -> None:
        self._desk = desk
        self._audit = audit
        self.rules = rules if monitor else replace(rules, modes=())
        self._monitor = monitor

    async def set_available(self, actor: Account, agent: AgentName) -> Refusal | None:
        """Let an agent be offered calls."""

        def act() -> Refusal | None:
            self._desk.staff.set_available(agent)
            return self._absent(agent)

        return self._absent(agent) or await self._on_record(actor, "agent set available", agent, act)

    async def pause(self, actor: Account, agent: AgentName, reason: str) -> Refusal | None:
        """Let an agent be offered no calls, from the end of the call in hand on."""
        if reason and reason not in self.rules.pause_reasons:
            return Refusal.TARGET

        def act() -> Refusal | None:
            self._desk.staff.pause(agent, reason)
            return self._absent(agent)

        return self._absent(agent) or await self._on_record(actor, "agent paused", agent, act, reason=reason)

    async def move_to_front(self, actor: Account, call: CallId) -> Refusal | None:
        """Let a waiting caller go before everybody else."""
        if self._ticket(call) is None:
            return Refusal.GONE

        def act() -> Refusal | None:
            return None if self._desk.move_to_front(call) else Refusal.GONE

        return await self._on_record(actor, "caller moved to front", call, act)

    async def move_to_queue(self, actor: Account, call: CallId, queue: QueueName) -> Refusal | None:
        """Let a waiting caller wait in another queue."""
        ticket = self._ticket(call)
        if ticket is None:
            return Refusal.GONE
        if queue not in self._desk.queues.rules or queue == ticket.queue:
            return Refusal.TARGET

        def act() -> Refusal | None:
            return None if self._desk.move_to_queue(call, queue) else Refusal.GONE

        places = {"before": ticket.queue, "after": queue}
        return await self._on_record(actor, "caller moved to queue", call, act, **places)

    async def monitor(self, actor: Account, agent: AgentName, mode: MonitorMode) -> Refusal | None:
        """Let a supervisor hear the call of an agent over their own phone."""
        if self._monitor is None or mode not in self.rules.modes or agent == actor.name:
            return Refusal.TARGET
        view = self._desk.talks(agent)
        if view is None:
            return Refusal.LATER
        detail = {"mode": mode, "call": view.call, "announced": "yes" if self.rules.announce else "no"}
        if not await on_record(self._audit, actor.name, "agent monitored", agent, **detail):
            return Refusal.UNRECORDED
        # Of several phones of their own, the one that they are known by.
        if await self._monitor.request(agent, phones_of(actor.endpoint)[0], mode, announce=self.rules.announce):
            return None
        await on_record(self._audit, actor.name, "agent monitored in vain", agent, **detail)
        return Refusal.PHONE

    def _absent(self, agent: AgentName) -> Refusal | None:
        known = self._desk.staff.agents.get(agent)
        return Refusal.GONE if known is None or known.state is AgentState.OFFLINE else None

    def _ticket(self, call: CallId) -> Ticket | None:
        return next((ticket for ticket in self._desk.waiting if ticket.call == call), None)

    async def _on_record(
        self, actor: Account, action: str, subject: str, act: Callable[[], Refusal | None], **detail: str
    ) -> Refusal | None:
        if not await on_record(self._audit, actor.name, action, subject, **detail):
            return Refusal.UNRECORDED
        # While it was written the caller may have hung up, or the agent have left.
        refused = act()
        if refused:
            await on_record(self._audit, actor.name, f"{action} in vain", subject, **detail)
        return refused
