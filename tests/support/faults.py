"""Faults at random, from a seed, on real parts, while citizens call and agents work."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import resource
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tests.support.invariants import Watch, search_logs
from tests.support.proxy import Proxy
from tests.support.redis_servers import RedisProcess
from tests.support.stage import RECOVERY_SECONDS, Agent, PipedInstallation, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from idbellen.demo.pbx import Pbx
    from tests.support.sipp import AgentPhone, Phones
    from tests.support.stage import Figures

Kind = Literal[
    "kill -9", "planned restart", "service hangs", "Asterisk hangs", "events cut", "Asterisk silent",
    "Asterisk refuses", "clock jumps", "disk full", "Redis crashes", "Redis hangs", "Redis cut",
    "turn lapses", "one without Redis",
]  # fmt: skip
# What the store is, and whether one process serves or two take turns.
Setting = Literal["SQLite", "Redis", "Redis, two processes"]

ALWAYS: tuple[Kind, ...] = (
    "kill -9", "planned restart", "service hangs", "Asterisk hangs", "events cut", "Asterisk silent",
    "Asterisk refuses", "clock jumps",
)  # fmt: skip
WITH_REDIS: tuple[Kind, ...] = (*ALWAYS, "Redis crashes", "Redis hangs", "Redis cut")
KINDS: dict[Setting, tuple[Kind, ...]] = {
    "SQLite": (*ALWAYS, "disk full"),
    "Redis": WITH_REDIS,
    "Redis, two processes": (*WITH_REDIS, "turn lapses", "one without Redis"),
}
STORE_FAULTS = frozenset({"disk full", "Redis crashes", "Redis hangs", "Redis cut", "one without Redis"})
# Of two processes with two turns, every so manieth time the fault is that of the one that does not serve.
STANDBY_TIMES = 4
# How long each of them lasts at most, in seconds.
LASTS: dict[Kind, float] = {
    "kill -9": 1.5, "planned restart": 1.5, "service hangs": 3.0, "Asterisk hangs": 2.0, "events cut": 0.0,
    "Asterisk silent": 4.0, "Asterisk refuses": 3.0, "clock jumps": 3.0, "disk full": 3.0, "Redis crashes": 2.0,
    "Redis hangs": 3.0, "Redis cut": 0.0, "turn lapses": 6.0, "one without Redis": 6.0,
}  # fmt: skip
HOUR = 3600
QUEUES = """
[queues.default]
wrap_up_seconds = 1
[queues.second]
announce_seconds = 30
"""
CLUSTER = """
[cluster]
host = "127.0.0.1"
"""
GRACE_SECONDS = 15
# What an agent's phone does; of more agents, the same again.
PHONES = (("answer", 100), ("answer", 900), ("decline", 0), ("answer", 300), ("silent", 0), ("answer", 100))


@dataclass(frozen=True)
class Fault:
    """A fault that begins ``gap`` seconds after the one before was over."""

    gap: float
    kind: Kind
    lasts: float


def plan(seed: int, kinds: Sequence[Kind], seconds: float, apart: float) -> list[Fault]:
    """Make faults up for so many seconds: each kind once in a while, in an order that chance gives."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    left = seconds
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            fault = Fault(chance.uniform(0.3, 2 * apart), kind, chance.uniform(0.0, LASTS[kind]))
            left -= fault.gap + fault.lasts
            if left < 0:
                return faults
            faults.append(fault)


