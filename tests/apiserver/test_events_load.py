"""Events beside long transactions, many writers and in a restored database; the cleanup of old log rows under load."""

import asyncio
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from apiserver.events import CHANNEL, DEBOUNCE_S
from apiserver.launcher import LocalServer
from tests.support.api import MANAGEMENT, Client, Processes, api_database, api_template, client_of, processes
from tests.support.postgres import FAST, TestServer, postgres_server, until

__all__ = ["api_database", "api_template", "postgres_server", "processes"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(120)]
SYSTEM = "zzzzz-tpzed-000000000000000"
_INSERT = "INSERT INTO logs (uuid, owner_uuid, event_type) VALUES (gen_random_uuid()::text, $1, 'note')"


@asynccontextmanager
async def _listening(client: Client, last_log_id: int | None = None) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with client.http.ws_connect(f"{client.base}/websocket?api_token={client.token}") as socket:
        only = [["event_type", "in", ["create"]]]
        await socket.send_json({"method": "subscribe", "filters": only, "last_log_id": last_log_id})
        assert json.loads((await socket.receive(20)).data) == {"status": 200}
        yield socket


async def _objects(socket: aiohttp.ClientWebSocketResponse, number: int) -> list[str]:
    found: list[str] = []
    async with asyncio.timeout(30):
        while len(found) < number:
            if "object_uuid" in (event := json.loads((await socket.receive()).data)):
                found.append(event["object_uuid"])
    return found


async def _project(client: Client, name: str) -> str:
    made = await client.post("groups", {"group": {"group_class": "project", "name": name}})
    return str(made["uuid"])


async def _number(client: Client, metric: str) -> float:
    text = (await client.with_token(MANAGEMENT).call("GET", "/metrics")).body
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{metric} ")))


async def test_an_open_transaction_holds_events_back_shows_as_lag_and_lets_them_go(
    processes: Processes, api_database: str
) -> None:
    nodes = await asyncio.to_thread(lambda: [processes.start() for _ in range(3)])
    writer = await asyncpg.connect(api_database)
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(client_of(*(node.base for node in nodes)))
        # The third node has no listener: its number must rise as well.
        sockets = [await stack.enter_async_context(_listening(client)) for client in clients[:2]]
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(_INSERT, SYSTEM)
        made = [await _project(client, f"held {n}") for n, client in enumerate(clients)]

        async def lags() -> bool:
            return min([await _number(client, "arv_api_notify_lag_seconds") for client in clients]) > 1.0

        await until(lags, 20)
        for socket in sockets:
            with pytest.raises(TimeoutError):
                await socket.receive(0.1)
        await transaction.commit()
        for socket in sockets:
            assert await _objects(socket, 3) == made

        async def caught_up() -> bool:
            return max([await _number(client, "arv_api_notify_lag_seconds") for client in clients]) == 0.0

        await until(caught_up, 20)
    await writer.close()


async def test_many_writes_wake_the_nodes_by_few_messages(processes: Processes, api_database: str) -> None:
    """A message in each transaction would make writers wait for one another: all of them share one lock."""
    nodes = await asyncio.to_thread(lambda: [processes.start() for _ in range(3)])
    loop, woken = asyncio.get_running_loop(), 0

    def count(*_: object) -> None:
        nonlocal woken
        woken += 1

    listener = await asyncpg.connect(api_database)
    await listener.add_listener(CHANNEL, count)
    async with client_of(*(node.base for node in nodes)) as clients, _listening(clients[0]) as socket:
        begun = loop.time()

        async def write(number: int) -> list[str]:
            return [await _project(clients[number % 3], f"w{number} {n}") for n in range(8)]

        made = await asyncio.gather(*(write(number) for number in range(32)))
        took = loop.time() - begun
        written = {uuid for uuids in made for uuid in uuids}
        assert set(await _objects(socket, len(written))) == written
    assert 0 < woken <= 3 * (took / DEBOUNCE_S + 2)
    await listener.close()


