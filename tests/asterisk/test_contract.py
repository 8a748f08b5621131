"""The contract with ID Contact and Verder Helpen: the interface, driven as core, auth plugins and browsers do.

Each way of delivery, in each dialect, with each kind of key, in the right order and in a wrong one. What proves that
it went well is what the agent sees in a real call, or else what the store holds.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from base64 import urlsafe_b64encode
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from joserfc import jwe
from joserfc.jwk import RSAKey

from idbellen.demo.tokens import ID_CONTACT, VERDER_HELPEN
from idbellen.domain.codes import Fingerprints
from idbellen.domain.idcontact import LARGEST_TOKEN, AuthResult, AuthStatus, load_key
from idbellen.domain.ids import CallId, Secret
from idbellen.service.config import load, read_master_key
from idbellen.service.storage import open_store
from tests.support.installation import ATTRIBUTES
from tests.support.sipp import phones

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from idbellen.service.storage import Store
    from tests.support.dashboards import Dashboard
    from tests.support.installation import Installation
    from tests.support.sipp import AgentPhone, Phones

    Install = Callable[..., Awaitable[Installation]]

JWT = {"Content-Type": "application/jwt"}
# "birthdate" is not allowed for the purpose.
ALLOWED = {name: ATTRIBUTES[name] for name in ("fullname", "bsn")}
SESSION_URL = "https://auth.example/session"
DIALECTS = (ID_CONTACT, VERDER_HELPEN)
KEYS = ("rsa", "ec")
REPLAYED = {"error": "BadRequest", "detail": "auth result refused: replayed"}


# What core, auth plugin and browser do


async def post(url: str, headers: Mapping[str, str] | None = None, **content: Any) -> tuple[int, Any]:
    """Send one request; gives status and JSON, None for an empty answer."""
    async with aiohttp.ClientSession(headers=headers) as http, http.post(url, **content) as answer:
        return answer.status, await answer.json() if await answer.read() else None


async def start(installation: Installation, *, way: str = "", **body: object) -> tuple[int, dict[str, Any]]:
    """Start a communication as the core does; ``way`` is ``/page`` or ``/tel`` if the core offers both."""
    url = f"{installation.internal_url}{way}/start_communication"
    return await post(url, json={"purpose": "report_move"} | body)


async def started(installation: Installation, **how: Any) -> dict[str, Any]:
    """Start a communication, which succeeds."""
    status, answer = await start(installation, **how)
    assert status == 200, answer
    note(installation, code_in(answer["client_url"]))
    return answer


async def deliver(attr_url: str, token: str) -> tuple[int, Any]:
    """Deliver an auth result as an auth plugin does."""
    return await post(attr_url, JWT, data=token)


def code_in(text: str) -> str:
    """Give the code that a page or an address dials; empty if there is none."""
    found = re.search(r"tel:\+[0-9]+,([0-9]+)", text)
    return found[1] if found else ""


def note(installation: Installation, code: str) -> None:
    """Note a code for the search of the logs (tests/asterisk/test_logs.py)."""
    if code:
        installation.codes.append(code)


@dataclass(frozen=True, slots=True)
class Page:
    """A citizen's page in a browser of its own."""

    http: aiohttp.ClientSession
    url: str
    status: int
    text: str

    @property
    def code(self) -> str:
        return code_in(self.text)

    async def reload(self) -> str:
        async with self.http.get(self.url) as answer:
            return await answer.text()

    async def until(self, stage: str) -> None:
        """Wait until the page hears that the call has come so far."""
        async with asyncio.timeout(20), self.http.get(f"{self.url}live") as events:
            async for line in events.content:
                if f'"stage": "{stage}"' in line.decode():
                    return
        raise AssertionError(f"the page did not hear of {stage}")

    async def end(self) -> None:
        """End the session, as the citizen can."""
        async with self.http.post(f"{self.url}end", headers={"Origin": self.url.rstrip("/")}) as answer:
            assert answer.ok


