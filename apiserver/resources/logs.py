"""Logs: what happened to which object. The server writes those of changes; clients may write others."""

from typing import Any

from apiserver.controller import Controller, Draft
from apiserver.errors import ForbiddenError
from apiserver.filters import kind_of_uuid
from apiserver.operation import Call
from apiserver.permissions import reachable
from apiserver.schema import LOGS
from apiserver.sqltext import Binder


class Logs(Controller):
    """`logs`. A log is read by who may read its object, the object's owner, or the log's owner."""

    resource = LOGS

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """By permission on any of the three, or on a request of the container that it is about."""
        if call.viewer.is_admin:
            return []
        if not call.viewer.is_active:
            return ["false"]
        users = binder.bind(list(call.viewer.read_users), "text[]")
        targets = f"SELECT target_uuid FROM materialized_permissions WHERE user_uuid = ANY({users})"
        requests = reachable("r.uuid", "r.owner_uuid", call.viewer, binder)
        return [
            f"(t.object_uuid IN ({targets}) OR t.object_owner_uuid IN ({targets} AND traverse_owned)"
            f" OR t.owner_uuid IN ({targets} AND traverse_owned) OR t.object_uuid IN"
            f" (SELECT r.container_uuid FROM container_requests r WHERE {requests}))"
        ]

    async def finish(self, call: Call, item: dict[str, Any]) -> None:
        """Add the kind of the object."""
        select = call.parameters.get("select")
        if not select or "object_kind" in select:
            item["object_kind"] = kind_of_uuid(item.get("object_uuid"))

    async def check_owner(self, call: Call, draft: Draft) -> None:
        """A log belongs to who writes it; only admins change one."""
        if not draft.is_new and not call.viewer.is_admin:
            raise ForbiddenError("logs are changed by admins only")
        if not call.viewer.is_admin or draft.new.get("owner_uuid") is None:
            draft.new["owner_uuid"] = (draft.old or {}).get("owner_uuid") or call.viewer.user_uuid

    async def validate(self, call: Call, draft: Draft) -> None:
        """Write the summary, and the owner that the object has now."""
        new = draft.new
        if draft.is_new and not new.get("summary"):
            new["summary"] = f"{new.get('event_type') or 'event'} of {new.get('object_uuid') or 'nothing'}"
        if new.get("event_at") is None:
            new["event_at"] = (draft.old or {}).get("event_at") or await call.session.value("SELECT clock_timestamp()")

    async def deleting(self, call: Call, draft: Draft) -> None:
        """Only admins delete logs."""
        del draft
        if not call.viewer.is_admin:
            raise ForbiddenError("logs are deleted by admins only")
