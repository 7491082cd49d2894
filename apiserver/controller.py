"""The operations that every resource has, with the hooks by which one differs from another.

A resource is a subclass that overrides hooks; it opens no transaction and commits nothing, the node does that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from apiserver import audit
from apiserver.auth import Viewer
from apiserver.errors import ForbiddenError, InvalidError
from apiserver.listing import parse_select
from apiserver.names import is_uuid, new_uuid
from apiserver.operation import (
    CREATE,
    DELETE,
    GET,
    LIST,
    UPDATE,
    Call,
    Operation,
    Parameter,
    Reply,
    no_locks,
)  # fmt: skip
from apiserver.parameters import attributes_of
from apiserver.permissions import (
    Level,
    level_expression,
    not_found,
    require_owner,
    require_reference,
)  # fmt: skip
from apiserver.reading import Reading
from apiserver.sqltext import Binder, all_of, quote
from apiserver.store.failures import UniqueError
from apiserver.store.pool import Lock

NAME_LENGTH = 237
NAME_TRIES = 3
_KNOWN = frozenset(parameter.name for parameter in (*LIST, *GET, *CREATE, *UPDATE)) | {
    "include_trash", "include_old_versions", "async", "assign_slot", "replace_files", "replace_segments",
}  # fmt: skip


@dataclass(slots=True)
class Draft:
    """A row on its way into the table: what it was (None when new), and what it will be, as column values."""

    old: dict[str, Any] | None
    new: dict[str, Any]
    level: int = Level.MANAGE
    frozen: bool = False

    def changed(self, *names: str) -> bool:
        """Return whether one of the attributes differs from before."""
        old = self.old or {}
        return any(self.new.get(name) != old.get(name) for name in names)

    @property
    def is_new(self) -> bool:
        """Whether the row is being made."""
        return self.old is None


class Controller(Reading):
    """Standard operations over one table."""

    get_parameters: ClassVar[tuple[Parameter, ...]] = ()
    list_parameters: ClassVar[tuple[Parameter, ...]] = ()
    create_parameters: ClassVar[tuple[Parameter, ...]] = ()
    update_parameters: ClassVar[tuple[Parameter, ...]] = ()
    references: ClassVar[tuple[str, ...]] = ()  # attributes that name another object
    admin_only: ClassVar[bool] = False  # create, update, delete

    # -- what the resource offers -------------------------------------------------------------------------------

    def operations(self) -> Iterable[Operation]:
        """Return the operations, standard ones first."""
        r, table, item = self.resource, self.resource.table, f"{self.resource.table}/{{uuid}}"
        name, schema = r.singular, r.class_name
        locks = self.locks
        yield Operation(table, "get", "GET", item, self.get, (*GET, *self.get_parameters), schema)
        yield Operation(table, "list", "GET", table, self.list, (*LIST, *self.list_parameters), f"{schema}List")
        yield Operation(table, "create", "POST", table, self.create, (*CREATE, *self.create_parameters), schema,
                        name, schema, write=True, locks=locks)  # fmt: skip
        yield Operation(table, "update", "PUT", item, self.update, (*UPDATE, *self.update_parameters), schema,
                        name, schema, write=True, locks=locks)  # fmt: skip
        yield Operation(table, "delete", "DELETE", item, self.delete, DELETE, schema, write=True, locks=locks)

    def locks(self, parameters: dict[str, Any]) -> tuple[Lock, ...]:
        """Return the locks that a write of this resource needs."""
        return no_locks(parameters)

    # -- writing ------------------------------------------------------------------------------------------------

    async def create(self, call: Call) -> Reply:
        """Make an object."""
        self.require_active(call)
        return Reply(await self.save(call, Draft(None, {})))

    async def update(self, call: Call) -> Reply:
        """Change an object."""
        self.require_active(call)
        return Reply(await self.save(call, await self.fetch(call, call.uuid)))

    async def save(self, call: Call, draft: Draft) -> dict[str, Any]:
        """Write what the request says of a new or a fetched object; return it as the client sees it."""
        self.assign(call, draft, self.attributes(call))
        await self.prepare(call, draft)
        return await self.store(call, draft)

    async def delete(self, call: Call) -> Reply:
        """Remove an object and answer what it was."""
        self.require_active(call)
        draft = await self.fetch(call, call.uuid)
        self.require_level(draft, Level.WRITE)
        await self.deleting(call, draft)
        await self.remove(call, draft)
        row = {name: value for name, value in (draft.old or {}).items() if name in self.resource.visible}
        return Reply(self.render(row))

    def require_active(self, call: Call) -> None:
        """Raise ForbiddenError unless the viewer may write at all."""
        if not call.viewer.is_active and not call.viewer.is_admin:
            raise ForbiddenError("your account is not active")
        if self.admin_only and not call.viewer.is_admin:
            raise ForbiddenError(f"{self.resource.table} are changed by admins only")

    def require_level(self, draft: Draft, level: Level) -> None:
        """Raise ForbiddenError when the viewer's level on the object is too low, or its project is frozen."""
        if draft.level < level:
            raise ForbiddenError(f"no permission to change {draft.new['uuid']}")
        if draft.frozen:
            raise ForbiddenError(f"{draft.new['uuid']} is in a frozen project")

    def attributes(self, call: Call) -> dict[str, Any]:
        """Return the attributes that the request wants to write.

        Raises:
            InvalidError: one of them is unknown.
        """
        found = attributes_of(call.parameters, self.resource.singular, _KNOWN)
        for name in self.resource.ignored:
            found.pop(name, None)
        unknown = [name for name in found if name not in self.resource.attributes]
        if unknown:
            raise InvalidError(f"unknown attribute '{unknown[0][:80]}' for {self.resource.class_name}")
        return found

    def assign(self, call: Call, draft: Draft, attributes: Mapping[str, Any]) -> None:
        """Put a request's values into the draft.

        Raises:
            InvalidError: a value does not fit.
            ForbiddenError: the uuid, by someone who is no admin.
        """
        for name, value in attributes.items():
            draft.new[name] = self.resource.attributes[name].from_client(value)
        if draft.changed("uuid") and "uuid" in attributes:
            if not is_uuid(draft.new["uuid"], self.resource.infix):
                raise InvalidError(f"uuid {draft.new['uuid']!r} is not one of a {self.resource.class_name}")
            if not call.viewer.is_admin:
                raise ForbiddenError("only an admin can choose a uuid")
        if draft.is_new:
            draft.new.setdefault("uuid", new_uuid(call.context.cluster, self.resource.infix))

    async def prepare(self, call: Call, draft: Draft) -> None:
        """Check permissions and validate; may complete the draft."""
        if "owner_uuid" in self.resource.attributes:
            await self.check_owner(call, draft)
        for name in self.references:
            if draft.changed(name):
                await require_reference(call, name, draft.new.get(name))
        await self.validate(call, draft)

    async def check_owner(self, call: Call, draft: Draft) -> None:
        """Set the default owner; require write permission on the old owner and on a new one."""
        owner = draft.new.get("owner_uuid")
        if owner is None:
            draft.new["owner_uuid"] = (draft.old or {}).get("owner_uuid") or call.viewer.user_uuid
        if not draft.is_new:
            self.require_level(draft, Level.WRITE)
        if draft.changed("owner_uuid"):
            await require_owner(call, draft.new["owner_uuid"])

    async def validate(self, call: Call, draft: Draft) -> None:
        """Raise InvalidError for a draft that breaks a rule of the resource; may complete it."""

    async def stored(self, call: Call, draft: Draft) -> None:
        """Do what follows from a change, after the row is written and before it is logged."""

    async def deleting(self, call: Call, draft: Draft) -> None:
        """Do what must come before a row is removed."""

    async def deleted(self, call: Call, draft: Draft) -> None:
        """Do what follows from a removal."""

    async def fetch(self, call: Call, uuid: str, *, trashed: bool = False) -> Draft:
        """Return a row, locked against other writers until the transaction ends.

        Raises:
            NotFoundError: it is not there, or not for this viewer.
        """
        binder = Binder()
        conditions = [f"t.uuid = {binder.bind(uuid, 'text')}", *self.readable(call, binder)]
        if not trashed:
            conditions += self.untrashed(call, binder)
        level, frozen = self.level(call.viewer, binder), self.frozen()
        row = await call.session.row(
            f"SELECT t.*, {level} AS my_level, {frozen} AS in_frozen FROM {quote(self.resource.table)} AS t"
            f" WHERE {all_of(conditions)} FOR NO KEY UPDATE OF t",
            *binder.values,
        )
        if row is None:
            raise not_found(uuid)
        values = dict(row)
        level_found, in_frozen = values.pop("my_level"), values.pop("in_frozen")
        return Draft(values, dict(values), int(level_found), bool(in_frozen))

    def level(self, viewer: Viewer, binder: Binder) -> str:
        """Return the SQL of the viewer's level on a row `t`."""
        return level_expression("t.uuid", "t.owner_uuid", viewer, binder)

    def frozen(self) -> str:
        """Return the SQL of whether a row `t` is below a frozen project."""
        return "is_frozen(t.owner_uuid)"

    async def store(self, call: Call, draft: Draft) -> dict[str, Any]:
        """Write a prepared draft with its log row; return the object as the client sees it."""
        await self.write(call, draft)
        await self.stored(call, draft)
        await audit.record(call, self.resource, draft.old, draft.new)
        return await self.reply(call, draft)

    async def reply(self, call: Call, draft: Draft) -> dict[str, Any]:
        """Return the stored object as the client sees it."""
        select = parse_select(call.parameters.get("select"), self.resource)
        if not self.computed(call, Binder()) and not self.allowed(call):
            names = self.resource.visible if select is None else [n for n in self.resource.visible if n in select]
            item = self.render({name: draft.new[name] for name in names})
            await self.finish(call, item)
            return item
        return await self.shown_to_writer(call, draft.new["uuid"])

    async def write(self, call: Call, draft: Draft) -> None:
        """Insert or update the row; `draft.new` becomes what is stored.

        Raises:
            UniqueError: another row has a value that must be unique.
        """
        if not call.flag("ensure_unique_name"):
            await self._write_once(call, draft)
            return
        name = draft.new.get("name")
        for attempt in range(NAME_TRIES):
            try:
                async with call.session.savepoint():
                    await self._write_once(call, draft)
                return
            except UniqueError as exc:
                if not exc.constraint.endswith("_owner_name") or attempt == NAME_TRIES - 1:
                    raise
                if draft.is_new:
                    draft.new["uuid"] = new_uuid(call.context.cluster, self.resource.infix)
                    self.renamed(draft)
                suffix = draft.new["uuid"][-15:] if attempt == 0 else new_uuid(call.context.cluster, "")[-15:]
                draft.new["name"] = f"{(name or '')[:NAME_LENGTH]} ({suffix})"

    def renamed(self, draft: Draft) -> None:
        """Follow a uuid that was chosen anew."""

    async def _write_once(self, call: Call, draft: Draft) -> None:
        row = await (self._insert(call, draft) if draft.is_new else self._update(call, draft))
        draft.new = dict(row)

    async def _insert(self, call: Call, draft: Draft) -> Mapping[str, Any]:
        binder = Binder()
        values = dict(draft.new)
        if "modified_by_user_uuid" in self.resource.attributes:
            values["modified_by_user_uuid"] = call.viewer.user_uuid
        names = [name for name, value in values.items() if value is not None]  # the column's default otherwise
        placeholders = [binder.bind(values[name], self._type(name)) for name in names]
        sql = (
            f"INSERT INTO {quote(self.resource.table)} ({', '.join(map(quote, names))})"
            f" VALUES ({', '.join(placeholders)}) RETURNING *"
        )
        row = await call.session.row(sql, *binder.values)
        if row is None:
            raise AssertionError("INSERT ... RETURNING gave no row")
        return row

    async def _update(self, call: Call, draft: Draft) -> Mapping[str, Any]:
        old = draft.old or {}
        changes = {name: value for name, value in draft.new.items() if value != old.get(name)}
        if not changes:
            return old
        if "modified_by_user_uuid" in self.resource.attributes:
            changes["modified_by_user_uuid"] = call.viewer.user_uuid
        binder = Binder()
        settings = [f"{quote(name)} = {binder.bind(value, self._type(name))}" for name, value in changes.items()]
        if "modified_at" in old and "modified_at" not in changes:
            settings.append("modified_at = clock_timestamp()")
        sql = (
            f"UPDATE {quote(self.resource.table)} SET {', '.join(settings)}"
            f" WHERE uuid = {binder.bind(old['uuid'], 'text')} RETURNING *"
        )
        row = await call.session.row(sql, *binder.values)
        if row is None:
            raise AssertionError("a locked row is gone")
        return row

    def _type(self, name: str) -> str:
        attribute = self.resource.attributes.get(name)
        return attribute.sql_type if attribute else self.extra_types.get(name, "text")

    extra_types: ClassVar[Mapping[str, str]] = {}  # columns that are no attributes

    async def remove(self, call: Call, draft: Draft) -> None:
        """Delete the row, with its log row."""
        await call.session.execute(f"DELETE FROM {quote(self.resource.table)} WHERE uuid = $1", draft.new["uuid"])
        await self.deleted(call, draft)
        await audit.record(call, self.resource, draft.old, None)
