"""The agents' dashboard in every state, in a real browser, with a desk that shows what the test wants."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import expect

from idbellen.domain.agents import Agent, AgentState, PhoneState
from idbellen.domain.board import AgentView, CallView, Colleague, Day, OfferView
from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.domain.ids import AgentName, CallId, QueueName, SessionRef
from idbellen.domain.talk import ALLOWED, Command, Mode, Target, Verb
from idbellen.ports import Role, Session
from tests.support.browser import ALL_LOOKS, BOTH_ENDS, Windows, check_look, html, open_windows
from tests.support.desk_stage import PERSONAL, SECRET, VERIFIED, FakeDesk, dashboard
from tests.support.installation import PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page, Route, WebSocketRoute

    from idbellen.domain.languages import Language

CALL = CallId("call")
RESIDENTS, TAXES = QueueName("residents"), QueueName("taxes")
REFERENCE = SessionRef("reference")

WORDS = "wiel \N{EN DASH} lantaarn"
TOLD = "Een beller voor u. Onderwerp: Verhuizing doorgeven"
# The page waits five for a word, and this machine may be busy.
SILENCE_SECONDS = 6.0
BOB, CAROL = AgentName("bob"), AgentName("carol")
COLLEAGUES = (Colleague(BOB, AgentState.AVAILABLE, free=True), Colleague(CAROL, AgentState.IN_CALL, free=False))


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
async def url(desk: FakeDesk) -> AsyncIterator[str]:
    async with dashboard(desk) as address:
        yield address


@pytest.fixture
async def windows(
    chrome: Browser,
    url: str,  # noqa: ARG001 - windows close before what they show ends
) -> AsyncIterator[Windows]:
    async with open_windows(chrome) as made:
        yield made


@pytest.fixture
async def page(windows: Windows, url: str) -> Page:
    return await log_in(await windows.open(), url)


async def log_in(page: Page, url: str) -> Page:
    await page.goto(url)
    await page.locator("#name").fill("ann")
    await page.locator("#password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.locator("#available")).to_be_enabled()
    return page


def view(state: AgentState, *, offer: OfferView | None = None, call: CallView | None = None, **agent: Any) -> AgentView:
    return AgentView(
        Agent(AgentName("ann"), "PJSIP/ann", state=state, since=time.time() - 75, **agent),
        {RESIDENTS: 3, TAXES: 1},
        offer=offer,
        call=call,
        colleagues=COLLEAGUES,
        queues=(RESIDENTS, TAXES, QueueName("street")),
        numbers=True,
        today=Day(12, 2400.0, 1),
    )


def an_offer(**changes: Any) -> OfferView:
    now = time.time()
    return replace(OfferView(CALL, "report_move", RESIDENTS, now - 42, now + 14), **changes)


def a_call(**changes: Any) -> CallView:
    call = CallView(
        CALL, REFERENCE, "report_move", RESIDENTS, time.time() - 93, SECRET, ("wiel", "lantaarn")
    )  # fmt: skip
    return replace(call, **changes)


def in_call(**changes: Any) -> AgentView:
    return view(AgentState.IN_CALL, call=a_call(**changes))


async def with_data(page: Page) -> None:
    await expect(page.locator("#attributes")).to_contain_text(PERSONAL["fullname"])


async def pass_time(page: Page, milliseconds: int) -> None:
    """Set the page's clock forward, and wait until what was due by then has happened: what is hidden stays so."""
    await asyncio.gather(
        page.evaluate("milliseconds => new Promise((done) => setTimeout(done, milliseconds))", milliseconds),
        page.clock.fast_forward(milliseconds),
    )


def button(page: Page, verb: str) -> Any:
    return page.locator(f'[data-verb="{verb}"]')


# State


async def test_idle_shows_state_queues_and_own_figures(page: Page, desk: FakeDesk) -> None:
    desk.show(view(AgentState.AVAILABLE, phone=PhoneState.IDLE))
    await expect(page.locator("#state")).to_have_text("beschikbaar")
    await expect(page.locator("#state-age")).to_have_text(re.compile(r"1:1\d"))
    await expect(page.locator("#queues li")).to_have_text(["Burgerzaken 3", "Belastingen 1"])
    await expect(page.locator(".figures dd")).to_have_text(["12", "3:20", "1"])
    await expect(page.locator("#phone")).to_be_hidden()
    await expect(page.get_by_role("link", name="Overzicht")).to_have_count(0)
    await check_look(page, *ALL_LOOKS)