class Injector:
    """Brings faults about, one after the other."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def bring_about(self, fault: Fault) -> None:
        """Let a fault come and go, and wait until the service is well again."""
        self._stage.note(f"{fault.kind} for {fault.lasts:.1f} s")
        self._stage.figures.faults[fault.kind] += 1
        self._stage.calm_since = None
        bring = getattr(self, f"_{fault.kind.lower().replace(' -9', '').replace(' ', '_')}")
        try:
            over = await bring(fault.lasts)
        except TimeoutError:
            raise self._stage.fail(f"{fault.kind}: the service does not start or end in time") from None
        began = time.monotonic() if over is None else over
        try:
            await self._stage.installation.until_ready(seconds=RECOVERY_SECONDS)
        except AssertionError as wrong:
            raise self._stage.fail(f"after {fault.kind}: {wrong}") from None
        self._stage.figures.recoveries[fault.kind].append(time.monotonic() - began)
        self._stage.calm_since = time.monotonic()
        self._stage.note(f"well again after {fault.kind}")

    def _victim(self, kind: Kind) -> PipedInstallation:
        """Choose whose fault it is, and lead everybody to the other, if there is one."""
        place = self._stage.serving()
        if self._stage.figures.faults[kind] % STANDBY_TIMES == 0:
            place = (place + 1) % len(self._stage.services)
        self._stage.lead_away_from(place)
        return self._stage.services[place]

    async def _kill(self, seconds: float) -> float:
        service = self._victim("kill -9")
        self._stage.killed_at.append(time.time())
        await service.kill()
        return await self._start_again(service, seconds)

    async def _planned_restart(self, seconds: float) -> float:
        service = self._victim("planned restart")
        code = await service.stop()
        if code != 0:
            raise self._stage.fail(f"a planned stop ended with {code}")
        return await self._start_again(service, seconds)

    async def _start_again(self, service: PipedInstallation, seconds: float) -> float:
        """Start a service; gives since when another could have served in its place."""
        ended = time.monotonic()
        await asyncio.sleep(seconds)
        started = time.monotonic()
        await service.start()
        return started if len(self._stage.services) == 1 else ended

    async def _service_hangs(self, seconds: float) -> None:
        await self._hang(self._victim("service hangs"), seconds)

    async def _turn_lapses(self, seconds: float) -> None:
        """Let a process hang for longer than its turn, or nearly so."""
        self._stage.killed_at.append(time.time())
        await self._hang(self._victim("turn lapses"), seconds)

    async def _hang(self, service: PipedInstallation, seconds: float) -> None:
        assert service.process
        service.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        service.process.send_signal(signal.SIGCONT)

    async def _one_without_redis(self, seconds: float) -> None:
        """Let Redis be away for one of two processes."""
        self._stage.killed_at.append(time.time())
        service = self._victim("one without Redis")
        proxy = self._stage.redis_proxies[list(self._stage.services).index(service)]
        proxy.silence()
        await asyncio.sleep(seconds)
        await proxy.pass_on()

    async def _asterisk_hangs(self, seconds: float) -> None:
        assert self._stage.pbx.pid
        os.kill(self._stage.pbx.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self._stage.pbx.pid, signal.SIGCONT)

    async def _events_cut(self, _: float) -> None:
        self._stage.proxy.cut(reset=self._stage.figures.faults["events cut"] % 2 == 0)

    async def _asterisk_silent(self, seconds: float) -> None:
        self._stage.proxy.silence()
        await asyncio.sleep(seconds)
        await self._stage.proxy.pass_on()

    async def _asterisk_refuses(self, seconds: float) -> None:
        self._stage.proxy.refuse()
        self._stage.proxy.cut()
        await asyncio.sleep(seconds)
        await self._stage.proxy.pass_on()

    async def _clock_jumps(self, seconds: float) -> None:
        """Let the service's machine have another time, an hour ahead or behind, and then the right one again."""
        service = self._victim("clock jumps")
        service.set_clock(HOUR if self._stage.figures.faults["clock jumps"] % 2 else -HOUR)
        await asyncio.sleep(seconds)
        service.set_clock(0)

    async def _disk_full(self, seconds: float) -> None:
        assert self._stage.installation.process
        pid = self._stage.installation.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
        await asyncio.sleep(seconds)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    async def _redis_crashes(self, seconds: float) -> None:
        assert self._stage.redis
        await self._stage.redis.stop(signal.SIGKILL)
        await asyncio.sleep(seconds)
        await self._stage.redis.start()

    async def _redis_hangs(self, seconds: float) -> None:
        assert self._stage.redis
        self._stage.redis.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._stage.redis.send(signal.SIGCONT)

    async def _redis_cut(self, _: float) -> None:
        for proxy in self._stage.redis_proxies:
            proxy.cut()


@dataclass(frozen=True)
class Scale:
    """How much goes on: callers at the same time, and the seconds between one and the next, on average."""

    callers: int = 8
    apart: float = 0.5


async def one_by_one(telephony: Phones, names: Sequence[str]) -> list[AgentPhone]:
    """Give every agent a phone of their own, as :data:`PHONES` has it."""
    behaviours = zip(names, itertools.cycle(PHONES), strict=False)
    return [await telephony.agent(name, does, after_ms=after_ms) for name, (does, after_ms) in behaviours]


