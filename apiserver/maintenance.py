"""The jobs of a cluster: what goes to the trash, what is deleted, what is recomputed, each in fenced batches."""

import logging
from collections.abc import Mapping
from typing import Any

from apiserver import audit, permissions, priorities
from apiserver.acting import system_viewer
from apiserver.attributes import Resource
from apiserver.jobs import Periodic, Run
from apiserver.operation import Call, Context, RequestFacts
from apiserver.permissions import LINK_LEVELS
from apiserver.schema import (
    AUTHORIZED_KEYS,
    COLLECTIONS,
    CONTAINER_REQUESTS,
    GROUPS,
    KEEP_SERVICES,
    LINKS,
    NODES,
    VIRTUAL_MACHINES,
    WORKFLOWS,
)  # fmt: skip
from apiserver.sqltext import quote
from apiserver.store.pool import Lock, Session
from apiserver.store.queries import load

logger = logging.getLogger(__name__)
_QUERIES = load("jobs")
BATCH = 50
ROWS = 5_000
ID_RANGE = 10_000
_OWNED: tuple[Resource, ...] = (
    COLLECTIONS, CONTAINER_REQUESTS, WORKFLOWS, LINKS, AUTHORIZED_KEYS, KEEP_SERVICES, VIRTUAL_MACHINES, NODES,
)  # fmt: skip