async def test_a_pause_with_its_reason(page: Page, desk: FakeDesk) -> None:
    await page.get_by_role("button", name="Lunch").click()
    await page.get_by_role("button", name="Pauze").click()
    await page.get_by_role("button", name="Beschikbaar").click()
    desk.show(view(AgentState.PAUSED, reason="lunch"))
    await expect(page.locator("#reason")).to_have_text("Lunch")
    await expect(page.get_by_role("button", name="Lunch")).to_have_attribute("aria-pressed", "true")
    await expect(page.get_by_role("button", name="Pauze")).to_have_attribute("aria-pressed", "false")
    assert desk.asked == [("pause", "ann", "lunch"), ("pause", "ann", ""), ("available", "ann")]


async def test_not_answering_says_why_and_how_to_come_back(page: Page, desk: FakeDesk) -> None:
    desk.show(view(AgentState.NOT_ANSWERING, missed=3))
    await expect(page.locator("#state")).to_have_text("u neemt niet op")
    await expect(page.get_by_text("U hebt 3 gesprekken achter elkaar gemist.")).to_be_visible()
    await check_look(page, *BOTH_ENDS)


@pytest.mark.parametrize(
    ("phone", "told"),
    [(PhoneState.UNREGISTERED, "niet aangesloten"), (PhoneState.BUSY, "in gebruik voor een ander gesprek")],
)
async def test_a_phone_that_cannot_be_rung_is_told(page: Page, desk: FakeDesk, phone: PhoneState, told: str) -> None:
    desk.show(view(AgentState.AVAILABLE, phone=phone))
    await expect(page.locator("#phone")).to_contain_text(told)
    await check_look(page, *BOTH_ENDS)


@pytest.mark.parametrize("state", [AgentState.AVAILABLE, AgentState.IN_CALL])
async def test_a_telephone_exchange_that_is_away_is_told(page: Page, desk: FakeDesk, state: AgentState) -> None:
    here = view(state, call=a_call() if state is AgentState.IN_CALL else None)
    desk.show(replace(here, telephony=False))
    await expect(page.get_by_role("alert").filter(has_text="De telefooncentrale is niet bereikbaar.")).to_be_visible()
    await check_look(page, *BOTH_ENDS)
    desk.show(here)
    await expect(page.locator("#telephony")).to_be_hidden()


async def test_a_call_that_is_not_taken_up_yet_is_no_lack_of_calls(windows: Windows, url: str, desk: FakeDesk) -> None:
    page = await windows.open()
    await page.clock.install()
    await log_in(page, url)
    # So it is from the start of a process until it has found the call of the one before in Asterisk.
    desk.show(view(AgentState.IN_CALL, phone=PhoneState.BUSY))
    await expect(page.locator("#nothing-text")).to_have_text("U bent in gesprek. De gegevens verschijnen hier vanzelf.")
    await pass_time(page, 3000)
    await expect(page.locator("#phone")).to_be_hidden()
    await check_look(page, *BOTH_ENDS)
    desk.show(in_call(results=1))
    await with_data(page)
    await expect(page.locator("#nothing-text")).to_be_hidden()


async def test_wrap_up_counts_down_and_can_be_ended_or_extended(page: Page, desk: FakeDesk) -> None:
    desk.show(view(AgentState.WRAP_UP, wrap_up_until=time.time() + 27))
    await expect(page.locator("#wrap-up-left")).to_have_text(re.compile(r"0:2\d"))
    await check_look(page, *BOTH_ENDS)
    await page.get_by_role("button", name="Meer tijd").click()
    await page.keyboard.press("k")
    await expect(page.locator("#wrap-up")).to_be_visible()
    desk.show(view(AgentState.AVAILABLE))
    await expect(page.locator("#wrap-up")).to_be_hidden()
    assert desk.asked == [("extend wrap-up", "ann"), ("end wrap-up", "ann")]


async def test_only_supervisors_get_the_way_to_the_wallboard(windows: Windows, url: str, desk: FakeDesk) -> None:
    desk.account_kept = replace(desk.account_kept, role=Role.SUPERVISOR)
    page = await log_in(await windows.open(), url)
    await expect(page.get_by_role("link", name="Overzicht")).to_have_attribute("href", "/wallboard")


# The offer


async def test_an_offer_shows_why_and_how_long_and_nothing_personal(page: Page, desk: FakeDesk) -> None:
    desk.show(view(AgentState.RINGING, offer=an_offer()))
    offer = page.locator("#offer")
    await expect(offer).to_contain_text("Verhuizing doorgeven")
    await expect(offer).to_contain_text("Burgerzaken")
    await expect(page.locator("#offer-remaining")).to_have_text(re.compile(r"^1\d$"))
    await expect(page.locator("#offer-waited")).to_have_text(re.compile(r"0:4\d"))
    await expect(page.locator("[aria-live=assertive]")).to_have_text(
        "Een beller voor u. Onderwerp: Verhuizing doorgeven"
    )
    assert [value for value in PERSONAL.values() if value in await html(page)] == []
    await check_look(page, *BOTH_ENDS)
    desk.show(view(AgentState.AVAILABLE))
    await expect(offer).to_be_hidden()


