"""Opens the store that the configuration asks for: the embedded one, or one in Redis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from idbellen.config import read_pem, read_secret
from idbellen.stores.redis import RedisStore
from idbellen.stores.redis import open_store as open_redis_store
from idbellen.stores.sqlite import SqliteStore
from idbellen.stores.sqlite import open_store as open_sqlite_store

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from idbellen.config import Settings
    from idbellen.domain.codes import Fingerprints

Store = SqliteStore | RedisStore


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
