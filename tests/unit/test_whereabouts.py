"""On which of several Asterisks a phone is, and what is rung for it."""

from __future__ import annotations

import pytest

from idbellen.domain.agents import PhoneState
from idbellen.domain.whereabouts import Whereabouts

PHONE = "PJSIP/ann"
UNKNOWN, UNREGISTERED, IDLE, BUSY = PhoneState
ABSENT = None
TRUNKS = {"main": "to-main", "west": "to-west", "east": "to-east"}


def told(**states: PhoneState | None) -> tuple[Whereabouts, PhoneState]:
    """Give what comes of what several Asterisks say, in this order."""
    whereabouts = Whereabouts({name: TRUNKS[name] for name in states})
    state = UNKNOWN
    for server, said in states.items():
        state = whereabouts.tell(server, PHONE, said)
    return whereabouts, state


@pytest.mark.parametrize("state", PhoneState)
def test_one_asterisk_has_the_word(state: PhoneState) -> None:
    whereabouts, now = told(main=state)
    assert now is state
    assert whereabouts.dial(PHONE, "main") == PHONE
    assert whereabouts.forget("main") == {PHONE: UNKNOWN}


def test_what_is_no_endpoint_of_the_only_asterisk_is_rung_to_find_out() -> None:
    whereabouts = Whereabouts({"main": ""})
    assert whereabouts.tell("main", "PJSIP/06@trunk", ABSENT) is UNKNOWN
    assert whereabouts.dial("PJSIP/06@trunk", "main") == "PJSIP/06@trunk"
    assert whereabouts.dial("PJSIP/never-told", "main") == "PJSIP/never-told"


@pytest.mark.parametrize(
    ("main", "west", "now", "from_main", "from_west"),
    [
        (IDLE, UNREGISTERED, IDLE, PHONE, "PJSIP/ann@to-main"),
        (IDLE, ABSENT, IDLE, PHONE, "PJSIP/ann@to-main"),
        (UNREGISTERED, IDLE, IDLE, "PJSIP/ann@to-west", PHONE),
        # A call on one of them is a call.
        (BUSY, IDLE, BUSY, "PJSIP/ann@to-west", PHONE),
        (BUSY, UNREGISTERED, BUSY, PHONE, "PJSIP/ann@to-main"),
        (IDLE, IDLE, IDLE, PHONE, PHONE),
        (UNREGISTERED, UNREGISTERED, UNREGISTERED, PHONE, PHONE),
        # To find out.
        (UNREGISTERED, ABSENT, UNREGISTERED, PHONE, "PJSIP/ann@to-main"),
        (ABSENT, UNKNOWN, UNKNOWN, "PJSIP/ann@to-west", PHONE),
        (UNKNOWN, UNREGISTERED, UNKNOWN, PHONE, PHONE),
        (ABSENT, ABSENT, UNKNOWN, PHONE, PHONE),
    ],
)
def test_a_phone_may_be_on_either_of_two(
    main: PhoneState | None, west: PhoneState | None, now: PhoneState, from_main: str, from_west: str
) -> None:
    for order in ({"main": main, "west": west}, {"west": west, "main": main}):
        whereabouts, state = told(**order)
        assert state is now
        assert (whereabouts.dial(PHONE, "main"), whereabouts.dial(PHONE, "west")) == (from_main, from_west)


def test_only_a_phone_has_a_way_over_a_trunk() -> None:
    whereabouts = Whereabouts(TRUNKS)
    for endpoint in ("PJSIP/06@trunk", "PJSIP/a&PJSIP/b", "Local/1@out"):
        whereabouts.tell("west", endpoint, IDLE)
        assert whereabouts.dial(endpoint, "main") == endpoint


@pytest.mark.parametrize("left", [UNREGISTERED, ABSENT])
def test_a_phone_of_an_asterisk_that_is_away_is_not_rung(left: PhoneState | None) -> None:
    whereabouts, now = told(main=left, west=IDLE)
    assert now is IDLE
    assert whereabouts.forget("west") == {PHONE: UNREGISTERED}
    assert whereabouts.forget("west") == {}
    assert whereabouts.forget("main") == {PHONE: UNKNOWN}, "nobody tells anything"
    assert whereabouts.tell("main", PHONE, IDLE) is IDLE
