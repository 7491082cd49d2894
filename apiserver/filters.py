"""Filters of a list request, turned into SQL conditions.

A filter is `[attribute, operator, operand]`; conditions are ANDed, a list of attributes is ORed. What a client may
write and what it means with NULLs is told in docs/api.md; every value becomes a parameter.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apiserver.attributes import INT64, JSONB, TEXTS, Attribute, Kind, Resource, dumps
from apiserver.errors import InvalidError
from apiserver.schema import INFIXES, RESOURCES
from apiserver.sqltext import Binder, any_of, quote
from apiserver.times import parse_time

_TRUE = ("1", "t", "true", "y", "yes")
_FALSE = ("0", "f", "false", "n", "no")
_EXPRESSION = re.compile(r"\(\s*([a-z_]+)\s*(<=|>=|<|>|=)\s*([a-z_]+)\s*\)")
_COMPARE = ("<", "<=", ">", ">=")
_EQUAL = ("=", "!=", "<>")
_KINDS = {resource.kind: resource.infix for resource in RESOURCES if resource.infix}
_KIND_COLUMNS = {"object_kind": "object_uuid", "head_kind": "head_uuid", "tail_kind": "tail_uuid"}
MAX_FILTERS = 1000
MAX_NAMES = 100  # of attributes in one filter


@dataclass(frozen=True, slots=True)
class Join:
    """A second table whose attributes may be filtered on as `name.attribute`."""

    resource: Resource
    on: str  # SQL condition; the table's alias is the join's name


@dataclass(slots=True)
class Scope:
    """What names mean in one list: the resource's own columns, and those of joined tables.

    `used` gets the joins that a filter needs.
    """

    resource: Resource
    alias: str
    joins: Mapping[str, Join] = field(default_factory=dict)
    allowed: frozenset[str] | None = None  # None: all visible attributes
    used: set[str] = field(default_factory=set)

    def column(self, name: str) -> tuple[str, Attribute] | None:
        """Return the SQL and the attribute of a plain or joined name, None if there is none."""
        prefix, _, rest = name.partition(".")
        if rest and prefix in self.joins:
            attribute = self.joins[prefix].resource.attributes.get(rest)
            if attribute is None or attribute.hidden:
                return None
            self.used.add(prefix)
            return f"{quote(prefix)}.{quote(rest)}", attribute
        attribute = self.resource.attributes.get(name)
        if attribute is None or attribute.hidden or (self.allowed is not None and name not in self.allowed):
            return None
        return f"{self.alias}.{quote(name)}", attribute


def compile_filters(filters: Any, scope: Scope, binder: Binder) -> list[str]:
    """Return the SQL conditions of a request's filters.

    Raises:
        InvalidError: a filter is malformed; the message names it.
    """
    if not isinstance(filters, list):
        raise InvalidError("filters must be an array of [attribute, operator, operand]")
    if len(filters) > MAX_FILTERS:
        raise InvalidError(f"too many filters: {len(filters)}, at most {MAX_FILTERS}")
    return [_compile_one(item, scope, binder) for item in filters]


def _compile_one(item: Any, scope: Scope, binder: Binder) -> str:
    if not isinstance(item, list) or len(item) != 3:
        raise InvalidError(f"Invalid element in filters array: {_shown(item)} is not [attribute, operator, operand]")
    attributes, operator, operand = item
    if not isinstance(operator, str):
        raise InvalidError(f"Invalid operator {_shown(operator)} in filter")
    operator = operator.lower()
    if operator == "@@":
        raise InvalidError("Full text search operator is no longer supported: use ilike")
    names = attributes if isinstance(attributes, list) else [attributes]
    if not 0 < len(names) <= MAX_NAMES or not all(isinstance(name, str) for name in names):
        raise InvalidError(f"Invalid attribute {_shown(attributes)} in filter")
    return any_of([_compile_attribute(name, operator, operand, scope, binder) for name in names])


def _compile_attribute(name: str, operator: str, operand: Any, scope: Scope, binder: Binder) -> str:
    if name == "any":
        return _any_column(operator, operand, scope, binder)
    if match := _EXPRESSION.fullmatch(name):
        return _expression(match, operator, operand, scope)
    if name in _KIND_COLUMNS and _KIND_COLUMNS[name] in scope.resource.attributes:
        if operator != "=":
            raise InvalidError(f"Invalid operator {operator!r} for {name}: only = is supported")
        name, operator = _KIND_COLUMNS[name], "is_a"
    found = scope.column(name)
    if found is not None:
        return _column(*found, operator, operand, binder)
    column, _, key = name.partition(".")
    found = scope.column(column)
    if found is None or not key or found[1].kind not in JSONB:
        raise InvalidError(f"Invalid attribute '{_shown(name)}' in filter")
    if key.startswith("<") and key.endswith(">"):
        key = key[1:-1]
    return _subproperty(found[0], key, operator, operand, binder)


def _expression(match: re.Match[str], operator: str, operand: Any, scope: Scope) -> str:
    if operator != "=" or operand not in (True, "true"):
        raise InvalidError("An expression can only be compared with = true")
    sides = []
    for name in (match[1], match[3]):
        found = scope.column(name)
        if found is None or found[1].kind not in (Kind.INTEGER, Kind.BIGINT):
            raise InvalidError(f"Invalid attribute '{name}' in filter expression: not an integer attribute")
        sides.append(found[0])
    return f"({sides[0]} {match[2]} {sides[1]})"


def _any_column(operator: str, operand: Any, scope: Scope, binder: Binder) -> str:
    conditions = []
    for name in scope.resource.visible:
        found = scope.column(name)
        if found is not None and found[1].kind in (*TEXTS, Kind.INTEGER, Kind.BIGINT, Kind.BOOLEAN):
            try:
                conditions.append(_column(*found, operator, operand, binder))
            except InvalidError:
                continue  # this column cannot hold such a value
    if not conditions:
        raise InvalidError(f"Invalid operator {operator!r} or operand {_shown(operand)} for any")
    return any_of(conditions)


def _column(column: str, attribute: Attribute, operator: str, operand: Any, binder: Binder) -> str:
    if operator in _EQUAL or operator in _COMPARE:
        return _scalar(column, attribute, operator, operand, binder)
    special = _SPECIAL.get(operator)
    if special is None:
        raise InvalidError(f"Invalid operator {_shown(operator)} in filter on {attribute.name}")
    return special(column, attribute, operator, operand, binder)


def _scalar(column: str, attribute: Attribute, operator: str, operand: Any, binder: Binder) -> str:
    if operand is None:
        if operator not in _EQUAL:
            raise InvalidError(f"Invalid operand type null for operator {operator} in filter on {attribute.name}")
        return f"{column} IS NULL" if operator == "=" else f"{column} IS NOT NULL"
    if attribute.kind in (Kind.BOOLEAN, *JSONB) and operator not in _EQUAL:
        raise InvalidError(f"Invalid operator {operator!r} for {attribute.name}")
    value = binder.bind(_operand(attribute, operand), attribute.sql_type)
    if operator in ("!=", "<>"):
        return f"{column} IS DISTINCT FROM {value}"
    return f"{column} {operator} {value}"


def _operand(attribute: Attribute, operand: Any) -> Any:
    """Return an operand as the column's type; numbers and times may come as text."""
    wrong = InvalidError(f"Invalid operand type {_shown(operand)} in filter on {attribute.name}")
    match attribute.kind:
        case Kind.BOOLEAN:
            return _boolean(operand, wrong)
        case Kind.INTEGER | Kind.BIGINT:
            return _integer(operand, wrong)
        case Kind.FLOAT:
            return _float(operand, wrong)
        case Kind.DATETIME:
            return _time(operand, wrong)
        case Kind.JSONB_HASH | Kind.JSONB_ARRAY:
            return _json(operand, wrong)
        case _:
            if not isinstance(operand, str):
                raise wrong
            return operand


