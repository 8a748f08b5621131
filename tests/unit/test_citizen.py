"""The citizen's site over HTTP, with the real store, desk and hours, and a clock that the test sets."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc.jwk import ECKey
from structlog.testing import capture_logs

from idbellen.calls.desk import Desk, DeskRules
from idbellen.calls.progress import Progress
from idbellen.calls.results import Results
from idbellen.calls.staff import Staff, StaffRules
from idbellen.demo.tokens import VERDER_HELPEN, auth_result
from idbellen.domain.board import Stage
from idbellen.domain.codes import Fingerprints, new_handle
from idbellen.domain.hours import OpeningHours, parse_day
from idbellen.domain.idcontact import TokenOpener
from idbellen.domain.ids import AgentName, CallId, QueueName, Secret, SessionRef
from idbellen.domain.queueing import QueueRules, Queues, Ticket
from idbellen.ports import Account, Attached, Session
from idbellen.stores.sqlite import SqliteStore, open_store
from idbellen.web.citizen import live as citizen_live
from idbellen.web.citizen.page import COOKIE, citizen_app
from idbellen.web.citizen.site import CitizenSite
from idbellen.web.issuing import CodeIssuer
from idbellen.web.purposes import Purpose
from tests.support.fakes import FakeCallLog
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AGENT = AgentName("agent")
CALL = CallId("call")
DEFAULT = QueueName("default")
SECRET = Secret("secret")

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
# A Monday, an hour after opening; the Tuesday is a special day.
OPEN = dt.datetime(2026, 3, 2, 10, 0, tzinfo=AMSTERDAM).timestamp()
HOUR = 3600.0
HOURS = OpeningHours(
    {**dict.fromkeys(range(4), parse_day("09:00-12:30, 13:00-17:00")), 5: parse_day("12:00-24:00")},
    {dt.date(2026, 3, 3): parse_day("closed"), dt.date(2026, 4, 27): parse_day("closed")},
    AMSTERDAM,
)
ALWAYS = OpeningHours.always(AMSTERDAM)
NUMBER = "+31201234567"
CODE_SECONDS = 600.0
WARN_SECONDS = 120.0
WORDS = ("lepel", "koffer")
NAME = "Quirijn Zevenaar"
OWN_KEY, AUTH_KEY = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
PURPOSE = Purpose(
    titles={"nl": "Verhuizing doorgeven", "en": "Report a move"},
    attributes=("fullname",),
    phone_number=NUMBER,
    hours=HOURS,
    admit_unverified=False,
    client_url="page",
)


@dataclass(slots=True)
class Feedback:
    """Notes what auth plugins are told."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def user_active(self, reference: str) -> None:
        self.told.append(("user_active", reference))

    def logout(self, session: Session) -> None:
        self.told.append(("logout", session.reference))


class Town:
    """One citizen's site with all that is behind it."""

    def __init__(self, store: SqliteStore, url: str) -> None:
        self.now = OPEN
        self.store, self.url = store, url
        self.staff = Staff(lambda: self.now, StaffRules(grace=1.0))
        self.desk = Desk(lambda: self.now, self.staff, DeskRules(Queues({DEFAULT: QueueRules()})), FakeCallLog())
        self.progress = Progress(self.desk)
        self.feedback = Feedback()
        kept = {"move": PURPOSE.attributes, "ask": PURPOSE.attributes}
        results = Results(TokenOpener([OWN_KEY], [AUTH_KEY]), store, self.progress, kept, lambda: self.now)
        self.site = CitizenSite(
            url=url,
            name={"nl": "Gemeente Voorbeeld", "en": "Voorbeeld Municipality"},
            begin_url=None,
            theme_file=None,
            language="nl",
            warn_seconds=WARN_SECONDS,
            purposes={"move": PURPOSE, "ask": replace(PURPOSE, admit_unverified=True, hours=ALWAYS)},
            cookie_key=b"c" * 32,
            sessions=store,
            issuer=CodeIssuer(store, 10, CODE_SECONDS, lambda: self.now),
            results=results,
            progress=self.progress,
            feedback=self.feedback,
            clock=lambda: self.now,
        )

    async def begin(self, purpose: str = "move", status: str | None = "success") -> Started:
        """Begin a session, with an auth result of this status, if any."""
        session, handle = Session(SessionRef(new_handle()), purpose), new_handle()
        await self.store.start(session, attr_handle=new_handle(), page_handle=handle, now=self.now)
        started = Started(session.reference, f"{self.url}/start/{handle}")
        if status:
            await self.deliver(started, status)
        return started

    async def deliver(self, started: Started, status: str = "success") -> None:
        """Deliver an auth result as auth plugins do, past the page."""
        made = token(status, now=self.now, session=started.reference)
        session = await self.store.by_reference(started.reference)
        assert session
        received = self.site.results.receive(made, session.purpose)
        assert await self.site.results.attach(session, received) is Attached.KEPT

    def tell(self, started: Started) -> None:
        """Let the events of a session look anew, after the clock was set."""
        self.progress.notify(started.reference)

    def ticket(self, started: Started, call: CallId = CALL) -> Ticket:
        self.now += 1
        return Ticket(call, started.reference, "move", DEFAULT, self.now)