@asynccontextmanager
async def opened(installation: Installation, client_url: str, token: str | None = None) -> AsyncIterator[Page]:
    """Open the citizen's page in a new browser, which may bring an auth result along."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with http.get(client_url, params={"result": token} if token else {}) as answer:
            text = await answer.text()
        note(installation, code_in(text))
        yield Page(http, str(answer.url), answer.status, text)


async def code_on(installation: Installation, client_url: str, token: str | None = None) -> str:
    """Open the citizen's page; gives the code on it."""
    async with opened(installation, client_url, token) as page:
        assert page.code, page.text
        return page.code


@asynccontextmanager
async def store_of(installation: Installation) -> AsyncIterator[Store]:
    """Open the store beside the service, to look into it."""
    settings = load(installation.config)
    fingerprints = Fingerprints(read_master_key(settings.sessions.master_key_file))
    async with open_store(settings, fingerprints) as store:
        yield store


# What the agent does


@asynccontextmanager
async def at_the_desk(installation: Installation) -> AsyncIterator[tuple[Phones, Dashboard, AgentPhone]]:
    """Have one agent available, with dashboard and phone; at the end nothing of a call may be left."""
    async with phones(installation.pbx, installation.folder) as telephony:
        agent = await telephony.agent("agent1")
        async with installation.dashboard("agent1") as dashboard:
            await dashboard.available()
            yield telephony, dashboard, agent
        await installation.until_nothing_is_left()


async def seen(dashboard: Dashboard) -> tuple[str, dict[str, str]]:
    """Give what the agent sees of the call in hand: how verified it is, and the attributes."""
    status, shown = await dashboard.attributes((await dashboard.until("in_call"))["call"]["secret"])
    assert status == 200
    return shown["status"], {attribute["name"]: attribute["value"] for attribute in shown["attributes"]}


# Three ways of delivery, one of them at three moments; each gives the address of the page and the code


async def with_the_start(installation: Installation, token: str) -> tuple[str, str]:
    answer = await started(installation, auth_result=token)
    assert set(answer) == {"client_url"}
    return answer["client_url"], await code_on(installation, answer["client_url"])


async def with_the_browser(installation: Installation, token: str) -> tuple[str, str]:
    answer = await started(installation)
    return answer["client_url"], await code_on(installation, answer["client_url"], token)


async def before_the_page(installation: Installation, token: str) -> tuple[str, str]:
    answer = await started(installation)
    assert await deliver(answer["attr_url"], token) == (200, None)
    return answer["client_url"], await code_on(installation, answer["client_url"])


async def while_the_page_is_open(installation: Installation, token: str) -> tuple[str, str]:
    answer = await started(installation)
    async with opened(installation, answer["client_url"]) as page:
        assert await deliver(answer["attr_url"], token) == (200, None)
        assert code_in(await page.reload()) == page.code
    return answer["client_url"], page.code


async def during_the_call(installation: Installation, token: str) -> tuple[str, str]:
    answer = await started(installation)
    code = await code_on(installation, answer["client_url"])
    call, secret = CallId(secrets.token_hex()), Secret(secrets.token_hex())
    async with store_of(installation) as store:
        assert await store.claim(code, call=call, secret=secret, now=time.time())
        assert await deliver(answer["attr_url"], token) == (200, None)
        session = await store.by_secret(secret)
        assert session
        assert session.result
        await store.release(call)
    return answer["client_url"], code


WAYS = (with_the_start, with_the_browser, before_the_page, while_the_page_is_open, during_the_call)


async def test_each_dialect_with_each_kind_of_key_in_each_way(
    installation: Installation, subtests: pytest.Subtests
) -> None:
    for dialect, keys, way in product(DIALECTS, KEYS, WAYS):
        with subtests.test(dialect=dialect.name, keys=keys, way=way.__name__):
            token = installation.token(
                keys=keys, status=dialect.success, subject=dialect.subject, session_url=SESSION_URL
            )
            client_url, code = await way(installation, token)
            async with store_of(installation) as store:
                session = await store.by_page_handle(client_url.rsplit("/", 1)[1])
                claimed = await store.claim(code, call=CallId(code), secret=Secret(code), now=time.time())
            assert session == claimed, "the code is this session's"
            assert session
            # What is sealed in the store is this and no more.
            assert session.result == AuthResult(AuthStatus.SUCCESS, ALLOWED, SESSION_URL)
    files = b"".join(file.read_bytes() for file in installation.folder.glob("idbellen.db*"))
    assert b"report_move" in files
    # The names as they were sealed: "bsn" alone comes about by chance in so much that is sealed.
    for value in (*map(json.dumps, ATTRIBUTES), *ATTRIBUTES.values(), SESSION_URL):
        assert value.encode() not in files


