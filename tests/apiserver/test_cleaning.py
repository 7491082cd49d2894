"""The cleaning of old log rows: all of them and no others, in statements of bounded work that nobody waits for."""

import asyncio
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from apiserver.jobs import Jobs, seed
from apiserver.maintenance import ID_RANGE, Maintenance
from apiserver.operation import Context
from apiserver.registry import Registry
from apiserver.settings import AuditLogs
from apiserver.store.pool import DatabaseSettings, Session, Store
from apiserver.store.queries import load
from tests.support.api import Client, api_database, api_template, root, settings
from tests.support.postgres import postgres_server, until

__all__ = ["api_database", "api_template", "postgres_server", "root"]
pytestmark = pytest.mark.pg
FILL = """INSERT INTO logs (uuid, owner_uuid, event_type, created_at)
 SELECT 'zzzzz-57u5n-' || $3 || lpad(n::text, 14, '0'), 'zzzzz-tpzed-000000000000000', 'update',
        clock_timestamp() - $2 - ($1 - n) * interval '1 millisecond' FROM generate_series(1, $1::integer) n"""
OLD, YOUNG = "interval '15 days'", "interval '13 days'"
BY_RANGE = load("jobs")["audit_delete"].rstrip(" ;")
# What every batch looks for from the start again.
BY_AGE = """DELETE FROM logs WHERE id IN (SELECT id FROM logs WHERE created_at < $3
 AND event_type IN ('create', 'update', 'destroy', 'delete') ORDER BY created_at LIMIT $2 - $1)"""


async def fill(connection: asyncpg.Connection, count: int, age: str, mark: str) -> None:
    await connection.execute(FILL.replace("$2", age).replace("$3", f"'{mark}'"), count)


@pytest.fixture
async def operator(api_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(api_database)
    yield connection
    await connection.close()


async def test_all_and_only_old_rows_go_and_no_statement_takes_more_than_a_range(
    api_database: str, operator: asyncpg.Connection
) -> None:
    old = 3 * ID_RANGE
    await fill(operator, old, OLD, "o")
    await fill(operator, 500, YOUNG, "y")
    touched = []

    class Noting(Session):
        async def execute(self, sql: str, *parameters: object) -> int:
            count = await super().execute(sql, *parameters)
            if sql.startswith("DELETE"):
                touched.append(count)
            return count

    cleaning = settings(api_database, audit_logs=AuditLogs(max_delete_batch=1000))
    jobs = Maintenance(Context(cleaning, Registry())).jobs()
    ends: list[str] = []
    # A statement may take 200 ms; one that takes five seconds even on a busy machine is another kind of statement.
    async with Store(DatabaseSettings(api_database, pool=2, statement_s=5.0), Noting) as store:
        async with store.session() as session:
            await seed(session, jobs)
        assert await Jobs(store, jobs, note=lambda _, end: ends.append(end)).run_one("audit_cleanup")
    assert ends == ["done"]
    left = await operator.fetch("SELECT left(uuid, 13) AS mark, count(*) AS n FROM logs GROUP BY 1")
    assert [(row["mark"], row["n"]) for row in left] == [("zzzzz-57u5n-y", 500)]
    assert sum(touched) == old
    assert max(touched) <= ID_RANGE
    assert len(touched) <= old // ID_RANGE + 2


async def _blocks(operator: asyncpg.Connection, statement: str, batches: int, size: int) -> list[int]:
    """Delete in batches while an old snapshot is held; return how many blocks each looked at."""
    await fill(operator, batches * size, OLD, "o")
    low = await operator.fetchval("SELECT min(id) FROM logs")
    await operator.execute("ANALYZE logs")
    found = []
    for begin in range(low, low + batches * size, size):
        sql = statement
        for name, value in {"$1": begin, "$2": begin + size, "$3": f"clock_timestamp() - {YOUNG}"}.items():
            sql = sql.replace(name, str(value))
        plan = json.loads(await operator.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"))[0]["Plan"]
        found.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    assert not await operator.fetchval("SELECT count(*) FROM logs")
    return found


@pytest.mark.parametrize(("statement", "grows"), [(BY_RANGE, False), (BY_AGE, True)], ids=["range", "age"])
async def test_the_last_batch_costs_what_the_first_did_though_dead_rows_are_kept(
    api_database: str, operator: asyncpg.Connection, statement: str, grows: bool
) -> None:
    """The second statement is the control: its batches read what the ones before it deleted."""
    holder = await asyncpg.connect(api_database)
    try:
        async with holder.transaction(isolation="repeatable_read"):
            await holder.fetchval("SELECT count(*) FROM logs")
            blocks = await _blocks(operator, statement, 80, 100)
    finally:
        await holder.close()
    assert (blocks[-1] > 1.5 * blocks[1]) is grows, blocks


@pytest.mark.parametrize(
    ("locking", "waits"), [("", False), ("LOCK TABLE logs IN SHARE MODE", True)], ids=["", "table"]
)
async def test_no_request_waits_for_a_batch_that_is_under_way(
    root: Client, operator: asyncpg.Connection, locking: str, waits: bool
) -> None:
    """The second case is the control: cleaning that locks the table is waited for."""
    await fill(operator, 1000, OLD, "o")
    batch = operator.transaction()
    await batch.start()
    await operator.execute(locking or "SELECT 1")
    await operator.execute(BY_RANGE.replace("$3", f"clock_timestamp() - {YOUNG}"), 0, 2**40)
    request = asyncio.ensure_future(root.call("POST", "workflows", {"workflow": {"name": "meanwhile"}}))

    async def decided() -> bool:
        await operator.execute("SELECT pg_stat_clear_snapshot()")
        sql = ("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
               " AND wait_event_type = 'Lock' AND application_name = 'arv-api'")  # fmt: skip
        return request.done() or bool(await operator.fetchval(sql))

    await until(decided)
    assert request.done() is not waits
    if not waits:
        assert (await root.call("GET", "logs", limit=5)).status == 200
    await batch.commit()
    assert (await request).status == 200
