"""List requests: their parameters, the statement they become, and the envelope of the answer."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apiserver.attributes import Resource
from apiserver.errors import ForbiddenError, InvalidError
from apiserver.filters import Join, Scope, compile_filters, compile_where
from apiserver.operation import Call
from apiserver.sqltext import Binder, all_of, quote

_ORDER = re.compile(r"\s*(?:([a-z_]+)\.)?([a-z_]+)(?:\s+(asc|desc))?\s*", re.IGNORECASE)
# May be selected without an error although no object has it any more.
_ALWAYS = frozenset({"kind", "etag", "href", "modified_by_client_uuid"})
_UNIQUE = frozenset({"id", "uuid"})
DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The parameters of a list, checked. `select` None means all; `order` holds (column, descending) pairs."""

    limit: int
    offset: int
    order: tuple[tuple[str, bool], ...]
    select: tuple[str, ...] | None
    distinct: bool
    count: bool
    filters: Any
    where: Any


def parse_list(call: Call, resource: Resource, default_order: Sequence[tuple[str, bool]]) -> ListQuery:
    """Return the checked parameters of a list request.

    Raises:
        InvalidError: one of them is malformed or unknown; order items that are unknown are dropped silently.
        ForbiddenError: bypass_federation by someone who is no admin.
    """
    parameters = call.parameters
    if parameters.get("bypass_federation") and not call.viewer.is_admin:
        raise ForbiddenError("bypass_federation is for admins only")
    count = parameters.get("count", "exact")
    if count not in ("exact", "none"):
        raise InvalidError("count must be exact or none")
    limit = parameters.get("limit", -1)
    if limit == -1:
        limit = DEFAULT_LIMIT
    select = parse_select(parameters.get("select"), resource)
    return ListQuery(
        limit=min(limit, call.settings.api.max_items_per_response),
        offset=_offset(parameters.get("offset", 0)),
        order=parse_order(parameters.get("order"), resource, select, default_order),
        select=select,
        distinct=bool(parameters.get("distinct", False)),
        count=count == "exact",
        filters=parameters.get("filters", []),
        where=parameters.get("where", {}),
    )


def _offset(value: int) -> int:
    if value >= 2**63:
        raise InvalidError("offset is out of range")
    return value


def parse_select(value: Any, resource: Resource) -> tuple[str, ...] | None:
    """Return the attributes to show, None for all.

    Raises:
        InvalidError: it is no array of names of attributes.
    """
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InvalidError("select must be an array of attribute names")
    known = {*resource.visible, *resource.computed, *_ALWAYS}
    unknown = [name for name in value if name not in known]
    if unknown:
        raise InvalidError(f"Invalid attribute '{unknown[0][:80]}' in select")
    return tuple(dict.fromkeys(value))


