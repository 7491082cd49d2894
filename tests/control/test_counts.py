"""Rates, quantiles and shares out of counters."""

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancer import scoreboard as sb
from balancer.durations import parse, spell
from balancer.net.nodes import observe_marked
from balancer.observe.counts import REST, Counts, PartCounts, Timing, Trend, quantile, read
from tests.control.harness import nodes, rig, until

CELLS = len(sb.BUCKETS_S) + 2


def histogram(*values_s: float) -> list[int]:
    cells = [0] * CELLS
    for value in values_s:
        cells[next((i for i, bound in enumerate(sb.BUCKETS_S) if value <= bound), len(sb.BUCKETS_S))] += 1
    return cells


@given(st.lists(st.floats(0.0001, 250), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_value(values: list[float], share: float) -> None:
    exact = sorted(values)[max(0, min(len(values) - 1, -int(-share * len(values) // 1) - 1))]
    bounds = (0.0, *sb.BUCKETS_S)
    upper = next(bound for bound in sb.BUCKETS_S if exact <= bound)
    lower = bounds[bounds.index(upper) - 1]
    found = quantile(histogram(*values), share)
    assert found is not None
    assert lower <= found <= upper


@example(values=[301.0, 301.0, 642.3032058788409], share=1.0)
@given(st.lists(st.floats(0.0001, 1000), min_size=1, max_size=50), st.floats(0.01, 1))
def test_no_quantile_is_above_the_slowest_that_was_measured(values: list[float], share: float) -> None:
    exact = sorted(values)[max(0, min(len(values) - 1, -int(-share * len(values) // 1) - 1))]
    found = quantile(histogram(*values), share, max(values))
    assert found is not None
    assert max((bound for bound in (0.0, *sb.BUCKETS_S) if bound < exact), default=0.0) <= found <= max(values)


def test_the_slowest_of_a_span_is_not_one_of_before() -> None:
    board = sb.Scoreboard.create(0)
    try:
        board.cells[sb.H_ROWS] = 1
        base = sb.row(0) + sb.W_LISTENERS + sb.L_DURATION
        observe_marked(board.cells, base, [int(29.6e9)], 100)
        before = read(board, [], 110.0)
        observe_marked(board.cells, base, [int(0.1e9), int(10.6e9)], 112)
        observe_marked(board.cells, base, [int(0.2e9)], 112)  # a shorter one of the same second changes nothing
        spent = read(board, [], 113.0).timing.since(before.timing, before.at_s)
        assert spent.slowest_s == 10.6
        assert spent.quantile(0.99) == pytest.approx(10.6, abs=0.05)
        observe_marked(board.cells, base, [int(0.3e9)], 112 + sb.SLOWEST_CELLS)  # the ring comes round
        late = read(board, [], 132.0)
        assert late.timing.since(before.timing, 131.0).slowest_s == 0.3
    finally:
        board.close()


def test_what_no_route_matched_is_what_is_left() -> None:
    board = sb.Scoreboard.create(0)
    try:
        board.cells[sb.H_ROWS] = 1
        row = sb.row(0)
        listener, route = row + sb.W_LISTENERS, sb.route_cell(0, 3)
        observe_marked(board.cells, listener + sb.L_DURATION, [2_000_000, 3_000_000, 4_000_000], 1)
        observe_marked(board.cells, route + sb.R_DURATION, [2_000_000, 3_000_000], 1)
        board.cells[listener + sb.L_REQUESTS + sb.CODES.index(500)] = 3
        board.cells[route + sb.R_FAILED] = 2
        found = read(board, [], 2.0, [3, sb.MAX_ROUTES])
        assert {slot: (part.attempts, part.failed) for slot, part in found.routes.items()} == {3: (2, 2), REST: (1, 1)}
        assert read(board, [], 2.0).routes == {}
    finally:
        board.close()


def test_nothing_measured_is_no_number() -> None:
    assert quantile([0] * CELLS, 0.5) is None


def test_rates_are_over_the_last_ten_seconds_and_failures_over_a_minute() -> None:
    trend = Trend()
    for second in range(100):
        node = PartCounts(5 * second, second, Timing((second, *[0] * (CELLS - 1))))
        trend.add(
            Counts(
                at_s=float(second),
                accepted=10 * second,
                answered=10 * second,
                failed=2 * second,
                timing=Timing((10 * second, *[0] * (CELLS - 1))),
                nodes={3: node},
            )
        )
    cluster = trend.cluster()
    assert (cluster.per_s, cluster.failed, cluster.error_ratio) == (10.0, 120, 0.2)
    assert cluster.p50_s is not None
    assert cluster.p50_s <= sb.BUCKETS_S[0]
    assert (trend.node(3).per_s, trend.node(3).error_ratio) == (5.0, 0.2)
    assert trend.node(4).per_s == 0


def test_failures_are_server_errors_cut_answers_and_lost_exchanges() -> None:
    board = sb.Scoreboard.create(0)
    try:
        board.cells[sb.H_ROWS] = 2
        for slot in (0, 1):
            base = sb.row(slot)
            board.cells[base + sb.W_OUT_NODE_CUT] = 1
            board.cells[base + sb.W_OUT_WORKER_LOST] = 2
            listener = base + sb.W_LISTENERS
            for code, count in ((200, 50), (404, 7), (502, 3), (503, 4)):
                board.cells[listener + sb.L_REQUESTS + sb.CODES.index(code)] = count
            board.cells[listener + sb.L_DURATION] = 64
        found = read(board, [0], 1.0)
        assert found.failed == 2 * (1 + 2 + 3 + 4)
        assert found.timing.cells[0] == 128
    finally:
        board.close()


@given(st.floats(0, 1e7))
def test_a_span_is_written_in_at_most_two_units(seconds: float) -> None:
    text = spell(seconds)
    assert len([char for char in text if char.isalpha() and char != "m"]) <= 2
    assert abs(parse(text) - seconds) <= max(0.51, 0.1 * seconds if seconds >= 3600 else 0.51)


def test_spans_that_people_know() -> None:
    assert [spell(value) for value in (0, 0.0042, 0.85, 3.14, 41, 130, 3600, 11100, 90061)] == [
        "0ms",
        "4ms",
        "850ms",
        "3.1s",
        "41s",
        "2m10s",
        "1h",
        "3h5m",
        "1d1h",
    ]


async def test_the_slowest_request_of_an_upgrade_is_known_after_its_mark_is_gone_and_control_has_died() -> None:
    """Marks stand for some seconds, an upgrade takes hours: 30 s before it are not its, 2.3 s within it stay."""
    first = sb.row(0) + sb.W_LISTENERS + sb.L_DURATION
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")

        def took(seconds: float, *, ago_s: int = 0) -> None:
            observe_marked(control.board.cells, first, [int(seconds * 1e9)], time.monotonic_ns() // 10**9 - ago_s)

        async def totals() -> dict[str, Any]:
            found: dict[str, Any] = (await control.get("/v1/upgrade"))["totals"]
            return found

        took(30, ago_s=15)
        steps = [{"do": do, "node": "api1"} for do in ("drain", "stop", "upgrade", "start", "ready", "undrain")]
        begun = {"mode": "rolling", "nodes": ["api1"], "steps": steps, "digest": "x", "plan": "p"}
        await control.post("/v1/upgrade", id="first", **begun)
        assert (await totals())["slowest_s"] is None
        took(2.3)
        await until(
            lambda: control.board.cells[sb.H_UPGRADE_SLOWEST_US] == 2_300_000
        )  # nobody asks: it is read each second
        marks = slice(first + sb.HISTOGRAM_CELLS, first + sb.TIMING_CELLS)
        control.board.cells[marks] = memoryview(bytes(8 * sb.SLOWEST_CELLS)).cast("Q")
        await control.kill()
        await control.start()
        took(0.2)
        found = await totals()
        assert found["slowest_s"] == 2.3
        assert found["p99_s"] <= 2.3
        ticket = (await control.post("/v1/upgrade/attach"))["ticket"]
        await control.post("/v1/upgrade/abort", ticket=ticket)
        await control.post("/v1/upgrade/end", ticket=ticket)
        took(0.3)
        assert (await totals())["slowest_s"] == 2.3  # it is over
        await control.post("/v1/upgrade", id="second", **begun)
        assert (await totals())["slowest_s"] != 2.3
