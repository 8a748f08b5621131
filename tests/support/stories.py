"""Calls told in virtual time: an office with fakes around it, and what every story needs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from idbellen.calls.desk import Desk, DeskRules
from idbellen.calls.ends import Ends
from idbellen.calls.notes import Notes
from idbellen.calls.office import CallRules, Office, PurposeRules
from idbellen.calls.progress import Progress
from idbellen.calls.staff import Staff, StaffRules
from idbellen.calls.stories import Stories
from idbellen.domain.agents import AgentState
from idbellen.domain.digits import EntryRules
from idbellen.domain.hours import OpeningHours
from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.domain.ids import AgentName, QueueName
from idbellen.domain.queueing import QueueRules, Queues
from idbellen.ports import Account
from tests.support import virtualtime
from tests.support.fakes import FakeCallLog, FakeFeedback, FakeNotes, FakePhone, FakeSessions, now

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from idbellen.domain.prompts import Prompt

DEFAULT = QueueName("default")

RULES = CallRules(
    entry=EntryRules(),
    tries=3,
    unverified="plain",
    without_code=None,
    late=20.0,
    language="nl",
    active_moments=frozenset({"code_accepted", "connected"}),
    active_every=25.0,
    outside="PJSIP/{}@trunk".format,
    purposes={"report_move": PurposeRules(DEFAULT, admit_unverified=False)},
)
ADMITTING = replace(RULES, purposes={"report_move": PurposeRules(DEFAULT, admit_unverified=True)})
FAILED = AuthResult(AuthStatus.FAILED, {})
QUEUES = Queues({DEFAULT: QueueRules()})
ALWAYS = OpeningHours.always(ZoneInfo("Europe/Amsterdam"))
CODE, WRONG = "1234567890", "9876543210"


def typed(code: str, *, at: float, gap: float = 0.3) -> list[tuple[float, str]]:
    return [(at + position * gap, key) for position, key in enumerate(code)]


def new_office(  # noqa: PLR0913, PLR0917 - each has its usual value
    rules: CallRules,
    sessions: FakeSessions,
    queues: Queues = QUEUES,
    hours: OpeningHours | Mapping[QueueName, OpeningHours] = ALWAYS,
    log: FakeCallLog | None = None,
    most_missed: int = 0,
    store: FakeNotes | None = None,
) -> Office:
    log = log or FakeCallLog()
    staff = Staff(now, StaffRules(grace=15.0, rest=5.0, most_missed=most_missed))
    desk = Desk(now, staff, DeskRules(queues, ring=20.0, numbers=True), log)
    all_hours = dict.fromkeys(queues.rules, hours) if isinstance(hours, OpeningHours) else hours
    notes = Notes(store or FakeNotes())
    staff.on_agent(notes.keep_agent)
    feedback = FakeFeedback()
    ends = Ends(sessions, feedback)
    return Office(rules, all_hours, sessions, desk, Progress(desk), feedback, log, notes, ends, now)


def account(name: str, **queues: int) -> Account:
    return Account(AgentName(name), name, "", queues={QueueName(queue): of for queue, of in queues.items()})


def tell(  # noqa: PLR0913 - each has its usual value
    *phones: FakePhone,
    agents: tuple[str, ...] = ("a",),
    rules: CallRules = RULES,
    codes: tuple[str, ...] = (CODE,),
    sessions: FakeSessions | None = None,
    beside: Callable[[Office], Coroutine[Any, Any, None]] | None = None,
    log: FakeCallLog | None = None,
) -> FakeSessions:
    """Tell the stories of some calls at once, in virtual time, and check that nothing is left behind.

    ``beside``: what goes on at the same time.
    """
    sessions = sessions or FakeSessions(*codes)

    async def story() -> None:
        office = new_office(rules, sessions, log=log)
        desk = office.desk
        names = list(map(AgentName, agents))
        watches = [desk.staff.present(account(name)) for name in agents]
        for name, watch in zip(names, watches, strict=True):
            watch.__enter__()
            desk.staff.set_available(name)
        async with asyncio.TaskGroup() as calls:
            for phone in phones:
                calls.create_task(Stories(office).take(phone))
            if beside:
                calls.create_task(beside(office))
        for name in names:
            view = desk.view(name)
            assert (view.waiting, view.offer, view.call) == ({"default": 0}, None, None)
            assert view.agent.state is AgentState.AVAILABLE
        for phone in phones:
            assert (phone.ringing, phone.talking) == (0, 0)
        assert sessions.claimed == {}
        for watch in watches:
            watch.__exit__(None, None, None)
        await asyncio.sleep(20)

    virtualtime.run(story())
    return sessions


def prompts(phone: FakePhone) -> list[Prompt]:
    return [prompt for _, prompt in phone.heard]
