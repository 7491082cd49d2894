"""Log rows of changes, written in the transaction of the change."""

from collections.abc import Mapping
from typing import Any

from apiserver.attributes import Resource, dumps
from apiserver.names import etag_of, new_uuid
from apiserver.operation import Call
from apiserver.schema import LOGS

_NEVER = frozenset({"api_token", "secret_mounts", "runtime_token"})
# Changes to these alone are not worth a row.
_SILENT = {
    "api_client_authorizations": frozenset({"last_used_at", "last_used_by_ip_address", "modified_at"}),
    "nodes": frozenset({"last_ping_at", "modified_at", "modified_by_user_uuid"}),
    "collections": frozenset({"preserve_version", "modified_at", "modified_by_user_uuid"}),
}
_INSERT = """INSERT INTO logs (uuid, owner_uuid, modified_by_user_uuid, object_uuid, object_owner_uuid, event_type,
 summary, properties, event_at) VALUES ($1, $2, $2, $3, $4, $5, $6, $7, coalesce($8, clock_timestamp()))"""

Values = Mapping[str, Any]


async def record(call: Call, resource: Resource, old: Values | None, new: Values | None) -> None:
    """Write the log row of a create (old None), an update, or a delete (new None); nothing when audit is off."""
    if not call.settings.audit_logs.enabled or resource.table == "logs" or _is_silent(resource, old, new):
        return
    subject = new if new is not None else old
    if subject is None:
        raise AssertionError("a change has an old or a new state")
    if old is None:
        event, moment = "create", subject["created_at"]
    elif new is None:
        event, moment = "delete", None
    else:
        event, moment = "update", subject["modified_at"]
    unlogged = _NEVER.union(call.settings.audit_logs.unlogged_attributes)
    properties = {**_state("old", resource, old, unlogged), **_state("new", resource, new, unlogged)}
    owner, uuid = subject.get("owner_uuid") or subject.get("user_uuid"), subject["uuid"]
    await call.session.execute(
        _INSERT, new_uuid(call.context.cluster, LOGS.infix), call.viewer.user_uuid, uuid, owner, event,
        f"{event} of {uuid}", dumps(properties), moment,
    )  # fmt: skip


def _is_silent(resource: Resource, old: Values | None, new: Values | None) -> bool:
    """Whether nothing changed but what is not worth a row."""
    if old is None or new is None:
        return False
    silent = _SILENT.get(resource.table, frozenset())
    return all(old[name] == new[name] or name in silent for name in resource.attributes)


def _state(when: str, resource: Resource, values: Values | None, unlogged: frozenset[str]) -> dict[str, Any]:
    """Return the etag and the attributes that an object had, as clients saw them; nulls when it was not there."""
    if values is None:
        return {f"{when}_etag": None, f"{when}_attributes": None}
    shown = {name: one.to_client(values[name]) for name, one in resource.attributes.items() if name in values}
    etag = etag_of(tuple(shown[name] for name in resource.visible if name in shown))
    logged = {name: value for name, value in shown.items() if name not in unlogged}
    if resource.table == "nodes" and "info" in logged:  # who may read of a node may not ping in its place
        logged["info"] = {name: value for name, value in logged["info"].items() if name != "ping_secret"}
    return {f"{when}_etag": etag, f"{when}_attributes": logged}
