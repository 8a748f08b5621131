"""The feature codes that agents dial on their desk phones, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from idbellen.calls.feature_codes import FeatureCodes
from idbellen.calls.staff import Staff, StaffRules
from idbellen.domain.agents import AgentEvent, AgentState, PhoneState
from idbellen.domain.ids import AgentName
from idbellen.domain.prompts import Prompt
from idbellen.ports import Account, Endpoints
from tests.support import virtualtime
from tests.support.fakes import PROMPT_SECONDS, FakePhone, now
from tests.support.values import agent_now

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from idbellen.ports import AccountStore

A = AgentName("a")


class FakeAccounts:
    async def by_endpoint(self, endpoint: str) -> Account | None:
        await asyncio.sleep(0.001)
        return Account(A, endpoint, "") if endpoint == "PJSIP/a-b" else None


class InUse(Endpoints):
    """Phones that are in use, for the very call that is served."""

    def __init__(self, staff: Staff) -> None:
        self._staff = staff

    async def follow(self, endpoint: str) -> None:
        await asyncio.sleep(0.001)
        self._staff.set_phone(endpoint, PhoneState.BUSY)


def dialling(story: Callable[[Staff, Callable[..., Any]], Coroutine[Any, Any, None]]) -> None:
    """Run a story that dials codes: ``await dial("login")`` gives what is heard."""

    async def run() -> None:
        staff = Staff(now, StaffRules(grace=15.0, rest=5.0))
        features = FeatureCodes(cast("AccountStore", FakeAccounts()), staff, InUse(staff))

        async def dial(code: str, phone: str = "PJSIP/a-b") -> Prompt:
            call, began = FakePhone(), now()
            await features.serve(call, phone, code)
            assert now() - began >= PROMPT_SECONDS, "the prompt is played to its end"
            [(_, prompt)] = call.heard
            return prompt

        await story(staff, dial)

    virtualtime.run(run())


def test_a_day_with_the_desk_phone_alone() -> None:
    async def story(staff: Staff, dial: Callable[..., Any]) -> None:
        assert await dial("pause") is Prompt.AGENT_LOGGED_OUT, "not logged in yet"
        assert await dial("logout") is Prompt.AGENT_LOGGED_OUT
        assert await dial("login") is Prompt.AGENT_LOGGED_IN
        assert (staff[A].state, staff[A].phone) == (AgentState.AVAILABLE, PhoneState.BUSY)
        assert staff.with_phone_alone(A)
        assert await dial("login") is Prompt.AGENT_LOGGED_IN, "once more changes nothing"
        assert agent_now(staff, A).state is AgentState.AVAILABLE
        assert await dial("pause") is Prompt.AGENT_PAUSED
        assert agent_now(staff, A).state is AgentState.PAUSED
        assert await dial("pause") is Prompt.AGENT_AVAILABLE
        assert agent_now(staff, A).state is AgentState.AVAILABLE
        assert await dial("logout") is Prompt.AGENT_LOGGED_OUT
        assert agent_now(staff, A).state is AgentState.OFFLINE

    dialling(story)


def test_a_code_during_a_call_holds_from_its_end_on() -> None:
    async def story(staff: Staff, dial: Callable[..., Any]) -> None:
        await dial("login")
        for event in (AgentEvent.OFFER, AgentEvent.RING, AgentEvent.CONNECT):
            staff.happen(A, event)
        assert await dial("pause") is Prompt.AGENT_PAUSED
        assert await dial("pause") is Prompt.AGENT_AVAILABLE
        assert await dial("logout") is Prompt.AGENT_LOGGED_OUT
        assert staff[A].state is AgentState.IN_CALL
        staff.happen(A, AgentEvent.FINISH)
        assert agent_now(staff, A).state is AgentState.OFFLINE

    dialling(story)


def test_logging_out_pauses_who_has_a_dashboard_open() -> None:
    async def story(staff: Staff, dial: Callable[..., Any]) -> None:
        with staff.present(Account(A, "PJSIP/a-b", "")):
            assert await dial("login") is Prompt.AGENT_LOGGED_IN
            assert not staff.with_phone_alone(A)
            assert await dial("logout") is Prompt.AGENT_PAUSED
            assert staff[A].state is AgentState.PAUSED
        await asyncio.sleep(20)

    dialling(story)


@pytest.mark.parametrize("code", ["login", "logout", "pause"])
def test_a_phone_of_nobody_is_told_so(code: str) -> None:
    async def story(staff: Staff, dial: Callable[..., Any]) -> None:
        assert await dial(code, phone="PJSIP/other") is Prompt.AGENT_UNKNOWN
        assert not staff.agents

    dialling(story)


def test_a_code_that_nobody_knows_changes_nothing() -> None:
    async def story(staff: Staff, dial: Callable[..., Any]) -> None:
        await dial("login")
        assert await dial("holiday") is Prompt.AGENT_UNKNOWN
        assert staff[A].state is AgentState.AVAILABLE

    dialling(story)
