"""The PostgreSQL server of a demo, and what is looked up in it."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from apiserver.launcher import LocalServer, find_binaries
from apiserver.store.pool import DatabaseSettings, Session, Store
from balancer.demo.layout import Layout

# All of it is removed at the end: a crash of the machine costs nothing.
OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=100")
_WRITES = "SELECT name, count(*) AS rows FROM collections WHERE name LIKE 'demo-%' GROUP BY name"
_APPLIED = "SELECT count(*) FROM schema_version WHERE name LIKE $1"


def server(layout: Layout) -> LocalServer:
    """Return the server, which may not run yet. Raises LauncherError without PostgreSQL on this machine."""
    return LocalServer(layout.database, find_binaries(), OPTIONS)


def version(found: LocalServer) -> str:
    """Return what the server's program says that it is."""
    said = subprocess.run(
        [found.binaries.folder / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    match = re.search(r"\d+(\.\d+)?", said)
    return match[0] if match else said.strip()


async def restart(found: LocalServer) -> None:
    """End the server with all its connections, and start it again."""
    await asyncio.to_thread(found.stop)
    await asyncio.to_thread(found.start)


@asynccontextmanager
async def _session(dsn: str) -> AsyncIterator[Session]:
    async with Store(DatabaseSettings(dsn, pool=1)) as store, store.session() as session:
        yield session


async def writes(dsn: str, acknowledged: Mapping[str, int]) -> dict[str, int]:
    """Compare what writers were told with what is there; each writer's collections are numbered from 1."""
    expected = {f"{writer}-{number}" for writer, last in acknowledged.items() for number in range(1, last + 1)}
    async with _session(dsn) as session:
        found = {row["name"]: row["rows"] for row in await session.rows(_WRITES)}
    return {
        "acknowledged": len(expected),
        "missing": len(expected - set(found)),
        "doubled": sum(rows > 1 for rows in found.values()),
    }


async def applied(dsn: str, pattern: str = "%") -> int:
    """Return how many migrations whose name is like a pattern were applied."""
    async with _session(dsn) as session:
        return int(await session.value(_APPLIED, pattern))
