"""Calls in a PBX's queue, in virtual time: screens, absences of AMI, adoption, members, and what the citizen sees."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY, AsyncMock, patch

import pytest

from idbellen.calls.pbx.call import take_pbx_call
from idbellen.calls.pbx.members import MemberRules, PbxMembers
from idbellen.calls.pbx.queue import PbxCalls, PbxRules, Verdict
from idbellen.domain.agents import Agent, AgentEvent, AgentState
from idbellen.domain.board import Stage
from idbellen.domain.ids import AgentName, CallId, QueueName, SessionRef
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import ForPurpose, Goodbye, Plain
from idbellen.domain.statistics import CallOutcome
from idbellen.domain.talk import Mode
from idbellen.domain.wiring import (
    Answered,
    Appeared,
    Channel,
    Entered,
    Gone,
    Held,
    Left,
    LeftQueue,
    Lost,
    Member,
    MemberGone,
    Members,
    PbxEvent,
    Queued,
    Snapshot,
)
from idbellen.ports import Account, StoreError
from tests.support import virtualtime
from tests.support.fakes import FakeCallLog, FakePhone, FakeSessions, now
from tests.support.stories import ADMITTING, RULES, account, new_office
from tests.support.values import agent_now

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from idbellen.calls.office import CallRules, Office
    from idbellen.domain.queueing import WithoutCode

A, B, PJSIP_ANN = AgentName("a"), AgentName("b"), AgentName("PJSIP/ann")
D, E, ANN, BOB = map(AgentName, ("d", "e", "ann", "bob"))

CODE, WRONG = "1234567890", "9876543210"
REFERENCE = SessionRef(f"session {CODE}")
CALLER, FIRST, SECOND = "PJSIP/trunk-01", "a-02", "b-03"
NOBODY = Snapshot((Channel("c", CALLER),))


class Sessions(FakeSessions):
    """Sessions whose codes can be replaced."""

    async def issue_code(self, reference: SessionRef, code: str, now: float, *, valid_until: float) -> bool:
        await asyncio.sleep(0.001)
        for old, session in list(self.codes.items()):
            if session.reference == reference:
                del self.codes[old]
                self.codes[code if valid_until > now else f"dead {code}"] = session
                return True
        return False

    async def finish(self, call: CallId) -> Any:
        session = await super().finish(call)
        self.codes = {code: kept for code, kept in self.codes.items() if kept.reference not in self.finished}
        return session


@dataclass
class LentPhone(FakePhone):
    """A caller whom the PBX's dialplan lends us."""

    uid: str = "c"
    told: list[Verdict] = field(default_factory=list)

    async def tell(self, verdict: Verdict) -> None:
        await asyncio.sleep(0.001)
        self.told.append(verdict)

    async def let_go(self) -> None:
        await asyncio.sleep(0.001)
        self.end = "dialplan"
        self.hangs_up = 10_000.0


def typed(code: str, at: float = 1.0) -> list[tuple[float, str]]:
    return [(at + 0.3 * position, key) for position, key in enumerate(code)]


@dataclass
class Pbx:
    """One story: the office, the calls, and a way to tell what the PBX does."""

    office: Office
    calls: PbxCalls
    sessions: Sessions
    log: FakeCallLog
    events: asyncio.Queue[PbxEvent]

    async def tell(self, *events: PbxEvent) -> None:
        for event in events:
            self.events.put_nowait(event)
        await asyncio.sleep(0.1)

    def seen(self, agent: AgentName) -> tuple[SessionRef, Mode] | None:
        call = self.office.desk.view(agent).call
        return (call.session, call.mode) if call else None

    def in_call_without_data(self, agent: AgentName, mode: Mode = Mode.TALKING) -> str:
        """Check that an agent is in a call with somebody who is not verified; gives the call."""
        view = self.office.desk.view(agent)
        assert view.agent.state is AgentState.IN_CALL
        assert view.call
        assert (view.call.session, view.call.secret, view.call.words, view.call.mode) == ("", None, None, mode)
        assert view.call.allowed == frozenset()
        return view.call.call

    def idle(self, agent: AgentName) -> bool:
        view = self.office.desk.view(agent)
        return view.call is None and view.agent.state in (AgentState.AVAILABLE, AgentState.PAUSED)

    def stage(self) -> Stage:
        return self.office.progress.view(REFERENCE).stage


