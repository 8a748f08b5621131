"""What a caller's and an agent's phone have in common."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from tests.sip.sipp import Line, Sipp, SippError

if TYPE_CHECKING:
    from tests.sip.phones import Phones

# As long as SIP itself waits before it sends a message again.
ORDER_SECONDS = 0.5
T = TypeVar("T")


class By(Enum):
    """Who ended a call, or how it came to nothing."""

    PBX = "pbx"
    PHONE = "phone"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended; a refusal has SIP's code for it."""

    by: By
    code: int = 0

    @classmethod
    def parse(cls, detail: str) -> Ended:
        """Read what the scenario wrote: ``pbx`` or ``refused 486``."""
        by, _, code = detail.partition(" ")
        return cls(By(by), int(code or 0))


BY_PBX, BY_PHONE, CANCELLED = Ended(By.PBX), Ended(By.PHONE), Ended(By.CANCELLED)


class Phone:
    """What both kinds of phones have: a SIPp, a media port, and one place where failures surface."""

    def __init__(self, phones: Phones, line: Line, base: int) -> None:
        self.line = line
        self._phones, self._base = phones, base
        self._sipp: Sipp | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def _start(self, scenario: str, *options: str) -> None:
        self._sipp = Sipp(self._phones.new_path(), self._base, self._on_line, self._on_error)
        await self._sipp.start(self._phones.pbx, scenario, *options, seconds=self._phones.seconds)
        self._watching = asyncio.create_task(self._watch(self._sipp))

    async def _watch(self, sipp: Sipp) -> None:
        try:
            await sipp.ended()
        except SippError as error:
            self._fail(str(error))

    def _fail(self, why: str) -> None:
        if not self._failure.done():
            self._failure.set_result(why)

    def _on_line(self, line: str) -> None:
        event, call_id, detail = [*line.split(" ", 2), ""][:3]
        self._on_event(event, call_id, detail)

    def _on_event(self, event: str, call_id: str, detail: str) -> None:
        raise NotImplementedError

    def _on_error(self, line: str) -> None:
        """SIPp also writes mere warnings there: what was fatal, its exit code says."""

    async def _or_failure(self, what: asyncio.Future[T]) -> T:
        patience = self._phones.patience
        await asyncio.wait({what, self._failure}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if what.done():
            return what.result()
        if self._failure.done():
            raise SippError(self._failure.result())
        said = self._sipp.errors() if self._sipp else ""
        raise TimeoutError(f"nothing happened for {patience} s on the phone at port {self._base}: {said}")

    async def _order(self, order: str, call_id: str, until: asyncio.Future[T]) -> T:
        """Give an order, again and again until it is carried out."""

        async def insist() -> None:
            while True:
                self.line.order(self._base, order, call_id)
                await asyncio.sleep(ORDER_SECONDS)

        insisting = asyncio.create_task(insist())
        try:
            return await self._or_failure(until)
        finally:
            insisting.cancel()

    async def heard(self, packets: int = 25) -> None:
        """Return when so many further RTP packets have arrived."""
        hearing = asyncio.ensure_future(self.line.heard(self.line.packets + packets))
        try:
            await self._or_failure(hearing)
        finally:
            hearing.cancel()

    async def _stop(self) -> None:
        if self._sipp:
            await self._sipp.stop()
        if self._watching:
            await self._watching

    async def aclose(self) -> None:
        """End the phone and whatever it still does."""
        try:
            await self._stop()
        finally:
            self._fail("the phone was closed")
            self.line.close()
            self._phones.ports.give_back(self._base)
