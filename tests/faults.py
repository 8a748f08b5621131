"""Callers, agents and faults at random, from a seed, on real parts; and what must hold all the while.

Nobody's moment is the same in two runs with one seed, but what everybody is about to do is.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import resource
import signal
import subprocess
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import aiohttp

from idbellen.config import load, read_master_key
from idbellen.domain.codes import Fingerprints
from idbellen.domain.notes import read_call
from idbellen.ports import StoreError
from idbellen.storage import open_store
from tests.installation import Installation
from tests.proxy import Proxy
from tests.redis_servers import RedisProcess
from tests.sipp import CALLER_NUMBER, SippError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from idbellen.demo.pbx import Pbx
    from idbellen.domain.notes import CallNote
    from tests.installation import Dashboard
    from tests.sipp import AgentPhone, Caller, Phones

Kind = Literal[
    "kill -9", "planned restart", "service hangs", "Asterisk hangs", "events cut", "Asterisk silent",
    "Asterisk refuses", "clock jumps", "disk full", "Redis crashes", "Redis hangs", "Redis cut",
]  # fmt: skip

ALWAYS: tuple[Kind, ...] = (
    "kill -9", "planned restart", "service hangs", "Asterisk hangs", "events cut", "Asterisk silent",
    "Asterisk refuses", "clock jumps",
)  # fmt: skip
WITH_SQLITE: tuple[Kind, ...] = (*ALWAYS, "disk full")
WITH_REDIS: tuple[Kind, ...] = (*ALWAYS, "Redis crashes", "Redis hangs", "Redis cut")
# How long each of them lasts at most, in seconds.
LASTS: dict[Kind, float] = {
    "kill -9": 1.5, "planned restart": 1.5, "service hangs": 3.0, "Asterisk hangs": 2.0, "events cut": 0.0,
    "Asterisk silent": 4.0, "Asterisk refuses": 3.0, "clock jumps": 3.0, "disk full": 3.0, "Redis crashes": 2.0,
    "Redis hangs": 3.0, "Redis cut": 0.0,
}  # fmt: skip
HOUR = 3600
QUEUES = """
[queues.default]
wrap_up_seconds = 1
[queues.second]
announce_seconds = 30
"""
GRACE_SECONDS = 15
# What an agent's phone does; of more agents, the same again.
PHONES = (("answer", 100), ("answer", 900), ("decline", 0), ("answer", 300), ("silent", 0), ("answer", 100))
RECOVERY_SECONDS = 30.0
# So long something may be other than it should: a phone rings for 5 s, and Asterisk tells of some ends late.
BOUND_SECONDS = 10.0
# A wrong screen is one at once; this is what two looks at different places are apart.
SCREEN_SECONDS = 2.0
# So many others try to see what is on a screen.
MOST_REFUSED = 6
LONGEST_WAIT = 14.0
# So many do not wait for long, or hang up while they key the code in, which takes some seconds.
HURRIED = 0.3
# Whose code does not come through, because of a fault, keys it in again after a while.
KEYED_AT_MOST, KEYS_SECONDS, ROUND_SECONDS = 3, 4.0, 0.1
# From the caller's hanging up to the end.
END_SECONDS = 20.0
OVERLOOKED_SECONDS = 2.0
NETWORK_FAULTS = (aiohttp.ClientError, OSError, TypeError, TimeoutError)
STORE_FAULTS = frozenset({"disk full", "Redis crashes", "Redis hangs", "Redis cut"})
STORE_ERROR = "idbellen.stores.errors.StoreError"


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


class PipedInstallation(Installation):
    """Its log goes through a pipe, as to a journal, so that a full disk is the store's alone.

    Its machine's clock can be set, and then is libfaketime's.
    """

    writer: subprocess.Popen[bytes] | None = None

    def set_clock(self, ahead: int) -> None:
        """Let the service's clock be so many seconds ahead of ours from now on; before the first start too."""
        # In one step, since it is read at any moment.
        new = self._clock.with_suffix(".new")
        new.write_text(f"{ahead:+}")
        new.replace(self._clock)

    @property
    def _clock(self) -> Path:
        return self.folder / "clock"

    def _environment(self) -> dict[str, str]:
        if not self._clock.exists():
            return {}
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        return {
            "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(self._clock), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip

    @contextmanager
    def _sink(self) -> Iterator[BinaryIO]:
        self.until_written()
        with self.log.open("ab") as log:
            self.writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log, start_new_session=True)
        assert self.writer.stdin
        with self.writer.stdin as sink:
            yield sink

    def until_written(self) -> None:
        """Wait until all is in the log, which ends with the service."""
        if self.writer:
            self.writer.wait()


