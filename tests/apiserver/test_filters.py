"""Filters mean what a plain Python model says, for every operator, NULLs included; nonsense is a 422, never more."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apiserver.errors import InvalidError
from apiserver.filters import Scope, compile_filters, compile_where
from apiserver.schema import COLLECTIONS
from apiserver.sqltext import Binder, all_of
from apiserver.store.failures import translated
from apiserver.store.pool import DatabaseSettings, Store
from tests.support.api import api_template
from tests.support.postgres import TestServer, postgres_server

__all__ = ["api_template", "postgres_server"]
pytestmark = pytest.mark.pg
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMES = [None, "", "a", "ab", "A", "100%", "a_b", "ä"]
NUMBERS = [None, 0, 1, 2, -1]
PROPERTIES: list[dict[str, Any]] = [
    {}, {"k": "a"}, {"k": "b", "m": 1}, {"k": ["a", "b"]}, {"k": None}, {"m": 2}, {"k": True}, {"http://x/y.z": "u"},
]  # fmt: skip
TIMES = [None, NOON, NOON + timedelta(microseconds=1), NOON + timedelta(days=1)]
Row = dict[str, Any]
ROWS: list[Row] = [
    {
        "uuid": f"zzzzz-4zz18-m{n:014d}", "name": NAMES[n % len(NAMES)],
        "replication_desired": NUMBERS[n % len(NUMBERS)],
        "replication_confirmed": NUMBERS[(n // 2) % len(NUMBERS)], "properties": PROPERTIES[n % len(PROPERTIES)],
        "preserve_version": n % 3 == 0, "trash_at": TIMES[n % len(TIMES)],
    }
    for n in range(56)
]  # fmt: skip


@dataclass
class Table:
    """The rows in a real table, and a way to select with filters."""

    runner: asyncio.Runner
    store: Store

    def select(self, filters: Any, where: Any = None) -> set[str]:
        """Return the uuids that the database finds; all but InvalidError is a fault of ours."""

        async def run() -> set[str]:
            binder, scope = Binder(), Scope(COLLECTIONS, "t")
            conditions = (
                compile_filters(filters, scope, binder) if where is None else compile_where(where, scope, binder)
            )
            sql = f"SELECT uuid FROM collections AS t WHERE {all_of(conditions)} AND owner_uuid = 'model'"
            async with self.store.session() as session:
                with translated():
                    return {row["uuid"] for row in await session.rows(sql, *binder.values)}

        return self.runner.run(run())


@pytest.fixture(scope="module")
def table(postgres_server: TestServer, api_template: str) -> Iterator[Table]:
    with asyncio.Runner() as runner:
        name = runner.run(postgres_server.create(api_template))
        store = Store(DatabaseSettings(postgres_server.dsn(name)))
        runner.run(store.__aenter__())

        async def fill() -> None:
            async with store.session() as session:
                for row in ROWS:
                    await session.execute(
                        "INSERT INTO collections (uuid, owner_uuid, name, replication_desired, replication_confirmed,"
                        " properties, preserve_version, trash_at, portable_data_hash, current_version_uuid, is_trashed)"
                        " VALUES ($1, 'model', $2, $3, $4, $5, $6, $7, 'x', $1, true)",
                        row["uuid"], row["name"], row["replication_desired"], row["replication_confirmed"],
                        json.dumps(row["properties"]), row["preserve_version"], row["trash_at"],
                    )  # fmt: skip

        runner.run(fill())
        yield Table(runner, store)
        runner.run(store.__aexit__(None, None, None))
        runner.run(postgres_server.drop(name))


def _like(pattern: str, text: str, *, fold: bool) -> bool:
    regex = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    return re.fullmatch(regex, text, re.DOTALL | (re.IGNORECASE if fold else 0)) is not None


def _compare(value: Any, operator: str, operand: Any) -> bool:
    if operator == "=":
        return bool(value == operand)
    if operator in ("!=", "<>"):
        return bool(value != operand)
    if value is None:
        return False
    return bool({"<": value < operand, "<=": value <= operand, ">": value > operand, ">=": value >= operand}[operator])


def model(row: Row, name: str, operator: str, operand: Any) -> bool:
    """Return whether a row passes one filter, by the words of the documentation."""
    operator = operator.lower()
    if name == "(replication_desired > replication_confirmed)":
        left, right = row["replication_desired"], row["replication_confirmed"]
        return left is not None and right is not None and left > right
    if name.startswith("properties."):
        return _model_key(row["properties"], name.removeprefix("properties.").strip("<>"), operator, operand)
    value = row[name]
    if name == "properties":
        keys = operand if isinstance(operand, list) else [operand]
        return all(key in value for key in keys)
    if operator in ("like", "ilike"):
        return value is not None and _like(operand, value, fold=operator == "ilike")
    if operator == "in":
        return value is not None and value in operand
    if operator == "not in":
        if not operand:
            return value is None
        return value not in operand if value is not None else None not in operand
    if name == "trash_at" and operand is not None:
        operand = datetime.fromisoformat(operand)
    return _compare(value, operator, operand)


def _model_key(properties: dict[str, Any], key: str, operator: str, operand: Any) -> bool:
    present, value = key in properties, properties.get(key)
    same = present and type(value) is type(operand) and value == operand
    match operator:
        case "exists":
            return present is operand
        case "=":
            return same
        case "!=":
            return not same
        case "in":
            return any(present and type(value) is type(one) and value == one for one in operand)
        case "not in":
            return not any(present and type(value) is type(one) and value == one for one in operand)
        case "contains":
            return same or (isinstance(value, list) and operand in value)
        case _:
            # What is no text is compared by its JSON text; null has none.
            text = value if isinstance(value, str) else json.dumps(value)
            return value is not None and _like(operand, text, fold=operator == "ilike")


_patterns = st.text("ab%_1", max_size=4)
_names = st.sampled_from(NAMES[1:])
_times = st.sampled_from([t.isoformat() for t in TIMES if t])
FILTERS = st.one_of(
    st.tuples(st.just("name"), st.sampled_from(["=", "!=", "<>"]), st.sampled_from(NAMES)),
    st.tuples(st.just("name"), st.sampled_from(["like", "ilike", "LIKE"]), _patterns),
    st.tuples(st.just("name"), st.sampled_from(["in", "not in"]), st.lists(st.sampled_from(NAMES), max_size=3)),
    st.tuples(st.just("replication_desired"), st.sampled_from(["=", "!="]), st.sampled_from(NUMBERS)),
    st.tuples(st.just("replication_desired"), st.sampled_from(["<", "<=", ">", ">="]), st.integers(-2, 3)),
    st.tuples(st.just("replication_desired"), st.sampled_from(["in", "not in"]),
              st.lists(st.sampled_from(NUMBERS), max_size=3)),
    st.tuples(st.just("(replication_desired > replication_confirmed)"), st.just("="), st.just(value=True)),
    st.tuples(st.just("preserve_version"), st.sampled_from(["=", "!="]), st.booleans()),
    st.tuples(st.just("trash_at"), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), _times),
    st.tuples(st.just("trash_at"), st.sampled_from(["=", "!="]), st.none()),
    st.tuples(st.just("properties"), st.just("exists"), st.sampled_from(["k", "m", "q"])),
    st.tuples(st.just("properties"), st.just("contains"), st.lists(st.sampled_from(["k", "m"]), min_size=1)),
    st.tuples(st.sampled_from(["properties.k", "properties.m", "properties.<http://x/y.z>"]),
              st.sampled_from(["=", "!=", "contains"]), st.sampled_from(["a", "b", "u"])),
    st.tuples(st.just("properties.k"), st.sampled_from(["in", "not in"]), st.lists(st.sampled_from(["a", "b"]))),
    st.tuples(st.just("properties.k"), st.sampled_from(["like", "ilike"]), _patterns),
    st.tuples(st.just("properties.k"), st.just("exists"), st.booleans()),
)  # fmt: skip
_quiet = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@_quiet
@given(filters=st.lists(FILTERS, min_size=1, max_size=2))
def test_filters_find_what_the_model_finds(table: Table, filters: list[tuple[str, str, Any]]) -> None:
    expected = {row["uuid"] for row in ROWS if all(model(row, *one) for one in filters)}
    assert table.select([list(one) for one in filters]) == expected


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
    | st.sampled_from(["'; DROP TABLE collections; --", "%", "\\", "[1]", "{", "2026-01-01", "9" * 30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip
_ATTRIBUTES = st.sampled_from([*COLLECTIONS.visible, "any", "nosuch", "properties.x", "properties.", "", "container.x",
                               "(file_count > version)", "uuid; --"]) | st.text(max_size=6)  # fmt: skip
_OPERATORS = st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "like", "ilike", "in", "not in", "is_a", "exists",
                              "contains", "@@", "IN", "nosuch", ""])  # fmt: skip


@_quiet
@given(filters=st.lists(st.lists(_ATTRIBUTES | _OPERATORS | _ANY, max_size=4) | _ANY
                        | st.tuples(_ATTRIBUTES, _OPERATORS, _ANY).map(list), max_size=2))  # fmt: skip
def test_whatever_is_sent_as_filters_is_understood_or_refused(table: Table, filters: Any) -> None:
    text = json.dumps(filters)
    if "\\u0000" in text or re.search(r"\\ud[89a-f]", text):
        return  # refused before filters are read
    with suppress(InvalidError):
        table.select(filters)
    assert len(table.select([])) == len(ROWS)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ({"name": "a"}, 7),
        ({"name": None}, 7),
        ({"name": ["a", "ab"]}, 14),
        ({"name": ["contains", "00%"]}, 7),
        ({}, 56),
    ],
)
def test_the_old_form_of_conditions(table: Table, where: Any, count: int) -> None:
    assert len(table.select(None, where)) == count
