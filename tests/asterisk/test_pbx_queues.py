"""Calls that a real Asterisk queues and connects by itself, with the right screen at the right agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from idbellen.demo.pbx import PbxSettings
from idbellen.ports import Role
from tests.conftest import AGENTS, PROMPTS
from tests.support.installation import ATTRIBUTES
from tests.support.pbx_queues import FREEPBX_QUEUE, QUEUE, QueuePbx, pbx_tables, scripted_agent
from tests.support.ports import free_ports, reserved_ports
from tests.support.proxy import Proxy
from tests.support.rtp import Stalls, typed
from tests.support.scenarios import CALLER_NUMBER
from tests.support.sipp import Phones, phones

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.support.dashboards import Dashboard
    from tests.support.installation import Installation

    Install = Callable[..., Awaitable[Installation]]

WRONG = "0101010101"
LATER_MS = 1000
FREEPBX = {"member_interface": '"Local/{name}@from-queue/n"'}


@pytest.fixture(scope="module")
async def pbx(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QueuePbx]:
    with reserved_ports(200) as rtp:
        settings = PbxSettings(
            directory=tmp_path_factory.mktemp("pbx"),
            prompts=PROMPTS,
            ari_port=free_ports(),
            sip_port=free_ports(),
            rtp_start=rtp,
            rtp_end=rtp + 199,
            agents=AGENTS,
        )
        pbx = QueuePbx(settings)
        await pbx.start()
        yield pbx
        await pbx.stop()


@pytest.fixture
async def telephony(pbx: QueuePbx, tmp_path: Path) -> AsyncIterator[Phones]:
    async with phones(pbx, tmp_path) as made:
        yield made
    # Whatever a test has left, the next begins with nothing.
    await pbx.cli("channel request hangup all")


@pytest.fixture
async def begin(pbx: QueuePbx, install: Install, tmp_path: Path) -> Callable[..., Awaitable[Installation]]:
    """Start an idbellen beside the PBX, whose trunk leads to it in one of both shapes."""

    async def start(
        shape: str = "plain", pbx_values: dict[str, str] | None = None, ami_port: int | None = None, **changes: str
    ) -> Installation:
        await pbx.shape(shape)
        await pbx.without_members()
        values = {**(FREEPBX if shape == "freepbx" else {}), **(pbx_values or {})}
        more = pbx_tables(pbx, tmp_path / "idbellen", ami_port=ami_port, **values)
        installation = await install(more=more, **changes)
        await installation.until_log("connected with the PBX over AMI")
        return installation

    return start


async def ready(dashboard: Dashboard, pbx: QueuePbx, queue: str, name: str) -> None:
    """Become available, and wait until the queue has the agent."""
    await dashboard.until_phone("idle")
    if dashboard.snapshot["state"] != "available":
        await dashboard.available()
    async with asyncio.timeout(8):
        while (await pbx.members(queue)).get(name) is not False:
            await asyncio.sleep(0.05)


async def sees(dashboard: Dashboard) -> str:
    """Check that this dashboard shows the citizen of a call; gives the secret."""
    call = await dashboard.until_call()
    status, shown = await dashboard.attributes(call["secret"])
    assert status == 200
    assert shown["status"] == "verified"
    assert "Quirijn Zevenaar-Vlinderslag" in str(shown)
    assert call["allowed"] == []
    await dashboard.shown(call["id"])
    return str(call["secret"])


async def no_screen(dashboard: Dashboard) -> None:
    await dashboard._until(lambda now: "call" in now and now["call"] is None, "no call", 10)


@pytest.mark.parametrize(("shape", "queue"), [("plain", QUEUE), ("freepbx", FREEPBX_QUEUE)])
async def test_from_code_to_screen(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones, shape: str, queue: str
) -> None:
    installation = await begin(shape)
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard, installation.dashboard("agent2") as other:
        await ready(dashboard, pbx, queue, "agent1")
        caller = await telephony.call(await installation.log_in_citizen())
        secret = await sees(dashboard)
        assert (await other.attributes(secret))[0] == 403, "another agent"
        channel = await pbx.channel("PJSIP/trunk")
        shown = await pbx.cli(f"core show channel {channel}")
        assert "IDBELLEN_VERIFIED=1" in shown
        assert "IDBELLEN_PURPOSE=report_move" in shown
        assert "IDBELLEN_PRIORITY=1" in shown
        assert secret not in shown
        assert installation.codes[-1] not in shown
        caller.go_on()
        assert await caller.ended() == "by caller"
        await no_screen(dashboard)
        await dashboard.until("available")
        assert (await dashboard.attributes(secret))[0] == 403, "the call is over"
    await installation.until_nothing_is_left()


@pytest.mark.parametrize(("keys", "logged"), [(WRONG, "not verified"), ("#", "without a code")])
async def test_who_is_not_verified_is_queued_and_shows_no_screen(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones, keys: str, logged: str
) -> None:
    installation = await begin(tries="1")
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await ready(dashboard, pbx, QUEUE, "agent1")
        caller = await telephony.call(keys)
        await installation.until_log(logged)
        await agent.talking()
        shown = await pbx.cli(f"core show channel {await pbx.channel('PJSIP/trunk')}")
        assert "IDBELLEN_VERIFIED=0" in shown
        assert "IDBELLEN_PRIORITY=0" in shown
        assert (await dashboard.until("available"))["call"] is None
        caller.go_on()
        await caller.ended()
    await installation.until_nothing_is_left()


@pytest.mark.parametrize("way", ["phone", "attended"])
async def test_a_transfer_moves_the_screen(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones, way: str
) -> None:
    installation = await begin()
    first = await scripted_agent(telephony, "agent1", *(["refer agent2"] if way == "phone" else []))
    second = await telephony.agent("agent2")
    async with installation.dashboard("agent1") as dashboard, installation.dashboard("agent2") as other:
        await ready(dashboard, pbx, QUEUE, "agent1")
        await other.until("paused")
        caller = await telephony.call(await installation.log_in_citizen())
        secret = await sees(dashboard)
        if way == "phone":
            first.hang_up()
        else:
            leg = await pbx.channel("PJSIP/agent1")
            await pbx.ami("Atxfer", Channel=leg, Exten="102", Context="idbellen-agents")
            await second.talking()
            assert (await dashboard.attributes(secret))[0] == 200, "only asked so far"
            assert (await other.attributes(secret))[0] == 403, "does not have the caller yet"
            await pbx.cli(f"channel request hangup {leg}")
        assert await sees(other) == secret
        await no_screen(dashboard)
        assert (await dashboard.attributes(secret))[0] == 403, "no longer theirs"
        caller.go_on()
        await caller.ended()
        await no_screen(other)
        await other.until("paused")
    await installation.until_nothing_is_left()


async def test_hold_is_shown(begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones) -> None:
    installation = await begin()
    phone = await scripted_agent(telephony, "agent1", "hold", "unhold")
    async with installation.dashboard("agent1") as dashboard:
        await ready(dashboard, pbx, QUEUE, "agent1")
        caller = await telephony.call(await installation.log_in_citizen())
        secret = await sees(dashboard)
        phone.hang_up()
        await dashboard.until_call(mode="held")
        assert (await dashboard.attributes(secret))[0] == 200
        phone.hang_up()
        await dashboard.until_call(mode="talking")
        caller.go_on()
        await caller.ended()
        await no_screen(dashboard)
    await installation.until_nothing_is_left()


async def test_who_gives_up_in_the_queue_may_use_the_code_again(
    begin: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    installation = await begin()
    code = await installation.log_in_citizen()
    async with installation.dashboard("agent1") as dashboard:
        for times in (1, 2):
            caller = await telephony.call(code)
            await installation.until_log("accepted=True", times=times)
            await dashboard._until(lambda now: now.get("waiting") == 1, "a waiting caller", 10)
            caller.go_on()
            await caller.ended()
            await dashboard._until(lambda now: now.get("waiting") == 0, "nobody waiting", 10)
            await installation.until_log("call over", times=times)
    await installation.until_nothing_is_left()


async def test_the_wallboard_shows_who_waits_and_who_serves(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin(tries="1")
    await installation.add_agents("boss", role=Role.SUPERVISOR)
    await telephony.agent("agent1")

    async def board(**wanted: object) -> None:
        async with asyncio.timeout(15):
            while True:
                message = await wall._socket.receive_json()
                if message["type"] == "snapshot":
                    here = {agent["name"]: agent["state"] for agent in message["agents"]}
                    verified = [caller["verified"] for caller in message["callers"]]
                    if {"agents": here, "callers": verified} == wanted:
                        return

    async with installation.wallboard("boss") as wall, installation.dashboard("agent1") as dashboard:
        await dashboard.until("paused")
        stranger = await telephony.call(WRONG)
        await board(agents={"agent1": "paused"}, callers=[False])
        citizen = await telephony.call(await installation.log_in_citizen())
        # Who is verified goes first, on the board and in the PBX.
        await board(agents={"agent1": "paused"}, callers=[True, False])
        await ready(dashboard, pbx, QUEUE, "agent1")
        await board(agents={"agent1": "in_call"}, callers=[False])
        await sees(dashboard)
        await dashboard.pause()
        await pbx.until_members(QUEUE, {"agent1": True})
        for caller in (citizen, stranger):
            caller.go_on()
            await caller.ended()
        await board(agents={"agent1": "paused"}, callers=[])
    await installation.until_nothing_is_left()


async def test_short_digits_over_a_network_that_stalls(
    begin: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    installation = await begin()
    codes = [await installation.log_in_citizen() for _ in range(8)]
    callers = [
        await telephony.call(typed(code, first_ms=200, tone_ms=80, gap_ms=80), stalls=Stalls(seed))
        for seed, code in enumerate(codes)
    ]
    await installation.until_log("accepted=True", times=len(codes))
    for caller in callers:
        caller.go_on()
        await caller.ended()
    await installation.until_nothing_is_left()


async def test_wrong_then_right(begin: Callable[..., Awaitable[Installation]], telephony: Phones) -> None:
    installation = await begin()
    code = await installation.log_in_citizen()
    caller = await telephony.call(WRONG, typed(f"12*{code}", first_ms=LATER_MS))
    await installation.until_log("accepted=False")
    caller.go_on()
    await installation.until_log("accepted=True attempt=2")
    caller.go_on()
    await caller.ended()
    await installation.until_nothing_is_left()


@pytest.mark.parametrize("way", ["planned", "kill -9"])
async def test_a_restart_of_idbellen_brings_the_screen_back(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones, way: str
) -> None:
    installation = await begin()
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await ready(dashboard, pbx, QUEUE, "agent1")
        talker = await telephony.call(await installation.log_in_citizen())
        await sees(dashboard)
        waiter = await telephony.call(await installation.log_in_citizen())
        await dashboard._until(lambda now: now.get("waiting") == 1, "a waiting caller", 10)
        await (installation.stop() if way == "planned" else installation.kill())
        assert len(await installation.channels()) == 3, "nobody on the phone noticed"
    await installation.start()
    async with installation.dashboard("agent1") as dashboard:
        first = await sees(dashboard)
        await dashboard._until(lambda now: now.get("waiting") == 1, "a waiting caller", 10)
        # Whoever waits gets this agent next, with the screen.
        await dashboard.send("available")
        talker.go_on()
        await talker.ended()
        async with asyncio.timeout(20):
            while (call := await dashboard.until_call())["secret"] == first:
                await dashboard.next()
        assert call["secret"] != first
        await sees(dashboard)
        waiter.go_on()
        await waiter.ended()
        await no_screen(dashboard)
    await installation.until_nothing_is_left()
    again = await telephony.call(installation.codes[0])
    await installation.until_log("accepted=False")
    again.go_on()
    await again.ended()


async def test_while_idbellen_is_away_callers_are_queued(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin()
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await ready(dashboard, pbx, QUEUE, "agent1")
        asked = await telephony.call("")
        await asked.answered()
        await installation.kill()
        # The one who was being asked for a code goes on, and so does the next.
        await agent.talking()
        asked.go_on()
        await asked.ended()
    caller = await telephony.call("")
    await agent.talking(2)
    caller.go_on()
    await caller.ended()
    await installation.start()


async def test_asterisk_ends_in_the_middle(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin()
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await ready(dashboard, pbx, QUEUE, "agent1")
        caller = await telephony.call(await installation.log_in_citizen())
        secret = await sees(dashboard)
        await pbx.kill()
        await pbx.start()
        await no_screen(dashboard)
        assert (await dashboard.attributes(secret))[0] == 403
        await installation.until_log("connected with the PBX over AMI", times=2, seconds=20)
        caller.go_on()
        # Nobody answers the end of a call that this Asterisk does not know.
        await telephony.agent("agent1")
        await ready(dashboard, pbx, QUEUE, "agent1")
        await telephony.call(await installation.log_in_citizen())
        assert await sees(dashboard) != secret
        await pbx.cli("channel request hangup all")
        await no_screen(dashboard)


@pytest.mark.parametrize("way", ["cut", "silent"])
async def test_ami_is_away_for_a_while(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones, way: str
) -> None:
    async with Proxy(pbx.ami_port) as proxy:
        installation = await begin(pbx_values={"lost_seconds": "0.3"}, ami_port=proxy.port)
        await telephony.agent("agent1")
        async with installation.dashboard("agent1") as dashboard:
            await ready(dashboard, pbx, QUEUE, "agent1")
            caller = await telephony.call(await installation.log_in_citizen())
            secret = await sees(dashboard)
            if way == "cut":
                proxy.refuse()
                proxy.cut()
            else:
                proxy.silence()
            # Nobody knows whether the call still goes on, so the screen is cleared.
            await dashboard._until(lambda now: now["call"] is None, "no call", 15)
            assert (await dashboard.attributes(secret))[0] == 403
            await installation.until_log("calls lost sight of")
            assert len(await installation.channels()) == 2, "nobody on the phone noticed"
            proxy.cut()
            await proxy.pass_on()
            await dashboard._until(lambda now: now["call"] is not None, "a call", 15)
            assert await sees(dashboard) != secret
            caller.go_on()
            await caller.ended()
            await no_screen(dashboard)
        await installation.until_nothing_is_left()


async def test_members_follow_the_dashboard_and_the_other_way_round(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin()
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await ready(dashboard, pbx, QUEUE, "agent1")
        await dashboard.pause()
        await pbx.until_members(QUEUE, {"agent1": True})
        await dashboard.send("available")
        for queue in (QUEUE, FREEPBX_QUEUE):
            await pbx.until_members(queue, {"agent1": False})
        await dashboard.until("available")
        # By somebody else: a feature code, or an operator.
        await pbx.ami("QueuePause", Interface="PJSIP/agent1", Paused="true")
        await dashboard.until("paused")
        await pbx.ami("QueuePause", Interface="PJSIP/agent1", Paused="false")
        await dashboard.until("available")
    await pbx.until_members(QUEUE, {})


async def test_a_wrong_password_is_told(pbx: QueuePbx, install: Install, tmp_path: Path) -> None:
    more = pbx_tables(pbx, tmp_path / "idbellen")
    (tmp_path / "idbellen/ami-password").write_text("another")
    installation = await install(more=more)
    await installation.until_log("the PBX refuses user 'idbellen' or the password")


def test_no_code_secret_or_attribute_in_any_log(pbx: QueuePbx, all_installations: list[Installation]) -> None:
    """Comes last in this file, and searches the logs of all that is above."""
    here = [one for one in all_installations if one.pbx is pbx]
    of_asterisk = [path for path in (pbx.settings.directory / "log").rglob("*") if path.is_file()]
    # The PBX's own reports have the callers' numbers, whatever we do.
    logs = [path.read_text(errors="replace").replace(f"||{CALLER_NUMBER}|", "") for path in of_asterisk]
    logs += [one.log.read_text() for one in here]
    hidden = {WRONG, CALLER_NUMBER, pbx.ami_password, *ATTRIBUTES.values()}
    for one in here:
        hidden |= {*one.codes, *one.secrets}
    assert logs
    assert [text for text in hidden for content in logs if text in content] == []
