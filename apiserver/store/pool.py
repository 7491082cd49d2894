"""Connections to the database: each with deadlines, transactions that take their locks first."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from apiserver.errors import ApiError, UnavailableError
from apiserver.store.failures import ASYNCPG, LostConnectionError, SilentError, UnknownOutcomeError, translated

logger = logging.getLogger(__name__)
RELEASE_S = 2.0
Row = Mapping[str, Any]  # an asyncpg.Record; values come in the order of the select list

NAMESPACE = 0x41525641  # first key of all our two-key advisory locks; the second is a Lock


class Lock(IntEnum):
    """Cluster-wide locks, taken in ascending order as the first statements of a transaction."""

    MIGRATE = 1
    PERMISSIONS = 2
    PRIORITIES = 3
    SLOTS = 6


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """How to reach the database and how long anything may take.

    `pooler` says that a transaction pooler (PgBouncer) is in between: no prepared statements, no start-up options.
    """

    dsn: str
    pool: int = 10
    connect_s: float = 3.0
    acquire_s: float = 5.0
    statement_s: float = 30.0
    lock_s: float = 5.0
    idle_in_transaction_s: float = 10.0
    application_name: str = "arv-api"
    pooler: bool = False

    def connect_arguments(self) -> dict[str, Any]:
        """Return the arguments of asyncpg.connect."""
        arguments: dict[str, Any] = {
            "dsn": self.dsn,
            "timeout": self.connect_s,
            "command_timeout": self.statement_s + 2,
        }
        if self.pooler:
            return arguments | {"statement_cache_size": 0}
        milliseconds = {
            "statement_timeout": self.statement_s,
            "lock_timeout": self.lock_s,
            "idle_in_transaction_session_timeout": self.idle_in_transaction_s,
            "client_connection_check_interval": 5.0,
            "tcp_user_timeout": 15.0,
        }
        seconds = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
        return arguments | {
            "server_settings": {
                "timezone": "UTC",
                "jit": "off",  # compiling costs more than any of our statements
                "application_name": self.application_name,
                **{name: str(int(value * 1000)) for name, value in milliseconds.items()},
                **{name: str(value) for name, value in seconds.items()},
            }
        }


@dataclass(frozen=True, slots=True)
class Timings:
    """Who is told how long, in seconds, a connection and each lock (by its name, `permissions`) was waited for."""

    acquired: Callable[[float], None] = lambda _: None
    locked: Callable[[str, float], None] = lambda *_: None


class Session:
    """One connection for the length of one request or batch; `queries` counts what it sent."""

    def __init__(
        self, connection: "asyncpg.Connection | PoolConnectionProxy[asyncpg.Record]", timings: Timings | None = None
    ) -> None:
        self._connection = connection
        self._timings = timings or Timings()
        self.queries = 0

    async def rows(self, sql: str, *parameters: object) -> list[Row]:
        """Return all rows."""
        self.queries += 1
        with translated():
            return cast(list[Row], await self._connection.fetch(sql, *parameters))

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """Return all rows; the name under which other packages ask for `rows`."""
        return await self.rows(query, *args)

    async def row(self, sql: str, *parameters: object) -> Row | None:
        """Return the first row."""
        self.queries += 1
        with translated():
            return cast(Row | None, await self._connection.fetchrow(sql, *parameters))

    async def value(self, sql: str, *parameters: object) -> Any:
        """Return the first column of the first row, None without a row."""
        self.queries += 1
        with translated():
            return await self._connection.fetchval(sql, *parameters)

    async def execute(self, sql: str, *parameters: object) -> int:
        """Run a statement (several, without parameters); return the number of rows it touched."""
        self.queries += 1
        with translated():
            status = await self._connection.execute(sql, *parameters)
        last = status.rsplit(" ", 1)[-1]
        return int(last) if last.isdigit() else 0

    async def lock(self, lock: Lock) -> None:
        """Take a cluster-wide lock until the transaction ends; as a statement of its own, before what it protects."""
        clock = asyncio.get_running_loop().time
        asked = clock()
        await self.execute("SELECT pg_advisory_xact_lock($1, $2)", NAMESPACE, int(lock))
        self._timings.locked(lock.name.lower(), clock() - asked)

    @asynccontextmanager
    async def transaction(self, locks: Sequence[Lock] = ()) -> AsyncIterator[None]:
        """Run the body in one READ COMMITTED transaction that takes `locks` before anything else.

        Each lock is a statement of its own: a lock and a read in one statement share a snapshot taken before the
        lock was granted.

        Raises:
            LostConnectionError: the connection broke, nothing was changed.
            SilentError: the database stopped to answer, nothing was changed.
            UnknownOutcomeError: either happened while COMMIT was under way.
        """
        committing, failure = False, None
        try:
            with translated():
                async with self._connection.transaction():
                    for lock in sorted(locks):
                        await self.lock(lock)
                    try:
                        yield
                    except ApiError as exc:
                        failure = exc
                        raise
                    committing = True
        except (LostConnectionError, SilentError) as exc:
            if committing:
                raise UnknownOutcomeError("the database went away while the change was being stored") from exc
            if failure is not None and failure is not exc:
                raise failure from exc  # why it had to be rolled back says more than that this failed, too
            raise

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Run the body so that its failure undoes only the body."""
        with translated():
            async with self._connection.transaction():
                yield


