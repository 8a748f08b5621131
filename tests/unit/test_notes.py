"""Notes of calls and agents: what is made of those that nobody understands, and how long a call waits for its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from idbellen.calls.notes import KEPT_SECONDS, Notes
from idbellen.domain.agents import Agent, AgentState
from idbellen.domain.ids import AgentName, CallId, Secret
from idbellen.domain.notes import CallNote, NoteError, note_agent, read_agent, read_call, write_agent, write_call
from tests.support import virtualtime
from tests.support.fakes import FakeNotes, now
from tests.support.values import about

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET = Secret("of the first call")
CALL = CallNote(CallId("first"), "channel", SECRET)
ANN = note_agent(Agent(AgentName("ann"), "PJSIP/ann", state=AgentState.PAUSED), by_phone=True)


def test_a_note_says_what_was_noted_and_a_fault_nothing_of_it() -> None:
    assert read_call(write_call(CALL)) == CALL
    assert read_agent(write_agent(ANN)) == ANN
    for text in ("", "[]", write_agent(ANN), write_call(CALL).replace('"channel":"channel"', '"channel":null')):
        with pytest.raises(NoteError) as fault:
            read_call(text)
        assert SECRET not in str(fault.value)


def test_what_an_earlier_process_noted_otherwise_is_let_go_and_the_rest_is_taken_up() -> None:
    async def story() -> None:
        store = FakeNotes()
        good = {"call first": write_call(CALL), "agent ann": write_agent(ANN)}
        store.texts = {"call old": "nothing", "agent old": '{"secret": 1}', **good}
        notes = Notes(store)
        with capture_logs() as logs:
            earlier = await notes.load()
        assert (earlier.calls, earlier.agents) == ((CALL,), (ANN,))
        assert [(line["log_level"], line["note"]) for line in logs] == [
            ("warning", "call old"),
            ("warning", "agent old"),
        ]
        await notes.flush()
        assert store.texts == good

    virtualtime.run(story())


def test_a_call_that_no_longer_waits_for_its_note_is_not_told_of_it() -> None:
    class Slow(FakeNotes):
        async def note(self, notes: Mapping[str, str | None]) -> None:
            await asyncio.sleep(2 * KEPT_SECONDS)
            await super().note(notes)

    async def story() -> None:
        store = Slow()
        notes = Notes(store)
        writing = asyncio.create_task(notes.run())
        notes.keep_call(CALL)
        began = now()
        await notes.kept()
        assert now() - began == about(KEPT_SECONDS)
        assert store.texts == {}
        with capture_logs() as logs:
            await asyncio.sleep(2 * KEPT_SECONDS)
        assert store.texts == {"call first": write_call(CALL)}
        assert logs == [], "and it is not taken for a failure"
        assert not writing.done()
        writing.cancel()
        await asyncio.wait([writing])

    virtualtime.run(story())