@asynccontextmanager
async def on_stage(  # noqa: PLR0913 - one thing each
    seed: int,
    pbx: Pbx,
    keys_folder: Path,
    folder: Path,
    telephony: Phones,
    *,
    setting: Setting,
    plug_in: Callable[[Phones, Sequence[str]], Awaitable[list[AgentPhone]]] = one_by_one,
    agent: type[Agent] = Agent,
    clock: bool = True,
    queues: str = QUEUES,
    **changes: str,
) -> AsyncIterator[Stage]:
    """Start a service, or two, with proxies, store, agents and dashboards; afterwards the logs are searched.

    ``plug_in`` gives the agents' phones, ``agent`` is what they do, ``changes`` are of the configuration; with
    ``clock`` the service's clock can be set.
    """
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(pbx.settings.ari_port))
        public = {}
        if setting == "Redis, two processes":
            public = {name: await stack.enter_async_context(Proxy(0)) for name in ("idcontact", "citizen", "dashboard")}
        ports = {name: one.port for name, one in public.items()}
        folders = [folder / "idbellen", folder / "other"][: 1 + bool(public)]
        services = [PipedInstallation(one, pbx, ports or None) for one in folders]
        server, redis_proxies = None, []
        usual = {"dashboard__grace_seconds": str(GRACE_SECONDS)}
        changes = usual | changes | {"ari_port": str(proxy.port), "more": queues + (CLUSTER if public else "")}
        if setting != "SQLite":
            # What it has said is kept is kept, as docs/decisions/0022-redis.md asks for.
            server = RedisProcess(folder / "redis", 'save ""', "appendonly yes", "appendfsync always")
            await server.start()
            stack.push_async_callback(server.stop)
            redis_proxies = [await stack.enter_async_context(Proxy(server.port)) for _ in services]
        for place, service in enumerate(services):
            if redis_proxies:
                changes["sessions__store"] = f'"redis://127.0.0.1:{redis_proxies[place].port}"'
            service.write(keys_folder, **changes)
            if clock:
                service.set_clock(0)
        names = pbx.settings.agents
        await services[0].add_agents(*names)
        for service in services:
            await service.start()
            stack.push_async_callback(_end, service)
        for name, one in public.items():
            one.lead_to(services[0].ports[name])
        agents = [
            agent(name, phone, await stack.enter_async_context(services[0].dashboard(name)))
            for name, phone in zip(names, await plug_in(telephony, names), strict=True)
        ]
        stage = Stage(
            seed, proxy, services, telephony, agents, redis=server, redis_proxies=redis_proxies, public=public
        )
        yield stage
        for service in services:
            code = await service.stop()
            if code != 0:
                raise stage.fail(f"the last stop ended with {code}")
            service.until_written()
        search_logs(stage, store_was_away=not STORE_FAULTS.isdisjoint(stage.figures.faults))


async def _end(service: PipedInstallation) -> None:
    """Leave no process behind, whatever has happened."""
    process = service.process
    if process and process.returncode is None:
        process.send_signal(signal.SIGCONT)
        await service.kill()
    await service.pbx.cli("channel request hangup all")
    service.until_written()


async def perform(
    stage: Stage, faults: Sequence[Fault], scale: Scale, progress: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> Figures:
    """Let callers come and faults happen until there are no more of these, and see that all ends well.

    ``progress`` runs beside it.
    """
    names = [agent.name for agent in stage.agents]
    watch, injector = Watch(stage), Injector(stage)
    began = time.monotonic()
    async with asyncio.TaskGroup() as background:
        beside = [background.create_task(watch.watch())]
        for number, agent in enumerate(stage.agents):
            chance = random.Random(f"{stage.seed} agent {number}")
            others = [name for name in names if name != agent.name]
            beside.append(background.create_task(agent.follow()))
            beside.append(background.create_task(agent.act(chance, others, stage.figures.asked)))
        if progress:
            beside.append(background.create_task(progress()))
        async with asyncio.TaskGroup() as callers:
            arrivals = callers.create_task(_arrivals(stage, scale, callers))
            for fault in faults:
                await asyncio.sleep(fault.gap)
                await injector.bring_about(fault)
            arrivals.cancel()
        await watch.finish()
        for task in beside:
            task.cancel()
    stage.figures.seconds = time.monotonic() - began
    return stage.figures


async def _arrivals(stage: Stage, scale: Scale, callers: asyncio.TaskGroup) -> None:
    chance = random.Random(f"{stage.seed} callers")
    here: set[asyncio.Task[None]] = set()
    while True:
        if len(here) < scale.callers:
            caller = callers.create_task(stage.caller(random.Random(chance.random())))
            here.add(caller)
            caller.add_done_callback(here.discard)
        await asyncio.sleep(chance.expovariate(1 / scale.apart))
