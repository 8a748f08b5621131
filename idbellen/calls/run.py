"""Runs the story of a call so that a hangup ends it, and so that its faults stay its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog

from idbellen.aio import timeout
from idbellen.calls.identify import Handset, say
from idbellen.domain.prompts import Prompt
from idbellen.ports import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from idbellen.calls.office import Office

log = structlog.get_logger()
APOLOGY_SECONDS = 15.0


class OnThePhone(Handset, Protocol):
    """A caller's channel, who may hang up."""

    async def hung_up(self) -> None:
        """Wait until the caller hangs up, or the channel is lost in another way."""
        ...


class HungUpError(Exception):
    """The caller has gone: cancels the story."""


async def run(
    phone: OnThePhone, story: Callable[[], Awaitable[None]], office: Office, send_on: Callable[[], Awaitable[None]]
) -> None:
    """Tell one call's story to its end, whatever happens in it; at a fault the caller is told so, and sent on."""
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_watch(phone))
            await story()
            watcher.cancel()
    except* HungUpError:
        log.info("caller hung up", call=phone.call)
    except* StoreError as faults:
        # Otherwise the next clause is looked at, which the measuring does not take for a way on.
        if not office.notes.handed_over:  # pragma: no branch - test_takeover.py tells both
            reason = str(_first(faults))
            log.error("call not served: the store cannot be used", call=phone.call, reason=reason)  # noqa: TRY400
            await _apologise(phone, send_on)
    except* Exception as faults:
        # What fails when the next process has the call already does not matter.
        if not office.notes.handed_over:
            # Whatever the fault was, only this call knows of it: the caller hears so and is helped otherwise.
            log.exception("call failed", call=phone.call, exc_info=faults)
            await _apologise(phone, send_on)
    log.info("call over", call=phone.call)


def _first(faults: BaseException) -> BaseException:
    """Give a fault that other tasks of the story may have wrapped up."""
    while isinstance(faults, BaseExceptionGroup):
        faults = faults.exceptions[0]
    return faults


async def _watch(phone: OnThePhone) -> None:
    await phone.hung_up()
    raise HungUpError


async def _apologise(phone: OnThePhone, send_on: Callable[[], Awaitable[None]]) -> None:
    with suppress(Exception):
        async with timeout(APOLOGY_SECONDS):
            await say(phone, Prompt.APOLOGY)
    try:
        await send_on()
    except Exception:  # noqa: BLE001 - the last thing that is tried for this caller
        log.error("caller could not be sent to the plain queue", call=phone.call)  # noqa: TRY400
