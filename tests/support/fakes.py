"""Fakes of the ports, for stories in virtual time and for faults that real parts do not show on demand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from idbellen.domain.board import Day
from idbellen.domain.idcontact import AuthResult, AuthStatus
from idbellen.domain.ids import AgentName, CallId, Secret, SessionRef
from idbellen.ports import (
    CallLog,
    NoteStore,
    Phone,
    Playback,
    RingOutcome,
    Session,
    SessionFeedback,
    SessionStore,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from idbellen.domain.idcontact import Received
    from idbellen.domain.prompts import Prompt
    from idbellen.domain.statistics import CallRecord
    from idbellen.ports import AgentLeg, Attached

LOGGED_IN = AuthResult(AuthStatus.SUCCESS, {"fullname": "Someone"}, "https://auth.example/session")
# How long every prompt of the fake lasts, in seconds.
PROMPT_SECONDS = 4.0


def now() -> float:
    return asyncio.get_running_loop().time()


async def travel(*, until_there: bool) -> None:
    """Take the time that a request needs: to get there (``until_there``), or for its answer to come back."""
    if until_there:
        await asyncio.sleep(0.001)


class NoSessions(SessionStore):
    """A store of which nothing is to be asked: a part of it that a fake does not have is a fault, not an answer."""

    async def start(
        self, session: Session, *, attr_handle: str, page_handle: str, now: float, received: Received | None = None
    ) -> bool:
        raise NotImplementedError

    async def by_attr_handle(self, attr_handle: str) -> Session | None:
        raise NotImplementedError

    async def attach_result(self, reference: SessionRef, received: Received) -> Attached:
        raise NotImplementedError

    async def open_page(self, page_handle: str) -> Session | None:
        raise NotImplementedError

    async def by_page_handle(self, page_handle: str) -> Session | None:
        raise NotImplementedError

    async def by_reference(self, reference: SessionRef) -> Session | None:
        raise NotImplementedError

    async def set_language(self, reference: SessionRef, language: str) -> None:
        raise NotImplementedError

    async def discard(self, reference: SessionRef) -> Session | None:
        raise NotImplementedError

    async def issue_code(self, reference: SessionRef, code: str, now: float, *, valid_until: float) -> bool:
        raise NotImplementedError

    async def claim(self, code: str, *, call: CallId, secret: Secret, now: float) -> Session | None:
        raise NotImplementedError

    async def release(self, call: CallId) -> None:
        raise NotImplementedError

    async def by_secret(self, secret: Secret) -> Session | None:
        raise NotImplementedError

    async def finish(self, call: CallId) -> Session | None:
        raise NotImplementedError

    async def release_others(self, calls: Collection[CallId]) -> int:
        raise NotImplementedError

    async def keep_purposes(self, purposes: Collection[str]) -> int:
        raise NotImplementedError

    async def purge(self, now: float, keep_seconds: float) -> int:
        raise NotImplementedError


class FakeSessions(NoSessions):
    """Sessions by code; counts what is claimed, released and finished.

    ``at_once``: it does at once what is asked and takes its time to answer, instead of the other way round, which
    matters to who is cancelled in between. ``away_until``: before that it fails.
    """

    away_until = 0.0

    def __init__(self, *codes: str, at_once: bool = False) -> None:
        self._at_once = at_once
        self.codes: dict[str, Session] = {}
        self.claimed: dict[SessionRef, CallId] = {}
        self.finished: list[SessionRef] = []
        self._over: set[SessionRef] = set()
        self._code_of: dict[SessionRef, str] = {}
        self._secrets: dict[Secret, str] = {}
        for code in codes:
            self.add(code, Session(SessionRef(f"session {code}"), "report_move", LOGGED_IN))

    def add(self, code: str, session: Session) -> None:
        self.codes[code] = session
        self._code_of[session.reference] = code

    async def start(
        self,
        session: Session,
        *,
        attr_handle: str,  # noqa: ARG002
        page_handle: str,  # noqa: ARG002
        now: float,  # noqa: ARG002
        received: Received | None = None,
    ) -> bool:
        await travel(until_there=not self._at_once)
        self._fail_if_away()
        # As a code, which nobody keys in.
        self.add(f"no code of {session.reference}", replace(session, result=received.result if received else None))
        await travel(until_there=self._at_once)
        return True

    async def issue_code(self, reference: SessionRef, code: str, now: float, *, valid_until: float) -> bool:  # noqa: ARG002
        await travel(until_there=not self._at_once)
        self._fail_if_away()
        self.add(code, self.codes.pop(self._code_of[reference]))
        await travel(until_there=self._at_once)
        return True

    def set_result(self, code: str, result: AuthResult | None) -> None:
        self.add(code, replace(self.codes[code], result=result))

    def forget(self, code: str) -> None:
        """Delete the session of a code, claimed or not."""
        session = self.codes.pop(code)
        self.claimed.pop(session.reference, None)

    async def claim(self, code: str, *, call: CallId, secret: Secret, now: float) -> Session | None:  # noqa: ARG002
        await travel(until_there=not self._at_once)
        session = self.codes.get(code)
        self._fail_if_away()
        again = session and self.claimed.get(session.reference) == call and self._secrets.get(secret) == code
        if session and not again and (session.reference in self.claimed or session.reference in self._over):
            session = None
        if session:
            self._secrets[secret] = code
            self.claimed[session.reference] = call
        await travel(until_there=self._at_once)
        return session

    async def by_reference(self, reference: SessionRef) -> Session | None:
        await asyncio.sleep(0.001)
        return self.codes.get(self._code_of.get(reference, ""))

    async def by_secret(self, secret: Secret) -> Session | None:
        await asyncio.sleep(0.001)
        self._fail_if_away()
        session = self.codes.get(self._secrets.get(secret, ""))
        return session if session and session.reference in self.claimed else None

    def _fail_if_away(self) -> None:
        if now() < self.away_until:
            raise StoreError("the store is away")

    async def release(self, call: CallId) -> None:
        await travel(until_there=not self._at_once)
        self._fail_if_away()
        for reference in [held for held, by in self.claimed.items() if by == call]:
            del self.claimed[reference]
        await travel(until_there=self._at_once)

    async def release_others(self, calls: Collection[CallId]) -> int:
        await asyncio.sleep(0.001)
        others = [held for held, by in self.claimed.items() if by not in calls]
        for reference in others:
            del self.claimed[reference]
        return len(others)

    async def finish(self, call: CallId) -> Session | None:
        await travel(until_there=not self._at_once)
        self._fail_if_away()
        ended = [held for held, by in self.claimed.items() if by == call]
        for reference in ended:
            del self.claimed[reference]
            self.finished.append(reference)
            self._over.add(reference)
        await travel(until_there=self._at_once)
        return await self.by_reference(ended[0]) if ended else None


class FakeNotes(NoteStore):
    """Notes by name; ``at_once`` as for :class:`FakeSessions`. ``away``: nothing can be noted."""

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self.texts: dict[str, str] = {}
        self.away = False

    async def note(self, notes: Mapping[str, str | None]) -> None:
        await travel(until_there=not self._at_once)
        if self.away:
            raise StoreError("no answer")
        for name, text in notes.items():
            self.texts.pop(name, None)
            if text is not None:
                self.texts[name] = text
        await travel(until_there=self._at_once)

    async def notes(self) -> dict[str, str]:
        return dict(self.texts)


class FakeFeedback(SessionFeedback):
    """Notes what auth plugins are told, with the time."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str]] = []

    def user_active(self, reference: SessionRef) -> None:
        self.told.append((now(), f"active {reference}"))

    def logout(self, session: Session) -> None:
        self.told.append((now(), f"logout {session.reference}"))


