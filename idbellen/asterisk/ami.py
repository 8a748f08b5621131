"""AMI: what a PBX tells of its queues and channels, and how members log in and out of its queues.

panoramisk speaks the protocol. It trusts the network, so everything that waits has a deadline here, a lost or silent
connection is opened afresh with everything asked for anew, and events go into one bounded mailbox: when that is full
the connection is given up, loudly, because a screen that follows half of the events is worse than none.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog
from panoramisk import Manager
from panoramisk.ami_protocol import AMIProtocol

from idbellen.aio import first_of, reconnecting, timeout
from idbellen.domain.wiring import (
    Answered,
    Appeared,
    Channel,
    Entered,
    Gone,
    Held,
    Left,
    LeftQueue,
    Lost,
    Member,
    MemberGone,
    Members,
    PbxEvent,
    Queued,
    Snapshot,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

log = structlog.get_logger()

CONNECT_SECONDS = 5.0
ACTION_SECONDS = 5.0
LIST_SECONDS = 15.0
# A silent connection is noticed within the sum of this and ACTION_SECONDS.
PING_SECONDS = 5.0
# So often the members of the queues are asked for again, and whenever the PBX has read its configuration.
COMPARE_SECONDS = 15.0
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0
MOST_EVENTS = 5000
# A message of AMI is some hundred bytes; whoever sends this much without an end of one does not speak AMI.
LARGEST_MESSAGE = 1 << 20
REFERENCE = "IDBELLEN_REFERENCE"
# The dialplan sets it before it asks us.
VERIFIED = "IDBELLEN_VERIFIED"
NEVER = 10**9

_silent = logging.getLogger("panoramisk.silent")
_silent.disabled = True


class AmiError(Exception):
    """The PBX could not be reached, or refuses us; the message says which."""


class AmiDeniedError(AmiError):
    """The PBX does not accept our user name and password."""


class _Protocol(AMIProtocol):  # type: ignore[misc] # panoramisk has no types
    """Gives up on a peer that sends no end of a message."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.log = _silent

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if sum(map(len, self.queue)) > LARGEST_MESSAGE:
            self.transport.abort()


class _Manager(Manager):  # type: ignore[misc]
    """One connection: it tells when it is lost, and leaves opening another to us."""

    def __init__(self, **config: Any) -> None:  # noqa: ANN401
        super().__init__(protocol_factory=_Protocol, log=_silent, ping_delay=NEVER, ping_interval=NEVER, **config)
        self.loop = asyncio.get_running_loop()
        self.made = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, made: asyncio.Task[Any]) -> None:
        if made.cancelled() or made.exception():
            self.lost.set()
        else:
            super().connection_made(made)
            self.made.set()

    def login(self, _: asyncio.Future[Any]) -> None:
        """Do nothing: the answer is looked at where the login is waited for."""

    def connection_lost(self, _: object) -> None:
        self.lost.set()