def _boolean(operand: Any, wrong: InvalidError) -> bool:
    if isinstance(operand, bool):
        return operand
    if isinstance(operand, str) and operand.lower() in _TRUE + _FALSE:
        return operand.lower() in _TRUE
    raise wrong


def _integer(operand: Any, wrong: InvalidError) -> int:
    if isinstance(operand, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", operand):
        operand = int(operand)
    if isinstance(operand, bool) or not isinstance(operand, int) or not -INT64 <= operand < INT64:
        raise wrong
    return operand


def _float(operand: Any, wrong: InvalidError) -> float:
    if isinstance(operand, bool) or not isinstance(operand, int | float | str):
        raise wrong
    try:
        return float(operand)
    except (ValueError, OverflowError) as exc:
        raise wrong from exc


def _time(operand: Any, wrong: InvalidError) -> Any:
    try:
        return parse_time(operand)
    except (ValueError, TypeError, AttributeError) as exc:
        raise wrong from exc


def _json(operand: Any, wrong: InvalidError) -> str:
    if isinstance(operand, str):
        try:
            operand = json.loads(operand)
        except (ValueError, RecursionError) as exc:
            raise wrong from exc
    try:
        return dumps(operand)
    except (ValueError, RecursionError) as exc:
        raise wrong from exc


def _like(column: str, attribute: Attribute, operator: str, operand: Any, binder: Binder) -> str:
    if attribute.kind not in TEXTS:
        raise InvalidError(f"Invalid operator {operator!r} for {attribute.name}: not a text attribute")
    if not isinstance(operand, str):
        raise InvalidError(f"Invalid operand type {_shown(operand)} for operator {operator} in filters")
    return f"{column} {operator.upper()} {binder.bind(operand, 'text')}"


def _in(column: str, attribute: Attribute, operator: str, operand: Any, binder: Binder) -> str:
    if not isinstance(operand, list) or attribute.kind in JSONB or attribute.kind is Kind.BOOLEAN:
        raise InvalidError(f"Invalid operand type {_shown(operand)} for operator {operator!r} on {attribute.name}")
    values = [_operand(attribute, value) for value in operand if value is not None]
    # The comparison with this type, not the column's: an integer column is compared with any 64-bit value.
    sql_type = "bigint" if attribute.kind is Kind.INTEGER else attribute.sql_type
    if operator == "not in" and not operand:
        return f"{column} IS NULL"  # what SQL's NOT IN (NULL) with the NULL rows added comes to
    bound = binder.bind(values, f"{sql_type}[]")
    if operator == "in":
        return f"{column} = ANY({bound})"
    if None in operand:
        return f"({column} IS NOT NULL AND {column} <> ALL({bound}))"
    return f"({column} IS NULL OR {column} <> ALL({bound}))"


def _is_a(column: str, attribute: Attribute, operator: str, operand: Any, binder: Binder) -> str:
    if not attribute.name.endswith("uuid"):
        raise InvalidError(f"Invalid operator {operator!r} for {attribute.name}: not a uuid")
    kinds = operand if isinstance(operand, list) else [operand]
    if not all(isinstance(kind, str) for kind in kinds):
        raise InvalidError(f"Invalid operand type {_shown(operand)} for operator is_a in filters")
    infixes = [_KINDS[kind] for kind in kinds if kind in _KINDS]
    return f"substring({column}, 7, 5) = ANY({binder.bind(infixes, 'text[]')})"


def _exists(column: str, attribute: Attribute, operator: str, operand: Any, binder: Binder) -> str:
    if attribute.kind not in JSONB:
        raise InvalidError(f"Invalid operator {operator!r} for {attribute.name}")
    if not isinstance(operand, str):
        raise InvalidError(f"Invalid operand type {_shown(operand)} for operator exists in filters")
    return f"jsonb_exists({column}, {binder.bind(operand, 'text')})"


def _contains(column: str, attribute: Attribute, operator: str, operand: Any, binder: Binder) -> str:
    if attribute.kind not in JSONB:
        raise InvalidError(f"Invalid operator {operator!r} for {attribute.name}")
    keys = operand if isinstance(operand, list) else [operand]
    if not keys or not all(isinstance(key, str) for key in keys):
        raise InvalidError(f"Invalid operand {_shown(operand)} for operator contains: give a string or several")
    return f"jsonb_exists_all({column}, {binder.bind(keys, 'text[]')})"


_SPECIAL: dict[str, Callable[[str, Attribute, str, Any, Binder], str]] = {
    "like": _like,
    "ilike": _like,
    "in": _in,
    "not in": _in,
    "is_a": _is_a,
    "exists": _exists,
    "contains": _contains,
}


def _subproperty(column: str, key: str, operator: str, operand: Any, binder: Binder) -> str:
    """Return a condition on one key of a jsonb column; a missing key matches `!=` and `not in`."""
    wrong = InvalidError(f"Invalid operand type {_shown(operand)} for {operator!r} on subproperty {_shown(key)}")
    if operator == "exists":
        if not isinstance(operand, bool):
            raise wrong
        found = f"jsonb_exists({column}, {binder.bind(key, 'text')})"
        return found if operand else f"NOT {found}"
    if operator in ("in", "not in"):
        return _subproperty_in(column, key, operator, operand, binder)
    if isinstance(operand, list | dict):
        raise wrong
    if operator in _EQUAL:
        contained = f"{column} @> {binder.bind(_json_of({key: operand}, wrong), 'jsonb')}"
        return contained if operator == "=" else f"NOT coalesce({contained}, false)"
    if operator in _COMPARE:
        value = binder.bind(_json_of(operand, wrong), "jsonb")
        return f"{column} -> {binder.bind(key, 'text')} {operator} {value}"
    if operator in ("like", "ilike") and isinstance(operand, str):
        return f"{column} ->> {binder.bind(key, 'text')} {operator.upper()} {binder.bind(operand, 'text')}"
    if operator == "contains":
        single = binder.bind(_json_of({key: operand}, wrong), "jsonb")
        member = binder.bind(_json_of({key: [operand]}, wrong), "jsonb")
        return f"({column} @> {single} OR {column} @> {member})"
    raise InvalidError(f"Invalid operator {_shown(operator)} for subproperty {_shown(key)}")


def _subproperty_in(column: str, key: str, operator: str, operand: Any, binder: Binder) -> str:
    wrong = InvalidError(f"Invalid operand type {_shown(operand)} for operator {operator!r}: give an array")
    if not isinstance(operand, list) or any(isinstance(value, list | dict) for value in operand):
        raise wrong
    values = binder.bind([_json_of(value, wrong) for value in operand], "jsonb[]")
    found = f"{column} -> {binder.bind(key, 'text')} = ANY({values})"
    return found if operator == "in" else f"NOT coalesce({found}, false)"


def _json_of(value: Any, wrong: InvalidError) -> str:
    try:
        return dumps(value)
    except (ValueError, RecursionError) as exc:
        raise wrong from exc


def compile_where(where: Any, scope: Scope, binder: Binder) -> list[str]:
    """Return the SQL conditions of the legacy `where` object: `{attribute: value}`, all of which must hold."""
    if not isinstance(where, dict):
        raise InvalidError("where must be an object")
    if len(where) > MAX_FILTERS:
        raise InvalidError(f"too many conditions: {len(where)}, at most {MAX_FILTERS}")
    conditions = []
    for name, value in where.items():
        filters: Sequence[Any]
        if isinstance(value, list) and len(value) == 2 and value[0] == "contains" and isinstance(value[1], str):
            filters = [name, "ilike", f"%{_escaped(value[1])}%"]
        elif isinstance(value, list):
            filters = [name, "in", value]
        elif isinstance(value, dict):
            filters = [name, "=", dumps(value)]
        else:
            filters = [name, "=", value]
        conditions.append(_compile_one(list(filters), scope, binder))
    return conditions


def _escaped(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def kind_of_uuid(uuid: object) -> str | None:
    """Return the kind of the object that a uuid names, None when it is no uuid of a known class."""
    resource = INFIXES.get(uuid[6:11]) if isinstance(uuid, str) and len(uuid) == 27 else None
    return resource.kind if resource else None
