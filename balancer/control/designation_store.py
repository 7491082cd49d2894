"""Where the choice of a designated node is remembered: a file for one balancer, a row that several compare and set."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import asyncpg

from balancer.config.inventory import Designated
from balancer.config.schema import Config
from balancer.control.statefile import StateFile
from balancer.errors import StateError

LEASE_S = 15.0  # how long a reading of the shared row may be acted on
DATABASE_S = 3.0

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
_SET = """
INSERT INTO arv_balance_designation AS held (cluster, name, node, epoch, until, at, who, reason)
VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5), $6, $7, $8)
ON CONFLICT (cluster, name) DO UPDATE
SET node = excluded.node, epoch = excluded.epoch, until = excluded.until, at = excluded.at, who = excluded.who,
    reason = excluded.reason
WHERE held.epoch = $9 RETURNING epoch
"""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A decision: who, since when, by whom and why. `epoch` only grows."""

    node: str
    epoch: int
    at: str  # RFC 3339
    who: str
    reason: str


class Store(Protocol):
    """Keeps the decisions of one cluster. Both calls raise StateError when the store cannot be used now."""

    async def read(self, name: str) -> Remembered | None:
        """Return the newest decision."""
        ...

    async def swap(self, name: str, expected_epoch: int, fresh: Remembered) -> bool:
        """Replace the decision of that epoch (0: none yet); False when somebody else was quicker."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


class FileStore:
    """Decisions in the state directory, for a site with one balancer."""

    def __init__(self, file: StateFile, report: Callable[[str], None]) -> None:
        """`report` hears why a file could not be read."""
        self._file = file
        self._report = report
        self._known: dict[str, Remembered] | None = None
        self._lock = asyncio.Lock()

    async def read(self, name: str) -> Remembered | None:
        """Return the newest decision."""
        async with self._lock:
            return (await self._all()).get(name)

    async def swap(self, name: str, expected_epoch: int, fresh: Remembered) -> bool:
        """Write, sync, and only then say so."""
        async with self._lock:
            known = await self._all()
            held = known.get(name)
            if (held.epoch if held else 0) != expected_epoch:
                return False
            after = {**known, name: fresh}
            document = {"designations": {key: asdict(item) for key, item in after.items()}}
            await asyncio.to_thread(self._file.save, document)
            self._known = after
            return True

    async def close(self) -> None:
        """Nothing is held."""

    async def _all(self) -> dict[str, Remembered]:
        if self._known is None:
            loaded = await asyncio.to_thread(self._file.load)
            items = (loaded.document or {}).get("designations", {})
            damage = loaded.damage
            try:
                self._known = {name: Remembered(**item) for name, item in items.items()}
            except (TypeError, AttributeError) as exc:
                self._known, damage = {}, f"{self._file.path} holds no designations: {exc}"
            if damage:
                self._report(f"designations cannot be read, so they are decided anew: {damage}")
        return self._known


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
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:  # TimeoutError is an OSError
                await self._drop()
                why = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
                raise StateError(f"the database of the designations cannot be used: {why}") from exc

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self.dsn, timeout=DATABASE_S)
            await self._connection.execute(_TABLE)
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()


class Stores:
    """Gives the store that a designation is configured with. `dsn` is asked each time: it may be another one by now."""

    def __init__(self, file: FileStore, dsn: Callable[[], str]) -> None:
        self._file = file
        self._dsn = dsn
        self._shared: PostgresStore | None = None

    def __call__(self, config: Config, item: Designated) -> Store:
        """Return the store. Raises StateError when there is no DSN for it."""
        if item.store == "file":
            return self._file
        dsn = self._dsn()
        if not dsn:
            raise StateError("state.database cannot be read, and the designation is kept there")
        if self._shared is None or (self._shared.cluster, self._shared.dsn) != (config.cluster, dsn):
            self._shared = PostgresStore(config.cluster, dsn)
        return self._shared

    async def close(self) -> None:
        """Close the connection to the database."""
        if self._shared is not None:
            await self._shared.close()


def moved(held: Remembered | None, node: str, epoch: int, at: str, reason: str, who: str = "arv-balance") -> Remembered:
    """Return the decision that follows `held`. Raises ValueError when its epoch would not grow."""
    if held is not None and epoch <= held.epoch:
        raise ValueError(f"epoch {epoch} does not follow {held.epoch}")
    return Remembered(node, epoch, at, who, reason)