def tell(
    story: Callable[[Pbx], Coroutine[Any, Any, None]], *, lost: float = 30.0, rules: CallRules = RULES
) -> Sessions:
    """Tell a story with two agents whose dashboards are open, of whom the first is available."""
    sessions = Sessions(CODE)

    async def run() -> None:
        log = FakeCallLog()
        office = new_office(rules, sessions, log=log)
        events: asyncio.Queue[PbxEvent] = asyncio.Queue()
        calls = PbxCalls(office, PbxRules({"q": QueueName("default")}, lost))
        pbx = Pbx(office, calls, sessions, log, events)
        staff = office.desk.staff
        watches = [staff.present(account(name)) for name in ("a", "b")]
        for watch in watches:
            watch.__enter__()
        staff.set_available(A)
        following = asyncio.create_task(calls.run(events.get))
        await story(pbx)
        following.cancel()
        await asyncio.wait([following])
        for watch in watches:
            watch.__exit__(None, None, None)
        # Until the grace is over, and what was scheduled is done.
        await asyncio.sleep(60)

    virtualtime.run(run())
    return sessions


async def call_in(pbx: Pbx, phone: LentPhone | None = None) -> asyncio.Task[None]:
    """Let a caller key in the right code, and come into the queue."""
    await pbx.tell(NOBODY)
    task = asyncio.create_task(take_pbx_call(phone or LentPhone(keys=typed(CODE)), pbx.office, pbx.calls))
    await asyncio.sleep(12)
    await pbx.tell(Queued("c", "q"))
    return task


CONNECTED = (LeftQueue("c", "q"), Answered("c", "q", "a"), Entered("a1", FIRST, "br"), Entered("c", CALLER, "br"))


def test_from_the_code_to_the_screen_and_to_the_end() -> None:
    phone = LentPhone(keys=typed(CODE))

    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx, phone)
        assert phone.told == [Verdict(verified=True, purpose="report_move", priority=1, reference=REFERENCE)]
        assert phone.end == "dialplan"
        assert (pbx.stage(), pbx.office.progress.view(REFERENCE).place) == (Stage.QUEUED, 1)
        assert pbx.office.desk.waiting_by_queue() == {"default": 1}
        await pbx.tell(*CONNECTED)
        assert pbx.seen(A) == (REFERENCE, Mode.TALKING)
        assert pbx.seen(B) is None
        assert pbx.stage() is Stage.CONNECTED
        await pbx.tell(Held("a1", on=True))
        assert pbx.seen(A) == (REFERENCE, Mode.HELD)
        await pbx.tell(Held("a1", on=False))
        assert pbx.seen(A) == (REFERENCE, Mode.TALKING)
        await asyncio.sleep(60)
        await pbx.tell(Left("a1", "br"), Left("c", "br"), Gone("a1"), Gone("c"))
        await task
        assert pbx.seen(A) is None
        assert pbx.stage() is Stage.ENDED
        [record] = pbx.log.records
        assert (record.outcome, record.agent, record.verified) == (CallOutcome.ANSWERED, "a", True)
        assert record.talked > 60

    assert tell(story).finished == [REFERENCE]


def test_a_transfer_moves_the_screen_also_to_who_is_paused() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(*CONNECTED)
        # To ask a colleague, the PBX takes the agent out; then it swaps them.
        await pbx.tell(Left("a1", "br"), Entered("a1", FIRST, "ask"), Entered("b1", SECOND, "ask"))
        assert pbx.seen(A) == (REFERENCE, Mode.HELD)
        assert pbx.seen(B) is None
        await pbx.tell(Gone("a1"), Left("b1", "ask"), Entered("b1", SECOND, "br"))
        assert pbx.seen(A) is None
        assert pbx.seen(B) == (REFERENCE, Mode.TALKING)
        assert pbx.office.desk.staff[B].afterwards is AgentState.PAUSED
        await pbx.tell(Gone("c"))
        await task
        assert pbx.seen(B) is None
        assert pbx.office.desk.staff[B].state is AgentState.PAUSED
        assert pbx.office.desk.staff[A].state is AgentState.AVAILABLE

    tell(story)


def test_in_a_conference_the_screen_stays_with_who_had_it() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(*CONNECTED, Entered("b1", SECOND, "br"))
        assert (pbx.seen(A), pbx.seen(B)) == ((REFERENCE, Mode.TALKING), None)
        await pbx.tell(Left("a1", "br"))
        assert (pbx.seen(A), pbx.seen(B)) == (None, (REFERENCE, Mode.TALKING))
        await pbx.tell(Gone("c"))
        await task

    tell(story)