class FakeCallLog(CallLog):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.misses: list[AgentName] = []

    def ended(self, record: CallRecord) -> None:
        self.records.append(record)

    def missed(self, agent: AgentName) -> None:
        self.misses.append(agent)

    def day(self, agent: AgentName) -> Day:
        mine = [record for record in self.records if record.agent == agent]
        return Day(len(mine), sum(record.talked for record in mine), self.misses.count(agent))


@dataclass
class AgentBehaviour:
    """What an agent's phone does; times in seconds."""

    outcome: RingOutcome = RingOutcome.ANSWERED
    after: float = 2.0
    talks: float = 60.0


class FakeLeg:
    """A phone that is rung; from the answer on its owner talks for as long as the behaviour says.

    ``talking``: it is in a bridge, or at least was put there; ``dropped``: it was hung up by us.
    """

    def __init__(self, endpoint: str, behaviour: AgentBehaviour, channel: str) -> None:
        self.endpoint = endpoint
        self.channel = channel
        self.talking = False
        self.dropped = asyncio.Event()
        self._behaviour = behaviour
        self._answered_at = 0.0
        self._holds: asyncio.Queue[bool] = asyncio.Queue()

    async def outcome(self) -> RingOutcome:
        await asyncio.sleep(self._behaviour.after)
        self._answered_at = now()
        return self._behaviour.outcome

    async def hung_up(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._answered_at + self._behaviour.talks - now())):
                await self.dropped.wait()

    async def hold_changed(self) -> bool:
        return await self._holds.get()

    def hold(self, *, on: bool) -> None:
        """Let its owner press the phone's own hold key."""
        self._holds.put_nowait(on)

    @property
    def alive(self) -> bool:
        """Whether its owner has answered and not hung up."""
        return self._answered_at > 0 and now() < self._answered_at + self._behaviour.talks