@dataclass(frozen=True, slots=True)
class Started:
    """A session that was begun, and the address that the core sends its citizen to."""

    reference: SessionRef
    address: str


def token(status: str = "success", *, now: float = OPEN, name: str = NAME, session: str = "session") -> str:
    return auth_result(
        None if status == "failed" else {"fullname": name, "bsn": "999990342"},
        status=status,
        subject=VERDER_HELPEN.subject,
        signing_key=AUTH_KEY,
        encryption_key=OWN_KEY,
        now=now,
        signature="ES256",
        key_encryption="ECDH-ES",
        session_url=f"https://auth.example/{session}",
    )


class Browser:
    """Somebody's browser on the site."""

    def __init__(self, town: Town, http: aiohttp.ClientSession) -> None:
        self._town = town
        self._http = http
        self.status = 0
        self.url = ""
        self.headers: Any = {}

    async def get(self, address: str = "/", **parameters: str) -> str:
        url = address if address.startswith("http") else self._town.url + address
        async with self._http.get(url, params=parameters) as answer:
            return await self._read(answer)

    async def post(self, path: str, origin: str | None = None) -> str:
        headers = {"Origin": origin or self._town.url}
        async with self._http.post(self._town.url + path, headers=headers) as answer:
            return await self._read(answer)

    async def _read(self, answer: aiohttp.ClientResponse) -> str:
        self.status, self.url, self.headers = answer.status, str(answer.url), answer.headers
        return await answer.text()

    @property
    def cookies(self) -> list[str]:
        return [cookie.key for cookie in self._http.cookie_jar]

    @property
    def cookie(self) -> Any:
        (cookie,) = self._http.cookie_jar
        return cookie

    @asynccontextmanager
    async def live(self) -> AsyncIterator[Events]:
        async with self._http.get(f"{self._town.url}/live") as answer:
            assert answer.content_type == "text/event-stream"
            yield Events(answer)


