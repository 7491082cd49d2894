"""What is done with whole accounts: two become one, many are brought up to date at once."""

from collections.abc import Iterable, Mapping
from typing import Any

from apiserver import audit, permissions
from apiserver.acting import as_system
from apiserver.attributes import Resource
from apiserver.auth import Authenticator, Credentials, Viewer
from apiserver.controller import Draft
from apiserver.errors import ForbiddenError, InvalidError, NotFoundError
from apiserver.names import anonymous_user, is_uuid, system_user
from apiserver.operation import Call, Operation, Parameter, Reply
from apiserver.permissions import LINK_LEVELS, NAMES, require_owner
from apiserver.resources.users import Users
from apiserver.schema import LINKS, RESOURCES, USERS
from apiserver.sqltext import quote
from apiserver.store.pool import Lock, Row
from apiserver.store.queries import load

_QUERIES = load("accounts")
MAX_BATCH = 1000
# Whose `owner_uuid` moves to the new owner. Users belong to the system, log rows keep who made them.
_OWNED = tuple(one for one in RESOURCES if "owner_uuid" in one.attributes and one.table not in ("users", "logs"))
# A page at a time: what one user owns may not fit into memory.
_MOVE = """
WITH page AS (SELECT id, modified_at FROM {table} WHERE owner_uuid = $1 ORDER BY id LIMIT $3 FOR NO KEY UPDATE)
UPDATE {table} AS t SET owner_uuid = $2, modified_at = clock_timestamp() FROM page WHERE t.id = page.id
RETURNING t.*, page.modified_at AS was_modified_at"""
MOVED_AT_ONCE = 200


