"""Periodic jobs: one run at a time, fenced, and what they do to trash, logs and tokens."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from apiserver.errors import ApiError
from apiserver.jobs import Jobs, Periodic, Run, ask_for, seed
from apiserver.node import prepare
from apiserver.settings import AuditLogs
from apiserver.store.pool import DatabaseSettings, Session, Store
from tests.support.api import STEPS, Client, api_database, api_template, root, running, settings
from tests.support.postgres import postgres_server, until

__all__ = ["api_database", "api_template", "postgres_server", "root"]
pytestmark = pytest.mark.pg


@pytest.fixture
async def store(api_database: str) -> AsyncIterator[Store]:
    async with Store(DatabaseSettings(api_database, pool=6)) as opened:
        yield opened


def _nodes(store: Store, job: Any, *, every_s: float = 3600.0, lease_s: float = 30.0, count: int = 3) -> list[Jobs]:
    return [Jobs(store, {"t": Periodic(job, every_s)}, note=lambda *_: None, lease_s=lease_s) for _ in range(count)]


async def _seed(store: Store, every_s: float = 3600.0) -> None:
    async with store.session() as session:
        await seed(session, {"t": Periodic(_nothing, every_s)})
        await session.execute("CREATE TABLE written (run_no bigint, at timestamptz DEFAULT clock_timestamp())")


async def _nothing(run: Run) -> None:
    del run


async def _write(run: Run) -> int:
    async def work(session: Session) -> int:
        return await session.execute("INSERT INTO written (run_no) VALUES ($1)", run.run_no)

    return await run.batch(work)


async def _numbers(store: Store) -> list[int]:
    async with store.session() as session:
        return [row["run_no"] for row in await session.rows("SELECT run_no FROM written ORDER BY at")]


async def test_of_three_nodes_one_runs_a_due_job_and_the_slot_moves_on(store: Store) -> None:
    await _seed(store)

    async def job(run: Run) -> None:
        await _write(run)
        await asyncio.sleep(0.05)

    ran = await asyncio.gather(*(node.run_one("t") for node in _nodes(store, job)))
    assert sorted(ran) == [False, False, True]
    assert await _numbers(store) == [1]
    assert not any([await node.run_one("t") for node in _nodes(store, job)])


async def _two_runs(store: Store, *, fenced: bool) -> list[int]:
    """Let a run stall between its batches until another takes over, then go on; return who wrote in which order."""
    await _seed(store)
    stalled, resume = asyncio.Event(), asyncio.Event()

    async def slow(run: Run) -> None:
        await _write(run)
        stalled.set()
        await resume.wait()
        if fenced:
            await _write(run)
        else:
            async with run.store.session() as session:
                await session.execute("INSERT INTO written (run_no) VALUES ($1)", run.run_no)

    async def quick(run: Run) -> None:
        await _write(run)

    first, second = _nodes(store, slow, count=1)[0], _nodes(store, quick, count=1)[0]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(first.run_one("t"))
        await stalled.wait()
        async with store.session() as session:  # its lease ends now, not when a busy machine lets it
            await session.execute("UPDATE periodic_job SET lease_until = clock_timestamp() - interval '1 ms'")
        assert await second.run_one("t")
        resume.set()
    return await _numbers(store)


async def test_a_superseded_run_writes_nothing_more(store: Store) -> None:
    assert await _two_runs(store, fenced=True) == [1, 2]


async def test_without_the_fence_a_superseded_run_would_write(store: Store) -> None:
    assert await _two_runs(store, fenced=False) == [1, 2, 1]


async def test_a_failed_run_keeps_its_slot_and_says_why(store: Store) -> None:
    await _seed(store)

    async def job(run: Run) -> None:
        raise ApiError("no luck")

    assert await _nodes(store, job)[0].run_one("t")
    async with store.session() as session:
        row = await session.row("SELECT last_error, next_at <= clock_timestamp() AS due FROM periodic_job "
                                "WHERE name = 't'")  # fmt: skip
    assert row is not None
    assert "no luck" in row["last_error"]
    assert row["due"]


async def test_who_asks_for_a_job_while_it_runs_gets_another_run(store: Store) -> None:
    await _seed(store)

    async def job(run: Run) -> None:
        await _write(run)
        if run.run_no == 1:
            async with store.session() as session:
                await ask_for(session, "t")

    ran = [await node.run_one("t") for node in _nodes(store, job)]
    assert ran == [True, True, False]
    assert await _numbers(store) == [1, 2]


async def test_a_node_starts_while_a_transaction_of_another_is_open(api_database: str, store: Store) -> None:
    await prepare(settings(api_database), STEPS)
    async with store.session() as session, session.transaction():
        for table in ("periodic_job SET run_no = run_no", "users SET prefs = '{}'", "groups SET name = name"):
            await session.execute(f"UPDATE {table}")
        await prepare(settings(api_database), STEPS)  # waiting for a lock would take 5 s and then fail


async def test_the_sweep_marks_and_deletes_what_is_over(root: Client, store: Store) -> None:
    project = await root.post("groups", {"group": {"group_class": "project", "name": "p"}})
    inner = await root.post("groups", {"group": {"group_class": "project", "name": "i", "owner_uuid": project["uuid"]}})
    inside = await root.post("collections", {"collection": {"owner_uuid": inner["uuid"], "name": "c"}})
    due = await root.post("collections", {"collection": {"name": "due"}})
    over = await root.post("collections", {"collection": {"name": "over"}})
    await root.delete(f"groups/{project['uuid']}")
    async with store.session() as session:
        await session.execute("UPDATE collections SET trash_at = clock_timestamp() WHERE uuid = $1", due["uuid"])
        for table, uuid in (("collections", over["uuid"]), ("groups", project["uuid"])):
            await session.execute(
                f"UPDATE {table} SET trash_at = clock_timestamp() - interval '2 s', is_trashed = true,"
                f" delete_at = clock_timestamp() - interval '1 s' WHERE uuid = $1", uuid,
            )  # fmt: skip
    await root.post("/sys/trash_sweep")
    assert (await root.get(f"collections/{due['uuid']}", include_trash=True))["is_trashed"] is True
    for path in (f"collections/{over['uuid']}", f"groups/{project['uuid']}", f"groups/{inner['uuid']}",
                 f"collections/{inside['uuid']}"):  # fmt: skip
        assert (await root.call("GET", path, include_trash=True)).status == 404
    gone = [over["uuid"], project["uuid"], inner["uuid"], inside["uuid"]]
    logs = await root.get("logs", filters=[["object_uuid", "in", gone], ["event_type", "=", "delete"]])
    assert sorted(item["object_uuid"] for item in logs["items"]) == sorted(gone)
    alice = await root.user("alice")
    assert (await alice.call("POST", "/sys/trash_sweep")).status == 403


async def test_old_audit_rows_go_and_nothing_else_does(api_database: str, store: Store) -> None:
    async with store.session() as session:
        await session.execute(
            "INSERT INTO logs (uuid, owner_uuid, event_type, created_at)"
            " SELECT 'zzzzz-57u5n-' || lpad(n::text, 15, '0'),"
            " 'zzzzz-tpzed-000000000000000', CASE WHEN n % 10 = 0 THEN 'file_upload' ELSE 'update' END,"
            " clock_timestamp() - (25000 - n) * interval '1 minute' FROM generate_series(1, 25000) n"
        )
        # 14 days are 20160 minutes: rows up to n = 4840 are older.
    cleaning = settings(api_database, audit_logs=AuditLogs(max_delete_batch=1000))
    await prepare(cleaning, STEPS)
    async with running(cleaning):

        async def done() -> bool:
            async with store.session() as session:
                return bool(await session.value("SELECT finished IS NOT NULL FROM periodic_job WHERE name = "
                                                "'audit_cleanup'"))  # fmt: skip

        await until(done)
    async with store.session() as session:
        rows = await session.rows(
            "SELECT event_type, created_at < clock_timestamp() - interval '336 hours' AS old, count(*) AS n"
            " FROM logs WHERE uuid LIKE 'zzzzz-57u5n-0%' GROUP BY 1, 2"
        )
    counts = {(row["event_type"], row["old"]): row["n"] for row in rows}
    assert ("update", True) not in counts
    assert counts["file_upload", True] == 484
    assert counts["update", False] + counts["file_upload", False] == 25000 - 4840


async def test_expired_tokens_and_old_keys_are_deleted(root: Client, store: Store) -> None:
    alice = await root.user("alice")
    async with store.session() as session:
        await session.execute("UPDATE api_client_authorizations SET expires_at = clock_timestamp() "
                              "WHERE user_uuid = $1", alice.user_uuid)  # fmt: skip
        await session.execute("UPDATE periodic_job SET next_at = clock_timestamp()")

        async def left() -> bool:
            return not await session.value("SELECT count(*) FROM api_client_authorizations WHERE user_uuid = $1",
                                           alice.user_uuid)  # fmt: skip

        assert (await alice.call("GET", "users/current")).status == 401
        await until(left)


async def test_log_rows_of_containers_go_when_their_log_is_kept(root: Client, store: Store) -> None:
    async with store.session() as session:
        for uuid, log, age in (("kept", "x", 40), ("young", "x", 1), ("unsaved", None, 40)):
            await session.execute(
                "INSERT INTO containers (uuid, owner_uuid, state, log, finished_at) VALUES ($1, 'x', 'Complete', $2,"
                " clock_timestamp() - make_interval(days => $3::integer))", uuid, log, age,
            )  # fmt: skip
            for kind in ("stdout", "create"):
                await session.execute("INSERT INTO logs (uuid, owner_uuid, object_uuid, event_type)"
                                      " VALUES ($1, 'x', $2, $3)", f"{uuid} {kind}", uuid, kind)  # fmt: skip
        await session.execute("UPDATE periodic_job SET next_at = clock_timestamp() WHERE name = 'container_logs'")
        left = "SELECT uuid FROM logs WHERE object_uuid IN ('kept', 'young', 'unsaved') ORDER BY uuid"

        async def gone() -> bool:
            return "kept stdout" not in [row["uuid"] for row in await session.rows(left)]

        await until(gone)
        rows = [row["uuid"] for row in await session.rows(left)]
    assert rows == ["kept create", "unsaved create", "unsaved stdout", "young create", "young stdout"]