async def test_a_colleague_who_asks_is_named(page: Page, desk: FakeDesk) -> None:
    desk.show(view(AgentState.RINGING, offer=an_offer(asker="bob")))
    await expect(page.locator("#offer")).to_contain_text("bob wil u iets vragen over een gesprek")
    await expect(page.get_by_role("heading", name="Een beller voor u")).to_be_hidden()


async def test_a_sound_and_a_notification_without_personal_data(windows: Windows, url: str, desk: FakeDesk) -> None:
    page = await windows.open()
    # What the browser would play and tell, noted: headless it can do neither.
    await page.add_init_script("""
        window.told = [];
        window.AudioContext = class extends AudioContext { constructor() { super(); told.push("sound"); } };
        window.Notification = class extends EventTarget {
          static permission = "granted";
          constructor(title, options) { super(); told.push(`${title}: ${options.body}`); }
          close() {}
        };
        Object.defineProperty(Document.prototype, "hidden", { get: () => true });
    """)
    await log_in(page, url)
    await page.locator("#state").click()
    desk.show(view(AgentState.RINGING, offer=an_offer()))
    await expect(page.locator("#offer")).to_be_visible()
    assert await page.evaluate("told") == ["sound", "Een beller voor u: Verhuizing doorgeven"]
    desk.show(view(AgentState.AVAILABLE))
    await expect(page.locator("#offer")).to_be_hidden()
    await page.get_by_role("button", name="Toetsen en geluid").click()
    await page.get_by_label("Een geluid als er een beller voor mij is").uncheck()
    await page.get_by_role("button", name="Sluiten").click()
    desk.show(view(AgentState.RINGING, offer=an_offer(call="another")))
    await expect(page.locator("#offer")).to_be_visible()
    assert (await page.evaluate("told")).count("sound") == 1, "the sound is off"
    await page.reload()
    await page.get_by_role("button", name="Toetsen en geluid").click()
    await expect(page.get_by_label("Een geluid als er een beller voor mij is")).not_to_be_checked()


# Who it is


async def test_the_verified_caller_with_method_words_and_labels_in_order(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call())
    await with_data(page)
    await expect(page.locator("#verdict")).to_have_text("Geverifieerd met DemoID")
    await expect(page.locator("#attributes dt")).to_have_text(["Onderwerp", "Naam", "BSN", "Adres"])
    await expect(page.locator("#words")).to_have_text(WORDS)
    await expect(page.locator("#call-age")).to_have_text(re.compile(r"1:3\d"))
    await expect(page.locator("[aria-live=assertive]")).to_have_text("Verbonden.")
    assert PERSONAL["bsn"] not in await html(page)
    assert ("shown", "ann", "call") in desk.asked
    assert desk.audited == [("ann", "attributes shown", "reference", {"attributes": "fullname,address"})]
    await check_look(page, *ALL_LOOKS)


async def test_a_bsn_is_shown_when_asked_for_and_that_is_on_record(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call())
    await with_data(page)
    await page.get_by_role("button", name="Tonen: BSN").click()
    await expect(page.locator("#attributes")).to_contain_text(PERSONAL["bsn"])
    assert desk.audited[-1] == ("ann", "attribute revealed", "reference", {"attributes": "bsn"})
    await check_look(page, *BOTH_ENDS)
    await page.keyboard.press("s")
    await expect(page.get_by_role("button", name="Tonen: BSN")).to_be_visible()
    assert PERSONAL["bsn"] not in await page.locator("#attributes").inner_text()


async def test_a_bsn_hides_again_by_itself(windows: Windows, url: str, desk: FakeDesk) -> None:
    page = await windows.open()
    await page.clock.install()
    await log_in(page, url)
    desk.show(in_call())
    await with_data(page)
    await page.get_by_role("button", name="Tonen: BSN").click()
    await expect(page.locator("#attributes")).to_contain_text(PERSONAL["bsn"])
    await page.clock.fast_forward(31_000)
    await expect(page.get_by_role("button", name="Tonen: BSN")).to_be_visible()


async def test_what_cannot_be_recorded_is_not_shown(page: Page, desk: FakeDesk, windows: Windows) -> None:
    windows.expect("status of 503")
    desk.show(in_call())
    await with_data(page)
    desk.audit_works = False
    await page.get_by_role("button", name="Tonen: BSN").click()
    await expect(page.locator("#polite")).to_have_text("Dit kan nu niet worden getoond.")
    assert PERSONAL["bsn"] not in await html(page)


