"""``make soak``: faults at random for as long as is asked for, and docs/soak.md with what came of it.

It goes in laps, with the store in SQLite, in Redis, and in Redis with two processes that take turns, each with an
Asterisk and services of its own. In the last part of a lap no service is killed or restarted, so that its memory can
be seen to stay as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from idbellen.demo.pbx import CHECKOUT, find_build
from tests.measure.bench import machine
from tests.support.faults import KINDS, Scale, on_stage, perform, plan
from tests.support.installation import make_keys, own_pbx
from tests.support.sipp import phones
from tests.support.stage import RECOVERY_SECONDS, Figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.support.faults import Setting
    from tests.support.stage import Stage

REPORT = CHECKOUT / "docs" / "soak.md"
AGENTS = tuple(f"agent{number}" for number in range(1, 7))
# A phone of SIPp's registers once, and Asterisk keeps that for two hours.
LONGEST_LAP_MINUTES = 20.0
LONGEST_MINUTES = 24 * 60.0
# So much of a lap is with restarts.
RESTLESS = 2 / 3
RESTARTS = frozenset({"kill -9", "planned restart"})
# Between two faults, on average.
APART_SECONDS = 8.0
PROGRESS_SECONDS = 10.0
# What a lap takes besides: the start, the callers that are left, the search of the logs.
MARGIN_SECONDS = 180.0


@dataclass
class Lap:
    """One lap: its seed, with what, how long, and what came of it; ``fault``: what did not hold."""

    seed: int
    setting: Setting
    minutes: float
    figures: Figures = field(default_factory=Figures)
    fault: str = ""


def laps(seed: int, minutes: float) -> list[Lap]:
    """Divide the time into laps; at least one of each setting."""
    count = max(len(KINDS), math.ceil(minutes / LONGEST_LAP_MINUTES))
    settings = itertools.islice(itertools.cycle(KINDS), count)
    return [Lap(seed + number, setting, minutes / count) for number, setting in enumerate(settings)]


async def run(lap: Lap, title: str) -> None:
    """Run one lap, for no longer than it may take."""
    kinds = KINDS[lap.setting]
    seconds = lap.minutes * 60
    calm = [kind for kind in kinds if kind not in RESTARTS]
    faults = plan(lap.seed, kinds, RESTLESS * seconds, APART_SECONDS)
    faults += plan(lap.seed + 1, calm, (1 - RESTLESS) * seconds, APART_SECONDS)
    # A fault takes longer than its time, since the service gets well again in between.
    longest = seconds + len(faults) * RECOVERY_SECONDS + MARGIN_SECONDS
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idbellen-soak-")))
        await stack.enter_async_context(asyncio.timeout(longest))
        pbx = await stack.enter_async_context(own_pbx(folder, AGENTS))
        (folder / "sipp").mkdir()
        telephony = await stack.enter_async_context(phones(pbx, folder / "sipp"))
        stage = await stack.enter_async_context(
            on_stage(lap.seed, pbx, make_keys(folder / "keys"), folder, telephony, setting=lap.setting)
        )
        lap.figures = stage.figures

        async def progress() -> None:
            await tell(stage, title, len(faults))

        await perform(stage, faults, Scale(), progress)


async def tell(stage: Stage, title: str, faults: int) -> None:
    """Say now and then how far it is."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        stage.measure()
        figures = stage.figures
        calls = len(stage.people)
        memory = f"{figures.memory[-1][1] / 1024:.1f} MiB" if figures.memory else "not running"
        sys.stdout.write(
            f"{title}: {time.monotonic() - began:5.0f} s, {calls} calls, {figures.faults.total()} of {faults} faults, "
            f"{figures.checks['looks']} looks, {memory}\n"
        )
        sys.stdout.flush()


def faults_of(group: BaseException) -> Iterator[BaseException]:
    """Give what a group of exceptions holds."""
    if isinstance(group, BaseExceptionGroup):
        for fault in group.exceptions:
            yield from faults_of(fault)
    else:
        yield group


def counted(counts: Iterable[Counter[str]]) -> str:
    """Give counts of several laps together as text."""
    total: Counter[str] = sum(counts, Counter())
    return ", ".join(f"{count} {name}" for name, count in sorted(total.items())) or "none"


