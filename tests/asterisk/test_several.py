"""Two Asterisks, one contact centre: any agent gets any caller, and what one of them has outlives the other."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import pytest

from idbellen.demo.pbx import Pbx, PbxSettings
from idbellen.ports import Role
from tests.conftest import PROMPTS
from tests.support.installation import PLAIN_CAUSE, Installation, run_cli, write_secret
from tests.support.logs import personal_data_in_logs
from tests.support.ports import free_ports, reserved_ports
from tests.support.proxy import Proxy
from tests.support.rtp import sounds
from tests.support.sipp import phones

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.dashboards import Dashboard
    from tests.support.redis_servers import RedisProcess
    from tests.support.rtp import Sound
    from tests.support.sipp import Phones

# Whose phone is where: one may register on either.
PHONES = {"main": ("here", "either"), "west": ("there", "either", "boss")}
AGENTS = ("here", "there", "either")
TAKEN_UP_SECONDS = 5.0
# Asterisk gives a phone or a trunk up that has not answered OPTIONS for 3 s.
UNANSWERED_SECONDS = 3.5
# After a start all phones are asked within 3 s (max_initial_qualify_time).
FIRST_ASKED_SECONDS = 5.0


@dataclass(frozen=True)
class Region:
    """Both Asterisks."""

    main: Pbx
    west: Pbx

    @property
    def asterisk_tables(self) -> str:
        """What the configuration says of the second one."""
        port, password_file = self.west.settings.ari_port, self.west.settings.directory / "ari-password"
        return (
            f'[asterisk.others.west]\nurl = "http://127.0.0.1:{port}/ari"\n'
            f'password_file = "{password_file}"\ntrunk = "to-west"\n'
        )


@dataclass(frozen=True)
class Centre:
    """The service beside both, and phones on each."""

    region: Region
    service: Installation
    main: Phones
    west: Phones

    async def until_nothing_is_left(self) -> None:
        async with asyncio.timeout(5):
            for pbx in (self.region.main, self.region.west):
                while "0 active channels" not in await pbx.cli("core show channels count"):
                    await asyncio.sleep(0.05)
        await self.service.until_nothing_is_left()

    async def ready(self) -> tuple[int, str]:
        async with aiohttp.ClientSession() as http, http.get(f"{self.service.internal_url}/ready") as answer:
            return answer.status, (await answer.text()).strip()

    async def until_ready(self, text: str) -> None:
        async with asyncio.timeout(30):
            while text not in (await self.ready())[1]:
                await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
async def region(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Region]:
    sip = {name: free_ports() for name in PHONES}
    password = secrets.token_urlsafe(18)
    async with AsyncExitStack() as stack:
        made = {}
        for name, agents in PHONES.items():
            rtp = stack.enter_context(reserved_ports(100))
            folder = tmp_path_factory.mktemp(name)
            pbx = Pbx(
                PbxSettings(
                    folder, PROMPTS, free_ports(), sip[name], rtp, rtp + 99, agents, plain="idbellen-test-plain,s,1",
                    name=name, beside={other: port for other, port in sip.items() if other != name},
                    # Not the address from which the other Asterisk calls.
                    between_password=password, trunk_match="127.0.0.2",
                )
            )  # fmt: skip
            stack.push_async_callback(pbx.stop)
            await start(pbx)
            write_secret(folder / "ari-password", pbx.settings.ari_password)
            made[name] = pbx
        yield Region(**made)


async def start(pbx: Pbx) -> None:
    await pbx.start()
    await pbx.cli(f"dialplan add extension s,1,Hangup({PLAIN_CAUSE}) into idbellen-test-plain")


@pytest.fixture
async def centre(region: Region, keys_folder: Path, tmp_path: Path) -> AsyncIterator[Centre]:
    service = Installation(tmp_path / "idbellen", region.main)
    write(service, region, keys_folder, more='[supervisors]\nmonitor = ["listen"]\n')
    await service.add_agents(*AGENTS)
    await service.add_agents("boss", role=Role.SUPERVISOR)
    (tmp_path / "west").mkdir()
    async with phones(region.main, tmp_path) as main, phones(region.west, tmp_path / "west") as west:
        await service.start()
        made = Centre(region, service, main, west)
        await made.until_ready("ready")
        yield made
        if service.process and service.process.returncode is None:
            assert await service.stop() == 0, service.log.read_text()
    for pbx in (region.main, region.west):
        await pbx.cli("channel request hangup all")
        assert personal_data_in_logs(pbx, [service]) == []
    assert "Traceback" not in service.log.read_text(), service.log.read_text()


def write(service: Installation, region: Region, keys_folder: Path, *, more: str = "", **changes: str) -> None:
    changes = {"asterisk__trunk": '"to-main"', "dashboard__grace_seconds": "10", "calls__rest_seconds": "1"} | changes
    service.write(keys_folder, more=region.asterisk_tables + more, **changes)


@pytest.fixture
async def voices() -> AsyncIterator[tuple[Sound, Sound]]:
    async with sounds(2) as (caller, agent):
        yield caller, agent


@asynccontextmanager
async def talking(
    centre: Centre, of_caller: Phones, of_agent: Phones, agent: str, voices: tuple[Sound, Sound]
) -> AsyncIterator[Dashboard]:
    """Let a citizen talk with an agent, and see that they hear each other and that the page shows who it is."""
    phone = await of_agent.agent(agent, sound=voices[1])
    async with centre.service.dashboard(agent) as dashboard:
        await dashboard.until_phone("idle")
        await dashboard.available()
        caller = await of_caller.call(await centre.service.log_in_citizen(), sound=voices[0])
        call = (await dashboard.until("in_call"))["call"]
        assert (await dashboard.attributes(call["secret"]))[0] == 200
        await asyncio.gather(voices[0].hears(voices[1]), voices[1].hears(voices[0]))
        await dashboard.until_phone("busy")
        yield dashboard
        caller.go_on()
        assert await caller.ended() == "by caller"
        await phone.over()
        await dashboard.until("available")
        await dashboard.until_phone("idle")
    await centre.until_nothing_is_left()


async def test_a_caller_here_gets_an_agent_there(centre: Centre, voices: tuple[Sound, Sound]) -> None:
    async with talking(centre, centre.main, centre.west, "there", voices):
        pass


async def test_a_caller_there_gets_an_agent_here(centre: Centre, voices: tuple[Sound, Sound]) -> None:
    async with talking(centre, centre.west, centre.main, "here", voices):
        pass


async def test_a_caller_there_gets_an_agent_there(centre: Centre, voices: tuple[Sound, Sound]) -> None:
    async with talking(centre, centre.west, centre.west, "there", voices):
        count = await centre.region.main.cli("core show channels count")
        assert "0 active channels" in count, "nothing crosses without need"


async def test_a_phone_that_moves_is_rung_where_it_is(centre: Centre) -> None:
    async with centre.service.dashboard("either") as dashboard:
        await dashboard.available()
        for phones_there, phones_left in ((centre.main, None), (centre.west, centre.main)):
            if phones_left:
                await phones_left.unplug("either")
                await dashboard.until_phone("unregistered")
            phone = await phones_there.agent("either")
            await dashboard.until_phone("idle")
            caller = await centre.main.call(await centre.service.log_in_citizen())
            await dashboard.until("in_call")
            phone.hang_up()
            assert await caller.ended() == "by asterisk"
            await dashboard.until("available")
    await centre.until_nothing_is_left()


@pytest.mark.parametrize("does", ["busy", "decline", "unavailable"])
async def test_a_phone_there_that_does_not_answer_is_a_miss(centre: Centre, does: str) -> None:
    await centre.west.agent("there", does)
    await centre.main.agent("here", after_ms=0)
    async with centre.service.dashboard("there") as dashboard:
        await dashboard.until_phone("idle")
        await dashboard.available()
        caller = await centre.main.call(await centre.service.log_in_citizen())
        await centre.service.until_log("offer missed")
        await dashboard.pause()
        async with centre.service.dashboard("here") as other:
            await other.send("available")
            await other.until("in_call")
            caller.go_on()
            assert await caller.ended() == "by caller"
    await centre.until_nothing_is_left()


@pytest.mark.parametrize("way", ["planned", "kill -9"])
async def test_calls_on_both_are_taken_up(centre: Centre, voices: tuple[Sound, Sound], way: str) -> None:
    async with talking(centre, centre.main, centre.west, "there", voices) as dashboard:
        before = dashboard.snapshot["call"]
        waits = await centre.west.call(await centre.service.log_in_citizen())
        await centre.service.until_log("accepted=True", times=2)
        async with asyncio.timeout(5):
            while sorted(await centre.service.noted()) != ["talking", "waiting"]:
                await asyncio.sleep(0.01)
        if way == "planned":
            assert await centre.service.stop() == 0
        else:
            await centre.service.kill()
        await asyncio.gather(voices[0].hears(voices[1]), voices[1].hears(voices[0]))
        await centre.service.start()
        await dashboard.reconnect()
        await centre.service.until_log("call of an earlier process taken up", times=2)
        await asyncio.gather(voices[0].hears(voices[1]), voices[1].hears(voices[0]))
        await centre.main.agent("here")
        async with centre.service.dashboard("here") as other:
            await other.send("available")
            call = (await other.until("in_call"))["call"]
            assert (await other.attributes(call["secret"]))[0] == 200
            waits.go_on()
            assert await waits.ended() == "by caller"
            await other.until("available")
        call = await dashboard.until_call(id=before["id"], secret=before["secret"])
        assert (await dashboard.attributes(call["secret"]))[0] == 200


async def test_another_process_takes_up_the_calls_of_both(
    region: Region, keys_folder: Path, tmp_path: Path, redis_server: RedisProcess, voices: tuple[Sound, Sound]
) -> None:
    async with AsyncExitStack() as stack:
        public = {name: await stack.enter_async_context(Proxy(0)) for name in ("idcontact", "citizen", "dashboard")}
        ports = {name: proxy.port for name, proxy in public.items()}
        first, second = (Installation(tmp_path / name, region.main, ports) for name in ("first", "second"))
        for service in (first, second):
            write(
                service, region, keys_folder, sessions__store=f'"redis://127.0.0.1:{redis_server.port}"',
                more='[cluster]\nhost = "127.0.0.1"\n',
            )  # fmt: skip
        await first.add_agents(*AGENTS)
        (tmp_path / "west").mkdir()
        main = await stack.enter_async_context(phones(region.main, tmp_path))
        west = await stack.enter_async_context(phones(region.west, tmp_path / "west"))
        await first.start()
        await first.until_log("connected with Asterisk", times=2)
        await second.start()
        for name, proxy in public.items():
            proxy.lead_to(second.ports[name])
        centre = Centre(region, second, main, west)
        async with talking(centre, main, west, "there", voices) as dashboard:
            waits = await west.call(await first.log_in_citizen())
            await first.until_log("accepted=True", times=2)
            before = [name for name, _ in await first.waiting()]
            secret = dashboard.snapshot["call"]["secret"]
            began = time.monotonic()
            await first.kill()
            await second.until_log("call of an earlier process taken up", times=2)
            assert time.monotonic() - began < TAKEN_UP_SECONDS
            await dashboard.reconnect()
            await dashboard.until_call(secret=secret)
            assert [name for name, _ in await second.waiting()] == before
            await asyncio.gather(voices[0].hears(voices[1]), voices[1].hears(voices[0]))
            waits.go_on()
            assert await waits.ended() == "by caller"
        assert await second.stop() == 0
        for service in (first, second):
            assert "Traceback" not in service.log.read_text(), service.log.read_text()


async def test_an_agent_here_consults_one_there_and_a_supervisor_listens_from_there(
    centre: Centre, voices: tuple[Sound, Sound]
) -> None:
    (caller, first), service = voices, centre.service
    async with (
        sounds(4) as (_, _, second, boss),
        service.dashboard("there") as other,
        service.wallboard("boss") as wallboard,
        service.dashboard("boss") as own,
        talking(centre, centre.main, centre.main, "here", voices) as dashboard,
    ):
        await centre.west.agent("boss", sound=boss)
        await own.until_phone("idle")
        assert await wallboard.ask("monitor", agent="here", mode="listen") is None
        await boss.hears(caller, first)
        await centre.west.agent("there", sound=second)
        await other.until_phone("idle")
        await other.available()
        await dashboard.command("consult", "agent", "there")
        await asyncio.gather(first.hears(second), second.hears(first), caller.hears_music())
        await dashboard.command("transfer")
        await asyncio.gather(caller.hears(second), second.hears(caller), first.hears_nothing(), boss.hears_nothing())
        call = await other.until_call(part="main")
        assert (await other.attributes(call["secret"]))[0] == 200
        await dashboard.until("available")


async def test_an_agent_there_works_with_nothing_but_a_phone(centre: Centre) -> None:
    await centre.west.agent("there")
    for _ in range(2):
        call = await centre.west.dial("there", "*60")
        assert await call.ended() == "by asterisk"
    caller = await centre.main.call(await centre.service.log_in_citizen())
    await centre.service.until_log("connected agent=there")
    caller.go_on()
    assert await caller.ended() == "by caller"
    call = await centre.west.dial("there", "*61")
    assert await call.ended() == "by asterisk"
    await centre.until_nothing_is_left()


async def test_one_goes_and_comes_back(centre: Centre, voices: tuple[Sound, Sound]) -> None:
    service, west = centre.service, centre.region.west
    await centre.west.agent("there")
    async with service.dashboard("there") as there, talking(centre, centre.main, centre.main, "here", voices):
        await there.until_phone("idle")
        gone = await centre.west.call(await service.log_in_citizen())
        await service.until_log("accepted=True", times=2)
        assert await centre.ready() == (200, "ready")
        await west.kill()
        # Whatever the other one asks it now, it goes on to reach it as soon as it is back.
        await centre.region.main.cli("pjsip qualify to-west")
        unanswered = time.monotonic() + UNANSWERED_SECONDS
        await centre.until_ready("ready, but west: ")
        await there.until_phone("unregistered")
        assert there.snapshot["telephony"], "calls still come in on the other"
        await there.available()
        assert there.snapshot["waiting"] == 1, "who knows whether that caller is still there"
        waits = await centre.main.call(await service.log_in_citizen())
        await service.until_log("accepted=True", times=3)
        await asyncio.gather(voices[0].hears(voices[1]), voices[1].hears(voices[0]))
        # Nothing tells that Asterisk has given a question up.
        await asyncio.sleep(unanswered - time.monotonic())
        await start(west)
        await service.until_log("connected with Asterisk", times=3, seconds=30)
        assert (await centre.ready())[0] == 200
        await there.until_phone("idle", seconds=FIRST_ASKED_SECONDS)
        await service.until_log("connected agent=there")
        assert "cannot be rung" not in service.log.read_text()
        assert there.snapshot["waiting"] == 0, "the caller of the one that went is gone"
        waits.go_on()
        assert await waits.ended() == "by caller"
    gone.go_on()
    await gone.over()


async def test_a_call_of_one_that_is_no_longer_configured_is_ended(centre: Centre, region: Region) -> None:
    code = await centre.service.log_in_citizen()
    caller = await centre.west.call(code)
    await centre.service.until_log("accepted=True")
    assert await centre.service.stop() == 0
    config = centre.service.config
    config.write_text(config.read_text().replace(region.asterisk_tables, ""))
    await centre.service.start()
    await centre.service.until_log("call on an Asterisk that is no longer configured")
    assert await centre.service.noted() == []
    again = await centre.main.call(code)
    await centre.service.until_log("accepted=True", times=2)
    for one in (caller, again):
        one.go_on()
        assert await one.ended() == "by caller"


async def test_both_go(centre: Centre) -> None:
    async with centre.service.dashboard("here") as dashboard:
        await dashboard.until("paused")
        assert dashboard.snapshot["telephony"]
        for pbx in (centre.region.main, centre.region.west):
            await pbx.kill()
        async with asyncio.timeout(10):
            while dashboard.snapshot["telephony"]:
                await dashboard.next()
        status, text = await centre.ready()
        assert status == 503
        assert "main: " in text
        assert "west: " in text
        await start(centre.region.west)
        async with asyncio.timeout(30):
            while not dashboard.snapshot["telephony"]:
                await dashboard.next()
        await start(centre.region.main)
        await centre.until_ready("ready")


async def test_callers_on_both_are_sent_away(centre: Centre) -> None:
    callers = [await where.call(await centre.service.log_in_citizen()) for where in (centre.main, centre.west)]
    await centre.service.until_log("accepted=True", times=2)
    assert await centre.service.stop() == 0
    config = str(centre.service.config)
    assert await run_cli("send-away", "--config", config) == (0, "callers sent to the plain queue: 2\n")
    for caller in callers:
        assert await caller.ended() == "by asterisk"
    await centre.until_nothing_is_left()


async def test_check_looks_at_both_and_at_the_way_between(centre: Centre) -> None:
    config = centre.service.config
    code, output = await run_cli("check", "--config", str(config))
    assert "FAULT" not in output
    assert code == 0
    for what in ("ARI of main", "trunk to west of main", "ARI of west", "trunk to main of west"):
        assert f"ok    {what}\n" in output
    config.write_text(config.read_text().replace('trunk = "to-west"', 'trunk = "to-nowhere"'))
    code, output = await run_cli("check", "--config", str(config))
    assert code == 1
    assert "there is no PJSIP endpoint 'to-nowhere'" in output
