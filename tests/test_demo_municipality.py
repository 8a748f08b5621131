"""The demo's municipality and DemoID: a citizen's whole walk, as far as idbellen, which is played here."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request, unused_port
from aiohttp.typedefs import Handler
from joserfc import jwe, jws
from joserfc.jwk import ECKey, RSAKey
from structlog.testing import capture_logs
from yarl import URL

from idbellen.demo.auth import DEMO_IDENTITIES, MOST_LOGINS, AuthSettings, auth_app, with_result
from idbellen.demo.core import CoreSettings, Purpose, core_app
from idbellen.demo.texts import LANGUAGE_NAMES, TEXTS, attribute_label, language_of
from idbellen.demo.tokens import auth_result

SIGNING = RSAKey.generate_key(2048)
ENCRYPTION = RSAKey.generate_key(2048)
PURPOSES = (
    Purpose("report_move", "Verhuizing doorgeven", "Report a move", ("fullname", "bsn")),
    Purpose("question", "Een vraag <stellen>", "Ask a question", ()),
)
SANNE = DEMO_IDENTITIES[0]


class Idbellen:
    """What idbellen is to the stand-ins: the plugin's API, the address for results, the citizen's page."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.results: list[tuple[str, str]] = []
        self.visits: list[str] = []
        self.start_status = 200
        self.start_body: str | None = None
        self.attr_status = 200
        app = web.Application()
        app.router.add_post("/start_communication", self._start)
        app.router.add_post("/attr/one", self._attributes)
        app.router.add_get("/citizen/one", self._page)
        self.server = TestServer(app)

    async def _start(self, request: web.Request) -> web.Response:
        self.started.append(await request.json())
        body = self.start_body or json.dumps({"client_url": self.client_url, "attr_url": self.attr_url})
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


@dataclass
class Stage:
    idbellen: Idbellen
    core: TestServer
    auth: TestServer
    browser: aiohttp.ClientSession
    _stack: AsyncExitStack = field(repr=False)

    async def get(self, url: URL | str) -> tuple[URL, int, str]:
        async with self.browser.get(url) as answer:
            return answer.url, answer.status, await answer.text()

    async def send(self, url: URL | str, **form: str) -> tuple[URL, int, str]:
        async with self.browser.post(url, data=form) as answer:
            return answer.url, answer.status, await answer.text()

    async def start(self, **form: str) -> tuple[URL, int, str]:
        return await self.send(self.core.make_url("/start"), **form)

    async def log_in(self, **form: str) -> URL:
        """Start, choose an identity; gives the consent page."""
        url, status, _ = await self.start(purpose="report_move", **form)
        assert status == 200
        url, status, _ = await self.send(url, identity=SANNE.key)
        assert status == 200
        return url

    async def ask_auth(self, **body: object) -> tuple[int, Any]:
        async with self.browser.post(self.auth.make_url("/start_authentication"), json=body) as answer:
            return answer.status, await answer.json()

    async def extra_core(self, plugin_url: str, auth_url: str) -> URL:
        server = await serve(self._stack, core_app(CoreSettings(plugin_url, auth_url, PURPOSES)))
        return server.make_url("/start")


async def serve(stack: AsyncExitStack, app: web.Application, port: int | None = None) -> TestServer:
    server = TestServer(app, port=port)
    await stack.enter_async_context(server)
    return server


def auth_settings(public_url: str) -> AuthSettings:
    public = ENCRYPTION.as_pem(private=False).decode()
    return AuthSettings(public_url, SIGNING.as_pem(private=True).decode(), public)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        idbellen = Idbellen()
        await stack.enter_async_context(idbellen.server)
        port = unused_port()
        auth = await serve(stack, auth_app(auth_settings(f"http://127.0.0.1:{port}/")), port)
        plugin_url, auth_url = str(idbellen.server.make_url("/")), str(auth.make_url("/"))
        core = await serve(stack, core_app(CoreSettings(plugin_url, auth_url, PURPOSES)))
        browser = await stack.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), requote_redirect_url=False)
        )
        yield Stage(idbellen, core, auth, browser, stack)


