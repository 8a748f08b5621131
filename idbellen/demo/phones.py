"""Telephones for the demo: an agent's that answers by itself, and a citizen's that keys in a code.

Both are baresip (Debian's and Ubuntu's package ``baresip-core``), so what Asterisk sees is a telephone:
registration, ringing, sound, and digits as RFC 4733 events. No sound device is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from idbellen.aio import timeout
from idbellen.demo.baresip import Baresip, Event, PhoneError, end

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AgentPhone", "CitizenPhone", "PhoneError"]

REGISTER_SECONDS = 10.0
EXPIRES_SECONDS = 60
# The trunk is known by its address, 127.0.0.1, so an agent's phone has another one (asterisk-conf/pjsip.conf).
AGENTS_ADDRESS = "127.0.0.2"
# baresip sounds a digit for 180 ms and then ends it, so this leaves 120 ms of silence after each.
KEY_SECONDS = 0.3
# How long a dialler waits at a comma.
COMMA_SECONDS = 2.0


def _checked(what: str, pattern: str, value: str) -> str:
    if not re.fullmatch(pattern, value, re.ASCII):
        raise PhoneError(f"The demo telephone cannot use this {what}.")
    return value


_ADDRESS = r"[A-Za-z0-9.-]{1,60}:\d{1,5}"
_NAME = r"[A-Za-z0-9._+-]{1,40}"


@dataclass(slots=True, eq=False)
class AgentPhone:
    """An agent's telephone: it registers, and answers each call after ringing a while."""

    directory: Path
    name: str
    password: str = field(repr=False)
    registrar: str = "127.0.0.1:5060"
    sip_port: int = 5070
    control_port: int = 5072
    rtp_ports: tuple[int, int] = (30000, 30099)
    ring_seconds: float = 1.5
    _state: Literal["off", "idle", "ringing", "in call"] = field(default="off", init=False)
    _baresip: Baresip | None = field(default=None, init=False)
    _serving: asyncio.Task[None] | None = field(default=None, init=False)

    @property
    def state(self) -> Literal["off", "idle", "ringing", "in call"]:
        """What the phone is doing."""
        return self._state

    async def start(self) -> None:
        """Start the phone and return when it is registered.

        Raises:
            PhoneError: it could not start or register.

        """
        if self._baresip:
            if self._serving is None or not self._serving.done():
                raise PhoneError("This agent's demo telephone runs already.")
            await self.stop()
        name, registrar = _checked("name", _NAME, self.name), _checked("address", _ADDRESS, self.registrar)
        password = _checked("password", r"[\w.~+-]{1,100}", self.password)
        phone = self._baresip = Baresip(
            self.directory, self.sip_port, self.control_port, self.rtp_ports, AGENTS_ADDRESS
        )
        try:
            await phone.start(f"<sip:{name}@{registrar}>;auth_pass={password};regint={EXPIRES_SECONDS}")
            await self._registered(phone)
        except BaseException:
            await self.stop()
            raise
        self._state = "idle"
        self._serving = asyncio.create_task(self._serve(phone))

    async def _registered(self, phone: Baresip) -> None:
        try:
            async with timeout(REGISTER_SECONDS):
                while (event := await phone.events.get()).type != "REGISTER_OK":
                    if event.type in ("REGISTER_FAIL", "GONE"):
                        why = event.reason or "no answer"
                        raise PhoneError(f"The demo telephone of {self.name} could not register: {why}.")
        except TimeoutError:
            raise PhoneError(f"The demo telephone of {self.name} could not register: no answer.") from None

    async def _serve(self, phone: Baresip) -> None:
        answering: asyncio.Task[None] | None = None
        try:
            while (event := await phone.events.get()).type != "GONE":
                if event.type == "CALL_INCOMING":
                    self._state = "ringing"
                    answering = asyncio.create_task(self._answer(phone))
                elif event.type == "CALL_ESTABLISHED":
                    self._state = "in call"
                elif event.type == "CALL_CLOSED":
                    await end(answering)
                    self._state = "idle"
        finally:
            self._state = "off"
            await end(answering)

    async def _answer(self, phone: Baresip) -> None:
        await asyncio.sleep(self.ring_seconds)
        await phone.command("accept", "")

    async def hangup(self) -> None:
        """End or refuse the call, if there is one."""
        if self._baresip and self._state in ("ringing", "in call"):
            await self._baresip.command("hangup", "")

    async def stop(self) -> None:
        """Hang up, unregister and end the phone."""
        phone, self._baresip = self._baresip, None
        if phone:
            try:
                await phone.stop()
            finally:
                await end(self._serving)
                self._serving = None


