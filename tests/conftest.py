"""The parts that tests share: one Asterisk for all, and for each test an idbellen of its own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from idbellen.demo.pbx import CHECKOUT, Pbx, PbxSettings
from tests.support.browser import chromium, open_windows
from tests.support.forks import FORKS
from tests.support.installation import PASSWORD_HASH, PLAIN_CAUSE, Installation, make_keys
from tests.support.logs import personal_data_in_logs, plain_logs
from tests.support.ports import free_ports, reserved_ports
from tests.support.redis_servers import RedisProcess
from tests.support.sipp import phones

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from playwright.async_api import Browser

    from tests.support.browser import Windows
    from tests.support.sipp import Phones

# How long an example takes depends on what else the machine does.
settings.register_profile("idbellen", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("idbellen")
plain_logs()

# Files that take half a minute or more, the longest first: whoever begins with them is not the last to be done. Some
# work all the time (the simulation, takeovers, conversations), beside others that wait for other programs.
LONG = (
    "adoption", "simulation", "calls", "faults", "takeover", "pbx_queues", "carrier", "conversation",
    "dashboard_browser", "several", "transfers", "supervisor_browser", "citizen_browser", "demo", "monitor", "turns",
    "pitfalls", "phones",
)  # fmt: skip
# What the domain and the stories are measured by: measuring makes everything slower, and others reach no more of them.
MEASURED = ("unit", "redis")
PROMPTS = CHECKOUT / ".run" / "prompts"
AGENTS = ("agent1", "agent2", "agent3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, and measure only what it takes."""
    order = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    for item in items:
        if item.path.parent.name not in MEASURED:
            item.add_marker("no_cover")


@pytest.fixture(scope="session", autouse=True)
async def forks() -> AsyncIterator[None]:
    """Let services come from a process that has read the program already."""
    FORKS.usable = True
    yield
    FORKS.usable = False
    await FORKS.stop()


@pytest.fixture(scope="session")
def keys_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
async def pbx(tmp_path_factory: pytest.TempPathFactory, all_installations: list[Installation]) -> AsyncIterator[Pbx]:
    """Start the Asterisk that tests share; at its end all logs are searched for what is personal."""
    with reserved_ports(400) as rtp:
        settings = PbxSettings(
            directory=tmp_path_factory.mktemp("asterisk"),
            prompts=PROMPTS,
            ari_port=free_ports(),
            sip_port=free_ports(),
            rtp_start=rtp,
            rtp_end=rtp + 399,
            agents=AGENTS,
            # A plain queue that a test can tell from everything else: it hangs up with its own cause.
            plain="idbellen-test-plain,s,1",
        )
        pbx = Pbx(settings)
        await pbx.start()
        # The plain queue belongs to the operator's own dialplan, so the test adds one there.
        await pbx.cli("dialplan add extension s,1,Answer() into idbellen-test-plain")
        await pbx.cli(f"dialplan add extension s,2,Hangup({PLAIN_CAUSE}) into idbellen-test-plain")
        yield pbx
        await pbx.stop()
    assert personal_data_in_logs(pbx, all_installations) == []


@pytest.fixture(scope="session")
def all_installations() -> list[Installation]:
    """Every installation of this run, for the search of the logs."""
    return []


@pytest.fixture
async def install(
    pbx: Pbx, keys_folder: Path, tmp_path: Path, all_installations: list[Installation]
) -> AsyncIterator[Callable[..., Awaitable[Installation]]]:
    """Start an idbellen with changes to its configuration; it is stopped, and must leave nothing behind."""
    async with AsyncExitStack() as stack:

        async def start(*, password_hash: str = PASSWORD_HASH, **changes: str) -> Installation:
            installation = Installation(tmp_path / "idbellen", pbx)
            installation.write(keys_folder, **changes)
            await installation.add_agents(*AGENTS, password_hash=password_hash)
            all_installations.append(installation)
            await installation.start()
            stack.push_async_callback(_end, installation)
            return installation

        yield start


@pytest.fixture
async def installation(install: Callable[..., Awaitable[Installation]]) -> Installation:
    """Give an idbellen with the usual configuration."""
    return await install()


@pytest.fixture
async def telephony(pbx: Pbx, tmp_path: Path) -> AsyncIterator[Phones]:
    """Give a maker of SIP phones at the shared Asterisk."""
    async with phones(pbx, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
async def running_redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisProcess]:
    process = RedisProcess(tmp_path_factory.mktemp("redis"), 'save ""')
    await process.start()
    yield process
    await process.stop()


@pytest.fixture
async def redis_server(running_redis: RedisProcess) -> RedisProcess:
    """Give a Redis with nothing in it."""
    assert await running_redis.cli("FLUSHALL") == "OK"
    return running_redis


@pytest.fixture(scope="session")
async def chrome() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def windows(chrome: Browser) -> AsyncIterator[Windows]:
    async with open_windows(chrome) as made:
        yield made


async def _end(installation: Installation) -> None:
    assert installation.process
    # A test may have ended it by itself.
    if installation.process.returncode is None:
        assert await installation.stop() == 0, installation.log.read_text()
    # The service leaves calls to the next one; those of a test that failed are not in the way of the next test.
    await installation.pbx.cli("channel request hangup all")
    log = installation.log.read_text()
    assert "Traceback" not in log, log
    assert "never awaited" not in log, log