def fake(leg: AgentLeg) -> FakeLeg:
    """Give a leg as the fake that it is, whatever a story knows of it."""
    assert isinstance(leg, FakeLeg)
    return leg


class FakeBridge:
    """Who can hear whom, as ``inside`` tells: "caller" and endpoints; ``story`` notes every change with the time."""

    def __init__(self, leg: FakeLeg, music_class: str, name: str) -> None:
        self.name = name
        self.open = True
        leg.talking = True
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

    async def join(self, leg: AgentLeg) -> None:
        await self._note(f"join {leg.endpoint}")
        fake(leg).talking = True
        self.inside.add(leg.endpoint)

    async def mute(self, leg: AgentLeg, *, on: bool) -> None:
        await self._note(f"{'mute' if on else 'unmute'} {leg.endpoint}")
        (self.muted.add if on else self.muted.discard)(leg.endpoint)

    async def _note(self, what: str) -> None:
        await asyncio.sleep(0.001)
        self.story.append((now(), what))


class FakePlayback(Playback):
    def __init__(self) -> None:
        self.began = now()
        self._end = now() + PROMPT_SECONDS
        self.stopped_at: float | None = None

    @property
    def silent_from(self) -> float:
        """When it was heard no more."""
        return self._end if self.stopped_at is None else min(self._end, self.stopped_at)

    @property
    def heard_out(self) -> bool:
        """Whether it was not stopped before its end."""
        return self.silent_from == self._end

    async def ended(self) -> None:
        await asyncio.sleep(max(0.0, self._end - now()))

    async def stop(self) -> None:
        await asyncio.sleep(0.001)
        self.stopped_at = self.stopped_at or now()