async def test_an_attribute_can_be_copied(page: Page, desk: FakeDesk) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    desk.show(in_call())
    await with_data(page)
    await page.get_by_role("button", name="Kopiëren: Naam").click()
    await expect(page.locator("#polite")).to_have_text("Gekopieerd.")
    assert await page.evaluate("navigator.clipboard.readText()") == PERSONAL["fullname"]


async def test_data_that_come_late_appear_by_themselves(page: Page, desk: FakeDesk) -> None:
    desk.session = Session(REFERENCE, "report_move")
    desk.show(in_call())
    await expect(page.locator("#verdict")).to_have_text("Nog niet geverifieerd: gegevens volgen nog")
    await check_look(page, *BOTH_ENDS)
    desk.session = VERIFIED
    desk.show(in_call(results=1))
    await with_data(page)
    await expect(page.locator("[aria-live=assertive]")).to_have_text("De gegevens zijn binnen.")


async def test_who_is_not_verified_is_told_as_clearly(page: Page, desk: FakeDesk) -> None:
    desk.session = Session(REFERENCE, "report_move", AuthResult(AuthStatus.FAILED, {}))
    desk.show(in_call())
    await expect(page.locator("#verdict")).to_have_text("Niet geverifieerd")
    await check_look(page, *BOTH_ENDS)


async def test_a_verified_caller_whose_data_did_not_come_is_no_green_one(page: Page, desk: FakeDesk) -> None:
    desk.session = replace(VERIFIED, result=AuthResult(AuthStatus.SUCCESS, {}, issuer="demoid"))
    desk.show(in_call())
    await expect(page.locator("#verdict")).to_have_text("Geverifieerd, maar zonder gegevens")
    lacking = page.locator("#lacking")
    await expect(lacking).to_have_text(
        "Deze beller is ingelogd, maar de gegevens zijn niet meegekomen. Vraag wie het is en controleer dat zelf. "
        "Meld dit aan uw beheerder."
    )
    colour = "verdict => getComputedStyle(verdict).backgroundColor"
    without = await page.locator("#verdict").evaluate(colour)
    await check_look(page, *ALL_LOOKS)
    desk.session = VERIFIED
    desk.show(in_call(call="another"))
    await with_data(page)
    await expect(lacking).to_be_hidden()
    await expect(page.locator("#verdict")).to_have_text("Geverifieerd met DemoID")
    assert await page.locator("#verdict").evaluate(colour) != without


async def test_data_that_came_in_part_are_told_by_name(page: Page, desk: FakeDesk) -> None:
    desk.session = replace(VERIFIED, result=AuthResult(AuthStatus.SUCCESS, {"fullname": PERSONAL["fullname"]}))
    desk.show(in_call())
    await expect(page.locator("#verdict")).to_have_text("Geverifieerd")
    await expect(page.locator("#attributes dt")).to_have_text(["Onderwerp", "Naam"])
    await expect(page.locator("#lacking")).to_have_text(
        "Deze gegevens zijn niet meegekomen: BSN, Adres. Vraag ernaar en controleer ze zelf."
    )
    await check_look(page, *BOTH_ENDS)
    desk.show(view(AgentState.AVAILABLE))
    await expect(page.locator("#lacking")).to_be_hidden()


async def test_a_caller_of_the_pbx_who_is_not_verified_is_told_as_such(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call(secret=None, words=None, session="", purpose="", ours=False))
    await expect(page.locator("#asked")).to_have_text(
        "Deze beller is niet geverifieerd. Er zijn geen gegevens om te tonen."
    )
    await expect(page.locator("#verified")).to_be_hidden()
    await check_look(page, *BOTH_ENDS)


async def test_who_is_consulted_sees_nothing_until_given(page: Page, desk: FakeDesk) -> None:
    asked = {"part": "consulted", "mode": Mode.CONSULTED, "other": Target("agent", "bob")}
    desk.show(in_call(secret=None, words=None, **asked))
    await expect(page.locator("#asked")).to_contain_text("bob vraagt u iets over een beller (Verhuizing doorgeven)")
    await expect(page.locator("#verified")).to_be_hidden()
    assert [value for value in PERSONAL.values() if value in await html(page)] == []
    await check_look(page, *BOTH_ENDS)
    desk.show(in_call(shared=True, **asked))
    await with_data(page)
    desk.show(in_call(secret=None, words=None, **asked))
    await expect(page.locator("#verified")).to_be_hidden()
    assert [value for value in PERSONAL.values() if value in await html(page)] == []


