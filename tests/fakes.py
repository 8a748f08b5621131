"""Fakes of the ports, for stories in virtual time and for faults that real parts do not show on demand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from idbellen.domain.board import Day
from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.ports import RingOutcome, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from idbellen.domain.prompts import Prompt
    from idbellen.domain.statistics import CallRecord

LOGGED_IN = AuthResult(AuthStatus.SUCCESS, {"fullname": "Someone"}, "https://auth.example/session")
# How long every prompt of the fake lasts, in seconds.
PROMPT_SECONDS = 4.0


def now() -> float:
    return asyncio.get_running_loop().time()


class FakeSessions:
    """Sessions by code; counts what is claimed, released and finished."""

    def __init__(self, *codes: str) -> None:
        self.codes: dict[str, Session] = {}
        self.claimed: dict[str, str] = {}
        self.finished: list[str] = []
        self._over: set[str] = set()
        self._code_of: dict[str, str] = {}
        self._secrets: dict[str, str] = {}
        for code in codes:
            self.add(code, Session(f"session {code}", "report_move", LOGGED_IN))

    def add(self, code: str, session: Session) -> None:
        self.codes[code] = session
        self._code_of[session.reference] = code

    def set_result(self, code: str, result: AuthResult | None) -> None:
        self.add(code, replace(self.codes[code], result=result))

    async def claim(self, code: str, *, call: str, secret: str, now: float) -> Session | None:  # noqa: ARG002
        self._secrets[secret] = code
        await asyncio.sleep(0.001)
        session = self.codes.get(code)
        if session is None or session.reference in self.claimed or session.reference in self._over:
            return None
        self.claimed[session.reference] = call
        return session

    async def by_reference(self, reference: str) -> Session | None:
        await asyncio.sleep(0.001)
        return self.codes.get(self._code_of.get(reference, ""))

    async def by_secret(self, secret: str) -> Session | None:
        await asyncio.sleep(0.001)
        return self.codes.get(self._secrets.get(secret, ""))

    async def release(self, call: str) -> None:
        await asyncio.sleep(0.001)
        for reference in [held for held, by in self.claimed.items() if by == call]:
            del self.claimed[reference]

    async def finish(self, call: str) -> Session | None:
        await asyncio.sleep(0.001)
        [reference] = [held for held, by in self.claimed.items() if by == call]
        del self.claimed[reference]
        self.finished.append(reference)
        self._over.add(reference)
        return await self.by_reference(reference)


class FakeNotes:
    """Notes by name."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    async def note(self, notes: Mapping[str, str | None]) -> None:
        await asyncio.sleep(0.001)
        for name, text in notes.items():
            self.texts.pop(name, None)
            if text is not None:
                self.texts[name] = text

    async def notes(self) -> dict[str, str]:
        return dict(self.texts)


class FakeFeedback:
    """Notes what auth plugins are told, with the time."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str]] = []

    def user_active(self, reference: str) -> None:
        self.told.append((now(), f"active {reference}"))

    def logout(self, session: Session) -> None:
        self.told.append((now(), f"logout {session.reference}"))


class FakeCallLog:
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.misses: list[str] = []

    def ended(self, record: CallRecord) -> None:
        self.records.append(record)

    def missed(self, agent: str) -> None:
        self.misses.append(agent)

    def day(self, agent: str) -> Day:
        mine = [record for record in self.records if record.agent == agent]
        return Day(len(mine), sum(record.talked for record in mine), self.misses.count(agent))


@dataclass
class AgentBehaviour:
    """What an agent's phone does; times in seconds."""

    outcome: RingOutcome = RingOutcome.ANSWERED
    after: float = 2.0
    talks: float = 60.0


class FakeLeg:
    """A phone that is rung; from the answer on its owner talks for as long as the behaviour says."""

    def __init__(self, endpoint: str, behaviour: AgentBehaviour) -> None:
        self.endpoint = endpoint
        self.channel = f"channel of {endpoint}"
        self._behaviour = behaviour
        self._answered_at = 0.0

    async def outcome(self) -> RingOutcome:
        await asyncio.sleep(self._behaviour.after)
        self._answered_at = now()
        return self._behaviour.outcome

    async def hung_up(self) -> None:
        await asyncio.sleep(max(0.0, self._answered_at + self._behaviour.talks - now()))