@dataclass
class Person:
    """A citizen, by the name that only they have; ``call_id``: the SIP call that they are in."""

    name: str
    bsn: str
    code: str = ""
    call_id: str = ""


@dataclass
class Figures:
    """What has happened."""

    calls: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    taken_up: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)
    seconds: float = 0.0


class Agent:
    """An agent with a phone and a dashboard that comes back by itself."""

    def __init__(self, name: str, phone: AgentPhone, dashboard: Dashboard) -> None:
        self.name = name
        self.phone = phone
        self.dashboard = dashboard
        self.resting = False

    @property
    def call(self) -> dict[str, Any] | None:
        """What the dashboard shows of a call now."""
        return self.dashboard.snapshot.get("call")

    async def follow(self) -> None:
        """Read what comes, and connect again when nothing does, as the page does."""
        while True:
            try:
                await self.dashboard.next()
                await self.look()
            except NETWORK_FAULTS:
                self.dashboard.snapshot = {}
                await asyncio.sleep(0.3)
                with suppress(*NETWORK_FAULTS):
                    await self.dashboard.reconnect()

    async def look(self) -> None:
        """Look at what has come; here with the eyes alone."""

    async def act(self, chance: random.Random, others: Sequence[str], asked: Counter[str]) -> None:
        """Do something every now and then."""
        while True:
            await asyncio.sleep(chance.expovariate(1.2))
            with suppress(*NETWORK_FAULTS):
                await self._do_something(chance, others, asked)

    async def _do_something(self, chance: random.Random, others: Sequence[str], asked: Counter[str]) -> None:
        state, call = self.dashboard.snapshot.get("state"), self.call
        if call:
            await self._in_call(chance, call, others, asked)
        elif self.resting:
            if state != "paused":
                await self.dashboard.pause()
        elif state in ("paused", "not_answering"):
            await self.dashboard.send("available")
        elif state == "available" and chance.random() < 0.1:
            await self.dashboard.pause()
        elif state == "wrap_up" and chance.random() < 0.3:
            await self.dashboard.send("wrap_up", action="end")

    async def _in_call(
        self, chance: random.Random, call: dict[str, Any], others: Sequence[str], asked: Counter[str]
    ) -> None:
        if chance.random() < 0.1 and self.phone.in_call:
            asked["phone hung up"] += 1
            self.phone.hang_up()
            return
        verb = chance.choice(call["allowed"] or [""])
        if not verb or (verb == "hang_up" and chance.random() < 0.6):
            return
        asked[verb] += 1
        if verb in ("consult", "blind"):
            kind, name = chance.choice([*(("agent", other) for other in others), ("queue", "second")])
            await self.dashboard.command(verb, kind, name)
        else:
            await self.dashboard.command(verb)


