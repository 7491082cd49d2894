"""How numbers, times and states look on a page: pure functions, used as filters in the templates."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from balancer.durations import spell

Document = dict[str, Any]

NOTHING = "\u2013"
CHART_WIDTH, CHART_HEIGHT = 120, 24
# A state is always symbol, word and colour: the colour alone never carries the meaning.
SYMBOLS = {
    "healthy": "●",
    "checking": "○",
    "unhealthy": "✕",
    "mismatched": "≠",
    "draining": "◐",
    "drained": "◌",
    "removed": "\u2212",
    "degraded": "▲",
    "paused": "‖",
    "down": "✕",
}
TONES = {
    "healthy": "good",
    "checking": "warn",
    "unhealthy": "bad",
    "mismatched": "bad",
    "draining": "warn",
    "drained": "calm",
    "removed": "calm",
    "degraded": "warn",
    "paused": "warn",
    "down": "bad",
}


def symbol(word: str) -> str:
    """Return a state's symbol."""
    return SYMBOLS.get(word, "?")


def tone(word: str) -> str:
    """Return a state's tone: good, warn, bad or calm."""
    return TONES.get(word, "calm")


def span(seconds: float | None) -> str:
    """Return `9 ms` or `1.2 s` or `2m10s`."""
    if seconds is None:
        return NOTHING
    text = spell(seconds)
    if text.endswith("ms"):
        return f"{text[:-2]} ms"
    return f"{text[:-1]} s" if seconds < 60 else text


def count(number: float) -> str:
    """Return `12 345`, or `0.4` below ten when it is no whole number."""
    if number < 10 and number % 1 >= 0.05:
        return f"{number:.1f}"
    return f"{number:,.0f}".replace(",", "\u2009")


def percent(share: float | None, digits: int = 1) -> str:
    """Return `0.0 %`."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def age(at: str | None, now: datetime) -> str:
    """Return how long ago it was, in whole seconds at least."""
    return NOTHING if not at else spell(max(1, round((now - datetime.fromisoformat(at)).total_seconds())))


def left(until: str | None, now: datetime) -> str:
    """Return how long it is until then."""
    return NOTHING if not until else spell(max(1, round((datetime.fromisoformat(until) - now).total_seconds())))


def clock(at: str) -> str:
    """Return the time of day, UTC."""
    return datetime.fromisoformat(at).astimezone(UTC).strftime("%H:%M:%S")


def day(at: str) -> str:
    """Return date and time, UTC."""
    return datetime.fromisoformat(at).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def line(values: Sequence[float | None]) -> str:
    """Return the points of an SVG polyline: the newest value at the right edge, 0 at the bottom, gaps left out."""
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    step = CHART_WIDTH / 59
    start = CHART_WIDTH - step * (len(values) - 1)
    found = []
    for index, value in enumerate(values):
        if value is not None:
            height = CHART_HEIGHT - 1.5 - value / top * (CHART_HEIGHT - 3)
            found.append(f"{start + index * step:.1f},{height:.1f}")
    return " ".join(found)


def area(values: Sequence[float | None]) -> str:
    """Return the points of the surface below that line."""
    points = line(values).split()
    if len(points) < 2:
        return ""
    first, last = points[0].partition(",")[0], points[-1].partition(",")[0]
    return f"{first},{CHART_HEIGHT} {' '.join(points)} {last},{CHART_HEIGHT}"


def spread(values: Sequence[float | None]) -> str:
    """Return a chart in words: `0 to 120`."""
    known = [value for value in values if value is not None]
    return f"{count(min(known))} to {count(max(known))}" if known else "nothing yet"


def version(text: str) -> str:
    """Return `1.2 7` of `packageVersion=1.2 schema=7`: in a column the values are what differs."""
    return " ".join(part.partition("=")[2] or part for part in text.split())[:20]


def millis(values: Sequence[float | None]) -> list[float | None]:
    """Return seconds as milliseconds."""
    return [None if value is None else value * 1000 for value in values]


FILTERS = {
    function.__name__: function
    for function in (symbol, tone, span, count, percent, age, left, clock, day, line, area, spread, millis, version)
}
