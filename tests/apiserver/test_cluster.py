"""Three real nodes on one database: what has to hold whichever node a request lands on, and when one dies."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from apiserver.permissions import refresh_edge
from apiserver.store.pool import DatabaseSettings, Lock, Session, Store
from tests.apiserver.models import expected_permissions, expected_priorities
from tests.support.api import CLUSTER, MANAGEMENT, ROOT, Client, Processes, api_template, client_of, start_config
from tests.support.postgres import TestServer, postgres_server, until

__all__ = ["api_template", "postgres_server"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(120)]
DISCOVERY = "/discovery/v1/apis/arvados/v1/rest"
SYSTEM = f"{CLUSTER}-tpzed-000000000000000"


@pytest.fixture(scope="module")
def shared_database(postgres_server: TestServer, api_template: str) -> Iterator[str]:
    name = asyncio.run(postgres_server.create(api_template))
    yield postgres_server.dsn(name)
    asyncio.run(postgres_server.drop(name))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, shared_database: str) -> Iterator[Processes]:
    """Three nodes with different hash seeds and the same host name."""
    found = Processes(tmp_path_factory.mktemp("cluster"), start_config(shared_database))
    for seed in ("1", "2", "3"):
        found.start(env={"PYTHONHASHSEED": seed, "HOSTNAME": "same"})
    yield found
    found.end()


@pytest.fixture
async def clients(cluster: Processes) -> AsyncIterator[list[Client]]:
    async with client_of(*(node.base for node in cluster.nodes[:3])) as found:
        yield found


async def _fetch(database: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(database)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


async def test_all_nodes_answer_the_same_bytes(clients: list[Client]) -> None:
    for path in (DISCOVERY, "/arvados/v1/config", "/arvados/v1/vocabulary"):
        bodies, tags = set(), set()
        for client in clients:
            async with client.http.get(client.base + path) as response:
                bodies.add(await response.read())
                tags.add(response.headers["ETag"])
        assert (len(bodies), len(tags)) == (1, 1), path
        for client in clients:
            async with client.http.get(client.base + path, headers={"If-None-Match": tags.copy().pop()}) as response:
                assert response.status == 304
    made = await clients[0].post("groups", {"group": {"group_class": "project", "name": "etag"}})
    etags = {(await client.get(f"groups/{made['uuid']}"))["etag"] for client in clients}
    assert len(etags) == 1


async def test_a_grant_on_one_node_holds_on_the_next_at_once(clients: list[Client]) -> None:
    alice = await clients[0].user("granted")
    for turn in range(30):
        made = await clients[turn % 3].post("groups", {"group": {"group_class": "project", "name": f"g{turn}"}})
        body = {"link_class": "permission", "name": "can_read", "tail_uuid": alice.user_uuid,
                "head_uuid": made["uuid"]}  # fmt: skip
        link = await clients[turn % 3].post("links", {"link": body})
        reader = clients[(turn + 1) % 3].with_token(alice.token)
        assert (await reader.call("GET", f"groups/{made['uuid']}")).status == 200
        await clients[(turn + 1) % 3].delete(f"links/{link['uuid']}")
        reader = clients[(turn + 2) % 3].with_token(alice.token)
        assert (await reader.call("GET", f"groups/{made['uuid']}")).status == 404


async def _permission_storm(clients: list[Client], seed: int, steps: int) -> None:
    """Random grants, moves and revocations on all nodes at once."""
    rng = random.Random(seed)
    users = [(await clients[0].user(f"u{seed}n{n}")).user_uuid for n in range(4)]
    roles, projects = [], []
    for n in range(4):
        role = await clients[n % 3].post("groups", {"group": {"group_class": "role", "name": f"r{seed}n{n}"}})
        made = await clients[n % 3].post("groups", {"group": {"group_class": "project", "name": f"p{seed}n{n}"}})
        roles.append(role["uuid"])
        projects.append(made["uuid"])
    links: list[str] = []

    async def act(client: Client) -> None:
        choice = rng.random()
        if choice < 0.6 or not links:
            level = rng.choice(["can_read", "can_write", "can_manage"])
            tail, head = rng.choice(users + roles), rng.choice(users + roles + projects)
            body = {"link_class": "permission", "name": level, "tail_uuid": tail, "head_uuid": head}
            made = await client.call("POST", "links", {"link": body})
            assert made.status in (200, 422), made.body
            if made.status == 200:
                links.append(made.body["uuid"])
        elif choice < 0.8:
            uuid = links.pop(rng.randrange(len(links)))
            assert (await client.call("DELETE", f"links/{uuid}")).status in (200, 404)
        else:
            owner = rng.choice(users + projects)
            moved = await client.call("PUT", f"groups/{rng.choice(projects)}", {"group": {"owner_uuid": owner}})
            assert moved.status in (200, 422), moved.body

    for _ in range(steps):
        await asyncio.gather(*(act(client) for client in clients for _ in range(2)))


async def _permissions(database: str) -> tuple[set[Any], set[Any]]:
    users = [row["uuid"] for row in await _fetch(database, "SELECT uuid FROM users")]
    edges = [tuple(row) for row in await _fetch(database, "SELECT tail, head, level FROM permission_edges")]
    rows = await _fetch(database, "SELECT user_uuid, target_uuid, perm_level FROM materialized_permissions")
    return {tuple(row) for row in rows}, expected_permissions(users, edges)


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_permission_table_is_what_the_edges_say(
    clients: list[Client], shared_database: str, seed: int
) -> None:
    await _permission_storm(clients, seed, 12)
    table, model = await _permissions(shared_database)
    assert table == model


async def test_without_the_lock_permissions_would_go_missing(shared_database: str) -> None:
    """Two transactions that each add an edge of one chain, neither seeing the other's."""

    async def add(session: Session, locks: list[Lock], tail: str, head: str, meet: asyncio.Barrier | None) -> None:
        async with session.transaction(locks):
            await session.execute(
                "INSERT INTO links (uuid, owner_uuid, link_class, name, tail_uuid, head_uuid)"
                " VALUES (md5(random()::text), $1, 'permission', 'can_read', $2, $3)", SYSTEM, tail, head,
            )  # fmt: skip
            if meet is not None:
                await meet.wait()
            await refresh_edge(session, head, 1, [tail])
            if meet is not None:
                await meet.wait()

    async def chain(store: Store, name: str, *, locked: bool) -> int:
        user, first, second = f"{CLUSTER}-tpzed-{name}", f"{CLUSTER}-j7d0g-{name}1", f"{CLUSTER}-j7d0g-{name}2"
        async with store.session() as one, store.session() as two:
            await one.execute("INSERT INTO materialized_permissions VALUES ($1, $1, 3, true)", user)
            meet = None if locked else asyncio.Barrier(2)
            locks = [Lock.PERMISSIONS] if locked else []
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(add(one, locks, user, first, meet))
                tasks.create_task(add(two, locks, first, second, meet))
            count = await one.value("SELECT count(*) FROM materialized_permissions WHERE user_uuid = $1", user)
            await one.execute("DELETE FROM links WHERE tail_uuid IN ($1, $2)", user, first)
            await one.execute("DELETE FROM materialized_permissions WHERE user_uuid = $1", user)
            return int(count)

    async with Store(DatabaseSettings(shared_database)) as store:
        assert await chain(store, "lockedlockedl", locked=True) == 3
        assert await chain(store, "nolocknolockn", locked=False) == 2