async def test_a_large_result_fits_into_the_address_of_the_page(installation: Installation) -> None:
    answer = await started(installation)
    attributes = {"fullname": "Q" * 15_000}
    token = installation.token(attributes)
    assert 20_000 < len(token) < LARGEST_TOKEN
    code = await code_on(installation, answer["client_url"], token)
    async with store_of(installation) as store:
        session = await store.claim(code, call=CallId(code), secret=Secret(code), now=time.time())
    assert session
    assert session.result == AuthResult(AuthStatus.SUCCESS, attributes)


async def test_the_agent_sees_what_came_before_the_call(installation: Installation) -> None:
    async with at_the_desk(installation) as (telephony, dashboard, _):
        for way, dialect, keys in (
            (with_the_start, VERDER_HELPEN, "ec"),
            (with_the_browser, ID_CONTACT, "rsa"),
        ):
            token = installation.token(keys=keys, status=dialect.success, subject=dialect.subject)
            _, code = await way(installation, token)
            caller = await telephony.call(code)
            assert await seen(dashboard) == ("verified", ALLOWED)
            caller.go_on()
            await caller.ended()
            await dashboard.until("available")


@pytest.mark.parametrize(
    ("status", "becomes"), [("success", ("verified", ALLOWED)), ("failed", ("failed", {}))], ids=["success", "failed"]
)
async def test_a_late_result_reaches_the_agent_who_talks(
    install: Install, status: str, becomes: tuple[str, dict[str, str]]
) -> None:
    installation = await install(purpose__admit_unverified="true")
    answer = await started(installation)
    code = await code_on(installation, answer["client_url"])
    token = installation.token(keys="ec", status=status, subject=VERDER_HELPEN.subject)
    async with at_the_desk(installation) as (telephony, dashboard, _):
        caller = await telephony.call(code)
        assert await seen(dashboard) == ("pending", {})
        assert dashboard.snapshot["call"]["results"] == 0
        assert await deliver(answer["attr_url"], token) == (200, None)
        assert (await dashboard.next())["call"]["results"] == 1
        assert await seen(dashboard) == becomes
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")
    assert await deliver(answer["attr_url"], installation.token()) == (404, {"error": "NotFound"}), "after the call"


async def test_an_agent_is_told_which_data_did_not_come(install: Install) -> None:
    installation = await install()
    some, nothing = {"fullname": "Naam"}, {"fullname": "Naam", "bsn": "bsn"}
    async with at_the_desk(installation) as (telephony, dashboard, _):
        for attributes, way, missing in (
            ({"naam": ATTRIBUTES["fullname"], "bsn": ATTRIBUTES["bsn"]}, with_the_start, some),
            ({"naam": ATTRIBUTES["fullname"]}, before_the_page, nothing),
            (None, with_the_browser, nothing),
        ):
            _, code = await way(installation, installation.token(attributes))
            caller = await telephony.call(code)
            secret = (await dashboard.until("in_call"))["call"]["secret"]
            _, shown = await dashboard.attributes(secret)
            assert (shown["status"], shown["missing"]) == ("verified", list(missing.values()))
            assert len(shown["attributes"]) == 2 - len(missing)
            caller.go_on()
            await caller.ended()
            await dashboard.until("available")
    lines = [line for line in installation.log.read_text().splitlines() if "attributes missing" in line]
    for line, (came, lacks) in zip(
        lines, (("bsn,naam", "fullname"), ("naam", "fullname,bsn"), ("none", "fullname,bsn")), strict=True
    ):
        assert "compare the names in [purposes] attributes with those that the core asks for" in line
        assert re.search(rf"came={came} expected=fullname,bsn missing={lacks} purpose=report_move session=\S", line)


