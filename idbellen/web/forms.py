"""What is sent to us, as text or as a form: it can be read, or is refused with 400, and nothing of it is repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

FORM = "application/x-www-form-urlencoded"
MOST_FIELDS = 32
# What senders of text name. Python knows many more, some of which are no charsets and fail in ways of their own.
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "iso-8859-1", "windows-1252"})


class UnreadableError(web.HTTPBadRequest):
    """What was sent cannot be read; its text says why."""


async def read_text(request: web.Request) -> str:
    """Give the body as text.

    Raises:
        UnreadableError: it is none, or did not arrive.
        web.HTTPRequestEntityTooLarge: it is too large.

    """
    try:
        body = await request.read()
    except (web.RequestPayloadError, ConnectionError):
        # Not in the Content-Encoding that it names, or broken off.
        raise UnreadableError(text="the body did not arrive as announced") from None
    charset = (request.charset or "utf-8").lower()
    try:
        if charset in _CHARSETS:
            return body.decode(charset)
    except UnicodeDecodeError:
        pass
    raise UnreadableError(text="not text in the charset that Content-Type names") from None


async def read_form(request: web.Request) -> Mapping[str, str]:
    """Give the fields of a form as browsers send it.

    Raises:
        UnreadableError: it is none.
        web.HTTPUnsupportedMediaType: it is of another kind.
        web.HTTPRequestEntityTooLarge: it is too large.

    """
    if request.content_type != FORM:
        raise web.HTTPUnsupportedMediaType(text=f"expected Content-Type: {FORM}")
    try:
        fields = parse_qsl(
            await read_text(request), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError:
        raise UnreadableError(text="not a form") from None
    return dict(fields)