@dataclass
class FakePhone(Phone):
    """A caller who keys ``keys`` in, as (time, key), and hangs up at ``hangs_up``.

    ``legs`` and ``bridges`` are what Asterisk has for this caller. ``ended``: how the process has ended that uses
    this; the next one uses what :meth:`for_the_next` gives.
    """

    name: str = "call"
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
    server: str = "main"
    legs: dict[str, FakeLeg] = field(default_factory=dict)
    ended: Literal["", "planned", "kill -9"] = ""
    on_prompts: Callable[[tuple[str, ...]], None] | None = None

    @property
    def call(self) -> CallId:
        return CallId(self.name)

    def for_the_next(self, call: str, keys: Sequence[tuple[float, str]] | None = None) -> FakePhone:
        """Give the same phone for the process that takes over; what was keyed in meanwhile nobody has heard.

        ``keys``: what is keyed in afresh, instead of the rest.
        """
        if keys is None:
            keys = [(at, key) for at, key in self.keys if at > now()]
        return replace(self, name=call, keys=keys, ringing=0, talking=0, ended="", on_prompts=None)

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
        if self.on_prompts:
            self.on_prompts((f"playback {len(self.playbacks)}",))
        return self.playbacks[-1]

    def on_play(self, told: Callable[[tuple[str, ...]], None]) -> None:
        self.on_prompts = told

    async def music(self, music_class: str) -> None:
        await asyncio.sleep(0.001)
        self.music_class = music_class

    @asynccontextmanager
    async def ring(self, endpoint: str, seconds: float) -> AsyncIterator[FakeLeg]:  # noqa: ARG002
        self.rung.append(endpoint)
        channel = f"channel {len(self.rung)} of {endpoint}"
        leg = self.legs[channel] = FakeLeg(endpoint, self.agents.get(endpoint, AgentBehaviour()), channel)
        async with self._held(leg):
            await asyncio.sleep(0.001)
            yield leg

    @asynccontextmanager
    async def reattach(self, channel: str, endpoint: str) -> AsyncIterator[FakeLeg]:
        leg = self.legs.get(channel) or FakeLeg(endpoint, AgentBehaviour(talks=0.0), channel)
        async with self._held(leg):
            yield leg

    @asynccontextmanager
    async def _held(self, leg: FakeLeg) -> AsyncIterator[None]:
        self.ringing += 1
        try:
            yield
        finally:
            self.ringing -= 1
            if not self.ended or (self.ended == "planned" and not leg.talking):
                self.drop(leg)
            await asyncio.sleep(0.001)

    def drop(self, leg: FakeLeg) -> None:
        """Hang a phone up."""
        leg.dropped.set()
        self.legs.pop(leg.channel, None)
        if self.bridges:
            self.bridges[-1].left(leg.endpoint)

    @asynccontextmanager
    async def bridge(self, leg: AgentLeg, music_class: str) -> AsyncIterator[FakeBridge]:
        self.talking += 1
        try:
            await asyncio.sleep(0.001)
            self.bridges.append(FakeBridge(fake(leg), music_class, f"bridge {len(self.bridges)}"))
            yield self.bridges[-1]
        finally:
            await self._close_bridge()

    @asynccontextmanager
    async def rejoin(
        self, bridge: str, legs: Sequence[AgentLeg], music_class: str, *, held: bool
    ) -> AsyncIterator[FakeBridge]:
        self.talking += 1
        try:
            [taken] = [one for one in self.bridges if one.name == bridge]
            taken.music_class = music_class
            for leg in map(fake, legs):
                leg.talking = True
                if not taken.open:
                    self.drop(leg)
            if held and "caller" in taken.inside:
                await taken.hold()
            elif not held and "caller" not in taken.inside:
                await taken.resume()
            yield taken
        finally:
            await self._close_bridge()

    async def _close_bridge(self) -> None:
        self.talking -= 1
        if not self.ended:
            self.bridges[-1].open = False
            for leg in self.legs.values():
                leg.talking = False
        await asyncio.sleep(0.001)

    async def hung_up(self) -> None:
        await asyncio.sleep(max(0.0, self.hangs_up - now()))

    async def hang_up(self) -> None:
        self.end = "hung up"

    async def to_plain_queue(self) -> None:
        self.end = "plain queue"

    async def to_extension(self, context: str, extension: str, priority: int) -> None:
        self.end = f"{context},{extension},{priority}"