# What can be done


@pytest.mark.parametrize("mode", [Mode.TALKING, Mode.HELD, Mode.CONSULTING, Mode.CONSULTED, Mode.CONFERENCE])
async def test_the_buttons_are_those_of_the_table(page: Page, desk: FakeDesk, mode: Mode) -> None:
    other = Target("agent", "bob") if mode not in (Mode.TALKING, Mode.HELD) else None
    desk.show(in_call(mode=mode, other=other))
    await with_data(page)
    expected = {verb.value for verb in ALLOWED[mode] - {Verb.UNMUTE}}
    shown = set()
    for one in await page.locator("[data-verb]").all():
        if await one.is_visible():
            shown.add(await one.get_attribute("data-verb"))
            assert (await one.inner_text()).strip()
    assert shown == expected
    assert await page.locator("#mode").is_visible() == (mode is not Mode.TALKING)
    await check_look(page, *BOTH_ENDS)


async def test_what_the_phone_holds_only_the_phone_takes_back_and_the_page_says_so(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call(mode=Mode.HELD))
    await with_data(page)
    await page.locator("[data-verb=resume]").focus()
    desk.show(in_call(mode=Mode.HELD, phone_holds=True))
    await expect(page.locator("#mode")).to_contain_text("de beller hoort muziek. Haal de beller terug met uw telefoon")
    await expect(page.locator("[data-verb=resume]")).to_be_hidden()
    await expect(page.locator("#call-title")).to_be_focused()
    await page.keyboard.press("w")
    await check_look(page, *BOTH_ENDS)
    other = Target("agent", "bob")
    desk.show(in_call(mode=Mode.CONSULTED, other=other, phone_holds=True))
    await expect(page.locator("#mode")).to_contain_text("niemand hoort u")
    desk.show(in_call(mode=Mode.CONSULTED, other=other))
    await expect(page.locator("#mode")).not_to_contain_text("Uw telefoon")
    assert [asked for asked in desk.asked if isinstance(asked[-1], Command)] == []


@pytest.mark.parametrize(
    ("key", "mode", "muted", "verb"),
    [
        ("m", Mode.TALKING, False, Verb.MUTE),
        ("m", Mode.TALKING, True, Verb.UNMUTE),
        ("w", Mode.TALKING, False, Verb.HOLD),
        ("w", Mode.HELD, False, Verb.RESUME),
        ("d", Mode.CONSULTED, False, Verb.TRANSFER),
        ("c", Mode.CONSULTED, False, Verb.CONFERENCE),
        ("g", Mode.CONSULTED, False, Verb.SHARE),
        ("x", Mode.TALKING, False, Verb.HANG_UP),
    ],
)
async def test_each_key_asks_for_its_command(  # noqa: PLR0913, PLR0917 - a table
    page: Page,
    desk: FakeDesk,
    key: str,
    mode: Mode,
    muted: bool,  # noqa: FBT001
    verb: Verb,
) -> None:
    other = Target("agent", "bob") if mode is Mode.CONSULTED else None
    desk.show(in_call(mode=mode, muted=muted, other=other))
    await with_data(page)
    await page.keyboard.press(key)
    desk.show(view(AgentState.AVAILABLE))
    await expect(page.locator("#call")).to_be_hidden()
    assert ("ann", "call", Command(verb)) in desk.asked


async def test_single_letters_can_be_switched_off_and_never_act_while_typing(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call())
    await with_data(page)
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await check_look(page, *BOTH_ENDS)
    await page.keyboard.press("x")
    await page.get_by_label("Losse letters als sneltoets").uncheck()
    await page.keyboard.press("Escape")
    await page.keyboard.press("x")
    desk.show(view(AgentState.AVAILABLE))
    await expect(page.locator("#call")).to_be_hidden()
    assert [asked for asked in desk.asked if asked[1] == "call"] == []


@pytest.mark.parametrize(
    ("verb", "choose", "target"),
    [
        (Verb.CONSULT, "bob vrij", Target("agent", "bob")),
        (Verb.BLIND, "Belastingen 1 wachtend", Target("queue", "taxes")),
    ],
)
async def test_a_colleague_or_a_queue_is_chosen(
    page: Page, desk: FakeDesk, verb: Verb, choose: str, target: Target
) -> None:
    desk.show(in_call())
    await with_data(page)
    await button(page, verb.value).click()
    await expect(page.get_by_role("dialog").get_by_role("button", name="carol niet vrij")).to_be_disabled()
    await check_look(page, *BOTH_ENDS)
    await page.get_by_role("dialog").get_by_role("button", name=choose).click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    desk.show(view(AgentState.AVAILABLE))
    await expect(page.locator("#call")).to_be_hidden()
    assert ("ann", "call", Command(verb, target)) in desk.asked


