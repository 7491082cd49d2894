"""Nodes that are killed, frozen, or run with a wrong clock; a pooler in between; a restored database."""

import asyncio
import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from apiserver.node import prepare
from apiserver.store.pool import NAMESPACE
from tests.support.api import STEPS, Process, Processes, api_database, api_template, client_of, processes, settings
from tests.support.ports import free_port
from tests.support.postgres import TestServer, postgres_server, until
from tests.support.programs import need

__all__ = ["api_database", "api_template", "postgres_server", "processes"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(120)]
SYSTEM = "zzzzz-tpzed-000000000000000"


async def _value(database: str, sql: str, *values: Any) -> Any:
    connection = await asyncpg.connect(database)
    try:
        return await connection.fetchval(sql, *values)
    finally:
        await connection.close()


async def test_a_kill_inside_the_deletion_of_a_project_is_all_or_nothing(
    processes: Processes, api_database: str
) -> None:
    first = await asyncio.to_thread(processes.start)
    async with client_of(first.base) as (client,):
        top = (await client.post("groups", {"group": {"group_class": "project", "name": "p"}}))["uuid"]
    filled = 1500
    await _value(
        api_database,
        "INSERT INTO collections (uuid, owner_uuid, name, portable_data_hash, current_version_uuid)"
        " SELECT u, $1, 'c' || n, 'x', u FROM generate_series(1, $2::integer) n,"
        " LATERAL (SELECT 'zzzzz-4zz18-d' || lpad(n::text, 14, '0') AS u) AS one", top, filled,
    )  # fmt: skip
    # The deletion stops in its middle at a row that somebody holds.
    holder = await asyncpg.connect(api_database)
    held = holder.transaction()
    await held.start()
    await holder.execute("SELECT 1 FROM collections WHERE name = 'c1400' FOR UPDATE")
    await _value(
        api_database,
        "UPDATE groups SET trash_at = clock_timestamp() - interval '1 h', is_trashed = true,"
        " delete_at = clock_timestamp() - interval '1 s' WHERE uuid = $1", top,
    )  # fmt: skip
    await _value(api_database, "UPDATE periodic_job SET next_at = clock_timestamp() WHERE name = 'trash_sweep'")

    async def waiting() -> bool:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM%'"
        return bool(await _value(api_database, sql))

    await until(waiting, 15)
    first.kill()
    await held.rollback()
    await holder.close()
    count = "SELECT count(*) FROM collections WHERE owner_uuid = $1"
    assert await _value(api_database, count, top) == filled
    await asyncio.to_thread(processes.start, job_lease_s=1.0)
    # The dead node's lease is over when its time is; a test does not wait for it.
    await _value(api_database, "UPDATE periodic_job SET lease_until = NULL WHERE name = 'trash_sweep'")

    async def gone() -> bool:
        return int(await _value(api_database, count, top)) == 0

    await until(gone, 30)
    logs = "SELECT count(*) FROM logs WHERE event_type = 'delete' AND object_uuid LIKE 'zzzzz-4zz18-d%'"
    assert await _value(api_database, logs) == filled
    assert await _value(api_database, "SELECT count(*) FROM groups WHERE uuid = $1", top) == 0


async def test_jobs_go_on_while_a_node_is_frozen(processes: Processes, api_database: str) -> None:
    more: dict[str, Any] = {"job_lease_s": 2.0, "collections": {"trash_sweep_interval_s": 1.0}}
    frozen, _, _ = await asyncio.to_thread(lambda: [processes.start(**more) for _ in range(3)])
    run_no = "SELECT run_no FROM periodic_job WHERE name = 'trash_sweep' AND finished IS NOT NULL"

    async def reached(number: int) -> bool:
        return int(await _value(api_database, run_no) or 0) >= number

    await until(lambda: reached(2), 15)
    await asyncio.to_thread(frozen.freeze)
    before = int(await _value(api_database, run_no))
    await until(lambda: reached(before + 3), 20)
    await asyncio.to_thread(frozen.thaw)
    before = int(await _value(api_database, run_no))
    await until(lambda: reached(before + 2), 15)
    assert await _value(api_database, "SELECT count(*) FROM periodic_job WHERE last_error IS NOT NULL") == 0


FAKETIME = str(next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), ""))


