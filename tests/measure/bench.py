"""``make bench``: measures what people wait for, and writes docs/benchmarks.md.

Two times: from the last digit (as Asterisk reports it) to the decision about the code, and from an agent's answer
(the channel is up) to the attributes on that agent's screen in Chromium. With one call; with twenty calls that come
in one after the other and go on together; and with twenty that do everything in the same moment.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idbellen.demo.pbx import CHECKOUT, find_build
from tests.support.browser import chromium
from tests.support.installation import PASSWORD, Installation, make_keys, own_pbx
from tests.support.sipp import Caller, Phones, phones
from tests.support.spy import Spy, spy

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from playwright.async_api import BrowserContext, Page

MANY = 20
# Twenty browsers would fill the two cores that everything here shares, and agents have a computer each: so these
# are real pages, and the other agents' dashboards do over HTTP and websocket what a page does, but draw nothing.
REAL_PAGES = 4
GOALS_MS = {"decision": 50, "screen": 150}
REPORT = CHECKOUT / "docs" / "benchmarks.md"
# The part of the page that tests/measure/load.py writes.
LOAD = "## Load\n"

# Notes when the attributes of a call stand on the screen: after the frame in which they were drawn.
WATCH = """() => {
  const notes = document.body.dataset;
  new MutationObserver(() => {
    if (document.getElementById("verdict").dataset.status !== "verified" || notes.shownAt) return;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      notes.shownAt = performance.timeOrigin + performance.now();
    }));
  }).observe(document.getElementById("call"), { subtree: true, childList: true, attributes: true });
}"""


@dataclass
class Load:
    """A number of calls that go on together, each so many seconds after the one before; and times in ms."""

    title: str
    calls: int
    apart: float
    rounds: int
    decision: list[float] = field(default_factory=list)
    screen: list[float] = field(default_factory=list)


def moment(text: str) -> float:
    """Give the epoch milliseconds of a timestamp of Asterisk or of our log."""
    return datetime.fromisoformat(text).timestamp() * 1000


async def open_dashboard(context: BrowserContext, installation: Installation, agent: str) -> Page:
    page = await context.new_page()
    await page.goto(f"{installation.dashboard_url}/login")
    await page.fill("#name", agent)
    await page.fill("#password", PASSWORD)
    await page.press("#password", "Enter")
    await page.click("#available:not([disabled])")
    await page.wait_for_selector("#available[aria-pressed=true]")
    await page.evaluate(WATCH)
    return page


async def one_round(
    installation: Installation, telephony: Phones, seen: Spy, pages: dict[str, Page], load: Load
) -> None:
    seen.events.clear()
    logged = len(installation.log.read_text())
    shown = installation.log.read_text().count("attributes shown")
    codes = [await installation.log_in_citizen() for _ in range(load.calls)]
    for page in pages.values():
        await page.evaluate("delete document.body.dataset.shownAt")

    async def place(number: int, code: str) -> Caller:
        await asyncio.sleep(number * load.apart)
        return await telephony.call(code)

    callers = await asyncio.gather(*(place(number, code) for number, code in enumerate(codes)))
    for page in pages.values():
        await page.wait_for_selector("body[data-shown-at]", timeout=30_000)
    await installation.until_log("attributes shown", times=shown + load.calls)
    log = installation.log.read_text()[logged:]
    for call, channel in re.findall(r"call +call=(\S+) channel=(\S+)", log):
        decided = re.search(rf"(\S+Z) .*accepted=True attempt=1 call={call}", log)
        last_digit = [e for e in seen.events if e["type"] == "ChannelDtmfReceived" and e["channel"]["id"] == channel]
        if decided and last_digit:
            load.decision.append(moment(decided[1]) - moment(last_digit[-1]["timestamp"]))
    for agent, page in pages.items():
        answered = next(
            event["timestamp"]
            for event in seen.events
            if event["type"] == "ChannelStateChange"
            and event["channel"]["state"] == "Up"
            and event["channel"]["name"].startswith(f"PJSIP/{agent}-")
        )
        shown_at = await page.evaluate("Number(document.body.dataset.shownAt)")
        load.screen.append(shown_at - moment(answered))
    for caller in callers:
        caller.go_on()
    await asyncio.gather(*(caller.ended() for caller in callers))
    await installation.until_nothing_is_left()
    for page in pages.values():
        await page.wait_for_selector("#call", state="hidden")


class Clients:
    """Tasks that go on until they are closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def create_task(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.create_task(work))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def stand_in(installation: Installation, agent: str, ready: asyncio.Event) -> None:
    """Do what an agent's page does, for ever."""
    async with installation.dashboard(agent) as dashboard:
        await dashboard.available()
        ready.set()
        while True:
            call = (await dashboard.until("in_call", seconds=3600))["call"]
            await dashboard.attributes(call["secret"])
            await dashboard.shown(call["id"])
            await dashboard.until("available", seconds=3600)


