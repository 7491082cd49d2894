"""Processes that run for ever: they take over from each other, survive what goes away, and end when told to."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from dnsupdate.both import leased
from dnsupdate.enqueue import enqueue
from dnsupdate.errors import LeaseLostError, StoreError
from dnsupdate.follow import FollowError, client, from_api, from_database, once
from dnsupdate.names import STRICT
from dnsupdate.service import Keys, Secrets, Service
from dnsupdate.store import Store
from tests.dnsupdate.builders import host
from tests.dnsupdate.servers import FORWARD, Target
from tests.dnsupdate.site import site_settings
from tests.support.nameservers import KEY, write_key
from tests.support.ports import free_port
from tests.support.postgres import until

pytestmark = pytest.mark.pg


async def test_a_service_sends_what_is_nudged_and_gives_its_lease_up_when_it_ends(
    practice: Target, dsn: str, tmp_path: Path, no_leaked_tasks: None
) -> None:
    settings = site_settings(practice, tmp_path, target={"poll": "30s"})
    secrets = Secrets({"main": Keys(KEY, KEY)}, {})
    connection = await asyncpg.connect(dsn)
    async with Store.open(dsn) as store:
        task = asyncio.get_running_loop().create_task(Service(settings, secrets, store, holder="api1").run())
        await until(lambda: connection.fetchval("SELECT count(*) = 1 FROM dns_lease WHERE until > clock_timestamp()"))
        await until(lambda: any("_dnsupdate-fence" in line for line in practice.records(FORWARD)))
        await enqueue(connection, host("compute1", "192.0.2.1"))

        async def nudged() -> bool:
            await connection.execute("NOTIFY dns")
            return practice.hosts(FORWARD) == {f"compute1.{FORWARD} 60 A 192.0.2.1"}

        await until(nudged)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await connection.fetchval("SELECT until > clock_timestamp() FROM dns_lease")
    await connection.close()


async def test_a_service_ends_when_told_to_after_its_listening_connection_was_lost(
    practice: Target, dsn: str, tmp_path: Path, no_leaked_tasks: None
) -> None:
    settings = site_settings(practice, tmp_path)
    secrets = Secrets({"main": Keys(KEY, KEY)}, {})
    connection = await asyncpg.connect(dsn)
    listening = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    async with Store.open(dsn) as store:
        task = asyncio.get_running_loop().create_task(Service(settings, secrets, store, holder="api1").run())
        await until(lambda: connection.fetchval(f"SELECT count(*) > 0 {listening}"))
        await connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {listening}")
        task.cancel()
        async with asyncio.timeout(30):
            with pytest.raises(asyncio.CancelledError):
                await task
    await connection.close()


async def test_a_lease_is_kept_through_work_that_takes_longer_than_it_lasts(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    seconds, seen = 2.0, set()
    async with Store.open(dsn) as store:
        await store.register("main", "rfc2136")
        (lease, _) = await store.acquire("main", "api1", seconds) or pytest.fail("no lease")

        async def long_work() -> str:
            async def renewed() -> bool:
                seen.add(await connection.fetchval("SELECT until FROM dns_lease"))
                return len(seen) > 4  # each renewal is a third of the lease after the one before

            await until(renewed)
            return "done"

        assert await leased(store, lease, long_work()) == "done"
        await store.renew(lease)

        async def over() -> Any:
            return await connection.fetchval("SELECT until < clock_timestamp() FROM dns_lease")

        await until(over)  # without renewals it ends
        with pytest.raises(LeaseLostError):
            await leased(store, lease, asyncio.sleep(seconds))
    await connection.close()


CONFIG = """\
cluster: xarv1
dns:
  database_file: {folder}/dsn
  domain: cluster.example
  spool: {{dir: {folder}/spool}}
  targets:
    main: {{kind: builtin, servers: [127.0.0.1], port: {port}, key_file: {key}, poll: 50ms,
           retry: {{first: 50ms, most: 200ms}}}}
  zones: [{{name: cluster.example, target: main}}]
  templates:
    compute: {{records: [{{name: "{{{{ fqdn }}}}.", each: ipv4, type: A, data: "{{{{ item }}}}"}}]}}