class Stage:
    """Everything that is on stage, and who watches it. A fault found is an :exc:`AssertionError` with the seed."""

    def __init__(
        self, seed: int, proxy: Proxy, installation: PipedInstallation, telephony: Phones, agents: list[Agent]
    ) -> None:
        self.seed = seed
        self.pbx = installation.pbx
        self.proxy = proxy
        self.installation = installation
        self.telephony = telephony
        self.agents = agents
        self.redis: RedisProcess | None = None
        self.redis_proxy: Proxy | None = None
        # Seconds between two looks at everything.
        self.every = 1.0
        self.look_takes = 5.0
        self.figures = Figures()
        self.people: list[Person] = []
        self.events: list[str] = []
        self.killed_at: list[float] = []
        self._names: dict[str, str] = {}
        self.asked_for_code: set[str] = set()
        self._began = time.monotonic()
        self._calm_since = self._began
        self._calm = True
        self._suspects: dict[str, tuple[float, float]] = {}

    def note(self, text: str) -> None:
        """Keep what happened, for who has to find out why something was wrong."""
        self.events.append(f"{time.monotonic() - self._began:7.2f} {text}")

    def fail(self, text: str) -> AssertionError:
        """Give a fault as something to raise."""
        lately = "\n".join(self.events[-40:])
        log = "".join(self.installation.log.read_text().splitlines(keepends=True)[-60:])
        return AssertionError(
            f"seed {self.seed}: {text}\nwhat happened last, in seconds:\n{lately}\nthe end of the log:\n{log}"
        )

    # Citizens

    async def log_in(self, person: Person) -> bool:
        """Let a citizen log in, as often as it takes; False if the service cannot be reached for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RECOVERY_SECONDS):
                while True:
                    try:
                        attributes = {"fullname": person.name, "bsn": person.bsn, "birthdate": "1971-02-28"}
                        person.code = await self.installation.log_in_citizen(attributes=attributes)
                    except (*NETWORK_FAULTS, IndexError):
                        await asyncio.sleep(0.2)
                    else:
                        return True
        return False

    async def caller(self, chance: random.Random) -> None:
        """Let one citizen call, and see that the call ends."""
        number = len(self.people)
        person = Person(f"Quirijn Vlinderslag {number}", f"9{self.seed % 1000:03}{number:05}")
        self.people.append(person)
        keys = chance.choices(["right", "wrong", "nothing", "again"], [80, 8, 6, 6])[0]
        stays = chance.uniform(0.0, 4.0) if chance.random() < HURRIED else chance.uniform(4.0, LONGEST_WAIT)
        at_once = chance.random() < 0.03
        if not await self.log_in(person):
            raise self.fail("nobody can log in")
        wrong = "".join(chance.choice("123456789") for _ in range(10))
        keyed = {"right": person.code, "wrong": wrong, "nothing": "", "again": person.code}[keys]
        self.figures.calls[keys] += 1
        self.note(f"{person.name} calls: {keys}, stays {stays:.1f} s")
        try:
            ended = await self._call(person, keyed, stays, at_once=at_once)
            if keys == "again":
                # Who was not served may use the code once more.
                ended = await self._call(person, keyed, stays, at_once=False)
        except SippError as fault:
            raise self.fail(f"the call of {person.name} did not end properly: {fault}") from None
        self.figures.calls[ended] += 1

    async def _call(self, person: Person, keyed: str, stays: float, *, at_once: bool) -> str:
        rounds = [keyed] if at_once else [keyed] * KEYED_AT_MOST
        caller = await self.telephony.call(*rounds, hang_up_at_once=at_once)
        person.call_id = caller.call_id
        try:
            await caller.answered(seconds=RECOVERY_SECONDS)
            left = await self._stay(caller, stays, len(rounds))
            # Through the rounds that were not needed, to the end.
            for _ in range(left):
                caller.go_on()
                await asyncio.sleep(ROUND_SECONDS)
            # SIPp overlooks one of thousands of these messages.
            if left and not await caller.hangs_up(seconds=OVERLOOKED_SECONDS):
                self.figures.checks["messages overlooked by SIPp"] += 1
                caller.go_on()
            return await caller.ended(seconds=END_SECONDS)
        finally:
            person.call_id = ""
            self.note(f"{person.name} is gone")

    async def _stay(self, caller: Caller, seconds: float, rounds: int) -> int:
        """Stay on the line, and key the code in again when it is asked for again; gives how many rounds are left."""
        until = time.monotonic() + seconds
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(KEYS_SECONDS, max(0.0, until - time.monotonic()))):
                    await caller.over()
                    return 0
            if time.monotonic() >= until:
                return rounds
            if rounds > 1 and caller.call_id in self.asked_for_code:
                caller.go_on()
                rounds -= 1

    # Faults

    async def bring_about(self, fault: Fault) -> None:
        """Let a fault come and go, and wait until the service is well again."""
        self.note(f"{fault.kind} for {fault.lasts:.1f} s")
        self.figures.faults[fault.kind] += 1
        self._calm = False
        bring = getattr(self, f"_{fault.kind.lower().replace(' -9', '').replace(' ', '_')}")
        try:
            over = await bring(fault.lasts)
        except TimeoutError:
            raise self.fail(f"{fault.kind}: the service does not start or end in time") from None
        began = time.monotonic() if over is None else over
        try:
            await self.installation.until_ready(seconds=RECOVERY_SECONDS)
        except AssertionError as wrong:
            raise self.fail(f"after {fault.kind}: {wrong}") from None
        self.figures.recoveries[fault.kind].append(time.monotonic() - began)
        self._calm, self._calm_since = True, time.monotonic()
        self.note(f"well again after {fault.kind}")

    async def _kill(self, seconds: float) -> float:
        self.killed_at.append(time.time())
        await self.installation.kill()
        await asyncio.sleep(seconds)
        began = time.monotonic()
        await self.installation.start()
        return began

    async def _planned_restart(self, seconds: float) -> float:
        code = await self.installation.stop()
        if code != 0:
            raise self.fail(f"a planned stop ended with {code}")
        await asyncio.sleep(seconds)
        began = time.monotonic()
        await self.installation.start()
        return began

    async def _service_hangs(self, seconds: float) -> None:
        process = self.installation.process
        assert process
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    async def _asterisk_hangs(self, seconds: float) -> None:
        assert self.pbx.pid
        os.kill(self.pbx.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self.pbx.pid, signal.SIGCONT)

    async def _events_cut(self, _: float) -> None:
        self.proxy.cut(reset=self.figures.faults["events cut"] % 2 == 0)

    async def _asterisk_silent(self, seconds: float) -> None:
        self.proxy.silence()
        await asyncio.sleep(seconds)
        await self.proxy.pass_on()

    async def _asterisk_refuses(self, seconds: float) -> None:
        self.proxy.refuse()
        self.proxy.cut()
        await asyncio.sleep(seconds)
        await self.proxy.pass_on()

    async def _clock_jumps(self, seconds: float) -> None:
        """Let the service's machine have another time, an hour ahead or behind, and then the right one again."""
        self.installation.set_clock(HOUR if self.figures.faults["clock jumps"] % 2 else -HOUR)
        await asyncio.sleep(seconds)
        self.installation.set_clock(0)

    async def _disk_full(self, seconds: float) -> None:
        assert self.installation.process
        pid = self.installation.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
        await asyncio.sleep(seconds)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    async def _redis_crashes(self, seconds: float) -> None:
        assert self.redis
        await self.redis.stop(signal.SIGKILL)
        await asyncio.sleep(seconds)
        await self.redis.start()

    async def _redis_hangs(self, seconds: float) -> None:
        assert self.redis
        self.redis.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.redis.send(signal.SIGCONT)

    async def _redis_cut(self, _: float) -> None:
        assert self.redis_proxy
        self.redis_proxy.cut()

    # What must hold

    async def watch(self) -> None:
        """Look at everything every so often."""
        while True:
            await asyncio.sleep(self.every)
            if not self._calm:
                self._suspects.clear()
                continue
            since = self._calm_since
            try:
                async with asyncio.timeout(self.look_takes):
                    found = await self._suspicious()
            except (*NETWORK_FAULTS, StoreError):
                continue
            if self._calm and since == self._calm_since:
                self._judge(found)

    def _judge(self, found: dict[str, float]) -> None:
        now = time.monotonic()
        self.figures.checks["looks"] += 1
        self._suspects = {text: self._suspects.get(text, (now, bound)) for text, bound in found.items()}
        for text, (since, bound) in self._suspects.items():
            if now - max(since, self._calm_since) > bound:
                raise self.fail(f"for more than {bound:.0f} s: {text}")

    async def _suspicious(self) -> dict[str, float]:
        """Give what must not last, each with for how many seconds at most."""
        channels = {channel["id"]: channel for channel in await self.installation.channels()}
        bridges = {bridge["id"]: set(bridge["channels"]) for bridge in await self.installation.bridges()}
        notes = await self._call_notes()
        people = {person.call_id: person for person in self.people if person.call_id}
        callers = {id_: people[sip] for id_, channel in channels.items() if (sip := channel["protocol_id"]) in people}
        asked = {note.channel for note in notes if note.ticket is None}
        self.asked_for_code = {person.call_id for id_, person in callers.items() if id_ in asked}
        found = dict.fromkeys(self._left_over(channels, bridges, callers), BOUND_SECONDS)
        found |= dict.fromkeys(self._misplaced(notes, channels, bridges, callers), BOUND_SECONDS)
        found |= dict.fromkeys(await self._wrong_screens(channels, bridges, callers), SCREEN_SECONDS)
        return found

    async def _call_notes(self) -> list[CallNote]:
        async with self.store() as store:
            return [read_call(text) for name, text in (await store.notes()).items() if name.startswith("call ")]

    async def until_waiting(self, count: int, seconds: float) -> None:
        """Wait until so many callers wait."""
        waiting = 0
        try:
            async with asyncio.timeout(seconds):
                while waiting < count:
                    await asyncio.sleep(0.5)
                    waiting = sum(note.ticket is not None for note in await self._call_notes())
        except TimeoutError:
            raise self.fail(f"{waiting} of {count} wait") from None

    def _left_over(
        self, channels: dict[str, Any], bridges: dict[str, set[str]], callers: dict[str, Person]
    ) -> Iterator[str]:
        in_bridges = set().union(*bridges.values()) if bridges else set()
        for id_, channel in channels.items():
            ours = id_.startswith("idbellen-leg-")
            if not ours and id_ not in callers:
                yield f"a channel that is nobody's: {id_} {channel['state']}"
            elif ours and id_ not in in_bridges:
                yield f"a phone that talks with nobody: {id_} {channel['name']} {channel['state']}"
        for name, inside in bridges.items():
            if not inside:
                yield f"a bridge with nobody in it: {name}"

    def _misplaced(
        self,
        notes: Sequence[CallNote],
        channels: dict[str, Any],
        bridges: dict[str, set[str]],
        callers: dict[str, Person],
    ) -> Iterator[str]:
        noted: dict[str, list[CallNote]] = defaultdict(list)
        for note in notes:
            noted[note.channel].append(note)
            if note.channel not in channels:
                yield f"a note of a caller who has gone: {note.call}"
        for id_, person in callers.items():
            self.figures.checks["callers"] += 1
            if channels[id_]["dialplan"]["app_name"] != "Stasis":
                continue
            mine = noted[id_]
            where = [name for name, inside in bridges.items() if id_ in inside]
            if len(mine) != 1:
                yield f"{person.name} ({id_}) is in {len(mine)} notes"
            elif mine[0].talk is None and where:
                yield f"{person.name} waits and is in a bridge"
            elif mine[0].talk and where not in ([], [mine[0].talk.bridge]):
                yield f"{person.name} is in another bridge than is noted"
            elif mine[0].talk and mine[0].talk.mode.value in ("talking", "conference") and not where:
                yield f"{person.name} is said to talk and is in no bridge"

    async def _wrong_screens(
        self, channels: dict[str, Any], bridges: dict[str, set[str]], callers: dict[str, Person]
    ) -> list[str]:
        found = []
        shown: dict[str, list[str]] = defaultdict(list)
        for agent in self.agents:
            call = agent.call
            if call is None or not call["secret"]:
                continue
            if call["part"] == "main":
                shown[call["secret"]].append(agent.name)
            elif not call["shared"]:
                found.append(f"{agent.name} is consulted and sees what was not given to them")
            name = await self._name_on(agent, call["secret"])
            if name is None or agent.call is None or agent.call["id"] != call["id"]:
                continue
            self.figures.checks["screens"] += 1
            mine = {id_ for id_, channel in channels.items() if channel["name"].startswith(f"PJSIP/{agent.name}-")}
            for inside in bridges.values():
                talked_with = {callers[id_].name for id_ in inside if id_ in callers}
                if inside & mine and talked_with and name not in talked_with:
                    found.append(f"{agent.name} talks with {talked_with} and sees {name}")
        found += [f"{names} have the same caller" for names in shown.values() if len(names) > 1]
        found += await self._seen_by_others(shown)
        return found

    async def _name_on(self, agent: Agent, secret: str) -> str | None:
        if secret not in self._names:
            status, body = await agent.dashboard.attributes(secret)
            if status != 200:
                return None
            self._names[secret] = body["attributes"][0]["value"]
        if agent.call:
            await agent.dashboard.shown(agent.call["id"])
        return self._names[secret]

    async def _seen_by_others(self, shown: dict[str, list[str]]) -> list[str]:
        found = []
        for secret, names in shown.items():
            for agent in random.sample(self.agents, min(len(self.agents), MOST_REFUSED)):
                mine = agent.call and agent.call["secret"]
                if agent.name in names or mine == secret:
                    continue
                self.figures.checks["refusals"] += 1
                status, _ = await agent.dashboard.attributes(secret)
                if status == 200 and not (agent.call and agent.call["secret"] == secret):
                    found.append(f"{agent.name} may see what {names} have on the screen")
        return found

    # At the end

    async def finish(self) -> None:
        """When all callers have gone: see that nothing is left, and that everything counted once."""
        for agent in self.agents:
            agent.resting = True
        try:
            await self.installation.until_nothing_is_left(seconds=RECOVERY_SECONDS)
            async with asyncio.timeout(RECOVERY_SECONDS):
                while not all(agent.dashboard.snapshot.get("state") == "paused" for agent in self.agents):
                    await asyncio.sleep(0.1)
        except (AssertionError, TimeoutError) as wrong:
            states = {agent.name: agent.dashboard.snapshot.get("state") for agent in self.agents}
            raise self.fail(f"at the end: {wrong} {states}") from None
        await self._until_stored()

    async def _until_stored(self) -> None:
        """The store is told a moment after the call."""
        async with self.store() as store:
            try:
                async with asyncio.timeout(BOUND_SECONDS):
                    while left := [name for name in await store.notes() if name.startswith("call ")]:
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise self.fail(f"calls are still noted: {left}") from None
            claimed = await store.release_others(())
            if claimed:
                raise self.fail(f"{claimed} sessions are still claimed")
            await self._each_stay_is_recorded(store)

    async def _each_stay_is_recorded(self, store: Any) -> None:
        accepted = self._accepted()
        try:
            async with asyncio.timeout(BOUND_SECONDS):
                while missing := accepted.keys() - {one.call for one in await store.calls(0.0, time.time() + 1)}:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            # What the last moment before a crash had changed is lost, and then the caller is asked afresh.
            lost = {call for call in missing if not any(0 <= at - accepted[call] < 0.5 for at in self.killed_at)}
            if lost:
                told = self.installation.log.read_text().splitlines()
                stories = "\n".join(line for call in lost for line in told if call in line)
                raise self.fail(f"no record of {lost}, killed at {self.killed_at}:\n{stories}") from None
        stays: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for one in await store.calls(0.0, time.time() + 1):
            stays[one.call].append((one.arrived, one.arrived + one.waited + one.talked))
            self.figures.calls[f"{one.outcome.value} in the history"] += 1
        for call, spans in stays.items():
            spans.sort()
            for (_, end), (begin, _) in itertools.pairwise(spans):
                if begin < end - 0.5:
                    raise self.fail(f"two records of one stay of {call}: {spans}")

    def _accepted(self) -> dict[str, float]:
        """Give the calls whose code was accepted, with the moment."""
        found = re.findall(r"(\S+Z) .*accepted=True attempt=\d+ call=(\S+)", self.installation.log.read_text())
        return {call: _epoch(moment) for moment, call in found}

    def search_logs(self) -> None:
        """See that no log holds what it must not, nor tells of a fault of ours."""
        own = self.installation.log.read_text()
        logs = {self.installation.log: own, self.pbx.log: self.pbx.log.read_text(errors="replace")}
        self.figures.taken_up = own.count("call of an earlier process taken up")
        hidden = {CALLER_NUMBER, "Vlinderslag", *self.installation.codes, *self.installation.secrets}
        hidden |= {person.bsn for person in self.people}
        for path, text in logs.items():
            words = set(re.findall(r"[\w-]+", text))
            if words & hidden:
                raise self.fail(f"in {path.name}: {words & hidden}")
        # A store that cannot be used fails the calls that need it at that moment, and they say why.
        excused = not STORE_FAULTS.isdisjoint(self.figures.faults)
        for entry in re.split(r"^(?=\d{4}-\d\d-\d\dT)", own, flags=re.MULTILINE):
            if "never awaited" in entry or ("Traceback" in entry and not (excused and STORE_ERROR in entry)):
                raise self.fail(f"in the log: {entry[:6000]}")

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Any]:
        """Open the store beside the service."""
        settings = load(self.installation.config)
        async with open_store(settings, Fingerprints(read_master_key(settings.sessions.master_key_file))) as store:
            yield store

    def measure(self) -> None:
        """Keep how much memory the service has, in KiB."""
        process = self.installation.process
        with suppress(OSError, IndexError):
            assert process
            with open(f"/proc/{process.pid}/status") as status:  # noqa: PTH123
                size = int(next(line for line in status if line.startswith("VmRSS")).split()[1])
            self.figures.memory.append((time.monotonic() - self._began, size))


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
    redis: bool,
    plug_in: Callable[[Phones, Sequence[str]], Awaitable[list[AgentPhone]]] = one_by_one,
    agent: type[Agent] = Agent,
    clock: bool = True,
    **changes: str,
) -> AsyncIterator[Stage]:
    """Start a service with its proxies, store, agents and dashboards; afterwards the logs are searched.

    ``plug_in`` gives the agents' phones, ``agent`` is what they do, ``changes`` are of the configuration; with
    ``clock`` the service's clock can be set.
    """
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(pbx.settings.ari_port))
        installation = PipedInstallation(folder / "idbellen", pbx)
        server = redis_proxy = None
        usual = {"dashboard__grace_seconds": str(GRACE_SECONDS), "more": QUEUES}
        changes = usual | changes | {"ari_port": str(proxy.port)}
        if redis:
            # What it has said is kept is kept, as docs/decisions/0022-redis.md asks for.
            server = RedisProcess(folder / "redis", 'save ""', "appendonly yes", "appendfsync always")
            await server.start()
            stack.push_async_callback(server.stop)
            redis_proxy = await stack.enter_async_context(Proxy(server.port))
            changes["sessions__store"] = f'"redis://127.0.0.1:{redis_proxy.port}"'
        installation.write(keys_folder, **changes)
        names = pbx.settings.agents
        await installation.add_agents(*names)
        if clock:
            installation.set_clock(0)
        await installation.start()
        stack.push_async_callback(_end, installation)
        agents = [
            agent(name, phone, await stack.enter_async_context(installation.dashboard(name)))
            for name, phone in zip(names, await plug_in(telephony, names), strict=True)
        ]
        stage = Stage(seed, proxy, installation, telephony, agents)
        stage.redis, stage.redis_proxy = server, redis_proxy
        yield stage
        code = await installation.stop()
        if code != 0:
            raise stage.fail(f"the last stop ended with {code}")
        installation.until_written()
        stage.search_logs()


async def _end(installation: PipedInstallation) -> None:
    """Leave no process behind, whatever has happened."""
    process = installation.process
    if process and process.returncode is None:
        process.send_signal(signal.SIGCONT)
        await installation.kill()
    await installation.pbx.cli("channel request hangup all")
    installation.until_written()


async def perform(
    stage: Stage, faults: Sequence[Fault], scale: Scale, progress: Callable[[], Awaitable[None]] | None = None
) -> Figures:
    """Let callers come and faults happen until there are no more of these, and see that all ends well.

    ``progress`` runs beside it.
    """
    names = [agent.name for agent in stage.agents]
    began = time.monotonic()
    async with asyncio.TaskGroup() as background:
        beside = [background.create_task(stage.watch())]
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
                await stage.bring_about(fault)
            arrivals.cancel()
        await stage.finish()
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


def _epoch(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
