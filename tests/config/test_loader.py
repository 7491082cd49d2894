"""YAML with positions: YAML 1.2 values, duplicates, limits, variables."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from balancer.config import flat
from balancer.config.errors import Span
from balancer.config.loader import MAX_ALIASES, MAX_BYTES, Document, parse


def document(text: str, **env: str) -> Document:
    return parse(text, "f.yml", env)


def only_fault(text: str, **env: str) -> tuple[int, int, str, str]:
    (fault,) = document(text, **env).faults
    assert fault.span is not None
    return fault.span.line, fault.span.column, fault.message, fault.hint


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8000:30", "8000:30"),  # 480030 in YAML 1.1
        ("off", "off"),
        ("NO", "NO"),
        ("yes", "yes"),
        ("y", "y"),
        ("010", 10),  # 8 in YAML 1.1
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("12:30:45", "12:30:45"),
        ("=", "="),
        ("<<", "<<"),
        ("0b11", "0b11"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        (".inf", float("inf")),
        ("+7", 7),
        ('"7"', "7"),
        ("'true'", "true"),
        ("!!str 7", "7"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    made = document(f"key: {text}")
    assert made.faults == ()
    assert made.data == {"key": value}


def test_a_merge_key_is_only_a_key() -> None:
    assert document("a: &x {k: 1}\nb:\n  <<: *x\n").data == {"a": {"k": 1}, "b": {"<<": {"k": 1}}}


def test_each_key_and_value_has_its_place() -> None:
    made = document("a:\n  - b: 1\n    cc: [x, yy]\n")
    assert made.spans["a", 0, "cc", 1] == Span(3, 13, 15, 3)
    assert made.keys["a", 0, "cc"] == Span(3, 5, 7, 3)
    assert made.place(("a", 0, "nothing", "here")) == made.spans["a", 0]
    assert made.place(("a",)) == made.keys["a",], "a block list is shown by its key"


def test_a_duplicate_key_names_both_places_and_the_first_holds() -> None:
    assert only_fault("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")[:3] == (5, 3, "duplicate key 'c' (first at line 3)")
    assert document("a: 1\na: 2\n").data == {"a": 1}


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("a:\n\t- 1\n", (2, 1), "cannot start any token", "indent with spaces"),
        ("a: b: c\n", (1, 5), "mapping values are not allowed", "quotes"),
        ("a: [1, 2\nb: 3\n", (2, 2), "expected ',' or ']'", "[ has no matching ]"),
        ("a: 1\n---\nb: 2\n", (2, 1), "single document", "remove the second ---"),
        ("a: *nobody\n", (1, 4), "undefined alias", "needs quotes"),
        ("a: {b: ${HOME}}\n", (1, 9), "expected ',' or '}'", "quotes around ${"),
        ("a: 'x\n", (2, 1), "quoted scalar", ""),
        ("a: %x\n", (1, 4), "cannot start any token", "quote a text that begins with %"),
    ],
)
def test_a_syntax_error_says_where_and_what_to_do(text: str, place: tuple[int, int], message: str, hint: str) -> None:
    line, column, said, advice = only_fault(text)
    assert (line, column) == place
    assert said.startswith("not valid YAML: ")
    assert message in said
    assert hint in advice


def test_a_control_character_is_refused_with_its_place() -> None:
    assert only_fault("a: 1\nb: x\x00y\n")[:2] == (2, 5)


def test_tags_that_make_objects_are_refused() -> None:
    assert "is not allowed" in only_fault("a: !!python/object/apply:os.system ['true']\n")[2]
    assert "is not allowed" in only_fault("a: !secret x\n")[2]


def test_a_complex_key_is_refused() -> None:
    assert only_fault("? [a, b]\n: 1\n")[2] == "a key has to be a text"


def test_aliases_are_limited_and_may_not_be_their_own_content() -> None:
    laughs = "a: &a [x, x]\n" + "".join(
        f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "too large" in only_fault(laughs)[2]
    many = "a: &a 1\n" + "".join(f"k{n}: *a\n" for n in range(MAX_ALIASES + 1))
    assert "too large" in only_fault(many)[2]
    assert document("a: &a 1\n" + "".join(f"k{n}: *a\n" for n in range(MAX_ALIASES))).faults == ()
    assert only_fault("a: &a\n  b: *a\n")[2] == "an alias refers to what it stands in"


def test_deep_and_large_files_are_refused() -> None:
    assert "too large" in only_fault("[" * 60 + "]" * 60)[2]
    assert "larger than 1 MiB" in only_fault("a: '" + "x" * MAX_BYTES + "'\n")[2]
    assert "too deep" in only_fault("[" * 1000 + "]" * 1000)[2]


def test_variables_are_replaced_after_parsing() -> None:
    text = 'a: ${N}\nb: "${N}"\nc: x-${T}-y\nd: ${U:-5s}\ne: "$${N}"\nf: ${E:-d}\n'
    made = document(text, N="7", T="t: [1]\nk: v", E="")
    assert made.faults == ()
    assert made.data == {"a": 7, "b": "7", "c": "x-t: [1]\nk: v-y", "d": "5s", "e": "${N}", "f": "d"}
    assert made.variables == {("a",), ("b",), ("c",), ("d",), ("e",), ("f",)}


def test_an_unknown_variable_is_an_error_at_its_place() -> None:
    line, column, message, hint = only_fault("a: 1\nb: x${NOPE}y\n")
    assert (line, column, message) == (2, 5, "the environment variable NOPE is not set")
    assert "${NOPE:-value}" in hint


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.text(st.characters(exclude_characters="$", exclude_categories=["Cs"]), max_size=8), inner, max_size=4
            )
        ),
        max_leaves=10,
    )
)
def test_what_a_yaml_writer_writes_is_read_as_written(value: Any) -> None:
    text = yaml.safe_dump({"v": value}, default_style='"').replace("${", "$${")
    made = document(text)
    assert made.faults == ()
    assert made.data == {"v": _tuples(value)}
    assert set(made.keys) <= set(made.spans)


@given(st.text(max_size=20))
def test_a_text_is_shown_so_that_all_yaml_readers_take_it_for_the_same_text(text: str) -> None:
    shown = f"{flat.scalar(text)}"
    assert document(f"a: {shown}").data == {"a": text}
    assert yaml.safe_load(f"a: {shown.replace('$${', '${')}") == {"a": text}


@given(st.text(max_size=60))
def test_no_text_makes_the_loader_fail(text: str) -> None:
    made = document(text)
    assert all(fault.span is not None or fault.loc for fault in made.faults)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
