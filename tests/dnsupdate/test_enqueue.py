"""The change of a node and its dirty mark are one transaction; only changes mark, and the newest wins."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import pytest

from dnsupdate.enqueue import Nudger, enqueue, remove, states
from dnsupdate.errors import BadNameError
from dnsupdate.schema import migrate
from tests.dnsupdate.builders import host
from tests.support.postgres import TestServer

pytestmark = pytest.mark.pg
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def targets(db: Connection, *names: str) -> None:
    await db.executemany("INSERT INTO dns_lease (target) VALUES ($1)", [(name,) for name in names])


async def dirty(db: Connection) -> dict[tuple[str, str], int]:
    rows = await db.fetch("SELECT target, node_uuid, gen FROM dns_dirty")
    return {(row["target"], row["node_uuid"].removeprefix("xarv1-7ekkf-")): row["gen"] for row in rows}


async def send(db: Connection) -> None:
    await db.execute("DELETE FROM dns_dirty")


async def test_a_new_host_is_dirty_at_every_target(db: Connection) -> None:
    await targets(db, "main", "second")
    assert await enqueue(db, host("a")) == ("xarv1-7ekkf-a",)
    assert set(await dirty(db)) == {("main", "a"), ("second", "a")}


async def test_a_ping_that_changes_nothing_writes_nothing(db: Connection) -> None:
    await targets(db, "main")
    await enqueue(db, host("a"))
    await send(db)
    before = await db.fetchval("SELECT pg_current_xact_id_if_assigned()::text || xmin FROM dns_hosts")
    async with db.transaction():
        assert await enqueue(db, host("a")) == ()
        assert await db.fetchval("SELECT pg_current_xact_id_if_assigned()") is None
    assert await dirty(db) == {}
    assert before == await db.fetchval("SELECT pg_current_xact_id_if_assigned()::text || xmin FROM dns_hosts")


async def test_a_late_ping_that_changes_nothing_only_notes_the_time(db: Connection) -> None:
    await targets(db, "main")
    await enqueue(db, host("a"))
    await send(db)
    await db.execute("UPDATE dns_hosts SET last_ping_at = last_ping_at - interval '61 s'")
    assert await enqueue(db, host("a")) == ()
    assert await dirty(db) == {}
    assert await db.fetchval("SELECT last_ping_at > clock_timestamp() - interval '30 s' FROM dns_hosts")


async def test_a_rolled_back_ping_leaves_no_mark(db: Connection) -> None:
    await targets(db, "main")
    transaction = db.transaction()
    await transaction.start()
    await enqueue(db, host("a"))
    await transaction.rollback()
    assert await dirty(db) == {}


async def test_many_changes_are_one_row_with_the_newest_number(db: Connection) -> None:
    await targets(db, "main")
    for number in range(1, 6):
        await enqueue(db, host("a", f"192.0.2.{number}"))
    assert len(await dirty(db)) == 1
    assert (await dirty(db))["main", "a"] == await db.fetchval("SELECT gen FROM dns_hosts")


async def test_the_newest_ping_takes_an_address_from_the_host_that_had_it(db: Connection) -> None:
    await targets(db, "main")
    await enqueue(db, host("a", "192.0.2.1"))
    await send(db)
    changed = await enqueue(db, host("b", "192.0.2.1"))
    assert set(changed) == {"xarv1-7ekkf-a", "xarv1-7ekkf-b"}
    assert set(await dirty(db)) == {("main", "a"), ("main", "b")}
    assert await db.fetchval("SELECT facts -> 'ips' FROM dns_hosts WHERE uuid = 'xarv1-7ekkf-a'") == "[]"


async def test_a_renamed_host_leaves_its_old_name_as_an_absent_host(db: Connection) -> None:
    await targets(db, "main")
    await enqueue(db, host("a"))
    await send(db)
    changed = await enqueue(db, host("b", uuid="xarv1-7ekkf-a"))
    assert set(changed) == {"xarv1-7ekkf-a", "was:a"}
    assert await db.fetchval("SELECT removed FROM dns_hosts WHERE uuid = 'was:a'")


async def test_a_removed_host_is_dirty_once_and_comes_back_with_a_ping(db: Connection) -> None:
    await targets(db, "main")
    await enqueue(db, host("a"))
    await send(db)
    assert await remove(db, "xarv1-7ekkf-a", "unknown") == ("xarv1-7ekkf-a",)
    assert await remove(db, "xarv1-7ekkf-a") == ()
    assert set(await dirty(db)) == {("main", "a")}
    await send(db)
    assert await enqueue(db, host("a")) == ("xarv1-7ekkf-a",)


async def test_news_that_is_older_than_what_is_stored_is_dropped(db: Connection) -> None:
    await targets(db, "main")
    now = datetime.now(UTC)
    await enqueue(db, host("a", "192.0.2.2"), source_time=now)
    await send(db)
    assert await enqueue(db, host("a", "192.0.2.1"), source_time=now - timedelta(seconds=5)) == ()
    assert await remove(db, "xarv1-7ekkf-a", source_time=now - timedelta(seconds=5)) == ()
    assert await dirty(db) == {}
    assert await db.fetchval("SELECT facts -> 'ips' FROM dns_hosts") == '["192.0.2.2"]'


async def test_a_bad_name_is_refused_before_anything_is_written(db: Connection) -> None:
    await targets(db, "main")
    with pytest.raises(BadNameError, match="characters other than"):
        await enqueue(db, host("a"), host("b;rm", "192.0.2.9"))
    assert await db.fetchval("SELECT count(*) FROM dns_hosts") == 0


async def test_concurrent_swaps_end_with_each_address_at_one_host_and_no_deadlock(dsn: str, db: Connection) -> None:
    await targets(db, "main")

    async def pinger(seed: int) -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for number in range(25):
                name = f"h{(seed + number) % 4}"
                async with connection.transaction():
                    await enqueue(connection, host(name, f"192.0.2.{(seed * number) % 5 + 1}"))
        finally:
            await connection.close()

    async with asyncio.TaskGroup() as group:
        for seed in range(4):
            group.create_task(pinger(seed))
    held = await db.fetch("SELECT ip FROM dns_hosts, jsonb_array_elements_text(facts -> 'ips') AS ip")
    assert len({row["ip"] for row in held}) == len(held)
    newest = {row["uuid"]: row["gen"] for row in await db.fetch("SELECT uuid, gen FROM dns_hosts")}
    assert {uuid: newest[f"xarv1-7ekkf-{uuid}"] for _, uuid in await dirty(db)} == {
        uuid: gen for (_, uuid), gen in (await dirty(db)).items()
    }


async def test_the_state_of_a_host_is_the_worst_of_its_targets(db: Connection) -> None:
    await targets(db, "main", "second")
    await enqueue(db, host("a"), host("b", "192.0.2.8"))
    await db.execute("DELETE FROM dns_dirty WHERE target = 'second'")
    await db.execute("DELETE FROM dns_dirty WHERE node_uuid LIKE '%-b'")
    await db.execute("UPDATE dns_dirty SET state = 'failed', attempts = 3, last_error = 'REFUSED'")
    found = await states(db, ["xarv1-7ekkf-a", "xarv1-7ekkf-b", "unknown"])
    assert found["xarv1-7ekkf-a"].state == "failed"
    assert found["xarv1-7ekkf-b"].state == "published"
    assert "unknown" not in found
    assert found["xarv1-7ekkf-a"].as_json()["targets"]["main"] == {"state": "failed", "error": "REFUSED"}
    assert [one.text().split(":")[-1].strip() for one in found["xarv1-7ekkf-a"].targets] == ["REFUSED", "published"]


async def test_nudges_are_debounced(db: Connection) -> None:
    now = [0.0]
    nudger = Nudger(clock=lambda: now[0])
    assert await nudger.nudge(db)
    assert not await nudger.nudge(db)
    now[0] = 0.06
    assert await nudger.nudge(db)


async def test_migrating_twice_from_several_processes_applies_each_step_once(postgres_server: TestServer) -> None:
    async def one(dsn: str) -> list[str]:
        connection = await asyncpg.connect(dsn)
        try:
            return await migrate(connection)
        finally:
            await connection.close()

    async with postgres_server.new_database() as dsn:
        done = await asyncio.gather(*(one(dsn) for _ in range(4)))
    assert sorted(step for steps in done for step in steps) == ["0001_tables.sql", "0002_sending.sql"]
