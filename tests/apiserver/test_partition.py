"""One node of three loses the network to the database, and only that: it says so, hangs nobody, and comes back."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support.api import MANAGEMENT, Client, Process, Processes, api_database, api_template, client_of, processes
from tests.support.netns import PORT, Network, network
from tests.support.postgres import TestServer, postgres_server, until
from tests.support.programs import lacking, need

__all__ = ["api_database", "api_template", "postgres_server", "processes"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def cable(postgres_server: TestServer) -> Iterator[Network]:
    """The network between one node and the database."""
    if os.geteuid() != 0:
        lacking("networks are made by root only")
    need("unshare")
    with network(postgres_server.local.socket_folder / ".s.PGSQL.5432") as made:
        yield made


def _start_far(processes: Processes, cable: Network, database: str, folder: Path) -> Process:
    """Start the node at the end of the cable."""
    name = database.split("///")[1].split("?")[0]
    return processes.start(
        inside=cable.inside, listen=[f"unix:{folder}/api"], statement_timeout_s=3.0, job_lease_s=4.0,
        database_url=f"postgresql://postgres@127.0.0.1:{PORT}/{name}",
    )  # fmt: skip


async def _health(client: Client) -> str:
    return str((await client.with_token(MANAGEMENT).call("GET", "/_health/ping")).body["health"])


async def _project(client: Client, name: str) -> str:
    made = await client.post("groups", {"group": {"group_class": "project", "name": name}})
    return str(made["uuid"])


async def test_a_node_cut_from_the_database_answers_503_and_catches_up_when_it_is_back(
    processes: Processes, cable: Network, api_database: str, tmp_path: Path
) -> None:
    far = await asyncio.to_thread(_start_far, processes, cable, api_database, tmp_path)
    nodes = [far, *(await asyncio.to_thread(lambda: [processes.start() for _ in range(2)]))]
    async with client_of(*(node.base for node in nodes)) as (cut, near, other):
        held = await _project(near, "held")
        async with cut.http.ws_connect(f"{cut.base}/websocket?api_token={cut.token}") as events:
            await events.send_json({"method": "subscribe", "filters": [["event_type", "in", ["create"]]]})
            assert json.loads((await events.receive(20)).data) == {"status": 200}
            before = await _project(cut, "before")
            # A request that is in the middle of its transaction when the network goes.
            holder = await asyncpg.connect(api_database)
            transaction = holder.transaction()
            await transaction.start()
            await holder.execute("SELECT 1 FROM groups WHERE uuid = $1 FOR UPDATE", held)
            open_request = asyncio.create_task(cut.call("PUT", f"groups/{held}", {"group": {"name": "renamed"}}))
            await until(lambda: _waits_for_lock(api_database))
            await asyncio.to_thread(cable.cut)
            await until(lambda: _is(cut, "ERROR"))
            assert (await cut.call("GET", "users/current")).status == 503
            async with asyncio.timeout(40):
                assert (await open_request).status in (500, 503)
            await transaction.rollback()
            await holder.close()
            # The others go on, and nothing that the cut node held keeps them.
            missed = [await _project((near, other)[n % 2], f"p{n}") for n in range(8)]
            assert [await _health(client) for client in (near, other)] == ["OK", "OK"]
            assert (await near.call("PUT", f"groups/{held}", {"group": {"name": "by another"}})).status == 200
            await asyncio.to_thread(cable.heal)
            await until(lambda: _is(cut, "OK"))
            await until(lambda: _answers(cut))
            after = await _project(cut, "after")
            seen: list[str] = []
            async with asyncio.timeout(30):
                while after not in seen:
                    if event := json.loads((await events.receive()).data):
                        seen.append(event["object_uuid"])
            assert seen == [before, *missed, after]
        assert (await cut.get(f"groups/{held}"))["name"] == "by another"
    assert far.process.poll() is None


async def _is(client: Client, word: str) -> bool:
    return await _health(client) == word


async def _answers(client: Client) -> bool:
    return (await client.call("GET", "users/current")).status == 200


async def _waits_for_lock(database: str) -> bool:
    connection = await asyncpg.connect(database)
    try:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return int(await connection.fetchval(sql)) > 0
    finally:
        await connection.close()


async def test_a_job_of_a_cut_node_goes_to_another_and_is_not_done_twice(
    processes: Processes, cable: Network, api_database: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(api_database)
    # The cut node is alone at first, so that the run is its own; its batch stops at a row that somebody holds.
    far = await asyncio.to_thread(_start_far, processes, cable, api_database, tmp_path)
    async with client_of(far.base) as (client,):
        uuids = [(await client.post("collections", {"collection": {"name": f"c{n}"}}))["uuid"] for n in range(5)]
    holder = await asyncpg.connect(api_database)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("LOCK TABLE logs IN SHARE MODE")
    await connection.execute(
        "UPDATE collections SET trash_at = clock_timestamp() - interval '2 s', is_trashed = true,"
        " delete_at = clock_timestamp() - interval '1 s' WHERE uuid = ANY($1)", uuids,
    )  # fmt: skip
    await connection.execute("UPDATE periodic_job SET next_at = clock_timestamp() WHERE name = 'trash_sweep'")
    await until(lambda: _waits_for_lock(api_database), 20)
    await asyncio.to_thread(cable.cut)
    await transaction.rollback()
    await holder.close()
    await asyncio.to_thread(lambda: [processes.start(job_lease_s=4.0) for _ in range(2)])
    gone = "SELECT count(*) FROM collections WHERE uuid = ANY($1)"

    async def done() -> bool:
        return not await connection.fetchval(gone, uuids)

    await until(done, 40)
    await asyncio.to_thread(cable.heal)
    logs = "SELECT count(*) FROM logs WHERE event_type = 'delete' AND object_uuid = ANY($1)"
    run_no = await connection.fetchval("SELECT run_no FROM periodic_job WHERE name = 'trash_sweep'")
    await connection.execute("UPDATE periodic_job SET next_at = clock_timestamp() WHERE name = 'trash_sweep'")

    async def ran_again() -> bool:
        sql = "SELECT run_no > $1 AND lease_until IS NULL FROM periodic_job WHERE name = 'trash_sweep'"
        return bool(await connection.fetchval(sql, run_no))

    await until(ran_again, 30)
    assert await connection.fetchval(logs, uuids) == len(uuids)
    await connection.close()