def test_who_gives_up_may_use_the_code_again() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(LeftQueue("c", "q", abandoned=True), LeftQueue("c", "q"), Gone("c"))
        await task
        assert pbx.stage() is Stage.WAITING
        assert [record.outcome for record in pbx.log.records] == [CallOutcome.ABANDONED]
        assert pbx.office.desk.waiting_by_queue() == {"default": 0}

    sessions = tell(story)
    assert (sessions.finished, sessions.claimed, list(sessions.codes)) == ([], {}, [CODE])


@pytest.mark.parametrize("hangs_up", [0.5, 2.0, 4.5])
def test_a_hangup_before_the_dialplan_goes_on(hangs_up: float) -> None:
    async def story(pbx: Pbx) -> None:
        await pbx.tell(NOBODY)
        await take_pbx_call(LentPhone(keys=typed(CODE), hangs_up=now() + hangs_up), pbx.office, pbx.calls)

    sessions = tell(story)
    assert (sessions.finished, sessions.claimed) == ([], {})


@pytest.mark.parametrize(
    ("way", "end", "verdict"),
    [
        (Plain(), "dialplan", Verdict(verified=False)),
        (Goodbye(), "hung up", Verdict(verified=False)),
        (ForPurpose("report_move"), "dialplan", Verdict(verified=False, purpose="report_move", reference=ANY)),
    ],
)
def test_a_caller_who_says_that_they_have_no_code(way: WithoutCode, end: str, verdict: Verdict) -> None:
    phone = LentPhone(keys=[(1.0, "#")])
    rules = replace(ADMITTING, entry=replace(RULES.entry, without_code=True), without_code=way)

    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx, phone)
        assert (phone.told, phone.end) == ([verdict], end)
        await pbx.tell(*CONNECTED)
        call = pbx.office.desk.view(A).call
        assert call
        assert call.words is None
        # Who is served for a purpose has a session, of which there is nothing to show but that.
        assert (call.secret is not None) is isinstance(way, ForPurpose)
        await pbx.tell(Gone("a1"), Gone("c"))
        await task
        [record] = pbx.log.records
        assert (record.verified, record.outcome) == (False, CallOutcome.ANSWERED)

    tell(story, rules=rules)


def test_without_a_right_code_the_dialplan_is_told_so() -> None:
    phone = LentPhone(keys=typed(WRONG) + typed(WRONG, 20.0) + typed(WRONG, 40.0))

    async def story(pbx: Pbx) -> None:
        await pbx.tell(NOBODY)
        await take_pbx_call(phone, pbx.office, pbx.calls)

    tell(story)
    assert (phone.told, phone.end) == ([Verdict(verified=False)], "dialplan")
    assert phone.heard[-1][1] is Prompt.NOT_VERIFIED


def test_strangers_are_calls_without_anything_to_show() -> None:
    async def story(pbx: Pbx) -> None:
        await pbx.tell(NOBODY, Appeared("s", "PJSIP/trunk-09"), Queued("s", "q"), Queued("t", "another queue"))
        assert pbx.office.desk.waiting_by_queue() == {"default": 1}
        await pbx.tell(LeftQueue("s", "q"), Answered("s", "q", "a"))
        await pbx.tell(Entered("a1", FIRST, "br"), Entered("s", "PJSIP/trunk-09", "br"))
        call = pbx.in_call_without_data(A)
        await pbx.tell(Held("a1", on=True))
        assert pbx.in_call_without_data(A, Mode.HELD) == call
        await pbx.tell(Gone("s"))
        assert pbx.idle(A)
        assert [(r.outcome, r.verified, r.agent) for r in pbx.log.records] == [(CallOutcome.ANSWERED, False, "a")]

    tell(story)


