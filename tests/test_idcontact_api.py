"""The internal interface and the citizen's page, driven over HTTP as core, auth plugins and browsers do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.installation import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.installation import Installation

JWT = {"Content-Type": "application/jwt"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def start(http: aiohttp.ClientSession, installation: Installation, **body: object) -> tuple[int, dict]:
    url = f"{installation.internal_url}/start_communication"
    async with http.post(url, json={"purpose": "report_move"} | body) as answer:
        return answer.status, await answer.json()


async def deliver(http: aiohttp.ClientSession, url: str, token: str, headers: dict = JWT) -> tuple[int, str]:
    async with http.post(url, data=token, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_start_answers_with_both_addresses(installation: Installation, http: aiohttp.ClientSession) -> None:
    status, answer = await start(http, installation)
    assert status == 200
    assert set(answer) == {"client_url", "attr_url"}
    assert answer["client_url"].startswith(installation.citizen_url)
    assert answer["attr_url"].startswith(installation.internal_url)


async def test_a_result_in_the_start_request_needs_no_attr_url(
    installation: Installation, http: aiohttp.ClientSession
) -> None:
    status, answer = await start(http, installation, auth_result=installation.token())
    assert (status, set(answer)) == (200, {"client_url"})
    status, answer = await start(http, installation, auth_result="nonsense")
    assert (status, answer["error"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    "body", ["", "nonsense", "[]", "{}", '{"purpose": 1}', '{"purpose": "unknown"}', '{"purpose": null}']
)
async def test_bad_requests_are_refused_in_the_shape_of_the_reference(
    installation: Installation, http: aiohttp.ClientSession, body: str
) -> None:
    async with http.post(f"{installation.internal_url}/start_communication", data=body) as answer:
        content = await answer.json()
    assert answer.status == 400
    assert content["error"] == "BadRequest"
    assert content["detail"]


async def test_results_are_accepted_once(installation: Installation, http: aiohttp.ClientSession) -> None:
    _, answer = await start(http, installation)
    attr_url = answer["attr_url"]
    refusals = {
        "nonsense": "not encrypted for us",
        installation.token(now=time.time() - 400): "expired",
        installation.token(subject="other"): "claim sub",
    }
    for token, reason in refusals.items():
        status, text = await deliver(http, attr_url, token)
        assert status == 400
        assert reason in text
    status, text = await deliver(http, attr_url, installation.token(), {"Content-Type": "text/plain"})
    assert (status, "application/jwt" in text) == (400, True)
    assert (await deliver(http, attr_url, installation.token()))[0] == 200
    status, text = await deliver(http, attr_url, installation.token())
    assert (status, text) == (409, '{"error": "Conflict"}')


async def test_unknown_addresses_and_large_bodies(installation: Installation, http: aiohttp.ClientSession) -> None:
    url = f"{installation.internal_url}/auth_result/unknown"
    assert await deliver(http, url, installation.token()) == (404, '{"error": "NotFound"}')
    _, answer = await start(http, installation)
    status, text = await deliver(http, answer["attr_url"], "x" * 200_000)
    assert (status, "RequestEntityTooLarge" in text) == (413, True)


async def test_the_page_is_for_the_first_browser_and_survives_a_reload(
    installation: Installation, http: aiohttp.ClientSession
) -> None:
    _, answer = await start(http, installation)
    await deliver(http, answer["attr_url"], installation.token())
    async with http.get(answer["client_url"]) as page:
        first = await page.text()
    assert page.status == 200
    assert str(page.url) == f"{installation.citizen_url}/", "no handle and no code stay in the address"
    async with http.get(page.url) as again:
        assert await again.text() == first
    async with aiohttp.ClientSession() as thief, thief.get(answer["client_url"]) as page:
        assert page.status == 410
    cookie = next(iter(http.cookie_jar))
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    for value in ATTRIBUTES.values():
        assert value not in first


async def test_a_new_code_takes_the_place_of_the_old(installation: Installation, http: aiohttp.ClientSession) -> None:
    _, answer = await start(http, installation)
    async with http.get(answer["client_url"]) as page:
        first = await page.text()
    url = f"{installation.citizen_url}/new-code"
    async with http.post(url) as refused:
        assert refused.status == 403, "a form of another site"
    async with http.post(url, headers={"Origin": installation.citizen_url}) as page:
        assert await page.text() != first


async def test_the_result_may_come_along_with_the_browser(
    installation: Installation, http: aiohttp.ClientSession
) -> None:
    _, answer = await start(http, installation)
    async with http.get(answer["client_url"], params={"result": installation.token()}) as page:
        assert page.status == 200
        assert "result" not in str(page.url)
    status, _ = await deliver(http, answer["attr_url"], installation.token())
    assert status == 409, "it was taken"
    _, answer = await start(http, installation)
    async with http.get(answer["client_url"], params={"result": "nonsense"}) as page:
        assert page.status == 400


async def test_a_failed_login_gives_no_code(installation: Installation, http: aiohttp.ClientSession) -> None:
    _, answer = await start(http, installation)
    await deliver(http, answer["attr_url"], installation.token(None, status="failed"))
    async with http.get(answer["client_url"], headers={"Accept-Language": "en"}) as page:
        text = await page.text()
    assert "You are not logged in" in text
    assert 'id="code"' not in text


async def test_the_page_speaks_the_language_of_the_browser(
    installation: Installation, http: aiohttp.ClientSession
) -> None:
    for header, words in {
        "nl-NL,nl;q=0.9": "Bel ons nu",
        "en-GB,en": "Call us now",
        "fr": "Bel ons nu",
        "": "Bel ons nu",
    }.items():
        _, answer = await start(http, installation)
        async with http.get(answer["client_url"], headers={"Accept-Language": header}) as page:
            assert words in await page.text()


async def test_every_answer_has_the_security_headers(
    installation: Installation, http: aiohttp.ClientSession
) -> None:
    for url in (
        f"{installation.citizen_url}/",
        f"{installation.citizen_url}/nowhere",
        f"{installation.dashboard_url}/login",
        f"{installation.dashboard_url}/live",
    ):
        async with http.get(url) as answer:
            headers = answer.headers
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "idbellen"
