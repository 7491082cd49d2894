"""What is in a project, or shared with a user: lists over several resources at once."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from apiserver.controller import Controller
from apiserver.errors import InvalidError
from apiserver.filters import Scope, compile_filters
from apiserver.listing import ListQuery, Source, build, parse_list, parse_order
from apiserver.names import is_uuid
from apiserver.operation import (
    INCLUDE_OLD,
    INCLUDE_TRASH,
    LIST,
    Call,
    Operation,
    Parameter,
    Reply,
)  # fmt: skip
from apiserver.permissions import not_found
from apiserver.resources.collections import Collections
from apiserver.resources.groups import Groups
from apiserver.resources.requests import ContainerRequests
from apiserver.resources.simple import Workflows
from apiserver.resources.users import Users
from apiserver.schema import GROUPS, USERS
from apiserver.sqltext import Binder

_DOWN = (
    "(WITH RECURSIVE down(uuid) AS (SELECT {root} UNION"
    " SELECT g.uuid FROM groups g JOIN down d ON g.owner_uuid = d.uuid"
    " WHERE g.group_class IN ('project', 'filter')) SELECT uuid FROM down)"
)
_FILTER_GROUP = "SELECT properties FROM groups WHERE uuid = $1 AND group_class = 'filter'"
_INCLUDABLE = ("owner_uuid", "container_uuid", "collection_uuid")


@dataclass(frozen=True, slots=True)
class _Part:
    """One resource's share of a list."""

    controller: Controller
    query: ListQuery
    source: Source


