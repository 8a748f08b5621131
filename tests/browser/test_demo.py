"""``make run`` as a newcomer meets it: everything starts, a call lands on the screen, Ctrl-C ends everything."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from typing import TYPE_CHECKING

from playwright.async_api import expect

from idbellen.demo.ports import Ports
from tests.support.browser import BOTH_ENDS, Windows, check_look, chromium, html
from tests.support.demo import (
    DIAL_AT_ONCE,
    Demo,
    be_an_agent,
    become_available,
    choose_purpose,
    choose_ways,
    code_on,
    get_code,
    log_in,
    running_demo,
    work_as,
    wrap_up,
)

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Page

SANNE = {"Naam": "Sanne Voorbeeld", "BSN": "999990007", "Geboortedatum": "14-02-1986"}
ADDRESS = "Dorpsstraat 12, 1234 AB Voorbeeld"
JORIS = "Joris van Probeersel"
STREET = "Melding over uw straat"
# A call waits for welcome, ten keys and a ringing phone.
CALL_MS = 40_000
FEEDBACK_SECONDS = 10.0


async def test_from_make_run_to_ctrl_c(tmp_path: Path) -> None:
    async with chromium() as browser, running_demo(tmp_path / "demo") as demo:
        windows = Windows(browser)
        citizen, agent = await windows.open(), await windows.open()
        await check_the_walk(citizen, demo)
        code = await get_code(citizen, demo, purpose="Vraag over uw uitkering", citizen=SANNE["Naam"])
        await expect(citizen.locator(".number")).to_have_text("+31 20 123 4567")
        await expect(citizen.get_by_role("img", name="QR-code")).to_be_visible()
        assert len(code) == 10
        await be_an_agent(agent, demo)

        await citizen.get_by_role("button", name="Bel met de demotelefoon").click()
        await expect(citizen.locator("#code")).to_be_visible()
        await offered(agent, "Vraag over uw uitkering")
        await talking(agent, {"Onderwerp": "Vraag over uw uitkering"} | SANNE)
        assert ADDRESS not in await html(agent), "this purpose does not allow it"
        await citizen.get_by_role("button", name="Hang op").click()
        await wrap_up(agent)
        assert SANNE["Naam"] not in await html(agent)
        await is_over(citizen)
        await citizen.reload()
        await is_over(citizen)

        code = await get_code(citizen, demo, purpose="Parkeervergunning aanvragen", citizen=JORIS)
        assert await demo.command("--call", code) == (0, "The demo phone is calling.\n")
        await offered(agent, "Parkeervergunning aanvragen")
        await talking(agent, {"Onderwerp": "Parkeervergunning aanvragen", "Naam": JORIS})
        assert await demo.command("--hangup") == (0, "The demo phone has hung up.\n")
        await wrap_up(agent)
        assert JORIS not in await html(agent)

        # In the middle of a call, with a dashboard open.
        assert (await demo.command("--call", "0000"))[0] == 0
        assert windows.faults == []
        windows.expect("WebSocket connection to .* failed")
        running = demo.processes()
        assert any("asterisk" in line for line in running.values())
        assert any("idbellen serve" in line for line in running.values())
        assert await demo.press_ctrl_c() == 0, demo.output
        assert demo.output.endswith("Everything that the demo started has stopped.\n")
        assert demo.processes() == {}
        ports_are_free(demo)
        await expect(agent.get_by_text("Geen verbinding")).to_be_visible()
        await windows.close()
        assert windows.faults == []


async def test_everything_that_can_be_shown(tmp_path: Path) -> None:
    async with chromium() as browser, running_demo(tmp_path / "demo") as demo:
        windows = Windows(browser)
        citizen, agent, presenter = await windows.open(), await windows.open(), await windows.open()
        await be_an_agent(agent, demo)
        await dial_at_once(citizen, agent, demo)
        await result_comes_late(citizen, agent, presenter, demo)
        await nobody_logs_in(citizen, agent, demo)
        await the_call_goes_to_a_colleague(citizen, agent, await windows.open(), await windows.open(), demo)
        await the_citizen_refuses(citizen, demo)
        await the_desk_is_closed(citizen, demo)
        await windows.close()
        assert windows.faults == []


async def dial_at_once(citizen: Page, agent: Page, demo: Demo) -> None:
    """The other login method and the other channel: the phone's dialler sends the code."""
    await choose_purpose(citizen, demo, "Verhuizing doorgeven")
    await choose_ways(citizen, channel=DIAL_AT_ONCE, login="VoorbeeldPas")
    await expect(citizen.get_by_role("heading", level=1)).to_have_text("Log in met VoorbeeldPas")
    await check_look(citizen, *BOTH_ENDS)
    await log_in(citizen, JORIS)
    code = await code_on(citizen)
    assert citizen.url.startswith(f"{demo.municipality}call/")
    dial = citizen.get_by_role("link", name="Bel met de code")
    assert await dial.get_attribute("href") == f"tel:+31201234567,{code}"
    await check_look(citizen, *BOTH_ENDS)
    await citizen.get_by_role("button", name="Bel met de demotelefoon").click()
    await offered(agent, "Verhuizing doorgeven")
    await talking(agent, {"Onderwerp": "Verhuizing doorgeven", "Naam": JORIS}, "VoorbeeldPas")
    await expect(citizen.locator("#code")).to_be_visible()
    await citizen.get_by_role("button", name="Hang op").click()
    await wrap_up(agent)


