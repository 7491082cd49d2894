"""Groups: projects, filter groups and roles; their trash, their freezing."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from apiserver import permissions
from apiserver.controller import Draft
from apiserver.errors import ForbiddenError, InvalidError
from apiserver.names import new_uuid, system_user
from apiserver.operation import INCLUDE_TRASH, UNIQUE_NAME, Call, Parameter
from apiserver.permissions import Level, groups_above, level_expression, reachable, require_owner
from apiserver.priorities import refresh_project
from apiserver.resources.trashable import Trashable
from apiserver.schema import GROUPS, LINKS
from apiserver.sqltext import Binder
from apiserver.store.pool import Lock

CLASSES = ("project", "filter", "role")
_ASYNC = (Parameter("async", "boolean", default="false", description="Has no effect: permissions are current at once"),)
_INSERT_MANAGE = """INSERT INTO links (uuid, owner_uuid, link_class, name, tail_uuid, head_uuid, modified_by_user_uuid)
 VALUES ($1, $2, 'permission', 'can_manage', $3, $4, $3) ON CONFLICT DO NOTHING"""


def valid_name(name: str, substitution: str) -> bool:
    """Return whether a project's or collection's name can be a file's name too."""
    return name not in ("", ".", "..") and ("/" not in name or bool(substitution))


