"""A real browser for tests: headless Chromium through Playwright, and axe's accessibility checks.

Whatever a page reports by itself (an error on its console, an exception, a request that fails) fails the test,
unless the test said that it expects it.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import async_playwright, expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request

# No sound, no graphics card, and no traffic of the browser itself.
ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 20_000
WIDTHS = (320, 375, 1200)
HEIGHT = 900
PHONE_SIZE = (375, 812)
# The browser drops requests by itself when a page is left before they are done.
DROPPED = "net::ERR_ABORTED"


class Look(NamedTuple):
    """How somebody looks at a page."""

    width: int
    dark: bool


ALL_LOOKS = tuple(Look(width, dark) for dark in (False, True) for width in WIDTHS)
# Widths decide about room, light or dark about colours.
BOTH_ENDS = (Look(WIDTHS[0], dark=True), Look(WIDTHS[-1], dark=False))


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start a headless Chromium: the machine's own when there is one, or else the one that Playwright installs."""
    # Chromium's sandbox does not work for root.
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=PATIENCE_MS)
    # The one without windows takes a third of the other's work.
    program = shutil.which("chromium-headless-shell", path="/usr/bin") or shutil.which("chromium", path="/usr/bin")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        await browser.close()


class Windows:
    """Windows of one browser, each of somebody else: with cookies and settings of its own."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._expected: list[str] = []
        self._contexts: list[BrowserContext] = []
        self._faults: list[str] = []

    async def open(  # noqa: PLR0913 - each is a setting of a browser and goes by name
        self,
        *,
        language: str = "nl-NL",
        width: int = WIDTHS[-1],
        height: int = HEIGHT,
        dark: bool = False,
        phone: bool = False,
        javascript: bool = True,
    ) -> Page:
        """Open a window, or a ``phone`` of its usual size and without a mouse; gives its first page."""
        if phone:
            width, height = PHONE_SIZE
        context = await self._browser.new_context(
            locale=language,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=phone,
            is_mobile=phone,
            java_script_enabled=javascript,
        )
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", self._console)
        context.on("weberror", lambda error: self._faults.append(f"exception: {error.error}"))
        context.on("requestfailed", self._request_failed)
        self._contexts.append(context)
        return await context.new_page()

    def expect(self, pattern: str) -> None:
        """Let pages report this without failing the test."""
        self._expected.append(pattern)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._faults.append(f"console: {message.text} at {message.location['url']}")

    def _request_failed(self, request: Request) -> None:
        if request.failure != DROPPED:
            self._faults.append(f"request: {request.url} {request.failure}")

    @property
    def faults(self) -> list[str]:
        """What pages reported and nobody expected."""
        return [fault for fault in self._faults if not any(re.search(known, fault) for known in self._expected)]

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()


@asynccontextmanager
async def open_windows(browser: Browser) -> AsyncIterator[Windows]:
    """Give windows for the block; nothing unexpected may have been reported in them."""
    windows = Windows(browser)
    yield windows
    await windows.close()
    assert windows.faults == []


async def violations(page: Page) -> list[str]:
    """Let axe look at a page with all of its rules; gives what is wrong with it."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(Axe().axe_script)
    found = await page.evaluate("axe.run({resultTypes: ['violations']}).then((results) => results.violations)")
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: {', '.join(str(node['target']) for node in rule['nodes'])}"
        for rule in found
    ]


async def check_look(page: Page, *looks: Look) -> None:
    """In each look: nothing beside the screen, and nothing that axe finds wrong."""
    # A page without its style sheet yet looks like nothing that anybody gets to see.
    await page.wait_for_load_state()
    for look in looks:
        await page.emulate_media(color_scheme="dark" if look.dark else "light")
        await page.set_viewport_size({"width": look.width, "height": HEIGHT})
        beside = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert beside <= 0, f"{page.url}, {look}: scrolls {beside} px sideways"
        found = await violations(page)
        assert not found, f"{page.url}, {look}: {found}"


async def html(page: Page) -> str:
    """Give all that is in a page's DOM now."""
    text: str = await page.evaluate("document.documentElement.outerHTML")
    return text
