"""How the demo's core asks other services: idbellen and the authentication plugins. Addresses in messages, too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, TypeVar

import aiohttp
from aiohttp import web
from pydantic import AfterValidator, BaseModel, ValidationError
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ANSWER_SECONDS = 5.0
TEL = re.compile(r"tel:(?P<number>\+?[0-9]{3,20}),+(?P<code>[0-9]{1,20})", re.ASCII)


def _web_address(value: str) -> str:
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError("not written as an address")
    url = URL(value)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("not an http or https address")
    return value


def _client_address(value: str) -> str:
    return value if TEL.fullmatch(value) else _web_address(value)


WebAddress = Annotated[str, AfterValidator(_web_address)]
"""An absolute http or https address in a message, kept exactly as it was written."""

ClientAddress = Annotated[str, AfterValidator(_client_address)]
"""Where a citizen goes to communicate: a :data:`WebAddress`, or ``tel:`` with a number and, behind commas, a code."""

Answer = TypeVar("Answer", bound=BaseModel)


class AwayError(Exception):
    """A service did not answer, or not properly; the message gives the reason."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(reason)
        self.service = service


class Services:
    """Connections to other services, from :meth:`client` on."""

    def __init__(self) -> None:
        self._http: aiohttp.ClientSession

    async def client(self, _app: web.Application) -> AsyncIterator[None]:
        """Have connections for as long as the application runs."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as self._http:
            yield

    async def ask(self, service: str, url: str, body: dict[str, object], answer: type[Answer]) -> Answer:
        """Post a message and read the answer. ``service``: what the error is to call it.

        Raises:
            AwayError: there was no proper answer in time.

        """
        try:
            async with self._http.post(url, json=body, allow_redirects=False) as response:
                if response.status != web.HTTPOk.status_code:
                    raise AwayError(service, f"status {response.status}")
                return answer.model_validate_json(await response.read())
        except TimeoutError:
            raise AwayError(service, f"no answer within {ANSWER_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as fault:
            raise AwayError(service, type(fault).__name__) from None
        except ValidationError as fault:
            # What it answered may hold a session's secret addresses: only say where it is wrong.
            raise AwayError(service, f"wrong in the answer: {wrong_parts(fault)}") from None


def wrong_parts(fault: ValidationError) -> str:
    """Name the parts of a message that are wrong, and nothing of what they hold."""
    return ", ".join(sorted({".".join(map(str, error["loc"])) or "body" for error in fault.errors()}))
