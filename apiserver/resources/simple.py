"""The small resources: workflows, virtual machines, keep services, keys, and the permission table as a list."""

import asyncio
import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml

from apiserver.controller import Controller, Draft
from apiserver.errors import ForbiddenError, InvalidError
from apiserver.filters import Join, compile_filters
from apiserver.filters import Scope as FilterScope
from apiserver.listing import parse_list
from apiserver.operation import LIST, UUID, Call, Operation, Reply
from apiserver.permissions import NAMES, not_found
from apiserver.schema import (
    AUTHORIZED_KEYS,
    COLLECTIONS,
    COMPUTED_PERMISSIONS,
    KEEP_SERVICES,
    VIRTUAL_MACHINES,
    WORKFLOWS,
)  # fmt: skip
from apiserver.sqltext import Binder, all_of, quote

MAX_YAML = 1 << 18  # takes a second to read
_LOGINS = """
SELECT u.username AS own_name, l.properties, l.tail_uuid, vm.uuid AS vm_uuid, vm.hostname, k.public_key,
       k.uuid AS key_uuid
  FROM links l
  JOIN virtual_machines vm ON vm.uuid = l.head_uuid
  JOIN materialized_permissions p ON p.target_uuid = l.tail_uuid AND p.perm_level >= 1
  JOIN users u ON u.uuid = p.user_uuid AND u.is_active
   AND (u.uuid = l.tail_uuid OR substring(l.tail_uuid, 7, 5) = 'j7d0g')
  LEFT JOIN authorized_keys k ON k.authorized_user_uuid = u.uuid
   AND (k.expires_at IS NULL OR k.expires_at > statement_timestamp())
 WHERE l.link_class = 'permission' AND l.name = 'can_login' AND ($1::text IS NULL OR vm.uuid = $1)
 ORDER BY vm.id, l.id, k.id"""


class Workflows(Controller):
    """`workflows`. The definition is YAML; name and description are taken from it when they are not given."""

    resource = WORKFLOWS
    joins = {"collection": Join(COLLECTIONS, "collection.uuid = t.collection_uuid")}  # noqa: RUF012
    references = ("collection_uuid",)

    async def validate(self, call: Call, draft: Draft) -> None:
        """Read the definition."""
        del call
        text = draft.new.get("definition")
        if not draft.changed("definition") or not text:
            return
        document = await asyncio.to_thread(_definition, text)
        if isinstance(document, dict):
            old = draft.old or {}
            for name in ("name", "description"):
                if isinstance(document.get(name), str) and draft.new.get(name) in (None, old.get(name)):
                    draft.new[name] = document[name].strip()


def _definition(text: str) -> Any:
    """Return the document in a workflow's definition; takes long when it is large and no JSON.

    Raises:
        InvalidError: it is not YAML, or too much of it.
    """
    with suppress(ValueError, RecursionError):  # what packs workflows writes JSON
        return json.loads(text)
    if len(text) > MAX_YAML:
        raise InvalidError(f"Definition is larger than {MAX_YAML} characters and not JSON")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InvalidError(f"Definition is not valid yaml: {exc}") from exc


class VirtualMachines(Controller):
    """`virtual_machines`, and who may log in to them."""

    resource = VIRTUAL_MACHINES
    admin_only = True

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations and the lists of logins."""
        yield from super().operations()
        yield Operation("virtual_machines", "logins", "GET", "virtual_machines/{uuid}/logins", self.logins, (UUID,),
                        "")  # fmt: skip
        yield Operation("virtual_machines", "get_all_logins", "GET", "virtual_machines/get_all_logins",
                        self.all_logins, (), "")  # fmt: skip

    async def logins(self, call: Call) -> Reply:
        """Answer who may log in to one machine."""
        if not await self.is_readable(call, call.uuid):
            raise not_found(call.uuid)
        return Reply(_logins(await call.session.rows(_LOGINS, call.uuid)))

    async def all_logins(self, call: Call) -> Reply:
        """Answer who may log in anywhere; for admins."""
        if not call.viewer.is_admin:
            raise ForbiddenError
        return Reply(_logins(await call.session.rows(_LOGINS, None)))


def _logins(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    items = []
    for row in rows:
        properties = json.loads(row["properties"])
        username = properties.get("username") or row["own_name"]
        if not username:
            continue
        items.append({
            "username": username, "hostname": row["hostname"], "groups": properties.get("groups", []),
            "public_key": row["public_key"], "user_uuid": row["tail_uuid"],
            "virtual_machine_uuid": row["vm_uuid"], "authorized_key_uuid": row["key_uuid"],
        })  # fmt: skip
    return {"kind": "arvados#HashList", "items": items}


class KeepServices(Controller):
    """`keep_services`. Everyone may list all."""

    resource = KEEP_SERVICES
    admin_only = True

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations and the list for a client's network."""
        yield from super().operations()
        yield Operation("keep_services", "accessible", "GET", "keep_services/accessible", self.accessible, (),
                        "KeepServiceList", public=True)  # fmt: skip

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """All of them, for all."""
        del call, binder
        return []

    async def accessible(self, call: Call) -> Reply:
        """Answer proxies to clients outside, the others to clients inside."""
        rows = await call.session.rows(
            "SELECT * FROM keep_services WHERE (service_type = 'proxy') = $1::boolean ORDER BY id", call.facts.external
        )
        items = [self.render({name: row[name] for name in self.resource.visible}) for row in rows]
        body = {"kind": "arvados#keepServiceList", "etag": "", "self_link": "", "offset": 0, "limit": len(items)}
        return Reply({**body, "items": items, "items_available": len(items)})


