"""What this process has in hand, noted beside the calls, so that the next process can take it up.

Notes are written behind the calls: none fails with them, and none waits for them but where an agent is let go who
leaves the caller to others. A crash loses what the last few milliseconds changed, and then Asterisk's own list decides.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from idbellen.aio import timeout
from idbellen.calls.behind import Behind, Words
from idbellen.domain.agents import AgentState
from idbellen.domain.notes import (
    AgentNote,
    CallNote,
    NoteError,
    note_agent,
    read_agent,
    read_call,
    write_agent,
    write_call,
)

if TYPE_CHECKING:
    from idbellen.domain.agents import Agent
    from idbellen.domain.ids import CallId
    from idbellen.ports import NoteStore

log = structlog.get_logger()

RETRY_SECONDS = 0.25
WORDS = Words(
    failing="calls cannot be noted, so a restart would lose them; trying again",
    again="calls are noted again",
    lost="calls not noted, so the next process cannot take them up",
)
KEPT_SECONDS = 0.5
_CALL, _AGENT = "call ", "agent "


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier process had in hand."""

    calls: tuple[CallNote, ...] = ()
    agents: tuple[AgentNote, ...] = ()


class Notes:
    """The notes of this process. ``handed_over``: it stops, and what it has in hand is the next one's."""

    def __init__(self, store: NoteStore) -> None:
        self._store = store
        self._unwritten: dict[str, str | None] = {}
        self._awaited: list[asyncio.Future[None]] = []
        self._behind = Behind(self._write, WORDS, lambda: len(self._unwritten), first=RETRY_SECONDS)
        self.run = self._behind.run
        self.flush = self._behind.flush
        self.handed_over = False

    async def load(self) -> Earlier:
        """Give what an earlier process has left; fails as the store does."""
        calls, agents = [], []
        for name, text in (await self._store.notes()).items():
            try:
                if name.startswith(_CALL):
                    calls.append(read_call(text))
                else:
                    agents.append(read_agent(text))
            except NoteError as fault:
                log.warning("note of an earlier process not understood and let go", note=name, reason=str(fault))
                self._put(name, None)
        return Earlier(tuple(calls), tuple(agents))

    def call(self, note: CallNote) -> Memo:
        """Give the note of a call, to be changed as the call goes on."""
        return Memo(self, note)

    def keep_call(self, note: CallNote) -> None:
        """Keep the note of a call in place of an earlier one."""
        self._put(_CALL + note.call, write_call(note))

    def forget_call(self, call: CallId) -> None:
        """Forget a call that is over."""
        self._put(_CALL + call, None)

    def keep_agent(self, agent: Agent, by_phone: bool) -> None:  # noqa: FBT001 - as the staff tells it
        """Keep the note of an agent in place of an earlier one; an agent who is not here has none."""
        here = agent.state is not AgentState.OFFLINE
        self._put(_AGENT + agent.name, write_agent(note_agent(agent, by_phone=by_phone)) if here else None)

    def _put(self, name: str, text: str | None) -> None:
        if not self.handed_over:
            self._unwritten[name] = text
            self._behind.more()

    async def kept(self) -> None:
        """Wait until what was noted is written, for :data:`KEPT_SECONDS` at most. Does not fail."""
        written = asyncio.get_running_loop().create_future()
        self._awaited.append(written)
        self._behind.more()
        with suppress(TimeoutError):
            async with timeout(KEPT_SECONDS):
                await written

    def hand_over(self) -> None:
        """Let nothing change any more: what ends from now on ends only for this process."""
        self.handed_over = True

    async def _write(self) -> None:
        batch, self._unwritten = self._unwritten, {}
        awaited, self._awaited = self._awaited, []
        written = False
        try:
            if batch:
                await self._store.note(batch)
            written = True
            for one in awaited:
                if not one.done():
                    one.set_result(None)
        finally:
            if not written:
                self._unwritten = batch | self._unwritten
                self._awaited = [one for one in awaited if not one.done()] + self._awaited


class Memo:
    """The note of one call in hand, until it is forgotten; a change after that has no effect."""

    def __init__(self, notes: Notes, note: CallNote) -> None:
        self._notes = notes
        self._forgotten = False
        self.note = note
        notes.keep_call(note)

    def change(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of CallNote
        """Change some fields."""
        self.note = replace(self.note, **changes)
        # A caller whose call has failed is still played the apology.
        if not self._forgotten:
            self._notes.keep_call(self.note)

    def playing(self, playbacks: tuple[str, ...]) -> None:
        """Note which prompts the caller is being played: as long as they play, nobody can talk with the caller."""
        self.change(playing=playbacks)

    def forget(self) -> None:
        """Forget the call."""
        self._forgotten = True
        self._notes.forget_call(self.note.call)
