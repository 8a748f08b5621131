"""``make load``: many wait and many talk while more call and the service is killed; its figures go into
docs/benchmarks.md.

All callers are two SIPp processes, and all agents' phones are one more. The dashboards are clients that ask what
a page asks, and draw nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from idbellen.demo.pbx import find_build
from tests.measure.bench import machine, percentile, write
from tests.support.faults import STORE_FAULTS, Fault, Injector, on_stage
from tests.support.installation import make_keys, own_pbx
from tests.support.invariants import Watch
from tests.support.sipp import SippError, phones
from tests.support.stage import Agent, Person

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idbellen.demo.pbx import Pbx
    from tests.support.dashboards import Dashboard
    from tests.support.sipp import AgentPhone, Crowd, Phones
    from tests.support.stage import Stage

# So many a second come until those are there who are to wait and to talk.
RAMP = 20.0
# From the end of a talk until the agent has the next one.
BETWEEN_SECONDS = 0.4
# One look at everything, on a machine that is full of work.
LOOK_TAKES_SECONDS = 30.0
LOOK_SECONDS = 5.0
# Logins at the same time.
LOGINS = 8
AWAY_SECONDS = 0.5
MARGIN_SECONDS = 120.0
QUEUES = """
[queues.default]
announce_seconds = 60
"""
# All log in before the first of them calls.
CODE_SECONDS = 7200
# RTP of a caller and an agent takes two ports each, and some ports are still held for a while.
RTP_PORTS = 3000


@dataclass
class Options:
    """What is asked for; ``talks``: so long an agent talks, in seconds, so that as many are served as come."""

    waiting: int
    talking: int
    rate: float
    minutes: float
    redis: bool
    seed: int

    @property
    def at_first(self) -> int:
        return self.waiting + self.talking

    @property
    def more(self) -> int:
        return math.ceil(self.rate * self.minutes * 60)

    @property
    def talks(self) -> float:
        return self.talking / self.rate - BETWEEN_SECONDS


@dataclass
class Outcome:
    """What came of it.

    ``without_store``: whose code came while the store was away, which sends them to the plain queue with an apology;
    ``lost``: the channels of all others who were taken in and reached nobody.
    """

    placed: int = 0
    taken_in: int = 0
    answered: int = 0
    without_store: int = 0
    lost: list[str] = field(default_factory=list)
    taken_up: int = 0
    recoveries: dict[str, float] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    screens: list[float] = field(default_factory=list)
    checks: int = 0
    memory: list[float] = field(default_factory=list)


class Worker(Agent):
    """An agent who takes every call and has the attributes shown; keeps how long that took, in ms."""

    def __init__(self, name: str, phone: AgentPhone, dashboard: Dashboard) -> None:
        super().__init__(name, phone, dashboard)
        self.times: list[float] = []
        self.begun = False
        self._seen = ""

    async def look(self) -> None:
        call = self.call
        if self.resting or not self.begun:
            if self.dashboard.snapshot["state"] == "available":
                await self.dashboard.pause()
        elif self.dashboard.snapshot["state"] in ("paused", "not_answering"):
            await self.dashboard.send("available")
        if call and call["secret"] and call["secret"] != self._seen:
            began = time.perf_counter()
            status, _ = await self.dashboard.attributes(call["secret"])
            if status == 200:
                self.times.append((time.perf_counter() - began) * 1000)
                self._seen = call["secret"]
                await self.dashboard.shown(call["id"])


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def log_everybody_in(stage: Stage, count: int) -> list[Person]:
    """Let so many citizens log in."""
    people = [Person(f"Quirijn Vlinderslag {number}", f"9{number:08}") for number in range(count)]
    left = iter(people)

    async def log_in() -> None:
        for person in left:
            if not await stage.log_in(person):
                raise stage.fail("nobody can log in")

    async with asyncio.TaskGroup() as group:
        for _ in range(LOGINS):
            group.create_task(log_in())
    stage.people += people
    return people


async def call(stage: Stage, people: Sequence[Person], rate: float, seconds: float) -> Crowd:
    crowd = await stage.telephony.crowd([person.code for person in people], rate=rate, seconds=seconds)
    for number, person in enumerate(people, 1):
        person.call_id = crowd.call_id(number)
    return crowd


async def key_again(stage: Stage, crowds: Sequence[Crowd]) -> None:
    """Let those key their code in once more whom two looks in turn find being asked: a crash swallowed some keys."""
    last: set[str] = set()
    before: set[str] = set()
    while True:
        await asyncio.sleep(1)
        if stage.asked_for_code is last:
            continue
        last = stage.asked_for_code
        again = last & before
        before = last - again
        for call_id in again:
            for crowd in crowds:
                if call_id.endswith(crowd.call_id(0).removeprefix("0")):
                    crowd.key_again(call_id)
        if again:
            say(f"{len(again)} key their code in again")


async def follow(stage: Stage, workers: Sequence[Worker], minutes: float, outcome: Outcome) -> None:
    """Say how far it is, and keep how much memory there is and, for so many minutes of work, how many wait."""
    counts = math.ceil(minutes * 60 / LOOK_SECONDS)
    began = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        stage.measure()
        waiting = max((agent.dashboard.snapshot.get("waiting", 0) for agent in stage.agents), default=0)
        talking = sum(bool(agent.call) for agent in stage.agents)
        if workers[-1].begun and len(outcome.waiting) < counts:
            outcome.waiting.append(waiting)
        say(f"{time.monotonic() - began:5.0f} s: {waiting} wait, {talking} talk, {stage.figures.checks['looks']} looks")


async def perform(stage: Stage, options: Options, outcome: Outcome) -> None:
    longest = options.minutes * 60 + options.at_first / RAMP + options.at_first / options.rate + MARGIN_SECONDS
    workers = [agent for agent in stage.agents if isinstance(agent, Worker)]
    watch, injector = Watch(stage, every=LOOK_SECONDS, look_takes=LOOK_TAKES_SECONDS), Injector(stage)
    say(f"{options.at_first + options.more} citizens log in")
    people = await log_everybody_in(stage, options.at_first + options.more)
    async with asyncio.TaskGroup() as beside:
        crowds: list[Crowd] = []
        tasks = [beside.create_task(agent.follow()) for agent in workers]
        tasks.append(beside.create_task(follow(stage, workers, options.minutes, outcome)))
        tasks.append(beside.create_task(key_again(stage, crowds)))
        crowds.append(await call(stage, people[: options.at_first], RAMP, longest))
        await stage.until_waiting(options.at_first, options.at_first / RAMP + MARGIN_SECONDS)
        say(f"{options.at_first} wait")
        tasks.append(beside.create_task(watch.watch()))
        for worker in workers:
            worker.begun = True
            await worker.look()
        crowds.append(await call(stage, people[options.at_first :], options.rate, longest))
        await asyncio.sleep(options.minutes * 30)
        say("kill -9")
        await injector.bring_about(Fault(0.0, "kill -9", AWAY_SECONDS))
        if options.redis:
            # When those who were taken up are where they were.
            await asyncio.sleep(options.minutes * 10)
            say("Redis crashes")
            await injector.bring_about(Fault(0.0, "Redis crashes", AWAY_SECONDS))
        for crowd in crowds:
            try:
                await crowd.over(seconds=longest)
            except SippError as wrong:
                raise stage.fail(f"{wrong}\n{await left_over(stage)}") from None
        for worker in workers:
            worker.resting = True
            await worker.look()
        await watch.finish()
        for task in tasks:
            task.cancel()
    outcome.placed = len(people)
    outcome.screens = [taken for worker in workers for taken in worker.times]
    outcome.recoveries = {kind: max(times) for kind, times in stage.figures.recoveries.items()}
    outcome.checks = stage.figures.checks["screens"]
    outcome.memory = [size / 1024 for _, size in stage.figures.memory]
    await count(stage, outcome)


async def left_over(stage: Stage) -> str:
    """Tell which calls there are still, with all that the log has of them."""
    calls = {agent.name: agent.call["id"] for agent in stage.agents if agent.call}
    log = stage.installation.log.read_text().splitlines()
    stories = [line for line in log if any(call in line for call in calls.values())]
    return "\n".join([repr(calls), *stories, await stage.pbx.cli("core show channels verbose")])


async def count(stage: Stage, outcome: Outcome) -> None:
    """Find out who reached an agent, by the log and the history."""
    calls: dict[str, set[str]] = defaultdict(set)
    log = stage.installation.log.read_text()
    for name, channel in re.findall(r"\] call +call=(\S+) channel=(\S+)", log):
        calls[channel].add(name)
    async with stage.store() as store:
        records = await store.calls(0.0, time.time() + 1)
    served = {record.call for record in records if record.outcome.value == "answered"}
    outcome.taken_in, outcome.answered = len(calls), len(served)
    # That it was the store's fault, and nothing else, is seen when the logs are searched.
    failed = set()
    if outcome.recoveries.keys() & STORE_FAULTS:
        failed = set(re.findall(r"\] call not served: the store cannot be used +call=(\S+)", log))
        # Whose code was in before goes on without the store.
        failed -= set(re.findall(r"accepted=True attempt=\d+ call=(\S+)", log))
    unserved = {channel: names for channel, names in calls.items() if not names & served}
    outcome.lost = [channel for channel, names in unserved.items() if not names & failed]
    outcome.without_store = len(unserved) - len(outcome.lost)
    for channel in outcome.lost:
        names = calls[channel]
        say(f"lost: {channel}, killed at {stage.killed_at}")
        say("\n".join(line for line in log.splitlines() if channel in line or any(name in line for name in names)))
        say("\n".join(repr(record) for record in records if record.call in names))


async def let_silent_callers_stay(pbx: Pbx) -> None:
    """A caller of a crowd sends no audio, and whoever has sent none for a minute is hung up on."""
    config = pbx.settings.directory / "etc/pjsip.conf"
    text = config.read_text().replace("rtp_timeout=60", "rtp_timeout=0")
    # It is a link to the checkout's own.
    config.unlink()
    config.write_text(text)
    await pbx.cli("module reload res_pjsip.so")
    async with asyncio.timeout(MARGIN_SECONDS):
        while not re.search(r"rtp_timeout +: 0", await pbx.cli("pjsip show endpoint trunk")):
            await asyncio.sleep(0.1)


async def run(options: Options) -> Outcome:
    outcome = Outcome()
    names = tuple(f"agent{number}" for number in range(1, options.talking + 1))

    async def plug_in(telephony: Phones, agents: Sequence[str]) -> list[AgentPhone]:
        return [await telephony.agents(agents, talks=options.talks)] * len(agents)

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idbellen-load-")))
        pbx = await stack.enter_async_context(own_pbx(folder, names, rtp_ports=RTP_PORTS))
        await let_silent_callers_stay(pbx)
        (folder / "sipp").mkdir()
        telephony = await stack.enter_async_context(phones(pbx, folder / "sipp"))
        stage = await stack.enter_async_context(
            on_stage(
                options.seed, pbx, make_keys(folder / "keys"), folder, telephony,
                setting="Redis" if options.redis else "SQLite", plug_in=plug_in, agent=Worker, clock=False,
                queues=QUEUES, sessions__code_seconds=str(CODE_SECONDS),
            )
        )  # fmt: skip
        await perform(stage, options, outcome)
    outcome.taken_up = stage.figures.taken_up
    return outcome


def report(options: Options, outcome: Outcome, version: str) -> str:
    recoveries = ", ".join(f"{kind}: {seconds:.1f} s" for kind, seconds in outcome.recoveries.items())
    p50, p99 = percentile(outcome.screens, 50), percentile(outcome.screens, 99)
    first, most, last = outcome.memory[0], max(outcome.memory), outcome.memory[-1]
    faults = "one `kill -9`" + (" and one crash of Redis" if options.redis else "")
    return f"""
