"""Asking a caller for the code, until it is right and the session behind it may be served."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, assert_never

import structlog

from idbellen.aio import timeout, timeout_at
from idbellen.calls.patience import patiently
from idbellen.domain.codes import new_code, new_handle
from idbellen.domain.digits import Collector, Entry, EntryRules, Outcome
from idbellen.domain.idcontact import Admission, AuthResult, AuthStatus, Received, admission
from idbellen.domain.ids import SessionRef
from idbellen.domain.prompts import Prompt, enter_code_prompt
from idbellen.domain.queueing import ForPurpose, Goodbye, Plain
from idbellen.domain.words import control_words
from idbellen.ports import Session, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from idbellen.calls.office import Office
    from idbellen.calls.progress import Journey
    from idbellen.domain.ids import CallId, Secret
    from idbellen.domain.queueing import WithoutCode
    from idbellen.ports import Playback

log = structlog.get_logger()

# So long a caller whose code is in waits for the store, and longer by what one request may take.
PATIENCE_SECONDS = 4.0
# So long it is silent between two sentences that we still wait for a caller's auth result.
AWAITED_AGAIN_SECONDS = 5.0
# For a moment a session that a call begins or takes up again has a code of this length, which nobody is told.
UNTOLD_DIGITS = 20
UNTOLD_SECONDS = 30.0


class Handset(Protocol):
    """What asking for a code needs of a caller's channel, however it is reached (:class:`idbellen.ports.Phone`)."""

    @property
    def call(self) -> CallId:
        """The call's name, unguessable and meaningless; fit for a log."""
        ...

    async def answer(self) -> None:
        """Answer; from now on no digit is lost."""
        ...

    async def digit(self) -> str:
        """Wait for the next key that the caller presses."""
        ...

    async def play(self, prompts: Sequence[Prompt]) -> Playback:
        """Start to play prompts one after the other."""
        ...


@dataclass(slots=True)
class Claim:
    """A session that this call got for its code, with the secret. ``served``: an agent has spoken."""

    session: Session
    secret: Secret = field(repr=False)
    served: bool = False

    @property
    def without_code(self) -> bool:
        """Whether the session was begun by the call itself, for a caller without a code."""
        return self.session.result is not None and self.session.result.status is AuthStatus.NOT_TRIED

    @property
    def greeting(self) -> Prompt:
        """What the caller hears before the queue."""
        return Prompt.WITHOUT_CODE_CONNECT if self.without_code else Prompt.CODE_ACCEPTED


@dataclass(frozen=True, slots=True)
class Farewell:
    """How a caller is let go whom no code verified: what they hear, and where they go."""

    prompt: Prompt
    way_out: Literal["plain", "goodbye"]


async def identify(
    phone: Handset, office: Office, serve: Callable[[Claim, Journey], Awaitable[None]], secret: Secret
) -> Farewell | None:
    """Answer and ask for the code until one is accepted, and have that caller served; gives how to let go of others.

    The code is exchanged for ``secret``, and is the caller's for as long as ``serve`` takes. A caller who says that
    they have none is served or let go at once, as the rules say.
    """
    await phone.answer()
    rules = office.rules
    key = (Prompt.WITHOUT_CODE,) if rules.without_code else ()
    prompts: Sequence[Prompt] = (Prompt.WELCOME, enter_code_prompt(rules.entry.length), *key)
    last_key_at: float | None = None
    for attempt in range(1, rules.tries + 1):
        entry, last_key_at = await collect(phone, prompts, rules.entry, last_key_at)
        if entry.outcome is Outcome.WITHOUT_CODE and rules.without_code:
            return await _go_without_code(phone, rules.without_code, secret, attempt, office, serve)
        if entry.outcome is not Outcome.COMPLETE:
            log.info("code", call=phone.call, attempt=attempt, accepted=False, entry=entry.outcome.value)
            mistake = (Prompt.START_OVER,) if entry.outcome is Outcome.INCOMPLETE else ()
            prompts = (Prompt.CODE_MISSING, *mistake, *key)
            continue
        async with claimed(phone.call, entry.code, secret, office) as claim:
            if claim is None:
                log.info("code", call=phone.call, attempt=attempt, accepted=False)
            elif await _serve_admitted(phone, claim, attempt, office, serve):
                return None
        # A wrong, a used and an expired code sound the same, and so does one of a login that failed.
        prompts = (Prompt.CODE_WRONG, Prompt.START_OVER, *key)
    log.info("not verified", call=phone.call, way_out=rules.unverified)
    plain = rules.unverified == "plain"
    return Farewell(Prompt.NOT_VERIFIED if plain else Prompt.NOT_VERIFIED_GOODBYE, rules.unverified)


