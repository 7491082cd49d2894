"""Containers: what dispatchers lock, run and finish. Who may see one is told by the requests for it."""

import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Any

from apiserver.controller import Controller, Draft
from apiserver.errors import ForbiddenError, InvalidError, NotFoundError
from apiserver.finishing import container_finished
from apiserver.lifecycle import FINAL, check_container_state, check_status, container_changeable
from apiserver.names import TOKEN, new_secret, new_uuid, system_user
from apiserver.operation import UUID, Call, Operation, Reply
from apiserver.permissions import reachable
from apiserver.priorities import refresh
from apiserver.schema import CONTAINERS
from apiserver.sqltext import Binder
from apiserver.store.pool import Lock
from apiserver.store.queries import load

_QUERIES = load("containers")
_AUTH = load("auth")
_NO_TREE = frozenset({"cost", "gateway_address", "output_properties", "progress", "runtime_status"})
_NOT_BY_ITSELF = frozenset({"log", "priority", "lock_count", "auth_uuid", "locked_by_uuid"})
_MAKE_AUTH = """INSERT INTO api_client_authorizations (uuid, user_uuid, api_token, scopes) VALUES ($1, $2, $3, $4)"""


class Containers(Controller):
    """`containers`. Written by admins, and while it runs by the container's own token."""

    resource = CONTAINERS

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations, and what a dispatcher and a container itself need."""
        yield from super().operations()
        for name, run in (("lock", self.lock), ("unlock", self.unlock), ("update_priority", self.update_priority)):
            yield Operation("containers", name, "POST", f"containers/{{uuid}}/{name}", run, (UUID,), "Container",
                            write=True, locks=_tree)  # fmt: skip
        for name, run in (("auth", self.auth), ("secret_mounts", self.secret_mounts)):
            yield Operation("containers", name, "GET", f"containers/{{uuid}}/{name}", run, (UUID,), "")
        yield Operation("containers", "current", "GET", "containers/current", self.current, (), "Container")

    def locks(self, parameters: dict[str, Any]) -> tuple[Lock, ...]:
        """A report of progress alone touches no priority."""
        wrapped = parameters.get("container")
        alone = isinstance(wrapped, dict) and wrapped and set(wrapped) <= _NO_TREE
        return () if alone else (Lock.PRIORITIES,)

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """By any readable request for it, and by its own token."""
        if call.viewer.is_admin:
            return []
        if not call.viewer.is_active:
            return ["false"]
        requests = reachable("r.uuid", "r.owner_uuid", call.viewer, binder)
        token = binder.bind(call.viewer.token_uuid, "text")
        return [
            f"(t.auth_uuid = {token} OR EXISTS (SELECT 1 FROM container_requests r"
            f" WHERE r.container_uuid = t.uuid AND {requests}))"
        ]

    def untrashed(self, call: Call, binder: Binder) -> list[str]:
        """Containers are never in the trash."""
        del call, binder
        return []

    async def check_owner(self, call: Call, draft: Draft) -> None:
        """Containers belong to the system user."""
        draft.new["owner_uuid"] = system_user(call.context.cluster)
        itself = draft.old is not None and draft.old["auth_uuid"] == call.viewer.token_uuid
        if not call.viewer.is_admin and not (itself and draft.old is not None and draft.old["state"] == "Running"):
            raise ForbiddenError("containers are changed by dispatchers only")
        if itself and draft.changed(*_NOT_BY_ITSELF):
            raise ForbiddenError("a container cannot change its own log or priority")

    async def validate(self, call: Call, draft: Draft) -> None:
        """Check the change of state, and that only what may change in it does."""
        new, old = draft.new, draft.old or {}
        new.setdefault("state", "Queued")
        check_container_state(old.get("state"), new["state"])
        if draft.old is not None:
            allowed = container_changeable(old["state"], new["state"])
            wrong = [name for name in self.resource.attributes if new[name] != old[name] and name not in allowed]
            if wrong:
                raise InvalidError(f"{wrong[0]} cannot be modified in state {old['state']}")
            if old["state"] == "Locked" and new["state"] != "Locked" and not self._locked_by(call, old):
                raise ForbiddenError("locked by another token")
        if draft.changed("runtime_status"):
            check_status(json.loads(new["runtime_status"]))
        for name, states in (("started_at", ("Running",)), ("finished_at", FINAL)):
            if draft.changed("state") and new["state"] in states and new.get(name) is None:
                new[name] = await call.session.value("SELECT clock_timestamp()")

    def _locked_by(self, call: Call, row: Mapping[str, Any]) -> bool:
        return row["locked_by_uuid"] in (None, call.viewer.token_uuid) or call.viewer.token_uuid == row["auth_uuid"]

    async def stored(self, call: Call, draft: Draft) -> None:
        """End the token of a container that left its lock; settle the requests of one that ended."""
        new, old = draft.new, draft.old or {}
        if draft.changed("state") and old.get("auth_uuid") and new["state"] not in ("Locked", "Running"):
            await call.session.execute(_QUERIES["expire_token"], old["auth_uuid"])
        if draft.old is not None and draft.changed("state") and new["state"] in FINAL:
            await container_finished(call, new)
        elif draft.old is not None and draft.changed("state", "priority"):
            await refresh(call.session, [new["uuid"]])

    async def deleting(self, call: Call, draft: Draft) -> None:
        """Only admins delete."""
        del draft
        if not call.viewer.is_admin:
            raise ForbiddenError("containers are deleted by admins only")

    # -- dispatchers

    async def lock(self, call: Call) -> Reply:
        """Give the container to the calling token, with a token to run it by.

        Raises:
            InvalidError: it is not queued, or nobody wants it any more.
        """
        draft = await self._for_dispatcher(call)
        if draft.new["state"] != "Queued":
            raise InvalidError(f"cannot lock when {draft.new['state']}")
        if draft.new["priority"] <= 0:
            raise InvalidError("cannot lock when priority<=0")
        uuid = new_uuid(call.context.cluster, TOKEN)
        user = draft.new["runtime_user_uuid"] or system_user(call.context.cluster)
        await call.session.execute(_MAKE_AUTH, uuid, user, new_secret(), draft.new["runtime_auth_scopes"])
        draft.new |= {
            "state": "Locked", "locked_by_uuid": call.viewer.token_uuid, "auth_uuid": uuid,
            "lock_count": draft.new["lock_count"] + 1,
        }  # fmt: skip
        return Reply(await self.store(call, draft))

    async def unlock(self, call: Call) -> Reply:
        """Give the container back; after too many attempts it is cancelled."""
        draft = await self._for_dispatcher(call)
        if draft.new["state"] != "Locked":
            raise InvalidError(f"cannot unlock when {draft.new['state']}")
        if not self._locked_by(call, draft.new):
            raise ForbiddenError("locked by another token")
        draft.new |= {"state": "Queued", "locked_by_uuid": None, "auth_uuid": None, "runtime_status": "{}"}
        if draft.new["lock_count"] >= call.settings.containers.max_dispatch_attempts:
            text = {"error": f"Failed to start container. Cancelled after {draft.new['lock_count']} attempts."}
            draft.new |= {"state": "Cancelled", "runtime_status": json.dumps(text)}
            draft.new["finished_at"] = await call.session.value("SELECT clock_timestamp()")
        return Reply(await self.store(call, draft))

    async def _for_dispatcher(self, call: Call) -> Draft:
        if not call.viewer.is_admin:
            raise ForbiddenError("containers are locked by dispatchers only")
        return await self.fetch(call, call.uuid)

    async def update_priority(self, call: Call) -> Reply:
        """Recompute the priority of a container and of what it asked for."""
        if not call.viewer.is_admin:
            raise ForbiddenError
        await self.fetch(call, call.uuid)
        await refresh(call.session, [call.uuid])
        return Reply(await self.shown(call, call.uuid))

    # -- the container itself

    async def auth(self, call: Call) -> Reply:
        """Answer the token to run the container by, to the token that locked it."""
        row = await call.session.row("SELECT * FROM containers WHERE uuid = $1", call.uuid)
        if row is None or not await self.is_readable(call, call.uuid):
            raise NotFoundError(f"Path not found: {call.uuid[:40]}")
        if row["locked_by_uuid"] != call.viewer.token_uuid or row["state"] not in ("Locked", "Running"):
            raise ForbiddenError("not locked by your token")
        secret = await call.session.row(
            "SELECT uuid, user_uuid, api_token, scopes, expires_at FROM api_client_authorizations WHERE uuid = $1",
            row["auth_uuid"],
        )
        if secret is None:
            raise NotFoundError(f"Path not found: {call.uuid[:40]}")
        return Reply({
            "kind": "arvados#apiClientAuthorization", "uuid": secret["uuid"], "owner_uuid": secret["user_uuid"],
            "api_token": secret["api_token"], "scopes": json.loads(secret["scopes"]),
        })  # fmt: skip

    async def secret_mounts(self, call: Call) -> Reply:
        """Answer the secret mounts, to the container's own token alone."""
        row = await call.session.row("SELECT auth_uuid, secret_mounts FROM containers WHERE uuid = $1", call.uuid)
        own = row is not None and row["auth_uuid"] is not None
        if row is None or not own or not hmac.compare_digest(row["auth_uuid"], call.viewer.token_uuid):
            raise ForbiddenError("secret_mounts are for the container itself")
        return Reply({"secret_mounts": json.loads(row["secret_mounts"])})

    async def current(self, call: Call) -> Reply:
        """Answer the container that the calling token was made for."""
        uuid = await call.session.value(_AUTH["current_container"], call.viewer.token_uuid)
        if uuid is None:
            raise NotFoundError("the token does not belong to a container")
        return Reply(await self.shown(call, uuid))


def _tree(parameters: dict[str, Any]) -> tuple[Lock, ...]:
    del parameters
    return (Lock.PRIORITIES,)
