"""Numbers, times and lines as pages show them; readings at even distances."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.control.dashboard import words
from balancer.control.words import STATES, Verdict
from balancer.observe.counts import Counts, PartCounts
from balancer.observe.series import SPANS, Series

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_every_state_has_a_symbol_and_a_tone() -> None:
    for word in (*STATES, *Verdict):
        assert words.symbol(str(word)) != "?"
        assert words.tone(str(word)) in {"good", "warn", "bad", "calm"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "\u2013"), (0.0093, "9 ms"), (1.24, "1.2 s"), (41, "41 s"), (130, "2m10s")]
)
def test_spans(seconds: float | None, text: str) -> None:
    assert words.span(seconds) == text


def test_counts_and_shares() -> None:
    assert [words.count(number) for number in (0, 0.42, 9.0, 84.7, 1234567)] == [
        "0",
        "0.4",
        "9",
        "85",
        "1\u2009234\u2009567",
    ]
    assert [words.percent(share) for share in (None, 0.0, 0.031)] == ["\u2013", "0.0 %", "3.1 %"]


def test_a_version_is_shown_by_its_values() -> None:
    assert words.version("packageVersion=0.1.0 schema=42") == "0.1.0 42"
    assert words.version("2.7.4") == "2.7.4"
    assert words.version("sourceVersion=0123456789abcdef0123456789") == "0123456789abcdef0123"


def test_ages_count_whole_seconds() -> None:
    at = (NOW - timedelta(seconds=0.2)).isoformat()
    assert words.age(at, NOW) == "1s"
    assert words.age(None, NOW) == "\u2013"
    assert words.left((NOW + timedelta(hours=2)).isoformat(), NOW) == "2h"
    assert words.clock("2030-01-01T13:00:00+02:00") == "11:00:00"


@given(st.lists(st.none() | st.floats(0, 1e9), max_size=60))
def test_a_line_stays_in_its_frame_and_ends_at_its_right_edge(values: list[float | None]) -> None:
    points = [tuple(map(float, point.split(","))) for point in words.line(values).split()]
    assert len(points) == sum(value is not None for value in values)
    assert all(-0.1 <= x <= words.CHART_WIDTH and 0 <= y <= words.CHART_HEIGHT for x, y in points)
    if values and values[-1] is not None:
        assert points[-1][0] == words.CHART_WIDTH


def counts(at_s: float, answered: int) -> Counts:
    return Counts(at_s=at_s, accepted=answered, answered=answered, nodes={3: PartCounts(attempts=2 * answered)})


def test_series_keep_a_minute_and_a_quarter_of_an_hour() -> None:
    series = Series()
    for second in range(1000):
        series.add(counts(second + 0.01 * (second % 7), 10 * second))
    minute, quarter = series.points("minute"), series.points("quarter", 3)
    assert (len(minute), len(quarter)) == (SPANS["minute"][1], SPANS["quarter"][1])
    assert all(point.per_s == pytest.approx(10, rel=0.1) for point in minute)
    assert all(point.per_s == pytest.approx(20, rel=0.01) for point in quarter)
    assert series.points("minute", 4) == []


def test_series_do_not_go_below_nothing_when_counters_begin_anew() -> None:
    series = Series()
    for second, answered in enumerate((100, 200, 0)):
        series.add(counts(float(second), answered))
    assert [point.per_s for point in series.points("minute")] == [100, 0]