async def _go_without_code(  # noqa: PLR0913, PLR0917 - as identify() has them
    phone: Handset,
    way: WithoutCode,
    secret: Secret,
    attempt: int,
    office: Office,
    serve: Callable[[Claim, Journey], Awaitable[None]],
) -> Farewell | None:
    """Have a caller without a code served as not verified, or give how to let go."""
    kind = f"purpose:{way.purpose}" if isinstance(way, ForPurpose) else way.kind
    log.info("without a code", call=phone.call, attempt=attempt, way_out=kind)
    match way:
        case ForPurpose(purpose):
            async with begun(phone.call, purpose, secret, office) as claim:
                with office.progress.call(claim.session.reference, phone.call, words_of(claim, office)) as journey:
                    await serve(claim, journey)
            return None
        case Plain():
            return Farewell(Prompt.WITHOUT_CODE_CONNECT, "plain")
        case Goodbye():
            return Farewell(Prompt.WITHOUT_CODE_GOODBYE, "goodbye")
        case _:
            assert_never(way)


def words_of(claim: Claim, office: Office) -> tuple[str, str] | None:
    """Give the control words of a call; None for a caller without a code, who has no page that shows them too."""
    if claim.without_code:
        return None
    return control_words(claim.secret, claim.session.language or office.rules.language)


async def collect(
    phone: Handset, prompts: Sequence[Prompt], rules: EntryRules, previous_key_at: float | None
) -> tuple[Entry, float | None]:
    """Collect one entry; a digit stops the prompt. Gives the entry and when its last key came."""
    now = asyncio.get_running_loop().time
    collector = Collector(rules, now(), previous_key_at=previous_key_at)
    playback = await phone.play(prompts)

    async def tell_when_prompt_ended() -> None:
        await playback.ended()
        collector.prompt_ended(now())
        timer.reschedule(collector.deadline)

    try:
        async with timeout_at(collector.deadline) as timer, asyncio.TaskGroup() as group:
            prompt_end = group.create_task(tell_when_prompt_ended())
            while True:
                entry = collector.press(await phone.digit(), now())
                if (entry or collector.started) and not prompt_end.done():
                    prompt_end.cancel()
                    await playback.stop()
                if entry:
                    return entry, collector.last_key_at
                timer.reschedule(collector.deadline)
    except TimeoutError:
        # The overall timer can end before a long prompt does, and what comes next must not wait for it.
        await playback.stop()
        return collector.expire(), collector.last_key_at


@asynccontextmanager
async def claimed(call: CallId, code: str, secret: Secret, office: Office) -> AsyncIterator[Claim | None]:
    """Exchange the code for a session and hold that for the block; None if the code is not right.

    A caller who is cut off before an agent answered may use the code again; after that it is gone. A store that is away
    is waited for, for :data:`PATIENCE_SECONDS`.
    """

    async def exchange() -> Claim | None:
        # Or what is told of the try before would undo this one.
        await office.ends.settle(call)
        session = await office.sessions.claim(code, call=call, secret=secret, now=office.clock())
        return Claim(session, secret) if session else None

    async with held(call, patiently(exchange, PATIENCE_SECONDS), office) as claim:
        yield claim