class FakeBridge:
    """Who can hear whom, as ``inside`` tells: "caller" and endpoints; ``story`` notes every change with the time."""

    def __init__(self, leg: FakeLeg, music_class: str) -> None:
        self.name = f"bridge of {leg.endpoint}"
        self.inside = {"caller", leg.endpoint}
        self.muted: set[str] = set()
        self.music_class = music_class
        self.story: list[tuple[float, str]] = []

    def left(self, endpoint: str) -> None:
        self.inside.discard(endpoint)

    async def hold(self) -> None:
        await self._note("hold")
        self.inside.discard("caller")

    async def resume(self) -> None:
        await self._note("resume")
        self.inside.add("caller")

    async def join(self, leg: FakeLeg) -> None:
        await self._note(f"join {leg.endpoint}")
        self.inside.add(leg.endpoint)

    async def mute(self, leg: FakeLeg, *, on: bool) -> None:
        await self._note(f"{'mute' if on else 'unmute'} {leg.endpoint}")
        (self.muted.add if on else self.muted.discard)(leg.endpoint)

    async def _note(self, what: str) -> None:
        await asyncio.sleep(0.001)
        self.story.append((now(), what))


class FakePlayback:
    def __init__(self) -> None:
        self._end = now() + PROMPT_SECONDS
        self.stopped_at: float | None = None

    async def ended(self) -> None:
        await asyncio.sleep(max(0.0, self._end - now()))

    async def stop(self) -> None:
        await asyncio.sleep(0.001)
        self.stopped_at = now()


@dataclass
class FakePhone:
    """A caller who keys ``keys`` in, as (time, key), and hangs up at ``hangs_up``."""

    call: str = "call"
    keys: Sequence[tuple[float, str]] = ()
    hangs_up: float = 10_000.0
    agents: dict[str, AgentBehaviour] = field(default_factory=dict)
    heard: list[tuple[float, Prompt]] = field(default_factory=list)
    rung: list[str] = field(default_factory=list)
    playbacks: list[FakePlayback] = field(default_factory=list)
    bridges: list[FakeBridge] = field(default_factory=list)
    music_class: str = ""
    end: str = ""
    ringing: int = 0
    talking: int = 0
    channel: str = "channel"

    async def answer(self) -> None:
        await asyncio.sleep(0.001)

    async def digit(self) -> str:
        if not self.keys:
            await asyncio.Event().wait()
        at, key = self.keys[0]
        await asyncio.sleep(max(0.0, at - now()))
        self.keys = self.keys[1:]
        return key

    async def play(self, prompts: Sequence[Prompt]) -> FakePlayback:
        await asyncio.sleep(0.001)
        self.heard += [(now(), prompt) for prompt in prompts]
        self.playbacks.append(FakePlayback())
        return self.playbacks[-1]

    def on_play(self, told: Callable[[tuple[str, ...]], None]) -> None:
        pass

    async def music(self, music_class: str) -> None:
        await asyncio.sleep(0.001)
        self.music_class = music_class

    @asynccontextmanager
    async def ring(self, endpoint: str, seconds: float) -> AsyncIterator[FakeLeg]:  # noqa: ARG002
        self.rung.append(endpoint)
        self.ringing += 1
        try:
            await asyncio.sleep(0.001)
            yield FakeLeg(endpoint, self.agents.get(endpoint, AgentBehaviour()))
        finally:
            self.ringing -= 1
            if self.bridges:
                self.bridges[-1].left(endpoint)
            await asyncio.sleep(0.001)

    @asynccontextmanager
    async def bridge(self, leg: FakeLeg, music_class: str) -> AsyncIterator[FakeBridge]:
        self.talking += 1
        try:
            await asyncio.sleep(0.001)
            self.bridges.append(FakeBridge(leg, music_class))
            yield self.bridges[-1]
        finally:
            self.talking -= 1
            await asyncio.sleep(0.001)

    async def hung_up(self) -> None:
        await asyncio.sleep(max(0.0, self.hangs_up - now()))

    async def hang_up(self) -> None:
        self.end = "hung up"

    async def to_plain_queue(self) -> None:
        self.end = "plain queue"

    async def to_extension(self, context: str, extension: str, priority: int) -> None:
        self.end = f"{context},{extension},{priority}"