class Ami:
    """A connection with one PBX that is kept up; ``queues``: the PBX's queues that are followed."""

    def __init__(self, host: str, port: int, user: str, password: str, queues: Collection[str]) -> None:
        self._where = f"{host}:{port}"
        self._config = {"host": host, "port": port, "username": user, "secret": password}
        self._queues = frozenset(queues)
        self._mailbox: asyncio.Queue[PbxEvent] = asyncio.Queue()
        self._held_back: list[PbxEvent] | None = None
        self._manager: _Manager | None = None
        # An action of ours is over before all members are asked for, or is done after that.
        self._acting = asyncio.Lock()
        self._reloaded = asyncio.Event()
        self._missing: frozenset[str] = frozenset()

    @property
    def connected(self) -> bool:
        """Whether the PBX tells what happens."""
        return self._manager is not None

    async def next_event(self) -> PbxEvent:
        """Wait for the next event. After each connecting the first is a :class:`Snapshot`."""
        return await self._mailbox.get()

    async def run(self) -> None:
        """Keep the connection up until cancelled, ever more slowly when it fails."""
        await reconnecting(
            self._once, self._lost, AmiError, first=FIRST_BACKOFF_SECONDS, longest=LONGEST_BACKOFF_SECONDS
        )

    async def _once(self, up: Callable[[], None]) -> None:
        manager = await self._open()
        try:
            await self._refresh(manager)
            self._manager = manager
            up()
            log.info("connected with the PBX over AMI", address=self._where)
            await self._stay(manager)
        except AmiError:
            if self._manager:
                self._empty()
                self._mailbox.put_nowait(Lost())
            raise
        finally:
            self._manager = None
            _close(manager)

    def _lost(self, reason: str, news: bool) -> None:  # noqa: FBT001 - as reconnecting() calls it
        if news:
            log.error("no AMI connection", address=self._where, reason=reason)

    @asynccontextmanager
    async def trying_out(self) -> AsyncIterator[AmiTrial]:
        """Connect and ask for the state, for the block in which more can be asked.

        Raises:
            AmiDeniedError: user name or password are wrong.
            AmiError: it cannot be reached, or lets us do too little.

        """
        manager = await self._open()
        try:
            await self._refresh(manager)
            yield AmiTrial(manager, self._missing)
        finally:
            _close(manager)

    # Members

    async def add_member(self, queue: str, interface: str, *, name: str, penalty: int, state: str) -> bool:
        """Let a member log in to a queue; ``state``: the phone whose state counts. False if that cannot be."""
        fields = {"Queue": queue, "Interface": interface, "MemberName": name, "Penalty": str(penalty)}
        if state != interface:
            fields["StateInterface"] = state
        return await self._act("QueueAdd", **fields, Paused="false")

    async def remove_member(self, queue: str, interface: str) -> bool:
        """Let a member log out of a queue; False if that cannot be."""
        return await self._act("QueueRemove", Queue=queue, Interface=interface)

    async def pause_member(self, queue: str, interface: str, *, paused: bool, reason: str) -> bool:
        """Pause a member, or end the pause; False if that cannot be."""
        return await self._act(
            "QueuePause", Queue=queue, Interface=interface, Paused=str(paused).lower(), Reason=reason
        )

    async def _act(self, action: str, **fields: str) -> bool:
        manager = self._manager
        if manager is None:
            return False
        try:
            async with self._acting:
                answer = await _ask(manager, action, fields)
        except AmiError as fault:
            log.warning("AMI action failed", action=action, reason=str(fault))
            return False
        if not answer.success:
            log.warning("AMI action refused", action=action, reason=answer.message)
        return bool(answer.success)

    # One connection

    async def _open(self) -> _Manager:
        manager = _Manager(**self._config)
        # From the first moment on nothing is missed; what comes before the snapshot is told after it.
        self._held_back = []
        manager.register_event("*", self._take)
        opening = manager.connect()
        try:
            async with timeout(CONNECT_SECONDS):
                await opening
                # panoramisk sends the login in a callback of the connecting.
                await manager.made.wait()
                answer = await _first(manager, manager.authenticated_future)
        except TimeoutError:
            _close(manager)
            raise AmiError(f"no login in {CONNECT_SECONDS:g} s") from None
        except OSError as fault:
            raise AmiError(fault.strerror or str(fault)) from None
        except BaseException:
            _close(manager)
            raise
        if not answer.success:
            _close(manager)
            raise AmiDeniedError(f"the PBX refuses user {self._config['username']!r} or the password")
        return manager

    async def _refresh(self, manager: _Manager) -> None:
        """Ask for everything, and tell it."""
        status = await _list(manager, "Status", {"Variables": f"{REFERENCE},{VERIFIED}"})
        channels = tuple(
            Channel(
                entry.uniqueid,
                entry.channel,
                entry.bridgeid,
                _variable(entry, REFERENCE),
                asked=_variable(entry, VERIFIED) != "",
            )
            for entry in status
            if entry.event == "Status"
        )
        entries = await self._queue_status(manager)
        queued = tuple(
            Queued(entry.uniqueid, entry.queue, float(entry.wait or 0))
            for entry in sorted(entries, key=lambda entry: int(entry.position or 0))
            if entry.event == "QueueEntry" and entry.queue in self._queues
        )
        self._empty()
        self._tell(Snapshot(channels, queued, self._members(entries)))

    async def _compare(self, manager: _Manager) -> None:
        """Ask for the members again, and tell them: what was told meanwhile comes after that."""
        self._reloaded.clear()
        async with self._acting:
            self._held_back = []
            self._tell(Members(self._members(await self._queue_status(manager))))

    async def _queue_status(self, manager: _Manager) -> list[Any]:
        entries = []
        for queue in sorted(self._queues):
            entries += await _list(manager, "QueueStatus", {"Queue": queue})
        missing = self._queues - {entry.queue for entry in entries if entry.event == "QueueParams"}
        if missing - self._missing:
            log.error("the PBX has no such queue", queues=",".join(sorted(missing)))
        self._missing = missing
        return entries

    def _members(self, entries: list[Any]) -> tuple[Member, ...]:
        return tuple(
            Member(entry.queue, entry.location, entry.paused == "1", entry.membership == "dynamic")
            for entry in entries
            if entry.event == "QueueMember" and entry.queue in self._queues
        )

    def _tell(self, state: Snapshot | Members) -> None:
        self._mailbox.put_nowait(state)
        for event in self._held_back or ():
            self._mailbox.put_nowait(event)
        self._held_back = None

    async def _stay(self, manager: _Manager) -> None:
        loop = asyncio.get_running_loop()
        compared = loop.time()
        while not manager.lost.is_set():
            try:
                async with timeout(PING_SECONDS):
                    await first_of(manager.lost, self._reloaded)
            except TimeoutError:
                await _ask(manager, "Ping", {})
            if self._reloaded.is_set() or loop.time() - compared >= COMPARE_SECONDS:
                await self._compare(manager)
                compared = loop.time()
        raise AmiError("connection lost")

    def _take(self, manager: _Manager, message: Any) -> None:  # noqa: ANN401 - panoramisk's Message
        if message.event == "Reload":
            self._reloaded.set()
            return
        try:
            event = translate(message)
        except (KeyError, ValueError) as fault:
            log.error("event not understood and left alone", kind=message.event, reason=repr(fault))  # noqa: TRY400
            return
        if event is None or getattr(event, "queue", None) not in {None, *self._queues}:
            return
        if self._held_back is not None:
            self._held_back.append(event)
        elif manager is self._manager:
            self._mailbox.put_nowait(event)
        if (len(self._held_back) if self._held_back is not None else self._mailbox.qsize()) > MOST_EVENTS:
            log.error("too many events of the PBX at once: connecting anew")
            manager.lost.set()
            manager.protocol.transport.abort()

    def _empty(self) -> None:
        while not self._mailbox.empty():
            self._mailbox.get_nowait()