async def result_comes_late(citizen: Page, agent: Page, presenter: Page, demo: Demo) -> None:
    """The agent talks with somebody whose data are still to come; then they come."""
    await choose_purpose(citizen, demo, STREET)
    await citizen.get_by_text("Voor wie de demonstratie geeft").click()
    await check_look(citizen, *BOTH_ENDS)
    await citizen.get_by_label("Hoe komt het resultaat").select_option("late")
    await choose_ways(citizen)
    await log_in(citizen, SANNE["Naam"])
    await code_on(citizen)
    await citizen.get_by_role("button", name="Bel met de demotelefoon").click()
    await offered(agent, STREET)
    await expect(agent.locator("#verdict")).to_contain_text("gegevens volgen nog")
    assert SANNE["Naam"] not in await html(agent)

    await presenter.goto(demo.backstage)
    await expect(presenter.get_by_role("heading", level=2)).to_have_text(SANNE["Naam"])
    await check_look(presenter, *BOTH_ENDS)
    await presenter.get_by_role("button", name="Nu afleveren").click()
    await talking(agent, {"Onderwerp": STREET, "Naam": SANNE["Naam"], "Adres": ADDRESS})
    await citizen.get_by_role("button", name="Hang op").click()
    await wrap_up(agent)
    # The session has been told over when the call ended.
    async with asyncio.timeout(FEEDBACK_SECONDS):
        while "logout" not in await presenter.get_by_role("main").inner_text():
            await presenter.get_by_role("link", name="Ververs").click()
    await expect(presenter.get_by_text("Afgeleverd om")).to_be_visible()
    await check_look(presenter, *BOTH_ENDS)


async def nobody_logs_in(citizen: Page, agent: Page, demo: Demo) -> None:
    """Where it is allowed, one may call without logging in."""
    await choose_purpose(citizen, demo, STREET)
    await choose_ways(citizen, channel=DIAL_AT_ONCE, login="Zonder inloggen")
    await code_on(citizen)
    await citizen.get_by_role("button", name="Bel met de demotelefoon").click()
    await offered(agent, STREET)
    await expect(agent.locator("#verdict")).to_contain_text("Nog niet geverifieerd")
    await citizen.get_by_role("button", name="Hang op").click()
    await wrap_up(agent)


async def the_call_goes_to_a_colleague(
    citizen: Page, agent: Page, colleague: Page, supervisor: Page, demo: Demo
) -> None:
    """The agent consults a colleague, who sees nothing, and transfers the call: then it is the other way round.

    A supervisor watches, and sees who talks about what, but not with whom.
    """
    await work_as(colleague, demo, "collega")
    await work_as(supervisor, demo, "leiding")
    await supervisor.goto(f"{demo.dashboard}wallboard")
    await get_code(citizen, demo, purpose="Verhuizing doorgeven", citizen=SANNE["Naam"])
    await citizen.get_by_role("button", name="Bel met de demotelefoon").click()
    await talking(agent, {"Onderwerp": "Verhuizing doorgeven"} | SANNE)
    await become_available(colleague)
    await agent.get_by_role("button", name="Overleggen").click()
    await agent.get_by_role("dialog").get_by_role("button", name="collega vrij").click()
    await expect(agent.locator("#mode")).to_have_text("U praat met collega. De beller hoort muziek.", timeout=CALL_MS)
    await expect(colleague.locator("#asked")).to_contain_text("demo vraagt u iets over een beller")
    assert SANNE["Naam"] not in await html(colleague)
    for name in ("demo", "collega"):
        await expect(supervisor.get_by_role("row", name=name)).to_contain_text("in gesprek")
    await agent.get_by_role("button", name="Doorverbinden").click()
    await talking(colleague, {"Onderwerp": "Verhuizing doorgeven"} | SANNE)
    await expect(supervisor.get_by_role("row", name="demo")).to_contain_text("afronden")
    await expect(supervisor.get_by_role("row", name="collega")).to_contain_text("Verhuizing doorgeven")
    assert SANNE["Naam"] not in await html(supervisor)
    await check_look(supervisor, *BOTH_ENDS)
    await wrap_up(agent)
    assert SANNE["Naam"] not in await html(agent)
    await colleague.get_by_role("button", name="Hang op").click()
    await wrap_up(colleague)
    await is_over(citizen)