def parse_order(
    value: Any, resource: Resource, select: tuple[str, ...] | None, default: Sequence[tuple[str, bool]]
) -> tuple[tuple[str, bool], ...]:
    """Return (column, descending) pairs that always end in a unique column, if the selection allows one."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    order: list[tuple[str, bool]] = []
    for item in items:
        match = _ORDER.fullmatch(item) if isinstance(item, str) else None
        if match is None or (match[1] or resource.table) != resource.table or match[2] not in resource.visible:
            continue
        if (select is None or match[2] in select) and match[2] not in (name for name, _ in order):
            order.append((match[2], (match[3] or "asc").lower() == "desc"))
    if not any(name in _UNIQUE for name, _ in order):
        order += [(name, descending) for name, descending in default if name not in {name for name, _ in order}]
    cut = next((position + 1 for position, (name, _) in enumerate(order) if name in _UNIQUE), len(order))
    return tuple(order[:cut])


@dataclass(frozen=True, slots=True)
class Source:
    """Where a list comes from: a table, its conditions, its joins, and the SQL of its computed attributes."""

    resource: Resource
    conditions: Callable[[Binder], list[str]]
    computed: Callable[[Binder], Mapping[str, Callable[[], str]]]
    joins: Mapping[str, Join]
    allowed: frozenset[str] | None = None


def columns_of(source: Source, select: tuple[str, ...] | None, *, listing: bool) -> list[str]:
    """Return the names to fetch for a selection; computed attributes are fetched by name too."""
    resource = source.resource
    names = [*resource.visible, *resource.computed]
    if select is not None:
        wanted = set(select)
        names = [name for name in names if name in wanted]
    elif listing:
        names = [name for name in names if name not in resource.unlisted]
    if source.allowed is not None:
        names = [name for name in names if name in source.allowed]
    return names


def select_list(source: Source, names: Iterable[str], binder: Binder) -> str:
    """Return the select list of a statement."""
    computed = source.computed(binder)
    parts = []
    for name in names:
        if name in source.resource.attributes:
            parts.append(f"t.{quote(name)}")
        elif name in computed:
            parts.append(f"{computed[name]()} AS {quote(name)}")
    return ", ".join(parts) or "1 AS nothing"


@dataclass(frozen=True, slots=True)
class Statement:
    """A built statement and its parameters."""

    sql: str
    values: list[object]


AVAILABLE = "items_available"  # the last column of a counted page


def build(query: ListQuery, source: Source) -> tuple[Statement, Statement]:
    """Return the statements that fetch a page and that count the whole.

    Raises:
        InvalidError: a filter is malformed.
    """
    names = columns_of(source, query.select, listing=True)
    binder, counter = Binder(), Binder()
    page = _page(query, source, names, binder)
    return Statement(page, binder.values), Statement(_count(query, source, names, counter), counter.values)


def build_counted(query: ListQuery, source: Source) -> Statement:
    """Return one statement for both: each row ends with `AVAILABLE`, null when the page is not full and tells itself.

    Raises:
        InvalidError: a filter is malformed.
    """
    names = columns_of(source, query.select, listing=True)
    binder = Binder()
    page = _page(query, source, names, binder)
    sql = (
        f"WITH page AS MATERIALIZED ({page}) SELECT page.*,"
        f" CASE WHEN (SELECT count(*) FROM page) >= {binder.bind(query.limit, 'bigint')}"
        f" THEN ({_count(query, source, names, binder)}) END AS {AVAILABLE} FROM page"
    )
    return Statement(sql, binder.values)


def _page(query: ListQuery, source: Source, names: Sequence[str], binder: Binder) -> str:
    columns = select_list(source, names, binder)
    body = _body(query, source, binder)
    distinct = "DISTINCT " if query.distinct else ""
    return (
        f"SELECT {distinct}{columns} {body}{_order_by(query, set(names))}"
        f" LIMIT {binder.bind(query.limit, 'bigint')} OFFSET {binder.bind(query.offset, 'bigint')}"
    )


def _count(query: ListQuery, source: Source, names: Sequence[str], binder: Binder) -> str:
    if query.distinct:
        inner = select_list(source, names, binder)
        return f"SELECT count(*) FROM (SELECT DISTINCT {inner} {_body(query, source, binder)}) AS counted"
    return f"SELECT count(*) {_body(query, source, binder)}"


def sizes(query: ListQuery, source: Source, name: str) -> Statement:
    """Return the statement that fetches how large a column is in each row of a page."""
    binder = Binder()
    body = _body(query, source, binder)
    limit, offset = binder.bind(query.limit, "bigint"), binder.bind(query.offset, "bigint")
    order = _order_by(query, set())
    sql = f"SELECT coalesce(octet_length(t.{quote(name)}), 0) AS size {body}{order} LIMIT {limit} OFFSET {offset}"
    return Statement(sql, binder.values)


def fitting(sizes_found: Iterable[int], budget: int) -> int:
    """Return how many rows of a page may be read within a number of bytes; at least one."""
    count = spent = 0
    for size in sizes_found:
        spent += size
        if spent > budget:
            break
        count += 1
    return max(1, count)


def _body(query: ListQuery, source: Source, binder: Binder) -> str:
    scope = Scope(source.resource, "t", source.joins, source.allowed)
    conditions = [
        *source.conditions(binder),
        *compile_filters(query.filters, scope, binder),
        *compile_where(query.where, scope, binder),
    ]
    joins = "".join(
        f" LEFT JOIN {quote(join.resource.table)} AS {quote(name)} ON {join.on}"
        for name, join in source.joins.items()
        if name in scope.used
    )
    return f"FROM {quote(source.resource.table)} AS t{joins} WHERE {all_of(conditions)}"


def _order_by(query: ListQuery, fetched: set[str]) -> str:
    # With DISTINCT only what is selected can be ordered by.
    order = [(name, down) for name, down in query.order if not query.distinct or name in fetched]
    if not order:
        return ""
    return " ORDER BY " + ", ".join(f"t.{quote(name)}{' DESC' if down else ''}" for name, down in order)


def told(query: ListQuery, got: int) -> int | None:
    """Return `items_available` when a page of so many rows tells it, None when the whole must be counted."""
    if 0 < got < query.limit or (got == 0 and query.offset == 0 and query.limit > 0):
        return query.offset + got
    return None


async def total(call: Call, query: ListQuery, counting: Statement, got: int) -> int | None:
    """Return `items_available`; asks the database only when the page does not tell."""
    if not query.count:
        return None
    known = told(query, got)
    return int(await call.session.value(counting.sql, *counting.values)) if known is None else known


def envelope(
    resource: Resource, query: ListQuery, items: list[dict[str, Any]], available: int | None
) -> dict[str, Any]:
    """Return the body of a list reply."""
    body: dict[str, Any] = {
        "kind": f"{resource.kind}List",
        "etag": "",
        "self_link": "",
        "offset": query.offset,
        "limit": query.limit,
        "items": items,
    }
    if available is not None:
        body["items_available"] = available
    return body
