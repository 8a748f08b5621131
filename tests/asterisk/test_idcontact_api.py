"""The internal interface's answers to what is not as it should be; what goes well is in test_contract.py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from tests.asterisk.test_contract import JWT, deliver, post, start, started

if TYPE_CHECKING:
    import pytest

    from tests.support.installation import Installation


async def test_start_answers_with_both_addresses(installation: Installation) -> None:
    status, answer = await start(installation, more="fields of a later protocol")
    assert status == 200
    assert set(answer) == {"client_url", "attr_url"}
    assert answer["client_url"].startswith(f"{installation.citizen_url}/start/")
    assert answer["attr_url"].startswith(f"{installation.internal_url}/auth_result/")


async def test_bad_requests_are_refused_in_the_shape_of_the_reference(
    installation: Installation, subtests: pytest.Subtests
) -> None:
    url = f"{installation.internal_url}/start_communication"
    for body in (
        "",
        "nonsense",
        "[]",
        "{}",
        '{"purpose": 1}',
        '{"purpose": null}',
        '{"purpose": "report_move", "auth_result": 1}',
        '{"purpose": "\\ud800"}',
        '{"purpose": ' + "[" * 10_000,
    ):
        with subtests.test(body[:40]):
            detail = 'expected {"purpose": "...", "auth_result": "..." if there is one}'
            assert await post(url, data=body) == (400, {"error": "BadRequest", "detail": detail})
    detail = "purpose: longer than 256 characters"
    assert await start(installation, purpose="x" * 257) == (400, {"error": "BadRequest", "detail": detail})


async def test_a_body_that_is_not_what_its_headers_say_is_refused(installation: Installation) -> None:
    attr_url = (await started(installation))["attr_url"]
    refusal = {"error": "BadRequest", "detail": "not text in the charset that Content-Type names"}
    for url in (f"{installation.internal_url}/start_communication", attr_url):
        for charset in ("utf-8", "unheard-of"):
            headers = {"Content-Type": f"application/jwt; charset={charset}"}
            assert await post(url, headers, data=b"\xff\xfe not this") == (400, refusal)
    refusal["detail"] = "expected Content-Type: application/jwt"
    for content_type in ("text/plain", "application/json"):
        assert await post(attr_url, {"Content-Type": content_type}, data=installation.token()) == (400, refusal)
    assert (await post(attr_url, JWT, data=f"{installation.token()}\n"))[0] == 200, "as some clients end a line"


async def test_a_client_that_breaks_off_is_no_fault_of_the_service(installation: Installation) -> None:
    host, port = installation.internal_url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /start_communication HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    await installation.until_log("the body did not arrive as announced")


async def test_a_result_that_is_too_large_is_told(installation: Installation) -> None:
    photo = installation.token({"fullname": "A", "photo": "x" * 60_000})
    status, answer = await deliver((await started(installation))["attr_url"], photo)
    assert (status, answer) == (413, {"error": "RequestEntityTooLarge"})
    await installation.until_log("request refused reason='larger than 69632 bytes' route=/auth_result/{handle}")


async def test_unknown_addresses_and_methods(installation: Installation) -> None:
    token = installation.token()
    for path in ("auth_result/unknown", "auth_result/%ff%00%2f", "auth_result/", "other/start_communication", ""):
        assert await deliver(f"{installation.internal_url}/{path}", token) == (404, {"error": "NotFound"}), path
    for url in (f"{installation.internal_url}/start_communication", (await started(installation))["attr_url"]):
        async with aiohttp.ClientSession() as http:
            for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
                async with http.request(method, url) as answer:
                    assert answer.status == 405
                    assert answer.headers["Allow"] == "POST"


async def test_every_answer_has_the_security_headers(installation: Installation) -> None:
    async with aiohttp.ClientSession() as http:
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
