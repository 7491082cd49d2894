"""Bring the schema to the level of this program: each migration once, whatever else starts or dies meanwhile.

A migration is a file `NNNN_name.sql`. Each runs in one transaction that first takes the migration lock, then looks
whether the migration is there already; so N nodes may start on an empty database, and a kill leaves nothing half
done. A first line `-- min-app: N` refuses programs below level N from then on (the contract step of a change).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from apiserver.errors import MigrationError
from apiserver.store.pool import Lock, Session
from apiserver.store.queries import load

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_MIN_APP = re.compile(r"\A-- min-app: (\d+)\n")
_QUERIES = load("schema")
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '30s'; SET LOCAL statement_timeout = 0"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of one component."""

    component: str
    version: int
    name: str
    sql: str
    min_app: int = 0

    @property
    def sha256(self) -> str:
        """What is compared with the step that was applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Level:
    """How far the schema is, the lowest program level that may use it, and whether its server only reads."""

    version: int
    min_app: int
    read_only: bool = False


def migrations() -> tuple[Migration, ...]:
    """Return all steps in order: the node's own, then those of the DNS sender."""
    return (
        *read("apiserver", files("apiserver.store") / "migrations"),
        *read("dnsupdate", files("dnsupdate") / "sql"),
    )


def read(component: str, folder: Traversable) -> tuple[Migration, ...]:
    """Return the steps in a folder, which must be numbered 1, 2, 3 without a gap."""
    found = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        if match := _FILE.fullmatch(entry.name):
            sql = entry.read_text(encoding="utf-8")
            min_app = _MIN_APP.match(sql)
            found.append(Migration(component, int(match[1]), match[2], sql, int(min_app[1]) if min_app else 0))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"the migrations of {component} are not numbered 1, 2, 3, ...: {found}")
    return tuple(found)


def needed_level(steps: Sequence[Migration]) -> int:
    """Return the schema version that this program needs."""
    return max((step.version for step in steps if step.component == "apiserver"), default=0)


async def migrate(session: Session, steps: Sequence[Migration]) -> list[Migration]:
    """Apply what is missing; return what this call applied.

    Raises:
        MigrationError: an applied step differs from the file of the same number.
    """
    return [step for step in steps if await _apply(session, step)]


async def _apply(session: Session, step: Migration) -> bool:
    async with session.transaction():
        await session.execute(LOCK_TIMEOUT)
        await session.lock(Lock.MIGRATE)
        await session.execute(_QUERIES["create_schema_version"])  # under the lock: IF NOT EXISTS alone races
        applied = await session.value(_QUERIES["applied"], step.component, step.version)
        if applied == step.sha256:
            return False
        if applied is not None:
            raise MigrationError(
                f"migration {step.component} {step.version:04d}_{step.name} was applied with another content; "
                "restore the file, and put the change into a new migration"
            )
        await session.execute(step.sql)
        await session.execute(_QUERIES["record"], step.component, step.version, step.name, step.sha256, step.min_app)
    return True


async def level(session: Session) -> Level:
    """Return how far the schema is; (0, 0) on an empty database."""
    if not await session.value(_QUERIES["exists"]):
        return Level(0, 0)
    row = await session.row(_QUERIES["level"])
    return Level(row["version"], row["min_app"], row["read_only"]) if row is not None else Level(0, 0)


def gate(found: Level, needed: int) -> str | None:
    """Return why this program may not serve on that schema, None when it may."""
    if found.version < needed:
        return f"the schema is at level {found.version}, this program needs {needed}: run arv-balance api migrate"
    if found.min_app > needed:
        return f"the schema needs programs of level {found.min_app} or newer, this one is {needed}: upgrade this node"
    return None
