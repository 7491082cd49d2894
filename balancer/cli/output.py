"""What commands print: aligned tables, colour where it helps, JSON, and lines of progress.

Data goes to standard output, talk to standard error. Tables have no frames and are never cut when piped.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from balancer.durations import spell


class Color(StrEnum):
    """`--color`; NO_COLOR wins over all, FORCE_COLOR over `auto`."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


_STYLES = {"good": "32", "warn": "33", "bad": "31", "dim": "2", "bold": "1"}

# State is always symbol and word and colour: the colour alone never carries the meaning.
_STATES = {
    "healthy": ("●", "good"),
    "checking": ("○", "warn"),
    "unhealthy": ("✗", "bad"),
    "mismatched": ("≠", "bad"),
    "draining": ("◐", "warn"),
    "drained": ("◌", "dim"),
    "removed": ("-", "dim"),
    "degraded": ("▲", "warn"),
    "paused": ("‖", "warn"),
    "down": ("✗", "bad"),
}


class Painter:
    """Adds colour, or not."""

    def __init__(self, color: Color = Color.AUTO, stream: TextIO | None = None) -> None:
        self.is_on = wants_color(color, stream or sys.stdout)

    def paint(self, style: str, text: str) -> str:
        """Return `text` in a style: good, warn, bad, dim or bold."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.is_on and text else text

    def state(self, word: str) -> str:
        """Return a state as symbol and word."""
        symbol, style = _STATES.get(word, ("?", "dim"))
        return self.paint(style, f"{symbol} {word}")


def wants_color(color: Color, stream: TextIO) -> bool:
    """Decide by option, environment and terminal. Source: no-color.org."""
    if os.environ.get("NO_COLOR"):
        return False
    if color is not Color.AUTO:
        return color is Color.ALWAYS
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[str] = ()) -> list[str]:
    """Return aligned lines; columns named in `right` are set to the right. Colour codes take no room."""
    wide = [max(_width(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    to_right = {index for index, name in enumerate(header) if name in set(right)}
    return ["  ".join(_cells(row, wide, to_right)).rstrip() for row in (header, *rows)]


def fit(header: Sequence[str], rows: Sequence[Sequence[str]], drop: Sequence[str], columns: int) -> list[int]:
    """Return the indexes of the columns to keep so that the table fits; `drop` names those that go, first first."""
    keep = list(range(len(header)))
    wide = [max(_width(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    for name in drop:
        if sum(wide[index] + 2 for index in keep) - 2 <= columns:
            break
        keep = [index for index in keep if header[index] != name]
    return keep


def terminal_columns() -> int | None:
    """Return the width of the terminal, None when standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _cells(row: Sequence[str], wide: Sequence[int], to_right: set[int]) -> list[str]:
    padded = []
    for index, cell in enumerate(row):
        gap = " " * (wide[index] - _width(cell))
        padded.append(gap + cell if index in to_right else cell + gap)
    return padded


def _width(text: str) -> int:
    if "\x1b" not in text:
        return len(text)
    return sum(len(part.partition("m")[2]) if index else len(part) for index, part in enumerate(text.split("\x1b[")))


def say(text: str) -> None:
    """Print talk to standard error."""
    print(text, file=sys.stderr, flush=True)


def emit(document: dict[str, Any], form: str = "json") -> None:
    """Print a document: `json` (for people on a terminal with line breaks), `jsonl` or `yaml`."""
    if form == "yaml":
        from balancer.config.flat import as_yaml

        sys.stdout.write(as_yaml(document))
    else:
        spread = 2 if form == "json" and sys.stdout.isatty() else None
        sys.stdout.write(json.dumps(document, indent=spread, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def age(at: str | None, now: datetime | None = None) -> str:
    """Return how long ago an RFC 3339 time was, in whole seconds; `-` when there is none."""
    if not at:
        return "-"
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(at)).total_seconds())
    return spell(seconds) if seconds > 0 else "0s"
