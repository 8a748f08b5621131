"""The citizen's page in a real browser, on a phone and on a computer, also during real calls."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from playwright.async_api import expect

from idbellen.domain.languages import LANGUAGES
from idbellen.web.citizen.live import MOST_PAGES
from idbellen.web.citizen.page import COOKIE
from tests.support.browser import ALL_LOOKS, BOTH_ENDS, HEIGHT, WIDTHS, Look, Windows, check_look, open_windows
from tests.support.installation import PHONE_NUMBER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from playwright.async_api import Browser, Page, Request

    from tests.support.installation import Installation
    from tests.support.sipp import Phones

LOST = "De verbinding is weg."
NETWORK_ERRORS = r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING)"
NEW_CODE = "Vraag een nieuwe code aan"


@dataclass(frozen=True, slots=True)
class Words:
    """What the page says in a language."""

    language: str
    title: str
    qr: str
    dial: str
    second: str
    next: str
    connected: str
    ended: str


DUTCH = Words(
    language="nl-NL",
    title="Bel ons nu",
    qr="QR-code waarmee u ons belt met uw code",
    dial="Bel met de code",
    second="U bent nummer 2 in de rij",
    next="U bent de volgende",
    connected="U bent verbonden",
    ended="Uw gesprek is voorbij",
)
ENGLISH = Words(
    language="en-GB",
    title="Call us now",
    qr="QR code that calls us with your code",
    dial="Call with the code",
    second="You are number 2 in the queue",
    next="You are next",
    connected="You are connected",
    ended="Your call has ended",
)
both_languages = pytest.mark.parametrize("words", [DUTCH, ENGLISH], ids=lambda words: words.language)


@pytest.fixture
async def windows(
    chrome: Browser,
    install: Callable[..., Awaitable[Installation]],  # noqa: ARG001 - windows close before what they show ends
) -> AsyncIterator[Windows]:
    async with open_windows(chrome) as made:
        yield made


async def begin(installation: Installation, **result: Any) -> str:
    """Begin a session and deliver its auth result; gives the address that the browser is sent to."""
    headers = {"Content-Type": "application/jwt"}
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        async with http.post(f"{installation.internal_url}/start_communication", json={"purpose": "report_move"}) as a:
            started: dict[str, str] = await a.json()
        async with http.post(started["attr_url"], data=installation.token(**result), headers=headers):
            return started["client_url"]


async def code_on(page: Page, installation: Installation) -> str:
    """Give the code on a page, and note it for the search of the logs."""
    code = "".join(await page.locator("#code span").all_inner_texts())
    assert re.fullmatch("[0-9]{10}", code)
    installation.codes.append(code)
    return code


async def says(page: Page, title: str) -> None:
    await expect(page.get_by_role("heading", level=1)).to_have_text(title)


# Number and code


@both_languages
async def test_number_and_code_on_a_computer(windows: Windows, installation: Installation, words: Words) -> None:
    page = await windows.open(language=words.language)
    await page.goto(await begin(installation))
    await says(page, words.title)
    await expect(page).to_have_url(f"{installation.citizen_url}/")
    await expect(page.locator("html")).to_have_attribute("lang", words.language[:2])
    await code_on(page, installation)
    groups = await page.locator("#code span").all_inner_texts()
    assert len(groups) > 2
    await page.locator("#code").click()
    selected: str = await page.evaluate("getSelection().toString()")
    assert selected.split() == groups, "one press selects the whole code"
    number = page.locator(".number")
    await expect(number).to_have_attribute("href", f"tel:{PHONE_NUMBER}")
    await number.click()
    assert await page.evaluate("getSelection().toString()") == await number.inner_text(), "and so of the number"
    picture = page.get_by_role("img", name=words.qr)
    box = await picture.locator("svg").bounding_box()
    assert box
    assert min(box["width"], box["height"]) >= 120, "large enough for a phone's camera"
    await expect(page.get_by_role("link", name=words.dial)).to_be_hidden()
    await check_look(page, *ALL_LOOKS)
    await page.set_viewport_size({"width": WIDTHS[0], "height": HEIGHT})
    await expect(page.get_by_role("link", name=words.dial)).to_be_visible()
    await expect(picture).to_be_visible()


@both_languages
async def test_number_and_code_on_a_phone(windows: Windows, installation: Installation, words: Words) -> None:
    page = await windows.open(language=words.language, phone=True)
    await page.goto(await begin(installation))
    await says(page, words.title)
    code = await code_on(page, installation)
    dial = page.get_by_role("link", name=words.dial)
    await expect(dial).to_have_attribute("href", f"tel:{PHONE_NUMBER},{code}")
    await expect(dial).to_be_in_viewport()
    await expect(page.get_by_role("img", name=words.qr)).to_be_hidden()
    await check_look(page, *ALL_LOOKS)
    await page.set_viewport_size({"width": 1024, "height": HEIGHT})
    await expect(page.get_by_role("img", name=words.qr)).to_be_hidden()
    await expect(dial).to_be_visible()


async def test_nobody_else_hears_of_it(windows: Windows, installation: Installation) -> None:
    asked: list[Request] = []
    page = await windows.open()
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108 - Playwright takes no built-in
    await page.goto(await begin(installation))
    codes = [await code_on(page, installation)]
    await page.get_by_role("button", name=NEW_CODE).click()
    await expect(page.locator("#announcement")).not_to_be_empty()
    codes.append(await code_on(page, installation))
    assert len(asked) > 5
    for request in asked:
        assert request.url.startswith(installation.citizen_url)
        assert not any(code in request.url for code in codes)
    assert [cookie.get("name") for cookie in await page.context.cookies()] == [COOKIE]
    assert await page.evaluate("localStorage.length + sessionStorage.length") == 0


async def test_a_new_code_in_place(windows: Windows, installation: Installation) -> None:
    page = await windows.open()
    await page.goto(await begin(installation))
    first = await code_on(page, installation)
    other = await page.context.new_page()
    await other.goto(installation.citizen_url)
    await page.evaluate("marker = 'here'")
    button = page.get_by_role("button", name=NEW_CODE)
    await button.click()
    announcement = page.get_by_role("status").filter(has_text="Uw nieuwe code:")
    await expect(announcement).to_have_count(1)
    second = await code_on(page, installation)
    assert second != first
    assert re.sub(r"\D", "", await announcement.inner_text()) == second
    await expect(page.get_by_role("link", name="Bel met de code", include_hidden=True)).to_have_attribute(
        "href", f"tel:{PHONE_NUMBER},{second}"
    )
    await expect(button).to_be_focused()
    assert await page.evaluate("marker") == "here", "no reload"
    await check_look(page, *BOTH_ENDS)
    await expect(other.locator("#code")).to_have_text(await page.locator("#code").inner_text())
    await page.reload()
    assert await code_on(page, installation) == second


async def test_a_code_warns_before_it_ends(windows: Windows, install: Callable[..., Awaitable[Installation]]) -> None:
    installation = await install(sessions__code_seconds="6", citizen__warn_seconds="4")
    page = await windows.open(phone=True)
    await page.goto(await begin(installation))
    first = await code_on(page, installation)
    link = page.get_by_role("link", name="Bel met de code")
    await link.focus()
    validity = page.get_by_role("status").filter(has_text="geldig tot")
    await expect(validity).to_contain_text("Deze code is geldig tot")
    await expect(validity).to_contain_text("Let op: uw code is nog maar geldig tot")
    await expect(validity).to_be_in_viewport()
    await expect(link).to_be_focused()
    await check_look(page, *BOTH_ENDS)
    await page.get_by_role("button", name=NEW_CODE).click()
    await expect(validity).not_to_contain_text("Let op")
    second = await code_on(page, installation)
    await says(page, "Uw code is niet meer geldig")
    await check_look(page, *BOTH_ENDS)
    await page.get_by_role("button", name=NEW_CODE).click()
    await expect(page.locator("#code")).to_be_visible()
    assert await code_on(page, installation) not in (first, second)


# During a call


@pytest.mark.parametrize(("words", "phone"), [(DUTCH, True), (ENGLISH, False)], ids=["nl, phone", "en, computer"])
async def test_a_call_from_the_code_to_the_end(
    windows: Windows,
    install: Callable[..., Awaitable[Installation]],
    telephony: Phones,
    words: Words,
    phone: bool,  # noqa: FBT001 - from the parameters
) -> None:
    installation = await install(ring_seconds="15")
    agent_phone = await telephony.agent("agent1", after_ms=100)
    in_front = await telephony.call(await installation.log_in_citizen())
    await installation.until_log("accepted=True")
    page = await windows.open(language=words.language, phone=phone)
    await page.goto(await begin(installation))
    await says(page, words.title)
    caller = await telephony.call(await code_on(page, installation))
    await says(page, words.second)
    pair = await control_words(page, words)
    await expect(page.locator("#code")).to_be_hidden()
    await expect(page.locator("form[action='/end']")).to_be_hidden()
    await check_look(page, *BOTH_ENDS)
    await reload_shows(page, words.second, pair)

    in_front.go_on()
    await in_front.ended()
    await says(page, words.next)
    await reload_shows(page, words.next, pair)
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.until("paused")
        await dashboard.send("available")
        snapshot = await dashboard.until("in_call")
        assert " ".join(snapshot["call"]["words"]) == pair
        await says(page, words.connected)
        assert await control_words(page, words) == pair
        await check_look(page, *BOTH_ENDS)
        await reload_shows(page, words.connected, pair)
        agent_phone.hang_up()
        await says(page, words.ended)
    await caller.ended()
    await check_look(page, *BOTH_ENDS)
    await page.reload()
    await says(page, words.ended)


async def control_words(page: Page, words: Words) -> str:
    """Give the two control words on a page: in its language, and where a screen reader announces them."""
    shown = page.get_by_role("status").locator(".pair")
    await expect(shown).to_be_visible()
    pair = await shown.inner_text()
    [known] = [facts.words for tag, facts in LANGUAGES.items() if tag == words.language[:2]]
    assert set(pair.split()) < set(known)
    return pair


async def reload_shows(page: Page, title: str, pair: str) -> None:
    await page.reload()
    await says(page, title)
    await expect(page.locator(".pair")).to_have_text(pair)
    await expect(page.locator("#code")).to_be_hidden()


async def test_a_caller_who_is_cut_off_may_call_again(
    windows: Windows, installation: Installation, telephony: Phones
) -> None:
    page = await windows.open()
    await page.goto(await begin(installation))
    code = await code_on(page, installation)
    await page.evaluate("""() => {
        announced = [];
        const note = () => announced.push(document.querySelector(".pair")?.textContent);
        new MutationObserver(note).observe(document.getElementById("words"), { childList: true });
    }""")
    caller = await telephony.call(code)
    await says(page, "U bent de volgende")
    async with installation.dashboard("agent1") as dashboard:
        await dashboard.until("paused")
    pair = await page.locator(".pair").inner_text()
    caller.go_on()
    await caller.ended()
    await says(page, "Bel ons nu")
    assert await code_on(page, installation) == code
    assert await page.evaluate("announced") == [pair, None], "the words were announced once"
    await telephony.call(code)
    await says(page, "U bent de volgende")


# With less


async def test_without_javascript(windows: Windows, installation: Installation, telephony: Phones) -> None:
    page = await windows.open(javascript=False)
    await page.goto(await begin(installation))
    first = await code_on(page, installation)
    await page.get_by_role("button", name=NEW_CODE).click()
    second = await code_on(page, installation)
    assert second != first
    caller = await telephony.call(second)
    await installation.until_log("accepted=True")
    await page.get_by_role("link", name="Ververs deze pagina").click()
    await says(page, "U bent de volgende")
    await expect(page.locator("#code")).to_be_hidden()
    caller.go_on()
    await caller.ended()
    await page.get_by_role("link", name="Ververs deze pagina").click()
    assert await code_on(page, installation) == second
    await page.get_by_role("link", name="English").click()
    await says(page, "Call us now")
    await page.get_by_role("button", name="Stop and delete my data").click()
    await says(page, "You have stopped")


async def test_the_keyboard_is_enough(windows: Windows, installation: Installation) -> None:
    page = await windows.open()
    await page.goto(await begin(installation))
    first = await code_on(page, installation)
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Naar de inhoud")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.locator(".number")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name=NEW_CODE)).to_be_focused()
    outline: str = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "where the focus is must be seen"
    await page.keyboard.press("Enter")
    await expect(page.locator("#announcement")).not_to_be_empty()
    assert await code_on(page, installation) != first
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await says(page, "U bent gestopt")
    await check_look(page, *BOTH_ENDS)


@pytest.mark.parametrize("phone", [True, False], ids=["phone", "computer"])
async def test_on_paper(windows: Windows, installation: Installation, phone: bool) -> None:  # noqa: FBT001
    page = await windows.open(phone=phone)
    await page.goto(await begin(installation))
    await code_on(page, installation)
    await page.emulate_media(media="print", color_scheme="dark")
    for part in (page.locator("#code"), page.locator(".number"), page.locator(".qr"), page.locator("#validity")):
        await expect(part).to_be_visible()
    await expect(page.get_by_role("button")).to_have_count(0)
    await expect(page.get_by_role("link")).to_have_count(1)
    await expect(page.locator("body")).to_have_css("background-color", "rgb(255, 255, 255)")
    sheets = await page.pdf(format="A4")
    assert len(re.findall(rb"/Type /Page\b", sheets)) == 1


# When the service is away


async def test_a_lost_connection_is_told_and_comes_back(windows: Windows, installation: Installation) -> None:
    windows.expect(NETWORK_ERRORS)
    page = await windows.open()
    await page.goto(await begin(installation))
    code = await code_on(page, installation)
    notice = page.get_by_role("status").get_by_text(LOST)
    await expect(notice).to_be_hidden()
    await installation.kill()
    await expect(notice).to_be_visible()
    await check_look(page, *BOTH_ENDS)
    await installation.start()
    await expect(notice).to_be_hidden()
    assert await code_on(page, installation) == code
    assert await installation.stop() == 0, "an open page does not keep the service"
    await expect(notice).to_be_visible()


async def test_a_service_that_is_silent_is_taken_for_lost(windows: Windows, installation: Installation) -> None:
    page = await windows.open()
    await page.clock.install()
    await page.goto(await begin(installation))
    await code_on(page, installation)
    notice = page.get_by_role("status").get_by_text(LOST)
    assert installation.process
    installation.process.send_signal(signal.SIGSTOP)
    try:
        await page.clock.fast_forward(35_000)
        await expect(notice).to_be_hidden()
        await page.clock.fast_forward(10_000)
        await expect(notice).to_be_visible()
    finally:
        installation.process.send_signal(signal.SIGCONT)
    await page.clock.fast_forward(10_000)
    await expect(notice).to_be_hidden()


async def test_one_tab_too_many_rests_until_somebody_looks_at_it(windows: Windows, installation: Installation) -> None:
    page = await windows.open()
    async with page.expect_response("**/live"):
        await page.goto(await begin(installation))
    await code_on(page, installation)
    cookie = next(one for one in await page.context.cookies() if one["name"] == COOKIE)
    headers = {"Cookie": f"{COOKIE}={cookie['value']}"}
    async with aiohttp.ClientSession(headers=headers) as http, AsyncExitStack() as stack:
        tabs, over = [], asyncio.Event()
        for end in ("requestfinished", "requestfailed"):
            # The server ends it, and the page closes it as soon as it hears why.
            page.on(end, lambda request: over.set() if request.url.endswith("/live") else None)
        for _ in range(MOST_PAGES):
            tabs.append(await stack.enter_async_context(http.get(f"{installation.citizen_url}/live")))
            await tabs[-1].content.readline()
        async with asyncio.timeout(20):
            await over.wait()
        await expect(page.get_by_role("status").get_by_text(LOST)).to_be_hidden()
        async with page.expect_response("**/live"):
            await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        assert b"elsewhere" in await tabs[0].content.read()
        await expect(page.get_by_role("status").get_by_text(LOST)).to_be_hidden()


# Messages


async def test_messages_are_clear_to_everyone(
    windows: Windows, install: Callable[..., Awaitable[Installation]]
) -> None:
    windows.expect("status of 4(00|10)")
    installation = await install(citizen__begin_url='"https://gemeente.example/bellen"')
    used = await begin(installation)
    page = await windows.open()
    await page.goto(used)
    await expect(page.locator("#code")).to_be_visible()
    for address, title in (
        (used, "Dit adres is al gebruikt"),
        (installation.citizen_url, "Er is hier geen code voor u"),
        (await begin(installation, status="failed"), "U bent niet ingelogd"),
        (f"{await begin(installation)}?result=nonsense", "Het inloggen is niet gelukt"),
    ):
        somebody = await windows.open()
        await somebody.goto(address)
        await says(somebody, title)
        again = somebody.get_by_role("link", name=re.compile("(Begin|Log) opnieuw"))
        await expect(again).to_have_attribute("href", "https://gemeente.example/bellen")
        await check_look(somebody, *BOTH_ENDS)


async def test_outside_the_hours(windows: Windows, install: Callable[..., Awaitable[Installation]]) -> None:
    closed = "[queues.default]\n" + "\n".join(f'{day} = "closed"' for day in ("monday", "sunday"))
    installation = await install(more=closed)
    page = await windows.open()
    await page.goto(await begin(installation))
    await says(page, "Wij zijn nu gesloten")
    await expect(page.get_by_role("row", name="Maandag gesloten")).to_be_visible()
    await check_look(page, *BOTH_ENDS, Look(WIDTHS[1], dark=False))
