"""The one place where connections to PostgreSQL are made: a small pool, and those that are kept for their next use."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self

import asyncpg

from dnsupdate.errors import StoreError

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

COMMAND_TIMEOUT_S = 10.0
_MOST = 6
# The last is what asyncpg says when a connection breaks just as a statement begins.
BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
# What asyncpg says beside that of an address that is none.
NO_ADDRESS = (ValueError, OverflowError)


def trouble(exc: Exception) -> str:
    """Return what happened to a connection; nothing is repeated of an address that is none: it may hold a secret."""
    if isinstance(exc, NO_ADDRESS) and not isinstance(exc, asyncpg.InterfaceError):
        return "its address is none: it must be like postgresql://USER:PASSWORD@HOST:PORT/NAME"
    return f"{type(exc).__name__}: {exc}"


class Connections:
    """A pool that keeps what was used. One that came to no harm is there for who asks next.

    The way through asyncpg's pool takes as long as a statement.
    """

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._kept: list[tuple[str, Connection]] = []  # with their last use
        self._waiting = 0  # for the pool; it hands out what is given back to it, and not what is kept
        self._together = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str) -> AsyncIterator[Self]:
        """Open the pool; all of it is closed at the end.

        Raises:
            StoreError: the database does not answer.
        """
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=_MOST,
                command_timeout=COMMAND_TIMEOUT_S,
                timeout=COMMAND_TIMEOUT_S,
                init=_settle_plans,
                reset=_leave,
            )
        except (*BROKEN, *NO_ADDRESS) as exc:
            raise StoreError(f"database: {trouble(exc)}") from exc
        try:
            yield cls(pool)
        finally:
            pool.terminate()

    @asynccontextmanager
    async def borrow(self, use: str = "") -> "AsyncIterator[Connection]":
        """Borrow a connection; database trouble becomes a StoreError.

        `use`: who asks with the same word gets the one whose statements are prepared.
        """
        try:
            connection = await self._take(use)
            try:
                yield connection
            except BaseException:
                await self._pool.release(connection)
                raise
            if self._waiting:
                await self._pool.release(connection)
            else:
                self._kept.append((use, connection))
        except BROKEN as exc:
            raise StoreError(f"database: {trouble(exc)}") from exc

    async def _take(self, use: str) -> "Connection":
        self._kept.sort(key=lambda kept: (kept[0] == use, not kept[0]))
        while self._kept:
            _, connection = self._kept.pop()
            with suppress(asyncpg.InterfaceError):  # it broke meanwhile, and the pool has taken it back
                if not connection.is_closed():
                    return connection
            await self._pool.release(connection)
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=COMMAND_TIMEOUT_S)
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def borrow_at_once(self, *uses: str) -> "AsyncIterator[list[Connection]]":
        """Borrow several, or none when there are not enough. Two that hold some and wait for more would wait for ever.

        Raises:
            StoreError: as `borrow`.
        """
        async with self._together, AsyncExitStack() as stack:
            pool = self._pool
            free = pool.get_max_size() - pool.get_size() + pool.get_idle_size() + len(self._kept)
            wanted = uses if free >= len(uses) else ()
            yield [await stack.enter_async_context(self.borrow(use)) for use in wanted]


async def _settle_plans(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Plan each query once, by its indexes: a plan for tables that are empty would be kept when they are full."""
    await connection.execute(
        "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off"
    )


async def _leave(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Leave a connection as it is: nothing else that outlives a transaction is ever set, a reset is a wasted trip."""
    del connection