async def test_a_caller_who_is_quicker_than_the_result_waits_for_it(installation: Installation) -> None:
    answer = await started(installation)
    async with (
        at_the_desk(installation) as (telephony, dashboard, _),
        opened(installation, answer["client_url"]) as page,
    ):
        caller = await telephony.call(page.code)
        await page.until("accepted")
        assert "accepted=True" not in installation.log.read_text()
        assert await deliver(answer["attr_url"], installation.token()) == (200, None)
        assert await seen(dashboard) == ("verified", ALLOWED)
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")


async def test_the_code_of_a_failed_login_is_refused(installation: Installation) -> None:
    answer = await started(installation)
    async with at_the_desk(installation) as (telephony, *_), opened(installation, answer["client_url"]) as page:
        assert await deliver(answer["attr_url"], installation.token(None, status="failed")) == (200, None)
        text = await page.reload()
        assert "U bent niet ingelogd" in text
        assert not code_in(text)
        caller = await telephony.call(page.code)
        await installation.until_log("accepted=False")
        assert "verdict=refuse" in installation.log.read_text()
        caller.go_on()
        await caller.ended()


# Wrong orders, and the same again


async def test_a_session_takes_one_result(installation: Installation) -> None:
    conflict = (409, {"error": "Conflict"})
    for first in (installation.token(), installation.token(None, status="failed")):
        answer = await started(installation)
        assert await deliver(answer["attr_url"], first) == (200, None)
        for second in (first, installation.token(), installation.token(None, status="failed")):
            assert await deliver(answer["attr_url"], second) == conflict
    answer = await started(installation)
    await code_on(installation, answer["client_url"], installation.token())
    assert await deliver(answer["attr_url"], installation.token()) == conflict, "the browser was first"
    answer = await started(installation)
    ways = await asyncio.gather(*(deliver(answer["attr_url"], installation.token()) for _ in range(5)))
    assert sorted(status for status, _ in ways) == [200, 409, 409, 409, 409]


@pytest.mark.parametrize("status", ["success", "failed"])
async def test_a_token_counts_once(installation: Installation, status: str) -> None:
    token = installation.token(status=status)
    first, second = await started(installation), await started(installation)
    assert await deliver(first["attr_url"], token) == (200, None)

    async def is_refused_everywhere() -> None:
        assert await deliver(second["attr_url"], token) == (400, REPLAYED)
        assert await start(installation, auth_result=token) == (400, REPLAYED)
        answer = await started(installation)
        async with opened(installation, answer["client_url"], token) as page:
            assert (page.status, page.code) == (400, "")

    await is_refused_everywhere()
    async with opened(installation, first["client_url"]) as page:
        await page.end()
    assert await deliver(first["attr_url"], installation.token()) == (404, {"error": "NotFound"})
    await is_refused_everywhere()
    assert await deliver(second["attr_url"], installation.token()) == (200, None), "another token"


async def test_two_logins_of_one_second_both_count(installation: Installation) -> None:
    now = time.time()
    for _ in range(2):
        answer = await started(installation)
        assert await deliver(answer["attr_url"], installation.token(now=now)) == (200, None)


# What is refused


def inner(token: str, keys_folder: Path) -> str:
    """Give what an auth plugin signed, out of its envelope."""
    envelope = jwe.decrypt_compact(token, own_key(keys_folder), algorithms=["RSA-OAEP", "A128CBC-HS256"])
    signed: str = json.loads(envelope.plaintext or b"")["njwt"]
    return signed


def sealed(signed: str, keys_folder: Path) -> str:
    """Put an envelope around what was signed, as anybody who has our public key can."""
    header = {"alg": "RSA-OAEP", "enc": "A128CBC-HS256"}
    text = json.dumps({"njwt": signed})
    return jwe.encrypt_compact(header, text, own_key(keys_folder), algorithms=list(header.values()))