def test_who_is_not_verified_is_known_wherever_the_dialplan_leads() -> None:
    async def story(pbx: Pbx) -> None:
        phone = LentPhone(keys=typed(WRONG) + typed(WRONG, 20.0) + typed(WRONG, 40.0))
        await pbx.tell(NOBODY)
        await take_pbx_call(phone, pbx.office, pbx.calls)
        # No queue that is followed: the PBX keeps its members and its figures.
        await pbx.tell(Entered("a1", FIRST, "br"), Entered("c", CALLER, "br"))
        pbx.in_call_without_data(A)
        # To a colleague.
        await pbx.tell(Left("a1", "br"), Gone("a1"), Entered("b1", SECOND, "br"))
        assert pbx.idle(A)
        pbx.in_call_without_data(B)
        await pbx.tell(Gone("c"))
        assert pbx.idle(B)
        assert pbx.log.records == []

    tell(story)


def test_after_a_restart_and_a_long_absence_who_talks_with_a_stranger_is_in_a_call() -> None:
    talking = Snapshot((Channel("s", "PJSIP/trunk-09", "br", asked=True), Channel("a1", FIRST, "br")))

    async def story(pbx: Pbx) -> None:
        await pbx.tell(talking)
        pbx.in_call_without_data(A)
        await pbx.tell(Lost())
        await asyncio.sleep(20)
        pbx.in_call_without_data(A)
        await asyncio.sleep(20)
        assert pbx.idle(A), "nobody knows"
        await pbx.tell(talking)
        pbx.in_call_without_data(A)
        await pbx.tell(Lost(), Snapshot(()))
        assert pbx.idle(A), "it has ended in between"

    tell(story)


def test_dashboards_are_told_whether_the_pbx_can_be_reached() -> None:
    async def story(pbx: Pbx) -> None:
        await pbx.tell(Snapshot(()))
        assert pbx.office.desk.telephony
        await pbx.tell(Lost())
        assert not pbx.office.desk.telephony
        await pbx.tell(Snapshot(()))
        assert pbx.office.desk.telephony

    tell(story)


def test_the_second_device_of_an_agent_shows_the_citizen() -> None:
    async def story(pbx: Pbx) -> None:
        with pbx.office.desk.staff.present(Account(D, "d-desk&d-home", "")):
            task = await call_in(pbx)
            await pbx.tell(LeftQueue("c", "q"), Answered("c", "q", "Local/d@q/n"), Entered("c", CALLER, "br"))
            await pbx.tell(Entered("d2", "d-home-07", "br"))
            assert pbx.seen(D) == (REFERENCE, Mode.TALKING)
            assert pbx.office.desk.staff[D].state is AgentState.IN_CALL
            await pbx.tell(Gone("c"))
            await task
        assert [record.agent for record in pbx.log.records] == ["d"]

    tell(story)


def test_of_two_with_one_phone_the_one_who_works_sees_the_citizen_and_keeps_it() -> None:
    async def story(pbx: Pbx) -> None:
        staff = pbx.office.desk.staff
        with staff.present(Account(D, "shared", "")), staff.present(Account(E, "shared", "")):
            staff.set_available(D)
            task = await call_in(pbx)
            await pbx.tell(LeftQueue("c", "q"), Entered("c", CALLER, "br"), Entered("s1", "shared-07", "br"))
            assert pbx.seen(D) == (REFERENCE, Mode.TALKING)
            staff.set_available(E)
            await asyncio.sleep(0.1)
            assert (pbx.seen(D), pbx.seen(E)) == ((REFERENCE, Mode.TALKING), None)
            await pbx.tell(Gone("c"))
            await task

    tell(story)


def test_ami_is_away_for_a_moment_and_the_screen_stays() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(*CONNECTED, Lost())
        await asyncio.sleep(20)
        assert pbx.seen(A) == (REFERENCE, Mode.TALKING)
        await pbx.tell(Snapshot((Channel("c", CALLER, "br", REFERENCE), Channel("b1", SECOND, "br"))))
        assert pbx.seen(B) == (REFERENCE, Mode.TALKING), "moved in the meantime"
        await pbx.tell(Lost())
        await pbx.tell(Snapshot(()))
        await task
        assert pbx.seen(B) is None

    assert tell(story).finished == [REFERENCE]


def test_ami_is_away_for_long_the_screen_is_cleared_and_comes_back() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(*CONNECTED, Lost())
        await asyncio.sleep(31)
        await task
        assert pbx.seen(A) is None
        assert CODE not in pbx.sessions.codes, "an agent has spoken: the code is gone"
        secret = None
        await pbx.tell(Snapshot((Channel("c", CALLER, "br", REFERENCE), Channel("a1", FIRST, "br"))))
        assert pbx.seen(A) == (REFERENCE, Mode.TALKING)
        view = pbx.office.desk.view(A).call
        assert view
        assert view.secret != secret
        await pbx.tell(Gone("c"))
        assert pbx.seen(A) is None

    assert tell(story).finished == [REFERENCE]


