"""Calls that a real Asterisk queues and connects by itself, with the right screen at the right agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from idbellen.demo.pbx import PbxSettings
from idbellen.ports import Role
from tests.conftest import AGENTS, PROMPTS
from tests.support.installation import ATTRIBUTES, run_cli
from tests.support.pbx_queues import FREEPBX_QUEUE, QUEUE, USER, QueuePbx, pbx_tables, scripted_agent
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
FREEPBX = {"member_interface": '"Local/{name}@from-queue/n"', "state_interface": '"hint:{name}@ext-local"'}


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
        shape: str = "plain",
        pbx_values: dict[str, str] | None = None,
        ami_port: int | None = None,
        *,
        followed: bool = True,
        **changes: str,
    ) -> Installation:
        await pbx.shape(shape)
        await pbx.without_members()
        values = {**(FREEPBX if shape == "freepbx" else {}), **(pbx_values or {})}
        more = pbx_tables(pbx, tmp_path / "idbellen", ami_port=ami_port, followed=followed, **values)
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


async def in_a_call_without_data(dashboard: Dashboard) -> None:
    """Check that the agent is in a call with somebody who is not verified, of whom there is nothing to see."""
    call = await dashboard.until_call()
    assert dashboard.snapshot["state"] == "in_call"
    assert (call["secret"], call["words"], call["part"], call["allowed"]) == (None, None, "main", [])


@pytest.mark.parametrize(
    "how", [("plain", WRONG, "not verified"), ("freepbx", WRONG, "not verified"), ("plain", "#", "without a code")]
)
async def test_who_is_not_verified_is_a_call_without_anything_to_see(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones, how: tuple[str, str, str]
) -> None:
    shape, keys, logged = how
    installation = await begin(shape, tries="1")
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await ready(dashboard, pbx, QUEUE, "agent1")
        caller = await telephony.call(keys)
        await installation.until_log(logged)
        await agent.talking()
        shown = await pbx.cli(f"core show channel {await pbx.channel('PJSIP/trunk')}")
        assert "IDBELLEN_VERIFIED=0" in shown
        assert "IDBELLEN_PRIORITY=0" in shown
        await in_a_call_without_data(dashboard)
        caller.go_on()
        await caller.ended()
        await no_screen(dashboard)
        await dashboard.until("available")
        await dashboard._until(lambda now: now["today"]["calls"] == 1, "a call more", 5)
    await installation.until_nothing_is_left()


async def test_without_queues_to_follow_the_screen_follows_and_members_are_the_pbxs_own(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin("freepbx", followed=False, tries="1")
    await telephony.agent("agent1")
    member = {"Queue": FREEPBX_QUEUE, "Interface": "Local/agent1@from-queue/n"}
    await pbx.ami("QueueAdd", **member, MemberName="agent1", StateInterface="hint:agent1@ext-local")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.until("paused")
        citizen = await telephony.call(await installation.log_in_citizen())
        await sees(dashboard)
        citizen.go_on()
        await citizen.ended()
        await no_screen(dashboard)
        stranger = await telephony.call(WRONG)
        await in_a_call_without_data(dashboard)
        stranger.go_on()
        await stranger.ended()
        await no_screen(dashboard)
        assert await pbx.members(FREEPBX_QUEUE) == {"agent1": False}
    await installation.until_nothing_is_left()


async def test_without_ari_the_service_is_ready_and_serves(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin("freepbx", ari_port="off")
    assert await installation.ready() == "ready"
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        await pbx.until_members(FREEPBX_QUEUE, {"agent1": False})
        assert dashboard.snapshot["telephony"]
        caller = await telephony.call(await installation.log_in_citizen())
        await sees(dashboard)
        caller.go_on()
        await caller.ended()
        await no_screen(dashboard)


async def test_an_ari_that_is_off_keeps_nothing_waiting(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx
) -> None:
    installation = await begin(ari_port=str(free_ports()))
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        await pbx.until_members(QUEUE, {"agent1": False})
        assert dashboard.snapshot["telephony"]
    assert (await installation.ready()).startswith("ready, but main: ")


async def test_who_does_not_want_to_be_disturbed_is_not_rung(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin("freepbx")
    agent = await telephony.agent("agent1")
    await pbx.cli("devstate change Custom:DNDagent1 BUSY")
    async with installation.dashboard("agent1") as dashboard:
        await ready(dashboard, pbx, FREEPBX_QUEUE, "agent1")
        assert "hint:agent1@ext-local" in await pbx.cli(f"queue show {FREEPBX_QUEUE}")
        caller = await telephony.call(await installation.log_in_citizen())
        await dashboard._until(lambda now: now.get("waiting") == 1, "a waiting caller", 10)
        # Twice as long as the queue waits before it tries again.
        await asyncio.sleep(2)
        assert agent.count("rung") == 0
        await pbx.cli("devstate change Custom:DNDagent1 NOT_INUSE")
        await sees(dashboard)
        caller.go_on()
        await caller.ended()
        await no_screen(dashboard)
    await installation.until_nothing_is_left()


@pytest.mark.parametrize("answers", ["agent1", "agent2"])
async def test_an_agent_with_two_devices_is_known_at_both(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones, answers: str
) -> None:
    by_user = {"member_interface": '"Local/{account}@from-queue/n"', "state_interface": '"hint:{account}@ext-local"'}
    installation = await begin("freepbx", by_user)
    await installation.add_agents(USER, endpoint="PJSIP/agent1&PJSIP/agent2")
    await telephony.agent(answers)
    async with installation.dashboard(USER) as dashboard, installation.dashboard("agent3") as other:
        await ready(dashboard, pbx, FREEPBX_QUEUE, USER)
        caller = await telephony.call(await installation.log_in_citizen())
        await sees(dashboard)
        assert dashboard.snapshot["state"] == "in_call"
        await other._until(lambda now: {"name": USER, "state": "in_call", "free": False} in now.get("colleagues", []),
                           "a colleague in a call", 5)  # fmt: skip
        caller.go_on()
        await caller.ended()
        await no_screen(dashboard)
    await installation.until_nothing_is_left()


async def test_each_phone_of_an_agent_is_a_member_and_rests_while_another_is_used(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin()
    await installation.add_agents(USER, endpoint="PJSIP/agent1&PJSIP/agent2")
    phones_of_both = [await telephony.agent(name) for name in ("agent1", "agent2")]
    async with installation.dashboard(USER) as dashboard:
        await ready(dashboard, pbx, QUEUE, USER)
        first = await telephony.call(await installation.log_in_citizen())
        secret = await sees(dashboard)
        second = await telephony.call(await installation.log_in_citizen())
        await dashboard._until(lambda now: now.get("waiting") == 1, "a waiting caller", 10)
        await asyncio.sleep(2)
        assert sum(phone.count("talking") for phone in phones_of_both) == 1, "one call at a time"
        first.go_on()
        await first.ended()
        async with asyncio.timeout(10):
            while (await dashboard.until_call())["secret"] == secret:
                await dashboard.next()
        second.go_on()
        await second.ended()
        await no_screen(dashboard)
    await installation.until_nothing_is_left()


async def test_of_two_accounts_with_one_phone_who_works_with_it_sees_the_citizen(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin()
    await installation.add_agents("late-shift", endpoint="PJSIP/agent1")
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as early, installation.dashboard("late-shift") as late:
        await ready(early, pbx, QUEUE, "agent1")
        await late.available()
        await early.until("paused")
        caller = await telephony.call(await installation.log_in_citizen())
        secret = await sees(late)
        assert (await early.attributes(secret))[0] == 403
        caller.go_on()
        await caller.ended()
        await no_screen(late)
    await installation.until_nothing_is_left()


async def test_members_that_the_configuration_of_the_pbx_changes(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx
) -> None:
    installation = await begin()
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.until("paused")
        await pbx.configure_members(QUEUE, "PJSIP/agent1")
        await pbx.until_members(QUEUE, {"PJSIP/agent1": True})
        await dashboard.available()
        await pbx.until_members(QUEUE, {"PJSIP/agent1": False})
        await pbx.configure_members(QUEUE)
        await dashboard.until("paused")
        await pbx.until_members(QUEUE, {})
    await pbx.without_members()


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


async def test_who_talks_with_a_stranger_does_so_after_a_restart(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, telephony: Phones
) -> None:
    installation = await begin(tries="1")
    await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await ready(dashboard, pbx, QUEUE, "agent1")
        caller = await telephony.call(WRONG)
        await in_a_call_without_data(dashboard)
        await installation.stop()
    await installation.start()
    async with installation.dashboard("agent1") as dashboard:
        await in_a_call_without_data(dashboard)
        caller.go_on()
        await caller.ended()
        await no_screen(dashboard)
    await installation.until_nothing_is_left()


@pytest.mark.parametrize("shape", ["plain", "freepbx"])
async def test_check_finds_what_is_missing_at_the_pbx(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx, shape: str
) -> None:
    installation = await begin(shape)

    async def told(*about: str) -> list[str]:
        _, said = await run_cli("check", "--config", str(installation.config))
        return [line for line in said.splitlines() if any(word in line for word in about)]

    kinds = ("FastAGI", "AMI", "queues", "PBX's dialplan")
    assert [line for line in await told(*kinds) if "ok" not in line] == []
    text = installation.config.read_text()
    for old, new in ((f"{QUEUE} =", "absent ="), (f"127.0.0.1:{pbx.agi_port}", "127.0.0.1:1")):
        assert old in text
        text = text.replace(old, new)
    text = text.replace("@from-queue", "@nowhere").replace("@ext-local", "@nowhere-either")
    installation.config.write_text(text)
    found = "\n".join(await told(*kinds))
    assert "[pbx.queues]: the PBX has no such queue: absent" in found
    assert f"IDBELLEN_AGI is '127.0.0.1:{pbx.agi_port}', but [agi] listen is '127.0.0.1:1'" in found
    assert f"IDBELLEN_QUEUE is '{QUEUE}': expected a queue that [pbx.queues] names" in found
    for context in ("nowhere", "nowhere-either") if shape == "freepbx" else ():
        assert f"there is no context {context}, which [pbx] names" in found


async def test_check_finds_an_asterisk_without_our_dialplan(
    begin: Callable[..., Awaitable[Installation]], pbx: QueuePbx
) -> None:
    installation = await begin()
    contexts = ("idbellen-queue", "idbellen-freepbx")
    for context in contexts:
        await pbx.cli(f"dialplan remove context {context}")
    await pbx.cli('dialplan set global IDBELLEN_LANGUAGE ""')
    try:
        _, said = await run_cli("check", "--config", str(installation.config))
    finally:
        await pbx.cli("dialplan reload")
    assert "there is no context idbellen-queue or idbellen-freepbx: include dialplan/" in said
    assert "IDBELLEN_LANGUAGE is ''" in said


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