class Events:
    """What the page's script hears."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def next(self) -> dict[str, str]:
        """Wait for the next event that is not a beat."""
        async with asyncio.timeout(5):
            while True:
                line = (await self._answer.content.readline()).decode()
                assert line, "the stream has ended"
                if line.startswith("data: "):
                    event: dict[str, str] = json.loads(line.removeprefix("data: "))
                    return event

    async def line(self) -> str:
        async with asyncio.timeout(5):
            return (await self._answer.content.readline()).decode()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_store(tmp_path / "idbellen.db", Fingerprints(b"m" * 32)) as opened:
        yield opened


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def town(store: SqliteStore, stack: AsyncExitStack) -> Town:
    return await serve(store, stack)


async def serve(store: SqliteStore, stack: AsyncExitStack, **changes: Any) -> Town:
    """Serve a site with changes to what it needs, until the end of the test."""
    port = free_ports()
    town = Town(store, f"http://127.0.0.1:{port}")
    town.site = replace(town.site, **changes)
    await stack.enter_async_context(TestServer(citizen_app(town.site), host="127.0.0.1", port=port))
    return town


@pytest.fixture
async def browser(town: Town, stack: AsyncExitStack) -> Browser:
    return await somebody(town, stack)


async def somebody(town: Town, stack: AsyncExitStack, language: str = "nl-NL,nl;q=0.9") -> Browser:
    jar, headers = aiohttp.CookieJar(unsafe=True), {"Accept-Language": language}
    return Browser(town, await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar, headers=headers)))


def code_on(page: str) -> str:
    found = re.search(r'id="code">(.*?)</li>', page, re.DOTALL)
    return "".join(re.findall("<span>([0-9]+)</span>", found[1])) if found else ""


def title(page: str) -> str:
    found = re.search("<h1>(.*?)</h1>", page)
    assert found, page
    return found[1]


# Number and code


async def test_number_and_code_both_ways(town: Town, browser: Browser) -> None:
    page = await browser.get((await town.begin()).address)
    assert (browser.status, browser.url) == (200, f"{town.url}/"), "no handle and no code stay in the address"
    code = code_on(page)
    assert re.fullmatch("[0-9]{10}", code)
    assert f'href="tel:{NUMBER}"' in page
    assert f'href="tel:{NUMBER},{code}"' in page
    assert page.count('<path transform="scale(4)"') == 1, "the QR code"
    assert "Deze code is geldig tot 10:10 uur." in page
    assert "Verhuizing doorgeven" in page
    assert "Gemeente Voorbeeld" in page
    assert NAME not in page
    assert await browser.get() == page, "a reload changes nothing"
    session = await town.store.claim(code, call=CALL, secret=SECRET, now=town.now)
    assert session
    assert session.language == "nl"


async def test_a_new_code_takes_the_place_of_the_old(town: Town, browser: Browser) -> None:
    first = code_on(await browser.get((await town.begin()).address))
    await browser.post("/new-code", origin="https://elsewhere.example")
    assert browser.status == 403
    town.now += CODE_SECONDS - WARN_SECONDS - 1
    assert "Let op" not in await browser.get()
    town.now += 1
    page = await browser.get()
    assert "Let op: uw code is nog maar geldig tot 10:10 uur." in page
    assert code_on(page) == first
    page = await browser.post("/new-code")
    second = code_on(page)
    assert "geldig tot 10:18 uur" in page
    assert second not in ("", first)
    assert await town.store.claim(first, call=CALL, secret=SECRET, now=town.now) is None
    town.now += CODE_SECONDS
    page = await browser.get()
    assert (title(page), code_on(page)) == ("Uw code is niet meer geldig", "")
    assert code_on(await browser.post("/new-code")) not in ("", first, second)


async def test_no_code_is_free(store: SqliteStore, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    town = await serve(store, stack)
    first, second = await somebody(town, stack), await somebody(town, stack)
    monkeypatch.setattr("idbellen.web.issuing.new_code", lambda _: "1212121212")
    assert code_on(await first.get((await town.begin()).address)) == "1212121212"
    with capture_logs() as logs:
        page = await second.get((await town.begin()).address)
    assert (second.status, title(page)) == (503, "Wij kunnen u nu geen code geven")
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "no free code found: lengthen [sessions] code_digits"
    ]
    monkeypatch.undo()
    assert code_on(await second.get()) != "", "the page was not used up"
    monkeypatch.setattr("idbellen.web.issuing.new_code", lambda _: "1212121212")
    page = await second.post("/new-code")
    assert second.status == 503
    assert 'href="/?lang=en"' in page, "not an address that only takes forms"


# To whom the page belongs


async def test_the_page_is_for_the_first_browser(town: Town, stack: AsyncExitStack) -> None:
    started = await town.begin()
    citizen, thief = await somebody(town, stack), await somebody(town, stack)
    code = code_on(await citizen.get(started.address))
    assert "al gebruikt" in await thief.get(started.address)
    assert (thief.status, thief.cookies) == (410, [])
    await thief.get(started.address, result=token(name="Thief"))
    assert thief.status == 410
    for parameters in ({}, {"result": token()}, {"result": "nonsense"}):
        assert code_on(await citizen.get(started.address, **parameters)) == code
    await citizen.get(f"{town.url}/start/unknown")
    assert citizen.status == 410
    assert code_on(await citizen.get()) == code


async def test_the_cookie(town: Town, browser: Browser) -> None:
    await browser.get((await town.begin()).address)
    cookie = browser.cookie
    assert cookie.key == COOKIE
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert cookie["secure"] == "", "the address is plain http"
    assert cookie["max-age"] == cookie["expires"] == ""
    for wrong in (cookie.value[:-1] + "~", "", "made.up"):
        async with aiohttp.ClientSession(cookies={COOKIE: wrong}) as http, http.get(town.url) as answer:
            assert answer.status == 410


async def test_https_makes_the_cookie_secure(store: SqliteStore, stack: AsyncExitStack) -> None:
    town = await serve(store, stack, url="https://bel.example")
    started = await town.begin()
    async with aiohttp.ClientSession() as http, http.get(started.address, allow_redirects=False) as answer:
        assert answer.cookies[COOKIE]["secure"]
        assert "Strict-Transport-Security" in answer.headers


async def test_every_answer_has_the_security_headers(town: Town, browser: Browser) -> None:
    await browser.get((await town.begin()).address)
    for address in ("/", "/start/unknown", "/nowhere"):
        await browser.get(address)
        assert "default-src 'none'" in browser.headers["Content-Security-Policy"]
        assert "unsafe" not in browser.headers["Content-Security-Policy"]
        assert browser.headers["Cache-Control"] == "no-store"
    async with browser.live():
        pass


# The auth result that comes along with the browser


async def test_the_result_comes_along(town: Town, browser: Browser) -> None:
    started = await town.begin(status=None)
    page = await browser.get(started.address, result=token())
    assert browser.url == f"{town.url}/"
    assert "U bent ingelogd" in page
    session = await town.store.by_reference(started.reference)
    assert session
    assert session.result
    assert session.result.attributes == {"fullname": NAME}, "what the purpose does not list is dropped"
    # A reload of that address, long after the token could be delivered.
    town.now += 400
    assert code_on(await browser.get(started.address, result=token(now=OPEN))) == code_on(page)


async def test_the_result_comes_when_the_page_is_open(town: Town, browser: Browser) -> None:
    started = await town.begin(status=None)
    page = await browser.get(started.address)
    assert "Wij wachten nog op de uitslag van uw inloggen." in page
    async with browser.live() as events:
        assert "Wij wachten nog" in (await events.next())["html"]
        after = await browser.get(started.address, result=token())
        assert "Wij wachten nog" not in (await events.next())["html"]
    assert "Wij wachten nog" not in after
    assert code_on(after) == code_on(page)


async def test_a_spoilt_result_does_not_use_up_the_page(town: Town, browser: Browser) -> None:
    started = await town.begin(status=None)
    with capture_logs() as logs:
        page = await browser.get(started.address, result="nonsense")
        assert (browser.status, title(page)) == (400, "Het inloggen is niet gelukt")
        await browser.get(started.address, result=token(now=OPEN - 1000))
    assert [entry["reason"].split(" (")[0] for entry in logs] == ["not encrypted for us", "expired"]
    assert browser.cookies == []
    assert "U bent ingelogd" in await browser.get(started.address, result=token())


async def test_a_result_is_taken_once(town: Town, stack: AsyncExitStack) -> None:
    used = token()
    first, second = await town.begin(status=None), await town.begin(status=None)
    await (await somebody(town, stack)).get(first.address, result=used)
    browser = await somebody(town, stack)
    with capture_logs() as logs:
        await browser.get(second.address, result=used)
    assert browser.status == 400
    assert [entry["reason"] for entry in logs] == ["replayed"]
    assert "Wij wachten nog" in await browser.get(), "the page is this browser's all the same"
    with capture_logs() as logs:
        page = await browser.get(second.address, result=token(name="Second"))
        await browser.get(second.address, result=token(name="Third"))
    assert "U bent ingelogd" in page
    assert [entry["event"] for entry in logs] == ["auth result received", "auth result refused"]


async def test_a_second_result_at_the_first_visit(town: Town, browser: Browser) -> None:
    started = await town.begin()
    with capture_logs() as logs:
        page = await browser.get(started.address, result=token(name="Another"))
    assert code_on(page) != ""
    assert [entry["event"] for entry in logs] == ["auth result refused"]


@pytest.mark.parametrize("begin_url", [None, "https://gemeente.example/bellen"])
async def test_a_failed_login(store: SqliteStore, stack: AsyncExitStack, begin_url: str | None) -> None:
    town = await serve(store, stack, begin_url=begin_url)
    browser = await somebody(town, stack)
    page = await browser.get((await town.begin(status=None)).address, result=token("failed"))
    assert (title(page), code_on(page)) == ("U bent niet ingelogd", "")
    assert (f'href="{begin_url}"' in page) is bool(begin_url)
    assert ("Ga terug naar de website" in page) is not bool(begin_url)
    assert code_on(await browser.post("/new-code")) == ""


async def test_a_purpose_that_needs_no_login(town: Town, stack: AsyncExitStack) -> None:
    for status, words in ((None, "U kunt toch bellen."), ("failed", "de medewerker weet dan niet wie u bent")):
        page = await (await somebody(town, stack)).get((await town.begin("ask", status)).address)
        assert code_on(page) != ""
        assert words in page
        assert "weten wij wie u bent" not in page


async def test_a_login_that_fails_late_takes_the_code_away(town: Town, browser: Browser) -> None:
    started = await town.begin(status=None)
    assert code_on(await browser.get(started.address)) != ""
    async with browser.live() as events:
        assert (await events.next())["kind"] == "code"
        await town.deliver(started, "failed")
        assert (await events.next())["kind"] == "failed"
        assert await events.line() in ("\n", ""), "nothing can follow"
    assert title(await browser.get()) == "U bent niet ingelogd"


# Hours


async def test_closed_at_the_first_visit(town: Town, browser: Browser) -> None:
    town.now = OPEN - 2 * HOUR
    page = await browser.get((await town.begin()).address)
    assert (title(page), code_on(page)) == ("Wij zijn nu gesloten", "")
    assert "U kunt ons bellen vanaf maandag 2 maart om 09:00 uur." in page
    rows = dict(re.findall(r'<th scope="row">(.*?)</th>\s*<td>\s*(.*?)\s*</td>', page, re.DOTALL))
    assert rows == {
        "maandag": "09:00 tot 12:30 uur, 13:00 tot 17:00 uur",
        "dinsdag": "09:00 tot 12:30 uur, 13:00 tot 17:00 uur",
        "woensdag": "09:00 tot 12:30 uur, 13:00 tot 17:00 uur",
        "donderdag": "09:00 tot 12:30 uur, 13:00 tot 17:00 uur",
        "vrijdag": "gesloten",
        "zaterdag": "12:00 tot 24:00 uur",
        "zondag": "gesloten",
        "dinsdag 3 maart": "gesloten",
    }, "special days that are near, and no others"
    assert code_on(await browser.post("/new-code")) == ""
    assert "You can call us from Monday 2 March at 09:00." in await browser.get(lang="en")
    town.now = OPEN
    assert code_on(await browser.get()) != ""


async def test_the_page_opens_by_itself(town: Town, browser: Browser) -> None:
    town.now = OPEN - HOUR - 0.2
    started = await town.begin()
    await browser.get(started.address)
    async with browser.live() as events:
        assert (await events.next())["kind"] == "closed"
        town.now = OPEN - HOUR
        assert (await events.next())["kind"] == "new", "by a timer"
    assert code_on(await browser.get()) != ""


async def test_a_code_outlives_the_hours(town: Town, browser: Browser) -> None:
    town.now = OPEN + 6.9 * HOUR
    code = code_on(await browser.get((await town.begin()).address))
    town.now += 400
    page = await browser.get()
    assert code_on(page) == code
    assert "/new-code" not in page
    assert code_on(await browser.post("/new-code")) == code, "and no new one is given"
    town.now += 100
    assert "Daarna zijn wij gesloten." in await browser.get()
    town.now += 200
    page = await browser.get()
    assert title(page) == "Wij zijn nu gesloten"
    assert "woensdag 4 maart om 09:00 uur" in page, "Tuesday is a special day"


async def test_a_queue_that_never_opens(store: SqliteStore, stack: AsyncExitStack) -> None:
    town = await serve(store, stack, purposes={"move": replace(PURPOSE, hours=OpeningHours({}, {}, AMSTERDAM))})
    page = await (await somebody(town, stack)).get((await town.begin()).address)
    assert "Wij weten nog niet wanneer wij weer opengaan." in page


# The call


async def test_every_stage_by_events_and_by_reload(town: Town, browser: Browser) -> None:
    started, other = await town.begin(), await town.begin()
    code = code_on(await browser.get(started.address))
    in_front = ExitStack()
    in_front.enter_context(town.desk.place(town.ticket(other, CallId("another call"))))
    async with browser.live() as events:
        await stage(events, browser, "waiting", "Bel ons nu")
        await town.store.claim(code, call=CALL, secret=SECRET, now=town.now)
        with town.progress.call(started.reference, CALL, WORDS) as journey:
            html = await stage(events, browser, "accepted", "Uw code klopt")
            assert "lepel koffer" in html
            with town.desk.place(town.ticket(started)):
                journey.enter(Stage.QUEUED)
                html = await stage(events, browser, "queued", "U bent nummer 2 in de rij")
                assert "lepel koffer" in html
                assert "U wacht waarschijnlijk" not in html, "nobody knows how long"
                in_front.close()
                await stage(events, browser, "queued", "U bent de volgende")
                with town.staff.present(Account(AGENT, "PJSIP/agent", "")):
                    town.staff.set_available(AGENT)
                    html = await stage(events, browser, "queued", "U bent de volgende")
                    assert "U wacht waarschijnlijk nog ongeveer 1 minuut." in html
                    assert code_on(await browser.post("/new-code")) == code, "no new code during a call"
                    await browser.post("/end")
                    assert town.feedback.told == [], "nor an end"
                    journey.enter(Stage.CONNECTED)
                    html = await stage(events, browser, "connected", "U bent verbonden")
                    assert "lepel koffer" in html
        await town.store.finish(CALL)
        assert (await events.next())["kind"] == "ended"
    for _ in range(2):
        page = await browser.get()
        assert (browser.status, title(page), code_on(page)) == (200, "Uw gesprek is voorbij", "")


async def stage(events: Events, browser: Browser, name: str, heading: str) -> str:
    """Check that an event tells a stage and that a reload shows the same; gives the event's HTML."""
    event = await events.next()
    assert (event["kind"], event["stage"], title(event["html"])) == ("code", name, heading)
    page = await browser.get()
    assert title(page) == heading
    assert f"<title>{heading} \N{EN DASH} Gemeente Voorbeeld</title>" in page
    shown = re.findall(r"<(div|form|button)[^>]* data-when=\"waiting\"( hidden)?", page)
    assert shown
    assert all(bool(hidden) is (name != "waiting") for _, hidden in shown)
    for part in re.findall(r'<div id="(?:stage|words|login)".*?\n</div>', event["html"], re.DOTALL):
        assert part in page
    return event["html"]