async def test_equal_links_made_at_once_on_all_nodes_are_one(clients: list[Client]) -> None:
    alice = await clients[0].user("linked")
    for turn in range(5):
        made = await clients[0].post("groups", {"group": {"group_class": "project", "name": f"linked {turn}"}})
        links = await asyncio.gather(*(
            client.post("links", {"link": {"link_class": "permission", "name": level, "tail_uuid": alice.user_uuid,
                                           "head_uuid": made["uuid"]}})
            for client in clients for level in ("can_read", "can_write")
        ))  # fmt: skip
        assert len({link["uuid"] for link in links}) == 1
        found = await clients[1].get("links", filters=[["head_uuid", "=", made["uuid"]]])
        assert [(one["tail_uuid"], one["name"]) for one in found["items"]] == [(alice.user_uuid, "can_write")]


async def test_changes_of_one_collection_on_all_nodes_are_all_kept_as_versions(clients: list[Client]) -> None:
    made = await clients[0].post("collections", {"collection": {"name": "shared", "preserve_version": True}})
    await asyncio.gather(*(
        clients[n % 3].put(f"collections/{made['uuid']}", {"collection": {
            "description": f"change {n}", "preserve_version": True}})
        for n in range(9)
    ))  # fmt: skip
    mine = [["current_version_uuid", "=", made["uuid"]]]
    found = await clients[1].get("collections", filters=mine, include_old_versions=True, order=["version"])
    assert [item["version"] for item in found["items"]] == list(range(1, 11))
    assert {item["description"] for item in found["items"]} == {None, *(f"change {n}" for n in range(9))}


