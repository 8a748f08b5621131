"""docs/openapi-wallboard.yaml and the API for wallboards say the same: every route, every status, whatever is asked."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import requests
import schemathesis
from aiohttp.test_utils import make_mocked_request
from hypothesis import HealthCheck, Phase, given, settings
from requests.structures import CaseInsensitiveDict
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from idbellen.demo.pbx import CHECKOUT
from idbellen.web.wallboard.api import supervisor_api
from tests.support.openapi import operations
from tests.support.supervision import REFERENCE, SECRET, TOKEN, WORDS, busy, serve, today

if TYPE_CHECKING:
    from tests.support.openapi import Request
    from tests.support.supervision import Stage

API = schemathesis.openapi.from_path(CHECKOUT / "docs" / "openapi-wallboard.yaml")
OPERATIONS = operations(API)
CONFORMANCE = [
    status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance
]  # fmt: skip
EXAMPLES = 25


async def ask(stage: Stage, path: str, *, token: str | None = TOKEN, **query: str) -> schemathesis.Response:
    """Send one request; the answer is as documented."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    case = OPERATIONS[path].Case(headers=headers, query=query)
    return await asyncio.to_thread(case.call_and_validate, base_url=f"{stage.url}/api/v1", checks=CONFORMANCE)


def test_the_document_is_of_this_version() -> None:
    assert API.raw_schema["info"]["version"] == version("idbellen")


async def test_every_route_is_documented_and_every_documented_route_is_served() -> None:
    nothing: Any = type("Site", (), {"credentials": None})
    router = supervisor_api(nothing).router
    served = set()
    for path in OPERATIONS:
        match_info = await router.resolve(make_mocked_request("GET", path))
        assert match_info.http_exception is None, path
        served.add(match_info.route)
    assert served == set(router.routes())


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
async def test_whatever_is_asked_is_answered_as_documented(mode: GenerationMode) -> None:
    async with serve() as stage:
        await busy(stage)

        def try_out(http: requests.Session, path: str) -> None:
            @settings(
                max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(OPERATIONS[path].as_strategy(generation_mode=mode))
            def one(case: Request) -> None:
                checks = [not_a_server_error, *CONFORMANCE]
                answer = case.call_and_validate(base_url=f"{stage.url}/api/v1", checks=checks, session=http)
                # Nobody guesses the token.
                assert answer.status_code == 401
                case.headers = CaseInsensitiveDict({"Authorization": f"Bearer {TOKEN}"})
                answer = case.call_and_validate(base_url=f"{stage.url}/api/v1", checks=checks, session=http)
                assert answer.status_code in (200, 400)

            one()

        def try_all() -> None:
            with requests.Session() as http:
                for path in OPERATIONS:
                    try_out(http, path)

        await asyncio.to_thread(try_all)


@pytest.mark.parametrize("path", OPERATIONS)
async def test_every_status_occurs(path: str) -> None:
    seen = set()
    async with serve() as stage:
        await busy(stage)
        seen.add((await ask(stage, path)).status_code)
        for wrong in (None, "another", TOKEN[:-1], f"{TOKEN}x"):
            assert (await ask(stage, path, token=wrong)).status_code == 401
        seen.add(401)
        if path == "/history":
            for day in ("nonsense", "2000-01-01", str(today() + dt.timedelta(days=1))):
                assert (await ask(stage, path, day=day)).status_code == 400
            seen.add(400)
    async with serve(token=None) as stage:
        for given_token in (None, "", TOKEN):
            assert (await ask(stage, path, token=given_token)).status_code == 404
        seen.add(404)
    documented = {int(status) for status in OPERATIONS[path].definition.raw["responses"]}
    assert seen | {500, 503} == documented


async def test_a_store_that_fails_is_told_as_json() -> None:
    async with serve() as stage:
        stage.store.works = False
        assert (await ask(stage, "/history")).status_code == 503
        stage.store.fault = RuntimeError("a fault of ours")
        assert (await ask(stage, "/history")).status_code == 500
        assert (await ask(stage, "/queues")).status_code == 200, "today's figures are in memory"


async def test_what_it_tells() -> None:
    async with serve("en") as stage:
        await busy(stage)
        queues = (await ask(stage, "/queues")).json()
        assert (queues["total"]["waiting"], queues["queues"][0]["title"]) == (3, "Residents")
        agents = {agent["name"]: agent for agent in (await ask(stage, "/agents")).json()["agents"]}
        assert agents["anna"]["call"]["purpose"] == "Report a move"
        assert agents["carla"]["reason"] == "meeting"
        history = (await ask(stage, "/history", day=str(today()))).json()
        assert [queue["name"] for queue in history["queues"]] == ["residents", "taxes"]
        assert sum(quarter["answered"] for quarter in history["quarters"]) == queues["total"]["today"]["answered"]
        everything = json.dumps([queues, agents, history])
        for private in (SECRET, REFERENCE, *WORDS, "call of anna"):
            assert private not in everything


async def test_nothing_can_be_changed_and_no_cookie_helps() -> None:
    async with serve() as stage:
        headers = {"Authorization": f"Bearer {TOKEN}", "Origin": stage.url}
        async with aiohttp.ClientSession(stage.url, headers=headers) as http:
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                async with http.request(method, "/api/v1/queues") as answer:
                    assert answer.status == 405
                    assert "error" in await answer.json()
            async with http.get("/api/v1/calls") as answer:
                assert answer.status == 404
        cookie = {"Cookie": "login=boss"}
        async with aiohttp.ClientSession(stage.url, headers=cookie) as http, http.get("/api/v1/queues") as answer:
            assert answer.status == 401


@pytest.mark.parametrize("path", OPERATIONS)
def test_the_examples_of_answers_are_valid(path: str) -> None:
    shown = [
        (int(status), example)
        for status, response in OPERATIONS[path].responses.items()
        for _, example in response.iter_examples()
    ]
    assert len(shown) >= 3
    for status, example in shown:
        answer = schemathesis.Response(
            status_code=status,
            headers={"content-type": ["application/json"], "www-authenticate": ["Bearer"]},
            content=json.dumps(example).encode(),
            request=requests.Request("GET", "https://idbellen.gemeente.example").prepare(),
            elapsed=0.0,
            verify=False,
        )
        OPERATIONS[path].validate_response(answer)
