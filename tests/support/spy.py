"""What a real Asterisk does, as its events tell."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from idbellen.demo.pbx import Pbx


class Spy:
    """A second Stasis application that sees every event of an Asterisk, and touches nothing."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def keys(self, caller: str = "") -> list[str]:
        """Give the keys that Asterisk reported, of one channel or of all."""
        found = [e for e in self.events if e["type"] == "ChannelDtmfReceived" and caller in e["channel"]["id"]]
        return [event["digit"] for event in found]

    def channels_with_keys(self) -> set[str]:
        return {e["channel"]["id"] for e in self.events if e["type"] == "ChannelDtmfReceived"}

    async def until(self, kind: str, *, seconds: float = 20.0, **fields: Any) -> None:
        """Wait for an event of this kind with these fields."""
        try:
            async with asyncio.timeout(seconds):
                while not any(e["type"] == kind and fields.items() <= e.items() for e in self.events):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            seen = [e["type"] for e in self.events]
            raise AssertionError(f"no {kind} {fields} among {seen}") from None

    async def until_played(self, media: str, *, times: int = 1, seconds: float = 20.0) -> None:
        """Wait until a sound has been played to its end so many times."""

        def played() -> int:
            ended = (e["playback"] for e in self.events if e["type"] == "PlaybackFinished")
            return sum(playback["media_uri"] == media for playback in ended)

        try:
            async with asyncio.timeout(seconds):
                while played() < times:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{media} was played {played()} times") from None


@asynccontextmanager
async def spy(pbx: Pbx) -> AsyncIterator[Spy]:
    """Watch everything that happens in Asterisk for the block."""
    seen = Spy()
    headers = {"Authorization": aiohttp.encode_basic_auth("idbellen", pbx.settings.ari_password)}
    url = f"http://127.0.0.1:{pbx.settings.ari_port}/ari/events?app=spy-{secrets.token_hex(4)}&subscribeAll=true"
    async with aiohttp.ClientSession(headers=headers) as http, http.ws_connect(url) as socket:

        async def read() -> None:
            async for message in socket:
                seen.events.append(json.loads(message.data))

        reader = asyncio.create_task(read())
        yield seen
        reader.cancel()
