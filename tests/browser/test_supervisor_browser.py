"""The supervisors' pages in a real browser: every state, in both languages, small and wide, light and dark."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from idbellen.domain.ids import AgentName, QueueName
from idbellen.web import sockets
from tests.support.browser import ALL_LOOKS, BOTH_ENDS, Windows, check_look, html
from tests.support.ports import free_ports
from tests.support.supervision import REFERENCE, SECRET, WORDS, busy, open_page, serve, today

if TYPE_CHECKING:
    from pathlib import Path

    from idbellen.domain.languages import Language

NETWORK_ERRORS = r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INTERNET_DISCONNECTED)|WebSocket connection"


@dataclass(frozen=True, slots=True)
class Says:
    """What the pages say in a language."""

    language: Language
    nobody: str
    no_agent: str
    residents: str
    taxes: str
    not_answering: str
    move: str
    front: str
    to_taxes: str
    first_now: str
    change: str
    lunch: str
    lunch_done: str
    listen: str
    rings: str
    connected: str
    phone_fails: str
    gone: str
    lost: str
    exchange: str
    numbers: str
    history: str
    only: str


DUTCH = Says(
    language="nl", nobody="Er wacht niemand.", no_agent="Er is geen medewerker ingelogd.",
    residents="Burgerzaken", taxes="Belastingen",
    not_answering="neemt niet op", move="Verplaatsen", front="Naar voren", to_taxes="Naar de wachtrij Belastingen",
    first_now="deze beller gaat nu voor", change="Wijzigen", lunch="Pauze: Lunch", lunch_done="anna heeft pauze",
    listen="Alleen luisteren", rings="Uw telefoon gaat over.", connected="U bent verbonden",
    phone_fails="kon niet worden verbonden",
    gone="Deze beller wacht niet meer.", lost="Geen verbinding.",
    exchange="De telefooncentrale is niet bereikbaar.", numbers="De getallen van deze grafiek",
    history="Geschiedenis", only="Alleen voor leidinggevenden",
)  # fmt: skip
ENGLISH = Says(
    language="en", nobody="Nobody is waiting.", no_agent="No agent is logged in.", residents="Residents", taxes="Taxes",
    not_answering="does not answer", move="Move", front="To the front", to_taxes="To the queue Taxes",
    first_now="the caller goes first now", change="Change", lunch="Pause: Lunch", lunch_done="anna is paused",
    listen="Listen only", rings="Your phone rings.", connected="You are connected",
    phone_fails="could not be connected",
    gone="This caller no longer waits.", lost="No connection.",
    exchange="The telephone exchange cannot be reached.", numbers="The numbers of this chart",
    history="History", only="Only for supervisors",
)  # fmt: skip
both_languages = pytest.mark.parametrize("says", [DUTCH, ENGLISH], ids=lambda says: says.language)


@both_languages
async def test_an_empty_wallboard(windows: Windows, says: Says) -> None:
    async with serve(says.language) as stage:
        page = await open_page(windows, stage)
        await expect(page.get_by_text(says.nobody)).to_be_visible()
        await expect(page.get_by_text(says.no_agent)).to_be_visible()
        await expect(page.get_by_role("heading", name=says.residents)).to_be_visible()
        assert await page.locator("html").get_attribute("lang") == says.language
        await check_look(page, *ALL_LOOKS)


@both_languages
async def test_a_telephone_exchange_that_is_away_is_told(windows: Windows, says: Says) -> None:
    async with serve(says.language) as stage:
        await busy(stage)
        page = await open_page(windows, stage)
        stage.desk.set_telephony("main", up=False)
        await expect(page.get_by_role("alert").filter(has_text=says.exchange)).to_be_visible()
        await check_look(page, *BOTH_ENDS)
        stage.desk.set_telephony("main", up=True)
        await expect(page.locator("#telephony")).to_be_hidden()


@both_languages
async def test_a_busy_wallboard(windows: Windows, says: Says) -> None:
    async with serve(says.language) as stage:
        await busy(stage)
        page = await open_page(windows, stage)
        residents = page.locator(".queue", has_text=says.residents)
        await expect(residents.locator('[data-f="waiting"]')).to_have_text("2")
        await expect(page.locator("#agents").get_by_text(says.not_answering)).to_be_visible()
        await expect(page.locator("#callers tbody tr")).to_have_count(3)
        await expect(page.locator("#chart svg[role=img]")).to_be_visible()
        await page.get_by_text(says.numbers).click()
        await check_look(page, *ALL_LOOKS)
        text = await html(page)
        for private in (SECRET, REFERENCE, *WORDS):
            assert private not in text


@both_languages
async def test_moving_a_caller_with_the_keyboard(windows: Windows, says: Says) -> None:
    async with serve(says.language) as stage:
        stage.caller("first", waited=60)
        stage.caller("second", waited=30)
        page = await open_page(windows, stage)
        button = page.locator('button[data-key="second"]')
        await button.focus()
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_be_visible()
        await check_look(page, *BOTH_ENDS)
        await expect(dialog.get_by_role("button", name=says.front)).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#done")).to_contain_text(says.first_now)
        await expect(dialog).to_be_hidden()
        await expect(page.locator("#callers tbody tr").first).to_have_attribute("data-key", "second")
        await expect(button).to_be_focused()
        await page.keyboard.press("Enter")
        await dialog.get_by_role("button", name=says.to_taxes).click()
        await expect(page.locator('tr[data-key="second"]')).to_contain_text(says.taxes)
        await check_look(page, *BOTH_ENDS)
    windows.expect(NETWORK_ERRORS)


@both_languages
async def test_an_agents_state_and_listening_in(windows: Windows, says: Says) -> None:
    async with serve(says.language) as stage:
        stage.agent("anna")
        page = await open_page(windows, stage)
        await page.get_by_role("button", name=f"{says.change} anna").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog.get_by_role("button", name=says.listen)).to_be_hidden()
        await dialog.get_by_role("button", name=says.lunch).click()
        await expect(page.locator("#done")).to_contain_text(says.lunch_done)
        await expect(page.locator("#agents").get_by_text("Lunch")).to_be_visible()
        stage.staff.set_available(AgentName("anna"))
        stage.talk("anna")
        await page.get_by_role("button", name=f"{says.change} anna").click()
        listen = dialog.get_by_role("button", name=says.listen)
        await expect(listen).to_be_visible()
        stage.monitor.connects = False
        await listen.click()
        await expect(dialog.get_by_role("alert")).to_contain_text(says.phone_fails)
        await check_look(page, *BOTH_ENDS)
        stage.monitor.connects = True
        stage.monitor.answered.clear()
        await listen.click()
        await expect(dialog.get_by_role("status")).to_contain_text(says.rings)
        await check_look(page, *BOTH_ENDS)
        stage.monitor.answered.set()
        await expect(page.locator("#done")).to_contain_text(says.connected)
        assert [mode for _, _, mode, _ in stage.monitor.asked] == ["listen", "listen"]
    windows.expect(NETWORK_ERRORS)


async def test_what_is_not_configured_is_not_offered(windows: Windows) -> None:
    async with serve(modes=(), reasons=False) as stage:
        stage.agent("anna")
        stage.talk("anna")
        page = await open_page(windows, stage)
        await page.get_by_role("button", name="Wijzigen anna").click()
        names = await page.get_by_role("dialog").get_by_role("button").all_inner_texts()
        assert names == ["Beschikbaar maken", "Pauze", "Sluiten"]


@both_languages
async def test_a_caller_who_is_served_closes_the_dialog(windows: Windows, says: Says) -> None:
    async with serve(says.language) as stage:
        with stage.scope.pop_all():
            stage.caller("first")
            page = await open_page(windows, stage)
            await page.get_by_role("button", name=says.move).click()
            await expect(page.get_by_role("dialog")).to_be_visible()
            stage.scope.close()
            await expect(page.get_by_role("dialog")).to_be_hidden()
            await expect(page.locator("#done")).to_have_text(says.gone)


@both_languages
async def test_a_lost_connection_is_seen_and_comes_back(windows: Windows, says: Says) -> None:
    windows.expect(NETWORK_ERRORS)
    port = free_ports()
    async with serve(says.language, port=port) as stage:
        await busy(stage)
        page = await open_page(windows, stage)
        await expect(page.locator("#agents tbody tr")).to_have_count(6)
        await expect(page.get_by_role("alert")).to_be_hidden()
    await expect(page.get_by_role("alert").filter(has_text=says.lost)).to_be_visible()
    await check_look(page, *BOTH_ENDS)
    async with serve(says.language, port=port):
        await expect(page.get_by_role("alert").filter(has_text=says.lost)).to_be_hidden()
        await expect(page.get_by_text(says.no_agent)).to_be_visible()


async def test_silence_is_seen_within_five_seconds(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    windows.expect(NETWORK_ERRORS)
    monkeypatch.setattr(sockets, "BEAT_SECONDS", 60.0)
    async with serve() as stage:
        page = await open_page(windows, stage)
        await expect(page.locator("main:not([data-lost])")).to_be_visible()
        began = time.monotonic()
        # Else the connection would be back at once, and the notice gone before we look.
        stage.logins.clear()
        await page.wait_for_selector("#lost:not([hidden])")
        assert time.monotonic() - began < 5.0


async def test_logging_out_elsewhere_leaves_the_wallboard(windows: Windows) -> None:
    async with serve() as stage:
        page = await open_page(windows, stage)
        await expect(page.locator("main:not([data-lost])")).to_be_visible()
        del stage.logins["boss"]
        await stage.live.sockets.end_login("boss")
        await page.wait_for_url("**/login")


@both_languages
async def test_agents_are_told_why_not(windows: Windows, says: Says) -> None:
    windows.expect("403")
    async with serve(says.language) as stage:
        page = await open_page(windows, stage, login="anna")
        await expect(page.get_by_role("heading", name=says.only)).to_be_visible()
        await check_look(page, *BOTH_ENDS)


@both_languages
async def test_history_and_a_day(windows: Windows, says: Says, tmp_path: Path) -> None:
    async with serve(says.language) as stage:
        for ago in range(1, 5):
            stage.history(today() - dt.timedelta(days=ago), calls=20 + 5 * ago)
        stage.history(today() - dt.timedelta(days=1), queue=QueueName("taxes"), calls=30)
        page = await open_page(windows, stage)
        await page.get_by_role("link", name=says.history).click()
        await expect(page.get_by_role("heading", name=says.history)).to_be_visible()
        await expect(page.locator("tbody tr")).to_have_count(5)
        await check_look(page, *ALL_LOOKS)
        async with page.expect_download() as started:
            await page.locator("a[download]").first.click()
        download = await started.value
        await download.save_as(tmp_path / "days.csv")
        assert (tmp_path / "days.csv").read_text().startswith("day;queue;offered;")
        await page.locator("tbody a").first.click()
        await expect(page.locator("svg[role=img]")).to_be_visible()
        await check_look(page, *ALL_LOOKS)
        await page.goto(f"{stage.url}/wallboard/history?from=2000-01-01")
        await expect(page.get_by_role("alert")).to_be_visible()
        await check_look(page, *BOTH_ENDS)
    windows.expect("400")
