"""What is logged of an auth result that came in: names, never values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from joserfc.jwk import ECKey
from structlog.testing import capture_logs

from idbellen.calls.desk import Desk, DeskRules
from idbellen.calls.progress import Progress
from idbellen.calls.results import Results
from idbellen.calls.staff import Staff, StaffRules
from idbellen.demo.tokens import VERDER_HELPEN, auth_result
from idbellen.domain.idcontact import TokenOpener
from idbellen.domain.ids import SessionRef
from idbellen.domain.queueing import Queues
from idbellen.ports import Attached, Session
from tests.support.fakes import FakeCallLog, NoSessions

if TYPE_CHECKING:
    from idbellen.domain.idcontact import Received

NOW = 1_700_000_000.0
OWN_KEY, AUTH_KEY = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
SESSION = Session(SessionRef("session"), "move")
EXPECTED = ("fullname", "bsn")
MISSING = "attributes missing: compare the names in [purposes] attributes with those that the core asks for"


class Kept(NoSessions):
    """Says of every result the same."""

    def __init__(self, becomes: Attached) -> None:
        self._becomes = becomes

    async def attach_result(self, reference: str, received: Received) -> Attached:  # noqa: ARG002
        return self._becomes


def results(becomes: Attached = Attached.KEPT) -> Results:
    progress = Progress(Desk(lambda: NOW, Staff(lambda: NOW, StaffRules()), DeskRules(Queues()), FakeCallLog()))
    attributes = {"move": EXPECTED, "ask": ()}
    return Results(TokenOpener([OWN_KEY], [AUTH_KEY]), Kept(becomes), progress, attributes, lambda: NOW)


def token(attributes: dict[str, str] | None, status: str = "success") -> str:
    return auth_result(
        attributes, status=status, subject=VERDER_HELPEN.subject, signing_key=AUTH_KEY, encryption_key=OWN_KEY,
        now=NOW, signature="ES256", key_encryption="ECDH-ES",
    )  # fmt: skip


async def told(
    attributes: dict[str, str] | None, session: Session = SESSION, status: str = "success"
) -> list[dict[str, Any]]:
    """Let a result come in; gives what is logged besides that."""
    with capture_logs() as logs:
        of = results()
        assert await of.attach(session, of.receive(token(attributes, status), session.purpose)) is Attached.KEPT
    assert logs[0]["event"] == "auth result received"
    assert (logs[0]["session"], logs[0]["purpose"]) == ("session", session.purpose)
    return [dict(entry) for entry in logs[1:]]


@pytest.mark.parametrize(
    ("attributes", "missing", "came"),
    [
        ({"fullname": "Sanne"}, "bsn", "fullname"),
        ({"Fullname": "Sanne", "email": "s@example.nl"}, "fullname,bsn", "Fullname,email"),
        ({"Sanne Voorbeeld": "Sanne"}, "fullname,bsn", "and 1 more"),
        (None, "fullname,bsn", "none"),
    ],
)
async def test_what_came_and_what_was_expected_are_told(
    attributes: dict[str, str] | None, missing: str, came: str
) -> None:
    [entry] = await told(attributes)
    assert entry == {
        "event": MISSING,
        "log_level": "warning",
        "session": "session",
        "purpose": "move",
        "expected": "fullname,bsn",
        "missing": missing,
        "came": came,
    }


async def test_nothing_is_told_of_what_nobody_expects() -> None:
    assert await told({"fullname": "Sanne", "bsn": "1", "email": "s@example.nl"}) == []
    assert await told(None, status="failed") == []
    assert await told(None, replace(SESSION, purpose="ask")) == []


@pytest.mark.parametrize(
    ("becomes", "reason"), [(Attached.REPLAYED, "replayed"), (Attached.SECOND, "the session has one already")]
)
async def test_a_refusal_names_session_and_purpose(becomes: Attached, reason: str) -> None:
    with capture_logs() as logs:
        of = results(becomes)
        assert await of.attach(SESSION, of.receive(token({}), "move")) is becomes
    assert logs == [
        {
            "event": "auth result refused",
            "log_level": "warning",
            "session": "session",
            "purpose": "move",
            "reason": reason,
        }
    ]
