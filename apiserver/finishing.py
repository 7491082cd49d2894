"""What follows when a container ends: requests are settled, results kept, another attempt made, children ended."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from apiserver import audit
from apiserver.acting import as_system
from apiserver.controller import Draft
from apiserver.operation import Call
from apiserver.priorities import refresh
from apiserver.resolving import new_container
from apiserver.resources.collections import Collections
from apiserver.schema import CONTAINER_REQUESTS
from apiserver.sqltext import Binder, quote
from apiserver.store.queries import load

_QUERIES = load("containers")
Row = Mapping[str, Any]


async def container_finished(call: Call, container: Row) -> None:
    """Settle all that waited for a container; the caller holds Lock.PRIORITIES and the container's row."""
    acting = as_system(call)
    touched = [container["uuid"]]
    successor = ""  # one for all that wait on
    for request in await call.session.rows(_QUERIES["requests_of"], container["uuid"]):
        if container["state"] == "Cancelled" and await _may_retry(acting, request):
            if not successor:
                successor = str((await new_container(acting, container))["uuid"])
                touched.append(successor)
            changes = {"container_uuid": successor, "container_count": request["container_count"] + 1}
            await change_request(acting, request, changes)
        else:
            await finalize(acting, request, container)
    for child in await call.session.rows(_QUERIES["children_of"], container["uuid"]):
        touched += await _end_child(acting, child)
    await refresh(call.session, touched)


async def _may_retry(call: Call, request: Row) -> bool:
    limit = call.settings.containers.max_retry_attempts
    return bool(await call.session.value(_QUERIES["may_retry"], request["uuid"], limit))


async def _end_child(call: Call, child: Row) -> list[str]:
    changes: dict[str, Any] = {"priority": 0}
    if child["container_state"] in (None, "Queued", "Locked"):
        changes["state"] = "Final"
    row = {name: value for name, value in child.items() if name != "container_state"}
    await change_request(call, row, changes)
    return [child["container_uuid"]] if child["container_uuid"] else []


async def finalize(call: Call, request: Row, container: Row) -> None:
    """End a request: keep the container's output and log in the request's project, forget its secrets."""
    changes: dict[str, Any] = {"state": "Final", "secret_mounts": "{}", "runtime_token": None}
    changes["cumulative_cost"] = request["cumulative_cost"] + container["cost"] + container["subrequests_cost"]
    for kind in ("output", "log"):
        if container[kind] is not None:
            uuid = await _keep(call, request, kind, container[kind])
            if uuid is not None:
                changes[f"{kind}_uuid"] = uuid
    await change_request(call, request, changes)


async def _keep(call: Call, request: Row, kind: str, pdh: str) -> str | None:
    """Return the uuid of a new collection with the contents of `pdh`, None when nothing has them."""
    manifest = await call.session.value(
        "SELECT manifest_text FROM collections WHERE portable_data_hash = $1 LIMIT 1", pdh
    )
    if manifest is None:
        return None
    properties = {"type": kind if request["requesting_container_uuid"] is None else "intermediate"}
    properties["container_request"] = request["uuid"]
    name = f"Container {kind} for request {request['uuid']}"
    if kind == "output":
        properties |= json.loads(request["output_properties"])
        name = request["output_name"] or name
    draft = Draft(None, {})
    collections = Collections()
    values = {"owner_uuid": request["owner_uuid"], "name": name, "manifest_text": manifest, "properties": properties}
    call.parameters = {"ensure_unique_name": True}
    collections.assign(call, draft, values)
    if kind == "output" and request["output_ttl"] > 0:
        now = await call.session.value("SELECT clock_timestamp()")
        draft.new["trash_at"] = draft.new["delete_at"] = now + timedelta(seconds=request["output_ttl"])
    await collections.validate(call, draft)
    item = await collections.store(call, draft)
    return str(item["uuid"])


async def change_request(call: Call, old: Row, changes: Mapping[str, Any]) -> Row:
    """Write a request and its log row; the caller has locked it."""
    binder = Binder()
    settings = [
        f"{quote(name)} = {binder.bind(value, CONTAINER_REQUESTS.attributes[name].sql_type)}"
        for name, value in changes.items()
    ]
    row = await call.session.row(
        f"UPDATE container_requests SET {', '.join(settings)}, modified_at = clock_timestamp()"
        f" WHERE uuid = {binder.bind(old['uuid'], 'text')} RETURNING *",
        *binder.values,
    )
    if row is None:
        raise AssertionError("a locked row is gone")
    await audit.record(call, CONTAINER_REQUESTS, old, row)
    return row