def test_a_call_of_an_earlier_process_is_taken_up_in_the_queue() -> None:
    async def story(pbx: Pbx) -> None:
        await pbx.tell(Snapshot((Channel("c", CALLER, "", REFERENCE),), (Queued("c", "q", 40.0),)))
        assert pbx.stage() is Stage.QUEUED
        [ticket] = pbx.office.desk.waiting
        assert (ticket.session, ticket.verified) == (REFERENCE, True)
        assert now() - ticket.since == pytest.approx(40.0, abs=1.0)
        await pbx.tell(*CONNECTED)
        assert pbx.seen(A) == (REFERENCE, Mode.TALKING)
        await pbx.tell(Gone("c"))

    assert tell(story).finished == [REFERENCE]


def test_a_planned_stop_keeps_the_session_for_the_next_process() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(*CONNECTED)
        task.cancel()
        await asyncio.wait([task])
        assert pbx.seen(A) is None

    sessions = tell(story)
    assert (sessions.finished, sessions.claimed) == ([], {})
    assert [session.reference for session in sessions.codes.values()] == [REFERENCE]


def test_a_reference_that_is_none_takes_nothing_up() -> None:
    async def story(pbx: Pbx) -> None:
        await pbx.tell(Snapshot((Channel("c", CALLER, "br", "another"), Channel("a1", FIRST, "br"))))
        pbx.in_call_without_data(A)

    tell(story)


def test_without_ami_the_session_is_held_for_a_bounded_time() -> None:
    async def story(pbx: Pbx) -> None:
        await asyncio.wait_for(take_pbx_call(LentPhone(keys=typed(CODE)), pbx.office, pbx.calls), 60)

    sessions = tell(story)
    assert (sessions.finished, sessions.claimed) == ([], {})


def test_who_has_left_before_the_code_was_right_keeps_it() -> None:
    async def story(pbx: Pbx) -> None:
        await pbx.tell(NOBODY)
        task = asyncio.create_task(take_pbx_call(LentPhone(keys=typed(CODE)), pbx.office, pbx.calls))
        await pbx.tell(Gone("c"))
        await asyncio.wait_for(task, 60)

    sessions = tell(story)
    assert (sessions.finished, sessions.claimed, list(sessions.codes)) == ([], {}, [CODE])


@pytest.mark.parametrize("store", [{"return_value": True}, {"side_effect": StoreError("away")}])
def test_a_call_of_an_earlier_process_whose_session_cannot_be_had_is_a_call_still(store: dict[str, Any]) -> None:
    """The store has forgotten it between two questions, or is away."""

    async def story(pbx: Pbx) -> None:
        with patch.object(pbx.sessions, "issue_code", AsyncMock(**store)):
            await pbx.tell(Snapshot((Channel("c", CALLER, "br", REFERENCE), Channel("a1", FIRST, "br"))))
        pbx.in_call_without_data(A)

    tell(story)


def test_who_left_the_queue_while_ami_was_away_waits_no_longer() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(Lost(), Lost())
        assert pbx.office.desk.waiting_by_queue() == {"default": 1}
        await pbx.tell(Snapshot((Channel("c", CALLER, "", REFERENCE),)))
        assert pbx.office.desk.waiting_by_queue() == {"default": 0}
        await pbx.tell(Gone("c"))
        await task

    tell(story)


def test_what_is_told_of_nobody_or_cannot_be_understood_costs_no_screen() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        nobody: Any = []
        await pbx.tell(LeftQueue("another", "q"), Answered("another", "q", "a"), LeftQueue(nobody, "q"))
        assert pbx.office.desk.waiting_by_queue() == {"default": 1}
        await pbx.tell(*CONNECTED)
        assert pbx.seen(A) == (REFERENCE, Mode.TALKING)
        await pbx.tell(Gone("c"))
        await task

    tell(story)


