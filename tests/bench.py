"""``make bench``: measures what people wait for, and writes docs/benchmarks.md.

Two times, at one call and at twenty at once: from the last digit (as Asterisk reports it) to the decision about
the code, and from an agent's answer (the channel is up) to the attributes on that agent's screen in Chromium.
"""

from __future__ import annotations

import asyncio
import json
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

from idbellen.demo.pbx import CHECKOUT, Pbx, PbxSettings
from tests.browser import browser
from tests.installation import PASSWORD, Installation, Spy, make_keys, spy
from tests.ports import free_ports
from tests.sipp import Phones, phones

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

AT_ONCE = 20
ROUNDS = {1: 40, AT_ONCE: 10}
GOALS_MS = {"decision": 50, "screen": 150}
REPORT = CHECKOUT / "docs" / "benchmarks.md"

# Notes when the attributes of a call stand on the screen: after the frame in which they were drawn.
WATCH = """() => {
  window.shownAt = 0;
  new MutationObserver(() => {
    if (document.getElementById("verdict").dataset.status !== "verified" || window.shownAt) return;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      window.shownAt = performance.timeOrigin + performance.now();
    }));
  }).observe(document.getElementById("call"), { subtree: true, childList: true, attributes: true });
}"""


@dataclass
class Figures:
    """Times in milliseconds."""

    decision: list[float] = field(default_factory=list)
    screen: list[float] = field(default_factory=list)


def moment(text: str) -> float:
    """Give the epoch milliseconds of a timestamp of Asterisk or of our log."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


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


async def one_round(installation: Installation, telephony: Phones, seen: Spy, pages: dict[str, Page], figures: Figures) -> None:
    seen.events.clear()
    logged = len(installation.log.read_text())
    codes = [await installation.log_in_citizen() for _ in pages]
    for page in pages.values():
        await page.evaluate("window.shownAt = 0")
    callers = await asyncio.gather(*(telephony.call(code) for code in codes))
    for page in pages.values():
        await page.wait_for_function("window.shownAt > 0", timeout=30_000)
    log = installation.log.read_text()[logged:]
    for call, channel in re.findall(r"call +call=(\S+) channel=(\S+)", log):
        decided = re.search(rf"(\S+Z) .*accepted=True attempt=1 call={call}", log)
        last_digit = [e for e in seen.events if e["type"] == "ChannelDtmfReceived" and e["channel"]["id"] == channel]
        if decided and last_digit:
            figures.decision.append(moment(decided[1]) - moment(last_digit[-1]["timestamp"]))
    for agent, page in pages.items():
        answered = next(
            event["timestamp"]
            for event in seen.events
            if event["type"] == "ChannelStateChange"
            and event["channel"]["state"] == "Up"
            and event["channel"]["name"].startswith(f"PJSIP/{agent}-")
        )
        figures.screen.append(await page.evaluate("window.shownAt") - moment(answered))
    for caller in callers:
        caller.go_on()
    await asyncio.gather(*(caller.ended() for caller in callers))
    await installation.until_nothing_is_left()
    for page in pages.values():
        await page.wait_for_selector("#call", state="hidden")


async def measure() -> dict[int, Figures]:
    agents = tuple(f"agent{number}" for number in range(1, AT_ONCE + 1))
    results: dict[int, Figures] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idbellen-bench-")))
        rtp = free_ports(1000)
        pbx = Pbx(
            PbxSettings(
                directory=folder / "asterisk", prompts=CHECKOUT / ".run/prompts", ari_port=free_ports(),
                sip_port=free_ports(), rtp_start=rtp, rtp_end=rtp + 999, agents=agents,
            )
        )  # fmt: skip
        stack.push_async_callback(pbx.stop)
        (folder / "asterisk").mkdir()
        await pbx.start()
        installation = Installation(folder / "idbellen", pbx)
        installation.write(make_keys(folder / "keys"))
        await installation.add_agents(*agents)
        await installation.start()
        stack.push_async_callback(installation.stop)
        (folder / "sipp").mkdir()
        telephony = await stack.enter_async_context(phones(pbx, folder / "sipp"))
        chromium = await stack.enter_async_context(browser())
        seen = await stack.enter_async_context(spy(pbx))
        pages: dict[str, Page] = {}
        for at_once, rounds in ROUNDS.items():
            for agent in agents[len(pages) : at_once]:
                await telephony.agent(agent)
                context = await chromium.new_context()
                pages[agent] = await open_dashboard(context, installation, agent)
            figures = results[at_once] = Figures()
            for number in range(1, rounds + 1):
                sys.stdout.write(f"\r{at_once} at once: round {number} of {rounds}")
                sys.stdout.flush()
                await one_round(installation, telephony, seen, pages, figures)
            sys.stdout.write("\n")
    return results


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1]) // (1 << 20)  # type: ignore[index]
    return f"{os.cpu_count()} cores ({model[1] if model else 'unknown'}), {memory} GiB, {platform.system()} {platform.release()}"


def report(results: dict[int, Figures], version: str) -> str:
    rows = []
    for name, title in (("decision", "last digit to the decision"), ("screen", "agent's answer to attributes on the screen")):
        for at_once, figures in results.items():
            values = getattr(figures, name)
            p50, p99 = percentile(values, 50), percentile(values, 99)
            goal = GOALS_MS[name] if at_once == AT_ONCE else ""
            rows.append(f"| {title} | {at_once} | {len(values)} | {p50:.1f} | {p99:.1f} | {goal} |")
    return f"""# Benchmarks

Made by `make bench` (`tests/bench.py`) on {datetime.now(UTC):%Y-%m-%d}: {machine()}; {version}.
Asterisk, idbellen, SIPp for all callers and agents, and Chromium with a page for each agent share the machine.

| from ... to | calls at once | measured | p50 ms | p99 ms | goal p99 ms |
|---|---|---|---|---|---|
{chr(10).join(rows)}

"Last digit" is when Asterisk reports it over ARI (after the key was released); "decision" is the line in
idbellen's log. "Answer" is when the agent's channel is up; "on the screen" is after the frame in which Chromium
drew the attributes. Calls "at once" start in the same moment and key their codes in at the same time.
"""


async def main() -> Any:
    results = await measure()
    from idbellen.demo.pbx import find_build  # noqa: PLC0415

    text = report(results, find_build().version())
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(text)
    sys.stdout.write(text)
    sys.stdout.write(json.dumps({at_once: max(f.screen) for at_once, f in results.items()}) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
