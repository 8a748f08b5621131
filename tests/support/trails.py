"""Where audit trails are kept, and how somebody with access to it would change one from outside."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from idbellen.stores.redis import open_store as open_redis_store
from idbellen.stores.sqlite import open_store as open_sqlite_store

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from idbellen.domain.codes import Fingerprints
    from idbellen.ports import Clock
    from idbellen.service.storage import Store
    from tests.support.redis_servers import RedisProcess

COLUMNS = ("sequence", "at", "actor", "action", "subject", "detail", "seal")
END_COLUMNS = ("sequence", "seal", "proof")


class Trail(Protocol):
    """The place of an audit trail.

    ``opening`` is what another process imports, and the place as Python; ``taken`` is what is said when there is an
    entry 2 already.
    """

    @property
    def opening(self) -> tuple[str, str]: ...

    @property
    def taken(self) -> str: ...

    def open(self, fingerprints: Fingerprints, clock: Clock) -> AbstractAsyncContextManager[Store]: ...

    async def change(self, sequence: int, **columns: Any) -> None:
        """Change an entry."""

    async def garble(self, sequence: int, text: str) -> None:
        """Put a text in the place of what is kept as JSON."""

    async def remove(self, sequence: int) -> None:
        """Delete an entry."""

    async def end(self, which: str) -> dict[str, Any]:
        """Read an end of the chain."""

    async def put_end(self, which: str, **columns: Any) -> None:
        """Change an end of the chain; delete it when nothing is given."""


@dataclass
class SqliteTrail:
    path: Path
    taken = "audit trail: UNIQUE"

    @property
    def opening(self) -> tuple[str, str]:
        return "from idbellen.stores.sqlite import open_store", f"Path({str(self.path)!r})"

    def open(self, fingerprints: Fingerprints, clock: Clock) -> AbstractAsyncContextManager[Store]:
        return open_sqlite_store(self.path, fingerprints, clock)

    def _do(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    async def change(self, sequence: int, **columns: Any) -> None:
        for name, value in columns.items():
            self._do(f"UPDATE audit SET {name} = ? WHERE sequence = ?", value, sequence)  # noqa: S608

    async def garble(self, sequence: int, text: str) -> None:
        await self.change(sequence, detail=text)

    async def remove(self, sequence: int) -> None:
        self._do("DELETE FROM audit WHERE sequence = ?", sequence)

    async def end(self, which: str) -> dict[str, Any]:
        [row] = self._do(f"SELECT {', '.join(END_COLUMNS)} FROM audit_ends WHERE which = ?", which)  # noqa: S608
        return dict(zip(END_COLUMNS, row, strict=True))

    async def put_end(self, which: str, **columns: Any) -> None:
        if not columns:
            self._do("DELETE FROM audit_ends WHERE which = ?", which)
        for name, value in columns.items():
            self._do(f"UPDATE audit_ends SET {name} = ? WHERE which = ?", value, which)  # noqa: S608


@dataclass
class RedisTrail:
    server: RedisProcess
    taken = "has an entry 2 already"

    @property
    def opening(self) -> tuple[str, str]:
        names = "from idbellen.stores.redis import open_store; from idbellen.stores.redis_url import RedisUrl"
        return names, repr(self.server.url)

    def open(self, fingerprints: Fingerprints, clock: Clock) -> AbstractAsyncContextManager[Store]:
        return open_redis_store(self.server.url, fingerprints, clock)

    async def _entry(self, sequence: int) -> str:
        return await self.server.cli("ZRANGE", "{idbellen}:audit", str(sequence), str(sequence), "BYSCORE")

    async def change(self, sequence: int, **columns: Any) -> None:
        entry = dict(zip(COLUMNS, json.loads(await self._entry(sequence)), strict=True))
        await self.garble(sequence, json.dumps(list((entry | columns).values())))

    async def garble(self, sequence: int, text: str) -> None:
        await self.remove(sequence)
        assert await self.server.cli("ZADD", "{idbellen}:audit", str(sequence), text) == "1"

    async def remove(self, sequence: int) -> None:
        assert await self.server.cli("ZREM", "{idbellen}:audit", await self._entry(sequence)) == "1"

    async def end(self, which: str) -> dict[str, Any]:
        return dict(
            zip(END_COLUMNS, json.loads(await self.server.cli("HGET", "{idbellen}:audit-ends", which)), strict=True)
        )

    async def put_end(self, which: str, **columns: Any) -> None:
        if columns:
            changed = json.dumps(list((await self.end(which) | columns).values()))
            await self.server.cli("HSET", "{idbellen}:audit-ends", which, changed)
        else:
            await self.server.cli("HDEL", "{idbellen}:audit-ends", which)
