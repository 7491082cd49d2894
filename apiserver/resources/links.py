"""Links: permissions, which are edges of the permission graph, and free annotations of objects."""

from collections.abc import Iterable, Mapping
from typing import Any

from apiserver import audit, permissions
from apiserver.controller import Controller, Draft
from apiserver.errors import ForbiddenError, InvalidError
from apiserver.filters import kind_of_uuid
from apiserver.names import is_uuid, system_user
from apiserver.operation import UUID, Call, Operation, Reply
from apiserver.permissions import LINK_LEVELS, Level, level_expression, reachable, require_reference, target_level
from apiserver.schema import GROUPS, INFIXES, LINKS, USERS
from apiserver.sqltext import Binder
from apiserver.store.pool import Lock

_SAME = """SELECT * FROM links WHERE link_class = 'permission' AND tail_uuid = $1 AND head_uuid = $2
 AND CASE WHEN $3 = 'can_login' THEN name = 'can_login'
          AND coalesce(properties ->> 'username', '') = coalesce($4::jsonb ->> 'username', '')
          ELSE name IN ('can_read', 'can_write', 'can_manage') END FOR NO KEY UPDATE"""


class Links(Controller):
    """`links`. A permission link belongs to the system user; only its level and properties change later."""

    resource = LINKS

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations, and the permissions on one object."""
        yield from super().operations()
        yield Operation("links", "get_permissions", "GET", "permissions/{uuid}", self.get_permissions, (UUID,),
                        "LinkList")  # fmt: skip

    def locks(self, parameters: dict[str, Any]) -> tuple[Lock, ...]:
        """A permission link changes the graph; without the wrapper nothing is known, so the lock is taken."""
        wrapped = parameters.get("link", parameters)
        kind = wrapped.get("link_class") if isinstance(wrapped, dict) else None
        return () if isinstance(kind, str) and kind != "permission" else (Lock.PERMISSIONS,)

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """Also permission links that give to the viewer, or whose head the viewer manages."""
        if call.viewer.is_admin:
            return []
        if not call.viewer.is_active:
            return ["false"]
        found = reachable("t.uuid", "t.owner_uuid", call.viewer, binder)
        users = binder.bind(list(call.viewer.read_users), "text[]")
        managed = reachable("t.head_uuid", None, call.viewer, binder, Level.MANAGE)
        return [f"({found} OR (t.link_class = 'permission' AND (t.tail_uuid = ANY({users}) OR {managed})))"]

    def level(self, viewer: Any, binder: Binder) -> str:
        """A permission link is in the hands of who manages its head."""
        plain = level_expression("t.uuid", "t.owner_uuid", viewer, binder)
        head = level_expression("t.head_uuid", "t.head_uuid", viewer, binder)
        return f"(CASE WHEN t.link_class = 'permission' THEN CASE WHEN {head} >= 3 THEN 3 ELSE 0 END ELSE {plain} END)"

    async def finish(self, call: Call, item: dict[str, Any]) -> None:
        """Add the kinds of head and tail."""
        select = call.parameters.get("select")
        for side in ("head", "tail"):
            if not select or f"{side}_kind" in select:
                item[f"{side}_kind"] = kind_of_uuid(item.get(f"{side}_uuid"))

    async def check_owner(self, call: Call, draft: Draft) -> None:
        """Permission links belong to the system user, and are made by who manages the head."""
        if draft.new.get("link_class") != "permission":
            await super().check_owner(call, draft)
            return
        if not draft.is_new:
            self.require_level(draft, Level.MANAGE)
        draft.new["owner_uuid"] = system_user(call.context.cluster)

    async def validate(self, call: Call, draft: Draft) -> None:
        """Check class, ends and name."""
        new = draft.new
        new["link_class"], new["name"] = new.get("link_class") or "", new.get("name") or ""
        if new["link_class"] == "name":
            raise InvalidError("links of class name are obsolete")
        if not draft.is_new and draft.changed("link_class") and "permission" in (
            new["link_class"], (draft.old or {}).get("link_class"),
        ):  # fmt: skip
            raise InvalidError("link_class cannot be changed to or from permission")
        if new["link_class"] == "permission":
            await self._validate_permission(call, draft)
            return
        if new["link_class"] == "published_port" and not is_uuid(new.get("head_uuid"), "xvhdp"):
            raise InvalidError("head_uuid of a published_port must be a container request")
        for name in ("head_uuid", "tail_uuid"):
            if draft.changed(name) and is_uuid(new.get(name)) and new[name][6:11] in INFIXES:
                await require_reference(call, name, new[name])

    async def _validate_permission(self, call: Call, draft: Draft) -> None:
        new = draft.new
        if new["name"] not in LINK_LEVELS:
            raise InvalidError(f"name {new['name'][:40]!r} is no permission: use {', '.join(LINK_LEVELS)}")
        if not draft.is_new:
            if draft.changed("head_uuid", "tail_uuid"):
                raise InvalidError("head_uuid and tail_uuid of a permission link cannot be changed")
            return
        tail, head = new.get("tail_uuid"), new.get("head_uuid")
        if not is_uuid(tail, USERS.infix) and not is_uuid(tail, GROUPS.infix):
            raise InvalidError("tail_uuid of a permission link must be a user or a role")
        if not is_uuid(head):
            raise InvalidError("head_uuid of a permission link must be an object")
        await require_reference(call, "tail_uuid", tail)
        await require_reference(call, "head_uuid", head)
        if is_uuid(tail, GROUPS.infix) and not await call.session.value(
            "SELECT 1 FROM groups WHERE uuid = $1 AND group_class = 'role'", tail
        ):
            raise InvalidError("tail_uuid of a permission link must be a user or a role")
        if not await self._manages(call, str(head)):
            raise ForbiddenError(f"no permission to give others access to {head}")

    async def _manages(self, call: Call, head: str) -> bool:
        if await target_level(call.session, call.viewer, head) >= Level.MANAGE:
            return True
        resource = INFIXES.get(head[6:11])
        if resource is None or resource.table in ("users", "groups", "api_client_authorizations"):
            return False
        binder = Binder()
        level = level_expression("t.uuid", "t.owner_uuid", call.viewer, binder)
        sql = f"SELECT {level} FROM {resource.table} AS t WHERE t.uuid = {binder.bind(head, 'text')}"
        return int(await call.session.value(sql, *binder.values) or 0) >= Level.MANAGE

    async def create(self, call: Call) -> Reply:
        """Make a link; a permission that is there already is answered instead, raised to the higher level."""
        self.require_active(call)
        draft = Draft(None, {})
        self.assign(call, draft, self.attributes(call))
        await self.prepare(call, draft)
        if draft.new["link_class"] == "permission":
            new = draft.new
            properties = new.get("properties") or "{}"
            same = await call.session.row(_SAME, new["tail_uuid"], new["head_uuid"], new["name"], properties)
            if same is not None:
                merged = Draft(dict(same), dict(same))
                if LINK_LEVELS[new["name"]] > LINK_LEVELS[same["name"]]:
                    merged.new["name"] = new["name"]
                return Reply(await self.store(call, merged))
        return Reply(await self.store(call, draft))

    async def stored(self, call: Call, draft: Draft) -> None:
        """Follow the edge in the permission table."""
        if draft.new["link_class"] == "permission" and draft.changed("name"):
            names = [draft.new["name"], *([draft.old["name"]] if draft.old else [])]
            await self._refresh(call, draft.new, max(LINK_LEVELS[name] for name in names))

    async def remove(self, call: Call, draft: Draft) -> None:
        """Delete the row and follow in the permission table."""
        await call.session.execute("DELETE FROM links WHERE uuid = $1", draft.new["uuid"])
        if draft.new["link_class"] == "permission":
            await self._refresh(call, draft.new, LINK_LEVELS.get(draft.new["name"], 1))
        await audit.record(call, self.resource, draft.old, None)

    async def _refresh(self, call: Call, link: Mapping[str, Any], level: int) -> None:
        await permissions.refresh_edge(call.session, link["head_uuid"], level, [link["tail_uuid"]])

    async def get_permissions(self, call: Call) -> Reply:
        """Answer all permission links whose head is an object that the viewer manages."""
        await require_reference(call, "uuid", call.uuid)
        if not await self._manages(call, call.uuid):
            raise ForbiddenError
        rows = await call.session.rows(
            "SELECT * FROM links WHERE link_class = 'permission' AND head_uuid = $1 ORDER BY id", call.uuid
        )
        items = [self.render({name: row[name] for name in self.resource.visible}) for row in rows]
        for item in items:
            await self.finish(call, item)
        body = {"kind": "arvados#linkList", "etag": "", "self_link": "", "offset": 0, "limit": len(items)}
        return Reply({**body, "items": items, "items_available": len(items)})