@dataclass(slots=True, eq=False)
class CitizenPhone:
    """A citizen's telephone: it calls, sends digits, and hangs up. Each call is a baresip of its own."""

    directory: Path
    pbx: str = "127.0.0.1:5060"
    sip_port: int = 5080
    control_port: int = 5082
    rtp_ports: tuple[int, int] = (30000, 30099)
    number: str = "0612345678"
    typing_delay: float = 1.0
    max_seconds: float = 600.0
    _state: Literal["idle", "calling", "in call"] = field(default="idle", init=False)
    _baresip: Baresip | None = field(default=None, init=False)
    _ended: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @property
    def state(self) -> Literal["idle", "calling", "in call"]:
        """What the phone is doing."""
        return self._state

    async def call(self, target: str, digits: str, *, dialler: bool = False) -> None:
        """Call, send the digits, and return when the call is over; cancelling hangs up.

        The digits are keyed one by one, as by a person who listens first, or sent in one burst by the ``dialler``,
        as a phone does with what stands behind a comma in its number.

        Raises:
            PhoneError: the phone is in another call, or could not call, or was refused.

        """
        if self._baresip:
            raise PhoneError("The demo telephone is already in a call.")
        pbx, number = _checked("address", _ADDRESS, self.pbx), _checked("number", _NAME, self.number)
        callee = f"sip:{_checked('number', _NAME, target)}@{pbx}"
        _checked("code", r"[0-9*#]{0,40}", digits)
        phone = self._baresip = Baresip(self.directory, self.sip_port, self.control_port, self.rtp_ports)
        self._state = "calling"
        self._ended.clear()
        try:
            await phone.start(f"<sip:{number}@{pbx}>;regint=0")
            with contextlib.suppress(TimeoutError):
                async with timeout(self.max_seconds):
                    await self._talk(phone, callee, digits, dialler=dialler)
        finally:
            try:
                await phone.stop()
            finally:
                self._baresip, self._state = None, "idle"
                self._ended.set()

    async def _talk(self, phone: Baresip, callee: str, digits: str, *, dialler: bool) -> None:
        if not await phone.command("dial", callee):
            raise PhoneError("The demo telephone could not place the call.")
        keying: asyncio.Task[None] | None = None
        try:
            while (event := await phone.events.get()).type != "HANGUP":
                if event.type == "CALL_ESTABLISHED":
                    self._state = "in call"
                    keying = asyncio.create_task((self._dial if dialler else self._key)(phone, digits))
                elif event.type == "GONE":
                    raise PhoneError("The demo telephone broke down during the call.")
                elif event.type == "CALL_CLOSED":
                    if keying is None:
                        raise PhoneError(f"The call was refused: {event.reason or 'no reason given'}.")
                    return
        finally:
            await end(keying)

    async def _key(self, phone: Baresip, digits: str) -> None:
        await asyncio.sleep(self.typing_delay)
        for digit in digits:
            await phone.command("sndcode", digit)
            await asyncio.sleep(KEY_SECONDS)

    async def _dial(self, phone: Baresip, digits: str) -> None:
        await asyncio.sleep(COMMA_SECONDS)
        # baresip sends them one after the other, 240 ms each.
        await phone.command("sndcode", digits)

    async def hangup(self) -> None:
        """End the call, if there is one, and return when it is over."""
        if self._baresip:
            self._baresip.events.put_nowait(Event("HANGUP"))
            await self._ended.wait()
