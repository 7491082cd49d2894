"""From a committed request to the container that does it: one that does the same already, or a new one."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from apiserver import audit
from apiserver.attributes import dumps
from apiserver.errors import InvalidError
from apiserver.names import PDH, is_uuid, new_uuid, system_user
from apiserver.operation import Call
from apiserver.permissions import reachable
from apiserver.schema import COLLECTIONS, CONTAINERS
from apiserver.sqltext import Binder, all_of, quote
from apiserver.store.queries import load

_QUERIES = load("containers")
Row = Mapping[str, Any]
_COPIED = (
    "command", "cwd", "environment", "output_path", "output_glob", "container_image", "mounts", "runtime_constraints",
    "scheduling_parameters", "secret_mounts", "secret_mounts_md5", "runtime_user_uuid", "runtime_auth_scopes",
    "runtime_token", "output_storage_classes", "service", "published_ports",
)  # fmt: skip


async def resolve(call: Call, request: Row) -> str:
    """Return the uuid of a container for a request that is being committed; its row is locked.

    Raises:
        InvalidError: the image or a mounted collection is not there for the viewer.
    """
    wanted = await _wanted(call, request)
    if request["use_existing"]:
        found = await call.session.row(
            _QUERIES["reusable"], wanted["command"], wanted["cwd"], wanted["environment"], wanted["output_path"],
            wanted["container_image"], wanted["mounts"], wanted["runtime_constraints"], wanted["secret_mounts_md5"],
            wanted["output_glob"], wanted["service"],
        )  # fmt: skip
        if found is not None:
            return str(found["uuid"])
    return str((await new_container(call, wanted))["uuid"])


async def new_container(call: Call, like: Row) -> Row:
    """Make a queued container that does what `like` does; return its row."""
    binder = Binder()
    values = {name: like[name] for name in _COPIED}
    values |= {
        "uuid": new_uuid(call.context.cluster, CONTAINERS.infix),
        "owner_uuid": system_user(call.context.cluster),
    }
    values |= {"modified_by_user_uuid": call.viewer.user_uuid, "state": "Queued"}
    placeholders = [binder.bind(value, _type(name)) for name, value in values.items()]
    row = await call.session.row(
        f"INSERT INTO containers ({', '.join(map(quote, values))}) VALUES ({', '.join(placeholders)}) RETURNING *",
        *binder.values,
    )
    if row is None:
        raise AssertionError("INSERT ... RETURNING gave no row")
    await audit.record(call, CONTAINERS, None, row)
    return row


def _type(name: str) -> str:
    attribute = CONTAINERS.attributes.get(name)
    return attribute.sql_type if attribute else "text"


async def _wanted(call: Call, request: Row) -> dict[str, Any]:
    """Return the attributes of the container that a request asks for, names resolved to hashes."""
    constraints = json.loads(request["runtime_constraints"])
    constraints.setdefault("API", False)
    constraints.setdefault("keep_cache_ram", call.settings.containers.default_keep_cache_ram)
    constraints.setdefault("keep_cache_disk", 0)
    secrets = json.dumps(json.loads(request["secret_mounts"] or "{}"), sort_keys=True, separators=(",", ":"))
    return {
        "command": request["command"],
        "cwd": request["cwd"],
        "environment": request["environment"],
        "output_path": request["output_path"],
        "output_glob": request["output_glob"],
        "container_image": await image_hash(call, request["container_image"]),
        "mounts": dumps(await _mounts(call, json.loads(request["mounts"]))),
        "runtime_constraints": dumps(constraints),
        "scheduling_parameters": request["scheduling_parameters"],
        "secret_mounts": request["secret_mounts"],
        "secret_mounts_md5": hashlib.md5(secrets.encode(), usedforsecurity=False).hexdigest(),
        "runtime_user_uuid": call.viewer.user_uuid,
        "runtime_auth_scopes": '["all"]',
        "runtime_token": request["runtime_token"],
        "output_storage_classes": request["output_storage_classes"],
        "service": request["service"],
        "published_ports": request["published_ports"],
    }


async def image_hash(call: Call, image: str) -> str:
    """Return the portable data hash of a docker image given by hash, by collection uuid, or by `repo:tag`."""
    if not PDH.fullmatch(image) and not is_uuid(image, COLLECTIONS.infix):
        name = image if ":" in image else f"{image}:latest"
        found = await call.session.value(_QUERIES["image_by_name"], name)
        if found is None:
            raise InvalidError(f"container_image: no image {image[:80]!r} was found")
        image = str(found)
    return await _readable_hash(call, image, f"container_image {image}")


async def _mounts(call: Call, mounts: dict[str, Any]) -> dict[str, Any]:
    for target, mount in mounts.items():
        if mount.get("kind") != "collection":
            continue
        wanted = mount.pop("uuid", None) or mount.get("portable_data_hash")
        if wanted is not None:
            mount["portable_data_hash"] = await _readable_hash(call, str(wanted), f"mounts: {target}: {wanted}")
    return mounts


async def _readable_hash(call: Call, wanted: str, what: str) -> str:
    binder = Binder()
    column = "uuid" if is_uuid(wanted, COLLECTIONS.infix) else "portable_data_hash"
    conditions = [f"t.{column} = {binder.bind(wanted, 'text')}", "NOT t.is_trashed"]
    if not call.viewer.is_admin:
        conditions.append(reachable("t.uuid", "t.owner_uuid", call.viewer, binder))
    found = await call.session.value(
        f"SELECT t.portable_data_hash FROM collections AS t WHERE {all_of(conditions)} LIMIT 1", *binder.values
    )
    if found is None:
        raise InvalidError(f"{what[:120]} does not exist or is not readable")
    return str(found)
