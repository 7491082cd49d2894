"""Reading one resource: lists and single objects, through permissions and trash."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from apiserver.attributes import Resource
from apiserver.filters import Join
from apiserver.listing import (
    AVAILABLE,
    ListQuery,
    Source,
    build,
    build_counted,
    columns_of,
    envelope,
    fitting,
    parse_list,
    parse_select,
    select_list,
    sizes,
    told,
    total,
)  # fmt: skip
from apiserver.names import etag_of
from apiserver.operation import Call, Reply
from apiserver.permissions import not_found, owner_not_trashed, reachable
from apiserver.sqltext import Binder, all_of, quote

Decode = Callable[[Any], Any]
Conditions = Callable[[Binder], list[str]]


class Reading:
    """The reading half of a resource, with the hooks by which one differs from another."""

    resource: ClassVar[Resource]
    default_order: ClassVar[tuple[tuple[str, bool], ...]] = (("modified_at", True), ("uuid", True))
    joins: ClassVar[Mapping[str, Join]] = {}

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """Return the conditions under which the viewer may know of a row `t`."""
        if call.viewer.is_admin:
            return []
        if not call.viewer.is_active:
            return ["false"]
        return [reachable("t.uuid", "t.owner_uuid", call.viewer, binder)]

    def untrashed(self, call: Call, binder: Binder) -> list[str]:
        """Return the conditions under which a row `t` is not in the trash."""
        del binder
        return [] if call.flag("include_trash") else [owner_not_trashed("t.owner_uuid")]

    def also(self, call: Call, binder: Binder) -> list[str]:
        """Return further conditions of a list."""
        del call, binder
        return []

    def computed(self, call: Call, binder: Binder) -> Mapping[str, Callable[[], str]]:
        """Return by name what makes the SQL of computed attributes; only what is called may bind parameters."""
        del call, binder
        return {}

    def allowed(self, call: Call) -> frozenset[str] | None:
        """Return the attributes that the viewer may see of others' objects, None for all."""
        del call
        return None

    async def finish(self, call: Call, item: dict[str, Any]) -> None:
        """Complete a rendered object in place."""

    def source(self, call: Call) -> Source:
        """Return where this resource's lists come from."""
        return Source(
            self.resource,
            lambda binder: [
                *self.readable(call, binder), *self.untrashed(call, binder), *self.also(call, binder),
            ],
            lambda binder: self.computed(call, binder),
            self.joins,
            self.allowed(call),
        )  # fmt: skip

    def render(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a fetched row as the client sees it."""
        return self._render(self._decoders(row.keys()), row)

    def _decoders(self, names: Iterable[str]) -> Sequence[tuple[str, Decode]]:
        """Return which of the columns are not shown as they are, and how they are."""
        known = self.resource.attributes
        found = ((name, known[name].decode) for name in names if name in known)
        return [(name, decode) for name, decode in found if decode is not None]

    def _render(self, decoders: Iterable[tuple[str, Decode]], row: Mapping[str, Any]) -> dict[str, Any]:
        item = dict(row)
        for name, decode in decoders:
            if (value := item[name]) is not None:
                item[name] = decode(value)
        for name in self.resource.hidden:
            item.pop(name, None)
        return {"kind": self.resource.kind, "etag": etag_of(tuple(item.values())), **item}

    async def list(self, call: Call) -> Reply:
        """Answer a page of objects."""
        query = parse_list(call, self.resource, self.default_order)
        source = self.source(call)
        query = await self._shortened(call, query, source)
        rows, available = await self._page(call, query, source)
        decoders = self._decoders(rows[0].keys()) if rows else []
        items = [self._render(decoders, row) for row in rows]
        for item in items:
            item.pop("nothing", None)
            await self.finish(call, item)
        return Reply(envelope(self.resource, query, items, available))

    async def _page(
        self, call: Call, query: ListQuery, source: Source
    ) -> tuple[Sequence[Mapping[str, Any]], int | None]:
        """Return the rows of a page and how many there are in all, by one statement wherever that is possible."""
        if query.count and query.limit:
            counted = build_counted(query, source)
            found = [dict(row) for row in await call.session.rows(counted.sql, *counted.values)]
            available = told(query, len(found))
            for row in found:
                available = row.pop(AVAILABLE) or available
            if available is not None:
                return found, available
        page, counting = build(query, source)
        rows = await call.session.rows(page.sql, *page.values) if query.limit else []
        return rows, await total(call, query, counting, len(rows))

    async def _shortened(self, call: Call, query: ListQuery, source: Source) -> ListQuery:
        """Return a query for as many rows as API.MaxIndexDatabaseRead allows when large columns are asked for."""
        large = [name for name in self.resource.unlisted if query.select and name in query.select]
        if not large or query.distinct or query.limit < 2:
            return query
        statement = sizes(query, source, large[0])
        found = [row["size"] for row in await call.session.rows(statement.sql, *statement.values)]
        keep = fitting(found, call.settings.api.max_index_database_read)
        return replace(query, limit=keep) if keep < len(found) else query

    async def get(self, call: Call) -> Reply:
        """Answer one object."""
        return Reply(await self.shown(call, call.uuid))

    async def shown(self, call: Call, uuid: str, *, trashed: bool = False) -> dict[str, Any]:
        """Return one object as the client sees it.

        Raises:
            NotFoundError: it is not there, or not for this viewer.
        """
        return await self._one(call, uuid, lambda binder: [
            *self.readable(call, binder), *([] if trashed else self.untrashed(call, binder)),
        ])  # fmt: skip

    async def is_readable(self, call: Call, uuid: str) -> bool:
        """Return whether the viewer may know of an object of this resource."""
        binder = Binder()
        conditions = [f"t.uuid = {binder.bind(uuid, 'text')}", *self.readable(call, binder)]
        sql = f"SELECT 1 FROM {quote(self.resource.table)} AS t WHERE {all_of(conditions)}"
        return await call.session.value(sql, *binder.values) is not None

    async def shown_to_writer(self, call: Call, uuid: str) -> dict[str, Any]:
        """Return an object just written: its writer sees it even when its owner's permissions would not show it."""
        return await self._one(call, uuid, lambda _: [])

    async def _one(self, call: Call, uuid: str, conditions: Conditions) -> dict[str, Any]:
        source, binder = self.source(call), Binder()
        select = parse_select(call.parameters.get("select"), self.resource)
        columns = select_list(source, columns_of(source, select, listing=False), binder)
        where = all_of([f"t.uuid = {binder.bind(uuid, 'text')}", *conditions(binder)])
        row = await call.session.row(
            f"SELECT {columns} FROM {quote(self.resource.table)} AS t WHERE {where}", *binder.values
        )
        if row is None:
            raise not_found(uuid)
        item = self.render(row)
        item.pop("nothing", None)
        await self.finish(call, item)
        return item
