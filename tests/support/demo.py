"""``make run`` for tests and pictures: a demo of its own, and the walk that a newcomer makes through it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.async_api import expect

from idbellen.demo.pbx import CHECKOUT
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

START_SECONDS = 30.0
STOP_SECONDS = 20.0
STARTED = "Ctrl-C stops everything."
# The channels, as citizens choose them.
CODE_PAGE, DIAL_AT_ONCE = "Bellen met een code", "Meteen bellen"


class Demo:
    """One demo, in a folder and on ports of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.web, self.sip = free_ports(10), free_ports(30)
        self.output = ""
        self._environment = os.environ | {
            "IDBELLEN_DEMO_HOME": str(home),
            "IDBELLEN_DEMO_PORT": str(self.web),
            "IDBELLEN_DEMO_SIP_PORT": str(self.sip),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it has told what to do."""
        self._process = await self._run()
        try:
            async with asyncio.timeout(START_SECONDS):
                while STARTED not in self.output:
                    await self._read_line()
        except TimeoutError:
            raise AssertionError(f"the demo did not start in time: {self.output}") from None

    async def _run(self, *arguments: str) -> asyncio.subprocess.Process:
        # A session of its own, so that a test can press Ctrl-C as a terminal does: for all in the foreground.
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "idbellen", "demo", *arguments, cwd=CHECKOUT, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._environment,
        )  # fmt: skip

    async def _read_line(self) -> None:
        assert self._process
        assert self._process.stdout
        line = (await self._process.stdout.readline()).decode()
        if not line:
            raise AssertionError(f"the demo ended by itself: {self.output}")
        self.output += line

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run ``idbellen demo`` with arguments, for this demo; gives exit code and what it printed."""
        process = await self._run(*arguments)
        async with asyncio.timeout(START_SECONDS):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def press_ctrl_c(self) -> int:
        """End it as a terminal does; gives the exit code."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGINT)
        async with asyncio.timeout(STOP_SECONDS):
            rest, _ = await self._process.communicate()
        self.output += rest.decode()
        assert self._process.returncode is not None
        return self._process.returncode

    async def close(self) -> None:
        """End it, also when it hangs."""
        if self._process and self._process.returncode is None:
            try:
                await self.press_ctrl_c()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def processes(self) -> dict[int, str]:
        """Give the processes that have this demo's folder on their command line."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = entry.read_text()
            except OSError:
                continue
            if str(self.home) in line:
                found[int(entry.parent.name)] = line.replace("\0", " ")
        return found

    @property
    def municipality(self) -> str:
        return self._told(r"The municipality +(\S+)")

    @property
    def dashboard(self) -> str:
        return self._told(r"The dashboard +(\S+)")

    @property
    def backstage(self) -> str:
        """Behind the scenes of the first authentication plugin."""
        return self._told(r"Behind the scenes +(\S+)")

    @property
    def login(self) -> tuple[str, str]:
        """The name and the password of the agent."""
        return self._told(r"Log in as (\S+)"), self._told(r"with password ([^\s,]+)")

    def _told(self, pattern: str) -> str:
        found = re.search(pattern, self.output)
        assert found, f"the demo did not tell {pattern!r}: {self.output}"
        return found[1]


@asynccontextmanager
async def running_demo(home: Path) -> AsyncIterator[Demo]:
    """Run a demo in a folder for the block."""
    demo = Demo(home)
    try:
        await demo.start()
        yield demo
    finally:
        await demo.close()


async def choose_purpose(page: Page, demo: Demo, purpose: str) -> None:
    """Go as a citizen, in Dutch, from the municipality's page to the choice of channel and login."""
    await page.goto(demo.municipality)
    await page.get_by_label(purpose).check()
    await page.get_by_role("button", name="Verder").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(purpose)


async def choose_ways(page: Page, *, channel: str = CODE_PAGE, login: str = "DemoID") -> None:
    """Choose how to call and how to log in."""
    await page.get_by_label(channel).check()
    await page.get_by_label(login).check()
    await page.get_by_role("button", name="Verder").click()


async def log_in(page: Page, citizen: str) -> None:
    """Be a made-up citizen, and share what is asked."""
    await page.get_by_label(citizen).check()
    await page.get_by_role("button", name="Inloggen").click()
    await page.get_by_role("button", name="Ja, deel deze gegevens").click()


async def get_code(page: Page, demo: Demo, *, purpose: str, citizen: str) -> str:
    """Walk as a citizen, in Dutch, from the municipality's page to number and code; gives the code."""
    await choose_purpose(page, demo, purpose)
    await choose_ways(page)
    await log_in(page, citizen)
    return await code_on(page)


async def code_on(page: Page) -> str:
    """Wait for a page with a code; gives that."""
    await expect(page.locator("#code")).to_be_visible()
    return "".join(await page.locator("#code span").all_inner_texts())


async def be_an_agent(page: Page, demo: Demo) -> None:
    """Log in on the dashboard as the agent whom the demo told of, and become available."""
    await work_as(page, demo, demo.login[0])
    await become_available(page)


async def work_as(page: Page, demo: Demo, name: str) -> None:
    """Log in on the dashboard; everybody who works in the demo has the same password."""
    await page.goto(demo.dashboard)
    await page.get_by_label("Naam").fill(name)
    await page.get_by_label("Wachtwoord").fill(demo.login[1])
    await page.get_by_role("button", name="Inloggen").click()


async def become_available(page: Page) -> None:
    await page.get_by_role("button", name="Beschikbaar").click()
    await is_available(page)


async def wrap_up(page: Page) -> None:
    """Be done with a call that has just ended."""
    await page.get_by_role("button", name="Klaar").click()
    await is_available(page)


async def is_available(page: Page) -> None:
    await expect(page.locator("#state")).to_have_text("beschikbaar")
