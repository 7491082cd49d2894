"""Users: profiles, activation, setup and unsetup."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from apiserver import permissions
from apiserver.controller import Controller, Draft
from apiserver.errors import ForbiddenError, InvalidError, NotFoundError
from apiserver.names import all_users_group, is_uuid, new_uuid, system_group, system_user
from apiserver.operation import BYPASS, UUID, Call, Operation, Parameter, Reply
from apiserver.permissions import Level, level_expression, reachable
from apiserver.schema import LINKS, USERS
from apiserver.sqltext import Binder
from apiserver.store.pool import Lock

_USERNAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_FOR_OTHERS = frozenset({
    "uuid", "is_active", "is_admin", "is_invited", "email", "first_name", "last_name", "username", "can_write",
    "can_manage", "full_name",
})  # fmt: skip
_SETUP_LINKS = "SELECT uuid, tail_uuid, head_uuid, name FROM links WHERE link_class = 'permission' AND "
_UPSERT_LINK = """INSERT INTO links (uuid, owner_uuid, link_class, name, tail_uuid, head_uuid, properties,
 modified_by_user_uuid) VALUES ($1, $2, 'permission', $3, $4, $5, $6::jsonb, $7) ON CONFLICT DO NOTHING RETURNING *"""


class Users(Controller):
    """`users`. Everyone sees itself; others by permission, and then only what identifies them."""

    resource = USERS
    update_parameters = (BYPASS,)

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations, and what is done with accounts."""
        yield from super().operations()
        yield Operation("users", "current", "GET", "users/current", self.current, (), "User")
        yield Operation("users", "system", "GET", "users/system", self.system, (), "User")
        yield Operation("users", "activate", "POST", "users/{uuid}/activate", self.activate, (UUID,), "User",
                        write=True)  # fmt: skip
        setup = (
            Parameter("uuid", "string"), Parameter("user", "object"), Parameter("repo_name", "string"),
            Parameter("vm_uuid", "string"), Parameter("send_notification_email", "boolean", default="false"),
        )  # fmt: skip
        yield Operation("users", "setup", "POST", "users/setup", self.setup, setup, "User", write=True, locks=_locks)
        yield Operation("users", "unsetup", "POST", "users/{uuid}/unsetup", self.unsetup, (UUID,), "User",
                        write=True, locks=_locks)  # fmt: skip

    def locks(self, parameters: dict[str, Any]) -> tuple[Lock, ...]:
        """A new, removed or newly active user changes who may do what."""
        return _locks(parameters)

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """Hide merged users; an inactive viewer sees only itself."""
        conditions = ["t.redirect_to_user_uuid IS NULL"]
        if not call.viewer.is_admin:
            if call.viewer.is_active:
                conditions.append(reachable("t.uuid", None, call.viewer, binder))
            else:
                conditions.append(f"t.uuid = {binder.bind(call.viewer.user_uuid, 'text')}")
        return conditions

    def untrashed(self, call: Call, binder: Binder) -> list[str]:
        """Users are never in the trash."""
        del call, binder
        return []

    def allowed(self, call: Call) -> frozenset[str] | None:
        """Show a non-admin only what identifies others; its own object is completed by `finish`."""
        if call.viewer.is_admin or call.uuid == call.viewer.user_uuid:
            return None
        return _FOR_OTHERS

    def level(self, viewer: Any, binder: Binder) -> str:
        """A user's owner is the system user and gives nobody a level."""
        return level_expression("t.uuid", "t.uuid", viewer, binder)

    def frozen(self) -> str:
        """A user is in no project."""
        return "false"

    def computed(self, call: Call, binder: Binder) -> Mapping[str, Callable[[], str]]:
        """Return the SQL of names and rights."""

        def level() -> str:
            return level_expression("t.uuid", "t.uuid", call.viewer, binder)

        def is_invited() -> str:
            everyone = binder.bind(all_users_group(call.context.cluster), "text")
            return (
                "(t.is_active OR EXISTS (SELECT 1 FROM materialized_permissions m"
                f" WHERE m.user_uuid = t.uuid AND m.target_uuid = {everyone}))"
            )

        return {
            "full_name": lambda: "btrim(coalesce(t.first_name, '') || ' ' || coalesce(t.last_name, ''))",
            "is_invited": is_invited,
            "can_write": lambda: f"({level()} >= 2)",
            "can_manage": lambda: f"({level()} >= 3)",
            "writable_by": lambda: "ARRAY[t.owner_uuid, t.uuid]",
        }

    async def current(self, call: Call) -> Reply:
        """Answer the user of the token."""
        call.uuid = call.viewer.user_uuid
        return Reply(await self.shown_to_writer(call, call.uuid))

    async def system(self, call: Call) -> Reply:
        """Answer the system user."""
        call.uuid = system_user(call.context.cluster)
        return Reply(await self.shown_to_writer(call, call.uuid))

    async def activate(self, call: Call) -> Reply:
        """Make an invited user active."""
        if call.uuid != call.viewer.user_uuid and not call.viewer.is_admin:
            raise ForbiddenError("only an admin activates others")
        draft = await self.fetch(call, call.uuid)
        if draft.new["is_active"]:
            return Reply(await self.shown_to_writer(call, call.uuid))
        everyone = all_users_group(call.context.cluster)
        sql = "SELECT 1 FROM materialized_permissions WHERE user_uuid = $1 AND target_uuid = $2"
        if not await call.session.value(sql, call.uuid, everyone):
            raise InvalidError("Cannot activate without being invited.")
        draft.new["is_active"] = True
        return Reply(await self.store(call, draft))

    def assign(self, call: Call, draft: Draft, attributes: Mapping[str, Any]) -> None:
        """A non-admin's change of is_active or is_admin is undone without an error."""
        if not call.viewer.is_admin:
            attributes = {name: v for name, v in attributes.items() if name not in ("is_active", "is_admin")}
        super().assign(call, draft, attributes)

    async def check_owner(self, call: Call, draft: Draft) -> None:
        """Users belong to the system user; only admins make them."""
        if draft.is_new and not call.viewer.is_admin:
            raise ForbiddenError("users are made by admins only")
        if not draft.is_new:
            self.require_level(draft, Level.MANAGE)
        draft.new["owner_uuid"] = system_user(call.context.cluster)

    async def validate(self, call: Call, draft: Draft) -> None:
        """Check the user name and what only an admin may change; apply the rules for new users."""
        new = draft.new
        if draft.is_new:
            rules = call.settings.users
            new.setdefault("is_active", rules.new_users_are_active)
            if not new.get("username"):
                new["username"] = await self._free_username(call, new.get("email") or "")
            if rules.auto_admin_first_user and not await call.session.value(
                "SELECT 1 FROM users WHERE is_admin AND uuid <> $1", system_user(call.context.cluster)
            ):
                new["is_admin"] = new["is_active"] = True
        elif draft.changed("username", "email", "identity_url") and not call.viewer.is_admin:
            raise ForbiddenError("username, email and identity_url are changed by admins only")
        for name in ("is_admin", "is_active"):
            new[name] = bool(new.get(name))
        if new.get("username") is not None and not _USERNAME.fullmatch(new["username"]):
            raise InvalidError("username must begin with a letter and contain only letters and digits")
        if new["is_admin"] and not new["is_active"]:
            raise InvalidError("an inactive user cannot be an admin")

    async def _free_username(self, call: Call, email: str) -> str | None:
        base = re.sub(r"[^A-Za-z0-9]", "", re.sub(r"^[^A-Za-z]+", "", email.partition("@")[0].partition("+")[0]))
        if not base:
            return None
        rows = await call.session.rows("SELECT username FROM users WHERE username ~ ('^' || $1 || '[0-9]*$')", base)
        taken = {row["username"] for row in rows}
        return next(name for name in (base, *(f"{base}{n}" for n in range(2, len(taken) + 3))) if name not in taken)

    async def stored(self, call: Call, draft: Draft) -> None:
        """Let a new user manage itself; set it up when the configuration says so."""
        if draft.is_new:
            await permissions.add_user(call.session, draft.new["uuid"])
            await self.link(call, system_group(call.context.cluster), "can_manage", draft.new["uuid"])
        invited = draft.new["is_active"] and (draft.old is None or not draft.old["is_active"])
        if invited or (draft.is_new and call.settings.users.auto_setup_new_users):
            await self._invite(call, draft.new["uuid"])

    async def _invite(self, call: Call, uuid: str) -> None:
        everyone = all_users_group(call.context.cluster)
        await self.link(call, uuid, "can_write", everyone)
        await self.link(call, everyone, "can_read", uuid)

    async def link(
        self, call: Call, tail: str, name: str, head: str, properties: str = "{}"
    ) -> Mapping[str, Any] | None:
        """Make a permission link if it is not there, as the system user; return the new one."""
        cluster = call.context.cluster
        row = await call.session.row(
            _UPSERT_LINK, new_uuid(cluster, LINKS.infix), system_user(cluster), name, tail, head, properties,
            call.viewer.user_uuid,
        )  # fmt: skip
        if row is not None:
            await permissions.refresh_edge(call.session, head, permissions.LINK_LEVELS[name], [tail])
        return row

    async def setup(self, call: Call) -> Reply:
        """Let a user in: make it if asked to, link it to all users, and to a virtual machine."""
        if not call.viewer.is_admin:
            raise ForbiddenError("setup is for admins only")
        uuid, wanted = call.parameters.get("uuid"), call.parameters.get("user")
        if uuid is None and not isinstance(wanted, dict):
            raise InvalidError("Required uuid or user")
        if uuid is not None and not is_uuid(uuid, USERS.infix):
            raise NotFoundError("No user found for this uuid")
        if uuid is None:
            call.parameters["user"] = wanted
            uuid = (await self.save(call, Draft(None, {})))["uuid"]
        await self.fetch(call, uuid)
        await self._invite(call, uuid)
        if vm := call.parameters.get("vm_uuid"):
            if not await call.session.value("SELECT 1 FROM virtual_machines WHERE uuid = $1", vm):
                raise InvalidError(f"No virtual machine found for {vm}")
            username = await call.session.value("SELECT coalesce(username, '') FROM users WHERE uuid = $1", uuid)
            await self.link(call, uuid, "can_login", vm, f'{{"username":"{username}"}}')
        rows = await call.session.rows(f"{_SETUP_LINKS} (tail_uuid = $1 OR head_uuid = $1) ORDER BY id", uuid)
        items = [{"kind": "arvados#link", "link_class": "permission", **row} for row in rows]
        user = await self.shown_to_writer(call, uuid)
        return Reply({"kind": "arvados#HashList", "items": [*items, user]})

    async def unsetup(self, call: Call) -> Reply:
        """Take from a user all that setup and others gave: links, tokens, activity."""
        if not call.viewer.is_admin:
            raise ForbiddenError("unsetup is for admins only")
        draft = await self.fetch(call, call.uuid)
        keep = system_group(call.context.cluster)
        rows = await call.session.rows(
            "DELETE FROM links WHERE link_class = 'permission' AND (tail_uuid = $1 OR head_uuid = $1)"
            " AND tail_uuid <> $2 RETURNING tail_uuid, head_uuid, name",
            call.uuid, keep,
        )  # fmt: skip
        for row in rows:
            level = permissions.LINK_LEVELS.get(row["name"], 1)
            await permissions.refresh_edge(call.session, row["head_uuid"], level, [row["tail_uuid"]])
        await call.session.execute("DELETE FROM links WHERE link_class = 'signature' AND tail_uuid = $1", call.uuid)
        await call.session.execute(
            "UPDATE api_client_authorizations SET expires_at = clock_timestamp()"
            " WHERE user_uuid = $1 AND (expires_at IS NULL OR expires_at > clock_timestamp())",
            call.uuid,
        )
        draft.new["is_active"] = draft.new["is_admin"] = False
        return Reply(await self.store(call, draft))

    async def delete(self, call: Call) -> Reply:
        """Only admins remove users."""
        if not call.viewer.is_admin:
            raise ForbiddenError("users are removed by admins only")
        return await super().delete(call)

    async def deleted(self, call: Call, draft: Draft) -> None:
        """Remove the links from and to the user, and what the table knew of it."""
        uuid = draft.new["uuid"]
        await call.session.execute(
            "DELETE FROM links WHERE link_class = 'permission' AND (tail_uuid = $1 OR head_uuid = $1)", uuid
        )
        await permissions.refresh_all(call.session)
        await permissions.forget_target(call.session, uuid)


def _locks(parameters: dict[str, Any]) -> tuple[Lock, ...]:
    del parameters
    return (Lock.PERMISSIONS,)
