"""Opens the store that the configuration asks for: the embedded one, or one in Redis."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from idbellen.ports import StoreError, UnfitStoreError
from idbellen.service.config import read_pem, read_secret
from idbellen.stores.redis import RedisStore
from idbellen.stores.redis import open_store as open_redis_store
from idbellen.stores.sqlite import SqliteStore
from idbellen.stores.sqlite import open_store as open_sqlite_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from idbellen.domain.codes import Fingerprints
    from idbellen.service.config import Settings

Store = SqliteStore | RedisStore
log = structlog.get_logger()

FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 5.0


def open_store(settings: Settings, fingerprints: Fingerprints) -> AbstractAsyncContextManager[Store]:
    """Open the store of an installation; entering it raises StoreError if it cannot be used.

    Raises:
        ConfigError: a file that the configuration names cannot be read.

    """
    own = settings.sessions
    if isinstance(own.store, Path):
        return open_sqlite_store(own.store, fingerprints)
    password = read_secret(own.store_password_file) if own.store_password_file else None
    # What is not ASCII can only be comments between the certificates.
    ca = read_pem(own.store_ca_file).decode("ascii", "ignore") if own.store_ca_file else None
    return open_redis_store(own.store, fingerprints, password=password, ca=ca)


async def wait_for_store(serve: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
    """Serve, and again while the store cannot be used, ever more slowly; each reason to wait is told once.

    ``serve`` is given what to call once the store can be used, and opens it anew each time.

    Raises:
        UnfitStoreError: it cannot be used however long one waits.

    """
    now = asyncio.get_running_loop().time
    told, over, since = "", True, now()
    pause = FIRST_WAIT_SECONDS

    def usable() -> None:
        nonlocal over, since
        if not over:
            log.info("the store can be used")
        over, since = True, now()

    while True:
        try:
            return await serve(usable)
        except UnfitStoreError:
            raise
        except StoreError as fault:
            if over and now() - since > LONGEST_WAIT_SECONDS:
                # A store that comes and goes in every start is not asked over and over, nor told of.
                told, pause = "", FIRST_WAIT_SECONDS
            if told != str(fault):
                told, over = str(fault), False
                log.error("waiting for the store", reason=told)  # noqa: TRY400 - one line
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        pause = min(LONGEST_WAIT_SECONDS, pause * 2)
