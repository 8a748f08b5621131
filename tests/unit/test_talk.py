"""What agents can ask for in a call, mode by mode, and whom they can ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idbellen.domain.board import CallView
from idbellen.domain.ids import CallId, QueueName, SessionRef
from idbellen.domain.talk import Command, Mode, Target, Verb, refusal

M, V = Mode, Verb
BOB = Target("agent", "bob")
ALWAYS = "mute unmute hang_up"
# Written out once more, apart from the table that the program has.
ALLOWED = {
    M.TALKING: f"{ALWAYS} hold consult blind",
    M.HELD: f"{ALWAYS} resume consult blind",
    M.CONSULTING: f"{ALWAYS} resume",
    M.CONSULTED: f"{ALWAYS} resume transfer conference share",
    M.CONFERENCE: f"{ALWAYS} resume transfer share",
    M.TRANSFERRING: "",
}


def with_target(verb: Verb) -> Command:
    return Command(verb, BOB if verb in (V.CONSULT, V.BLIND) else None)


@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_not_in_the_table_is_for_later(mode: Mode) -> None:
    allowed = {verb.value for verb in Verb if refusal(mode, with_target(verb), consulted=False) is None}
    assert allowed == set(ALLOWED[mode].split())
    assert {refusal(mode, with_target(verb), consulted=False) for verb in Verb} <= {None, "later"}


@pytest.mark.parametrize("mode", list(Mode))
def test_whom_the_phone_holds_only_the_phone_takes_back(mode: Mode) -> None:
    commands = [with_target(verb) for verb in Verb]
    refused = {
        command.verb
        for command in commands
        if refusal(mode, command, consulted=False, phone_holds=True) != refusal(mode, command, consulted=False)
    }
    assert refused == ({V.RESUME} if mode is M.HELD else set())


@pytest.mark.parametrize("mode", list(Mode))
def test_who_is_consulted_can_only_mute_and_leave(mode: Mode) -> None:
    allowed = {verb.value for verb in Verb if refusal(mode, with_target(verb), consulted=True) is None}
    assert allowed == set(ALWAYS.split())


@pytest.mark.parametrize("mode", list(Mode))
def test_the_screen_offers_what_can_be_asked_for(mode: Mode) -> None:
    call = CallView(CallId("call"), SessionRef("session"), "move", QueueName("default"), 0.0, None, None, mode=mode)
    assert {verb.value for verb in call.allowed} == set(ALLOWED[mode].split())
    assert {verb.value for verb in replace(call, part="consulted").allowed} == set(ALWAYS.split())
    assert replace(call, ours=False).allowed == set(), "the phone does it, of a call that a PBX has connected"


@pytest.mark.parametrize("verb", list(Verb))
def test_a_target_goes_with_consult_and_blind_alone(verb: Verb) -> None:
    mode = next(mode for mode in Mode if verb.value in ALLOWED[mode])
    command = with_target(verb)
    wrong = Command(verb, None if command.target else BOB)
    assert refusal(mode, wrong, consulted=False) == "target"


@pytest.mark.parametrize("number", ["112", "14020", "0201234567", "+31201234567", "+123456789012345"])
def test_numbers_that_can_be_rung(number: str) -> None:
    assert refusal(M.TALKING, Command(V.CONSULT, Target("number", number)), consulted=False) is None


@pytest.mark.parametrize(
    "number",
    ["", "1", "+", "020-1234567", "020 1234567", "1234567890123456", "++31", "0900\n", "٠١٢٣", "bob@pbx", "1/n", "1&2"],
)
def test_numbers_that_cannot(number: str) -> None:
    assert refusal(M.TALKING, Command(V.BLIND, Target("number", number)), consulted=False) == "target"