@pytest.fixture
def another_server(postgres_server: TestServer) -> Iterator[LocalServer]:
    """An empty cluster of its own, with low transaction numbers."""
    folder = Path(tempfile.mkdtemp(prefix="arv-test-restored-"))
    folder.chmod(0o755)
    server = LocalServer(folder / "server", postgres_server.local.binaries, FAST)
    server.start()
    yield server
    server.stop(immediate=True)
    shutil.rmtree(folder, ignore_errors=True)


def _restore(binaries: Path, source: str, target: str) -> None:
    """Copy a database with PostgreSQL's own tools."""
    dump = subprocess.run([binaries / "pg_dump", "-Fc", source], check=True, capture_output=True).stdout
    subprocess.run([binaries / "pg_restore", "--no-owner", "-d", target], check=True, input=dump)


async def test_a_database_restored_into_a_new_cluster_replays_and_goes_on(
    processes: Processes, api_database: str, another_server: LocalServer
) -> None:
    connection = await asyncpg.connect(api_database)
    await connection.execute(
        "DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )
    await connection.close()
    before = await asyncio.to_thread(processes.start)
    async with client_of(before.base) as (client,):
        first = await _project(client, "first")
        seen = (await client.get("logs", filters=[["object_uuid", "=", first]]))["items"][0]["id"]
        missed = [await _project(client, f"missed {n}") for n in range(3)]
    await asyncio.to_thread(before.kill)
    target = another_server.dsn()
    await asyncio.to_thread(_restore, another_server.binaries.folder, api_database, target)
    connection = await asyncpg.connect(target)
    high = "SELECT count(*) FROM logs WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"
    assert await connection.fetchval(high) >= 4, "the old cluster's transaction numbers are higher than the new one's"
    await connection.close()
    nodes = await asyncio.to_thread(lambda: [processes.start(database_url=target) for _ in range(3)])
    async with client_of(*(node.base for node in nodes)) as clients:
        for number, client in enumerate(clients):
            async with _listening(client, last_log_id=seen) as socket:
                missed.append(await _project(clients[(number + 1) % 3], f"live {number}"))
                assert await _objects(socket, len(missed)) == missed


_OLD = """INSERT INTO logs (uuid, owner_uuid, event_type, created_at)
 SELECT 'zzzzz-57u5n-' || lpad(n::text, 15, '0'), $1,
        CASE WHEN n % 10 = 0 THEN 'file_upload' ELSE 'update' END,
        clock_timestamp() - interval '20 days' + n * interval '1 second'
   FROM generate_series(1, $2::integer) n"""
# What each deleting statement took away: how many rows, and the least of their ids.
_WATCH = """CREATE TABLE batches (n bigserial, low bigint, rows bigint);
CREATE FUNCTION note_batch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO batches (low, rows) SELECT min(id), count(*) FROM gone HAVING count(*) > 0;
  PERFORM pg_sleep(0.2);  -- so that the cleanup is still under way when a node is killed
  RETURN NULL;
END $$;
CREATE TRIGGER note_batch AFTER DELETE ON logs REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
  EXECUTE FUNCTION note_batch();"""


async def test_cleanup_deletes_old_rows_once_in_small_batches_through_kills_and_load(
    processes: Processes, api_database: str
) -> None:
    rows, kills = 120_000, 3
    connection = await asyncpg.connect(api_database)
    await connection.execute(_OLD, SYSTEM, rows)
    await connection.execute(_WATCH)
    old = (
        "SELECT count(*) FROM logs WHERE created_at < clock_timestamp() - interval '14 days' AND event_type = 'update'"
    )
    more: dict[str, Any] = {"audit_logs": {"max_delete_batch": 1000}, "job_lease_s": 1.0}
    nodes = await asyncio.to_thread(lambda: [processes.start(**more) for _ in range(3)])
    answers: list[int] = []

    async def ask() -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                node = nodes[len(answers) % 3]
                try:
                    answers.append((await Client(node.base, http).call("GET", "users/current")).status)
                except aiohttp.ClientError:
                    await asyncio.sleep(0.01)

    async def begun(batches: int) -> bool:
        return int(await connection.fetchval("SELECT count(*) FROM batches")) >= batches

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask())
        for number in range(kills):
            await until(partial(begun, 2 * number + 1), 30)
            await asyncio.to_thread(nodes[number].kill)
            nodes[number] = await asyncio.to_thread(processes.start, **more)
        await until(partial(_none, connection, old), 60)
        asking.cancel()
    kept = "SELECT count(*) FROM logs WHERE uuid LIKE 'zzzzz-57u5n-0%'"
    assert await connection.fetchval(kept) == rows // 10
    batches = await connection.fetch("SELECT low, rows FROM batches ORDER BY n")
    assert max(row["rows"] for row in batches) <= 10_000
    assert [row["low"] for row in batches] == sorted({row["low"] for row in batches}), "a range was done twice"
    assert set(answers) == {200}
    await connection.close()


