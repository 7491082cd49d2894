"""The choice of a designated node as a row that several balancers compare and set."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from balancer.control.designation_store import LEASE_S, Remembered
from balancer.errors import StateError

DATABASE_S = 3.0
# The last is what asyncpg says when a connection breaks just as a statement begins.
_BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
# What asyncpg says beside that of an address that is none.
_NO_ADDRESS = (ValueError, OverflowError)

# IF NOT EXISTS alone fails when two create it at once; the lock ends with this one implicit transaction.
_TABLE = """
SELECT pg_advisory_xact_lock(hashtext('arv_balance_designation'));
CREATE TABLE IF NOT EXISTS arv_balance_designation (
    cluster text NOT NULL, name text NOT NULL, node text NOT NULL, epoch bigint NOT NULL,
    until timestamptz NOT NULL, at text NOT NULL, who text NOT NULL, reason text NOT NULL,
    PRIMARY KEY (cluster, name))
"""
# Reading renews: `until` says how long somebody may still be acting on this decision.
_READ = """
UPDATE arv_balance_designation SET until = clock_timestamp() + make_interval(secs => $3)
WHERE cluster = $1 AND name = $2 RETURNING node, epoch, at, who, reason
"""
_SEEN = "SELECT name, node, epoch, at, who, reason FROM arv_balance_designation WHERE cluster = $1"
_SET = """
INSERT INTO arv_balance_designation AS held (cluster, name, node, epoch, until, at, who, reason)
VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5), $6, $7, $8)
ON CONFLICT (cluster, name) DO UPDATE
SET node = excluded.node, epoch = excluded.epoch, until = excluded.until, at = excluded.at, who = excluded.who,
    reason = excluded.reason
WHERE held.epoch = $9 RETURNING epoch
"""


async def seen(cluster: str, dsn: str) -> dict[str, Remembered]:
    """Return all decisions of a cluster without renewing or making anything. Raises StateError."""
    try:
        async with asyncio.timeout(DATABASE_S):
            connection = await asyncpg.connect(dsn, timeout=DATABASE_S)
            try:
                rows = [dict(row) for row in await connection.fetch(_SEEN, cluster)]
            finally:
                connection.terminate()
    except asyncpg.UndefinedTableError:
        return {}
    except (*_BROKEN, *_NO_ADDRESS) as exc:  # TimeoutError is an OSError
        raise StateError(f"the database of the designations cannot be used: {_why(exc)}") from exc
    return {row.pop("name"): Remembered(**row) for row in rows}


def _why(exc: Exception) -> str:
    if isinstance(exc, _NO_ADDRESS) and not isinstance(exc, asyncpg.InterfaceError):
        return "its address is not valid"  # its own words may hold a piece of the password
    return "no answer in time" if isinstance(exc, TimeoutError) else str(exc)


@dataclass(slots=True)
class PostgresStore:
    """One row a designation, shared by all balancers of a cluster. `dsn` is a secret."""

    cluster: str
    dsn: str = field(repr=False)
    _connection: "asyncpg.Connection[asyncpg.Record] | None" = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self, name: str) -> Remembered | None:
        """Return the newest decision, and renew it."""
        row = await self._row(_READ, self.cluster, name, LEASE_S)
        return Remembered(**dict(row)) if row else None

    async def swap(self, name: str, expected_epoch: int, fresh: Remembered) -> bool:
        """Compare the epoch and set, in one statement."""
        row = await self._row(
            _SET,
            self.cluster,
            name,
            fresh.node,
            fresh.epoch,
            LEASE_S,
            fresh.at,
            fresh.who,
            fresh.reason,
            expected_epoch,
        )
        return row is not None

    async def close(self) -> None:
        """Close the connection."""
        async with self._lock:
            await self._drop()

    async def _row(self, statement: str, *values: Any) -> asyncpg.Record | None:
        async with self._lock:
            try:
                async with asyncio.timeout(DATABASE_S):
                    connection = await self._connected()
                    return await connection.fetchrow(statement, *values)
            except (*_BROKEN, *_NO_ADDRESS) as exc:
                await self._drop()
                raise StateError(f"the database of the designations cannot be used: {_why(exc)}") from exc

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self.dsn, timeout=DATABASE_S)
            await self._connection.execute(_TABLE)
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*_BROKEN):
                connection.terminate()
