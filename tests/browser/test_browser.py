"""What agents see: the dashboard in a real browser, during real calls."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.support.browser import BOTH_ENDS, Windows, check_look, html, open_windows
from tests.support.installation import ATTRIBUTES, PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from playwright.async_api import Browser, Page

    from tests.support.installation import Installation
    from tests.support.sipp import Phones

PURPOSE = "Verhuizing doorgeven"
# The dashboard hides everything after five seconds without a word, and hears one every two.
FREEZE_SECONDS = 7.0
NETWORK_ERRORS = r"WebSocket connection to .* failed"


@pytest.fixture
async def windows(
    chrome: Browser,
    install: Callable[..., Awaitable[Installation]],  # noqa: ARG001 - windows close before what they show ends
) -> AsyncIterator[Windows]:
    async with open_windows(chrome) as made:
        yield made


async def log_in(page: Page, installation: Installation, agent: str = "agent1") -> Page:
    await page.goto(installation.dashboard_url)
    await page.get_by_label("Naam").fill(agent)
    await page.get_by_label("Wachtwoord").fill(PASSWORD)
    await page.get_by_role("button", name="Inloggen").click()
    await expect(page.get_by_role("button", name="Pauze")).to_be_enabled()
    return page


async def become(page: Page, state: str) -> None:
    await page.get_by_role("button", name=state).click()
    await is_now(page, state)


async def is_now(page: Page, state: str) -> None:
    await expect(page.get_by_role("button", name=state)).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("#state")).to_have_text(state.lower())


async def focused(page: Page) -> str:
    name: str = await page.evaluate("document.activeElement.id")
    return name


async def in_call(page: Page) -> None:
    """Wait until the attributes are on the screen."""
    await expect(page.locator("#verdict")).to_have_text("Geverifieerd")
    await expect(page.locator("#attributes")).to_contain_text(ATTRIBUTES["bsn"])


async def personal(page: Page) -> list[str]:
    """Give the citizen's data that are anywhere in a page."""
    text = await html(page)
    return [value for value in ATTRIBUTES.values() if value in text]


# The dashboard


async def test_a_wrong_password_is_told_beside_the_form(windows: Windows, installation: Installation) -> None:
    windows.expect("status of 403")
    page = await windows.open()
    await page.goto(installation.dashboard_url)
    await check_look(page, *BOTH_ENDS)
    await page.get_by_label("Naam").fill("agent1")
    await page.get_by_label("Wachtwoord").fill("something else")
    await page.keyboard.press("Enter")
    alert = page.locator("form").get_by_role("alert")
    await expect(alert).to_have_text("Deze naam en dit wachtwoord horen niet bij elkaar.")
    await expect(page.get_by_label("Wachtwoord")).to_be_focused()
    await expect(page.get_by_label("Wachtwoord")).to_have_accessible_description(await alert.inner_text())
    await expect(page.get_by_label("Naam")).to_have_value("agent1")
    await check_look(page, *BOTH_ENDS)


async def test_a_call_on_the_screen_from_offer_to_end(
    windows: Windows, install: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    installation = await install(ring_seconds="15")
    phone = await telephony.agent("agent1", after_ms=3000)
    page = await log_in(await windows.open(), installation)
    other = await log_in(await windows.open(), installation, "agent2")
    await become(page, "Beschikbaar")
    await check_look(page, *BOTH_ENDS)
    live = page.locator("[aria-live=assertive]")

    caller = await telephony.call(await installation.log_in_citizen())
    await expect(page.get_by_role("heading", name="Een beller voor u")).to_be_visible()
    await expect(page.locator("#offer")).to_contain_text(PURPOSE)
    await expect(live).to_have_text(f"Een beller voor u. Onderwerp: {PURPOSE}")
    assert await personal(page) == []
    assert await focused(page) == "available", "the offer stole the focus"
    await check_look(page, *BOTH_ENDS)
    assert await page.locator("#offer").is_visible(), "the offer went while axe looked"

    await in_call(page)
    await expect(page.locator("#offer")).to_be_hidden()
    await expect(page.locator("#attributes")).to_contain_text(PURPOSE)
    await expect(page.locator("#attributes dt")).to_have_text(["Onderwerp", "Naam", "bsn"])
    await expect(live).to_have_text("Verbonden.")
    assert await personal(page) == [ATTRIBUTES["fullname"], ATTRIBUTES["bsn"]], "what this purpose allows"
    assert await focused(page) == "available", "the call stole the focus"
    await check_look(page, *BOTH_ENDS)
    await phone.talking()
    assert await personal(other) == []
    await expect(other.locator("#call")).to_be_hidden()
    await is_now(other, "Pauze")

    await page.get_by_role("button", name="Pauze").click()
    await expect(page.get_by_text("Na dit gesprek hebt u pauze.")).to_be_visible()
    caller.go_on()
    await caller.ended()
    await expect(live).to_have_text("Het gesprek is voorbij.")
    await is_now(page, "Pauze")
    assert await personal(page) == []
    await expect(page.locator("#call")).to_be_hidden()
    assert await page.evaluate("localStorage.length + sessionStorage.length") == 0
    assert await focused(page) == "pause"


async def test_the_keyboard_is_enough(windows: Windows, installation: Installation) -> None:
    page = await windows.open()
    await page.goto(installation.dashboard_url)
    await expect(page.get_by_label("Naam")).to_be_focused()
    await page.keyboard.type("agent1")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    available, pause = (page.get_by_role("button", name=name) for name in ("Beschikbaar", "Pauze"))
    await expect(available).to_be_enabled()
    for name in ("Toetsen en geluid", "Uitloggen"):
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name=name)).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(available).to_be_focused()
    await page.keyboard.press("Space")
    await is_now(page, "Beschikbaar")
    await page.keyboard.press("Tab")
    await expect(pause).to_be_focused()
    outline: str = await pause.evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid", "where the focus is must be seen"
    await page.keyboard.press("Enter")
    await is_now(page, "Pauze")
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("/login$"))