class Store:
    """The pool of one process. `async with store:` opens it and closes it within a bounded time.

    `session` is what wraps a lent connection.
    """

    def __init__(
        self, settings: DatabaseSettings, session: type[Session] = Session, timings: Timings | None = None
    ) -> None:
        self._settings = settings
        self._session = session
        self._timings = timings or Timings()
        self._pool: asyncpg.Pool | None = None

    async def __aenter__(self) -> "Store":
        with translated():
            self._pool = await asyncpg.create_pool(
                min_size=1, max_size=self._settings.pool, reset=_keep_as_it_is, **self._settings.connect_arguments()
            )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(5):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Lend a connection; waits at most `acquire_s` for one.

        Raises:
            UnavailableError: all connections are busy, or the database cannot be reached.
        """
        if self._pool is None:
            raise UnavailableError("the node is stopping")
        clock = asyncio.get_running_loop().time
        asked = clock()
        with translated():
            try:
                connection = await self._pool.acquire(timeout=self._settings.acquire_s)
            except TimeoutError as exc:
                raise UnavailableError(f"no database connection within {self._settings.acquire_s:g} s") from exc
        try:
            self._timings.acquired(clock() - asked)
            yield self._session(connection, self._timings)
        finally:
            try:
                await self._pool.release(connection, timeout=RELEASE_S)
            except ASYNCPG as exc:
                # The pool has thrown the connection away. What the request did stands: it must not look failed,
                # or it would be done again.
                logger.warning("a connection was lost on its way back", extra={"error": str(exc)})

    async def distrust(self) -> None:
        """Replace all connections before they are used again: where one broke, the others probably did."""
        if self._pool is not None:
            await self._pool.expire_connections()

    def sizes(self) -> tuple[int, int]:
        """Return how many connections are in use, and how many are idle."""
        if self._pool is None:
            return (0, 0)
        idle = self._pool.get_idle_size()
        return (self._pool.get_size() - idle, idle)


@asynccontextmanager
async def connect(settings: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection outside the pool: for LISTEN, for the migrator, for the monitor."""
    with translated():
        connection = await asyncpg.connect(**settings.connect_arguments())
    try:
        with translated():
            yield connection
    finally:
        try:
            await connection.close(timeout=RELEASE_S)
        except ASYNCPG:
            connection.terminate()


async def _keep_as_it_is(connection: asyncpg.Connection) -> None:
    """Reset nothing: no session state is ever made here, and the default costs a round trip a request."""