async def test_a_node_with_a_wrong_clock_decides_as_the_others(processes: Processes, api_database: str) -> None:
    need("faketime")
    wrong = {"LD_PRELOAD": FAKETIME, "FAKETIME": "+2h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    right, fast = await asyncio.to_thread(lambda: (processes.start(), processes.start(env=wrong)))
    soon = await _value(api_database, "SELECT to_char((clock_timestamp() + interval '1 hour') AT TIME ZONE 'UTC',"
                                      " 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")  # fmt: skip
    async with client_of(right.base, fast.base) as (client, hurried):
        assert await asyncio.to_thread(_clock, fast) - await asyncio.to_thread(_clock, right) > timedelta(hours=1)
        token = await client.post("api_client_authorizations", {"api_client_authorization": {"expires_at": soon}})
        assert (await hurried.with_token(token["api_token"]).call("GET", "users/current")).status == 200
        made = await hurried.post("collections", {"collection": {"name": "c", "trash_at": soon}})
        assert made["is_trashed"] is False
        assert (await hurried.get(f"collections/{made['uuid']}"))["uuid"] == made["uuid"]
        now = await _value(api_database, "SELECT abs(extract(epoch FROM clock_timestamp() - created_at)) < 60"
                                         " FROM collections WHERE uuid = $1", made["uuid"])  # fmt: skip
        assert now
        assert (await hurried.call("GET", "groups", count="none")).status == 200


def _clock(node: Process) -> datetime:
    """Return what a node takes for the time, out of its log."""
    return datetime.fromisoformat(json.loads(node.log.read_text().splitlines()[0])["time"])


@pytest.fixture
def pooler(postgres_server: TestServer, api_database: str) -> Iterator[str]:
    """PgBouncer in transaction mode in front of the database; yields its address."""
    need("pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="arv-test-pooler-"))
    folder.chmod(0o777)
    port = free_port()
    name = api_database.split("///")[1].split("?")[0]
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host={postgres_server.local.socket_folder} dbname={name} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n"
        f"max_client_conn = 100\ndefault_pool_size = 5\nunix_socket_dir =\nlogfile = {folder}/log\n"
    )
    process = subprocess.Popen(
        ["pgbouncer", "-q", str(folder / "pgbouncer.ini")], user="postgres", stderr=subprocess.DEVNULL
    )
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/{name}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


async def test_nodes_work_behind_a_transaction_pooler_and_leave_no_lock(
    processes: Processes, pooler: str, api_database: str
) -> None:
    async def reachable() -> bool:
        with suppress(OSError, asyncpg.PostgresError):
            return bool(await _value(pooler, "SELECT 1"))
        return False

    await until(reachable)
    more: dict[str, Any] = {"database_url": pooler, "database_pooler": True}
    first, second = await asyncio.to_thread(lambda: [processes.start(**more) for _ in range(2)])
    async with client_of(first.base, second.base) as clients:
        url = f"{second.base}/websocket?api_token={clients[0].token}"
        async with clients[1].http.ws_connect(url) as events:
            await events.send_json({"method": "subscribe", "filters": [["event_type", "in", ["create"]]]})
            async with asyncio.timeout(20):
                await events.receive()
            made = await asyncio.gather(*(
                clients[n % 2].post("groups", {"group": {"group_class": "project", "name": f"p{n}"}}) for n in range(24)
            ))  # fmt: skip
            wanted = {one["uuid"] for one in made}
            heard: set[str] = set()
            async with asyncio.timeout(30):
                while not wanted <= heard:
                    message = await events.receive()
                    assert message.type is aiohttp.WSMsgType.TEXT
                    heard.add(message.json().get("object_uuid"))

    async def no_locks() -> bool:
        sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid"
        return int(await _value(api_database, sql, NAMESPACE)) == 0

    await until(no_locks)


async def test_connections_stay_within_the_budget_under_load(processes: Processes, api_database: str) -> None:
    nodes = await asyncio.to_thread(lambda: [processes.start(database_pool=3) for _ in range(3)])
    async with client_of(*(node.base for node in nodes)) as clients:
        answers = await asyncio.gather(*(clients[n % 3].call("GET", "groups") for n in range(120)))
        assert {answer.status for answer in answers} <= {200, 503}
        used = await _value(api_database, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                                          " AND application_name = 'arv-api'")  # fmt: skip
        assert used <= 3 * (3 + 2)


async def test_events_flow_in_a_database_restored_from_another_server(api_database: str) -> None:
    # What pg_restore leaves: rows with transaction numbers that this server has not reached yet.
    await _value(
        api_database,
        "INSERT INTO logs (uuid, owner_uuid, event_type, xid) VALUES ('zzzzz-57u5n-restoredrestore', $1, 'note',"
        " (pg_current_xact_id()::text::bigint + 1000000)::text::xid8)", SYSTEM,
    )  # fmt: skip
    ahead = "SELECT count(*) FROM logs WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"
    assert await _value(api_database, ahead) == 1
    await prepare(settings(api_database), STEPS)
    assert await _value(api_database, ahead) == 0