Made by `python -m tests.measure.load --waiting {options.waiting} --talking {options.talking} --rate {options.rate:g} --minutes {options.minutes:g}{" --redis` (`make load`)" if options.redis else "`"}
on {datetime.now(UTC):%Y-%m-%d}: {machine()}; {version}.
{options.waiting} callers wait and {options.talking} agents talk, {options.rate:g} more call every second for {options.minutes:g} minutes, with {faults} in the middle.
The store is {"Redis" if options.redis else "SQLite"}; everything shares the machine. Audio is sent to all callers and agents; they send none.

| what | |
|---|---|
| calls placed | {outcome.placed} |
| of them sent to the plain queue by the dialplan while the service was away | {outcome.placed - outcome.taken_in} |
| taken in | {outcome.taken_in} |
| answered by an agent | {outcome.answered} |
| sent to the plain queue with an apology, since the store was away when their code came | {outcome.without_store} |
| lost | {len(outcome.lost)} |
| wrong screens, of {outcome.checks} looked at | 0 |
| who waited while more called: 95 % of the time at least, half of the time at least, most | {percentile(outcome.waiting, 5):g}, {percentile(outcome.waiting, 50):g}, {max(outcome.waiting)} |
| calls taken up by the next process | {outcome.taken_up} |
| well again after | {recoveries} |
| attributes on request, p50 and p99 in ms | {p50:.1f}, {p99:.1f} |
| memory of the service at first, most, at last, in MiB | {first:.1f}, {most:.1f}, {last:.1f} |
"""  # noqa: E501 - the page's own lines


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.measure.load", description=__doc__)
    parser.add_argument("--waiting", type=int, default=300, help="callers who wait at once")
    parser.add_argument("--talking", type=int, default=50, help="agents, who all talk")
    parser.add_argument("--rate", type=float, default=5.0, help="new calls a second")
    parser.add_argument("--minutes", type=float, default=10.0, help="for so long more call")
    parser.add_argument("--redis", action="store_true", help="with the store in Redis, which crashes too")
    parser.add_argument("--seed", type=int, default=1)
    options = Options(**vars(parser.parse_args()))
    outcome = await run(options)
    text = report(options, outcome, find_build().version())
    sys.stdout.write(text)
    if outcome.lost:
        # Such a run is no benchmark.
        return 1
    write(text, part=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