async def test_a_number_is_checked_before_it_is_called(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call())
    await with_data(page)
    await page.keyboard.press("o")
    number = page.get_by_label("Telefoonnummer, alleen cijfers")
    await number.fill("no number")
    await number.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await number.fill("(020) 123 45-67")
    await number.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    desk.show(view(AgentState.AVAILABLE))
    await expect(page.locator("#call")).to_be_hidden()
    assert ("ann", "call", Command(Verb.CONSULT, Target("number", "0201234567"))) in desk.asked


async def test_a_refused_command_and_an_attempt_in_vain_are_told(page: Page, desk: FakeDesk) -> None:
    desk.refuses = "later"
    desk.show(in_call())
    await with_data(page)
    await button(page, "hold").click()
    await expect(page.locator("#polite")).to_have_text("Dat kan nu niet.")
    for notice, told in (("no answer", "Er werd niet opgenomen."), ("not free", "Uw collega is niet vrij.")):
        desk.show(in_call(mode=Mode.HELD, notice=notice))
        await expect(page.locator("#notice")).to_have_text(told)


async def test_a_refusal_is_seen_too_and_goes_by_itself(windows: Windows, url: str, desk: FakeDesk) -> None:
    page = await windows.open()
    await page.clock.install()
    await log_in(page, url)
    desk.refuses = "target"
    desk.show(in_call())
    await with_data(page)
    await button(page, "hold").click()
    told = page.locator("#polite")
    await expect(told).to_have_text("Dat kan niet worden gebeld.")
    await check_look(page, *BOTH_ENDS)
    place = await told.bounding_box()
    assert place
    assert place["width"] > 100, "to be read, not only heard"
    await page.clock.fast_forward(7000)
    await expect(told).to_have_text("")


async def test_an_attempt_in_vain_is_told_whatever_the_reason(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call(mode=Mode.HELD, notice="something new"))
    await expect(page.locator("#notice")).to_have_text("Er is niemand bereikt.")


@pytest.mark.parametrize("mode", [Mode.CONSULTING, Mode.CONSULTED, Mode.CONFERENCE])
async def test_that_hanging_up_gives_the_caller_away_is_told_before(page: Page, desk: FakeDesk, mode: Mode) -> None:
    desk.show(in_call())
    await with_data(page)
    await expect(page.locator("#leaving")).to_be_hidden()
    desk.show(in_call(mode=mode, other=Target("agent", "bob")))
    await expect(page.locator("#leaving")).to_have_text("Als u ophangt, gaat de beller naar bob.")


async def test_who_is_consulted_knows_who_hears_them_and_when_the_caller_is_theirs(page: Page, desk: FakeDesk) -> None:
    asked = {"part": "consulted", "other": Target("agent", "bob"), "shared": True}
    desk.show(in_call(mode=Mode.CONSULTED, **asked))
    await expect(page.locator("#mode")).to_have_text("bob overlegt met u. De beller hoort muziek.")
    desk.show(in_call(mode=Mode.CONFERENCE, **asked))
    await expect(page.locator("#mode")).to_have_text("U praat met de beller en bob.")
    await expect(page.locator("#leaving")).to_be_hidden()
    desk.show(in_call())
    await expect(page.locator("#polite")).to_have_text("U hebt de beller nu.")
    await expect(page.locator("#mode")).to_be_hidden()


async def test_the_chooser_tells_what_colleagues_do(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call())
    await with_data(page)
    await page.keyboard.press("o")
    await expect(page.locator("#chooser-agents button")).to_have_text(["bob vrij", "carol niet vrij: in gesprek"])


async def test_keys_of_digits_copy(page: Page, desk: FakeDesk) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    desk.show(in_call())
    await with_data(page)
    await page.keyboard.press("3")
    await expect(page.locator("#polite")).to_have_text("Gekopieerd.")
    assert await page.evaluate("navigator.clipboard.readText()") == PERSONAL["address"]
    await page.keyboard.press("2")
    await page.keyboard.press("s")
    await expect(page.locator("#attributes")).to_contain_text(PERSONAL["bsn"])
    assert await page.evaluate("navigator.clipboard.readText()") == PERSONAL["address"], "what is masked is not copied"
    await page.keyboard.press("2")
    await until_copied(page, PERSONAL["bsn"])


async def until_copied(page: Page, value: str) -> None:
    await page.wait_for_function("async (value) => await navigator.clipboard.readText() === value", arg=value)