def opened(token: str) -> dict[str, Any]:
    envelope = jwe.decrypt_compact(token, ENCRYPTION, algorithms=["RSA-OAEP", "A128CBC-HS256"])
    assert envelope.protected == {"typ": "JWT", "cty": "JWT", "enc": "A128CBC-HS256", "alg": "RSA-OAEP"}
    wrapped = json.loads(envelope.plaintext or b"")
    assert set(wrapped) == {"njwt"}
    signed = jws.deserialize_compact(wrapped["njwt"], SIGNING, algorithms=["RS256"])
    claims: dict[str, Any] = json.loads(signed.payload)
    return claims


async def test_walk_delivering_from_server_to_server(stage: Stage) -> None:
    _, status, start = await stage.get(stage.core.make_url("/"))
    assert status == 200
    assert '<html lang="nl">' in start
    assert "Een vraag &lt;stellen&gt;" in start

    url, status, choice = await stage.start(purpose="report_move", delivery="attr_url")
    assert status == 200
    assert url.port == stage.auth.port
    assert re.fullmatch(r"/login/[\w-]{20,}", url.path)
    assert stage.idbellen.started == [{"purpose": "report_move"}]
    assert all(identity.attributes["fullname"] in choice for identity in DEMO_IDENTITIES)

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
    assert claims == {
        "iss": "demo-auth",
        "sub": "id-contact-attributes",
        "iat": issued,
        "exp": issued + 300,
        "status": "succes",
        "attributes": {"fullname": "Sanne Voorbeeld", "bsn": SANNE.attributes["bsn"]},
    }


async def test_walk_delivering_with_the_browser(stage: Stage) -> None:
    consent = await stage.log_in(delivery="result")
    url, status, _ = await stage.send(consent, consent="yes")
    assert status == 200
    assert stage.idbellen.results == []
    [visit] = stage.idbellen.visits
    assert visit.startswith("/citizen/one?k=a%2Fb+c&result=")
    assert opened(url.query["result"])["attributes"]["bsn"] == SANNE.attributes["bsn"]


@pytest.mark.parametrize("delivery", ["attr_url", "result"])
async def test_refusing_is_a_failed_result_without_attributes(stage: Stage, delivery: str) -> None:
    consent = await stage.log_in(delivery=delivery)
    url, status, _ = await stage.send(consent, consent="no")
    assert status == 200
    token = url.query["result"] if delivery == "result" else stage.idbellen.results[0][1]
    claims = opened(token)
    assert claims["status"] == "failed"
    assert "attributes" not in claims


async def test_stopping_before_choosing_somebody_is_a_refusal(stage: Stage) -> None:
    url, _, page = await stage.start(purpose="report_move")
    assert f'formaction="{url.path}/consent"' in page
    await stage.send(url / "consent", consent="no")
    assert opened(stage.idbellen.results[0][1])["status"] == "failed"


async def test_purpose_without_attributes(stage: Stage) -> None:
    url, _, _ = await stage.start(purpose="question")
    url, _, page = await stage.send(url, identity=SANNE.key)
    assert TEXTS["nl"]["consent_nothing"] in page
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
        assert TEXTS["nl"]["gone_title"] in page
    assert len(stage.idbellen.results) == 1


async def test_undelivered_result_can_be_sent_again(stage: Stage) -> None:
    consent = await stage.log_in()
    stage.idbellen.attr_status = 500
    with capture_logs() as logged:
        _, status, page = await stage.send(consent, consent="yes")
    assert status == 502
    assert TEXTS["nl"]["undelivered_title"] in page
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
    url, _, _ = await stage.start(purpose="report_move")
    for form in ({}, {"identity": "nobody"}):
        _, status, page = await stage.send(url, **form)
        assert status == 400
        assert 'role="alert"' in page
        assert TEXTS["nl"]["choose_missing"] in page
    seen, status, _ = await stage.get(url / "consent")
    assert (seen, status) == (url, 200)
    seen, status, _ = await stage.send(url / "consent", consent="yes")
    assert (seen, status) == (url, 200)
    assert (await stage.send(url / "consent", consent="maybe"))[1] == 400
    assert stage.idbellen.results == []