async def test_a_caller_who_is_cut_off_waits_again_with_the_same_code(town: Town, browser: Browser) -> None:
    started = await town.begin()
    code = code_on(await browser.get(started.address))
    async with browser.live() as events:
        waiting = await events.next()
        await town.store.claim(code, call=CALL, secret=SECRET, now=town.now)
        with town.progress.call(started.reference, CALL, WORDS):
            assert (await events.next())["stage"] == "accepted"
        await town.store.release(CALL)
        assert await events.next() == waiting
    page = await browser.get()
    assert (title(page), code_on(page)) == ("Bel ons nu", code)


async def test_events_that_time_brings(town: Town, browser: Browser) -> None:
    started = await town.begin()
    await browser.get(started.address)
    async with browser.live() as events:
        assert "Let op" not in (await events.next())["html"]
        town.now += CODE_SECONDS - WARN_SECONDS
        town.tell(started)
        assert "Let op" in (await events.next())["html"]
        town.now += WARN_SECONDS - 0.1
        town.tell(started)
        await asyncio.sleep(0.01)
        town.now += 0.1
        assert (await events.next())["kind"] == "expired"
    async with browser.live() as events:
        assert (await events.next())["kind"] == "expired"


async def test_events_without_a_session(town: Town, browser: Browser) -> None:
    async with browser.live() as events:
        assert await events.next() == {"kind": "over"}
    started = await town.begin()
    await browser.get(started.address)
    await town.store.discard(started.reference)
    async with browser.live() as events:
        assert (await events.next())["kind"] == "over"
    assert title(await browser.get()) == "Er is hier geen code voor u"
    assert browser.status == 410