class Contents:
    """`groups/contents` and `groups/shared`."""

    def __init__(self) -> None:
        self._groups = Groups()
        self._users = Users()
        self._parts: Sequence[Controller] = (self._groups, ContainerRequests(), Workflows(), Collections())

    def operations(self) -> Iterable[Operation]:
        """Return both lists."""
        more = (
            Parameter("uuid", "string"), Parameter("recursive", "boolean", default="false"),
            Parameter("include", "array"), Parameter("exclude_home_project", "boolean", default="false"),
            INCLUDE_TRASH, INCLUDE_OLD,
        )  # fmt: skip
        yield Operation("groups", "contents", "GET", "groups/contents", self.contents, (*LIST, *more), "GroupList")
        shared = (*LIST, INCLUDE_TRASH, Parameter("include", "string"))
        yield Operation("groups", "shared", "GET", "groups/shared", self.shared, shared, "GroupList")

    async def contents(self, call: Call) -> Reply:
        """Answer the things in a project, or everywhere, in order of their classes."""
        parameters = call.parameters
        limit, offset = parameters.get("limit", -1), parameters.get("offset", 0)
        limit = min(100 if limit == -1 else limit, call.settings.api.max_items_per_response)
        filters = parameters.get("filters", [])
        if not isinstance(filters, list):
            raise InvalidError("filters must be an array of [attribute, operator, operand]")
        filters = [*filters, *await self._filter_group(call)]
        parts = [part for one in self._parts if (part := await self._part(call, one, filters)) is not None]
        if not parts and filters:
            raise InvalidError("no class of objects has all the attributes that are filtered on")
        items, available = await self._fill(call, parts, limit, offset)
        body: dict[str, Any] = {
            "kind": "arvados#objectList", "etag": "", "self_link": "", "offset": offset, "limit": limit, "items": items,
        }  # fmt: skip
        if parameters.get("count", "exact") != "none":
            body["items_available"] = available
        if include := parameters.get("include"):
            body["included"] = await self._included(call, include, items)
        return Reply(body)

    async def _filter_group(self, call: Call) -> list[Any]:
        """Return the filters of the group whose contents are asked for; make sure that it may be seen."""
        uuid = call.parameters.get("uuid")
        if uuid is None:
            return []
        reader: Controller = self._users if is_uuid(uuid, USERS.infix) else self._groups
        if not is_uuid(uuid) or uuid[6:11] not in (USERS.infix, GROUPS.infix):
            raise not_found(str(uuid))
        if not await reader.is_readable(call, uuid):
            raise not_found(uuid)
        if reader is self._groups and not call.flag("include_trash"):
            await self._groups.shown(replace(call, parameters={}), uuid)
        text = await call.session.value(_FILTER_GROUP, uuid)
        if text is None:
            return []
        call.parameters.pop("uuid")
        return list(json.loads(text).get("filters", []))

    async def _part(self, call: Call, controller: Controller, filters: list[Any]) -> _Part | None:
        """Return a resource's query, None when a filter has no meaning for it."""
        resource = controller.resource
        mine = _filters_for(filters, resource.table, [part.resource.table for part in self._parts])
        scope = Scope(resource, "t", controller.joins)
        try:
            compile_filters(mine, scope, Binder())
        except InvalidError:
            if not self._meaningful_elsewhere(mine, resource.table):
                raise
            return None
        select = call.parameters.get("select")
        if isinstance(select, list):
            select = [name for name in select if name in (*resource.visible, *resource.computed)] or ["uuid"]
        parameters = {**call.parameters, "filters": mine, "limit": -1, "order": [], "select": select}
        query = parse_list(replace(call, parameters=parameters), resource, controller.default_order)
        order = parse_order(call.parameters.get("order"), resource, query.select, controller.default_order)
        hidden = tuple(name for name in resource.visible if name not in resource.unlisted)
        chosen = query.select or (*hidden, *resource.computed)
        select_names = tuple(name for name in chosen if name not in ("manifest_text", "unsigned_manifest_text"))
        return _Part(controller, replace(query, order=order, select=select_names), self._source(call, controller))

    def _meaningful_elsewhere(self, filters: list[Any], table: str) -> bool:
        """Whether all filters have a meaning for some other resource of the list."""
        for controller in self._parts:
            if controller.resource.table != table:
                try:
                    compile_filters(filters, Scope(controller.resource, "t", controller.joins), Binder())
                except InvalidError:
                    continue
                return True
        return False

    def _source(self, call: Call, controller: Controller) -> Source:
        source = controller.source(call)

        def conditions(binder: Binder) -> list[str]:
            found = source.conditions(binder)
            uuid = call.parameters.get("uuid")
            if controller.resource.table == "groups":
                found.append("t.group_class <> 'role'")
            if uuid is not None and call.flag("recursive"):
                found.append(f"t.owner_uuid IN {_DOWN.format(root=binder.bind(uuid, 'text'))}")
            elif uuid is not None:
                found.append(f"t.owner_uuid = {binder.bind(uuid, 'text')}")
            elif call.flag("exclude_home_project"):
                found.append(f"t.owner_uuid <> {binder.bind(call.viewer.user_uuid, 'text')}")
            return found

        return replace(source, conditions=conditions)

    async def _fill(
        self, call: Call, parts: Sequence[_Part], limit: int, offset: int
    ) -> tuple[list[dict[str, Any]], int]:
        """Return a page over all parts, and how much there is in all."""
        items: list[dict[str, Any]] = []
        available = 0
        counting = call.parameters.get("count", "exact") != "none"
        for part in parts:
            query = replace(part.query, limit=limit - len(items), offset=max(0, offset - available))
            page, count = build(query, part.source)
            rows = await call.session.rows(page.sql, *page.values) if query.limit else []
            for row in rows:
                item = part.controller.render(row)
                await part.controller.finish(call, item)
                items.append(item)
            if not counting and len(items) >= limit:
                break
            available += int(await call.session.value(count.sql, *count.values))
        return items, available

    async def _included(self, call: Call, include: Any, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        names = include if isinstance(include, list) else [include]
        wrong = [name for name in names if name not in _INCLUDABLE]
        if wrong:
            raise InvalidError(f"include: {wrong[0]!r:.60} is not one of {', '.join(_INCLUDABLE)}")
        found = []
        for uuid in sorted({item[name] for item in items for name in names if item.get(name)}):
            reader = call.context.directory.of_infix(uuid[6:11])
            if isinstance(reader, Controller):
                rows = await reader.list(
                    replace(call, parameters={"filters": [["uuid", "=", uuid]], "count": "none", "include_trash": True})
                )
                found += rows.body["items"]
        return found

    async def shared(self, call: Call) -> Reply:
        """Answer the groups that the viewer may read but that are not in a readable project of somebody."""
        viewer = call.viewer.user_uuid
        source = self._groups.source(call)

        def conditions(binder: Binder) -> list[str]:
            me = binder.bind(viewer, "text")
            return [
                *source.conditions(binder),
                f"t.owner_uuid <> {me}",
                "t.group_class <> 'role'",
                f"(t.owner_uuid NOT IN (SELECT target_uuid FROM materialized_permissions WHERE user_uuid = {me})"
                f" OR substring(t.owner_uuid, 7, 5) = 'tpzed')",
            ]

        query = parse_list(call, GROUPS, self._groups.default_order)
        page, count = build(query, replace(source, conditions=conditions))
        items = [self._groups.render(row) for row in await call.session.rows(page.sql, *page.values)]
        body: dict[str, Any] = {
            "kind": "arvados#groupList", "etag": "", "self_link": "", "offset": query.offset, "limit": query.limit,
            "items": items,
        }  # fmt: skip
        if query.count:
            body["items_available"] = int(await call.session.value(count.sql, *count.values))
        if call.parameters.get("include") == ["owner_uuid"]:
            body["included"] = await self._included(call, "owner_uuid", items)
        return Reply(body)


def _filters_for(filters: list[Any], table: str, tables: Sequence[str]) -> list[Any]:
    """Return the filters that are a resource's: those without a table's name before the attribute, and its own."""
    found = []
    for item in filters:
        name = item[0] if isinstance(item, list) and item else None
        prefix, _, rest = name.partition(".") if isinstance(name, str) else ("", "", "")
        if prefix in tables and rest:
            if prefix == table:
                found.append([rest, *item[1:]])
        else:
            found.append(item)
    return found
