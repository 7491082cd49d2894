"""Makes the tables, for sites whose API nodes are not ours; ours apply the same files as part of their own schema."""

import hashlib
import re
from importlib.resources import files
from typing import TypeAlias

import asyncpg

from dnsupdate.errors import StoreError
from dnsupdate.queries import load

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
_SQL = load("schema")
_FILE = re.compile(r"\d{4}_\w+\.sql")
_STEPS = tuple(
    (entry.name, entry.read_text(encoding="utf-8"))
    for entry in sorted((files("dnsupdate") / "sql").iterdir(), key=lambda entry: entry.name)
    if _FILE.fullmatch(entry.name)
)


async def migrate(connection: Connection) -> list[str]:
    """Apply the steps that are missing; return their names.

    Raises:
        StoreError: a step was applied with another content.
    """
    return [name for name, sql in _STEPS if await _apply(connection, name, sql)]


async def _apply(connection: Connection, name: str, sql: str) -> bool:
    version, _, title = name.removesuffix(".sql").partition("_")
    digest = hashlib.sha256(sql.encode()).hexdigest()
    async with connection.transaction():
        await connection.execute(_SQL["lock_migrations"])
        await connection.execute(_SQL["create_schema_version"])  # under the lock: IF NOT EXISTS alone races
        applied = await connection.fetchval(_SQL["applied"], int(version))
        if applied == digest:
            return False
        if applied is not None:
            raise StoreError(
                f"migration dnsupdate {name} was applied with another content; put the change into a new one"
            )
        await connection.execute(sql)
        await connection.execute(_SQL["record"], int(version), title, digest)
    return True