async def test_a_browser_without_a_clipboard_offers_no_copies(windows: Windows, url: str, desk: FakeDesk) -> None:
    page = await windows.open()
    # As over plain HTTP from another machine.
    await page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    await log_in(page, url)
    desk.show(in_call())
    await with_data(page)
    await page.get_by_role("button", name="Tonen: BSN").click()
    await expect(page.locator("#attributes")).to_contain_text(PERSONAL["bsn"])
    await expect(page.get_by_role("button", name="Kopiëren")).to_have_count(0)


async def test_a_hidden_value_is_nowhere_any_more(windows: Windows, url: str, desk: FakeDesk) -> None:
    page = await windows.open()
    await page.clock.install()
    await log_in(page, url)
    desk.show(in_call())
    await with_data(page)
    for hide in ("key", "time"):
        await page.get_by_role("button", name="Tonen: BSN").click()
        await expect(page.locator("#attributes")).to_contain_text(PERSONAL["bsn"])
        if hide == "key":
            await page.keyboard.press("s")
        else:
            await page.clock.fast_forward(31_000)
        await expect(page.get_by_role("button", name="Tonen: BSN")).to_be_visible()
        assert PERSONAL["bsn"] not in await html(page), hide


async def test_each_of_several_masked_attributes_hides_by_itself(windows: Windows, url: str, desk: FakeDesk) -> None:
    async def mask_all(route: Route) -> None:
        answer = await route.fetch()
        body = await answer.json()
        masked = [{"name": one["name"], "label": one["label"], "masked": True} for one in body["attributes"]]
        await route.fulfill(response=answer, json=body | {"attributes": masked})

    page = await windows.open()
    await page.clock.install()
    await page.route("**/attributes", mask_all)
    await log_in(page, url)
    desk.show(in_call())
    for label, value in (("BSN", PERSONAL["bsn"]), ("Adres", PERSONAL["address"])):
        await page.get_by_role("button", name=f"Tonen: {label}").click()
        await expect(page.locator("#attributes")).to_contain_text(value)
    await page.clock.fast_forward(31_000)
    await expect(page.get_by_role("button", name="Tonen")).to_have_count(3)
    assert [value for value in PERSONAL.values() if value in await html(page)] == []


async def test_data_that_cannot_be_fetched_are_fetched_again_when_asked(
    page: Page, desk: FakeDesk, windows: Windows
) -> None:
    windows.expect("status of 404")
    desk.session = None
    desk.show(in_call())
    await expect(page.locator("#verdict")).to_contain_text("behandel deze beller als niet geverifieerd")
    await check_look(page, *BOTH_ENDS)
    desk.session = VERIFIED
    await page.get_by_role("button", name="Haal de gegevens opnieuw op").click()
    await with_data(page)
    await expect(page.locator("#again")).to_be_hidden()


async def test_a_button_that_goes_leaves_the_focus_in_a_sensible_place(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call())
    await with_data(page)
    await button(page, "hold").focus()
    desk.show(in_call(mode=Mode.HELD))
    await expect(button(page, "resume")).to_be_focused()
    await button(page, "consult").focus()
    desk.show(in_call(mode=Mode.CONSULTING, other=Target("agent", "bob")))
    await expect(page.locator("#call-title")).to_be_focused()
    desk.show(view(AgentState.AVAILABLE))
    await expect(page.locator("#state-title")).to_be_focused()


async def test_a_double_click_is_one_command(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call())
    await with_data(page)
    place = await button(page, "hold").bounding_box()
    assert place
    await page.mouse.move(place["x"] + 30, place["y"] + place["height"] / 2)
    await page.mouse.down(click_count=1)
    await page.mouse.up(click_count=1)
    desk.show(in_call(mode=Mode.HELD))
    await expect(button(page, "resume")).to_be_visible()
    resume = await button(page, "resume").bounding_box()
    assert resume
    assert resume["y"] == place["y"], "what is told moves no button"
    await page.mouse.down(click_count=2)
    await page.mouse.up(click_count=2)
    desk.show(view(AgentState.AVAILABLE))
    await expect(page.locator("#call")).to_be_hidden()
    assert [asked for asked in desk.asked if asked[1] == "call"] == [("ann", "call", Command(Verb.HOLD))]


# Around it


async def test_a_phone_that_was_just_put_down_is_not_told_to_be_busy(
    windows: Windows, url: str, desk: FakeDesk
) -> None:
    page = await windows.open()
    await page.clock.install()
    await log_in(page, url)
    desk.show(view(AgentState.AVAILABLE, phone=PhoneState.BUSY))
    await expect(page.locator("#state")).to_have_text("beschikbaar")
    await page.clock.fast_forward(500)
    desk.show(view(AgentState.AVAILABLE, phone=PhoneState.IDLE, missed=1))
    await expect(page.locator("#state-card")).to_have_attribute("data-state", "available")
    await pass_time(page, 3000)
    await expect(page.locator("#phone")).to_be_hidden()