def own_key(keys_folder: Path) -> Any:
    return load_key((keys_folder / "own-rsa/decryption-key.pem").read_bytes())


def tampered(token: str, part: int) -> str:
    """Change one character of one of the five parts of a token, or add one to an empty part."""
    parts = token.split(".")
    start, changed, end = parts[part][:4], parts[part][4:5], parts[part][5:]
    parts[part] = start + ("B" if changed == "A" else "A") + end
    return ".".join(parts)


def unsigned(token: str, keys_folder: Path) -> str:
    header = urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    return sealed(f"{header}.{inner(token, keys_folder).split('.')[1]}.", keys_folder)


async def test_what_no_known_plugin_made_for_us_now_is_refused(
    installation: Installation, keys_folder: Path, subtests: pytest.Subtests
) -> None:
    make = installation.token
    refused = [
        *(("tampered", "not encrypted for us", tampered(make(keys=keys), part)) for keys in KEYS for part in range(5)),
        ("expired", "expired", make(now=time.time() - 400)),
        ("issued in the future", "issued in the future", make(now=time.time() + 100)),
        ("encrypted for another", "not encrypted for us", make(encryption_key=RSAKey.generate_key(2048))),
        ("signed by another", "not signed by a known", make(signing_key=RSAKey.generate_key(2048))),
        ("unsigned", "not signed by a known", unsigned(make(), keys_folder)),
        ("other signature", "not signed by a known", make(signature="RS512")),
        ("other key encryption", "not encrypted for us", make(key_encryption="RSA-OAEP-256")),
        ("other content encryption", "not encrypted for us", make(content_encryption="A256GCM")),
        ("not encrypted", "not encrypted for us", inner(make(), keys_folder)),
        ("other subject", "claim sub", make(subject="id-contact-proxy")),
        ("other status", "claim status", make(status="maybe")),
        ("nonsense", "not encrypted for us", "nonsense"),
    ]
    answer = await started(installation)
    for name, reason, token in refused:
        with subtests.test(name):
            for status, refusal in (
                await deliver(answer["attr_url"], token), await start(installation, auth_result=token)
            ):  # fmt: skip
                assert (status, refusal["error"]) == (400, "BadRequest")
                assert refusal["detail"].startswith(f"auth result refused: {reason}")
            async with opened(installation, answer["client_url"], token) as page:
                assert (page.status, page.code) == (400, "")
    assert await deliver(answer["attr_url"], make()) == (200, None), "the session goes on"
    assert await code_on(installation, answer["client_url"]), "and so does the page"


async def test_an_oversized_result_is_refused(installation: Installation) -> None:
    answer = await started(installation)
    token = installation.token({"fullname": "x" * LARGEST_TOKEN})
    assert len(token) > LARGEST_TOKEN
    for size, refusal in {
        LARGEST_TOKEN + 1: (
            400, {"error": "BadRequest", "detail": f"auth result refused: larger than {LARGEST_TOKEN} bytes"}
        ),
        len(token): (413, {"error": "RequestEntityTooLarge"}),
    }.items():  # fmt: skip
        assert await deliver(answer["attr_url"], token[:size]) == refusal
        assert await start(installation, auth_result=token[:size]) == refusal


# Purposes, and where the citizen goes


async def test_an_unknown_purpose_is_refused(installation: Installation) -> None:
    detail = "unknown purpose: it is not in idbellen's configuration"
    assert await start(installation, purpose="other") == (400, {"error": "BadRequest", "detail": detail})


async def test_an_unknown_purpose_is_taken_for_the_default(install: Install) -> None:
    installation = await install(idcontact__default_purpose='"report_move"')
    answer = await started(installation, purpose="other", auth_result=installation.token())
    async with store_of(installation) as store:
        session = await store.by_page_handle(answer["client_url"].rsplit("/", 1)[1])
    assert session
    assert session.purpose == "report_move"
    assert session.result
    assert session.result.attributes == ALLOWED