class AmiTrial:
    """A connection for ``idbellen check``. ``missing``: the queues that the PBX does not have."""

    def __init__(self, manager: _Manager, missing: frozenset[str]) -> None:
        self._manager = manager
        self.missing = missing

    async def variable(self, name: str) -> str:
        """Give a global variable of the dialplan; empty for none.

        Raises:
            AmiError: it does not answer, or lets us do too little.

        """
        answer = await _ask(self._manager, "Getvar", {"Variable": name})
        if not answer.success:
            raise AmiError(f"Getvar refused: {answer.message}")
        return str(answer.value or "")

    async def has_context(self, name: str) -> bool:
        """Whether the dialplan has a context.

        Raises:
            AmiError: it does not answer, or lets us do too little.

        """
        answer = await _ask(self._manager, "ShowDialPlan", {"Context": name}, seconds=LIST_SECONDS, as_list=None)
        if isinstance(answer, list):
            return True
        if "context" in answer.message:
            return False
        raise AmiError(f"ShowDialPlan refused: {answer.message}")


def translate(message: Mapping[str, str]) -> PbxEvent | None:
    """Turn an event of AMI into ours; None for one that we have no use for.

    Raises:
        KeyError: it lacks what Asterisk's documentation says it has.

    """
    match message["Event"]:
        case "Newchannel":
            return Appeared(message["Uniqueid"], message["Channel"])
        case "Rename":
            return Appeared(message["Uniqueid"], message["Newname"])
        case "Hangup":
            return Gone(message["Uniqueid"])
        case "BridgeEnter":
            return Entered(message["Uniqueid"], message["Channel"], message["BridgeUniqueid"])
        case "BridgeLeave":
            return Left(message["Uniqueid"], message["BridgeUniqueid"])
        case "Hold" | "Unhold" as kind:
            return Held(message["Uniqueid"], kind == "Hold")
        case kind if kind.startswith("Queue") or kind == "AgentConnect":
            return _translate_queue(kind, message)
    return None


def _translate_queue(kind: str, message: Mapping[str, str]) -> PbxEvent | None:
    match kind:
        case "QueueCallerJoin":
            return Queued(message["Uniqueid"], message["Queue"])
        case "QueueCallerLeave" | "QueueCallerAbandon":
            return LeftQueue(message["Uniqueid"], message["Queue"], kind == "QueueCallerAbandon")
        case "AgentConnect":
            return Answered(message["Uniqueid"], message["Queue"], message["Interface"])
        case "QueueMemberAdded" | "QueueMemberPause":
            dynamic = message.get("Membership", "dynamic") == "dynamic"
            return Member(message["Queue"], message["Interface"], message["Paused"] == "1", dynamic)
        case "QueueMemberRemoved":
            return MemberGone(message["Queue"], message["Interface"])
    return None


def _variable(entry: Any, wanted: str) -> str:  # noqa: ANN401
    found = entry.variable
    for text in found if isinstance(found, list) else [found]:
        name, _, value = text.partition("=")
        if name == wanted:
            return str(value)
    return ""


async def _list(manager: _Manager, action: str, fields: Mapping[str, str]) -> list[Any]:
    answer = await _ask(manager, action, fields, seconds=LIST_SECONDS, as_list=None)
    if isinstance(answer, list):
        return [entry for entry in answer if "event" in entry]
    raise AmiError(f"{action} refused: {answer.message}")


async def _ask(
    manager: _Manager,
    action: str,
    fields: Mapping[str, str],
    *,
    seconds: float | None = None,
    as_list: bool | None = False,
) -> Any:  # noqa: ANN401
    seconds = seconds or ACTION_SECONDS
    clean = {name: text.replace("\r", "").replace("\n", "") for name, text in fields.items()}
    try:
        async with timeout(seconds):
            return await _first(manager, manager.send_action({"Action": action, **clean}, as_list=as_list))
    except TimeoutError:
        raise AmiError(f"{action}: no answer in {seconds:g} s") from None


async def _first(manager: _Manager, answer: asyncio.Future[Any]) -> Any:  # noqa: ANN401
    """Wait for an answer, or for the end of the connection, which panoramisk keeps from whoever waits."""
    lost = asyncio.ensure_future(manager.lost.wait())
    both: list[asyncio.Future[Any]] = [answer, lost]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        lost.cancel()
    if not answer.done():
        raise AmiError("connection lost")
    return answer.result()


def _close(manager: _Manager) -> None:
    manager.lost.set()
    manager.close()
