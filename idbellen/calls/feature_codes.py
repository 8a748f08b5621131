"""Feature codes: agents log in and out and pause with nothing but their desk phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from idbellen.aio import timeout
from idbellen.domain.agents import AgentState
from idbellen.domain.prompts import Prompt

if TYPE_CHECKING:
    from idbellen.calls.staff import Staff
    from idbellen.domain.ids import AgentName
    from idbellen.ports import Account, AccountStore, Endpoints, Phone

log = structlog.get_logger()

LONGEST_SECONDS = 20.0
_TAKES_CALLS = (AgentState.AVAILABLE, AgentState.WRAP_UP)


class FeatureCodes:
    """Does what a phone's feature code asks for, and says so."""

    def __init__(self, accounts: AccountStore, staff: Staff, endpoints: Endpoints) -> None:
        self._accounts = accounts
        self._staff = staff
        self._endpoints = endpoints

    async def serve(self, phone: Phone, endpoint: str, code: str) -> None:
        """Serve one call of an agent's phone, for a code: ``login``, ``logout`` or ``pause``."""
        async with timeout(LONGEST_SECONDS):
            # Asterisk does not count a phone as in use before its call is answered.
            await phone.answer()
            prompt = await self._act(endpoint, code)
            log.info("feature code", endpoint=endpoint, code=code, says=prompt.value)
            playback = await phone.play((prompt,))
            await playback.ended()

    async def _act(self, endpoint: str, code: str) -> Prompt:
        account = await self._accounts.by_endpoint(endpoint)
        # Of those who share a phone only who works with it now is known.
        name = account.name if account else self._staff.here_with(endpoint)
        if name is None:
            return Prompt.AGENT_UNKNOWN
        # The phone is in use, for this very call: known before, or a caller would be offered to it at once.
        await self._endpoints.follow(endpoint)
        match code:
            case "login" if account:
                return self._log_in(account)
            case "logout":
                return self._log_out(name)
            case "pause":
                return self._pause(name)
        return Prompt.AGENT_UNKNOWN

    def _log_in(self, account: Account) -> Prompt:
        self._staff.log_in_by_phone(account)
        return Prompt.AGENT_LOGGED_IN

    def _log_out(self, name: AgentName) -> Prompt:
        self._staff.log_out_by_phone(name)
        agent = self._staff.agents.get(name)
        if agent is None or agent.state is AgentState.OFFLINE or agent.engaged:
            return Prompt.AGENT_LOGGED_OUT
        # A dashboard of theirs is open.
        self._staff.pause(name, "")
        return Prompt.AGENT_PAUSED

    def _pause(self, name: AgentName) -> Prompt:
        agent = self._staff.agents.get(name)
        if agent is None or agent.state is AgentState.OFFLINE:
            return Prompt.AGENT_LOGGED_OUT
        wanted = agent.afterwards if agent.engaged else agent.state
        if wanted in _TAKES_CALLS:
            self._staff.pause(name, "")
            return Prompt.AGENT_PAUSED
        self._staff.set_available(name)
        return Prompt.AGENT_AVAILABLE