class Groups(Trashable):
    """`groups`. Every write takes the permissions lock: groups are nodes of the permission graph."""

    resource = GROUPS
    get_parameters = (INCLUDE_TRASH,)
    list_parameters = (INCLUDE_TRASH,)
    create_parameters = _ASYNC
    update_parameters = (*_ASYNC, UNIQUE_NAME)

    def locks(self, parameters: dict[str, Any]) -> tuple[Lock, ...]:
        """Permissions, and priorities because requests in trashed projects do not count."""
        del parameters
        return (Lock.PERMISSIONS, Lock.PRIORITIES)

    # -- reading

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """By permission on the group itself; roles are visible to all active users if configured so."""
        if call.viewer.is_admin:
            return []
        if not call.viewer.is_active:
            return ["false"]
        found = reachable("t.uuid", None, call.viewer, binder)
        if call.settings.users.role_groups_visible_to_all:
            return [f"({found} OR t.group_class = 'role')"]
        return [found]

    def untrashed(self, call: Call, binder: Binder) -> list[str]:
        """A group is in the trash when it or a project above it is."""
        del binder
        if call.flag("include_trash"):
            return []
        return [
            "NOT EXISTS (SELECT 1 FROM trashed_groups WHERE group_uuid = t.uuid AND trash_at <= statement_timestamp())"
        ]

    def computed(self, call: Call, binder: Binder) -> Mapping[str, Callable[[], str]]:
        """Return the SQL of rights."""
        return {
            "can_write": lambda: f"({self.level(call.viewer, binder)} >= 2 AND NOT is_frozen(t.uuid))",
            "can_manage": lambda: f"({self.level(call.viewer, binder)} >= 3)",
            "writable_by": lambda: "ARRAY[t.owner_uuid]",
        }

    def level(self, viewer: Any, binder: Binder) -> str:
        """The table has a row for the group itself."""
        return level_expression("t.uuid", "t.uuid", viewer, binder)

    # -- writing

    async def check_owner(self, call: Call, draft: Draft) -> None:
        """Roles belong to the system user; moving a role's manager is by links."""
        if draft.new.get("group_class") != "role":
            await self._check_project_owner(call, draft)
            return
        if draft.is_new and not call.viewer.is_admin and not call.settings.users.can_create_role_groups:
            raise ForbiddenError("roles are made by admins only (Users.CanCreateRoleGroups)")
        if not draft.is_new:
            self.require_level(draft, Level.MANAGE)
        draft.new["owner_uuid"] = system_user(call.context.cluster)

    async def _check_project_owner(self, call: Call, draft: Draft) -> None:
        if draft.new.get("owner_uuid") is None:
            draft.new["owner_uuid"] = (draft.old or {}).get("owner_uuid") or call.viewer.user_uuid
        if not draft.is_new:
            unfreezing = draft.changed("frozen_by_uuid") and draft.new["frozen_by_uuid"] is None
            self.require_level(draft, Level.WRITE if not unfreezing else Level.MANAGE)
        if draft.changed("owner_uuid"):
            await require_owner(call, draft.new["owner_uuid"])
            if not draft.is_new and draft.new["uuid"] in await groups_above(call.session, draft.new["owner_uuid"]):
                raise InvalidError("owner_uuid would make a loop: the new owner is inside this project")

    def require_level(self, draft: Draft, level: Level) -> None:
        """A frozen project itself can only be unfrozen."""
        own = (draft.old or {}).get("frozen_by_uuid") is not None
        if own and not draft.changed("frozen_by_uuid"):
            raise ForbiddenError(f"{draft.new['uuid']} is frozen")
        super().require_level(draft, level)

    async def validate(self, call: Call, draft: Draft) -> None:
        """Check class, name, filters, freezing; work out the trash."""
        new = draft.new
        if new.get("group_class") not in CLASSES:
            raise InvalidError(f"group_class must be one of {', '.join(CLASSES)}")
        if not draft.is_new and draft.changed("group_class"):
            raise InvalidError("group_class cannot be changed")
        new["name"] = new.get("name") or ""
        substitution = call.settings.collections.forward_slash_name_substitution
        if new["group_class"] != "role" and not valid_name(new["name"], substitution):
            raise InvalidError(f"name {new['name'][:80]!r} cannot be used: it must be a valid file name")
        if new["group_class"] == "filter":
            _check_filters(json.loads(new.get("properties") or "{}"))
        if draft.changed("frozen_by_uuid"):
            self._check_freeze(call, draft)
        if draft.changed("trash_at", "delete_at"):
            await self.reschedule(call, draft, kept=new["group_class"] != "role")

    def _check_freeze(self, call: Call, draft: Draft) -> None:
        rules, new = call.settings.api, draft.new
        if draft.level < Level.MANAGE:
            raise ForbiddenError("freezing needs manage permission")
        if new["frozen_by_uuid"] is None:
            if rules.unfreeze_project_requires_admin and not call.viewer.is_admin:
                raise ForbiddenError("only an admin can unfreeze a project")
            return
        if new["group_class"] != "project":
            raise InvalidError("only a project can be frozen")
        if new["frozen_by_uuid"] != call.viewer.user_uuid:
            raise InvalidError("frozen_by_uuid can only be set to the current user's uuid")
        if new.get("trash_at") is not None:
            raise InvalidError("a trashed project cannot be frozen")
        if rules.freeze_project_requires_description and not (new.get("description") or "").strip():
            raise InvalidError("frozen_by_uuid cannot be set: the project has no description")
        properties = json.loads(new.get("properties") or "{}")
        for name in rules.freeze_project_requires_properties:
            if not properties.get(name):
                raise InvalidError(f"frozen_by_uuid cannot be set: property {name} is not set")

    async def stored(self, call: Call, draft: Draft) -> None:
        """Follow the group in the permission table and in the table of trashed groups."""
        new, session = draft.new, call.session
        if draft.changed("owner_uuid"):
            tails = [new["owner_uuid"], *([draft.old["owner_uuid"]] if draft.old else [])]
            await permissions.refresh_edge(session, new["uuid"], Level.MANAGE, tails)
        if draft.is_new and new["group_class"] == "role":
            link = new_uuid(call.context.cluster, LINKS.infix)
            user = call.viewer.user_uuid
            await session.execute(_INSERT_MANAGE, link, system_user(call.context.cluster), user, new["uuid"])
            await permissions.refresh_edge(session, new["uuid"], Level.MANAGE, [user])
        if draft.changed("owner_uuid", "trash_at"):
            await permissions.refresh_trash(session, new["uuid"])
            await refresh_project(session, new["uuid"])


def _check_filters(properties: Any) -> None:
    found = properties.get("filters", [])
    if not isinstance(found, list) or not all(isinstance(item, list) and len(item) == 3 for item in found):
        raise InvalidError("properties.filters of a filter group must be an array of [attribute, operator, operand]")
    for item in found:
        if not isinstance(item[0], str | list) or not isinstance(item[1], str):
            raise InvalidError(f"properties.filters: {item!r:.80} is no filter")
