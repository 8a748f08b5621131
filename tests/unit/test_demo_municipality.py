"""The demo's municipality and login methods: a citizen's whole walk, as far as idbellen, which is played here."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer, make_mocked_request, unused_port
from aiohttp.typedefs import Handler
from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from structlog.testing import capture_logs
from yarl import URL

from idbellen.demo.auth import MOST_LOGINS, VOORBEELDPAS, AuthSettings, auth_app, with_result
from idbellen.demo.core import DELIVERIES, MOST_VISITS, CoreSettings, LoginMethod, Purpose, core_app
from idbellen.demo.identities import DEMO_IDENTITIES
from idbellen.demo.phones import CitizenPhone, PhoneError
from idbellen.demo.remote import phone_handler
from idbellen.demo.results import MOST_FEEDBACK, MOST_RESULTS
from idbellen.demo.texts import LANGUAGE_NAMES, TEXTS, attribute_label, language_of
from idbellen.demo.tokens import ID_CONTACT, VERDER_HELPEN, Key

# Of the plugin and of idbellen, for each method of logging in.
KEYS: dict[str, tuple[Key, Key]] = {
    "demoid": (RSAKey.generate_key(2048), RSAKey.generate_key(2048)),
    "voorbeeldpas": (ECKey.generate_key("P-256"), ECKey.generate_key("P-256")),
}
ALGORITHMS = {"demoid": ("RS256", "RSA-OAEP"), "voorbeeldpas": ("ES256", "ECDH-ES")}
PURPOSES = (
    Purpose("report_move", "Verhuizing doorgeven", "Report a move", ("fullname", "bsn")),
    Purpose("question", "Een vraag <stellen>", "Ask a question", (), admit_unverified=True, hint=("Ook <zo>", "Also")),
)
SANNE = DEMO_IDENTITIES[0]
NUMBER, CODE = "+31201234567", "0123456789"
TEL = f"tel:{NUMBER},{CODE}"
ATTR_URL, RESULT, START, LATE = DELIVERIES
DUTCH = TEXTS["nl"]


class Idbellen:
    """What idbellen is to the stand-ins: the plugin's API, the address for results, the citizen's page."""

    def __init__(self) -> None:
        self.started: list[tuple[str, dict[str, Any]]] = []
        self.results: list[tuple[str, str]] = []
        self.visits: list[str] = []
        self.start_status = 200
        self.start_body: str | None = None
        self.attr_status = 200
        self.closed = False
        app = web.Application()
        app.router.add_post("/{channel}/start_communication", self._start)
        app.router.add_post("/attr/one", self._attributes)
        app.router.add_get("/citizen/one", self._page)
        self.server = TestServer(app)

    async def _start(self, request: web.Request) -> web.Response:
        channel, asked = request.match_info["channel"], await request.json()
        self.started.append((channel, asked))
        answer = {"client_url": TEL if channel == "tel" and not self.closed else self.client_url}
        if "auth_result" not in asked:
            answer["attr_url"] = self.attr_url
        body = self.start_body or json.dumps(answer)
        return web.Response(text=body, status=self.start_status, content_type="application/json")

    async def _attributes(self, request: web.Request) -> web.Response:
        self.results.append((request.content_type, await request.text()))
        return web.Response(status=self.attr_status)

    async def _page(self, request: web.Request) -> web.Response:
        self.visits.append(request.raw_path)
        return web.Response(text="call us")

    @property
    def client_url(self) -> str:
        return f"{self.server.make_url('/citizen/one')}?k=a%2Fb+c"

    @property
    def attr_url(self) -> str:
        return str(self.server.make_url("/attr/one"))


@dataclass(slots=True, eq=False)
class Phone(CitizenPhone):
    """A demo phone that only notes what it is asked to do."""

    calls: list[tuple[str, str, bool]] = field(default_factory=list)
    fault: str = ""

    async def call(self, target: str, digits: str, *, dialler: bool = False) -> None:
        self.calls.append((target, digits, dialler))
        self._state = "in call"
        if self.fault:
            raise PhoneError(self.fault)

    async def hangup(self) -> None:
        self._state = "idle"


@dataclass
class Stage:
    idbellen: Idbellen
    core: TestServer
    auth: TestServer
    second_auth: TestServer
    phone: Phone
    browser: aiohttp.ClientSession
    _stack: AsyncExitStack = field(repr=False)

    async def get(self, url: URL | str) -> tuple[URL, int, str]:
        async with self.browser.get(url) as answer:
            return answer.url, answer.status, await answer.text()

    async def send(self, url: URL | str, **form: str) -> tuple[URL, int, str]:
        async with self.browser.post(url, data=form) as answer:
            return answer.url, answer.status, await answer.text()

    async def start(self, *, purpose: str = "report_move", **form: str) -> tuple[URL, int, str]:
        return await self.send(self.core.make_url(f"/start/{purpose}"), **form)

    async def log_in(self, *, purpose: str = "report_move", **form: str) -> URL:
        """Start, choose an identity; gives the consent page."""
        url, status, _ = await self.start(purpose=purpose, **form)
        assert status == 200
        url, status, _ = await self.send(url, identity=SANNE.key)
        assert status == 200
        return url

    async def share(self, **form: str) -> tuple[URL, int, str]:
        return await self.send(await self.log_in(**form), consent="yes")

    async def ask_auth(self, **body: object) -> tuple[int, Any]:
        async with self.browser.post(self.auth.make_url("/start_authentication"), json=body) as answer:
            return answer.status, await answer.json()

    async def extra_core(self, plugin_url: str, auth_url: str) -> URL:
        methods = (LoginMethod("demoid", "DemoID", auth_url, "ID Contact"),)
        server = await serve(self._stack, core_app(CoreSettings("http://core.example", plugin_url, methods, PURPOSES)))
        return server.make_url("/start/question")

    async def backstage(self, server: TestServer | None = None) -> str:
        url, status, page = await self.get((server or self.auth).make_url("/backstage"))
        assert (url.path, status) == ("/backstage", 200)
        return page


async def serve(stack: AsyncExitStack, app: web.Application, port: int | None = None) -> TestServer:
    server = TestServer(app, port=port)
    await stack.enter_async_context(server)
    return server


def base(server: BaseTestServer) -> str:
    return str(server.make_url("")).rstrip("/")


def auth_settings(public_url: str, method: str = "demoid") -> AuthSettings:
    signing, encryption = KEYS[method]
    public = encryption.as_pem(private=False).decode()
    settings = AuthSettings(public_url, signing.as_pem(private=True).decode(), public)
    return settings if method == "demoid" else replace(settings, brand=VOORBEELDPAS, dialect=VERDER_HELPEN)


async def plugin(stack: AsyncExitStack, method: str) -> TestServer:
    port = unused_port()
    return await serve(stack, auth_app(auth_settings(f"http://127.0.0.1:{port}/", method)), port)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        idbellen = Idbellen()
        await stack.enter_async_context(idbellen.server)
        auth, second_auth = await plugin(stack, "demoid"), await plugin(stack, "voorbeeldpas")
        port = unused_port()
        methods = (
            LoginMethod("demoid", "DemoID", base(auth), "ID Contact"),
            LoginMethod("voorbeeldpas", "VoorbeeldPas", base(second_auth), "Verder Helpen"),
        )
        settings = CoreSettings(f"http://127.0.0.1:{port}/", base(idbellen.server), methods, PURPOSES, demo_phone=True)
        app, phone = core_app(settings), Phone(Path("unused"))
        app.router.add_post("/phone", phone_handler(phone, NUMBER, base(idbellen.server)))
        core = await serve(stack, app, port)
        browser = await stack.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), requote_redirect_url=False)
        )
        yield Stage(idbellen, core, auth, second_auth, phone, browser, stack)


def opened(token: str, method: str = "demoid") -> dict[str, Any]:
    (signing, encryption), (signature, key_encryption) = KEYS[method], ALGORITHMS[method]
    envelope = jwe.decrypt_compact(token, encryption, algorithms=[key_encryption, "A128CBC-HS256"])
    header = {"typ": "JWT", "cty": "JWT", "enc": "A128CBC-HS256", "alg": key_encryption}
    assert envelope.protected.items() >= header.items()
    wrapped = json.loads(envelope.plaintext or b"")
    assert set(wrapped) == {"njwt"}
    signed = jws.deserialize_compact(wrapped["njwt"], signing, algorithms=[signature])
    claims: dict[str, Any] = json.loads(signed.payload)
    return claims


async def test_walk_delivering_from_server_to_server(stage: Stage) -> None:
    _, status, start = await stage.get(stage.core.make_url("/"))
    assert status == 200
    assert '<html lang="nl">' in start
    assert "Een vraag &lt;stellen&gt;" in start
    assert "<dd>Ook &lt;zo&gt;</dd>" in start
    assert f'href="{base(stage.second_auth)}/backstage"' in start

    url, status, options = await stage.send(stage.core.make_url("/start"), purpose="report_move")
    assert (url.path, status) == ("/start/report_move", 200)
    assert all(DUTCH[f"channel_{channel}"] in options for channel in ("page", "tel"))
    assert "DemoID" in options
    assert "VoorbeeldPas" in options
    assert DUTCH["no_login"] not in options
    assert stage.idbellen.started == []

    url, status, choice = await stage.send(url, channel="page", login="demoid", delivery=ATTR_URL)
    assert status == 200
    assert url.port == stage.auth.port
    assert re.fullmatch(r"/login/[\w-]{20,}", url.path)
    assert stage.idbellen.started == [("page", {"purpose": "report_move"})]
    assert all(identity.name in choice for identity in DEMO_IDENTITIES)
    assert "Log in met DemoID" in choice

    url, status, consent = await stage.send(url, identity=SANNE.key)
    assert status == 200
    assert SANNE.attributes["bsn"] in consent
    assert SANNE.attributes["address"] not in consent
    assert stage.idbellen.results == []

    before = int(time.time())
    url, status, page = await stage.send(url, consent="yes")
    assert (status, page) == (200, "call us")
    assert stage.idbellen.visits == ["/citizen/one?k=a%2Fb+c"]
    [(kind, token)] = stage.idbellen.results
    assert kind == "application/jwt"
    claims = opened(token)
    issued = claims["iat"]
    assert before <= issued <= int(time.time())
    assert re.fullmatch(rf"{base(stage.auth)}/session/[\w-]{{20,}}", claims.pop("session_url"))
    assert claims == {
        "iss": "demoid",
        "sub": "id-contact-attributes",
        "iat": issued,
        "exp": issued + 300,
        "status": "succes",
        "attributes": {"fullname": "Sanne Voorbeeld", "bsn": SANNE.attributes["bsn"]},
    }


async def test_the_other_method_speaks_the_other_dialect(stage: Stage) -> None:
    url, _, choice = await stage.start(login="voorbeeldpas")
    assert url.port == stage.second_auth.port
    assert "Log in met VoorbeeldPas" in choice
    assert '<body class="voorbeeldpas">' in choice
    _, _, page = await stage.share(login="voorbeeldpas")
    assert page == "call us"
    claims = opened(stage.idbellen.results[0][1], "voorbeeldpas")
    assert (claims["sub"], claims["status"]) == ("verder-helpen-attributes", "success")
    assert claims["attributes"]["bsn"] == SANNE.attributes["bsn"]
    assert claims["session_url"].startswith(f"{base(stage.second_auth)}/session/")


async def test_walk_delivering_with_the_browser(stage: Stage) -> None:
    url, status, _ = await stage.share(delivery=RESULT)
    assert status == 200
    assert stage.idbellen.results == []
    [visit] = stage.idbellen.visits
    assert visit.startswith("/citizen/one?k=a%2Fb+c&result=")
    assert opened(url.query["result"])["attributes"]["bsn"] == SANNE.attributes["bsn"]
    assert DUTCH["result_browser"] in await stage.backstage()


@pytest.mark.parametrize("method", KEYS)
@pytest.mark.parametrize("channel", ["page", "tel"])
async def test_login_first(stage: Stage, method: str, channel: str) -> None:
    consent = await stage.log_in(login=method, channel=channel, delivery=START)
    assert stage.idbellen.started == []
    url, status, page = await stage.send(consent, consent="yes")
    assert status == 200
    assert page == "call us" if channel == "page" else CODE in html_text(page)
    assert "result" not in url.query
    [(seen, asked)] = stage.idbellen.started
    assert (seen, asked["purpose"]) == (channel, "report_move")
    assert opened(asked["auth_result"], method)["attributes"]["bsn"] == SANNE.attributes["bsn"]
    assert stage.idbellen.results == []


async def test_coming_back_from_a_login_works_once(stage: Stage) -> None:
    consent = await stage.log_in(delivery=START)
    async with stage.browser.post(consent, data={"consent": "yes"}, allow_redirects=False) as answer:
        back = URL(answer.headers["Location"], encoded=True)
    assert back.path.startswith("/continue/")
    assert (await stage.get(back.with_query(None)))[1] == 404
    assert (await stage.get(back))[2] == "call us"
    for address in (back, stage.core.make_url("/continue/unknown?result=x")):
        _, status, page = await stage.get(address)
        assert status == 404
        assert DUTCH["lost_title"] in page
    assert len(stage.idbellen.started) == 1


async def test_idbellen_away_after_a_login_that_came_first(stage: Stage) -> None:
    consent = await stage.log_in(delivery=START)
    stage.idbellen.start_status = 503
    with capture_logs() as logged:
        _, status, page = await stage.send(consent, consent="yes")
    assert status == 502
    assert DUTCH["away_plugin"] in page
    assert [entry["event"] for entry in logged] == ["demo.core.away"]
    assert "result" not in str(logged)


async def test_a_page_around_the_address_to_dial(stage: Stage) -> None:
    url, status, page = await stage.share(channel="tel")
    assert status == 200
    assert url.port == stage.core.port
    assert re.fullmatch(r"/call/[\w-]{20,}", url.path)
    assert stage.idbellen.started == [("tel", {"purpose": "report_move"})]
    assert f'<a class="button large" href="{TEL}">' in page
    assert NUMBER in page
    assert "<span>012</span> <span>345</span> <span>6789</span>" in page
    assert opened(stage.idbellen.results[0][1])["status"] == "succes"
    assert 'id="fell-back"' not in page
    assert CODE not in str(url)


async def test_the_browser_cannot_take_a_result_to_an_address_to_dial(stage: Stage) -> None:
    url, _, page = await stage.share(channel="tel", delivery=RESULT)
    assert "result" not in url.query
    assert opened(stage.idbellen.results[0][1])["status"] == "succes"
    assert 'id="fell-back"' in page


async def test_no_address_to_dial_when_idbellen_prefers_its_page(stage: Stage) -> None:
    stage.idbellen.closed = True
    _, _, page = await stage.share(channel="tel")
    assert page == "call us"
    assert stage.idbellen.started[0][0] == "tel"


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("channel", ["page", "tel"])
async def test_without_logging_in(stage: Stage, channel: str, delivery: str) -> None:
    _, _, options = await stage.get(stage.core.make_url("/start/question"))
    assert DUTCH["no_login"] in options
    url, status, page = await stage.start(purpose="question", login="none", channel=channel, delivery=delivery)
    assert status == 200
    assert page == "call us" if channel == "page" else url.path.startswith("/call/")
    assert 'id="fell-back"' not in page
    assert stage.idbellen.started == [(channel, {"purpose": "question"})]
    assert (await stage.start(purpose="report_move", login="none"))[1] == 400
    assert len(stage.idbellen.started) == 1


async def test_a_late_result_is_delivered_by_hand(stage: Stage) -> None:
    assert DUTCH["backstage_none"] in await stage.backstage()
    with capture_logs() as logged:
        _, _, page = await stage.share(delivery=LATE)
        assert page == "call us"
        assert stage.idbellen.results == []
        waiting = await stage.backstage()
        assert SANNE.name in waiting
        assert DUTCH["result_waits"] in waiting

        stage.idbellen.attr_status = 503
        form = {"session": session_in(waiting)}
        url, status, failed = await stage.send(stage.auth.make_url("/backstage"), **form)
        assert (url.path, status) == ("/backstage", 200)
        assert "status 503" in failed
        assert session_in(failed) == form["session"]

        stage.idbellen.attr_status = 200
        stage.idbellen.results.clear()
        pages = await asyncio.gather(*(stage.send(url, **form) for _ in range(3)))
        _, _, done = await stage.send(url, **form)
    [(kind, token)] = stage.idbellen.results
    assert kind == "application/jwt"
    assert opened(token)["attributes"]["bsn"] == SANNE.attributes["bsn"]
    assert {status for _, status, _ in pages} == {200}
    assert re.search(r"Afgeleverd om \d\d:\d\d:\d\d<", done)
    assert "<form" not in done
    assert SANNE.attributes["bsn"] not in done
    assert (await stage.send(url, session="unknown"))[1] == 200
    assert [entry["event"] for entry in logged] == ["demo.auth.undelivered"]
    assert SANNE.name not in str(logged)
    assert "/attr/" not in str(logged)


async def test_a_late_result_is_valid_when_it_is_delivered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.share(delivery=LATE)
    now = time.time() + 3600
    monkeypatch.setattr("time.time", lambda: now)
    await stage.send(stage.auth.make_url("/backstage"), session=session_in(await stage.backstage()))
    assert opened(stage.idbellen.results[0][1])["iat"] == int(now)


async def test_a_late_refusal(stage: Stage) -> None:
    url, _, _ = await stage.start(delivery=LATE)
    _, _, page = await stage.send(url / "consent", consent="no")
    assert page == "call us"
    waiting = await stage.backstage()
    assert DUTCH["result_nobody"] in waiting
    assert DUTCH["result_refused"] in waiting
    await stage.send(stage.auth.make_url("/backstage"), session=session_in(waiting))
    assert opened(stage.idbellen.results[0][1])["status"] == "failed"


def session_in(page: str) -> str:
    [session] = re.findall(r'name="session" value="([\w-]{20,})"', page)
    return str(session)


def html_text(page: str) -> str:
    return re.sub(r"<[^>]*>|\s", "", page)


@pytest.mark.parametrize("method", KEYS)
async def test_session_feedback_is_shown(stage: Stage, method: str) -> None:
    server = stage.auth if method == "demoid" else stage.second_auth
    await stage.share(login=method)
    assert DUTCH["feedback_none"] in await stage.backstage(server)
    address = URL(opened(stage.idbellen.results[0][1], method)["session_url"])
    for kind in ("user_active", "logout"):
        _, status, _ = await stage.send(address.with_query(type=kind))
        assert status == 200
    page = await stage.backstage(server)
    assert re.search(r"\d\d:\d\d:\d\d user_active</span>\s*<span[^>]*>\d\d:\d\d:\d\d logout<", page)
    assert DUTCH["feedback_none"] not in page

    assert (await stage.send(address.with_query(type="gossip")))[1] == 400
    assert (await stage.send(address))[1] == 400
    assert (await stage.send((address.parent / "unknown").with_query(type="logout")))[1] == 404
    for _ in range(MOST_FEEDBACK + 5):
        await stage.send(address.with_query(type="user_active"))
    assert (await stage.backstage(server)).count(" user_active<") == MOST_FEEDBACK


async def test_results_are_bounded(stage: Stage) -> None:
    urls = []
    for _ in range(MOST_RESULTS + 1):
        _, answer = await stage.ask_auth(attributes=[], continuation=stage.idbellen.client_url)
        urls.append(f"{answer['client_url']}/consent")
    for url in urls:
        await stage.send(url, consent="no")
    assert (await stage.backstage()).count("<h2") == MOST_RESULTS


async def test_calls_are_bounded(stage: Stage) -> None:
    form = {"purpose": "question", "login": "none", "channel": "tel"}
    first, _, _ = await stage.start(**form)
    for _ in range(MOST_VISITS):
        await stage.start(**form)
    _, status, page = await stage.get(first)
    assert status == 404
    assert DUTCH["lost_title"] in page


async def test_the_demo_phone_calls_from_the_page(stage: Stage) -> None:
    url, _, page = await stage.start(purpose="question", login="none", channel="tel")
    assert 'name="do" value="dial"' in page
    phone = stage.core.make_url("/phone")
    form = {"code": CODE, "back": url.path}
    for wish, dialler in (("dial", True), ("call", False)):
        seen, status, _ = await stage.send(phone, do=wish, **form)
        assert (seen, status) == (url, 200)
        assert stage.phone.calls.pop() == (NUMBER, CODE, dialler)
        assert (await stage.send(phone, do=wish, **form))[1] == 409
        seen, _, _ = await stage.send(phone, do="hang up", **form)
        assert seen == url
        assert stage.phone.state == "idle"


async def test_the_demo_phone_goes_back_to_known_pages_only(stage: Stage) -> None:
    phone = stage.core.make_url("/phone")
    for back in ("", "https://elsewhere.example/", "//elsewhere.example/call/x", "/call/../x", "/call/x\r\nx: y"):
        async with stage.browser.post(phone, data={"do": "hang up", "back": back}, allow_redirects=False) as answer:
            assert (answer.status, await answer.text()) == (200, "The demo phone has hung up.\n")
    citizen = f"{base(stage.idbellen.server)}/"
    async with stage.browser.post(phone, data={"do": "hang up", "back": citizen}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, citizen)


async def test_the_demo_phone_refuses_bad_input_and_tells_what_failed(stage: Stage) -> None:
    phone = stage.core.make_url("/phone")
    for form in ({}, {"do": "sing"}, {"do": "call"}, {"do": "dial", "code": "12x"}, {"do": "call", "code": "1" * 21}):
        assert (await stage.send(phone, **form))[1] == 400
    assert stage.phone.calls == []
    stage.phone.fault = "The call was refused: 404."
    with capture_logs() as logged:
        assert (await stage.send(phone, do="call", code=CODE))[2] == "The demo phone is calling.\n"
        await asyncio.sleep(0)
    [entry] = logged
    assert entry["reason"] == "The call was refused: 404."
    assert CODE not in str(logged)


@pytest.mark.parametrize("delivery", [ATTR_URL, RESULT, START])
async def test_refusing_is_a_failed_result_without_attributes(stage: Stage, delivery: str) -> None:
    consent = await stage.log_in(delivery=delivery)
    url, status, _ = await stage.send(consent, consent="no")
    assert status == 200
    match delivery:
        case "result":
            token = url.query["result"]
        case "start":
            token = stage.idbellen.started[0][1]["auth_result"]
        case _:
            token = stage.idbellen.results[0][1]
    claims = opened(token)
    assert claims["status"] == "failed"
    assert "attributes" not in claims
    assert "session_url" not in claims
    assert DUTCH["result_refused"] in await stage.backstage()


async def test_stopping_before_choosing_somebody_is_a_refusal(stage: Stage) -> None:
    url, _, page = await stage.start()
    assert f'formaction="{url.path}/consent"' in page
    await stage.send(url / "consent", consent="no")
    assert opened(stage.idbellen.results[0][1])["status"] == "failed"


async def test_purpose_without_attributes(stage: Stage) -> None:
    url, _, _ = await stage.start(purpose="question")
    url, _, page = await stage.send(url, identity=SANNE.key)
    assert DUTCH["consent_nothing"] in page
    await stage.send(url, consent="yes")
    claims = opened(stage.idbellen.results[0][1])
    assert (claims["status"], claims["attributes"]) == ("succes", {})


async def test_login_works_once(stage: Stage) -> None:
    consent = await stage.log_in()
    await stage.send(consent, consent="yes")
    for url, status, page in (
        await stage.send(consent, consent="yes"),
        await stage.get(consent),
        await stage.get(consent.parent),
        await stage.send(consent.parent, identity=SANNE.key),
    ):
        assert status == 404, url
        assert DUTCH["gone_title"] in page
    assert len(stage.idbellen.results) == 1


async def test_undelivered_result_can_be_sent_again(stage: Stage) -> None:
    consent = await stage.log_in()
    stage.idbellen.attr_status = 500
    with capture_logs() as logged:
        _, status, page = await stage.send(consent, consent="yes")
    assert status == 502
    assert DUTCH["undelivered_title"] in page
    assert 'value="yes"' in page
    assert [entry["event"] for entry in logged] == ["demo.auth.undelivered"]
    assert SANNE.attributes["bsn"] not in str(logged)
    assert "/attr/" not in str(logged)
    assert stage.idbellen.visits == []

    stage.idbellen.attr_status = 200
    _, status, page = await stage.send(consent, consent="yes")
    assert (status, page) == (200, "call us")


async def test_unreachable_attr_url(stage: Stage) -> None:
    nowhere = f"http://127.0.0.1:{unused_port()}/attr"
    _, answer = await stage.ask_auth(attributes=[], continuation=stage.idbellen.client_url, attr_url=nowhere)
    _, status, _ = await stage.send(f"{answer['client_url']}/consent", consent="no")
    assert status == 502


async def test_nobody_chosen(stage: Stage) -> None:
    url, _, _ = await stage.start()
    for form in ({}, {"identity": "nobody"}):
        _, status, page = await stage.send(url, **form)
        assert status == 400
        assert 'role="alert"' in page
        assert DUTCH["choose_missing"] in page
    seen, status, _ = await stage.get(url / "consent")
    assert (seen, status) == (url, 200)
    seen, status, _ = await stage.send(url / "consent", consent="yes")
    assert (seen, status) == (url, 200)
    assert (await stage.send(url / "consent", consent="maybe"))[1] == 400
    assert stage.idbellen.results == []


async def test_nothing_chosen_at_the_municipality(stage: Stage) -> None:
    for form in ({}, {"purpose": "other"}):
        _, status, page = await stage.send(stage.core.make_url("/start"), **form)
        assert status == 400
        assert DUTCH["purpose_missing"] in page
        assert f"<title>{TEXTS['nl']['error_prefix']} " in page
    for unknown in ({"delivery": "pigeon"}, {"login": "password"}, {"channel": "fax"}):
        assert (await stage.start(**unknown))[1] == 400
    for answer in (await stage.start(purpose="other"), await stage.get(stage.core.make_url("/start/other"))):
        assert answer[1] == 404
        assert DUTCH["lost_title"] in answer[2]
    assert stage.idbellen.started == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, '{"error": "NotFound"}'),
        (200, "no JSON"),
        (200, '{"client_url": "https://citizen.example/secret"}'),
        (200, '{"client_url": "javascript:secret", "attr_url": "https://plugin.example/secret"}'),
        (200, '{"client_url": "tel:secret", "attr_url": "https://plugin.example/secret"}'),
        (200, '{"client_url": "http://a/\\r\\nsecret: 1", "attr_url": "https://plugin.example/secret"}'),
    ],
)
async def test_plugin_answers_improperly(stage: Stage, status: int, body: str) -> None:
    stage.idbellen.start_status, stage.idbellen.start_body = status, body
    with capture_logs() as logged:
        _, seen, page = await stage.start()
    assert seen == 502
    assert DUTCH["away_plugin"] in page
    assert '<a class="button" href="/">' in page
    [entry] = logged
    assert (entry["event"], entry["service"], entry["purpose"]) == ("demo.core.away", "plugin", "report_move")
    assert "secret" not in str(entry)


async def test_services_away(stage: Stage) -> None:
    nowhere = f"http://127.0.0.1:{unused_port()}"
    _, status, page = await stage.send(await stage.extra_core(nowhere, base(stage.auth)))
    assert status == 502
    assert DUTCH["away_plugin"] in page
    _, status, page = await stage.send(await stage.extra_core(base(stage.idbellen.server), nowhere))
    assert status == 502
    assert DUTCH["away_auth"] in page


async def test_slow_plugin(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idbellen.demo.services.ANSWER_SECONDS", 0.05)
    async with TestServer(web.Application(middlewares=[_never])) as slow:
        start = await stage.extra_core(base(slow), base(stage.auth))
        with capture_logs() as logged:
            _, status, _ = await stage.send(start)
    assert status == 502
    assert "no answer within" in logged[0]["reason"]


@web.middleware
async def _never(request: web.Request, handler: Handler) -> web.StreamResponse:
    await asyncio.sleep(60)
    return await handler(request)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"attributes": "bsn", "continuation": "https://a.example/"},
        {"attributes": ["shoe size"], "continuation": "https://a.example/"},
        {"attributes": [], "continuation": "/relative"},
        {"attributes": [], "continuation": "tel:+31201234567,0123456789"},
        {"attributes": [], "continuation": "https://a.example/", "attr_url": "file:///etc/passwd"},
        {"attributes": [], "continuation": "https://a.example/", "delivery": "late"},
        {"attributes": [], "continuation": "https://a.example/", "attr_url": "https://a.example/", "delivery": "x"},
    ],
)
async def test_improper_start_authentication(stage: Stage, body: dict[str, object]) -> None:
    status, answer = await stage.ask_auth(**body)
    assert status == 400
    assert answer["error"] == "BadRequest"
    assert answer["detail"]


async def test_start_authentication_without_json(stage: Stage) -> None:
    for data in (b"", b"\xff", b"[" * 5000):
        async with stage.browser.post(stage.auth.make_url("/start_authentication"), data=data) as answer:
            assert answer.status == 400


async def test_logins_are_bounded(stage: Stage) -> None:
    answers = [
        (await stage.ask_auth(attributes=[], continuation="https://a.example/"))[1] for _ in range(MOST_LOGINS + 1)
    ]
    statuses = [(await stage.get(answer["client_url"]))[1] for answer in (answers[0], answers[1], answers[-1])]
    assert statuses == [404, 200, 200]


async def test_security_headers_on_every_answer(stage: Stage) -> None:
    for url in (
        stage.core.make_url("/"),
        stage.core.make_url("/nowhere"),
        stage.core.make_url("/static/demo.css"),
        stage.auth.make_url("/login/unknown"),
    ):
        async with stage.browser.get(url) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self' data:; ")
            assert "form-action 'self' http: https:; frame-ancestors 'none'; base-uri 'none'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"


async def test_pages_need_no_script_and_no_inline_style(stage: Stage) -> None:
    call, _, _ = await stage.share(channel="tel", delivery=LATE)
    consent, backstage = await stage.log_in(), stage.auth.make_url("/backstage")
    options = stage.core.make_url("/start/question")
    for url in (stage.core.make_url("/"), options, consent.parent, consent, call, backstage):
        _, _, html = await stage.get(url)
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", html)
        assert html.count("<h1") == html.count("<main") == 1


async def test_language_by_choice_stays_on_both_sites(stage: Stage) -> None:
    _, _, html = await stage.get(stage.core.make_url("/").with_query(lang="en"))
    assert '<html lang="en">' in html
    url, _, html = await stage.start()
    assert TEXTS["en"]["choose_title"].format("DemoID") in html
    _, _, html = await stage.get(url.with_query(lang="nl"))
    assert '<html lang="nl">' in html


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "nl"),
        ("en", "en"),
        ("en-GB,en;q=0.9,nl;q=0.8", "en"),
        ("en;q=0.5, nl-NL;q=0.9", "nl"),
        ("fr, de;q=0.8", "nl"),
        ("fr, EN;q=0.2", "en"),
        ("en;q=0, nl;q=0", "nl"),
        ("en;q=much", "nl"),
        (";;,=", "nl"),
    ],
)
def test_language_by_browser(header: str, language: str) -> None:
    assert language_of(make_mocked_request("GET", "/", {"Accept-Language": header})) == language
    assert language_of(make_mocked_request("GET", "/?lang=xx", {"Accept-Language": header})) == language


def test_both_languages_say_everything() -> None:
    assert set(TEXTS) == set(LANGUAGE_NAMES)
    assert set(TEXTS["nl"]) == set(TEXTS["en"])
    assert all(sentence for texts in TEXTS.values() for sentence in texts.values())


def test_attribute_labels() -> None:
    assert attribute_label("nl", "birthdate") == "Geboortedatum"
    assert attribute_label("en", "shoe_size") == "shoe_size"


def test_demo_identities_are_fictitious() -> None:
    for identity in DEMO_IDENTITIES:
        assert set(identity.attributes) == {"fullname", "bsn", "birthdate", "address"}
        bsn = identity.attributes["bsn"]
        assert re.fullmatch(r"99999\d{4}", bsn)
        weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
        assert sum(weight * int(digit) for weight, digit in zip(weights, bsn, strict=True)) % 11 == 0
    assert Counter(identity.attributes["bsn"] for identity in DEMO_IDENTITIES).most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    ("continuation", "expected"),
    [
        ("https://a.example/c", "https://a.example/c?result=T"),
        ("https://a.example/c?", "https://a.example/c?result=T"),
        ("https://a.example/c?k=%2F+1", "https://a.example/c?k=%2F+1&result=T"),
        ("https://a.example/c#part", "https://a.example/c?result=T#part"),
    ],
)
def test_result_in_the_address(continuation: str, expected: str) -> None:
    assert with_result(continuation, "T") == expected


def test_settings_do_not_show_the_private_key() -> None:
    assert "PRIVATE" not in repr(auth_settings("http://127.0.0.1"))


@pytest.mark.parametrize("method", KEYS)
@pytest.mark.parametrize("pem", ["", "no key"])
def test_improper_key_is_refused_at_once(method: str, pem: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words
        auth_app(replace(auth_settings("http://127.0.0.1", method), signing_key=pem))


def test_keys_of_the_other_dialect_are_refused_at_once() -> None:
    for method, dialect in (("demoid", VERDER_HELPEN), ("voorbeeldpas", ID_CONTACT)):
        with pytest.raises(JoseError, match="Not a key of"):
            auth_app(replace(auth_settings("http://127.0.0.1", method), dialect=dialect))
