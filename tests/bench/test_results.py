"""What the samples say together: pairing, failures, goals, tables."""

import pytest

from bench import report
from bench.compare import Results, Spread
from bench.load import Done, Work, done
from bench.rows import TRAFFIC
from bench.stage import Sample
from bench.targets import TARGETS


def sample(cpu_us: float, errors: int = 0) -> Sample:
    return Sample(cpu_us=cpu_us, errors=errors, units_per_s=1000, p99_us=900, foreign=0.1)


def results(row: str, **cpu_us: list[float]) -> Results:
    made = Results(rounds=1)
    for target, values in cpu_us.items():
        for value in values:
            made.add(row, target.replace("_", "-"), sample(value))
    return made


def test_ratios_are_taken_within_a_round_so_that_drift_of_the_machine_cancels() -> None:
    found = results("small", haproxy=[10, 20, 40], nginx=[9, 18, 36]).ratio("small", "nginx")
    assert found
    assert (found.low, found.middle, found.high) == pytest.approx((0.9, 0.9, 0.9))


def test_a_spread_has_quartiles() -> None:
    assert Spread.of([1, 2, 3, 4, 5]) == Spread(3, 2, 4)
    assert Spread.of([7]) == Spread(7, 7, 7)


def test_a_target_with_failed_requests_shows_them_and_no_figure() -> None:
    made = results("small", haproxy=[10], nginx=[9])
    made.add("small", "nginx", sample(8, errors=3))
    table = report.comparison(made, [TARGETS["haproxy"], TARGETS["nginx"]], ["small"])
    assert table[1][2] == "3 failed"
    assert made.failed() == [("small", "nginx", 3)]


def test_the_mean_needs_all_nine_rows() -> None:
    made = Results(rounds=1)
    for row in TRAFFIC[:-1]:
        made.add(row.name, "haproxy", sample(10))
        made.add(row.name, "nginx", sample(20))
    assert made.mean("nginx") is None
    made.add(TRAFFIC[-1].name, "haproxy", sample(10))
    made.add(TRAFFIC[-1].name, "nginx", sample(20))
    assert made.mean("nginx") == pytest.approx(2.0)


def test_a_missed_goal_is_named_and_a_met_one_is_not() -> None:
    made = results("small", haproxy=[10], arv_balance=[15.1])
    assert report.misses(made) == ["1 KiB GET, small unique heads: 1.51, goal 1.5"]
    assert report.misses(results("small", haproxy=[10], arv_balance=[15])) == []


def test_without_the_base_absolute_figures_are_shown() -> None:
    table = report.comparison(results("small", nginx=[9]), [TARGETS["nginx"]], ["small"])
    assert table[1][1:3] == ["-", "9.0 us"]


def test_large_bodies_are_counted_by_bytes_because_a_run_ends_in_the_middle_of_some() -> None:
    line = "requests=2 bytes=30 duration_us=2000000 p50_us=5 p99_us=9 connect=0 read=1 write=0 timeout=2 status=3"
    assert done(line, Work("small", unit_bytes=10)) == Done(units=3.0, errors=6, seconds=2.0, p50_us=5, p99_us=9)
    assert done(line, Work("small")).units == 2


def test_tables_line_up_and_are_valid_markdown() -> None:
    table = [["a", "b"], ["row", "1.0"]]
    assert report.text(table).splitlines() == ["a      b", "---  ---", "row  1.0"]
    assert report.markdown(table).splitlines() == ["| a | b |", "|---|---:|", "| row | 1.0 |"]
