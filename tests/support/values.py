"""Values that tests read and compare with, in types that say what the tests mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from idbellen.calls.staff import Staff
    from idbellen.domain.agents import Agent
    from idbellen.domain.ids import AgentName


def about(number: float, *, within: float | None = None) -> float:
    """Give what equals every number near this one, to stand in a tuple or a record in place of the number."""
    return cast("float", pytest.approx(number, abs=within))


def agent_now(staff: Staff, name: AgentName) -> Agent:
    """Give an agent as they are at this moment.

    Of ``staff[name].state`` the type checker believes that it stays what an assertion before has found.
    """
    return staff[name]