async def test_after_logging_out_the_back_button_shows_nothing(
    windows: Windows, installation: Installation, telephony: Phones
) -> None:
    await telephony.agent("agent1")
    page = await log_in(await windows.open(), installation)
    await become(page, "Beschikbaar")
    caller = await telephony.call(await installation.log_in_citizen())
    await in_call(page)
    # In another tab, so that this one has to notice by itself.
    tab = await page.context.new_page()
    await tab.goto(installation.dashboard_url)
    await in_call(tab)
    await tab.get_by_role("button", name="Uitloggen").click()
    for window in (page, tab):
        await expect(window).to_have_url(re.compile("/login$"))
        await window.go_back()
        await expect(window).to_have_url(re.compile("/login$"))
        assert await personal(window) == []
    caller.go_on()
    await caller.ended()


async def test_a_service_that_is_killed_takes_the_data_off_the_screen_and_the_next_shows_them_again(
    windows: Windows, installation: Installation, telephony: Phones
) -> None:
    windows.expect(NETWORK_ERRORS)
    await telephony.agent("agent1")
    page = await log_in(await windows.open(), installation)
    await become(page, "Beschikbaar")
    caller = await telephony.call(await installation.log_in_citizen())
    await in_call(page)
    await installation.kill()
    await without_connection(page, seconds=6.0)
    await installation.start()
    await expect(page.get_by_text("Geen verbinding")).to_be_hidden()
    await in_call(page)
    caller.go_on()
    await caller.ended()
    # The page is told after the caller is.
    await expect(page.locator("#call")).to_be_hidden()
    assert await personal(page) == []


async def test_a_service_that_starts_while_asterisk_hangs_shows_the_call_when_asterisk_is_back(
    windows: Windows, install: Callable[..., Awaitable[Installation]], telephony: Phones
) -> None:
    windows.expect(NETWORK_ERRORS)
    installation = await install(dashboard__grace_seconds="10")
    await telephony.agent("agent1")
    page = await log_in(await windows.open(), installation)
    await become(page, "Beschikbaar")
    caller = await telephony.call(await installation.log_in_citizen())
    await in_call(page)
    await installation.until_noted_mode("talking")
    await installation.kill()
    assert installation.pbx.pid
    os.kill(installation.pbx.pid, signal.SIGSTOP)
    async with asyncio.TaskGroup() as beside:
        beside.create_task(installation.start())
        try:
            await expect(page.get_by_text("De telefooncentrale is niet bereikbaar.")).to_be_visible()
            await expect(page.get_by_text("U bent in gesprek. De gegevens verschijnen hier vanzelf.")).to_be_visible()
            assert await personal(page) == []
        finally:
            os.kill(installation.pbx.pid, signal.SIGCONT)
    await in_call(page)
    caller.go_on()
    await caller.ended()
    await is_now(page, "Beschikbaar")


async def test_a_service_that_hangs_takes_the_data_off_the_screen(
    windows: Windows, installation: Installation, telephony: Phones
) -> None:
    windows.expect(NETWORK_ERRORS)
    await telephony.agent("agent1")
    page = await log_in(await windows.open(), installation)
    await become(page, "Beschikbaar")
    caller = await telephony.call(await installation.log_in_citizen())
    await in_call(page)
    assert installation.process
    installation.process.send_signal(signal.SIGSTOP)
    try:
        await without_connection(page, seconds=FREEZE_SECONDS)
    finally:
        installation.process.send_signal(signal.SIGCONT)
    await in_call(page)
    await expect(page.get_by_text("Geen verbinding")).to_be_hidden()
    caller.go_on()
    await caller.ended()
    await is_now(page, "Beschikbaar")


async def without_connection(page: Page, *, seconds: float) -> None:
    """Wait until the page tells that it is cut off; then it shows nothing of anybody."""
    notice = page.get_by_role("alert").get_by_text("Geen verbinding")
    await expect(notice).to_be_visible(timeout=seconds * 1000)
    assert await personal(page) == []
    await expect(page.locator("#call")).to_be_hidden()
    for name in ("Beschikbaar", "Pauze"):
        await expect(page.get_by_role("button", name=name)).to_be_disabled()
