"""What must hold while faults come and go, and at the end."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from idbellen.ports import StoreError
from tests.support.scenarios import CALLER_NUMBER
from tests.support.stage import NETWORK_FAULTS, RECOVERY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from idbellen.domain.notes import CallNote
    from tests.support.stage import Agent, Person, Stage

# So long something may be other than it should: a phone rings for 5 s, and Asterisk tells of some ends late.
BOUND_SECONDS = 10.0
# A wrong screen is one at once; this is what two looks at different places are apart.
SCREEN_SECONDS = 2.0
# So many others try to see what is on a screen.
MOST_REFUSED = 6
STORE_ERROR = "idbellen.stores.errors.StoreError"


@dataclass(frozen=True)
class Seen:
    """What Asterisk has: channels and callers by their channel's id, bridges by theirs, with who is in them.

    ``together``: who was in a bridge just before the channels were asked for, or just after. Else who is seen when they
    have just answered, and ten seconds later when they just hang up, would count as alone all the while.
    """

    channels: dict[str, Any]
    bridges: dict[str, set[str]]
    together: set[str]
    callers: dict[str, Person]


class Watch:
    """Looks at everything every so many seconds, and at the end; ``look_takes``: one look takes so long at most."""

    def __init__(self, stage: Stage, *, every: float = 1.0, look_takes: float = 5.0) -> None:
        self._stage = stage
        self._every = every
        self._look_takes = look_takes
        self._names: dict[str, str] = {}
        # What is not as it should be: since when, and for how long it may be so.
        self._suspects: dict[str, tuple[float, float]] = {}

    async def watch(self) -> None:
        """Look at everything every so often."""
        while True:
            await asyncio.sleep(self._every)
            since = self._stage.calm_since
            if since is None:
                self._suspects.clear()
                continue
            try:
                async with asyncio.timeout(self._look_takes):
                    found = await self._suspicious()
            except (*NETWORK_FAULTS, StoreError):
                continue
            if since == self._stage.calm_since:
                self._judge(found, since)

    def _judge(self, found: dict[str, float], calm_since: float) -> None:
        now = time.monotonic()
        self._stage.figures.checks["looks"] += 1
        self._suspects = {text: self._suspects.get(text, (now, bound)) for text, bound in found.items()}
        for text, (since, bound) in self._suspects.items():
            if now - max(since, calm_since) > bound:
                raise self._stage.fail(f"for more than {bound:.0f} s: {text}")

    async def _suspicious(self) -> dict[str, float]:
        """Give what must not last, each with for how many seconds at most."""
        seen = await self._see()
        notes = await self._stage.call_notes()
        asked = {note.channel for note in notes if note.ticket is None}
        self._stage.asked_for_code = {person.call_id for id_, person in seen.callers.items() if id_ in asked}
        found = dict.fromkeys(self._left_over(seen), BOUND_SECONDS)
        found |= dict.fromkeys(self._misplaced(notes, seen), BOUND_SECONDS)
        found |= dict.fromkeys(await self._wrong_screens(seen), SCREEN_SECONDS)
        return found

    async def _see(self) -> Seen:
        before = await self._bridges()
        channels = {channel["id"]: channel for channel in await self._stage.installation.channels()}
        bridges = await self._bridges()
        people = {person.call_id: person for person in self._stage.people if person.call_id}
        callers = {id_: people[sip] for id_, channel in channels.items() if (sip := channel["protocol_id"]) in people}
        return Seen(channels, bridges, set().union(*before.values(), *bridges.values()), callers)

    async def _bridges(self) -> dict[str, set[str]]:
        return {bridge["id"]: set(bridge["channels"]) for bridge in await self._stage.installation.bridges()}

    def _left_over(self, seen: Seen) -> Iterator[str]:
        for id_, channel in seen.channels.items():
            ours = id_.startswith("idbellen-leg-")
            if not ours and id_ not in seen.callers:
                yield f"a channel that is nobody's: {id_} {channel['state']}"
            elif ours and id_ not in seen.together:
                yield f"a phone that talks with nobody: {id_} {channel['name']} {channel['state']}"
        for name, inside in seen.bridges.items():
            if not inside:
                yield f"a bridge with nobody in it: {name}"

    def _misplaced(self, notes: Sequence[CallNote], seen: Seen) -> Iterator[str]:
        noted: dict[str, list[CallNote]] = defaultdict(list)
        for note in notes:
            noted[note.channel].append(note)
            if note.channel not in seen.channels:
                yield f"a note of a caller who has gone: {note.call}"
        for id_, person in seen.callers.items():
            self._stage.figures.checks["callers"] += 1
            if seen.channels[id_]["dialplan"]["app_name"] != "Stasis":
                continue
            mine = noted[id_]
            where = [name for name, inside in seen.bridges.items() if id_ in inside]
            if len(mine) != 1:
                yield f"{person.name} ({id_}) is in {len(mine)} notes"
            elif mine[0].talk is None and where:
                yield f"{person.name} waits and is in a bridge"
            elif mine[0].talk and where not in ([], [mine[0].talk.bridge]):
                yield f"{person.name} is in another bridge than is noted"
            elif mine[0].talk and mine[0].talk.mode.value in ("talking", "conference") and id_ not in seen.together:
                yield f"{person.name} is said to talk and is in no bridge"

    async def _wrong_screens(self, seen: Seen) -> list[str]:
        found = []
        shown: dict[str, list[str]] = defaultdict(list)
        for agent in self._stage.agents:
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
            self._stage.figures.checks["screens"] += 1
            mine = {id_ for id_, channel in seen.channels.items() if channel["name"].startswith(f"PJSIP/{agent.name}-")}
            for inside in seen.bridges.values():
                talked_with = {seen.callers[id_].name for id_ in inside if id_ in seen.callers}
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
            for agent in random.sample(self._stage.agents, min(len(self._stage.agents), MOST_REFUSED)):
                mine = agent.call and agent.call["secret"]
                if agent.name in names or mine == secret:
                    continue
                self._stage.figures.checks["refusals"] += 1
                status, _ = await agent.dashboard.attributes(secret)
                if status == 200 and not (agent.call and agent.call["secret"] == secret):
                    found.append(f"{agent.name} may see what {names} have on the screen")
        return found

    async def finish(self) -> None:
        """When all callers have gone: see that nothing is left, and that everything counted once."""
        for agent in self._stage.agents:
            agent.resting = True
        try:
            await self._stage.installation.until_nothing_is_left(seconds=RECOVERY_SECONDS)
            async with asyncio.timeout(RECOVERY_SECONDS):
                while not all(agent.dashboard.snapshot.get("state") == "paused" for agent in self._stage.agents):
                    await asyncio.sleep(0.1)
        except (AssertionError, TimeoutError) as wrong:
            states = {agent.name: agent.dashboard.snapshot.get("state") for agent in self._stage.agents}
            raise self._stage.fail(f"at the end: {wrong} {states}") from None
        await self._until_stored()

    async def _until_stored(self) -> None:
        """The store is told a moment after the call."""
        async with self._stage.store() as store:
            try:
                async with asyncio.timeout(BOUND_SECONDS):
                    while left := [name for name in await store.notes() if name.startswith("call ")]:
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise self._stage.fail(f"calls are still noted: {left}") from None
            claimed = await store.release_others(())
            if claimed:
                raise self._stage.fail(f"{claimed} sessions are still claimed")
            await self._each_stay_is_recorded(store)

    async def _each_stay_is_recorded(self, store: Any) -> None:
        accepted = self._accepted()
        try:
            async with asyncio.timeout(BOUND_SECONDS):
                while missing := accepted - {one.call for one in await store.calls(0.0, time.time() + 1)}:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            told = self._stage.log.splitlines()
            stories = "\n".join(line for call in missing for line in told if call in line)
            raise self._stage.fail(f"no record of {missing}, killed at {self._stage.killed_at}:\n{stories}") from None
        stays: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for one in await store.calls(0.0, time.time() + 1):
            stays[one.call].append((one.arrived, one.arrived + one.waited + one.talked))
            self._stage.figures.calls[f"{one.outcome.value} in the history"] += 1
        for call, spans in stays.items():
            spans.sort()
            for (_, end), (begin, _) in itertools.pairwise(spans):
                if begin < end - 0.5:
                    raise self._stage.fail(f"two records of one stay of {call}: {spans}")

    def _accepted(self) -> set[str]:
        """Give the calls whose code was accepted."""
        return set(re.findall(r"accepted=True attempt=\d+ call=(\S+)", self._stage.log))


def search_logs(stage: Stage, *, store_was_away: bool) -> None:
    """See that no log holds what it must not, nor tells of a fault of ours."""
    own = stage.log
    logs = {stage.installation.log: own, stage.pbx.log: stage.pbx.log.read_text(errors="replace")}
    stage.figures.taken_up = own.count("call of an earlier process taken up")
    hidden = {CALLER_NUMBER, "Vlinderslag", *stage.installation.codes, *stage.installation.secrets}
    hidden |= {person.bsn for person in stage.people}
    for path, text in logs.items():
        words = set(re.findall(r"[\w-]+", text))
        if words & hidden:
            raise stage.fail(f"in {path.name}: {words & hidden}")
    # A store that cannot be used fails the calls that need it at that moment, and they say why.
    for entry in re.split(r"^(?=\d{4}-\d\d-\d\dT)", own, flags=re.MULTILINE):
        if "never awaited" in entry or ("Traceback" in entry and not (store_was_away and STORE_ERROR in entry)):
            raise stage.fail(f"in the log: {entry[:6000]}")