async def measure(loads: list[Load]) -> None:
    agents = tuple(f"agent{number}" for number in range(1, MANY + 1))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idbellen-bench-")))
        pbx = await stack.enter_async_context(own_pbx(folder, agents))
        installation = Installation(folder / "idbellen", pbx)
        # A page that is cut off for a moment, because the machine is full, shall not lose its agent.
        installation.write(make_keys(folder / "keys"), dashboard__grace_seconds="60")
        await installation.add_agents(*agents)
        await installation.start()
        stack.push_async_callback(installation.stop)
        (folder / "sipp").mkdir()
        telephony = await stack.enter_async_context(phones(pbx, folder / "sipp"))
        browser = await stack.enter_async_context(chromium())
        seen = await stack.enter_async_context(spy(pbx))
        pages: dict[str, Page] = {}
        clients = Clients()
        stack.push_async_callback(clients.close)
        at_work = 0
        for load in loads:
            for number in range(at_work, load.calls):
                await telephony.agent(agents[number])
                if number < REAL_PAGES:
                    context = await browser.new_context()
                    pages[agents[number]] = await open_dashboard(context, installation, agents[number])
                else:
                    ready = asyncio.Event()
                    clients.create_task(stand_in(installation, agents[number], ready))
                    await ready.wait()
            at_work = load.calls
            for number in range(1, load.rounds + 1):
                sys.stdout.write(f"\r{load.title}: round {number} of {load.rounds}")
                sys.stdout.flush()
                await one_round(installation, telephony, seen, pages, load)
            sys.stdout.write("\n")


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (1 << 30)
    return f"{os.cpu_count()} cores ({model[1] if model else 'unknown'}), {memory} GiB, {platform.system()}"


def report(loads: list[Load], version: str) -> str:
    rows = []
    titles = {"decision": "last digit to the decision", "screen": "agent's answer to attributes on the screen"}
    for name, title in titles.items():
        for load in loads:
            values = getattr(load, name)
            p50, p99 = percentile(values, 50), percentile(values, 99)
            goal = GOALS_MS[name] if load.calls == MANY and load.apart else ""
            rows.append(f"| {title} | {load.title} | {len(values)} | {p50:.1f} | {p99:.1f} | {goal} |")
    return f"""# Benchmarks

Made by `make bench` (`tests/measure/bench.py`) on {datetime.now(UTC):%Y-%m-%d}: {machine()}; {version}.
Asterisk, idbellen, SIPp for all callers and agents, and Chromium share the machine. {REAL_PAGES} of the agents
have a real page in Chromium, and those are measured; the other dashboards are clients that ask the same and draw
nothing, because agents have a computer each.

| from ... to | calls | measured | p50 ms | p99 ms | goal p99 ms |
|---|---|---|---|---|---|
{chr(10).join(rows)}

"Last digit" is when Asterisk reports it over ARI (after the key was released); "decision" is the line in
idbellen's log. "Answer" is when the agent's channel is up; "on the screen" is after the frame in which Chromium
drew the attributes.

"Going on together": a call comes in every quarter of a second and stays. "In the same moment": twenty callers key their
last digit in, and twenty agents answer, within the same few milliseconds.
"""


def write(text: str, *, part: bool = False) -> None:
    """Put the page in place; or its last part, which begins with :data:`LOAD`, and which each leaves to the other."""
    before, mark, load = (REPORT.read_text() if REPORT.exists() else "").partition(LOAD)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(f"{before.rstrip()}\n\n{LOAD}{text}" if part else f"{text}\n{mark}{load}".rstrip() + "\n")


async def main() -> None:
    loads = [
        Load("one", 1, 1.0, 20),
        Load(f"{MANY} going on together", MANY, 0.25, 8),
        Load(f"{MANY} in the same moment", MANY, 0.0, 4),
    ]
    await measure(loads)
    text = report(loads, find_build().version())
    write(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    asyncio.run(main())
