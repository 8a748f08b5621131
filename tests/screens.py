"""The pictures in docs/screens, of a demo that runs for the occasion: ``make screens``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.async_api import expect

from idbellen.demo.pbx import CHECKOUT
from tests.browser import WIDTHS, Windows, chromium
from tests.demo import be_an_agent, get_code, running_demo

if TYPE_CHECKING:
    from playwright.async_api import Page

SCREENS = CHECKOUT / "docs" / "screens"
PHONE, DESKTOP = WIDTHS[1:]
CALL_MS = 40_000


async def main() -> None:
    """Walk through a demo and make each picture on the way."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="idbellen-screens-") as folder:
        async with chromium() as browser, running_demo(Path(folder) / "demo") as demo:
            windows = Windows(browser)
            # Pages higher than this are shown whole, lower ones without empty space below.
            citizen, agent = await windows.open(height=300), await windows.open(height=300)
            await citizen.goto(demo.municipality)
            await picture(citizen, "municipality")
            await get_code(citizen, demo, purpose="Verhuizing doorgeven", citizen="Sanne Voorbeeld")
            await picture(citizen, "citizen")
            await citizen.set_viewport_size({"width": PHONE, "height": 300})
            await picture(citizen, "citizen-phone")
            await be_an_agent(agent, demo)
            await picture(agent, "dashboard-idle")
            await citizen.get_by_role("button", name="Bel met de demotelefoon").click()
            await expect(agent.locator("#offer")).to_be_visible(timeout=CALL_MS)
            await picture(agent, "dashboard-offer")
            await expect(agent.locator("#attributes div")).to_have_count(5)
            await expect(agent.locator("#call-age")).to_have_text("0:03")
            await picture(agent, "dashboard-call")
            await agent.emulate_media(color_scheme="dark")
            await picture(agent, "dashboard-call-dark")
            await citizen.get_by_role("button", name="Hang op").click()
            await windows.close()


async def picture(page: Page, name: str) -> None:
    path = SCREENS / f"{name}.png"
    await page.screenshot(path=path, full_page=True)
    sys.stdout.write(f"{path.relative_to(CHECKOUT)}\n")


if __name__ == "__main__":
    asyncio.run(main())
