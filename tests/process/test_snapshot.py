"""Snapshots as text: every value comes back equal."""

import json
import types
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.errors import WireError
from balancer.model import Node, Snapshot
from balancer.snapshot import VERSION, decode, encode

PLAIN = {
    str: st.text(max_size=12),
    int: st.integers(0, 2**40),
    float: st.floats(0, 1e6, allow_nan=False).map(float),
    bool: st.booleans(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type of the model."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.none() | values(next(arg for arg in args if arg is not types.NoneType))
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return st.lists(values(args[0]), max_size=3).map(tuple)
        return st.tuples(*map(values, args))
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{f.name: values(hints[f.name]) for f in fields(kind)})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    return PLAIN[kind]


@given(values(Snapshot))
def test_any_snapshot_comes_back_equal(snapshot: Snapshot) -> None:
    assert decode(encode(snapshot)) == snapshot


def test_a_snapshot_is_immutable() -> None:
    snapshot = decode(encode(Snapshot(1, "c", nodes=(Node("a", 0, "127.0.0.1", 1),))))
    with pytest.raises(AttributeError):
        snapshot.generation = 2  # type: ignore[misc]
    assert hash(snapshot) == hash(decode(encode(snapshot)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"{}", "cannot be read"),
        (json.dumps({"version": VERSION + 1, "snapshot": {}}).encode(), f"version {VERSION + 1}"),
        (json.dumps({"version": VERSION, "snapshot": {"generation": 1}}).encode(), "cannot be read"),
        (json.dumps({"version": VERSION, "snapshot": {"generation": 1, "cluster": "c", "new": 1}}).encode(), "cannot"),
        (json.dumps({"version": VERSION, "snapshot": None}).encode(), "not an object"),
    ],
)
def test_what_is_no_snapshot_of_this_version_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode(text)


def test_the_address_of_a_node_is_written_for_people() -> None:
    assert Node("a", 0, "10.0.0.1", 80).authority == "10.0.0.1:80"
    assert Node("a", 0, "::1", 80).authority == "[::1]:80"
    assert Node("a", 0, "", 0, unix_path="/run/a.sock").authority == "localhost"
