"""Agents' phones on their own: what is known of them before they ring, and the feature codes that they dial."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import aiohttp
import pytest
from structlog.testing import capture_logs

from idbellen.asterisk.ari import AriError, AriUnreachableError, GoneError
from idbellen.asterisk.endpoints import Endpoints
from idbellen.asterisk.events import WANTED_OF_PHONES, EndpointStateChanged, parse
from idbellen.demo.pbx import Pbx, PbxSettings
from idbellen.domain.agents import PhoneState
from idbellen.domain.ids import AgentName
from tests.conftest import PROMPTS
from tests.support import virtualtime
from tests.support.installation import Installation, run_cli
from tests.support.ports import free_ports
from tests.support.sipp import Phones, phones
from tests.support.spy import spy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from idbellen.asterisk.ari import Ari

A = AgentName("a")

# Long enough for an offer to be made, were there one to make.
OFFER_SECONDS = 1.0


# What Asterisk says, and what it means


class FakeAri:
    """Answers with the states that a test has set; ``meanwhile`` happens while an answer is on its way."""

    phones_app = "idbellen-phones"
    server = "main"

    def __init__(self, **states: tuple[str, list[str]]) -> None:
        self.states = {f"PJSIP/{name}": state for name, state in states.items()}
        self.subscribed: list[str] = []
        self.fault: AriError | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    async def request(self, method: str, path: str, **params: str) -> Any:
        await asyncio.sleep(0.001)
        if self.fault:
            raise self.fault
        if method == "POST":
            assert path == "/applications/idbellen-phones/subscription"
            endpoint = params["eventSource"].removeprefix("endpoint:")
            self.subscribed.append(endpoint)
            return {}
        technology, resource = unquote(path.removeprefix("/endpoints/")).split("/", 1)
        if f"{technology}/{resource}" not in self.states:
            raise GoneError("404 Endpoint not found")
        state, channels = self.states[f"{technology}/{resource}"]
        answer = {"technology": technology, "resource": resource, "state": state, "channel_ids": channels}
        self.meanwhile()
        return answer


States = tuple[str, list[str]]
IDLE: States = ("online", [])
IN_USE: States = ("online", ["x"])
AWAY: States = ("offline", [])


def following(story: Callable[[FakeAri, Endpoints, dict[str, PhoneState | None]], Coroutine[Any, Any, None]]) -> None:
    """Run a story beside what follows phones; it gets the states that were told."""

    async def run() -> None:
        ari, told = FakeAri(a=IDLE, b=AWAY), dict[str, PhoneState | None]()
        endpoints = Endpoints(cast("Ari", ari), told.__setitem__, told.clear)
        following = asyncio.create_task(endpoints.run())
        await story(ari, endpoints, told)
        following.cancel()
        await asyncio.wait([following])

    virtualtime.run(run())


@pytest.mark.parametrize(
    ("said", "channels", "meant"),
    [
        ("online", [], PhoneState.IDLE),
        ("online", ["1"], PhoneState.BUSY),
        # Its registration ran out while it was in use.
        ("offline", ["1", "2"], PhoneState.BUSY),
        ("offline", [], PhoneState.UNREGISTERED),
        ("unknown", [], PhoneState.UNKNOWN),
        ("of a newer Asterisk", [], PhoneState.UNKNOWN),
    ],
)
def test_each_state_of_an_endpoint_has_a_meaning(said: str, channels: list[str], meant: PhoneState) -> None:
    async def story(ari: FakeAri, endpoints: Endpoints, told: dict[str, PhoneState | None]) -> None:
        ari.states["PJSIP/a"] = said, channels
        endpoints.want(["PJSIP/a"])
        await asyncio.sleep(1)
        assert told.pop("PJSIP/a") is meant, "asked for"
        endpoints.take(EndpointStateChanged("PJSIP/a", said, busy=bool(channels)))
        assert told["PJSIP/a"] is meant, "told"

    following(story)


def test_the_event_is_understood_and_asked_for() -> None:
    endpoint = {"technology": "PJSIP", "resource": "a", "state": "online", "channel_ids": ["1"]}
    message = {"type": "EndpointStateChange", "application": "idbellen-phones", "endpoint": endpoint}
    assert parse(message) == EndpointStateChanged("PJSIP/a", "online", busy=True)
    assert message["type"] in WANTED_OF_PHONES


def test_what_is_no_endpoint_may_be_reached_all_the_same() -> None:
    async def story(ari: FakeAri, endpoints: Endpoints, told: dict[str, PhoneState | None]) -> None:
        with capture_logs() as lines:
            endpoints.want(["PJSIP/06@trunk", "PJSIP/a"])
            await asyncio.sleep(1)
        assert told == {"PJSIP/a": PhoneState.IDLE, "PJSIP/06@trunk": None}
        assert ari.subscribed == ["PJSIP/a"]
        assert [line["log_level"] for line in lines] == ["info"]

    following(story)


def test_a_lost_connection_leaves_no_phone_known_and_the_next_looks_again() -> None:
    async def story(ari: FakeAri, endpoints: Endpoints, told: dict[str, PhoneState | None]) -> None:
        endpoints.want(["PJSIP/a", "PJSIP/b"])
        endpoints.want(["PJSIP/a"])
        await asyncio.sleep(1)
        assert told == {"PJSIP/a": PhoneState.IDLE, "PJSIP/b": PhoneState.UNREGISTERED}
        assert sorted(ari.subscribed) == ["PJSIP/a", "PJSIP/b"], "each once"
        endpoints.lost()
        assert told == {}
        ari.states["PJSIP/b"] = IN_USE
        endpoints.connected()
        await asyncio.sleep(1)
        assert told == {"PJSIP/a": PhoneState.IDLE, "PJSIP/b": PhoneState.BUSY}
        assert sorted(ari.subscribed) == ["PJSIP/a", "PJSIP/a", "PJSIP/b", "PJSIP/b"]

    following(story)


@pytest.mark.parametrize("fault", [AriError("404 no such module"), AriUnreachableError("no answer")])
def test_a_phone_that_asterisk_does_not_tell_of_stays_unknown(fault: AriError) -> None:
    async def story(ari: FakeAri, endpoints: Endpoints, told: dict[str, PhoneState | None]) -> None:
        ari.fault = fault
        endpoints.want(["PJSIP/a"])
        await asyncio.sleep(1)
        assert told == {}
        ari.fault = None
        endpoints.connected()
        await asyncio.sleep(1)
        assert told == {"PJSIP/a": PhoneState.IDLE}

    following(story)


def test_an_event_that_overtakes_the_answer_is_the_newer() -> None:
    async def story(ari: FakeAri, endpoints: Endpoints, told: dict[str, PhoneState | None]) -> None:
        ari.states["PJSIP/a"] = IN_USE
        ari.meanwhile = lambda: endpoints.take(EndpointStateChanged("PJSIP/a", "online", busy=False))
        endpoints.want(["PJSIP/a"])
        await asyncio.sleep(1)
        assert told == {"PJSIP/a": PhoneState.IDLE}, "or the agent would be busy for ever"

    following(story)


# On Asterisk, with phones


async def no_offer(installation: Installation, offers: int = 0) -> None:
    """See that in a while no more offers are made than there were."""
    await asyncio.sleep(OFFER_SECONDS)
    assert installation.log.read_text().count("] offer ") == offers


class OtherCall:
    """A call of an agent's phone that idbellen has no part in."""

    def __init__(self, pbx: Pbx, http: aiohttp.ClientSession) -> None:
        self._url = f"http://127.0.0.1:{pbx.settings.ari_port}/ari/channels/other-{secrets.token_hex(4)}"
        self._http = http

    async def begin(self, endpoint: str) -> None:
        place = {"endpoint": endpoint, "context": "idbellen-test-other", "extension": "s", "priority": "1"}
        async with self._http.post(self._url, params=place):
            pass

    async def end(self) -> None:
        async with self._http.delete(self._url):
            pass