def report(run_laps: list[Lap], version: str) -> str:
    """Give the page."""
    rows = []
    for lap in run_laps:
        own = lap.figures
        answered = own.calls["answered in the history"]
        placed = sum(own.calls[keys] for keys in ("right", "wrong", "nothing", "again"))
        # From the last start of the service on.
        sizes = [size / 1024 for _, size in own.memory]
        memory = f"{sizes[0]:.1f}, {max(sizes):.1f}, {sizes[-1]:.1f}" if sizes else "not measured"
        rows.append(
            f"| {lap.seed} | {lap.setting} | {own.seconds / 60:.1f} | {placed} | {answered} | "
            f"{own.faults.total()} | {own.taken_up} | {memory} | {'a fault, see below' if lap.fault else 'all held'} |"
        )
    slowest: dict[str, float] = {}
    for lap in run_laps:
        for kind, times in lap.figures.recoveries.items():
            slowest[kind] = max([*times, slowest.get(kind, 0.0)])
    faults = sum((lap.figures.faults for lap in run_laps), Counter())
    recoveries = "\n".join(f"| {kind} | {faults[kind]} | {slowest.get(kind, 0.0):.2f} |" for kind in sorted(faults))
    minutes = sum(lap.minutes for lap in run_laps)
    findings = "\n\n".join(f"```\n{lap.fault}\n```" for lap in run_laps if lap.fault) or "None: all of it held."
    return f"""# Soak

Made by `python -m tests.measure.soak --minutes {minutes:g} --seed {run_laps[0].seed}` (`make soak`) on {datetime.now(UTC):%Y-%m-%d}: {machine()}; {version}.

Callers with right, wrong and no codes come, wait, hang up and call again; six agents, of whom one declines and one does not
answer, take calls, pause, hold, consult, transfer, confer and hang up; and all the while one fault after the other comes and
goes. Asterisk, the service, SIPp for all phones and the store are real, on loopback. The seed decides who is about to do what.

| seed | with | minutes | calls | answered | faults | taken up by another process | MiB of all processes at first, most, at last | invariants |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

| fault | times | slowest recovery, in seconds |
|---|---|---|
{recoveries}

A recovery lasts from the end of the fault until `GET /ready` says so; of a process that was killed or restarted, from the start
of the next one until all calls are taken up; of one of two processes, from its end until the other has taken them up and it is back
to stand by. In the last third of a lap there are no restarts: the memory at last is that of a
process which has lived through all other faults.

Calls: {counted(lap.figures.calls for lap in run_laps)}.

Agents asked for: {counted(lap.figures.asked for lap in run_laps)}.

## What was checked

Once a second, whenever no fault is under way ({counted(lap.figures.checks for lap in run_laps)}):

- Every channel is a caller's who is on the phone, or a phone of an agent that rings for no longer than it may or talks.
- No bridge is empty, and every caller in the application is in one note and in the bridge that it names, or in none.
- Whoever talks sees the citizen with whom they talk; a secret is on one dashboard, or was shared; other agents are refused it.

At the end of each lap: every call ended within its bound; no channel, bridge or note of a call is left; no session is claimed; all
agents could pause; the history has each stay once; every planned stop ended with 0; and in the logs there is no code, secret,
number, name or bsn, nothing that was never awaited, and no traceback but of calls that needed a store that was away.

## Findings

{findings}
"""  # noqa: E501 - the page's own lines


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.measure.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long, at most a day (default: 60)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    chosen = parser.parse_args()
    if not 0 < chosen.minutes <= LONGEST_MINUTES:
        parser.error(f"--minutes: more than 0, at most {LONGEST_MINUTES:g}")
    run_laps = laps(chosen.seed, chosen.minutes)
    for number, lap in enumerate(run_laps, 1):
        title = f"lap {number} of {len(run_laps)}, seed {lap.seed}, {lap.setting}"
        sys.stdout.write(f"{title}: {lap.minutes:.1f} minutes\n")
        try:
            await run(lap, title)
        except Exception as fault:  # noqa: BLE001 - whatever it is belongs into the report
            lap.fault = "\n".join(str(one) or type(one).__name__ for one in faults_of(fault))
            sys.stdout.write(f"{title}: {lap.fault}\n")
    REPORT.write_text(report(run_laps, find_build().version()))
    sys.stdout.write(f"{REPORT}\n")
    return 1 if any(lap.fault for lap in run_laps) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
