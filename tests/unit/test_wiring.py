"""Who is connected with whom, from what a PBX tells; and how AMI's events become ours."""

from __future__ import annotations

import pytest

from idbellen.asterisk.ami import translate
from idbellen.domain.wiring import (
    Answered,
    Appeared,
    Channel,
    Entered,
    Gone,
    Held,
    Left,
    LeftQueue,
    Member,
    MemberGone,
    PbxEvent,
    Queued,
    Wiring,
    endpoint_of,
)

CALLER, AGENT, OTHER = "PJSIP/trunk-00000001", "PJSIP/agent1-00000002", "PJSIP/agent2-00000003"


def wired(*events: PbxEvent) -> Wiring:
    wiring = Wiring()
    for event in events:
        wiring.take(event)
    return wiring


def test_who_is_in_one_bridge_talks() -> None:
    wiring = wired(Entered("c", CALLER, "b"), Entered("a", AGENT, "b"), Entered("x", OTHER, "other"))
    assert wiring.talking_with("c") == ["a"]
    assert wiring.endpoint("a") == "PJSIP/agent1"


def test_local_channels_are_a_wire() -> None:
    wiring = wired(
        Appeared("l1", "Local/agent1@from-queue-00000007;1"),
        Appeared("l2", "Local/agent1@from-queue-00000007;2"),
        Entered("c", CALLER, "queue"),
        Entered("l1", "Local/agent1@from-queue-00000007;1", "queue"),
    )
    assert wiring.talking_with("c") == []
    wiring.take(Entered("l2", "Local/agent1@from-queue-00000007;2", "dial"))
    wiring.take(Entered("a", AGENT, "dial"))
    assert wiring.talking_with("c") == ["a"]
    wiring.take(Gone("l2"))
    assert wiring.talking_with("c") == []


def test_a_transfer_changes_who_is_there() -> None:
    wiring = wired(Entered("c", CALLER, "b"), Entered("a", AGENT, "b"))
    for event in (Left("a", "b"), Entered("o", OTHER, "b")):
        wiring.take(event)
    assert wiring.talking_with("c") == ["o"]


def test_late_and_repeated_news_changes_nothing() -> None:
    wiring = wired(Entered("c", CALLER, "b"), Entered("a", AGENT, "b"), Entered("a", AGENT, "b"))
    wiring.take(Left("a", "an earlier bridge"))
    wiring.take(Gone("somebody else"))
    wiring.take(Held("somebody else", on=True))
    assert wiring.talking_with("c") == ["a"]
    assert not wiring.holds("somebody else")


def test_hold_ends_with_the_channel() -> None:
    wiring = wired(Appeared("a", AGENT), Held("a", on=True))
    assert wiring.holds("a")
    wiring.take(Held("a", on=False))
    assert not wiring.holds("a")
    wiring.take(Held("a", on=True))
    wiring.take(Gone("a"))
    assert not wiring.holds("a")
    assert "a" not in wiring


def test_a_snapshot_is_the_beginning() -> None:
    wiring = Wiring([Channel("c", CALLER, "b"), Channel("a", AGENT, "b"), Channel("x", OTHER)])
    assert wiring.talking_with("c") == ["a"]
    assert wiring.in_bridge("c")
    assert not wiring.in_bridge("x")


def test_endpoints_with_a_dash() -> None:
    assert endpoint_of("PJSIP/front-desk-00000001") == "PJSIP/front-desk"


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"Event": "Newchannel", "Uniqueid": "1", "Channel": CALLER}, Appeared("1", CALLER)),
        ({"Event": "Rename", "Uniqueid": "1", "Channel": "old", "Newname": "new"}, Appeared("1", "new")),
        ({"Event": "Hangup", "Uniqueid": "1"}, Gone("1")),
        (
            {"Event": "BridgeEnter", "Uniqueid": "1", "Channel": CALLER, "BridgeUniqueid": "b"},
            Entered("1", CALLER, "b"),
        ),
        ({"Event": "BridgeLeave", "Uniqueid": "1", "BridgeUniqueid": "b"}, Left("1", "b")),
        ({"Event": "Hold", "Uniqueid": "1"}, Held("1", on=True)),
        ({"Event": "Unhold", "Uniqueid": "1"}, Held("1", on=False)),
        ({"Event": "QueueCallerJoin", "Uniqueid": "1", "Queue": "q"}, Queued("1", "q")),
        ({"Event": "QueueCallerLeave", "Uniqueid": "1", "Queue": "q"}, LeftQueue("1", "q")),
        ({"Event": "QueueCallerAbandon", "Uniqueid": "1", "Queue": "q"}, LeftQueue("1", "q", abandoned=True)),
        ({"Event": "AgentConnect", "Uniqueid": "1", "Queue": "q", "Interface": "i"}, Answered("1", "q", "i")),
        ({"Event": "QueueMemberPause", "Queue": "q", "Interface": "i", "Paused": "1"}, Member("q", "i", paused=True)),
        (
            {"Event": "QueueMemberAdded", "Queue": "q", "Interface": "i", "Paused": "0", "Membership": "static"},
            Member("q", "i", paused=False, dynamic=False),
        ),
        ({"Event": "QueueMemberRemoved", "Queue": "q", "Interface": "i"}, MemberGone("q", "i")),
        ({"Event": "QueueMemberStatus", "Queue": "q", "Interface": "i", "Paused": "1"}, None),
        ({"Event": "DTMFEnd", "Digit": "5"}, None),
    ],
)
def test_events_of_ami(message: dict[str, str], event: PbxEvent | None) -> None:
    assert translate(message) == event