def test_who_talks_with_two_callers_sees_the_first_until_that_one_is_gone() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(*CONNECTED, Appeared("e", "PJSIP/trunk-05"), Queued("e", "q"), LeftQueue("e", "q"))
        await pbx.tell(Answered("e", "q", "a"), Entered("a2", "a-06", "br2"), Entered("e", "PJSIP/trunk-05", "br2"))
        assert pbx.seen(A) == (REFERENCE, Mode.TALKING)
        await pbx.tell(Gone("a1"), Gone("c"))
        await task
        pbx.in_call_without_data(A)
        await pbx.tell(Gone("e"))

    tell(story)


def test_a_stop_while_ami_is_away_keeps_the_session_too() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(*CONNECTED, Lost())
        task.cancel()
        await asyncio.wait([task])

    sessions = tell(story)
    assert (sessions.finished, sessions.claimed) == ([], {})


def test_an_agent_who_opens_the_dashboard_during_the_call_sees_it() -> None:
    async def story(pbx: Pbx) -> None:
        task = await call_in(pbx)
        await pbx.tell(LeftQueue("c", "q"), Entered("c", CALLER, "br"), Entered("d1", "d-04", "br"))
        assert pbx.seen(A) is None
        with pbx.office.desk.staff.present(account("d")):
            await asyncio.sleep(0.1)
            assert pbx.seen(AgentName("d")) == (REFERENCE, Mode.TALKING)
            await pbx.tell(Gone("c"))
            await task

    tell(story)


# Members


