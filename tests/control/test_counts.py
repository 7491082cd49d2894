"""Rates, quantiles and shares out of counters."""

from hypothesis import given
from hypothesis import strategies as st

from balancer import scoreboard as sb
from balancer.durations import parse, spell
from balancer.observe.counts import Counts, NodeCounts, Trend, quantile, read

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


def test_nothing_measured_is_no_number() -> None:
    assert quantile([0] * CELLS, 0.5) is None


def test_rates_are_over_the_last_ten_seconds_and_failures_over_a_minute() -> None:
    trend = Trend()
    for second in range(100):
        node = NodeCounts(attempts=5 * second, failed=second, durations=tuple([second] + [0] * (CELLS - 1)))
        trend.add(
            Counts(
                at_s=float(second),
                accepted=10 * second,
                answered=10 * second,
                failed=2 * second,
                durations=tuple([10 * second] + [0] * (CELLS - 1)),
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
        assert found.durations[0] == 128
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