async def is_over(citizen: Page) -> None:
    """Wait until the page has loaded itself anew, and says so."""
    await expect(citizen.get_by_role("heading", level=1)).to_have_text("Uw gesprek is voorbij")


async def the_citizen_refuses(citizen: Page, demo: Demo) -> None:
    await choose_purpose(citizen, demo, "Verhuizing doorgeven")
    await choose_ways(citizen)
    await citizen.get_by_role("button", name="Stoppen").click()
    await expect(citizen.get_by_role("heading", level=1)).to_have_text("U bent niet ingelogd")


async def the_desk_is_closed(citizen: Page, demo: Demo) -> None:
    await choose_purpose(citizen, demo, "Trouwen")
    await choose_ways(citizen, channel=DIAL_AT_ONCE)
    await log_in(citizen, JORIS)
    await expect(citizen.get_by_role("heading", level=1)).to_contain_text("gesloten")


async def check_the_walk(page: Page, demo: Demo) -> None:
    """Look at each page between the municipality and the code."""
    await page.goto(demo.municipality)
    await page.get_by_text("Voor wie de demonstratie geeft").click()
    await check_look(page, *BOTH_ENDS)
    await choose_purpose(page, demo, "Verhuizing doorgeven")
    await check_look(page, *BOTH_ENDS)
    await choose_ways(page)
    await expect(page.get_by_label(SANNE["Naam"])).to_be_visible()
    await check_look(page, *BOTH_ENDS)
    await page.get_by_label(SANNE["Naam"]).check()
    await page.get_by_role("button", name="Inloggen").click()
    await expect(page.get_by_role("button", name="Ja, deel deze gegevens")).to_be_visible()
    await check_look(page, *BOTH_ENDS)
    await page.get_by_role("button", name="Ja, deel deze gegevens").click()
    await code_on(page)
    await check_look(page, *BOTH_ENDS)


async def offered(agent: Page, purpose: str) -> None:
    await expect(agent.locator("#offer")).to_be_visible(timeout=CALL_MS)
    await expect(agent.locator("#offer-purpose")).to_have_text(purpose)


async def talking(agent: Page, shown: dict[str, str], method: str = "DemoID") -> None:
    await expect(agent.locator("#verdict")).to_have_text(f"Geverifieerd met {method}")
    rows = agent.locator("#attributes")
    if "BSN" in shown:
        await agent.get_by_role("button", name="Tonen: BSN").click()
    for label, value in shown.items():
        await expect(rows.locator(f"div:has(dt:text-is('{label}')) dd > span")).to_have_text(value)


def ports_are_free(demo: Demo) -> None:
    wanted = [(port, socket.SOCK_STREAM) for port in Ports(demo.web, demo.sip).named.values()]
    wanted += [(demo.sip + offset, socket.SOCK_DGRAM) for offset in (0, 10, 14, 20, 24)]
    for port, kind in wanted:
        with closing(socket.socket(socket.AF_INET, kind)) as attempt:
            # Connections that have ended are remembered for a minute; listeners are what counts.
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind is socket.SOCK_STREAM))
            attempt.bind(("127.0.0.1", port))


async def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as taken:
        taken.bind(("127.0.0.1", demo.web + 2))
        taken.listen()
        code, output = await demo.command()
    assert code == 1
    assert output.count("\n") == 1
    assert output.startswith(f"idbellen: port {demo.web + 2} (dashboard) cannot be used: Address already in use.")
    assert "IDBELLEN_DEMO_PORT" in output
    assert demo.processes() == {}


async def test_without_a_demo_the_phone_says_what_to_do(tmp_path: Path) -> None:
    code, output = await Demo(tmp_path / "demo").command("--call", "1234567890")
    assert code == 1
    assert "make run" in output