class Control:
    """A PBX that does as it is told, and tells so a little later."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []
        self.willing = True
        self.members: PbxMembers | None = None

    async def add_member(self, queue: str, interface: str, *, name: str, penalty: int, state: str) -> bool:
        news = Member(queue, interface, paused=False)
        return await self._do(news, "add", queue, interface, name, f"{penalty}", state)

    async def remove_member(self, queue: str, interface: str) -> bool:
        return await self._do(MemberGone(queue, interface), "remove", queue, interface)

    async def pause_member(self, queue: str, interface: str, *, paused: bool, reason: str) -> bool:
        news = Member(queue, interface, paused)
        return await self._do(news, "pause" if paused else "resume", queue, interface, reason)

    async def _do(self, news: PbxEvent, *done: str) -> bool:
        await asyncio.sleep(0.01)
        self.done.append(done)
        if self.willing and self.members:
            asyncio.get_running_loop().call_later(0.05, self.members.take, news)
        return self.willing


FREEPBX = MemberRules({"q": QueueName("default")}, "Local/{name}@from-queue/n", "hint:{name}@ext-local")


def with_members(
    story: Callable[[Office, PbxMembers, Control], Coroutine[Any, Any, None]], rules: MemberRules = FREEPBX
) -> None:
    async def run() -> None:
        office = new_office(RULES, FakeSessions(CODE))
        control = Control()
        members = control.members = PbxMembers(office.desk.staff, control, rules)
        running = asyncio.create_task(members.run())
        members.take(Snapshot(()))
        await story(office, members, control)
        running.cancel()
        await asyncio.wait([running])
        await asyncio.sleep(60)

    virtualtime.run(run())


def agent() -> Any:
    return account("PJSIP/ann")


INTERFACE = "Local/ann@from-queue/n"


def test_members_follow_the_dashboard() -> None:
    async def story(office: Office, _: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        with staff.present(agent()):
            await asyncio.sleep(1)
            assert control.done == [], "who is paused need not be a member"
            staff.set_available(PJSIP_ANN)
            await asyncio.sleep(1)
            staff.pause(PJSIP_ANN, "lunch")
            await asyncio.sleep(1)
            staff.set_available(PJSIP_ANN)
            await asyncio.sleep(1)
        await asyncio.sleep(20)
        assert control.done == [
            ("add", "q", INTERFACE, "PJSIP/ann", "0", "hint:ann@ext-local"),
            ("pause", "q", INTERFACE, "lunch"),
            ("resume", "q", INTERFACE, ""),
            ("remove", "q", INTERFACE),
        ]

    with_members(story)


def test_the_dashboard_follows_members() -> None:
    async def story(office: Office, members: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        with staff.present(agent()):
            members.take(Member("q", INTERFACE, paused=False))
            assert agent_now(staff, PJSIP_ANN).state is AgentState.AVAILABLE
            members.take(Member("q", INTERFACE, paused=True))
            assert agent_now(staff, PJSIP_ANN).state is AgentState.PAUSED
            members.take(Member("q", INTERFACE, paused=False))
            members.take(MemberGone("q", INTERFACE))
            assert agent_now(staff, PJSIP_ANN).state is AgentState.PAUSED
            await asyncio.sleep(1)
        await asyncio.sleep(20)
        assert control.done == []

    with_members(story)


def test_a_quick_change_of_mind_is_not_undone_by_the_news_of_the_first() -> None:
    async def story(office: Office, _: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        with staff.present(agent()):
            staff.set_available(PJSIP_ANN)
            await asyncio.sleep(1)
            staff.pause(PJSIP_ANN, "")
            await asyncio.sleep(0.02)
            staff.set_available(PJSIP_ANN)
            await asyncio.sleep(1)
            assert staff[PJSIP_ANN].state is AgentState.AVAILABLE
            assert [what for what, *_ in control.done] == ["add", "pause", "resume"]
        await asyncio.sleep(20)

    with_members(story)


def test_a_refusal_is_tried_again() -> None:
    async def story(office: Office, _: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        with staff.present(agent()):
            control.willing = False
            staff.set_available(PJSIP_ANN)
            await asyncio.sleep(1)
            control.willing = True
            await asyncio.sleep(15)
            assert [what for what, *_ in control.done] == ["add", "add"]
            assert staff[PJSIP_ANN].state is AgentState.AVAILABLE
        await asyncio.sleep(30)

    with_members(story)


def test_a_static_member_is_paused_instead_of_taken_out() -> None:
    async def story(office: Office, members: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        members.take(Snapshot((), (), (Member("q", INTERFACE, paused=True, dynamic=False),)))
        with staff.present(agent()):
            staff.set_available(PJSIP_ANN)
            await asyncio.sleep(1)
        await asyncio.sleep(20)
        assert [what for what, *_ in control.done] == ["resume", "pause"]

    with_members(story)


def test_a_refusal_to_take_a_member_out_is_tried_again() -> None:
    async def story(office: Office, _: PbxMembers, control: Control) -> None:
        with office.desk.staff.present(agent()):
            office.desk.staff.set_available(PJSIP_ANN)
            await asyncio.sleep(1)
            control.willing = False
        await asyncio.sleep(20)
        control.willing = True
        await asyncio.sleep(15)
        assert [what for what, *_ in control.done] == ["add", "remove", "remove"]

    with_members(story)


def compared(*members: Member) -> Members:
    return Members(members)


def test_changes_without_news_are_found_by_comparing() -> None:
    async def story(office: Office, members: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        with staff.present(agent()):
            staff.set_available(PJSIP_ANN)
            await asyncio.sleep(10)
            members.take(compared(Member("q", INTERFACE, paused=False)))
            assert agent_now(staff, PJSIP_ANN).state is AgentState.AVAILABLE
            members.take(compared(Member("q", INTERFACE, paused=True)))
            assert agent_now(staff, PJSIP_ANN).state is AgentState.PAUSED
            members.take(compared(Member("q", INTERFACE, paused=False)))
            assert agent_now(staff, PJSIP_ANN).state is AgentState.AVAILABLE
            # Taken out in the PBX's own interface.
            members.take(compared())
            assert agent_now(staff, PJSIP_ANN).state is AgentState.PAUSED
            await asyncio.sleep(10)
            assert [what for what, *_ in control.done] == ["add"]
        await asyncio.sleep(20)
        assert [what for what, *_ in control.done] == ["add"]

    with_members(story)


def test_a_member_whom_the_configuration_brings_is_as_the_dashboard_says() -> None:
    async def story(office: Office, members: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        members.take(compared(Member("q", "Local/nobody@from-queue/n", paused=False, dynamic=False)))
        with staff.present(agent()):
            await asyncio.sleep(1)
            members.take(compared(Member("q", INTERFACE, paused=False, dynamic=False)))
            await asyncio.sleep(1)
            assert staff[PJSIP_ANN].state is AgentState.PAUSED
            assert control.done == [("pause", "q", INTERFACE, "")]
        await asyncio.sleep(20)

    with_members(story)


def test_comparing_does_not_undo_what_was_changed_just_now() -> None:
    async def story(office: Office, members: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        with staff.present(agent()):
            staff.set_available(PJSIP_ANN)
            await asyncio.sleep(0.02)
            # Asked for before the member was there, and a moment later before it was paused.
            members.take(compared())
            await asyncio.sleep(1)
            staff.pause(PJSIP_ANN, "")
            await asyncio.sleep(0.02)
            members.take(compared(Member("q", INTERFACE, paused=False)))
            await asyncio.sleep(1)
            assert staff[PJSIP_ANN].state is AgentState.PAUSED
            assert [what for what, *_ in control.done] == ["add", "pause"]
        await asyncio.sleep(20)

    with_members(story)


def test_news_of_ours_that_never_came_hides_no_change_for_long() -> None:
    async def story(office: Office, members: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        control.members = None
        with staff.present(agent()):
            staff.set_available(PJSIP_ANN)
            await asyncio.sleep(60)
            members.take(Gone("a channel, which is no member"))
            assert agent_now(staff, PJSIP_ANN).state is AgentState.AVAILABLE
            members.take(MemberGone("q", INTERFACE))
            assert agent_now(staff, PJSIP_ANN).state is AgentState.PAUSED
        await asyncio.sleep(20)

    with_members(story)


DESK, HOME = "PJSIP/ann", "PJSIP/ann-home"
EACH = MemberRules({"q": QueueName("default")})


def two_devices() -> Account:
    return Account(ANN, f"{DESK}&{HOME}", "")


def test_each_phone_of_an_agent_is_a_member_and_all_rest_while_they_talk_on_one() -> None:
    async def story(office: Office, _: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        with staff.present(two_devices()):
            staff.set_available(ANN)
            await asyncio.sleep(1)
            assert control.done == [("add", "q", DESK, "ann", "0", DESK), ("add", "q", HOME, "ann", "0", HOME)]
            control.done.clear()
            assert office.desk.occupy(ANN)
            await asyncio.sleep(1)
            assert control.done == [("pause", "q", DESK, ""), ("pause", "q", HOME, "")]
            control.done.clear()
            staff.happen(ANN, AgentEvent.FINISH)
            await asyncio.sleep(1)
            assert control.done == [("resume", "q", DESK, ""), ("resume", "q", HOME, "")]
        await asyncio.sleep(20)

    with_members(story, EACH)


@pytest.mark.parametrize(
    ("interface", "state", "meant"),
    [
        ("{endpoint}", "{endpoint}", {DESK: DESK, HOME: HOME}),
        (INTERFACE.replace("ann", "{name}"), "hint:{name}@ext-local", {INTERFACE: "hint:ann@ext-local"}),
        ("Local/{account}@from-queue/n", "{endpoint}", {"Local/ann@from-queue/n": DESK}),
    ],
)
def test_how_a_queue_reaches_an_agent_with_two_phones(interface: str, state: str, meant: dict[str, str]) -> None:
    ann = Agent(ANN, f"{DESK}&{HOME}")
    assert MemberRules({}, interface, state).interfaces_of(ann) == meant


def test_of_two_with_one_phone_the_one_who_came_last_works_with_it() -> None:
    async def story(office: Office, members: PbxMembers, control: Control) -> None:
        staff = office.desk.staff
        with staff.present(Account(ANN, DESK, "")), staff.present(Account(BOB, DESK, "")):
            staff.set_available(ANN)
            await asyncio.sleep(1)
            staff.set_available(BOB)
            await asyncio.sleep(1)
            assert (staff[ANN].state, staff[BOB].state) == (AgentState.PAUSED, AgentState.AVAILABLE)
            assert [done[0] for done in control.done] == ["add"], "the member is the phone"
            # By a feature code, at the phone that both share.
            members.take(Member("q", INTERFACE, paused=True))
            await asyncio.sleep(1)
            assert agent_now(staff, BOB).state is AgentState.PAUSED
            members.take(Member("q", INTERFACE, paused=False))
            await asyncio.sleep(1)
            assert (agent_now(staff, ANN).state, staff[BOB].state) == (AgentState.PAUSED, AgentState.AVAILABLE)
        await asyncio.sleep(20)

    with_members(story)


def test_while_ami_is_away_nothing_is_carried_over_and_afterwards_all_of_it() -> None:
    async def story(office: Office, members: PbxMembers, control: Control) -> None:
        with office.desk.staff.present(agent()):
            members.take(Lost())
            office.desk.staff.set_available(PJSIP_ANN)
            await asyncio.sleep(10)
            assert control.done == []
            members.take(Snapshot(()))
            await asyncio.sleep(1)
            assert [what for what, *_ in control.done] == ["add"]
        await asyncio.sleep(20)

    with_members(story)
