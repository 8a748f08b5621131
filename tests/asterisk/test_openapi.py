"""docs/openapi.yaml and the internal interface say the same: every route, every status, whatever is sent."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

import pytest
import requests
import schemathesis
from aiohttp.test_utils import TestServer, make_mocked_request
from hypothesis import HealthCheck, Phase, given, settings
from joserfc.jwk import ECKey
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from idbellen.calls.desk import Desk, DeskRules
from idbellen.calls.progress import Progress
from idbellen.calls.results import Results
from idbellen.calls.staff import Staff, StaffRules
from idbellen.demo.pbx import CHECKOUT
from idbellen.demo.tokens import VERDER_HELPEN, auth_result
from idbellen.domain.codes import Fingerprints
from idbellen.domain.hours import OpeningHours
from idbellen.domain.idcontact import TokenOpener
from idbellen.domain.queueing import Queues
from idbellen.stores.sqlite import SqliteStore, open_store
from idbellen.web.credentials import Credentials, bearer
from idbellen.web.issuing import CodeIssuer
from idbellen.web.machines.idcontact import LARGEST_BODY, InternalSite, internal_app
from idbellen.web.purposes import Purpose
from tests.support.fakes import FakeCallLog
from tests.support.openapi import operations
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from schemathesis import CheckFunction
    from schemathesis.core.transport import HttpMethod

    from tests.support.installation import Installation
    from tests.support.openapi import Request

API = schemathesis.openapi.from_path(CHECKOUT / "docs" / "openapi.yaml")
OPERATIONS = operations(API)
RESULT = "/auth_result/{handle}"
STARTS = [path for path in OPERATIONS if path != RESULT]
CONFORMANCE: list[CheckFunction] = [
    status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance
]  # fmt: skip
EXAMPLES = 25
TOKEN = "token of the core"
OWN_KEY, AUTH_KEY = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")


def send(case: Request, url: str, checks: list[CheckFunction], **how: Any) -> schemathesis.Response:
    """Send a request; the answer passes the checks."""
    if case.media_type == "application/jwt":
        # schemathesis takes this for JSON.
        how["data"] = case.body if isinstance(case.body, bytes) else str(case.body).encode()
    return case.call_and_validate(base_url=url, checks=checks, **how)


def test_the_document_is_of_this_version() -> None:
    assert API.raw_schema["info"]["version"] == version("idbellen")


# Routes


async def test_every_route_is_documented_and_every_documented_route_is_served(interface: Interface) -> None:
    router = internal_app(interface.site).router
    served = set()
    for path, operation in OPERATIONS.items():
        request = make_mocked_request(operation.method.upper(), path.replace("{handle}", "unguessable"))
        match_info = await router.resolve(request)
        assert match_info.http_exception is None, path
        served.add(match_info.route)
    others = set(router.routes()) - served
    # As a core posts whose configuration has a slash at the end of our address.
    assert sorted(route.resource.canonical for route in others if route.resource) == sorted(
        path.replace("/start", "//start") for path in STARTS
    )


# Whatever is sent


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
async def test_whatever_is_sent_is_answered_as_documented(
    install: Callable[..., Awaitable[Installation]], mode: GenerationMode
) -> None:
    service = await install(idcontact__default_purpose='"report_move"')

    def try_out(http: requests.Session, path: str, **fixed: Any) -> None:
        @settings(
            max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(OPERATIONS[path].as_strategy(generation_mode=mode, **fixed))
        def one(case: Request) -> None:
            # Nobody guesses an auth result, so a start without one is all that can succeed.
            body = cast("Mapping[str, Any]", case.body)
            valid = mode is GenerationMode.POSITIVE and path in STARTS and body.get("auth_result") is None
            checks = [not_a_server_error, *CONFORMANCE]
            answer = send(case, service.internal_url, checks, session=http)
            assert (answer.status_code == 200) is valid

        one()

    def try_all() -> None:
        with requests.Session() as http:
            for path in OPERATIONS:
                try_out(http, path)
            started = http.post(f"{service.internal_url}/start_communication", json={"purpose": "report_move"}).json()
            try_out(http, RESULT, path_parameters={"handle": started["attr_url"].rsplit("/", 1)[1]})

    await asyncio.to_thread(try_all)


# Every status


@dataclass(frozen=True, slots=True)
class Interface:
    """The interface in this process, for what the service shows only when it is broken."""

    site: InternalSite
    store: Path

    async def ask(
        self, path: str, *, credentials: str = TOKEN, handle: str = "", method: HttpMethod = "POST", body: Any
    ) -> schemathesis.Response:
        """Send one request; the answer is as documented."""
        case = OPERATIONS[path].Case(
            method=method,
            path_parameters={"handle": handle} if handle else {},
            headers={"Authorization": f"Bearer {credentials}"},
            body=body,
            media_type="application/json" if path in STARTS else "application/jwt",
        )
        return await asyncio.to_thread(send, case, self.site.url, CONFORMANCE)

    async def handle(self) -> str:
        """Start a session; gives the handle for its auth result."""
        answer = await self.ask("/page/start_communication", body={"purpose": "report_move"})
        address: str = answer.json()["attr_url"]
        return address.rsplit("/", 1)[1]


@pytest.fixture
async def interface(tmp_path: Path) -> AsyncIterator[Interface]:
    url = f"http://127.0.0.1:{(port := free_ports())}"
    purpose = Purpose(
        titles={"nl": "Verhuizing doorgeven", "en": "Report a move"},
        attributes=("fullname",),
        phone_number="+31201234567",
        hours=OpeningHours.always(ZoneInfo("Europe/Amsterdam")),
        admit_unverified=False,
        client_url="tel",
    )
    path = tmp_path / "idbellen.db"
    async with open_store(path, Fingerprints(b"m" * 32)) as store:
        progress = Progress(Desk(time.time, Staff(time.time, StaffRules()), DeskRules(Queues()), FakeCallLog()))
        opener = TokenOpener([OWN_KEY], [AUTH_KEY])
        site = InternalSite(
            url=url,
            page_url="https://bellen.gemeente.example",
            purposes={"report_move": purpose},
            default_purpose=None,
            credentials=Credentials([bearer(TOKEN)], "all"),
            sessions=store,
            issuer=CodeIssuer(store, 10, 600.0, time.time),
            results=Results(opener, store, progress, {"report_move": purpose.attributes}, time.time),
            clock=time.time,
        )
        async with TestServer(internal_app(site), port=port):
            yield Interface(site, path)


def token() -> str:
    return auth_result(
        {"fullname": "Someone"},
        status=VERDER_HELPEN.success,
        subject=VERDER_HELPEN.subject,
        signing_key=AUTH_KEY,
        encryption_key=OWN_KEY,
        now=time.time(),
        signature=VERDER_HELPEN.signature,
        key_encryption=VERDER_HELPEN.key_encryption,
    )


def documented(path: str) -> set[int]:
    return {int(status) for status in OPERATIONS[path].definition.raw["responses"]}


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("a fault of ours")


def destroy(store: Path) -> None:
    with closing(sqlite3.connect(store)) as other:
        other.execute("DROP TABLE sessions")


@pytest.mark.parametrize("path", STARTS)
async def test_every_status_of_a_start_occurs(interface: Interface, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    good = {"purpose": "report_move"}
    requests_made: list[Mapping[str, Any]] = [
        {"body": good},
        {"body": good | {"auth_result": token()}},
        {"body": {"purpose": "unknown"}},
        {"body": good | {"auth_result": "nonsense"}},
        {"body": good, "credentials": "another"},
        {"body": good, "method": "PUT"},
        {"body": {"purpose": "x" * LARGEST_BODY}},
    ]
    seen = {(await interface.ask(path, **request)).status_code for request in requests_made}
    monkeypatch.setattr("idbellen.web.issuing.new_code", lambda _: "1212121212")
    seen |= {(await interface.ask(path, body=good)).status_code for _ in range(2)}
    destroy(interface.store)
    out_of_order = await interface.ask(path, body=good)
    assert out_of_order.status_code == 503
    seen.add(out_of_order.status_code)
    monkeypatch.setattr("idbellen.web.machines.idcontact.new_handle", broken)
    seen.add((await interface.ask(path, body=good)).status_code)
    assert seen == documented(path)


async def test_every_status_of_a_delivery_occurs(interface: Interface, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = await interface.handle()
    requests_made: list[tuple[int, Mapping[str, Any]]] = [
        (400, {"body": "nonsense"}),
        (401, {"body": token(), "credentials": "another"}),
        (404, {"body": token(), "handle": "another"}),
        (405, {"body": token(), "method": "PUT"}),
        (413, {"body": "x" * (LARGEST_BODY + 1)}),
        (200, {"body": token()}),
        (409, {"body": token()}),
    ]
    for status, request in requests_made:
        answer = await interface.ask(RESULT, **{"handle": handle, **request})
        assert answer.status_code == status
    destroy(interface.store)
    assert (await interface.ask(RESULT, handle=handle, body=token())).status_code == 503
    monkeypatch.setattr(SqliteStore, "by_attr_handle", broken)
    assert (await interface.ask(RESULT, handle=handle, body=token())).status_code == 500
    assert documented(RESULT) == {status for status, _ in requests_made} | {500, 503}


async def test_a_body_that_is_not_in_its_encoding_is_refused(interface: Interface) -> None:
    for encoding in ("gzip", "deflate"):
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Encoding": encoding}
        url = f"{interface.site.url}/start_communication"
        answer = await asyncio.to_thread(requests.post, url, data=b"nonsense", headers=headers, timeout=10)
        assert answer.status_code == 400
        assert answer.json() == {"error": "BadRequest", "detail": "the body did not arrive as announced"}


# Examples


@pytest.mark.parametrize("path", OPERATIONS)
def test_the_examples_of_answers_are_valid(path: str) -> None:
    shown = [
        (int(status), example)
        for status, response in OPERATIONS[path].responses.items()
        for _, example in response.iter_examples()
    ]
    assert {status for status, _ in shown} >= documented(path) - {200}
    for status, example in shown:
        answer = schemathesis.Response(
            status_code=status,
            headers={"content-type": ["application/json"]},
            content=json.dumps(example).encode(),
            request=requests.Request("POST", "http://idbellen.internal").prepare(),
            elapsed=0.0,
            verify=False,
        )
        OPERATIONS[path].validate_response(answer)
