"""Where the choice of a designated node is remembered: a file for one balancer, a row that several compare and set."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from balancer.config.inventory import Designated
from balancer.config.schema import Config
from balancer.control.statefile import StateFile
from balancer.errors import StateError

LEASE_S = 15.0  # how long a reading of the shared row may be acted on


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


class Stores:
    """Gives the store that a designation is configured with. `dsn` is asked each time: it may be another one by now."""

    def __init__(self, file: FileStore, dsn: Callable[[], str]) -> None:
        self._file = file
        self._dsn = dsn
        self._shared: Store | None = None
        self._shared_by = ("", "")

    def __call__(self, config: Config, item: Designated) -> Store:
        """Return the store. Raises StateError when there is no DSN for it."""
        if item.store == "file":
            return self._file
        dsn = self._dsn()
        if not dsn:
            raise StateError("state.database cannot be read, and the designation is kept there")
        if self._shared is None or self._shared_by != (config.cluster, dsn):
            from balancer.control.designation_row import PostgresStore  # a site with one balancer needs no database

            self._shared, self._shared_by = PostgresStore(config.cluster, dsn), (config.cluster, dsn)
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
