"""The way to Redis: each request is answered in bounded time, or fails in words that say which server and why."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from idbellen.aio import cancellations, timeout
from idbellen.ports import StoreError, UnfitStoreError
from idbellen.stores.redis_scripts import FENCED, PREFIX, fenced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from idbellen.stores.redis_url import RedisUrl

REQUEST_SECONDS = 2.0
SILENT = f"no answer within {REQUEST_SECONDS:g} seconds"
# A Sentinel that is silent leaves time to ask another.
SENTINEL_SECONDS = 0.5
MOST_CONNECTIONS = 16


class RedisConnection:
    """Sends requests to a server over connections that are made, and made again, as they are needed.

    No request is repeated by itself: whether one that failed under way was done is not known.
    """

    def __init__(self, client: Redis, url: RedisUrl) -> None:
        self._client = client
        self._url = url
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)
        # The number of the turn without which nothing may be changed.
        self.fence: int | None = None

    async def script(self, text: str, *values: str | float) -> Any:  # noqa: ANN401 - what the script gives
        """Run a script, which happens whole or not at all.

        Raises:
            StoreError: there is no answer in time, or the server refuses.

        """
        return await self.unfenced(text if self.fence is None else fenced(text, self.fence), *values)

    async def unfenced(self, text: str, *values: str | float) -> Any:  # noqa: ANN401 - what the script gives
        """Run a script as :meth:`script` does, but whoever's turn it is."""
        return await self.command("EVAL", text, 1, PREFIX, *values)

    async def command(self, *words: str | float) -> Any:  # noqa: ANN401 - what the command gives
        """Run one command.

        Raises:
            UnfitStoreError: the server refuses us: another password, too few rights, a certificate that nobody trusts.
            StoreError: there is no answer in time, or the server refuses.

        """
        async with self.bounded(), self._room:
            before = cancellations()
            try:
                return await self._client.execute_command(*words)  # type: ignore[no-untyped-call]
            except ReadOnlyError:
                # It was the primary when we connected; by now the same name may lead to another server.
                await self._client.connection_pool.disconnect(inuse_connections=False)
                raise
            finally:
                if cancellations() > before:
                    # wait_for() of Python 3.11, with which the library waits, keeps a cancellation that comes in the
                    # moment of the answer to itself, also of a refusal; the caller has hung up all the same.
                    raise asyncio.CancelledError

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """Let the block take as long as one request may, and turn its faults into our own."""
        before = cancellations()
        try:
            async with timeout(REQUEST_SECONDS):
                yield
        except asyncio.CancelledError:
            if cancellations() > before:
                raise
            # The library's own limit, in a task that is being cancelled, on a Python before 3.11.4.
            raise self.fault(SILENT) from None
        except (RedisError, OSError) as fault:
            refused = isinstance(fault, AuthenticationError | NoPermissionError)
            unfit = refused or isinstance(fault.__context__, ssl.SSLCertVerificationError)
            raise self.fault(self._reason(fault), UnfitStoreError if unfit else StoreError) from None

    def fault(self, reason: str, kind: type[StoreError] = StoreError) -> StoreError:
        """Give an error that says which server it is about."""
        return kind(f"store {self._url}: {' '.join(reason.split())}")

    def _reason(self, fault: Exception) -> str:
        match fault:
            case TimeoutError() | RedisTimeoutError():
                return SILENT
            case MasterNotFoundError():
                return f"no Sentinel that answers knows a primary named {self._url.service!r} that is up"
            case AuthenticationError():
                return f"password refused: {fault}"
            case ReadOnlyError():
                return "a read-only replica, not the primary"
            case ResponseError() if FENCED in str(fault):
                return "another process serves now"
        # The library tells numbers and addresses where the system has words.
        cause = fault.__context__
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
            return str(cause.strerror if cause.errno < 0 else os.strerror(cause.errno))
        return str(fault) or type(fault).__name__


@asynccontextmanager
async def open_connection(url: RedisUrl, password: str | None, ca: str | None) -> AsyncIterator[RedisConnection]:
    """Give a way to Redis. ``password`` goes before that of the URL; ``ca``: whom to trust for TLS, in PEM.

    Nothing is sent until the first request.
    """
    common: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
    if url.tls:
        common |= {"ssl": True, "ssl_ca_data": ca}
    options = common | {
        "db": url.database,
        "username": url.user or None,
        "password": password or url.password or None,
        "decode_responses": True,
        "encoding_errors": "replace",
        "socket_timeout": REQUEST_SECONDS,
        "socket_connect_timeout": REQUEST_SECONDS,
        "max_connections": MOST_CONNECTIONS,
    }
    async with AsyncExitStack() as stack:
        if url.service:
            common |= {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
            sentinel = Sentinel(url.hosts, sentinel_kwargs=common)  # type: ignore[no-untyped-call]
            await stack.enter_async_context(sentinel)
            client = sentinel.master_for(url.service, **options)
        else:
            [(host, port)] = url.hosts
            client = Redis(host=host, port=port, **options)
        await stack.enter_async_context(client)
        yield RedisConnection(client, url)
