"""Where a caller talks with agents, as the stories use it (:class:`idbellen.ports.Bridge`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from idbellen.asterisk.ari import Ari, GoneError
from idbellen.asterisk.legs import AgentChannel, fresh

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idbellen.asterisk.lines import Line
    from idbellen.ports import AgentLeg

log = structlog.get_logger()

BRIDGE_PREFIX = "idbellen-talk-"


class CallerBridge:
    """One bridge of one caller. What is asked of a party who has just hung up has no effect."""

    def __init__(self, ari: Ari, caller: Line, music_class: str, name: str = "") -> None:
        self._ari = ari
        self._caller = caller
        self._music_class = music_class
        self._legs: list[AgentChannel] = []
        self._held = False
        self.name = name or fresh(BRIDGE_PREFIX)
        self.open = True

    async def begin(self, leg: AgentChannel) -> None:
        """Take the caller and the first agent in."""
        await self._put(self._caller.channel, leg.line.channel)
        self._take(leg)

    async def rejoin(self, legs: Sequence[AgentChannel], *, held: bool) -> None:
        """Take up the bridge of an earlier process, which may have been about to hold the caller, or to resume."""
        for leg in legs:
            self._take(leg)
        try:
            inside = (await self._ari.insist("GET", f"/bridges/{self.name}"))["channels"]
        except GoneError:
            self.open = False
            for leg in legs:
                await self._ari.discard(f"/channels/{leg.channel}", insist=True)
            return
        self._held = self._caller.channel not in inside
        if held and not self._held:
            await self.hold()
        elif not held:
            await self.resume()

    async def hold(self) -> None:
        """Take the caller out, to hear music."""
        if self._held:
            return
        self._held = True
        await self._try("POST", f"/bridges/{self.name}/removeChannel", channel=self._caller.channel)
        await self._try("POST", f"/channels/{self._caller.channel}/moh", mohClass=self._music_class)

    async def resume(self) -> None:
        """Take the caller in again."""
        if not self._held:
            return
        self._held = False
        await self._ari.discard(f"/channels/{self._caller.channel}/moh", insist=True)
        await self._put(self._caller.channel)

    async def join(self, leg: AgentLeg) -> None:
        """Take somebody else in."""
        assert isinstance(leg, AgentChannel)  # noqa: S101 - made by ring()
        await self._put(leg.line.channel)
        self._take(leg)

    async def mute(self, leg: AgentLeg, *, on: bool) -> None:
        """Close or open the microphone of a party who is in."""
        assert isinstance(leg, AgentChannel)  # noqa: S101 - made by ring()
        await self._try("POST" if on else "DELETE", f"/channels/{leg.line.channel}/mute", direction="in")

    async def close(self) -> None:
        """Let go of all who were in."""
        for leg in self._legs:
            leg.talking = False
        if not self._held and not self._caller.ended.is_set():
            # Asterisk takes people out of a deleted bridge after it has answered, and a prompt that the caller is
            # played in between may never end.
            await self._try("POST", f"/bridges/{self.name}/removeChannel", channel=self._caller.channel)
        await self._ari.discard(f"/bridges/{self.name}", insist=True)

    def _take(self, leg: AgentChannel) -> None:
        # At a planned stop their phones are left alone as long as this is set.
        leg.talking = True
        leg.bridge = self.name
        self._legs.append(leg)

    async def _put(self, *channels: str) -> None:
        await self._try("POST", f"/bridges/{self.name}/addChannel", channel=",".join(channels))

    async def _try(self, method: str, path: str, **params: str) -> None:
        try:
            await self._ari.insist(method, path, **params)
        except GoneError:
            # Somebody hung up in this very moment: whoever follows that line is told.
            log.info("hung up in the moment of a change", bridge=self.name)
