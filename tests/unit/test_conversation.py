"""Hold, consult, transfer, conference and hangups in virtual time: who is together, and who may see the data."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from idbellen.calls.desk import SHOWN_WITHIN_SECONDS
from idbellen.calls.notes import KEPT_SECONDS
from idbellen.calls.stories import Stories
from idbellen.domain.agents import AgentState
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.domain.prompts import Prompt
from idbellen.domain.queueing import QueueRules, Queues
from idbellen.domain.talk import Command, Mode, Target, Verb
from idbellen.ports import RingOutcome
from tests.support import virtualtime
from tests.support.fakes import LOGGED_IN, AgentBehaviour, FakeCallLog, FakePhone, FakeSessions, now
from tests.support.stories import CODE, RULES, WRONG, account, new_office, prompts, typed
from tests.support.values import about

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idbellen.calls.desk import Desk
    from idbellen.calls.office import Office
    from idbellen.domain.board import CallView

ANN, BOB = AgentName("ann"), AgentName("bob")

S, V, M, P = AgentState, Verb, Mode, Prompt
TO_BOB, TO_TAXES = Target("agent", "bob"), Target("queue", "taxes")
TO_NUMBER = Target("number", "+31201234567")
OUTSIDE = "PJSIP/+31201234567@trunk"
QUEUES = Queues({QueueName("default"): QueueRules(wrap_up=30.0, music="harp"), QueueName("taxes"): QueueRules()})
# The caller talks with ann from here on: code at 0 s, her phone rings for 1 s.
TALKING = 1.1
LONG = 1000.0


@dataclass
class Scene:
    """A caller with ann, and bob beside them; ``steps`` are what agents ask for, with the time and the answer."""

    phone: FakePhone
    office: Office
    log: FakeCallLog
    secrets: set[Secret] = field(default_factory=set)

    @property
    def desk(self) -> Desk:
        return self.office.desk

    async def at(self, time: float) -> None:
        await asyncio.sleep(max(0.0, time - now()))
        for name in (ANN, BOB):
            call = self.call(name)
            if call and call.secret:
                self.secrets.add(call.secret)
                self.desk.shown(name, call.call)

    def call(self, name: AgentName) -> CallView | None:
        return self.desk.view(name).call

    def ask(self, verb: Verb, target: Target | None = None, *, agent: AgentName = ANN) -> str | None:
        return self.desk.command(agent, CallId("call"), Command(verb, target))

    def state(self, name: AgentName) -> AgentState:
        return self.desk.staff[name].state

    def sees(self, name: AgentName) -> bool:
        """Whether an agent may see the data: with any secret of this call that was ever on a screen."""
        return any(self.desk.may_see(name, secret) for secret in self.secrets)

    def check(self) -> None:
        """Whenever anything changes, the data are with who has the caller, and with whom that one gave them to."""
        calls = {name: call for name, call in self.desk.in_hand.items() if call.call == self.phone.call}
        main = [name for name, call in calls.items() if call.part == "main"]
        assert len(main) <= 1, "two have the caller"
        for name, call in calls.items():
            may_see = name in main or call.shared
            assert [call.secret is not None, call.words is not None] == [may_see, may_see]

    @property
    def inside(self) -> set[str]:
        return self.phone.bridges[-1].inside

    def mode(self, name: AgentName = ANN) -> Mode:
        call = self.call(name)
        assert call
        return call.mode


async def _run(scenario: Any, agents: dict[str, AgentBehaviour], hangs_up: float, bob_queues: dict[str, int]) -> None:
    phone = FakePhone(keys=typed(CODE, at=0.0, gap=0.0), hangs_up=hangs_up)
    phone.agents = {"ann": AgentBehaviour(after=1.0, talks=LONG), "bob": AgentBehaviour(after=1.0, talks=LONG)} | agents
    sessions, log = FakeSessions(CODE, WRONG), FakeCallLog()
    office = new_office(RULES, sessions, QUEUES, log=log)
    staff = office.desk.staff
    scene = Scene(phone, office, log)
    office.desk.staff.news.on_change(scene.check)
    with staff.present(account("ann", default=0)), staff.present(account("bob", **bob_queues)):
        staff.set_available(ANN)
        staff.set_available(BOB)
        writing = asyncio.create_task(office.notes.run())
        call = asyncio.create_task(Stories(office).take(phone))
        story = asyncio.create_task(scenario(scene))
        await asyncio.wait([call, story])
        story.result()
        call.result()
        assert (phone.ringing, phone.talking) == (0, 0)
        assert sessions.claimed == {}
        # A fault in a call, of which also a failed check is one, would end with this.
        assert Prompt.APOLOGY not in prompts(phone)
        assert office.desk._places == {}
        assert not scene.sees(ANN)
        assert not scene.sees(BOB)
        for name in (ANN, BOB):
            assert staff[name].state in (S.AVAILABLE, S.WRAP_UP, S.PAUSED)
            assert office.desk.view(name).call is None
        await asyncio.sleep(40)
        writing.cancel()
        assert [staff[name].state for name in (ANN, BOB)] == [S.AVAILABLE, S.AVAILABLE]
    await asyncio.sleep(20)


def play(
    scenario: Any,
    agents: dict[str, AgentBehaviour] | None = None,
    *,
    hangs_up: float = LONG,
    bob_queues: dict[str, int] | None = None,
) -> None:
    """Play a scenario; at its end nothing may be left behind. ann gets the caller, bob serves the queue taxes."""
    virtualtime.run(_run(scenario, agents or {}, hangs_up, bob_queues or {"taxes": 0}))


# Alone with the caller


def test_mute_and_unmute() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        assert scene.sees(ANN)
        scene.ask(V.MUTE)
        await scene.at(3.0)
        assert scene.phone.bridges[0].muted == {"ann"}
        assert scene.desk.view(ANN).call.muted  # type: ignore[union-attr]
        scene.ask(V.UNMUTE)
        await scene.at(4.0)
        assert scene.phone.bridges[0].muted == set()
        scene.ask(V.HANG_UP)

    play(scenario)


def test_hold_and_resume() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.HOLD)
        await scene.at(3.0)
        assert (scene.inside, scene.mode()) == ({"ann"}, M.HELD)
        assert scene.phone.bridges[-1].music_class == "harp", "of the queue"
        assert scene.sees(ANN)
        assert scene.ask(V.HOLD) == "later"
        scene.ask(V.RESUME)
        await scene.at(4.0)
        assert (scene.inside, scene.mode()) == ({"ann", "caller"}, M.TALKING)
        scene.ask(V.HANG_UP)
        await scene.at(10.0)
        assert scene.state(ANN) is S.WRAP_UP
        assert scene.phone.end == "hung up"

    play(scenario)


def test_the_phones_own_hold_key_is_the_button_but_only_the_phone_ends_it() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        [leg] = scene.phone.legs.values()
        leg.hold(on=True)
        await scene.at(3.0)
        assert (scene.inside, scene.mode()) == ({"ann"}, M.HELD)
        assert scene.ask(V.RESUME) == "later"
        leg.hold(on=False)
        await scene.at(4.0)
        assert (scene.inside, scene.mode()) == ({"ann", "caller"}, M.TALKING)
        # What is told twice, as after a lost connection, changes nothing.
        scene.ask(V.HOLD)
        await scene.at(5.0)
        leg.hold(on=False)
        await scene.at(6.0)
        assert (scene.inside, scene.mode()) == ({"ann"}, M.HELD)
        scene.ask(V.RESUME)
        await scene.at(7.0)
        assert scene.inside == {"ann", "caller"}
        scene.ask(V.HANG_UP)

    play(scenario)


@pytest.mark.parametrize("together", [False, True], ids=["consulted", "in a conference"])
def test_the_hold_key_of_a_colleague_leaves_the_others_as_they_are(*, together: bool) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(4.0)
        if together:
            scene.ask(V.CONFERENCE)
        await scene.at(5.0)
        before = scene.mode(), set(scene.inside)
        [leg] = [leg for leg in scene.phone.legs.values() if leg.endpoint == "bob"]
        for on in (True, False):
            with capture_logs() as logs:
                leg.hold(on=on)
                await asyncio.sleep(1.0)
            assert [line["agent"] for line in logs if line["event"].startswith("phone holds")] == ["bob"]
            assert (scene.mode(), scene.inside) == before
        scene.ask(V.HANG_UP, agent=BOB)
        await scene.at(9.0)
        assert (scene.mode(), scene.inside) == (M.TALKING, {"ann", "caller"})
        scene.ask(V.HANG_UP)

    play(scenario)


# Consult


@pytest.mark.parametrize("target", [TO_BOB, TO_TAXES])
def test_who_is_consulted_sees_nothing_until_given_and_has_all_after_the_transfer(target: Target) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, target)
        await scene.at(2.5)
        assert (scene.mode(), scene.inside) == (M.CONSULTING, {"ann"})
        offer = scene.desk.view(BOB).offer
        assert offer
        assert offer.asker == "ann"
        await scene.at(4.0)
        assert (scene.mode(), scene.inside) == (M.CONSULTED, {"ann", "bob"})
        bob = scene.call(BOB)
        assert bob
        assert (bob.part, bob.secret, bob.words, bob.other) == ("consulted", None, None, Target("agent", "ann"))
        assert (scene.sees(ANN), scene.sees(BOB)) == (True, False)
        scene.ask(V.SHARE)
        await scene.at(5.0)
        assert (scene.sees(ANN), scene.sees(BOB)) == (True, True)
        scene.ask(V.TRANSFER)
        await scene.at(6.0)
        assert (scene.sees(ANN), scene.sees(BOB)) == (False, True)
        assert scene.inside == {"bob", "caller"}
        assert (scene.state(ANN), scene.mode(BOB)) == (S.WRAP_UP, M.TALKING)
        assert scene.ask(V.HANG_UP) == "gone"
        scene.ask(V.HANG_UP, agent=BOB)
        await scene.at(7.0)
        assert [record.agent for record in scene.log.records] == ["ann"]

    play(scenario)


def test_back_to_the_caller_takes_the_data_from_who_was_consulted() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(4.0)
        scene.ask(V.SHARE)
        await scene.at(5.0)
        assert scene.sees(BOB)
        scene.ask(V.RESUME)
        await scene.at(6.0)
        assert not scene.sees(BOB)
        assert (scene.inside, scene.state(BOB)) == ({"ann", "caller"}, S.AVAILABLE)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(8.0)
        assert not scene.sees(BOB), "given once is not given again"
        scene.ask(V.RESUME)
        await scene.at(9.0)
        scene.ask(V.HANG_UP)

    play(scenario)


def test_a_consultation_that_is_called_off_while_the_phone_rings() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(2.5)
        scene.ask(V.RESUME)
        await scene.at(2.6)
        assert (scene.mode(), scene.inside, scene.phone.ringing) == (M.TALKING, {"ann", "caller"}, 1)
        assert scene.state(BOB) is S.AVAILABLE
        assert scene.log.misses == []
        scene.ask(V.HANG_UP)

    play(scenario)


@pytest.mark.parametrize("outcome", [RingOutcome.ANSWERED, RingOutcome.DECLINED])
@pytest.mark.parametrize("early", [0.0005 * n for n in range(-4, 12)])
def test_a_consultation_that_is_called_off_in_the_moment_of_the_answer(early: float, outcome: RingOutcome) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(3.004 - early)
        scene.ask(V.MUTE)  # takes a moment, in which bob answers
        scene.ask(V.RESUME)
        await scene.at(4.0)
        assert (scene.mode(), scene.inside, scene.phone.ringing) == (M.TALKING, {"ann", "caller"}, 1)
        call = scene.call(ANN)
        assert call
        assert call.notice == ""
        assert scene.state(BOB) is S.AVAILABLE
        scene.ask(V.HANG_UP)

    play(scenario, {"bob": AgentBehaviour(outcome, after=1.0, talks=LONG)})


@pytest.mark.parametrize("outcome", [RingOutcome.BUSY, RingOutcome.DECLINED, RingOutcome.UNREACHABLE])
def test_a_consultation_in_vain_is_told_and_the_caller_can_be_taken_back(outcome: RingOutcome) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(4.0)
        call = scene.call(ANN)
        assert call
        assert (call.mode, call.notice, call.other) == (M.HELD, outcome.value, None)
        scene.ask(V.RESUME)
        await scene.at(5.0)
        assert (scene.call(ANN) or call).notice == ""
        scene.ask(V.HANG_UP)

    play(scenario, {"bob": AgentBehaviour(outcome, after=0.5)})


def test_a_queue_that_is_asked_is_rung_until_somebody_answers() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_TAXES)
        await scene.at(4.0)
        assert (scene.mode(), scene.log.misses) == (M.CONSULTING, ["bob"])
        scene.phone.agents["bob"] = AgentBehaviour(after=1.0, talks=LONG)
        await scene.at(15.0)
        assert scene.phone.rung == ["ann", "bob", "bob"]
        assert (scene.mode(), scene.inside) == (M.CONSULTED, {"ann", "bob"})
        scene.ask(V.RESUME)
        await scene.at(16.0)
        scene.ask(V.HANG_UP)

    play(scenario, {"bob": AgentBehaviour(RingOutcome.DECLINED, after=1.0)})


def test_a_colleague_who_is_not_free_is_not_rung() -> None:
    async def scenario(scene: Scene) -> None:
        scene.desk.staff.pause(BOB, "lunch")
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(3.0)
        call = scene.call(ANN)
        assert call
        assert (call.notice, call.mode) == ("not free", M.HELD)
        scene.ask(V.HANG_UP)
        await scene.at(4.0)
        scene.desk.staff.set_available(BOB)

    play(scenario)


def test_an_outside_number_never_sees_anything() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_NUMBER)
        await scene.at(4.0)
        assert scene.inside == {"ann", OUTSIDE}
        scene.ask(V.SHARE)
        await scene.at(5.0)
        call = scene.call(ANN)
        assert call
        assert not call.shared
        scene.ask(V.TRANSFER)
        await scene.at(6.0)
        assert scene.inside == {"caller", OUTSIDE}
        assert not scene.sees(ANN)
        await scene.at(20.0)
        assert scene.phone.end == "hung up", "the number hung up"

    play(scenario, {OUTSIDE: AgentBehaviour(after=1.0, talks=10.0)})


def test_a_number_is_asked_and_the_caller_taken_back() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_NUMBER)
        await scene.at(4.0)
        scene.ask(V.RESUME)
        await scene.at(5.0)
        assert (scene.inside, scene.mode()) == ({"ann", "caller"}, M.TALKING)
        scene.ask(V.HANG_UP)

    play(scenario, {OUTSIDE: AgentBehaviour(after=1.0, talks=LONG)})


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("target", "endpoint"), [(TO_BOB, "bob"), (TO_NUMBER, OUTSIDE)])
def test_when_who_is_consulted_hangs_up_the_agent_has_the_caller_again(
    target: Target,
    endpoint: str,
    together: bool,  # noqa: FBT001
) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, target)
        await scene.at(4.0)
        if together:
            scene.ask(V.CONFERENCE)
        await scene.at(5.0)
        assert scene.inside == {"ann", endpoint} | ({"caller"} if together else set())
        await scene.at(9.0)
        assert (scene.inside, scene.mode()) == ({"ann", "caller"}, M.TALKING)
        assert scene.sees(ANN)
        assert scene.state(BOB) is S.AVAILABLE
        scene.ask(V.HANG_UP)

    play(scenario, {endpoint: AgentBehaviour(after=1.0, talks=5.0)})


def test_wrap_up_is_for_who_had_the_caller() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(4.0)
        scene.ask(V.TRANSFER)
        await scene.at(5.0)
        assert scene.state(ANN) is S.WRAP_UP
        scene.ask(V.HANG_UP, agent=BOB)
        await scene.at(6.0)
        assert scene.state(BOB) is S.WRAP_UP, "bob had the caller too"

    play(scenario)


def test_a_colleague_who_does_not_answer_missed_it() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(23.0)
        call = scene.call(ANN)
        assert call
        assert (call.notice, scene.log.misses, scene.state(BOB)) == ("no answer", ["bob"], S.AVAILABLE)
        assert scene.desk.staff[BOB].missed == 1
        scene.ask(V.HANG_UP)

    play(scenario, {"bob": AgentBehaviour(RingOutcome.NO_ANSWER, after=20.0)})


def test_a_pause_wished_for_in_the_call_holds_afterwards() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.desk.staff.pause(ANN, "lunch")
        await scene.at(3.0)
        assert scene.mode() is M.TALKING
        scene.ask(V.HANG_UP)
        await scene.at(4.0)
        assert scene.state(ANN) is S.WRAP_UP
        scene.desk.staff.end_wrap_up(ANN)
        assert (scene.state(ANN), scene.desk.staff[ANN].reason) == (S.PAUSED, "lunch")
        await scene.at(12.0)
        scene.desk.staff.set_available(ANN)

    play(scenario)


# Results that come late


def test_a_late_result_reaches_whoever_has_the_caller() -> None:
    def results(scene: Scene) -> dict[str, int]:
        return {name: call.results for name, call in scene.desk.in_hand.items()}

    async def scenario(scene: Scene) -> None:
        arrive = scene.office.progress.result_arrived
        session = SessionRef(f"session {CODE}")
        await scene.at(2.0)
        arrive(session, LOGGED_IN)
        assert results(scene) == {"ann": 1}
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(4.0)
        arrive(session, LOGGED_IN)
        arrive(SessionRef("another session"), LOGGED_IN)
        assert results(scene) == {"ann": 2, "bob": 1}
        scene.ask(V.TRANSFER)
        await scene.at(5.0)
        arrive(session, LOGGED_IN)
        assert results(scene) == {"bob": 2}, "and what bob was told before is not forgotten"
        scene.ask(V.HANG_UP, agent=BOB)

    play(scenario)


# Conference


def test_all_three_together_and_each_can_leave() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(4.0)
        scene.ask(V.CONFERENCE)
        await scene.at(5.0)
        assert (scene.inside, scene.mode()) == ({"ann", "bob", "caller"}, M.CONFERENCE)
        assert not scene.sees(BOB)
        scene.ask(V.MUTE, agent=BOB)
        await scene.at(6.0)
        assert scene.phone.bridges[0].muted == {"bob"}
        scene.ask(V.HANG_UP, agent=BOB)
        await scene.at(7.0)
        assert (scene.inside, scene.mode()) == ({"ann", "caller"}, M.TALKING)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(9.0)
        scene.ask(V.CONFERENCE)
        await scene.at(10.0)
        scene.ask(V.HANG_UP)
        await scene.at(11.0)
        assert scene.inside == {"bob", "caller"}, "who stays has the caller"
        assert (scene.sees(ANN), scene.sees(BOB)) == (False, True)
        scene.ask(V.HANG_UP, agent=BOB)

    play(scenario)


# Blind


def test_a_blind_transfer_to_a_colleague() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.BLIND, TO_BOB)
        await scene.at(2.5)
        assert (scene.state(ANN), scene.inside) == (S.WRAP_UP, set())
        assert not scene.sees(ANN)
        await scene.at(4.0)
        assert scene.inside == {"bob", "caller"}
        assert scene.sees(BOB)
        scene.ask(V.HANG_UP, agent=BOB)

    play(scenario)


def test_a_blind_transfer_to_a_queue_keeps_the_waiting_time() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.BLIND, TO_TAXES)
        await scene.at(2.5)
        offer = scene.desk.view(BOB).offer
        assert offer
        assert (offer.queue, offer.waiting_since) == ("taxes", about(0.0, within=0.1))
        await scene.at(5.0)
        assert scene.sees(BOB)
        scene.ask(V.HANG_UP, agent=BOB)
        await scene.at(6.0)
        assert [(one.queue, one.agent) for one in scene.log.records] == [("default", "ann"), ("taxes", "bob")]

    play(scenario)


def test_a_store_that_is_away_does_not_hold_a_transfer_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    async def scenario(scene: Scene) -> None:
        await scene.at(1.9)
        monkeypatch.setattr(scene.office.notes._store, "note", hang)
        await scene.at(2.0)
        scene.ask(V.BLIND, TO_TAXES)
        await scene.at(2.0 + KEPT_SECONDS - 0.1)
        assert scene.sees(ANN), "the note of it comes first"
        await scene.at(2.0 + KEPT_SECONDS + 0.1)
        assert not scene.sees(ANN)
        assert scene.desk.view(BOB).offer

    play(scenario)


def test_a_blind_transfer_to_a_number() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.BLIND, TO_NUMBER)
        await scene.at(2.5)
        assert (scene.state(ANN), scene.inside) == (S.WRAP_UP, set())
        await scene.at(4.0)
        assert scene.inside == {"caller", OUTSIDE}
        assert scene.desk.in_hand == {}, "nobody's screen shows anything"
        await scene.at(20.0)
        assert scene.phone.end == "hung up"

    play(scenario, {OUTSIDE: AgentBehaviour(after=1.0, talks=10.0)})


def test_a_blind_transfer_to_a_colleague_who_is_not_free_brings_the_caller_back_at_once() -> None:
    async def scenario(scene: Scene) -> None:
        scene.desk.staff.pause(BOB, "lunch")
        await scene.at(2.0)
        scene.ask(V.BLIND, TO_BOB)
        await scene.at(2.5)
        assert [ticket.queue for ticket in scene.desk.waiting] == ["default"]
        scene.desk.staff.end_wrap_up(ANN)
        await scene.at(5.0)
        assert scene.sees(ANN)
        scene.ask(V.HANG_UP)
        await scene.at(11.0)
        assert scene.phone.rung == ["ann", "ann"]
        scene.desk.staff.set_available(BOB)

    play(scenario)


def test_who_comes_back_from_a_transfer_in_vain_is_in_front_of_who_came_later() -> None:
    async def scenario(scene: Scene) -> None:
        other = FakePhone("other", typed(WRONG, at=1.5, gap=0.0), hangs_up=9.0)
        waits = asyncio.create_task(Stories(scene.office).take(other))
        await scene.at(2.0)
        scene.ask(V.BLIND, TO_BOB)
        await scene.at(5.0)
        assert [ticket.call for ticket in scene.desk.waiting] == ["call", "other"]
        scene.desk.staff.end_wrap_up(ANN)
        await scene.at(8.0)
        assert scene.sees(ANN)
        scene.ask(V.HANG_UP)
        await waits

    play(scenario, {"bob": AgentBehaviour(RingOutcome.DECLINED, after=1.0)})


@pytest.mark.parametrize("target", [TO_BOB, TO_NUMBER])
def test_a_blind_transfer_in_vain_puts_the_caller_back_in_the_queue(target: Target) -> None:
    no = AgentBehaviour(RingOutcome.DECLINED, after=1.0)

    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.BLIND, target)
        await scene.at(5.0)
        [ticket] = scene.desk.waiting
        assert (ticket.queue, ticket.since) == ("default", about(0.0, within=0.1))
        scene.desk.staff.end_wrap_up(ANN)
        await scene.at(8.0)
        assert scene.sees(ANN), "ann is the only one who serves this queue"
        scene.ask(V.HANG_UP)

    play(scenario, {"bob": no, OUTSIDE: no})


# Hangups


def test_an_agent_who_hangs_up_the_phone_while_consulting_has_transferred() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(8.0)
        assert scene.inside == {"bob", "caller"}
        assert (scene.sees(ANN), scene.sees(BOB)) == (False, True)
        scene.ask(V.HANG_UP, agent=BOB)

    play(scenario, {"ann": AgentBehaviour(after=1.0, talks=5.0)})


def test_an_agent_who_hangs_up_while_the_other_phone_rings_has_transferred_blindly() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(7.0)
        assert (scene.inside, scene.state(ANN)) == (set(), S.WRAP_UP)
        await scene.at(14.0)
        assert scene.inside == {"bob", "caller"}
        scene.ask(V.HANG_UP, agent=BOB)

    play(scenario, {"ann": AgentBehaviour(after=1.0, talks=5.0), "bob": AgentBehaviour(after=10.0, talks=LONG)})


@pytest.mark.parametrize("by", ["button", "phone"])
def test_an_agent_who_hangs_up_while_a_queue_is_asked_has_sent_the_caller_there(by: str) -> None:
    async def scenario(scene: Scene) -> None:
        scene.desk.staff.pause(BOB, "lunch")
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_TAXES)
        await scene.at(3.0)
        assert scene.desk.waiting == [], "the caller waits for ann, and bob is paused"
        if by == "button":
            scene.ask(V.HANG_UP)
        await scene.at(7.0)
        [ticket] = scene.desk.waiting
        assert (ticket.queue, ticket.asker, round(ticket.since)) == ("taxes", None, 0)
        assert scene.phone.heard[-1][1] in (P.PLACE_1, P.HEAR_AGAIN), "and hears so"
        scene.desk.staff.set_available(BOB)
        await scene.at(10.0)
        assert (scene.sees(ANN), scene.sees(BOB)) == (False, True)
        scene.ask(V.HANG_UP, agent=BOB)
        await scene.at(11.0)
        assert [(one.queue, one.agent) for one in scene.log.records] == [("default", "ann"), ("taxes", "bob")]

    play(scenario, {"ann": AgentBehaviour(after=1.0, talks=5.0 if by == "phone" else LONG)})


STEPS: dict[str, Sequence[tuple[float, Verb, Target | None]]] = {
    "hold": [(1.2, V.HOLD, None), (1.3, V.RESUME, None)],
    "consult and transfer": [(1.2, V.CONSULT, TO_BOB), (2.4, V.SHARE, None), (2.5, V.TRANSFER, None)],
    "consult a queue and return": [(1.2, V.CONSULT, TO_TAXES), (2.4, V.RESUME, None)],
    "consult a queue and hang up": [(1.2, V.CONSULT, TO_TAXES), (1.3, V.HANG_UP, None)],
    "call off": [(1.2, V.CONSULT, TO_BOB), (1.3, V.RESUME, None)],
    "conference": [(1.2, V.CONSULT, TO_BOB), (2.4, V.CONFERENCE, None), (2.5, V.HANG_UP, None)],
    "blind": [(1.2, V.BLIND, TO_BOB)],
    "blind to a queue": [(1.2, V.BLIND, TO_TAXES)],
    "outside": [(1.2, V.CONSULT, TO_NUMBER), (2.4, V.TRANSFER, None)],
}
MOMENTS = [*(1.1 + 0.0005 * n for n in range(0, 800, 7)), *(2.15 + 0.001 * n for n in range(0, 450, 9))]


@pytest.mark.no_cover
@pytest.mark.parametrize("name", STEPS)
def test_a_caller_who_hangs_up_at_any_moment_leaves_nothing_behind(name: str) -> None:
    async def scenario(scene: Scene) -> None:
        for at, verb, target in STEPS[name]:
            await scene.at(at)
            scene.ask(verb, target)
        await scene.at(3.0)

    for hangs_up in MOMENTS:
        play(scenario, hangs_up=hangs_up)


@pytest.mark.no_cover
@pytest.mark.parametrize("who", ["ann", "bob"])
@pytest.mark.parametrize("name", STEPS)
def test_an_agent_who_hangs_up_at_any_moment_leaves_nothing_behind(name: str, who: str) -> None:
    async def scenario(scene: Scene) -> None:
        for at, verb, target in STEPS[name]:
            await scene.at(at)
            scene.ask(verb, target)
        await scene.at(3.0)

    for talks in range(0, 1500, 47):
        # The caller goes in the end, whoever talks with whom by then.
        play(scenario, {who: AgentBehaviour(after=1.0, talks=talks / 1000)}, hangs_up=60.0)


# What cannot be asked for


def test_what_is_refused_and_why() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        assert scene.ask(V.RESUME) == "later"
        assert scene.ask(V.CONSULT) == "target"
        assert scene.ask(V.CONSULT, Target("agent", "ann")) == "target"
        assert scene.ask(V.CONSULT, Target("agent", "nobody")) == "target"
        assert scene.ask(V.CONSULT, Target("queue", "nowhere")) == "target"
        assert scene.ask(V.CONSULT, Target("number", "112 or so")) == "target"
        assert scene.ask(V.HANG_UP, TO_BOB) == "target"
        assert scene.ask(V.HANG_UP, agent=BOB) == "gone"
        assert scene.desk.command(ANN, CallId("another call"), Command(V.HANG_UP)) == "gone"
        assert scene.mode() is M.TALKING
        scene.ask(V.HANG_UP)

    play(scenario)


def test_two_buttons_in_one_moment_have_an_order() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        assert scene.ask(V.HOLD) is None
        assert scene.ask(V.CONSULT, TO_BOB) is None
        assert scene.ask(V.HOLD) is None, "the desk cannot know yet; the conversation looks again"
        await scene.at(4.0)
        assert scene.mode() is M.CONSULTED
        for _ in range(100):
            scene.ask(V.MUTE)
        assert scene.ask(V.MUTE) == "later", "nobody fills the memory"
        await scene.at(5.0)
        scene.ask(V.TRANSFER)
        await scene.at(6.0)
        scene.ask(V.HANG_UP, agent=BOB)

    play(scenario)


def test_what_an_agent_asked_for_in_the_moment_of_the_transfer_does_not_touch_the_call_any_more() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        scene.ask(V.CONSULT, TO_BOB)
        await scene.at(4.0)
        scene.ask(V.TRANSFER)
        assert scene.ask(V.MUTE) is None, "the desk cannot know yet"
        assert scene.ask(V.HANG_UP) is None
        await scene.at(6.0)
        assert (scene.inside, scene.state(ANN)) == ({"bob", "caller"}, S.WRAP_UP)
        assert scene.phone.bridges[-1].muted == set(), "and Asterisk is not asked about a phone that is gone"
        scene.ask(V.HANG_UP, agent=BOB)

    play(scenario)


def test_a_screen_that_shows_another_call_is_not_taken_for_one_that_shows_this() -> None:
    async def scenario(scene: Scene) -> None:
        await asyncio.sleep(2.0 - now())
        scene.desk.shown(ANN, CallId("another call"))
        scene.desk.shown(BOB, CallId("call"))
        with capture_logs() as logs:
            await asyncio.sleep(SHOWN_WITHIN_SECONDS)
        [line] = [line for line in logs if line["log_level"] == "error"]
        assert (line["agent"], line["call"]) == ("ann", "call")
        scene.ask(V.HANG_UP)

    play(scenario)


def test_an_agent_in_one_call_is_linked_with_no_other() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.at(2.0)
        call = scene.call(ANN)
        assert call
        ticket = scene.desk._reserved[ANN].ticket
        for name in (ANN, AgentName("nobody")):
            assert scene.desk.link(name, ticket, replace(call, call=CallId("another call"))) is None
        assert scene.call(ANN) == call
        assert scene.ask(V.HANG_UP) is None

    play(scenario)


def test_no_outside_number_where_they_are_not_allowed() -> None:
    async def scenario(scene: Scene) -> None:
        scene.desk._rules = replace(scene.desk._rules, numbers=False)
        await scene.at(2.0)
        assert scene.ask(V.CONSULT, TO_NUMBER) == scene.ask(V.BLIND, TO_NUMBER) == "target"
        assert scene.ask(V.CONSULT, TO_BOB) is None
        await scene.at(4.0)
        assert scene.ask(V.CONSULT, TO_TAXES) == scene.ask(V.BLIND, TO_TAXES) == "later", "one at a time"
        assert scene.ask(V.TRANSFER, agent=BOB) == scene.ask(V.SHARE, agent=BOB) == "later"
        scene.ask(V.RESUME)
        await scene.at(5.0)
        scene.ask(V.HANG_UP)

    play(scenario)
