"""The remote control of the demo's phone: forms and a command let it call and hang up."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from idbellen.demo.phones import PhoneError
from idbellen.demo.texts import form_field

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from idbellen.demo.phones import CitizenPhone

log = structlog.get_logger()

HANG_UP = "hang up"
# Variant 1 of ID Bellen, a person who keys the code in when asked, and variant 2, the phone's own dialler.
CALL, DIAL = "call", "dial"
# The core's page around a tel: address.
OWN_PAGE = re.compile(r"/call/[A-Za-z0-9_-]{1,64}")


def phone_handler(phone: CitizenPhone, phone_number: str, citizen_url: str) -> Handler:
    """Make the handler of ``POST /phone``.

    The form holds ``do`` (``call``, ``dial`` or ``hang up``), ``code`` and maybe ``back``: the page that sent it,
    which is idbellen's for citizens or the core's. Without it, what was done is told in a line of text.
    """
    calls: set[asyncio.Task[None]] = set()

    async def control(request: web.Request) -> web.StreamResponse:
        wish = await form_field(request, "do")
        if wish == HANG_UP:
            await phone.hangup()
            done = "The demo phone has hung up.\n"
        elif wish in (CALL, DIAL):
            code = await form_field(request, "code")
            if not re.fullmatch(r"[0-9]{1,20}", code):
                raise web.HTTPBadRequest(text="expected code=, digits only")
            if phone.state != "idle":
                raise web.HTTPConflict(text="The demo phone is in a call already: let it hang up first.")
            call = asyncio.create_task(_call(phone, phone_number, code, dialler=wish == DIAL))
            calls.add(call)
            call.add_done_callback(calls.discard)
            done = "The demo phone is calling.\n"
        else:
            raise web.HTTPBadRequest(text=f"do is {CALL}, {DIAL} or {HANG_UP}")
        back = await form_field(request, "back")
        if back == f"{citizen_url}/" or OWN_PAGE.fullmatch(back):
            return web.Response(status=303, headers={"Location": back})
        return web.Response(text=done)

    return control


async def _call(phone: CitizenPhone, phone_number: str, code: str, *, dialler: bool) -> None:
    try:
        await phone.call(phone_number, code, dialler=dialler)
    except PhoneError as fault:
        log.warning("demo.phone", reason=str(fault))
