"""Runs the story of a call so that a hangup ends it, and so that its faults stay its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from idbellen.calls.flow import say, take_call
from idbellen.domain.prompts import Prompt

if TYPE_CHECKING:
    from idbellen.calls.flow import Office
    from idbellen.ports import Phone

log = structlog.get_logger()
APOLOGY_SECONDS = 15.0


class HungUpError(Exception):
    """The caller has gone: cancels the story."""


async def supervise(phone: Phone, office: Office) -> None:
    """Tell one call's story to its end, whatever happens in it."""
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_watch(phone))
            await take_call(phone, office)
            watcher.cancel()
    except* HungUpError:
        log.info("caller hung up", call=phone.call)
    except* Exception as faults:
        # Whatever the fault was, only this call knows of it: the caller hears so and is helped otherwise.
        log.exception("call failed", call=phone.call, exc_info=faults)
        await _apologise(phone)
    log.info("call over", call=phone.call)


async def _watch(phone: Phone) -> None:
    await phone.hung_up()
    raise HungUpError


async def _apologise(phone: Phone) -> None:
    with suppress(Exception):
        async with asyncio.timeout(APOLOGY_SECONDS):
            await say(phone, Prompt.APOLOGY)
    try:
        await phone.to_plain_queue()
    except Exception:  # noqa: BLE001 - the last thing that is tried for this caller
        log.error("caller could not be sent to the plain queue", call=phone.call)  # noqa: TRY400