@pytest.fixture
async def other_call(pbx: Pbx) -> AsyncIterator[OtherCall]:
    await pbx.cli("dialplan add extension s,1,Answer() into idbellen-test-other replace")
    await pbx.cli("dialplan add extension s,2,Wait(60) into idbellen-test-other replace")
    headers = {"Authorization": aiohttp.encode_basic_auth("idbellen", pbx.settings.ari_password)}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http:
        yield OtherCall(pbx, http)


async def test_a_phone_gets_no_call_until_it_registers(installation: Installation, telephony: Phones) -> None:
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        await dashboard.until_phone("unregistered")
        caller = await telephony.call(await installation.log_in_citizen())
        await installation.until_log("accepted=True")
        await no_offer(installation)
        agent = await telephony.agent("agent1")
        await dashboard.until("in_call")
        await agent.talking()
        assert "offer missed" not in installation.log.read_text()
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
        await dashboard.until_phone("idle")
        await telephony.unplug("agent1")
        await dashboard.until_phone("unregistered")
    await installation.until_nothing_is_left()


async def test_22_phones_are_followed_by_what_a_process_can_die_with(
    installation: Installation, telephony: Phones
) -> None:
    await telephony.agent("agent1")
    for _ in range(3):
        async with installation.dashboard("agent1") as dashboard:
            await dashboard.until_phone("idle")
            apps = {app["name"]: app for app in await installation.applications()}
            assert "PJSIP/agent1" in apps["idbellen-phones"]["endpoint_ids"]
            assert not any(app.get("device_names") for app in apps.values())
        await installation.kill()
        await installation.start()
    await installation.until_nothing_is_left()


