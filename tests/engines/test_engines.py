"""Every engine behaves as `serve` does, or the fidelity report names where it does not, and is right about it."""

import re
import subprocess
from pathlib import Path

import pytest

from balancer.render.capabilities import FEATURES
from balancer.render.feature import Grade
from tests.engines import page
from tests.engines.conftest import Results, needed
from tests.engines.fronts import NEWER, RUNS, SERVE, engine_of
from tests.engines.scenarios import SCENARIOS
from tests.support.programs import lacking, need

FEATURE = {feature.name: feature for feature in FEATURES}
# Of the whole table; what is below has a page in docs/decisions.
LEAST = {"haproxy": 0.9, "envoy": 0.8, "nginx": 0.65, "caddy": 0.65, "traefik": 0.6}
# Differences that newer engines than those of Debian 12 no longer have.
MENDED = {"nginx": ((1, 23), {"request id: two lines"})}
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240), pytest.mark.xdist_group("engines")]


def test_every_row_has_a_feature_and_every_feature_a_row() -> None:
    assert {row.feature for row in SCENARIOS} == set(FEATURE)
    assert len({row.name for row in SCENARIOS}) == len(SCENARIOS) >= 40


@pytest.mark.parametrize("engine", RUNS)
def test_an_engine_differs_from_serve_exactly_where_its_report_says_so(results: Results, engine: str) -> None:
    needed(results, engine)
    serve, seen = results.seen[SERVE], results.seen[engine]
    unnamed, untrue = [], []
    for row in SCENARIOS:
        named = FEATURE[row.feature].cell(engine_of(engine).name).grade is not Grade.EXACT
        equal = serve[row.name] == seen[row.name]
        if not equal and not named:
            unnamed.append(f"{row.name}: serve {serve[row.name]!r}, {engine} {seen[row.name]!r}")
        if equal and named and row.name not in mended(engine):
            untrue.append(f"{row.name} ({row.feature}): {seen[row.name]!r}")
    assert not unnamed, unnamed
    assert not untrue, untrue


def mended(engine: str) -> set[str]:
    """Rows in which this version of an engine no longer differs."""
    if engine not in MENDED:
        return set()
    since, rows = MENDED[engine]
    said = subprocess.run([need(engine), "-v"], capture_output=True, text=True, check=True, timeout=30)
    found = re.search(r"/(\d+)\.(\d+)\.", said.stdout + said.stderr)
    assert found is not None
    return rows if tuple(map(int, found.groups())) >= since else set()


@pytest.mark.parametrize("engine", RUNS)
def test_an_engine_is_equal_in_most_rows(results: Results, engine: str) -> None:
    needed(results, engine)
    serve, seen = results.seen[SERVE], results.seen[engine]
    equal = sum(serve[row.name] == seen[row.name] for row in SCENARIOS)
    assert equal >= LEAST[engine_of(engine).name] * len(SCENARIOS)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("node ping with percent-encoded letters", "b=4"),
        ("request id: a valid one", "to the node: req-client.1; the same back"),
        ("POST on a node that dies", "502; sent 1 times at most"),
        ("GET on a node that dies", "200; sent 2 times at most"),
        ("log: api_token in a query", "a line, without the secret"),
        ("a sick node that answers 200 with ERROR", "b"),
        ("no return to the better designated node by itself", "a"),
    ],
)
def test_serve_itself_does_what_the_table_is_about(results: Results, row: str, wanted: str) -> None:
    """Otherwise five engines could be equal to a balancer that is wrong."""
    assert results.seen[SERVE][row] == wanted


def test_both_versions_of_haproxy_do_the_same(results: Results) -> None:
    needed(results, NEWER)
    assert results.seen[NEWER] == results.seen["haproxy"]


def test_the_page_of_engines_is_what_this_run_saw(results: Results) -> None:
    if results.missing:
        lacking("; ".join(results.missing.values()))
    newer = [engine for engine in MENDED if mended(engine)]
    if newer:
        lacking(f"Debian 12's {', '.join(newer)}: the page counts its differences")
    path = Path(__file__).parents[2] / "docs/engines.md"
    text = page.text(results.seen)
    before = path.read_text() if path.exists() else ""
    if before != text:
        path.write_text(text)
    assert before == text, "docs/engines.md was out of date and is written anew"