class Maintenance:
    """The jobs, as methods that take a run."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def jobs(self) -> Mapping[str, Periodic]:
        """Return all jobs by name; an interval of 0 in the configuration leaves one out."""
        settings = self._context.settings
        sweep = settings.collections.trash_sweep_interval_s
        found = {
            "permissions": Periodic(self.check_permissions, 3600.0),
            "priorities": Periodic(self.recompute_priorities, 300.0),
            "expired_tokens": Periodic(self.expired_tokens, 300.0),
            "idempotency_keys": Periodic(self.idempotency_keys, 600.0),
        }
        if sweep > 0:
            found["trash_sweep"] = Periodic(self.trash_sweep, sweep)
            found["container_logs"] = Periodic(self.container_logs, max(sweep, 60.0))
        audit_logs = settings.audit_logs
        if audit_logs.max_age_s > 0 and audit_logs.max_delete_batch > 0:
            found["audit_cleanup"] = Periodic(self.audit_cleanup, max(1.0, audit_logs.max_age_s / 14))
        return found

    def _call(self, session: Session) -> Call:
        viewer = system_viewer(self._context.cluster)
        return Call(self._context, session, viewer, {}, RequestFacts())

    async def _until_empty(self, run: Run, query: str, *values: object) -> None:
        """Repeat a deleting statement, `ROWS` at a time."""

        async def work(session: Session) -> int:
            return await session.execute(_QUERIES[query], *values, ROWS)

        while not run.stopping.is_set() and await run.batch(work) >= ROWS:
            continue

    async def expired_tokens(self, run: Run) -> None:
        """Delete tokens and logins that are over; they are refused by their time anyway."""
        await self._until_empty(run, "tokens_delete")
        await self._until_empty(run, "logins_delete")

    async def idempotency_keys(self, run: Run) -> None:
        """Forget keys a day old."""
        await self._until_empty(run, "keys_delete")

    async def container_logs(self, run: Run) -> None:
        """Delete log rows of containers whose log is kept as a collection."""
        await self._until_empty(run, "container_log_delete", self._context.settings.containers.clean_log_rows_after_s)

    async def audit_cleanup(self, run: Run) -> None:
        """Delete old audit rows by ranges of ids, each range once, from where the last run stopped."""
        state = run.cursor
        if state is None:
            state = await self._audit_start(run)
        while state is not None and state["low"] <= state["high"] and not run.stopping.is_set():
            state = await self._audit_batch(run, state)

    async def _audit_start(self, run: Run) -> dict[str, Any] | None:
        found: dict[str, Any] = {}

        async def work(session: Session) -> int:
            age = self._context.settings.audit_logs.max_age_s
            threshold = await session.value(
                "SELECT (clock_timestamp() - make_interval(secs => $1::double precision))::text", age
            )
            row = await session.row(_QUERIES["audit_bounds"].replace("$1", "$1::text::timestamptz"), threshold)
            if row is not None and row["low"] is not None and row["high"] is not None:
                found.update(low=row["low"], high=row["high"] + ID_RANGE, threshold=threshold)
                await run.remember(session, found)
            return 0

        await run.batch(work)
        return found or None

    async def _audit_batch(self, run: Run, state: dict[str, Any]) -> dict[str, Any]:
        after = {**state, "low": state["low"] + ID_RANGE}

        async def work(session: Session) -> int:
            sql = _QUERIES["audit_delete"].replace("$3", "$3::text::timestamptz")
            count = await session.execute(sql, state["low"], after["low"], state["threshold"])
            await run.remember(session, after)
            return count

        await run.batch(work)
        return after

    async def recompute_priorities(self, run: Run) -> None:
        """Recompute every priority; what this changes was wrong."""
        changed = await run.batch(priorities.refresh_all, [Lock.PRIORITIES])
        if changed:
            logger.warning("priorities were wrong", extra={"containers": changed})

    async def check_permissions(self, run: Run) -> None:
        """Recompute the permission table; only what differs is written."""

        async def work(session: Session) -> int:
            await permissions.refresh_all(session)
            return 0

        await run.batch(work, [Lock.PERMISSIONS])

    # -- trash

    async def trash_sweep(self, run: Run) -> None:
        """Mark what went to the trash by its time, delete what is over."""
        for work, locks in (
            (self._mark_collections, ()),
            (self._delete_collections, ()),
            (self._mark_groups, (Lock.PERMISSIONS, Lock.PRIORITIES)),
            (self._delete_groups, (Lock.PERMISSIONS, Lock.PRIORITIES)),
        ):
            while not run.stopping.is_set() and await run.batch(work, locks):
                continue

    async def _mark_collections(self, session: Session) -> int:
        rows = await session.rows(_QUERIES["collections_due"], BATCH)
        for row in rows:
            await session.execute(_QUERIES["mark_collection"], row["uuid"])
        return len(rows)

    async def _delete_collections(self, session: Session) -> int:
        rows = await session.rows(_QUERIES["collections_gone"], BATCH)
        call = self._call(session)
        for row in rows:
            await session.execute("DELETE FROM collections WHERE current_version_uuid = $1", row["uuid"])
            await audit.record(call, COLLECTIONS, row, None)
        return len(rows)

    async def _mark_groups(self, session: Session) -> int:
        rows = await session.rows(_QUERIES["groups_due"], BATCH)
        for row in rows:
            await session.execute(_QUERIES["mark_group"], row["uuid"])
            await permissions.refresh_trash(session, row["uuid"])
            await priorities.refresh_project(session, row["uuid"])
        return len(rows)

    async def _delete_groups(self, session: Session) -> int:
        """Delete one group with all that is in it: all or nothing."""
        rows = await session.rows(_QUERIES["groups_gone"], 1)
        for row in rows:
            await delete_project(self._call(session), row["uuid"])
        return len(rows)


async def delete_project(call: Call, uuid: str) -> None:
    """Delete a group, the projects below it and all they own, with their log rows, in the caller's transaction.

    The caller holds PERMISSIONS and PRIORITIES.
    """
    session = call.session
    for inner in await session.rows(_QUERIES["inside"], uuid):
        for resource in _OWNED:
            table = quote(resource.table)
            for row in await session.rows(f"DELETE FROM {table} WHERE owner_uuid = $1 RETURNING *", inner["uuid"]):
                await audit.record(call, resource, row, None)
        await _delete_group(call, inner["uuid"])


async def _delete_group(call: Call, uuid: str) -> None:
    session = call.session
    for link in await session.rows(_QUERIES["links_of"], uuid):
        if link["link_class"] == "permission":
            level = LINK_LEVELS.get(link["name"], 1)
            await permissions.refresh_edge(session, link["head_uuid"], level, [link["tail_uuid"]])
        await audit.record(call, LINKS, link, None)
    row = await session.row("DELETE FROM groups WHERE uuid = $1 RETURNING *", uuid)
    if row is None:
        return
    await permissions.refresh_edge(session, uuid, 3, [row["owner_uuid"]])
    await permissions.forget_target(session, uuid)
    await session.execute("DELETE FROM trashed_groups WHERE group_uuid = $1", uuid)
    await audit.record(call, GROUPS, row, None)
