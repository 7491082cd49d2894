"""A hook's news is never lost, never out of order, and never undoes what is newer."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from dnsupdate.names import STRICT
from dnsupdate.snippets import parse
from dnsupdate.spool import Entry, Spool, SpoolError, enqueue_one, hand_on

pytestmark = pytest.mark.pg
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
NOW = datetime.now(UTC)


def entry(name: str, ip: str | None, *, ago_s: float = 0.0) -> Entry:
    return Entry(name, ip, NOW - timedelta(seconds=ago_s))


async def addresses(db: Connection) -> dict[str, str]:
    rows = await db.fetch("SELECT facts ->> 'hostname' AS name, facts -> 'ips' ->> 0 AS ip FROM dns_hosts")
    return {row["name"]: row["ip"] for row in rows}


async def test_entries_are_handed_on_in_order_and_then_gone(db: Connection, tmp_path: Path) -> None:
    spool = Spool(tmp_path, STRICT)
    for number in range(5, 0, -1):
        await asyncio.to_thread(spool.put, entry("compute1", f"192.0.2.{number}", ago_s=10 * number))
    assert await hand_on(spool, db, STRICT) == 5
    assert await addresses(db) == {"compute1": "192.0.2.1"}
    assert await asyncio.to_thread(spool.entries) == []


async def test_an_entry_kept_on_one_node_does_not_undo_a_newer_one_from_another(db: Connection, tmp_path: Path) -> None:
    node_a, node_b = Spool(tmp_path / "a", STRICT), Spool(tmp_path / "b", STRICT)
    await asyncio.to_thread(node_a.put, entry("compute1", "192.0.2.1", ago_s=60))
    await asyncio.to_thread(node_b.put, entry("compute1", "192.0.2.2", ago_s=5))
    assert await hand_on(node_b, db, STRICT) == 1
    await db.execute("INSERT INTO dns_lease (target) VALUES ('main')")
    assert await hand_on(node_a, db, STRICT) == 1
    assert await addresses(db) == {"compute1": "192.0.2.2"}
    assert await db.fetchval("SELECT count(*) FROM dns_dirty") == 0


async def test_a_crash_after_the_commit_hands_on_twice_and_changes_nothing(db: Connection, tmp_path: Path) -> None:
    spool = Spool(tmp_path, STRICT)
    await asyncio.to_thread(spool.put, entry("compute1", "192.0.2.1"))
    ((_, kept),) = await asyncio.to_thread(spool.entries)
    assert await enqueue_one(db, kept, STRICT)
    gen = await db.fetchval("SELECT gen FROM dns_hosts")
    assert await hand_on(spool, db, STRICT) == 1
    assert await db.fetchval("SELECT gen FROM dns_hosts") == gen


async def test_a_database_that_goes_away_in_between_leaves_the_rest_in_the_spool(dsn: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path, STRICT)
    await asyncio.to_thread(spool.put, entry("compute1", "192.0.2.1"))
    connection = await asyncpg.connect(dsn)
    await connection.close()
    with pytest.raises(asyncpg.InterfaceError):
        await hand_on(spool, connection, STRICT)
    assert len(await asyncio.to_thread(spool.entries)) == 1


def test_only_one_process_hands_on_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, STRICT)
    first, second = spool.lock(), spool.lock()
    assert first is not None
    assert second is None
    os.close(first)
    again = spool.lock()
    assert again is not None
    os.close(again)


def test_what_cannot_be_read_is_set_aside_and_stops_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, STRICT)
    spool.put(entry("compute1", "192.0.2.1"))
    (tmp_path / "0000000000001.000000-x.json").write_text("{half")
    (tmp_path / "0000000000002.000000-y.json").write_text(
        '{"hostname": "a;b", "ip": null, "at": "2026-01-01T00:00:00+00:00"}'
    )
    assert [kept.hostname for _, kept in spool.entries()] == ["compute1"]
    assert len(list(tmp_path.glob("*.bad"))) == 2


def test_the_databases_time_is_estimated_by_its_last_known_offset(tmp_path: Path) -> None:
    spool = Spool(tmp_path, STRICT)
    spool.note_clock(datetime.now(UTC) + timedelta(seconds=100))
    ahead_s = (spool.estimated_now() - datetime.now(UTC)).total_seconds()
    assert 99 < ahead_s < 101


def test_a_spool_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="file"):
        Spool(tmp_path / "file", STRICT).put(entry("compute1", "192.0.2.1"))


def test_a_classic_file_is_read_with_ttl_class_and_case_as_they_come() -> None:
    text = 'server:\n  local-data: "Compute7. 60 IN A 192.0.2.7"\n  local-data: "compute7.x AAAA 2001:db8::7"\n'
    assert parse("compute7.conf", text, STRICT).ips == ("192.0.2.7", "2001:db8::7")
