"""Migrations run once under races and kills; a changed one is refused."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace

import asyncpg
import pytest

from apiserver.errors import MigrationError
from apiserver.store.migrator import Level, Migration, gate, level, migrate, migrations, needed_level
from apiserver.store.pool import DatabaseSettings, Store
from tests.support.postgres import database, postgres_server, until

__all__ = ["database", "postgres_server"]
pytestmark = pytest.mark.pg

_MIGRATE = """
import asyncio, sys
from apiserver.store.migrator import Migration, migrate, migrations
from apiserver.store.pool import DatabaseSettings, Store

steps = (*migrations(), Migration("test", 1, "slow", sys.argv[2]))

async def main():
    async with Store(DatabaseSettings(sys.argv[1])) as store, store.session() as session:
        for step in await migrate(session, steps):
            print(step.component, step.version)

asyncio.run(main())
"""
STEPS = migrations()
SLOW = "CREATE TABLE once (n integer); INSERT INTO once VALUES (1); SELECT pg_sleep(0.5)"


def _start(dsn: str, sql: str = SLOW) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", _MIGRATE, dsn, sql], stdout=subprocess.PIPE, text=True)


async def _count(dsn: str, sql: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


async def test_five_starters_on_an_empty_database_apply_each_migration_once(database: str) -> None:
    started = [_start(database) for _ in range(5)]
    printed = await asyncio.to_thread(lambda: [process.communicate(timeout=50)[0] for process in started])
    assert [process.returncode for process in started] == [0] * 5
    lines = sorted(line for output in printed for line in output.splitlines())
    assert lines == sorted(f"{step.component} {step.version}" for step in (*STEPS, Migration("test", 1, "", "")))
    assert await _count(database, "SELECT count(*) FROM once") == 1


async def test_a_kill_inside_a_migration_leaves_nothing_and_the_next_start_completes(database: str) -> None:
    victim = await asyncio.to_thread(_start, database, SLOW.replace("0.5", "30"))

    async def sleeping() -> bool:
        return await _count(database, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' "
                                      "AND pid <> pg_backend_pid() AND state = 'active'") > 0  # fmt: skip

    await until(sleeping, 20)
    os.kill(victim.pid, signal.SIGKILL)
    await asyncio.to_thread(victim.communicate)
    assert await _count(database, "SELECT (to_regclass('once') IS NOT NULL)::int") == 0
    follower = await asyncio.to_thread(_start, database)
    await asyncio.to_thread(follower.communicate, None, 50)
    assert follower.returncode == 0
    assert await _count(database, "SELECT count(*) FROM once") == 1


async def test_a_changed_migration_is_refused(database: str) -> None:
    async with Store(DatabaseSettings(database)) as store, store.session() as session:
        step = Migration("test", 1, "table", "CREATE TABLE t ()")
        await migrate(session, [step])
        with pytest.raises(MigrationError, match="another content"):
            await migrate(session, [replace(step, sql="CREATE TABLE u ()")])


async def test_the_level_rises_with_the_migrations(database: str) -> None:
    async with Store(DatabaseSettings(database)) as store, store.session() as session:
        assert await level(session) == Level(0, 0)
        await migrate(session, STEPS)
        assert gate(await level(session), needed_level(STEPS)) is None


@pytest.mark.parametrize(
    ("found", "needed", "refused"),
    [
        (Level(3, 0), 3, False),
        (Level(4, 3), 3, False),  # the expand phase: newer schema, this program is still allowed
        (Level(2, 0), 3, True),
        (Level(4, 4), 3, True),
    ],
)
def test_a_program_serves_only_between_its_need_and_the_minimum(found: Level, needed: int, refused: bool) -> None:
    assert (gate(found, needed) is not None) is refused