class AuthorizedKeys(Controller):
    """`authorized_keys`: SSH public keys."""

    resource = AUTHORIZED_KEYS

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """Also the keys that log in as the viewer."""
        conditions = super().readable(call, binder)
        if call.viewer.is_admin or not call.viewer.is_active:
            return conditions
        user = binder.bind(call.viewer.user_uuid, "text")
        return [f"({all_of(conditions)} OR t.authorized_user_uuid = {user})"]

    async def validate(self, call: Call, draft: Draft) -> None:
        """Check type, user and key."""
        new = draft.new
        if draft.is_new and new.get("authorized_user_uuid") is None:
            new["authorized_user_uuid"] = call.viewer.user_uuid
        foreign = new["authorized_user_uuid"] != call.viewer.user_uuid and not call.viewer.is_admin
        if draft.changed("authorized_user_uuid") and foreign:
            raise ForbiddenError("a key can be made for oneself only")
        new["key_type"] = new.get("key_type") or "SSH"
        if new["key_type"] != "SSH":
            raise InvalidError("key_type must be SSH")
        if draft.changed("public_key"):
            new["public_key"] = valid_key(new.get("public_key") or "")


def valid_key(text: str) -> str:
    """Return an SSH public key without surrounding space.

    Raises:
        InvalidError: it is not `type base64 [comment]` with a matching type inside.
    """
    words = text.strip().split(None, 2)
    if len(words) < 2:
        raise InvalidError("public_key does not appear to be a valid ssh-rsa or ed25519 public key")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidError("public_key is not valid base64") from exc
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != words[0].encode() or len(blob) <= 4 + length:
        raise InvalidError("public_key does not appear to be a valid ssh-rsa or ed25519 public key")
    return text.strip()


class ComputedPermissions(Controller):
    """`computed_permissions`: the permission table, for admins."""

    resource = COMPUTED_PERMISSIONS

    def operations(self) -> Iterable[Operation]:
        """Return the list alone."""
        parameters = tuple(p for p in LIST if p.name not in ("bypass_federation", "cluster_id", "offset"))
        yield Operation("computed_permissions", "list", "GET", "computed_permissions", self.list, parameters,
                        "ComputedPermissionList")  # fmt: skip

    async def list(self, call: Call) -> Reply:
        """Answer rows of the table; counting and offsets are not offered, it is too large for both."""
        if not call.viewer.is_admin:
            raise ForbiddenError
        if call.parameters.get("count", "none") != "none":
            raise InvalidError("count must be none")
        if call.parameters.get("offset"):
            raise InvalidError("offset is not supported: page by user_uuid and target_uuid")
        call.parameters["count"] = "none"
        query = parse_list(call, self.resource, (("user_uuid", False), ("target_uuid", False)))
        binder = Binder()
        conditions = compile_filters(query.filters, FilterScope(self.resource, "t"), binder)
        level = " ".join(f"WHEN {number} THEN '{name}'" for number, name in NAMES.items())
        names = [name for name in self.resource.visible if query.select is None or name in query.select]
        order = ", ".join(f"t.{quote(name)}{' DESC' if down else ''}" for name, down in query.order)
        rows = await call.session.rows(
            f"SELECT {'DISTINCT ' if query.distinct else ''}{', '.join(f't.{quote(name)}' for name in names)}"
            f" FROM (SELECT user_uuid, target_uuid, CASE perm_level {level} END AS perm_level"
            f" FROM materialized_permissions) AS t WHERE {all_of(conditions)} ORDER BY {order}"
            f" LIMIT {binder.bind(query.limit, 'bigint')}",
            *binder.values,
        )
        items = [{"kind": self.resource.kind, **row} for row in rows]
        body = {"kind": f"{self.resource.kind}List", "etag": "", "self_link": "", "limit": query.limit}
        return Reply({**body, "items": items})