async def test_a_stopped_node_hands_its_job_over_at_once(processes: Processes, api_database: str) -> None:
    """The lease is longer than the test may take: who takes over was given the job."""
    rows = 120_000
    connection = await asyncpg.connect(api_database)
    await connection.execute(_OLD, SYSTEM, rows)
    await connection.execute(_WATCH)
    more: dict[str, Any] = {"audit_logs": {"max_delete_batch": 1000}, "job_lease_s": 600.0}
    first = await asyncio.to_thread(lambda: processes.start(**more))

    async def some() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM batches"))

    await until(some, 20)
    first.terminate()
    assert await asyncio.to_thread(first.process.wait, 20) == 0
    left = await connection.fetchval("SELECT count(*) FROM logs WHERE uuid LIKE 'zzzzz-57u5n-0%'")
    assert left > rows // 10, "there is something left to hand over"
    await asyncio.to_thread(lambda: [processes.start(**more) for _ in range(2)])
    old = "SELECT count(*) FROM logs WHERE uuid LIKE 'zzzzz-57u5n-0%' AND event_type = 'update'"
    await until(partial(_none, connection, old), 60)
    batches = await connection.fetch("SELECT low FROM batches ORDER BY n")
    assert [row["low"] for row in batches] == sorted({row["low"] for row in batches}), "a range was done twice"
    await connection.close()


async def _none(connection: asyncpg.Connection, count: str) -> bool:
    return not await connection.fetchval(count)


_NOTIFYING = """CREATE TABLE noisy (LIKE logs INCLUDING ALL);
CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('noisy', ''); RETURN NEW; END $$;
CREATE TRIGGER say AFTER INSERT ON noisy FOR EACH ROW EXECUTE FUNCTION say();"""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_writers_are_slowed_by_a_message_in_each_transaction_and_not_by_ours(api_database: str) -> None:
    """Pairs of short runs one after the other; what counts is the ratio of a pair."""
    async with AsyncExitStack() as stack:

        async def connected() -> asyncpg.Connection:
            connection = await asyncpg.connect(api_database)
            stack.push_async_callback(connection.close)
            return connection

        await (await connected()).execute(_NOTIFYING)
        for _ in range(3):
            listener = await connected()
            for channel in (CHANNEL, "noisy"):
                await listener.add_listener(channel, lambda *_: None)
        writers = [await connected() for _ in range(32)]
        wakers = [await connected() for _ in range(3)]
        ours, noisy = [], []
        for _ in range(5):
            alone = await _writes(writers, [], "logs")
            ours.append(await _writes(writers, wakers, "logs") / alone)
            noisy.append(await _writes(writers, [], "noisy") / alone)
    assert statistics.median(ours) >= 0.8, ours
    assert statistics.median(noisy) < statistics.median(ours), noisy


async def _writes(writers: Sequence[asyncpg.Connection], wakers: Sequence[asyncpg.Connection], table: str) -> int:
    """Return how many rows all writers insert in two seconds, while wakers say so as nodes do."""
    done, end = 0, time.monotonic() + 2.0

    async def write(connection: asyncpg.Connection) -> None:
        nonlocal done
        while time.monotonic() < end:
            await connection.execute(_INSERT.replace("logs", table), SYSTEM)
            done += 1

    async def wake(connection: asyncpg.Connection) -> None:
        while time.monotonic() < end:
            await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
            await asyncio.sleep(DEBOUNCE_S)

    async with asyncio.TaskGroup() as tasks:
        for connection in writers:
            tasks.create_task(write(connection))
        for connection in wakers:
            tasks.create_task(wake(connection))
    return done
