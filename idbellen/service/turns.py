"""Several processes with one store in Redis: one serves, the others stand by and relay to it."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from idbellen.service.listening import Listeners, notify_systemd
from idbellen.service.rules import StartError, TakenOverError
from idbellen.service.storage import open_store
from idbellen.stores.redis import RedisStore
from idbellen.stores.redis_turns import TurnLostError, Turns
from idbellen.stores.sqlite import only_process
from idbellen.web.machines.relay import relay_app, relay_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from idbellen.domain.codes import Fingerprints
    from idbellen.service.config import Settings

log = structlog.get_logger()

# A process that was killed and starts again waits for its own turn to lapse, and a little longer.
ALONE_SECONDS = 6.0
# Whoever is relayed to has gone, and callers wait for us.
RELAY_STOP_SECONDS = 0.1
# Below what systemd gives a planned stop (systemd/idbellen.service).
END_SECONDS = 15.0
SERVED = "another idbellen serves with it: stop that one, or let them take turns with [cluster]"


async def serve_in_turn(settings: Settings, store: RedisStore, serve: Callable[[Turns], Awaitable[None]]) -> None:
    """Serve whenever it is this process's turn, until cancelled; without ``[cluster]`` it has to be at once.

    Raises:
        StartError: another process serves, and this one is not to stand by.

    """
    own = settings.cluster
    addresses = {}
    if own:
        addresses = {name: f"http://{own.host}:{at.rpartition(':')[2]}" for name, at in _listeners(settings).items()}
    turns = store.turns(addresses)
    while True:
        if own is None:
            if not await turns.take(patience=ALONE_SECONDS):
                raise StartError(f"[sessions] store: {SERVED}")
        else:
            async with _standing_by(settings, turns):
                await turns.take()
        log.info("our turn")
        try:
            await _serve_this_turn(turns, serve)
        except (TakenOverError, TurnLostError) as loss:
            if own is None:
                raise TakenOverError(str(loss) or f"[sessions] store: {SERVED}") from None
            log.warning("another process serves now", reason=str(loss))
        finally:
            await turns.leave()


@asynccontextmanager
async def nobody_serves(settings: Settings, fingerprints: Fingerprints) -> AsyncIterator[None]:
    """See to it that no process serves, for the block.

    Raises:
        StoreError: one does, or the store cannot be used.
        StartError: one does.

    """
    async with AsyncExitStack() as stack:
        if isinstance(settings.sessions.store, Path):
            stack.enter_context(only_process(settings.sessions.store))
        else:
            store = await stack.enter_async_context(open_store(settings, fingerprints))
            assert isinstance(store, RedisStore)  # noqa: S101 - by its URL
            turns = store.turns({})
            if not await turns.take(patience=ALONE_SECONDS):
                raise StartError(f"[sessions] store: {SERVED}")
            stack.push_async_callback(turns.leave)
        yield


async def _serve_this_turn(turns: Turns, serve: Callable[[Turns], Awaitable[None]]) -> None:
    holding = asyncio.ensure_future(turns.hold())
    serving = asyncio.ensure_future(serve(turns))
    for task in (holding, serving):
        # Also when we are cancelled before it is looked at below.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        await asyncio.wait((holding, serving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Whoever serves needs the turn until the last note is written.
        serving.cancel()
        _, stuck = await asyncio.wait((serving,), timeout=END_SECONDS)
        if stuck:
            # Its pages would be there without being able to write, and whoever is led to them could not log in.
            log.critical("its turn does not end: this process ends at once, to be started again", seconds=END_SECONDS)
            os._exit(1)
        holding.cancel()
        await asyncio.wait((holding,))
    for ended in (serving, holding):
        if not ended.cancelled() and (fault := ended.exception()):
            raise fault


@asynccontextmanager
async def _standing_by(settings: Settings, turns: Turns) -> AsyncIterator[None]:
    """Relay everything to whoever serves, for the block."""
    # Before it is ready: whoever comes in the first moment is to be served too.
    await turns.look()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(relay_client())
        listeners = await stack.enter_async_context(Listeners(settings, stop=RELAY_STOP_SECONDS))
        for name in _listeners(settings):
            await listeners.listen(relay_app(partial(_address, turns, name), http), name)
        log.info("standing by")
        notify_systemd("READY=1")
        yield


def _address(turns: Turns, name: str) -> str | None:
    return turns.serving.get(name)


def _listeners(settings: Settings) -> dict[str, str]:
    """Give where this process listens, by the table of the configuration."""
    own = {
        "idcontact": settings.idcontact.listen,
        "citizen": settings.citizen.listen,
        "dashboard": settings.dashboard.listen,
    }
    return own | ({"link_phone": settings.link_phone.listen} if settings.link_phone else {})
