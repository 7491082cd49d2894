"""Container requests: what users want to be run, from draft to result."""

import json
from collections.abc import Iterable
from typing import Any

from apiserver import lifecycle
from apiserver.controller import Controller, Draft
from apiserver.errors import ForbiddenError, InvalidError
from apiserver.filters import Join
from apiserver.operation import INCLUDE_TRASH, UNIQUE_NAME, UUID, Call, Operation, Reply
from apiserver.priorities import refresh
from apiserver.resolving import resolve
from apiserver.schema import CONTAINER_REQUESTS, CONTAINERS
from apiserver.store.pool import Lock
from apiserver.store.queries import load

_AUTH = load("auth")
MAX_PRIORITY = 1000


class ContainerRequests(Controller):
    """`container_requests`. Each write takes the priorities lock first: every change may change a tree of them."""

    resource = CONTAINER_REQUESTS
    get_parameters = (INCLUDE_TRASH,)
    list_parameters = (INCLUDE_TRASH,)
    update_parameters = (UNIQUE_NAME,)
    joins = {"container": Join(CONTAINERS, "container.uuid = t.container_uuid")}  # noqa: RUF012

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations and the state of the container."""
        yield from super().operations()
        yield Operation("container_requests", "container_status", "GET", "container_requests/{uuid}/container_status",
                        self.container_status, (UUID,), "")  # fmt: skip

    def locks(self, parameters: dict[str, Any]) -> tuple[Lock, ...]:
        """The tree of priorities."""
        del parameters
        return (Lock.PRIORITIES,)

    async def validate(self, call: Call, draft: Draft) -> None:
        """Check state, attributes and, on commit, completeness; find or make the container."""
        new, old = draft.new, draft.old or {}
        if draft.is_new:
            await self._defaults(call, draft)
        lifecycle.check_request_state(old.get("state"), new["state"])
        if new["state"] == "Final" and old.get("state") != "Final" and not call.viewer.is_admin:
            raise InvalidError("state Final is reached by the container's end only")
        self._check_changes(call, draft)
        committing = new["state"] == "Committed" and old.get("state") != "Committed"
        self._check_values(draft, committing=committing)
        if committing and new.get("container_uuid") is None:
            new["container_uuid"] = await resolve(call, new)
            new["container_count"] = 1

    async def _defaults(self, call: Call, draft: Draft) -> None:
        new = draft.new
        new.setdefault("priority", 0)
        for name, value in (
            ("state", "Uncommitted"), ("cwd", "."), ("output_ttl", 0), ("use_existing", True),
            ("container_count_max", call.settings.containers.max_retry_attempts), ("service", False),
            ("container_count", 0), ("cumulative_cost", 0.0),
        ):  # fmt: skip
            if new.get(name) is None:
                new[name] = value
        for name, attribute in self.resource.attributes.items():
            if attribute.kind.value in "HAJK" and new.get(name) is None:
                new[name] = '["default"]' if name == "output_storage_classes" else attribute.from_client(None)
        for name in (*self.resource.visible, *self.resource.hidden):
            if name not in ("created_at", "modified_at"):
                new.setdefault(name, None)
        new["requesting_container_uuid"] = await call.session.value(_AUTH["current_container"], call.viewer.token_uuid)
        if new.get("container_uuid") is not None and not call.viewer.is_admin:
            raise ForbiddenError("container_uuid is set by the server")

    def _check_changes(self, call: Call, draft: Draft) -> None:
        if draft.old is None:
            return
        allowed = lifecycle.request_changeable(draft.old["state"], draft.new["state"], is_admin=call.viewer.is_admin)
        for name in self.resource.attributes:
            if draft.new[name] != draft.old[name] and name not in allowed:
                raise InvalidError(f"{name} cannot be modified in state {draft.old['state']}")
        if draft.changed("container_uuid") and draft.new["container_uuid"] is not None and not call.viewer.is_admin:
            raise InvalidError("container_uuid can only be changed to null")

    def _check_values(self, draft: Draft, *, committing: bool) -> None:
        new = draft.new
        mounts = json.loads(new["mounts"])
        lifecycle.check_mounts(mounts, new.get("output_path") if committing else None)
        lifecycle.check_mounts(json.loads(new.get("secret_mounts") or "{}"), None)
        lifecycle.check_environment(json.loads(new["environment"]))
        lifecycle.check_constraints(json.loads(new["runtime_constraints"]), commit=committing)
        lifecycle.check_scheduling(json.loads(new["scheduling_parameters"]))
        priority = new.get("priority")
        if priority is None and new["state"] == "Committed":
            raise InvalidError("priority cannot be null when Committed")
        if priority is not None and not 0 <= priority <= MAX_PRIORITY:
            raise InvalidError(f"priority must be between 0 and {MAX_PRIORITY}")
        if new.get("container_count_max") is not None and new["container_count_max"] < 1:
            raise InvalidError("container_count_max must be positive")
        if new["output_ttl"] is None or new["output_ttl"] < 0:
            raise InvalidError("output_ttl must not be negative")
        if committing:
            lifecycle.check_command(json.loads(new["command"]))
            for name in ("container_image", "cwd", "output_path"):
                if not new.get(name):
                    raise InvalidError(f"{name} must be set when Committed")

    async def stored(self, call: Call, draft: Draft) -> None:
        """Bring the priorities of the container before and after up to date."""
        uuids = {row["container_uuid"] for row in (draft.old, draft.new) if row and row["container_uuid"]}
        if uuids and draft.changed("state", "priority", "container_uuid", "owner_uuid"):
            await refresh(call.session, sorted(uuids))

    async def deleted(self, call: Call, draft: Draft) -> None:
        """A request that is gone no longer counts."""
        if draft.new["container_uuid"]:
            await refresh(call.session, [draft.new["container_uuid"]])

    async def container_status(self, call: Call) -> Reply:
        """Answer the state of the container in few words."""
        item = await self.shown(call, call.uuid)
        row = None
        if item["container_uuid"]:
            row = await call.session.row("SELECT uuid, state FROM containers WHERE uuid = $1", item["container_uuid"])
        found = {"uuid": row["uuid"], "container_state": row["state"]} if row else {}
        return Reply({"kind": "arvados#containerStatus", **found})