class Accounts:
    """`users/merge` and `users/batch_update`."""

    def __init__(self) -> None:
        self._users = Users()

    def operations(self) -> Iterable[Operation]:
        """Return both; each may change who may do what."""
        merge = (
            Parameter("new_owner_uuid", "string", True, description="User or project that gets what the old user owns"),
            Parameter("new_user_token", "string", description="A token of the new user; the caller is the old one"),
            Parameter("new_user_uuid", "string", description="Admin only: the new user"),
            Parameter("old_user_uuid", "string", description="Admin only: the old user"),
            Parameter("redirect_to_new_user", "boolean", default="false",
                      description="Give tokens, keys and permissions to the new user and log the old one in as it"),
        )  # fmt: skip
        updates = (Parameter("updates", "object", True, description="Attributes by uuid"),)
        yield Operation("users", "merge", "POST", "users/merge", self.merge, merge, "User", write=True, locks=_locks)
        yield Operation("users", "batch_update", "PUT", "users/batch_update", self.batch_update, updates, "UserList",
                        write=True, locks=_locks)  # fmt: skip

    async def merge(self, call: Call) -> Reply:
        """Give all that one user owns to another, and with `redirect_to_new_user` its tokens and rights too.

        Raises:
            ForbiddenError: the caller may not act for both.
            InvalidError: a parameter is missing or names what does not exist.
        """
        old, new = await self._parties(call)
        if old == new.user_uuid:
            raise InvalidError("a user cannot be merged with itself")
        if old in (system_user(call.context.cluster), anonymous_user(call.context.cluster)):
            raise InvalidError("a user of the system cannot be merged into another")
        owner = call.parameters.get("new_owner_uuid")
        if not is_uuid(owner):
            raise InvalidError("new_owner_uuid must be the uuid of a user or a project")
        if owner == old:
            raise InvalidError("new_owner_uuid must not be the user that is merged")
        call.viewer, asking = new, call.viewer
        await require_owner(call, str(owner))
        call.viewer = asking
        above = await permissions.groups_above(call.session, str(owner))
        if await call.session.value(_QUERIES["any_owned"], above, old):
            raise InvalidError("new_owner_uuid must not be below what the old user owns")
        draft = await self._users.fetch(as_system(call), old)
        for resource in _OWNED:
            while await self._move(call, resource, old, str(owner)):
                continue
        if call.flag("redirect_to_new_user"):
            await self._redirect(call, draft, new.user_uuid)
        await permissions.refresh_all(call.session)
        call.uuid = new.user_uuid
        return Reply(await self._users.shown_to_writer(as_system(call), new.user_uuid))

    async def _move(self, call: Call, resource: Resource, old: str, owner: str) -> int:
        """Give some of what a user owns to another owner, each with its log row; return how many."""
        rows = await call.session.rows(_MOVE.format(table=quote(resource.table)), old, owner, MOVED_AT_ONCE)
        for row in rows:
            new = dict(row)
            before = {**new, "owner_uuid": old, "modified_at": new.pop("was_modified_at")}
            if new.get("current_version_uuid", new["uuid"]) == new["uuid"]:  # past versions follow and are not logged
                await audit.record(call, resource, before, new)
        return len(rows)

    async def _parties(self, call: Call) -> tuple[str, Viewer]:
        """Return the old user, and the new one as a viewer."""
        given = call.parameters
        if not call.viewer.unrestricted:
            raise ForbiddenError("only an unrestricted token may merge users")
        if token := given.get("new_user_token"):
            guard = Authenticator(call.settings)
            new = await guard.viewer(call.session, Credentials((str(token),)), "POST", call.facts.path)
            if not new.unrestricted:
                raise ForbiddenError("new_user_token is not an unrestricted token")
            return call.viewer.user_uuid, new
        if not call.viewer.is_admin:
            raise ForbiddenError("only an admin merges users without new_user_token")
        for name in ("old_user_uuid", "new_user_uuid"):
            if not is_uuid(given.get(name), USERS.infix):
                raise InvalidError(f"{name} must be the uuid of a user")
        row = await call.session.row(_QUERIES["user"], given["new_user_uuid"])
        if row is None:
            raise InvalidError("new_user_uuid does not refer to a user")
        uuid = str(row["uuid"])
        return str(given["old_user_uuid"]), Viewer(uuid, row["is_admin"], row["is_active"], "", ("all",), "", (uuid,))

    async def _redirect(self, call: Call, draft: Draft, new: str) -> None:
        old = str(draft.new["uuid"])
        for link in await call.session.rows(_QUERIES["links"], old):
            await self._move_link(call, link, old, new)
        for query in ("tokens", "keys", "followers"):
            await call.session.execute(_QUERIES[query], old, new)
        await call.session.execute(_QUERIES["redirect"], old, new)
        draft.new |= {"is_admin": False, "username": None, "identity_url": None}
        await self._users.write(as_system(call), draft)
        await audit.record(call, USERS, draft.old, draft.new)

    async def _move_link(self, call: Call, link: Row, old: str, new: str) -> None:
        """Let a link begin or end at the new user; one that is there already keeps the higher level."""
        tail, head = (new if link[side] == old else link[side] for side in ("tail_uuid", "head_uuid"))
        same = None
        if link["link_class"] == "permission":
            same = await call.session.row(_QUERIES["same_link"], tail, head, link["name"], link["properties"])
        if same is not None or tail == head:
            await call.session.execute("DELETE FROM links WHERE uuid = $1", link["uuid"])
            await audit.record(call, LINKS, link, None)
        if same is not None and LINK_LEVELS[link["name"]] > LINK_LEVELS[same["name"]]:
            name = NAMES[LINK_LEVELS[link["name"]]]
            after = await call.session.row(_QUERIES["raise_link"], same["uuid"], name)
            await audit.record(call, LINKS, same, after)
        elif same is None and tail != head:
            after = await call.session.row(_QUERIES["move_link"], link["uuid"], tail, head)
            await audit.record(call, LINKS, link, after)

    async def batch_update(self, call: Call) -> Reply:
        """Change users by their uuids, and make those that are not there; all or nothing.

        Raises:
            ForbiddenError: the caller is no admin.
        """
        if not call.viewer.is_admin:
            raise ForbiddenError("batch_update is for admins only")
        updates = call.parameters.get("updates")
        if not isinstance(updates, dict) or len(updates) > MAX_BATCH:
            raise InvalidError(f"updates must be an object of at most {MAX_BATCH} users: attributes by uuid")
        items = [await self._update(call, uuid, updates[uuid]) for uuid in sorted(updates)]
        return Reply({"kind": "arvados#userList", "items": items})

    async def _update(self, call: Call, uuid: str, attributes: Any) -> Mapping[str, Any]:
        if not is_uuid(uuid, USERS.infix) or not isinstance(attributes, dict):
            raise InvalidError("updates: each key must be the uuid of a user, each value an object of attributes")
        call.uuid = uuid
        call.parameters = {"user": dict(attributes)}
        try:
            return dict((await self._users.update(call)).body)
        except NotFoundError:
            call.parameters = {"user": {**attributes, "uuid": uuid}}
            return dict((await self._users.create(call)).body)


def _locks(parameters: dict[str, Any]) -> tuple[Lock, ...]:
    del parameters
    return (Lock.PERMISSIONS,)