async def test_the_title_of_the_tab_tells_the_state_and_the_offer(page: Page, desk: FakeDesk) -> None:
    desk.show(view(AgentState.AVAILABLE))
    await expect(page).to_have_title("beschikbaar \N{EN DASH} idbellen")
    desk.show(view(AgentState.RINGING, offer=an_offer()))
    await expect(page).to_have_title("Een beller voor u \N{EN DASH} idbellen")


async def test_a_browser_that_cannot_notify_shows_the_offer_all_the_same(
    windows: Windows, url: str, desk: FakeDesk
) -> None:
    page = await windows.open()
    await page.add_init_script("""
        window.Notification = class {
          static permission = "granted";
          constructor() { throw new TypeError("Illegal constructor"); }
        };
        Object.defineProperty(Document.prototype, "hidden", { get: () => true });
    """)
    await log_in(page, url)
    desk.show(view(AgentState.RINGING, offer=an_offer()))
    await expect(page.locator("#offer-remaining")).to_have_text(re.compile(r"^1\d$"))


async def test_permission_for_notifications_is_asked_by_a_button(windows: Windows, url: str) -> None:
    page = await windows.open()
    await page.add_init_script("""
        window.Notification = class {
          static permission = "default";
          static async requestPermission() { Notification.permission = "granted"; }
        };
    """)
    await log_in(page, url)
    await page.keyboard.press("?")
    await page.get_by_role("button", name="Meld het ook als deze pagina niet zichtbaar is").click()
    await expect(page.get_by_role("button", name="Meldingen staan aan")).to_be_disabled()


async def test_without_a_connection_nothing_is_shown_and_all_comes_back(
    windows: Windows, url: str, desk: FakeDesk
) -> None:
    silent = False

    async def through(socket: WebSocketRoute) -> None:
        if silent:
            await socket.close()
            return
        server = socket.connect_to_server()
        server.on_message(lambda message: None if silent else socket.send(message))

    page = await windows.open()
    await page.route_web_socket("**/live", through)
    await log_in(page, url)
    desk.show(in_call())
    await with_data(page)
    await page.get_by_role("button", name="Tonen: BSN").click()
    await expect(page.locator("#attributes")).to_contain_text(PERSONAL["bsn"])
    await page.keyboard.press("o")
    silent = True
    began = time.monotonic()
    await expect(page.locator("#offline")).to_be_visible()
    assert time.monotonic() - began < SILENCE_SECONDS
    assert [value for value in (*PERSONAL.values(), SECRET) if value in await html(page)] == []
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await check_look(page, *BOTH_ENDS)
    silent = False
    await with_data(page)
    await expect(page.locator("#offline")).to_be_hidden()


@pytest.mark.parametrize("language", ["nl", "en"])
async def test_no_text_is_missing_in_either_language(windows: Windows, desk: FakeDesk, language: Language) -> None:
    async with dashboard(desk, language) as url:
        page = await log_in(await windows.open(), url)
        desk.show(in_call(mode=Mode.CONSULTED, other=Target("queue", "taxes")))
        await with_data(page)
        dutch = language == "nl"
        await expect(page.locator("#mode")).to_have_text(
            "U praat met Belastingen. De beller hoort muziek."
            if dutch
            else "You talk with Taxes. The caller hears music."
        )
        whole = await html(page)
        assert ("Log out" in whole, "Uitloggen" in whole) == (not dutch, dutch)
        english = [text for text in ENGLISH if text in whole]
        assert english == ([] if dutch else list(ENGLISH))
        await page.close()


# One from each part of the page.
ENGLISH = ("Keys and sound", "Callers waiting", "Transfer at once", "Nobody answered.", "More time", "Mean length")


async def test_after_the_call_nothing_of_the_citizen_is_left(page: Page, desk: FakeDesk) -> None:
    desk.show(in_call())
    await with_data(page)
    await page.get_by_role("button", name="Tonen: BSN").click()
    await expect(page.locator("#attributes")).to_contain_text(PERSONAL["bsn"])
    desk.show(view(AgentState.WRAP_UP, wrap_up_until=time.time() + 30))
    await expect(page.locator("#call")).to_be_hidden()
    whole = await html(page)
    assert [value for value in (*PERSONAL.values(), "lantaarn", SECRET) if value in whole] == []
    assert await page.evaluate("localStorage.length + sessionStorage.length") == 0