async def test_events_beat_and_end_with_the_service(
    store: SqliteStore, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(citizen_live, "BEAT_SECONDS", 0.05)
    async with AsyncExitStack() as service:
        town = await serve(store, service)
        browser = await somebody(town, stack)
        await browser.get((await town.begin()).address)
        events = await stack.enter_async_context(browser.live())
        await events.next()
        assert [await events.line() for _ in range(4)] == ["\n", "event: beat\n", "data:\n", "\n"]
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - before < 1.0, "nobody waits for open pages"


async def test_the_last_tabs_of_a_citizen_are_told_and_the_first_rests(town: Town, stack: AsyncExitStack) -> None:
    one, another = await somebody(town, stack), await somebody(town, stack)
    started = await town.begin()
    await one.get(started.address)
    await another.get((await town.begin()).address)
    elsewhere = await stack.enter_async_context(another.live())
    await elsewhere.next()
    tabs = []
    for _ in range(citizen_live.MOST_PAGES + 2):
        tabs.append(await stack.enter_async_context(one.live()))
        await tabs[-1].next()
    for tab in tabs[:2]:
        assert [await tab.line() for _ in range(5)] == ["\n", "event: elsewhere\n", "data:\n", "\n", ""]
    await town.store.discard(started.reference)
    town.tell(started)
    for tab in tabs[2:]:
        assert (await tab.next())["kind"] == "over"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await elsewhere.next()


async def test_a_browser_that_does_not_read_is_cut_off(
    town: Town, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(citizen_live, "SEND_SECONDS", 0.2)
    monkeypatch.setattr(citizen_live, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(citizen_live, "BEAT", b"x" * 1_000_000)
    await browser.get((await town.begin()).address)
    with capture_logs() as logs:
        async with browser.live(), asyncio.timeout(20):
            # An alarm of an earlier test may still go off.
            while "citizen's page cut off: it does not read" not in [entry["event"] for entry in logs]:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("begun", [False, True], ids=["without a session", "with one"])
async def test_a_browser_that_leaves_before_the_first_event_is_no_fault(
    town: Town, browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, begun: bool
) -> None:
    if begun:
        await browser.get((await town.begin()).address)
    prepare = web.StreamResponse.prepare

    async def too_late(response: web.StreamResponse, request: web.BaseRequest) -> Any:
        if request.transport:
            request.transport.close()
        return await prepare(response, request)

    monkeypatch.setattr(web.StreamResponse, "prepare", too_late)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        async with browser.live():
            pass
    assert [record for record in caplog.records if record.name == "aiohttp.server"] == []


# The end


async def test_the_citizen_ends_it(town: Town, browser: Browser) -> None:
    started = await town.begin()
    code = code_on(await browser.get(started.address))
    async with browser.live() as events:
        await events.next()
        page = await browser.post("/end")
        assert (await events.next())["kind"] == "ended"
    assert (browser.status, title(page)) == (200, "U bent gestopt")
    assert town.feedback.told == [("logout", started.reference)]
    assert await town.store.by_reference(started.reference) is None
    assert await town.store.claim(code, call=CALL, secret=SECRET, now=town.now) is None
    assert title(await browser.get()) == "U bent gestopt"
    await browser.post("/end")
    assert len(town.feedback.told) == 1
    await browser.get(started.address)
    assert browser.status == 410
    await browser.post("/end", origin="https://elsewhere.example")
    assert browser.status == 403


# Languages and theme


@pytest.mark.parametrize(
    ("header", "heading"),
    {"nl-NL,nl;q=0.9": "Bel ons nu", "en-GB,en": "Call us now", "fr": "Bel ons nu", "": "Bel ons nu"}.items(),
)
async def test_the_language_of_the_browser(town: Town, stack: AsyncExitStack, header: str, heading: str) -> None:
    browser = await somebody(town, stack, header)
    assert title(await browser.get((await town.begin()).address)) == heading


async def test_a_chosen_language_stays(town: Town, browser: Browser) -> None:
    started = await town.begin()
    dutch = await browser.get(started.address)
    assert '<html lang="nl">' in dutch
    assert 'href="/?lang=en"' in dutch
    page = await browser.get(lang="en")
    assert browser.url == f"{town.url}/"
    assert '<html lang="en">' in page
    assert title(page) == "Call us now"
    assert code_on(page) == code_on(dutch)
    assert browser.cookies == [COOKIE]
    session = await town.store.by_reference(started.reference)
    assert session
    assert session.language == "en"
    async with browser.live() as events:
        assert title((await events.next())["html"]) == "Call us now"
    assert title(await browser.post("/new-code")) == "Call us now"
    assert title(await browser.get(lang="fr")) == "Call us now", "not one of ours"
    assert title(await browser.get(started.address, lang="nl")) == "Call us now", "as it is"
    assert title(await browser.post("/end")) == "You have stopped"


async def test_languages_without_a_session(town: Town, browser: Browser) -> None:
    for language, heading in (("en", "There is no code for you here"), ("nl", "Er is hier geen code voor u")):
        page = await browser.get(lang=language)
        assert title(page) == heading
        assert browser.url == f"{town.url}/?lang={language}"
    assert browser.cookies == []
    started = await town.begin(status=None)
    page = await browser.get(started.address, result="nonsense", lang="en")
    assert title(page) == "Logging in did not work"
    assert title(await browser.get(started.address, lang="en")) == "Call us now", "it was chosen on the way"


async def test_a_theme(store: SqliteStore, stack: AsyncExitStack, tmp_path: Path) -> None:
    town = await serve(store, stack)
    browser = await somebody(town, stack)
    assert "theme.css" not in await browser.get()
    await browser.get("/theme.css")
    assert browser.status == 404
    theme = tmp_path / "house-style"
    theme.write_text(":root { --utrecht-document-color: #123456 }")
    town = await serve(store, stack, theme_file=theme)
    browser = await somebody(town, stack)
    links = re.findall('<link rel="stylesheet" href="(.*?)">', await browser.get())
    assert links == ["/static/idbellen.css", "/static/citizen.css", "/theme.css"]
    assert await browser.get("/theme.css") == theme.read_text()
    assert browser.headers["Content-Type"] == "text/css; charset=utf-8"


async def test_the_demo_offers_its_phone(store: SqliteStore, stack: AsyncExitStack) -> None:
    town = await serve(store, stack, demo_phone_url="http://127.0.0.1:1/phone")
    browser = await somebody(town, stack)
    page = await browser.get((await town.begin()).address)
    assert 'action="http://127.0.0.1:1/phone"' in page
    assert f'name="code" value="{code_on(page)}"' in page
    assert f'name="back" value="{town.url}/"' in page
    assert re.findall('name="do" value="(.*?)"', page) == ["call", "dial", "hang up"]
    assert "form-action 'self' http://127.0.0.1:1;" in browser.headers["Content-Security-Policy"]
