"""Whatever is in the file, checking it ends with faults that have a place, never with an exception."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from balancer.config.errors import as_github, as_json, as_text
from balancer.config.reference import keys
from tests.config.support import loaded
from tests.config.test_mutations import BASE

WORDS = sorted(
    {part for key in keys() for part in key.path.replace("[]", "").split(".")} | {"api1", "dns", "[key]", "<nodes>"}
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2000)
    | st.floats(allow_nan=False)
    | st.sampled_from(
        ["30s", "64KiB", "20%", "200/s", "api1", "http://a", "127.0.0.1:1", "unix:/s", "/p", "${NO}", "GET"]
    )
    | st.text(max_size=5)
)
TREES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=15,
)


def judged(text: str) -> None:
    found = loaded(text, {})
    assert found.is_valid or found.errors
    for fault in found.faults:
        assert fault.span is not None
        assert 1 <= fault.span.line <= len(found.lines) + 1
        assert fault.message
    for show in (as_text, as_json, as_github):
        assert isinstance(show(found.faults, found), str)


@given(st.dictionaries(st.sampled_from(WORDS), TREES, max_size=6))
def test_any_tree_of_known_keys_is_judged(tree: dict[str, Any]) -> None:
    judged(yaml.safe_dump(tree))


@given(st.lists(st.tuples(st.sampled_from(sorted(yaml.safe_load(BASE))), TREES), max_size=3))
def test_a_valid_file_with_other_sections_is_judged(changes: list[tuple[str, Any]]) -> None:
    judged(yaml.safe_dump(yaml.safe_load(BASE) | dict(changes)))


@given(st.data())
def test_a_file_with_a_piece_cut_out_or_doubled_is_judged(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(BASE)))
    end = data.draw(st.integers(start, min(len(BASE), start + 60)))
    judged(BASE[:start] + BASE[start:end] * data.draw(st.sampled_from([0, 2])) + BASE[end:])
