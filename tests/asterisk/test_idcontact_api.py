"""The internal interface's answers to what is not as it should be; what goes well is in test_contract.py."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest
from joserfc import jwe, jws

from idbellen.domain.idcontact import load_key
from tests.asterisk.test_contract import ALLOWED, JWT, deliver, post, start, started, store_of
from tests.support.installation import run_cli

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.support.installation import Installation

    Install = Callable[..., Awaitable[Installation]]


async def new_session(installation: Installation) -> tuple[str, str]:
    """Start a communication; gives its attr_url, and what the log calls it."""
    before = len(installation.log.read_text())
    attr_url = (await started(installation))["attr_url"]
    found = re.search(r"session started .*session=(\S+)", installation.log.read_text()[before:])
    assert found
    return attr_url, found[1]


def logged(installation: Installation, text: str) -> list[str]:
    return [line for line in installation.log.read_text().splitlines() if text in line]


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
    attr_url, session = await new_session(installation)
    status, answer = await deliver(attr_url, photo)
    assert (status, answer) == (413, {"error": "RequestEntityTooLarge"})
    [line] = logged(installation, "request refused")
    assert "reason='larger than 69632 bytes' route=/auth_result/{handle}" in line
    assert "purpose=report_move" in line
    assert f"session={session}" in line


async def test_a_refusal_names_session_and_purpose(installation: Installation) -> None:
    (attr_url, session), used = await new_session(installation), installation.token()
    assert (await deliver(attr_url, "nonsense"))[0] == 400
    assert (await post(attr_url, {"Content-Type": "text/plain"}, data=used))[0] == 400
    assert (await deliver(attr_url, used))[0] == 200
    assert (await deliver(attr_url, installation.token()))[0] == 409
    lines = logged(installation, " refused")
    assert len(lines) == 3
    for line, reason in zip(lines, ("not encrypted for us", "expected Content-Type", "has one already"), strict=True):
        assert reason in line
        assert "purpose=report_move" in line
        assert f"session={session}" in line
    # Of what refuses a start there is no session.
    assert (await start(installation, auth_result="nonsense"))[0] == 400
    assert (await start(installation, auth_result=used))[0] == 400
    assert (await start(installation, purpose="request_permit"))[0] == 400
    *results, permit = logged(installation, "route=/start_communication")
    assert [("purpose=report_move" in line) for line in results] == [True, True]
    assert "purpose=request_permit" in permit
    assert "unknown purpose: it is not in idbellen's configuration" in permit
    # What is no name could be anybody's.
    assert (await start(installation, purpose="Quirijn Zevenaar"))[0] == 400
    assert "purpose='and 1 more'" in logged(installation, "route=/start_communication")[-1]
    assert "Quirijn" not in installation.log.read_text()


async def test_what_comes_for_no_session_is_in_the_log(installation: Installation) -> None:
    for _ in range(3):
        assert await deliver(f"{installation.internal_url}/auth_result/guess", installation.token()) == (
            404, {"error": "NotFound"},
        )  # fmt: skip
    [line] = logged(installation, "auth result refused")
    assert "there is no such session: it is over, or attr_url was changed" in line
    await installation.stop()
    assert "times=2" in logged(installation, "auth result refused")[-1]
    assert "guess" not in installation.log.read_text()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 10**400}, "claim exp is not a time"),
        ({"exp": math.inf}, "claim exp is not a time"),
        ({"exp": math.nan}, "claim exp is not a time"),
        ({"exp": round(1000 * time.time()) + 300_000}, "claim exp is more than a day ahead: expected seconds"),
        ({"iat": -(10**400)}, "claim iat is not a time"),
        ({"iat": round(1000 * time.time())}, "issued in the future"),
        ({"nbf": time.time() + 3600}, "not valid yet"),
    ],
    ids=["huge", "infinite", "not a number", "in milliseconds", "ages ago", "issued in milliseconds", "not yet"],
)
async def test_odd_times_are_refused_with_a_reason(
    installation: Installation, keys_folder: Path, claims: dict[str, float], reason: str
) -> None:
    now = round(time.time())
    usual = {"sub": "id-contact-attributes", "status": "succes", "attributes": ALLOWED, "iat": now, "exp": now + 300}
    signing = load_key((keys_folder / "auth-rsa/decryption-key.pem").read_bytes())
    encrypting = load_key((keys_folder / "own-rsa/encryption-key.pub.pem").read_bytes())
    inner = jws.serialize_compact({"alg": "RS256"}, json.dumps(usual | claims), signing, algorithms=["RS256"])
    algorithms = ["RSA-OAEP", "A128CBC-HS256"]
    token = jwe.encrypt_compact(
        {"alg": algorithms[0], "enc": algorithms[1]}, json.dumps({"njwt": inner}), encrypting, algorithms=algorithms
    )
    status, answer = await deliver((await started(installation))["attr_url"], token)
    assert (status, answer["detail"].startswith(f"auth result refused: {reason}")) == (400, True)
    assert reason in logged(installation, "request refused")[0]


async def test_auth_plugins_that_know_the_plugin_before_need_no_change(
    install: Install, keys_folder: Path, tmp_path: Path
) -> None:
    # Its configuration, with the key for which the token below is encrypted, and one with which it signs.
    old, other = ((keys_folder / f"{whose}/decryption-key.pem").read_text() for whose in ("own-rsa", "auth-rsa"))
    config = tmp_path / "config.toml"
    config.write_text(
        f'[global.widget_signing_privkey]\nkey = """\n{other}"""\n[global.decryption_privkey]\nkey = """\n{old}"""\n'
    )
    folder = tmp_path / "keys"
    assert (await run_cli("keys", "generate", str(folder)))[0] == 0
    code, output = await run_cli("keys", "import", str(config), str(folder))
    assert code == 0
    line = output.splitlines()[-1]
    installation = await install()
    text = installation.config.read_text()
    installation.config.write_text(re.sub("decryption_key_files = .*", line, text))
    await installation.stop()
    await installation.start()
    assert await deliver((await started(installation))["attr_url"], installation.token()) == (200, None)
    code, output = await run_cli("keys", "check", "--config", str(installation.config))
    assert (code, "taken over from another plugin" in output) == (0, True)


# Addresses


async def test_an_address_of_ours_with_a_slash_at_its_end_works(installation: Installation) -> None:
    for way, wanted in (("/", "http"), ("/page/", "http"), ("/tel/", "tel:")):
        answer = await started(installation, way=way)
        assert answer["client_url"].startswith(wanted)
        assert await deliver(answer["attr_url"], installation.token()) == (200, None)
    async with store_of(installation) as store:
        assert not await store.by_attr_handle("")
    assert not logged(installation, "refused")


async def test_what_is_not_found_is_in_the_log_without_what_may_be_personal(installation: Installation) -> None:
    for path in ("/idcontact/start_communication", "/auth_result/someone/999990342", "/start_communication/"):
        assert (await post(f"{installation.internal_url}{path}?bsn=999990342", json={"purpose": "report_move"}))[
            0
        ] == 404
    async with aiohttp.ClientSession() as http, http.get(f"{installation.internal_url}/start_communication") as answer:
        assert answer.status == 405
    [line] = logged(installation, "request refused")
    assert "route=/*/start_communication" in line
    assert "there is nothing at this address: compare it with the one in the other side's configuration" in line
    # The others are counted, as whatever can come ever so often.
    await installation.stop()
    assert "times=3" in logged(installation, "request refused")[-1]
    assert "999990342" not in installation.log.read_text()


async def test_a_method_that_is_not_served_is_in_the_log(installation: Installation) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{installation.internal_url}/start_communication") as answer:
        assert answer.status == 405
    [line] = logged(installation, "request refused")
    assert "route=/start_communication" in line
    assert "expected POST" in line


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