async def test_of_dispatchers_on_all_nodes_one_locks_a_container(clients: list[Client]) -> None:
    image = await clients[0].post("collections", {"collection": {"manifest_text": ". " + "b" * 32 + "+1 0:1:i\n"}})
    request = await clients[0].post("container_requests", {"container_request": {
        "command": ["locked"], "container_image": image["portable_data_hash"], "output_path": "/o", "priority": 1,
        "state": "Committed", "mounts": {"/o": {"kind": "tmp"}}, "runtime_constraints": {"vcpus": 1, "ram": 1},
    }})  # fmt: skip
    path = f"containers/{request['container_uuid']}/lock"
    answers = await asyncio.gather(*(clients[n % 3].call("POST", path) for n in range(6)))
    assert sorted(answer.status for answer in answers) == [200] + [422] * 5
    assert (await clients[0].get(path.removesuffix("/lock")))["lock_count"] == 1


async def test_nodes_of_one_configuration_show_one_hash(cluster: Processes, clients: list[Client]) -> None:
    other = await asyncio.to_thread(lambda: cluster.start(issue_trusted_tokens=False))

    async def shown(client: Client) -> str:
        text: str = (await client.with_token(MANAGEMENT).call("GET", "/metrics")).body
        return next(line for line in text.splitlines() if line.startswith("arv_api_config_info{"))

    async with client_of(other.base) as (client,):
        hashes = [await shown(one) for one in (*clients, client)]
    assert len(set(hashes[:3])) == 1
    assert hashes[3] != hashes[0]
    other.kill()


async def test_priorities_are_what_the_requests_say_after_a_storm(clients: list[Client], shared_database: str) -> None:
    image = await clients[0].post("collections", {"collection": {"manifest_text": ". " + "a" * 32 + "+1 0:1:i\n"}})
    rng = random.Random(5)

    def body(command: str, **more: Any) -> dict[str, Any]:
        return {"container_request": {
            "command": [command], "container_image": image["portable_data_hash"], "output_path": "/o", "priority": 1,
            "state": "Committed", "mounts": {"/o": {"kind": "tmp"}}, "runtime_constraints": {"vcpus": 1, "ram": 1},
            **more,
        }}  # fmt: skip

    parents = [await clients[n % 3].post("container_requests", body(f"parent{n}")) for n in range(3)]
    requests = [request["uuid"] for request in parents]
    for parent in parents:
        uuid = parent["container_uuid"]
        await clients[0].post(f"containers/{uuid}/lock")
        await clients[0].put(f"containers/{uuid}", {"container": {"state": "Running"}})
        token = await clients[0].get(f"containers/{uuid}/auth")
        inside = clients[1].with_token(f"v2/{token['uuid']}/{token['api_token']}")
        # The children share containers, so the trees of the parents meet.
        for n in range(3):
            child = await inside.post("container_requests", body(f"child{n}"))
            requests.append(child["uuid"])
    for _ in range(12):
        answers = await asyncio.gather(*(
            client.call("PUT", f"container_requests/{rng.choice(requests)}",
                        {"container_request": {"priority": rng.choice([0, 1, 5, 500])}})
            for client in clients for _ in range(2)
        ))  # fmt: skip
        assert {answer.status for answer in answers} == {200}, [answer.body for answer in answers]
    rows = await _fetch(shared_database, "SELECT uuid, priority FROM containers WHERE state IN ('Queued', 'Running')")
    found = await _fetch(
        shared_database,
        "SELECT container_uuid, requesting_container_uuid, priority,"
        " floor(extract(epoch FROM created_at) * 1000)::bigint AS ms FROM container_requests"
        " WHERE state = 'Committed'",
    )
    assert {row["uuid"]: row["priority"] for row in rows} == expected_priorities(
        [row["uuid"] for row in rows], [tuple(row) for row in found]
    )