async def test_a_phone_in_another_call_gets_none_until_that_ends(
    installation: Installation, telephony: Phones, other_call: OtherCall
) -> None:
    agent = await telephony.agent("agent1")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.available()
        await dashboard.until_phone("idle")
        await other_call.begin("PJSIP/agent1")
        await agent.talking()
        await dashboard.until_phone("busy")
        caller = await telephony.call(await installation.log_in_citizen())
        await installation.until_log("accepted=True")
        await no_offer(installation)
        async with installation.dashboard("agent1") as second_tab:
            await second_tab.until_phone("busy")
        await other_call.end()
        await dashboard.until("in_call")
        await agent.talking(2)
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
    await installation.until_nothing_is_left()


async def test_one_call_after_the_other_although_the_phone_is_told_idle_late(
    installation: Installation, telephony: Phones
) -> None:
    agent = await telephony.agent("agent1", after_ms=0)
    callers = [await telephony.call(await installation.log_in_citizen()) for _ in range(4)]
    await installation.until_log("accepted=True", times=4)
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.until("paused")
        await dashboard.send("available")
        for number in range(1, 5):
            await installation.until_log("connected agent=", times=number)
            await agent.talking(number)
            agent.hang_up()
            await agent.over(number)
        for caller in callers:
            assert await caller.ended() == "by asterisk"
        await dashboard.until("available")
        await dashboard.until_phone("idle")
    assert "offer missed" not in installation.log.read_text()
    await installation.until_nothing_is_left()


def control_folder(pbx: Pbx) -> Path:
    """Where a private Asterisk has its control socket, outside its own directory."""
    lines = (pbx.settings.directory / "etc/asterisk.conf").read_text().splitlines()
    return next(Path(line.removeprefix("astrundir => ")) for line in lines if line.startswith("astrundir"))


