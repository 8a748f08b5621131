"""The pictures in docs/screens, of a demo that runs for the occasion: ``make screens``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.async_api import expect

from idbellen.demo.pbx import CHECKOUT
from tests.support.browser import WIDTHS, Windows, chromium
from tests.support.demo import be_an_agent, become_available, get_code, running_demo, work_as
from tests.support.supervision import busy, open_page, serve

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    from tests.support.demo import Demo

SCREENS = CHECKOUT / "docs" / "screens"
PHONE, DESKTOP = WIDTHS[1:]
CALL_MS = 40_000
COLLEAGUE = "collega"


async def main() -> None:
    """Walk through a demo and make each picture on the way."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="idbellen-screens-") as folder:
        async with chromium() as browser, running_demo(Path(folder) / "demo") as demo:
            windows = Windows(browser)
            # Pages higher than this are shown whole, lower ones without empty space below.
            citizen, agent, colleague = [await windows.open(height=300) for _ in range(3)]
            await get_through(citizen, agent, demo)
            await transfer(agent, colleague, demo)
            await end(citizen, agent, colleague)
            await windows.close()
            await watch(browser)


async def get_through(citizen: Page, agent: Page, demo: Demo) -> None:
    """Get a code and call, until an agent answers."""
    await citizen.goto(demo.municipality)
    await picture(citizen, "municipality")
    await get_code(citizen, demo, purpose="Verhuizing doorgeven", citizen="Sanne Voorbeeld")
    await picture(citizen, "citizen")
    await citizen.set_viewport_size({"width": PHONE, "height": 300})
    await picture(citizen, "citizen-phone")
    await be_an_agent(agent, demo)
    await picture(agent, "dashboard-idle")
    await agent.get_by_role("button", name="Pauze").click()
    await citizen.get_by_role("button", name="Bel met de demotelefoon").click()
    await expect(citizen.get_by_text("U bent de volgende")).to_be_visible(timeout=CALL_MS)
    await picture(citizen, "citizen-queued")
    await agent.get_by_role("button", name="Beschikbaar").click()
    await expect(agent.locator("#offer")).to_be_visible(timeout=CALL_MS)
    await picture(agent, "dashboard-offer")
    await expect(agent.locator("#attributes div")).to_have_count(5)
    await expect(agent.locator("#call-age")).to_have_text("0:03")
    await picture(agent, "dashboard-call")
    await picture(citizen, "citizen-connected")
    await agent.emulate_media(color_scheme="dark")
    await picture(agent, "dashboard-call-dark")
    await agent.emulate_media(color_scheme="light")


async def transfer(agent: Page, colleague: Page, demo: Demo) -> None:
    """Ask a colleague."""
    await work_as(colleague, demo, COLLEAGUE)
    await become_available(colleague)
    await agent.keyboard.press("o")
    await picture(agent, "dashboard-chooser")
    await agent.get_by_role("dialog").get_by_role("button", name=f"{COLLEAGUE} vrij").click()
    await expect(colleague.locator("#asked")).to_be_visible(timeout=CALL_MS)
    await picture(agent, "dashboard-consult")
    await picture(colleague, "dashboard-consulted")


async def watch(browser: Browser) -> None:
    """Look at the wallboard of a busy day, and its history."""
    windows = Windows(browser)
    async with serve("nl") as stage:
        await busy(stage)
        page = await open_page(windows, stage)
        await expect(page.get_by_text("Burgerzaken").first).to_be_visible()
        await picture(page, "wallboard")
        await page.emulate_media(color_scheme="dark")
        await picture(page, "wallboard-dark")
        await page.emulate_media(color_scheme="light")
        await page.goto(f"{stage.url}/wallboard/history")
        await picture(page, "history")
        await windows.close()


async def end(citizen: Page, agent: Page, colleague: Page) -> None:
    """Transfer, and end the call."""
    await agent.keyboard.press("d")
    await expect(agent.locator("#wrap-up")).to_be_visible()
    await picture(agent, "dashboard-wrap-up")
    await colleague.keyboard.press("x")
    await expect(citizen.get_by_role("heading", level=1)).to_have_text("Uw gesprek is voorbij")


async def picture(page: Page, name: str) -> None:
    path = SCREENS / f"{name}.png"
    await page.screenshot(path=path, full_page=True)
    sys.stdout.write(f"{path.relative_to(CHECKOUT)}\n")


if __name__ == "__main__":
    asyncio.run(main())