async def test_nothing_chosen_at_the_municipality(stage: Stage) -> None:
    for form in ({}, {"purpose": "other"}):
        _, status, page = await stage.start(**form)
        assert status == 400
        assert TEXTS["nl"]["purpose_missing"] in page
        assert f"<title>{TEXTS['nl']['error_prefix']} " in page
    assert (await stage.start(purpose="report_move", delivery="pigeon"))[1] == 400
    assert stage.idbellen.started == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, '{"error": "NotFound"}'),
        (200, "no JSON"),
        (200, '{"client_url": "https://citizen.example/secret"}'),
        (200, '{"client_url": "javascript:secret", "attr_url": "https://plugin.example/secret"}'),
        (200, '{"client_url": "http://a/\\r\\nsecret: 1", "attr_url": "https://plugin.example/secret"}'),
    ],
)
async def test_plugin_answers_improperly(stage: Stage, status: int, body: str) -> None:
    stage.idbellen.start_status, stage.idbellen.start_body = status, body
    with capture_logs() as logged:
        _, seen, page = await stage.start(purpose="report_move")
    assert seen == 502
    assert TEXTS["nl"]["away_plugin"] in page
    assert '<a class="button" href="/">' in page
    [entry] = logged
    assert (entry["event"], entry["service"], entry["purpose"]) == ("demo.core.away", "plugin", "report_move")
    assert "secret" not in str(entry)


async def test_services_away(stage: Stage) -> None:
    nowhere, plugin = f"http://127.0.0.1:{unused_port()}", str(stage.idbellen.server.make_url("/"))
    start = await stage.extra_core(nowhere, str(stage.auth.make_url("/")))
    _, status, page = await stage.send(start, purpose="question")
    assert status == 502
    assert TEXTS["nl"]["away_plugin"] in page
    _, status, page = await stage.send(await stage.extra_core(plugin, nowhere), purpose="question")
    assert status == 502
    assert TEXTS["nl"]["away_auth"] in page


async def test_slow_plugin(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idbellen.demo.core.ANSWER_SECONDS", 0.05)
    async with TestServer(web.Application(middlewares=[_never])) as slow:
        start = await stage.extra_core(str(slow.make_url("/")), str(stage.auth.make_url("/")))
        with capture_logs() as logged:
            _, status, _ = await stage.send(start, purpose="question")
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
    consent = await stage.log_in()
    for url in (stage.core.make_url("/"), consent.parent, consent):
        _, _, html = await stage.get(url)
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", html)
        assert html.count("<h1") == html.count("<main") == 1


async def test_language_by_choice_stays_on_both_sites(stage: Stage) -> None:
    _, _, html = await stage.get(stage.core.make_url("/").with_query(lang="en"))
    assert '<html lang="en">' in html
    url, _, html = await stage.start(purpose="report_move")
    assert TEXTS["en"]["choose_title"] in html
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


@pytest.mark.parametrize("pem", ["", "no key"])
def test_improper_key_is_refused_at_once(pem: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words
        auth_app(replace(auth_settings("http://127.0.0.1"), signing_key=pem))


def test_auth_result_with_ec_keys() -> None:
    signing, encryption = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    token = auth_result(
        {"bsn": "999990007"},
        status="success",
        subject="verder-helpen-attributes",
        signing_key=signing,
        encryption_key=encryption,
        now=1000.9,
        signature="ES256",
        key_encryption="ECDH-ES",
    )
    envelope = jwe.decrypt_compact(token, encryption, algorithms=["ECDH-ES", "A128CBC-HS256"])
    inner = json.loads(envelope.plaintext or b"")["njwt"]
    claims = json.loads(jws.deserialize_compact(inner, signing, algorithms=["ES256"]).payload)
    assert (claims["iat"], claims["exp"], claims["status"]) == (1000, 1300, "success")