async def test_no_acknowledged_write_is_lost_and_no_keyed_one_doubled_when_a_node_is_killed(
    cluster: Processes, shared_database: str
) -> None:
    victim = await asyncio.to_thread(cluster.start)
    bases = [victim.base, cluster.nodes[0].base, cluster.nodes[1].base]
    acknowledged: list[str] = []

    async def write(http: aiohttp.ClientSession, number: int) -> None:
        body = {"group": {"group_class": "project", "name": f"keyed{number}"}}
        headers = {"Authorization": f"Bearer {ROOT}", "Idempotency-Key": f"key{number}"}
        for attempt in range(6):
            url = f"{bases[attempt % 3]}/arvados/v1/groups"
            try:
                async with http.post(url, json=body, headers=headers) as response:
                    assert response.status == 200, await response.text()
                    acknowledged.append((await response.json())["uuid"])
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
        raise AssertionError(f"write {number} was never acknowledged")

    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        for number in range(60):
            tasks.create_task(write(http, number))
            if number == 30:
                await asyncio.sleep(0.15)
                victim.process.kill()
    await asyncio.to_thread(victim.process.wait)
    rows = await _fetch(shared_database, "SELECT uuid, name FROM groups WHERE name LIKE 'keyed%'")
    assert {row["uuid"] for row in rows} == set(acknowledged)
    assert len(rows) == len({row["name"] for row in rows}) == 60


async def test_a_node_stops_without_cutting_a_request(cluster: Processes) -> None:
    leaving = await asyncio.to_thread(lambda: cluster.start(stop_delay_s=3.0))
    async with client_of(leaving.base) as (client,):
        stop = asyncio.Event()

        async def ask() -> int:
            count = 0
            while not stop.is_set():
                assert (await client.call("GET", "users/current")).status in (200, 503)
                count += 1
            return count

        async with asyncio.TaskGroup() as tasks:
            askers = [tasks.create_task(ask()) for _ in range(8)]
            await asyncio.sleep(0.3)
            leaving.terminate()

            async def says_so() -> bool:
                health = await client.with_token(MANAGEMENT).call("GET", "/_health/ping")
                return bool(health.body["health"] == "ERROR")

            await until(says_so)  # within the delay: it still answers, and tells its balancer to go
            stop.set()
        assert all(asker.result() > 0 for asker in askers)
    assert await asyncio.to_thread(leaving.process.wait, 30) == 0


async def test_a_node_whose_schema_moved_on_stops_serving_and_comes_back(
    cluster: Processes, clients: list[Client], shared_database: str
) -> None:
    async def statuses() -> set[int]:
        return {(await client.call("GET", "users/current")).status for client in clients}

    async def are(expected: int) -> bool:
        return await statuses() == {expected}

    await _fetch(shared_database, "UPDATE schema_version SET min_app = 99 WHERE component = 'apiserver' RETURNING 1")
    try:
        await until(lambda: are(503))
        health = await clients[0].with_token(MANAGEMENT).call("GET", "/_health/ping")
        assert health.status == 200
        assert "upgrade this node" in health.body["error"]
        assert await statuses() == {503}
    finally:
        await _fetch(shared_database, "UPDATE schema_version SET min_app = 0 RETURNING 1")
    await until(lambda: are(200))


async def test_terminated_connections_cost_no_request(clients: list[Client], shared_database: str) -> None:
    kill = ("SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
    for turn in range(5):
        await _fetch(shared_database, kill)
        body = {"group": {"group_class": "project", "name": f"after kill {turn}"}}
        answers = await asyncio.gather(*(client.call("POST", "groups", body) for client in clients))
        assert sorted(answer.status for answer in answers) == [200, 422, 422], [answer.body for answer in answers]


def test_no_transaction_ever_deadlocked(postgres_server: TestServer, cluster: Processes) -> None:
    """After the storms above: locks first and in one order."""
    assert "deadlock detected" not in (postgres_server.local.folder / "server.log").read_text(errors="replace")


async def test_a_frozen_database_is_noticed_and_nothing_hangs(
    cluster: Processes, clients: list[Client], postgres_server: TestServer
) -> None:
    loop = asyncio.get_running_loop()

    async def says(word: str) -> bool:
        answers = [await client.with_token(MANAGEMENT).call("GET", "/_health/ping") for client in clients]
        assert {answer.status for answer in answers} == {200}
        return {answer.body["health"] for answer in answers} == {word}

    await asyncio.to_thread(postgres_server.freeze)
    try:
        await until(lambda: says("ERROR"))
        begun = loop.time()
        answers = await asyncio.gather(*(client.call("GET", "users/current") for client in clients))
        assert {answer.status for answer in answers} == {503}
        assert loop.time() - begun < 20
    finally:
        await asyncio.to_thread(postgres_server.thaw)
    await until(lambda: says("OK"))
    assert {(await client.call("GET", "users/current")).status for client in clients} == {200}
