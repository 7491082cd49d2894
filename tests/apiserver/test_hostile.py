"""Whatever is sent to any operation, the answer is a 2xx or a 4xx with a reason; never a 500, never a dead node."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apiserver.operation import Operation
from apiserver.registry import Registry
from apiserver.schema import RESOURCES
from tests.support.api import api_template, settings
from tests.support.postgres import TestServer, postgres_server
from tests.support.target import Target, target_on

__all__ = ["api_template", "postgres_server"]
pytestmark = [pytest.mark.pg, pytest.mark.timeout(120)]
# The sweep waits for a job by design.
OPERATIONS = [one for one in Registry().operations() if one.resource != "sys"]
ATTRIBUTES = {one.table: tuple(one.attributes) for one in RESOURCES}
NASTY = [
    "", " ", "x", "'; DROP TABLE users; --", '"', "\\", "%", "\x00", "\ud800", "🙂", "a" * 600, "null", "true", "[",
    "{}", "[1,2]", "9" * 40, "-1", "1e309", "NaN", "2026-13-45", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59", "zzzzz-tpzed-000000000000000", "zzzzz-j7d0g-fffffffffffffff",
    "zzzzz-4zz18-000000000000000", "can_manage", "project", "permission", "role", "filter", "Committed",
    "../../etc/passwd", "d41d8cd98f00b204e9800998ecf8427e+0",
]  # fmt: skip
_numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
_scalars = st.none() | st.booleans() | _numbers | st.sampled_from(NASTY)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NASTY), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def target(postgres_server: TestServer, api_template: str) -> Iterator[Target]:
    name = asyncio.run(postgres_server.create(api_template))
    with target_on(settings(postgres_server.dsn(name))) as found:
        yield found
    asyncio.run(postgres_server.drop(name))


@st.composite
def requests(draw: st.DrawFn) -> tuple[Operation, str, dict[str, Any], Any, str]:
    operation = draw(st.sampled_from(OPERATIONS))
    uuid = draw(st.sampled_from([text for text in NASTY if text not in ("", " ", "\ud800")]))
    names = [one.name for one in operation.parameters if one.location == "query"]
    query = draw(st.dictionaries(st.sampled_from([*names, "nosuch"]), _values, max_size=3))
    body: Any = None
    if operation.wrapper:
        known = ATTRIBUTES.get(operation.resource, ("name",))
        attributes = draw(st.dictionaries(st.sampled_from([*known, "nosuch"]), _values, max_size=4))
        body = draw(st.sampled_from([{operation.wrapper: attributes}, attributes, {operation.wrapper: 5}, [], "x"]))
    return operation, uuid, query, body, draw(st.sampled_from(["json", "form", "query"]))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(request=requests())
def test_no_request_is_answered_by_a_server_error(
    target: Target, request: tuple[Operation, str, dict[str, Any], Any, str]
) -> None:
    operation, uuid, query, body, encoding = request
    path = operation.path.replace("{uuid}", quote(uuid, safe=""))
    pairs = urlencode({name: _text(value).encode("utf-8", "surrogatepass") for name, value in query.items()})
    data, kind = (None if body is None else json.dumps(body).encode()), "application/json"
    if encoding == "form" and isinstance(body, dict):
        fields = {**query, **body}
        data = urlencode({name: _text(v).encode("utf-8", "surrogatepass") for name, v in fields.items()}).encode()
        pairs, kind = "", "application/x-www-form-urlencoded"
    status, text = target.send(operation.method, path, pairs, data, kind)
    assert status < 500, (operation.path, query, body, text)
    if status >= 400:
        errors = json.loads(text)["errors"]
        assert errors
        assert all(isinstance(error, str) and error for error in errors)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"group": ' + b"[" * 500 + b"]" * 500 + b"}", "application/json", 422),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"<xml/>", "text/xml", 400),
        (b'{"group":{"group_class":"project","name":"' + b"n" * (1 << 20) + b'"}}', "application/json", 422),
    ],
)  # fmt: skip
def test_bodies_that_cannot_be_read_are_refused(target: Target, body: bytes, kind: str, status: int) -> None:
    found, text = target.send("POST", "groups", "", body, kind)
    assert (found, bool(json.loads(text)["errors"][0])) == (status, True), text[:300]


MIB = "m" * (1 << 20)
SQL = "x' OR 1=1; DROP TABLE users; SELECT pg_sleep(60) --"
# One of each kind that no parameter and no attribute wants, as JSON knows them.
WRONG: list[Any] = [
    MIB, SQL, "nul \x00 byte", 10**30, -1, 1.5, True, [SQL], [[SQL, "=", SQL]], [["uuid", SQL, "x"]], {SQL: SQL},
    [[["uuid", SQL], "like", MIB]], {"uuid": [SQL, SQL]}, [None], f"{SQL} desc", [f"uuid {SQL}"],
    [["properties." + SQL, "=", SQL]], [[f"(uuid < {SQL})", "=", True]], {"a": {"b": [MIB[:9999], 10**400]}},
]  # fmt: skip


def _each(operation: Operation) -> list[tuple[str, bool]]:
    """Return what can be sent: (name, whether it is an attribute of the body)."""
    query = [(one.name, False) for one in operation.parameters if one.location == "query"]
    known = ATTRIBUTES.get(operation.resource, ()) if operation.wrapper else ()
    return [*query, *((name, True) for name in known)]


def _try(target: Target, operation: Operation, name: str, value: Any, *, in_body: bool, as_form: bool) -> None:
    """Send one value, as JSON or as text in a form that overrides the method."""
    path = operation.path.replace("{uuid}", "zzzzz-j7d0g-publicfavorites")
    values = {operation.wrapper: {name: value}} if in_body else {name: value}
    if as_form:
        form = urlencode({"_method": operation.method, **{key: _text(one) for key, one in values.items()}})
        status, text = target.send("POST", path, "", form.encode(), "application/x-www-form-urlencoded")
    else:
        status, text = target.send(operation.method, path, "", json.dumps(values).encode(), "application/json")
    what = f"{operation.resource}.{operation.name} {name} {str(value)[:80]}: {text[:300]}"
    assert status < 500, what
    assert status < 400 or json.loads(text)["errors"][0]


def _names() -> list[tuple[Operation, str, bool]]:
    return [(operation, name, in_body) for operation in OPERATIONS for name, in_body in _each(operation)]


def _users_are_there(target: Target) -> None:
    status, text = target.send("GET", "users/current", "", None, "application/json")
    assert (status, json.loads(text)["is_admin"]) == (200, True)


def test_a_wrong_value_in_any_parameter_or_attribute_is_no_server_error(target: Target) -> None:
    """Every third name, each with another value than its neighbour: all kinds in a short time."""
    names = _names()[::3]
    assert len(names) > 200
    for number, (operation, name, in_body) in enumerate(names):
        value = WRONG[number * 7 % len(WRONG)]
        _try(target, operation, name, value, in_body=in_body, as_form=number % 2 == 0)
    _users_are_there(target)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_several_wrong_values_in_every_parameter_and_attribute_are_no_server_error(target: Target) -> None:
    smaller = WRONG[1:]  # the largest one is in the quick test; here it would be most of the time
    for number, (operation, name, in_body) in enumerate(_names()):
        for turn in range(6):
            value = smaller[(number * 5 + turn * 3) % len(smaller)]
            _try(target, operation, name, value, in_body=in_body, as_form=(number + turn) % 2 == 0)
    _users_are_there(target)


def test_sql_in_a_string_is_a_string(target: Target) -> None:
    project = {"group": {"group_class": "project", "name": SQL.replace("/", ""), "properties": {SQL: SQL}}}
    status, text = target.send("POST", "groups", "", json.dumps(project).encode(), "application/json")
    made = json.loads(text)
    assert (status, made["name"], made["properties"]) == (200, SQL, {SQL: SQL})
    for filters in ([["name", "=", SQL]], [[f"properties.{SQL}", "=", SQL]], [["properties", "exists", SQL]],
                    [["name", "like", SQL]], [["any", "ilike", f"%{SQL}%"]], [["name", "in", [SQL]]]):  # fmt: skip
        query = urlencode({"filters": json.dumps(filters)})
        status, text = target.send("GET", "groups", query, None, "application/json")
        assert (status, [one["uuid"] for one in json.loads(text)["items"]]) == (200, [made["uuid"]]), filters