@asynccontextmanager
async def begun(call: CallId, purpose: str, secret: Secret, office: Office) -> AsyncIterator[Claim]:
    """Begin a session for a caller without a code, under a code that nobody is told, and hold it for the block.

    So it is in the queue, on the screens, in the history and for the next process a call like any other.
    """

    async def begin() -> str:
        session, code, now = Session(SessionRef(new_handle()), purpose), new_code(UNTOLD_DIGITS), office.clock()
        result = Received(AuthResult(AuthStatus.NOT_TRIED, {}), new_handle(), now)
        await office.sessions.start(
            session, attr_handle=new_handle(), page_handle=new_handle(), now=now, received=result
        )
        await office.sessions.issue_code(session.reference, code, now, valid_until=now + UNTOLD_SECONDS)
        return code

    code = await patiently(begin, PATIENCE_SECONDS)
    async with claimed(call, code, secret, office) as claim:
        if claim is None:
            raise StoreError("it has no session that was begun a moment ago")
        yield claim


@asynccontextmanager
async def held(
    call: CallId, getting: Awaitable[Claim | None], office: Office, *, served: bool = False
) -> AsyncIterator[Claim | None]:
    """Hold what ``getting`` gives for the block; ``served``: whether an agent has spoken, should it give nothing."""
    claim = None
    try:
        claim = await getting
        yield claim
    finally:
        # Also when the hangup came while the store was at work: what it then did is undone by the call's name.
        if office.notes.handed_over:
            log.info("left to the next process", call=call)
        else:
            await office.ends.end(call, served=claim.served if claim else served)


async def admitted(phone: Handset, claim: Claim, office: Office) -> bool:
    """Decide whether this caller may be served; waits a while for an auth result that is under way."""
    reference = claim.session.reference
    admit_unverified = office.rules.purposes[claim.session.purpose].admit_unverified
    verdict = admission(claim.session.result, admit_unverified=admit_unverified)
    if verdict is Admission.WAIT:
        with office.progress.watch(reference) as news:
            try:
                async with timeout(office.rules.late), _told_to_wait(phone):
                    while verdict is Admission.WAIT:
                        session = await office.sessions.by_reference(reference)
                        claim.session = session or claim.session
                        verdict = admission(claim.session.result, admit_unverified=admit_unverified)
                        if verdict is Admission.WAIT:
                            await news.changed()
            except TimeoutError:
                pass
    if verdict is not Admission.ADMIT:
        log.info("login failed or missing", call=phone.call, session=reference, verdict=verdict.value)
    return verdict is Admission.ADMIT


@asynccontextmanager
async def _told_to_wait(phone: Handset) -> AsyncIterator[None]:
    """Tell a caller for the block that we wait for an auth result; keys that are pressed meanwhile ask for nothing."""

    async def tell() -> None:
        while True:
            playing.append(await phone.play((Prompt.DATA_AWAITED,)))
            await playing[-1].ended()
            await asyncio.sleep(AWAITED_AGAIN_SECONDS)

    async def let_be() -> None:
        while True:
            await phone.digit()

    playing: list[Playback] = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tell()), group.create_task(let_be())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
    for playback in playing[-1:]:
        await playback.stop()


async def _serve_admitted(
    phone: Handset, claim: Claim, attempt: int, office: Office, serve: Callable[[Claim, Journey], Awaitable[None]]
) -> bool:
    """Have a caller served whose code is right; False if this caller may not be served."""
    with office.progress.call(claim.session.reference, phone.call, words_of(claim, office)) as journey:
        accepted = await admitted(phone, claim, office)
        log.info("code", call=phone.call, attempt=attempt, accepted=accepted)
        if accepted:
            await serve(claim, journey)
    return accepted


async def say(phone: Handset, *prompts: Prompt) -> None:
    """Play prompts to their end."""
    playback = await phone.play(prompts)
    await playback.ended()
