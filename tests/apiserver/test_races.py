"""Races that the nodes' mechanisms win, and lose within twenty rounds when the mechanism is switched off.

The nodes are dispatchers inside the test, each with connections of its own: what they run is the real code, down to
the session, and a mechanism is switched off by another kind of session.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from apiserver import dispatch, jobs
from apiserver.auth import Authenticator, Credentials
from apiserver.dispatch import Answer, Dispatcher, Request
from apiserver.errors import ApiError
from apiserver.jobs import Jobs, Periodic, Run
from apiserver.operation import Context, RequestFacts
from apiserver.registry import Registry
from apiserver.store.migrator import migrate
from apiserver.store.pool import DatabaseSettings, Lock, Row, Session, Store
from apiserver.store.queries import load
from tests.apiserver.models import expected_permissions, expected_priorities
from tests.support.api import CLUSTER, ROOT, STEPS, api_template, settings
from tests.support.postgres import TestServer, postgres_server

__all__ = ["api_template", "postgres_server"]
pytestmark = [pytest.mark.pg, pytest.mark.timeout(120)]
SYSTEM = f"{CLUSTER}-tpzed-000000000000000"
ROUNDS = 20
_OPERATIONS = {(one.resource, one.name): one for one in Registry().operations()}
_numbers = count(1)


class Unlocked(Session):
    """Takes no lock."""

    async def lock(self, lock: Lock) -> None:
        del lock


class LooksFirst(Session):
    """Looks whether an idempotency key is there and inserts it at the end, instead of claiming it."""

    async def value(self, sql: str, *parameters: object) -> Any:
        if sql != dispatch._CLAIM:
            return await super().value(sql, *parameters)
        known = "SELECT 1 FROM idempotency_keys WHERE owner_uuid = $1 AND key = $2"
        return None if await super().value(known, *parameters[:2]) else 1

    async def execute(self, sql: str, *parameters: object) -> int:
        if sql == dispatch._FINISH:
            sql = ("INSERT INTO idempotency_keys (owner_uuid, key, request_hash, status, body)"
                   " VALUES ($1, $2, '', $3, $4) ON CONFLICT DO NOTHING")  # fmt: skip
        return await super().execute(sql, *parameters)


class SkipLocked(Session):
    """Claims a job by SKIP LOCKED, as queues do, and does not fence what it writes."""

    async def row(self, sql: str, *parameters: object) -> Row | None:
        if sql == jobs._QUERIES["claim"]:
            sql = ("UPDATE periodic_job SET run_no = run_no + 1, started = clock_timestamp()"
                   " WHERE name = (SELECT name FROM periodic_job WHERE name = $1 AND $2::double precision > 0"
                   " AND next_at <= clock_timestamp() FOR UPDATE SKIP LOCKED) RETURNING run_no, cursor")  # fmt: skip
        return await super().row(sql, *parameters)

    async def value(self, sql: str, *parameters: object) -> Any:
        return 1 if sql == jobs._QUERIES["fence"] else await super().value(sql, *parameters)


class GreaterIds(Session):
    """Reads events that have greater ids than the last one."""

    async def rows(self, sql: str, *parameters: object) -> list[Row]:
        if sql == load("events")["after"]:
            sql = "SELECT 0::bigint AS xid, id FROM logs WHERE $1::bigint >= 0 AND id > $2 ORDER BY id LIMIT $3"
        return await super().rows(sql, *parameters)


@dataclass
class Cluster:
    """Three nodes on one database."""

    database: str
    stores: list[Store]
    dispatchers: list[Dispatcher]

    async def call(self, at: int, resource: str, name: str, uuid: str = "", key: str = "", **values: Any) -> Answer:
        """Call a node as root."""
        operation = _OPERATIONS[resource, name]
        path = "/arvados/v1/" + operation.path.replace("{uuid}", uuid)
        facts = RequestFacts(operation.method, path, client="10.0.0.1")
        request = Request(operation, uuid, values, Credentials((ROOT,)), facts, key)
        return await self.dispatchers[at % len(self.dispatchers)].run(request)

    async def rows(self, sql: str, *values: object) -> list[Row]:
        async with self.stores[0].session() as session:
            return await session.rows(sql, *values)


@asynccontextmanager
async def _cluster(database: str, kind: type[Session]) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        configured = settings(database)
        stores = [await stack.enter_async_context(Store(DatabaseSettings(database, pool=4), kind)) for _ in range(3)]
        context, guard = Context(configured, Registry()), Authenticator(configured)
        yield Cluster(database, stores, [Dispatcher(context, store, guard, committed=lambda: None) for store in stores])


async def _permissions(cluster: Cluster) -> bool:
    """Grants that make one chain, at once, each on another node."""
    number = next(_numbers)
    user = f"{CLUSTER}-tpzed-{number:015d}"
    groups = [f"{CLUSTER}-j7d0g-{number:013d}{n:02d}" for n in range(5)]
    await cluster.call(0, "users", "create", user={"uuid": user, "email": f"u{number}@example.org"})
    for group in groups:
        await cluster.call(0, "groups", "create", group={"uuid": group, "group_class": "role", "name": group})
    await asyncio.gather(*(
        cluster.call(n, "links", "create", link={
            "link_class": "permission", "name": "can_read", "tail_uuid": tail, "head_uuid": head,
        })
        for n, (tail, head) in enumerate(zip([user, *groups], groups, strict=False))
    ))  # fmt: skip
    users = [row["uuid"] for row in await cluster.rows("SELECT uuid FROM users")]
    edges = await cluster.rows("SELECT tail, head, level FROM permission_edges")
    table = await cluster.rows("SELECT user_uuid, target_uuid, perm_level FROM materialized_permissions")
    expected = expected_permissions(users, [(row["tail"], row["head"], row["level"]) for row in edges])
    return {(row["user_uuid"], row["target_uuid"], row["perm_level"]) for row in table} == expected


_CONTAINER = "INSERT INTO containers (uuid, owner_uuid, state) VALUES ($1, $2, 'Running') RETURNING 1"
_REQUEST = """INSERT INTO container_requests (uuid, owner_uuid, container_uuid, requesting_container_uuid, priority,
 state, container_count_max) VALUES ($1, $2, $3, $4, 1, 'Committed', 3) RETURNING 1"""


async def _priorities(cluster: Cluster) -> bool:
    """Parent, child and grandchild get other priorities at once."""
    number, parent = next(_numbers), None
    requests = []
    for n in range(4):
        container = f"{CLUSTER}-dz642-{number:013d}{n:02d}"
        requests.append(f"{CLUSTER}-xvhdp-{number:013d}{n:02d}")
        await cluster.rows(_CONTAINER, container, SYSTEM)
        await cluster.rows(_REQUEST, requests[-1], SYSTEM, container, parent)
        parent = container
    for turn in range(3):
        await asyncio.gather(*(
            cluster.call(n, "container_requests", "update", uuid, container_request={"priority": (turn + n) % 2 * 7})
            for n, uuid in enumerate(requests)
        ))  # fmt: skip
    containers = await cluster.rows("SELECT uuid, priority FROM containers")
    found = await cluster.rows(
        "SELECT container_uuid, requesting_container_uuid, priority,"
        " floor(extract(epoch FROM created_at) * 1000)::bigint AS ms FROM container_requests"
    )
    expected = expected_priorities(
        [row["uuid"] for row in containers],
        [(row["container_uuid"], row["requesting_container_uuid"], row["priority"], row["ms"]) for row in found],
    )
    return {row["uuid"]: row["priority"] for row in containers} == expected


async def _keys(cluster: Cluster) -> bool:
    """One keyed write comes to all nodes at once."""
    name = f"keyed {next(_numbers)}"
    log = {"event_type": "note", "summary": name}
    answers = await asyncio.gather(*(cluster.call(n, "logs", "create", key=name, log=log) for n in range(6)))
    made = await cluster.rows("SELECT uuid FROM logs WHERE summary = $1", name)
    return len(made) == 1 and len({answer.body for answer in answers}) == 1


async def _slots(cluster: Cluster) -> bool:
    """Compute nodes ping for the first time at once."""
    await cluster.rows("DELETE FROM nodes RETURNING 1")
    made = [await cluster.call(0, "nodes", "create", node={}) for _ in range(12)]
    rows = await cluster.rows("SELECT uuid, info::jsonb ->> 'ping_secret' AS secret FROM nodes ORDER BY id")
    assert len(rows) == len(made)
    await asyncio.gather(*(
        cluster.call(n, "nodes", "ping", row["uuid"], ping_secret=row["secret"], local_ipv4=f"10.0.0.{n + 1}")
        for n, row in enumerate(rows)
    ))  # fmt: skip
    slots = await cluster.rows("SELECT slot_number FROM nodes ORDER BY slot_number")
    return [row["slot_number"] for row in slots] == list(range(1, 13))


async def _jobs(cluster: Cluster) -> bool:
    """Runs that take longer than their lease, on all nodes."""
    name = f"job {next(_numbers)}"
    wrote: list[int] = []

    async def job(run: Run) -> None:
        async def work(session: Session) -> int:
            wrote.append(run.run_no)
            return await session.execute("SELECT 1")

        for _ in range(3):
            await run.batch(work)
            await asyncio.sleep(random.uniform(0.0, 0.1))

    async with cluster.stores[0].session() as session:
        await jobs.seed(session, {name: Periodic(job, 3600.0)})
    nodes = [Jobs(store, {name: Periodic(job, 3600.0)}, note=lambda *_: None, lease_s=0.05) for store in cluster.stores]
    for _ in range(3):
        await asyncio.gather(*(node.run_one(name) for node in nodes))
    return wrote == sorted(wrote)


async def _events(cluster: Cluster) -> bool:
    """Writers that commit late, and a reader that remembers how far it is."""
    seen: list[int] = []
    kind = f"race {next(_numbers)}"
    writing = asyncio.Event()

    async def write(store: Store) -> None:
        for _ in range(6):
            async with store.session() as session, session.transaction():
                await session.execute(
                    "INSERT INTO logs (uuid, owner_uuid, event_type) VALUES (gen_random_uuid()::text, $1, $2)",
                    SYSTEM, kind,
                )  # fmt: skip
                await asyncio.sleep(random.uniform(0.0, 0.02))

    async def read(store: Store) -> None:
        async with store.session() as session:
            row = await session.row(load("events")["horizon"])
            assert row is not None
            position, last = (row["xid"], 2**62), False
            position = (position[0], 0) if isinstance(session, GreaterIds) else position
            while not last:
                last = not writing.is_set()
                for found in await session.rows(load("events")["after"], *position, 500):
                    position = (found["xid"], found["id"])
                    seen.append(found["id"])
                await asyncio.sleep(0.003)

    writing.set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read(cluster.stores[0]))
        async with asyncio.TaskGroup() as writers:
            for store in (*cluster.stores, *cluster.stores):
                writers.create_task(write(store))
        writing.clear()
    committed = {row["id"] for row in await cluster.rows("SELECT id FROM logs WHERE event_type = $1", kind)}
    return committed <= set(seen) and len(seen) == len(set(seen))


Race = Callable[[Cluster], Awaitable[bool]]
RACES: Sequence[tuple[str, Race, type[Session]]] = (
    ("permissions", _permissions, Unlocked),
    ("priorities", _priorities, Unlocked),
    ("idempotency keys", _keys, LooksFirst),
    ("slots", _slots, Unlocked),
    ("jobs", _jobs, SkipLocked),
    ("events", _events, GreaterIds),
)
_each = pytest.mark.parametrize(("race", "off"), [pytest.param(*rest, id=name) for name, *rest in RACES])


@_each
async def test_a_race_of_three_nodes_ends_well(
    postgres_server: TestServer, api_template: str, race: Race, off: type[Session]
) -> None:
    async with postgres_server.new_database(api_template) as database, _cluster(database, Session) as cluster:
        for _ in range(5):
            assert await race(cluster)


@_each
async def test_without_its_mechanism_the_race_is_lost_within_twenty_rounds(
    postgres_server: TestServer, api_template: str, race: Race, off: type[Session]
) -> None:
    async with postgres_server.new_database(api_template) as database, _cluster(database, off) as cluster:
        for _ in range(ROUNDS):
            with suppress(ApiError):  # an error answer is a lost race as well
                if await race(cluster):
                    continue
            return
    pytest.fail("twenty rounds without the mechanism ended well")


async def _starters(postgres_server: TestServer, kind: type[Session]) -> bool:
    """Five programs start on one empty database."""
    async with postgres_server.new_database() as database, AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(Store(DatabaseSettings(database), kind)) for _ in range(5)]

        async def start(store: Store) -> int:
            async with store.session() as session:
                return len(await migrate(session, STEPS))

        applied = await asyncio.gather(*(start(store) for store in stores), return_exceptions=True)
        return sum(one for one in applied if isinstance(one, int)) == len(STEPS) and all(
            isinstance(one, int) for one in applied
        )


async def test_starters_on_an_empty_database_migrate_it_once(postgres_server: TestServer) -> None:
    for _ in range(3):
        assert await _starters(postgres_server, Session)


async def test_without_the_lock_starters_fail_within_twenty_rounds(postgres_server: TestServer) -> None:
    for _ in range(ROUNDS):
        if not await _starters(postgres_server, Unlocked):
            return
    pytest.fail("twenty races without the lock ended well")
