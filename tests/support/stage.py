"""Who is on stage when faults are brought about: a service, citizens who call, and agents with their dashboards.

Nobody's moment is the same in two runs with one seed, but what everybody is about to do is.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import aiohttp

from idbellen.domain.codes import Fingerprints
from idbellen.domain.notes import read_call
from idbellen.service.config import load, read_master_key
from idbellen.service.storage import open_store
from tests.support.installation import Installation
from tests.support.sipp import SippError

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from idbellen.domain.notes import CallNote
    from tests.support.dashboards import Dashboard
    from tests.support.proxy import Proxy
    from tests.support.redis_servers import RedisProcess
    from tests.support.sipp import AgentPhone, Caller, Phones

RECOVERY_SECONDS = 30.0
LONGEST_WAIT = 14.0
# So many do not wait for long, or hang up while they key the code in, which takes some seconds.
HURRIED = 0.3
# Whose code does not come through, because of a fault, keys it in again after a while.
KEYED_AT_MOST, KEYS_SECONDS, ROUND_SECONDS = 3, 4.0, 0.1
# From the caller's hanging up to the end.
END_SECONDS = 20.0
OVERLOOKED_SECONDS = 2.0
NETWORK_FAULTS = (aiohttp.ClientError, OSError, TypeError, TimeoutError)


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
    def _sink(self) -> Iterator[IO[bytes]]:
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
    """Everything that is on stage. What is found to be wrong is an :exc:`AssertionError` with the seed."""

    def __init__(  # noqa: PLR0913 - one thing each
        self,
        seed: int,
        proxy: Proxy,
        services: Sequence[PipedInstallation],
        telephony: Phones,
        agents: list[Agent],
        *,
        redis: RedisProcess | None = None,
        redis_proxies: Sequence[Proxy] = (),
        public: Mapping[str, Proxy] | None = None,
    ) -> None:
        """``services``: one, or two that take turns; ``redis_proxies``: each one's, ``public``: before their pages."""
        self.seed = seed
        self.pbx = services[0].pbx
        self.proxy = proxy
        self.services = services
        self.installation = services[0]
        self.telephony = telephony
        self.agents = agents
        self.redis = redis
        self.redis_proxies = redis_proxies
        self._public = public or {}
        self.figures = Figures()
        self.people: list[Person] = []
        self.events: list[str] = []
        self.killed_at: list[float] = []
        self.asked_for_code: set[str] = set()
        self._began = time.monotonic()
        # None while a fault is under way, or not got over.
        self.calm_since: float | None = self._began

    def note(self, text: str) -> None:
        """Keep what happened, for who has to find out why something was wrong."""
        self.events.append(f"{time.monotonic() - self._began:7.2f} {text}")

    def fail(self, text: str) -> AssertionError:
        """Give a fault as something to raise."""
        lately = "\n".join(self.events[-40:])
        logs = "\n".join("\n".join(log.splitlines()[-60:]) for log in self.logs)
        return AssertionError(
            f"seed {self.seed}: {text}\nwhat happened last, in seconds:\n{lately}\nthe end of the log:\n{logs}"
        )

    # Services

    @property
    def logs(self) -> list[str]:
        """Give the log of each service."""
        return [service.log.read_text() for service in self.services]

    @property
    def log(self) -> str:
        """Give the logs of all services as one text."""
        return "\n".join(self.logs)

    def serving(self) -> int:
        """Say which of the services had the latest turn."""
        turns = [re.findall(r"(\S+Z) \[[^]]*\] our turn", log) or [""] for log in self.logs]
        return max(range(len(turns)), key=lambda place: turns[place][-1])

    def lead_away_from(self, place: int) -> None:
        """Let whoever comes from now on come to the other service, as a load balancer does."""
        other = self.services[place - 1]
        for name, proxy in self._public.items():
            proxy.lead_to(other.ports[name])

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

    # What can be asked

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Any]:
        """Open the store beside the service."""
        settings = load(self.installation.config)
        async with open_store(settings, Fingerprints(read_master_key(settings.sessions.master_key_file))) as store:
            yield store

    def measure(self) -> None:
        """Keep how much memory the services have together, in KiB."""
        sizes = []
        with suppress(OSError, IndexError, StopIteration):
            for service in self.services:
                assert service.process
                with open(f"/proc/{service.process.pid}/status") as status:  # noqa: PTH123
                    sizes.append(int(next(line for line in status if line.startswith("VmRSS")).split()[1]))
            self.figures.memory.append((time.monotonic() - self._began, sum(sizes)))

    async def call_notes(self) -> list[CallNote]:
        async with self.store() as store:
            return [read_call(text) for name, text in (await store.notes()).items() if name.startswith("call ")]

    async def until_waiting(self, count: int, seconds: float) -> None:
        """Wait until so many callers wait."""
        waiting = 0
        try:
            async with asyncio.timeout(seconds):
                while waiting < count:
                    await asyncio.sleep(0.5)
                    waiting = sum(note.ticket is not None for note in await self.call_notes())
        except TimeoutError:
            raise self.fail(f"{waiting} of {count} wait") from None