async def test_after_a_restart_of_asterisk_phones_are_known_again(
    keys_folder: Path, tmp_path: Path, all_installations: list[Installation]
) -> None:
    rtp = free_ports(40)
    own = Pbx(
        PbxSettings(tmp_path / "pbx", PROMPTS, free_ports(), free_ports(), rtp, rtp + 39, agents=("agent1", "agent2"))
    )
    await own.start()
    installation = Installation(tmp_path / "idbellen", own)
    installation.write(keys_folder, dashboard__grace_seconds="60")
    await installation.add_agents("agent1", "agent2")
    all_installations.append(installation)
    await installation.start()
    try:
        async with (
            phones(own, tmp_path) as telephony,
            installation.dashboard("agent1") as dashboard,
            installation.dashboard("agent2") as other,
        ):
            await telephony.agent("agent1")
            await dashboard.until_phone("idle")
            await other.until_phone("unregistered")
            await own.kill()
            await dashboard.until_phone("unknown")
            await other.until_phone("unknown")
            left_over = control_folder(own)
            assert left_over.exists()
            await own.start()
            assert not left_over.exists()
            await other.until_phone("unregistered", seconds=40)
            # As phones do by themselves; Asterisk may have died before it had the first registration on disk.
            await telephony.agent("agent1")
            await dashboard.until_phone("idle", seconds=20)
            await other.until_phone("unregistered")
            await telephony.unplug("agent1")
            await dashboard.until_phone("unregistered")
        assert await installation.stop() == 0
    finally:
        if installation.process and installation.process.returncode is None:
            await installation.kill()
        await own.stop()
    assert not control_folder(own).exists()
    assert "Traceback" not in installation.log.read_text()


async def test_an_agent_works_with_nothing_but_a_phone(pbx: Pbx, installation: Installation, telephony: Phones) -> None:
    agent = await telephony.agent("agent1")

    async def dial(number: str, prompt: str) -> None:
        async with spy(pbx) as seen:
            call = await telephony.dial("agent1", number)
            assert await call.ended() == "by asterisk"
            playbacks = [e["playback"] for e in seen.events if e["type"] == "PlaybackFinished"]
        # Callers who wait hear theirs at the same time.
        heard = [(p["media_uri"], p["state"]) for p in playbacks if "/agent-" in p["media_uri"]]
        assert heard == [(f"sound:idbellen/{prompt}", "done")]

    await dial("*60", "agent-logged-in")
    first = await telephony.call(await installation.log_in_citizen())
    await agent.talking()
    first.go_on()
    await first.ended()
    await agent.over()

    await dial("*62", "agent-paused")
    second = await telephony.call(await installation.log_in_citizen())
    await installation.until_log("accepted=True", times=2)
    await no_offer(installation, 1)
    await dial("*62", "agent-available")
    await agent.talking(2)
    second.go_on()
    await second.ended()
    await agent.over(2)

    await dial("*61", "agent-logged-out")
    await installation.until_log("agent state agent=agent1 state=offline")
    third = await telephony.call(await installation.log_in_citizen())
    await installation.until_log("accepted=True", times=3)
    await no_offer(installation, 2)
    third.go_on()
    await third.ended()
    log = installation.log.read_text()
    assert "no dashboard showed the attributes" not in log, "there is none to show them"
    assert "feature code failed" not in log
    await installation.until_nothing_is_left()


async def test_a_caller_who_waits_is_offered_after_the_prompt(installation: Installation, telephony: Phones) -> None:
    agent = await telephony.agent("agent1")
    caller = await telephony.call(await installation.log_in_citizen())
    await installation.until_log("accepted=True")
    call = await telephony.dial("agent1", "*60")
    assert await call.ended() == "by asterisk"
    await agent.talking()
    lines = installation.log.read_text().splitlines()
    said = next(number for number, line in enumerate(lines) if "feature code" in line)
    offered = next(number for number, line in enumerate(lines) if "] offer " in line)
    assert said < offered, "while the agent still hears the prompt, the phone is busy"
    assert "offer missed" not in installation.log.read_text()
    caller.go_on()
    await caller.ended()
    await installation.until_nothing_is_left()


async def test_a_phone_without_an_account_and_one_that_hangs_up(
    pbx: Pbx, installation: Installation, telephony: Phones
) -> None:
    status, said = await run_cli("agent", "remove", "agent3", "--config", str(installation.config))
    assert status == 0, said
    call = await telephony.dial("agent3", "*60")
    assert await call.ended() == "by asterisk"
    await installation.until_log("says=agent-unknown")
    await installation.until_nothing_is_left()
    early = await telephony.dial("agent1", "*60")
    await early.answered()
    await pbx.cli("channel request hangup all")
    await installation.until_nothing_is_left()
    assert "feature code failed" not in installation.log.read_text()