"""


@asynccontextmanager
async def process(config: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "balancer.cli", "dns", *words, "--config", str(config),
        stderr=asyncio.subprocess.DEVNULL, env={**os.environ},
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


@pytest.mark.e2e
@pytest.mark.timeout(240)
async def test_two_processes_share_the_work_and_one_takes_over_at_once(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(dsn)
    config, port = tmp_path / "arv-balance.yml", free_port()
    config.write_text(CONFIG.format(folder=tmp_path, port=port, key=write_key(tmp_path)))
    db = await asyncpg.connect(dsn)
    server = Target("builtin", port)

    async def address_of(name: str) -> tuple[str, ...]:
        from dnsupdate.exchange import Channel
        from tests.dnsupdate.servers import wall

        async with Channel(server.peer(), wall) as channel:
            (reply,) = await channel.query((f"{name}.{FORWARD}", "A"))
        return reply.answer.data("A") if reply.answer is not None else ()

    async def shows(name: str, ip: str) -> None:
        async def there() -> bool:
            return await address_of(name) == (ip,)

        await until(there, 30)

    async def holder() -> Any:
        return await db.fetchval("SELECT holder FROM dns_lease WHERE until > clock_timestamp()")

    async with process(config, "authority"), process(config, "run") as first:
        await until(holder, 30)
        leader = await holder()
        async with process(config, "run"):
            await enqueue(db, host("compute1", "192.0.2.1"))
            await shows("compute1", "192.0.2.1")
            first.send_signal(signal.SIGTERM)
            assert await first.wait() == 0

            async def another() -> bool:
                return await holder() not in (None, leader)

            await until(another, 30)
            await enqueue(db, host("compute1", "192.0.2.2"))
            await shows("compute1", "192.0.2.2")
    # The authority keeps nothing: a new one is filled again by whoever sends.
    async with process(config, "run"), process(config, "authority"):
        await shows("compute1", "192.0.2.2")
    await db.close()


@asynccontextmanager
async def node_list(nodes: list[dict[str, Any]], page: int = 2) -> AsyncIterator[str]:
    """An API that lists nodes a few at a time, for those who have the token."""

    async def handle(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer s3cr3t":
            return web.json_response({"errors": ["no"]}, status=401)
        start = int(request.query["offset"])
        return web.json_response({"items": nodes[start : start + page], "items_available": len(nodes)})

    app = web.Application()
    app.router.add_get("/arvados/v1/nodes", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    where = web.TCPSite(runner, "127.0.0.1", 0)
    await where.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def node(number: int, ip: str | None) -> dict[str, Any]:
    return {
        "uuid": f"xarv1-7ekkf-{number:015d}", "hostname": f"compute{number}", "domain": "cluster.example",
        "ip_address": ip, "slot_number": number, "properties": {"total_cpu_cores": 8}, "info": {"ping_secret": "x"},
    }  # fmt: skip


async def test_the_node_list_of_an_api_is_followed_page_by_page(dsn: str, db: Any) -> None:
    nodes = [node(number, f"192.0.2.{number}") for number in range(1, 6)]
    nodes.append({**node(6, "192.0.2.6"), "hostname": "bad;name"})
    async with node_list(nodes) as root, Store.open(dsn) as store, client(None) as session:
        read = from_api(session, root, "s3cr3t", store)
        found = await once(read, store, STRICT)
        assert (found.changed, found.removed, len(found.refused)) == (5, 0, 1)
        assert (await once(read, store, STRICT)).changed == 0
        del nodes[0]
        nodes[0] = node(2, None)
        found = await once(read, store, STRICT)
        assert (found.changed, found.removed) == (1, 1)
        with pytest.raises(FollowError, match="status 401"):
            await once(from_api(session, root, "wrong", store), store, STRICT)
        assert await db.fetchval("SELECT count(*) FROM dns_hosts WHERE NOT removed") == 4


class Connection:
    """Of a client that cannot make sense of what it gets."""

    async def fetch(self, _: str) -> Any:
        raise asyncpg.InternalClientError("got result for unknown protocol state 3")

    async def close(self, **_: Any) -> None:
        return


async def test_a_source_whose_connection_breaks_within_the_client_is_a_source_that_does_not_answer() -> None:
    async def connect(*_: Any, **__: Any) -> Connection:
        return Connection()

    with pytest.raises(FollowError, match="unknown protocol state"):
        await from_database("postgresql:///x", connect)()


NO_ADDRESSES = [
    "hush",
    "postgresql://user:hu/sh@127.0.0.1/x",
    "postgresql://user:hush@127.0.0.1:99999/x?sslmode=disable",
]


@pytest.mark.parametrize("address", NO_ADDRESSES)
async def test_a_database_address_that_is_none_is_told_without_repeating_it(address: str) -> None:
    with pytest.raises(FollowError) as source:
        await from_database(address)()
    with pytest.raises(StoreError) as store:
        async with Store.open(address):
            pass
    assert "hu" not in str(source.value) + str(store.value)


async def test_of_two_followers_the_one_that_read_earlier_changes_nothing_later(dsn: str, db: Any) -> None:
    nodes = [node(1, "192.0.2.1")]
    async with node_list(nodes) as root, Store.open(dsn) as store, client(None) as session:
        slow = await from_api(session, root, "s3cr3t", store)()
        nodes[0] = node(1, "192.0.2.2")
        await once(from_api(session, root, "s3cr3t", store), store, STRICT)

        async def late() -> Any:
            return slow

        assert (await once(late, store, STRICT)).changed == 0
        assert await db.fetchval("SELECT facts -> 'ips' ->> 0 FROM dns_hosts") == "192.0.2.2"


async def test_processes_that_start_while_one_marks_all_hosts_do_not_deadlock(dsn: str) -> None:
    async with Store.open(dsn) as store, Store.open(dsn) as other:
        await store.register("main", "builtin")
        found = await store.acquire("main", "api1", 60.0)
        assert found is not None

        async def repeat(work: Callable[[], Awaitable[None]]) -> None:
            for _ in range(100):
                await work()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(repeat(lambda: store.mark_all(found[0])))
            for _ in range(2):
                tasks.create_task(repeat(lambda: other.register("main", "builtin")))