async def test_the_citizen_dials_the_number_of_the_purpose_and_the_code_works(install: Install) -> None:
    installation = await install(idcontact__client_url='"tel"', purpose__phone_number='"+31207654321"')
    async with at_the_desk(installation) as (telephony, dashboard, _):
        answer = await started(installation)
        assert re.fullmatch(r"tel:\+31207654321,[0-9]{10}", answer["client_url"])
        assert await deliver(answer["attr_url"], installation.token()) == (200, None)
        caller = await telephony.call(code_in(answer["client_url"]))
        assert await seen(dashboard) == ("verified", ALLOWED)
        caller.go_on()
        await caller.ended()
        await dashboard.until("available")


OTHER_PURPOSES = """
[purposes.ask]
title = { nl = "Iets vragen", en = "Ask something" }
attributes = []
client_url = "tel"
phone_number = "+31201111111"
admit_unverified = true
[purposes.late]
title = { nl = "Iets vragen", en = "Ask something" }
attributes = []
queue = "closed"
[queues.closed]
monday = "closed"
"""


async def test_the_way_of_a_purpose_and_of_an_address_go_first(install: Install) -> None:
    installation = await install(more=OTHER_PURPOSES)
    page = re.escape(installation.citizen_url) + "/start/.+"
    for purpose, way, wanted in (
        ("report_move", "", page),
        ("report_move", "/page", page),
        ("report_move", "/tel", r"tel:\+31201234567,[0-9]{10}"),
        ("ask", "", r"tel:\+31201111111,[0-9]{10}"),
        ("ask", "/page", page),
        ("late", "/tel", page),
    ):
        answer = await started(installation, way=way, purpose=purpose)
        assert re.fullmatch(wanted, answer["client_url"]), (purpose, way)
    async with opened(installation, answer["client_url"]) as closed:
        assert "Wij zijn nu gesloten" in closed.text
        assert not closed.code


async def test_who_is_not_let_in_gets_no_address_to_dial(install: Install) -> None:
    installation = await install(more=OTHER_PURPOSES)
    answer = await started(installation, way="/tel", auth_result=installation.token(None, status="failed"))
    assert answer["client_url"].startswith(installation.citizen_url)
    async with opened(installation, answer["client_url"]) as page:
        assert "U bent niet ingelogd" in page.text
    answer = await started(installation, purpose="ask", auth_result=installation.token(None, status="failed"))
    assert code_in(answer["client_url"]), "who is let in unverified"


# Credentials


@pytest.mark.parametrize("protect", ["start", "all"])
async def test_credentials_are_asked_for(install: Install, tmp_path: Path, protect: str) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    (tmp_path / "token").write_text("battery-staple\n")
    installation = await install(
        idcontact__basic_user='"core"',
        idcontact__basic_password_file=f'"{tmp_path / "password"}"',
        idcontact__bearer_token_file=f'"{tmp_path / "token"}"',
        idcontact__protect=f'"{protect}"',
    )
    url = f"{installation.internal_url}/start_communication"
    body = {"purpose": "report_move"}
    right = (aiohttp.encode_basic_auth("core", "correct horse"), "Bearer battery-staple", "bearer battery-staple")
    wrong = (
        "", "Bearer", "Bearer correct horse", "Basic battery-staple", "battery-staple", "Digest battery-staple",
        aiohttp.encode_basic_auth("core", "battery-staple"), aiohttp.encode_basic_auth("other", "correct horse"),
    )  # fmt: skip
    for shown in wrong:
        headers = {"Authorization": shown} if shown else {}
        async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json=body) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == 'Basic realm="idbellen", Bearer'
            assert await answer.json() == {"error": "Unauthorized"}
    for shown in right:
        status, answer = await post(url, {"Authorization": shown}, json=body)
        assert status == 200
        without = await deliver(answer["attr_url"], installation.token())
        assert without == ((401, {"error": "Unauthorized"}) if protect == "all" else (200, None))
        status, _ = await post(answer["attr_url"], JWT | {"Authorization": shown}, data=installation.token())
        assert status == (200 if protect == "all" else 409)
    log = installation.log.read_text()
    assert "wrong or no credentials" in log
    assert "battery" not in log
    assert "horse" not in log
