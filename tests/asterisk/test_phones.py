"""Agents and phones are many to many, on real phones: several phones of one agent, several agents with one phone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.installation import PASSWORD, run_cli

if TYPE_CHECKING:
    from tests.support.installation import Installation
    from tests.support.sipp import Phones

# Longer than an offer takes to be made.
OFFER_SECONDS = 1.0


async def add_agent(installation: Installation, name: str, *phones: str) -> None:
    """Add an agent as an operator does."""
    endpoints = [word for phone in phones for word in ("--endpoint", f"PJSIP/{phone}")]
    added = await run_cli(
        "agent", "add", name, *endpoints, "--config", str(installation.config), given=f"{PASSWORD}\n"
    )  # fmt: skip
    assert added == (0, "")


@pytest.mark.parametrize("quicker", ["agent1", "agent2"])
async def test_both_phones_ring_and_the_first_to_answer_has_the_call(
    installation: Installation, telephony: Phones, quicker: str
) -> None:
    await add_agent(installation, "ann", "agent1", "agent2")
    phones = {name: await telephony.agent(name, after_ms=400 if name == quicker else 3000) for name in
              ("agent1", "agent2")}  # fmt: skip
    slower = next(name for name in phones if name != quicker)
    async with installation.dashboard("ann") as dashboard:
        await dashboard.until_phone("idle")
        await dashboard.available()
        caller = await telephony.call(await installation.log_in_citizen())
        call = await dashboard.until_call()
        await dashboard.shown(call["id"])
        assert (await dashboard.attributes(call["secret"]))[0] == 200
        for phone in phones.values():
            await phone.rung()
        # The other one is not rung while she talks.
        second = await telephony.call(await installation.log_in_citizen())
        await installation.until_log("accepted=True", times=2)
        await asyncio.sleep(OFFER_SECONDS)
        assert dashboard.snapshot["state"] == "in_call"
        assert [phones[name].count("rung") for name in (quicker, slower)] == [1, 1]
        assert phones[slower].count("talking") == 0
        caller.go_on()
        await caller.ended()
        async with asyncio.timeout(15):
            while (await dashboard.until_call())["id"] == call["id"]:
                await dashboard.next()
        second.go_on()
        await second.ended()
        assert (await dashboard.until("available"))["today"]["missed"] == 0
    await installation.until_nothing_is_left()


async def test_a_phone_that_two_share_rings_for_one_of_them_at_a_time(
    installation: Installation, telephony: Phones
) -> None:
    await add_agent(installation, "bob", "agent1")
    phone = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as one, installation.dashboard("bob") as other:
        for dashboard in (one, other):
            await dashboard.until_phone("idle")
            await dashboard.available()
        callers = [await telephony.call(await installation.log_in_citizen()) for _ in range(2)]
        await installation.until_log("accepted=True", times=2)
        await phone.talking()
        waits = [asyncio.create_task(dashboard.until_call()) for dashboard in (one, other)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        done, pending = await asyncio.wait(waits, timeout=OFFER_SECONDS)
        assert (len(done), len(pending)) == (1, 1), "whoever is rung has the call"
        for wait in pending:
            wait.cancel()
        elsewhere = one if waits[0] in pending else other
        assert (elsewhere.snapshot["state"], elsewhere.snapshot["offer"]) == ("available", None)
        assert phone.count("rung") == 1
        for caller in callers:
            caller.go_on()
            await caller.ended()
    await installation.until_nothing_is_left()
