"""Faults of a configuration file and how they are shown: place, line, caret, what to write instead."""

import json
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Protocol

from balancer.errors import printable

Loc = tuple[str | int, ...]

_MAX_SHOWN = 160  # characters of a line


class Severity(StrEnum):
    """An error refuses the file, a warning teaches."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Span:
    """A place in the file, lines and columns from 1, `column_end` behind the last character of the first line.

    `is_block`: the value begins on a later line than its key or is empty, so the key is the better place to show.
    """

    line: int
    column: int
    column_end: int
    line_end: int = 0
    is_block: bool = False

    @property
    def width(self) -> int:
        """Characters on the first line."""
        return max(1, self.column_end - self.column)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at `loc`. `span` is set once the place is known; `at_key` asks for the key's place.

    `meant`: of an unknown key, the place of the known one that it looks like.
    """

    loc: Loc
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR
    at_key: bool = False
    span: Span | None = None
    meant: Loc = ()

    @property
    def path(self) -> str:
        """The location as people write it: `nodes.api1.url`, `listen[0].bind`."""
        text = ""
        for part in self.loc:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text


class Source(Protocol):
    """The file that faults are shown in; `lines` already have their secrets masked."""

    @property
    def path(self) -> str:
        """Its name."""
        ...

    @property
    def lines(self) -> Sequence[str]:
        """Its text."""
        ...


def did_you_mean(word: object, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """Return "did you mean 'x'?" for the known word closest to `word`, or "" when none is as like (0 to 1)."""
    found = get_close_matches(str(word), list(known), n=1, cutoff=likeness)
    return f"did you mean '{found[0]}'?" if found else ""


def warning(loc: Loc, message: str, hint: str = "", *, at_key: bool = False) -> Fault:
    """Return a fault that does not refuse the file."""
    return Fault(loc, message, hint, Severity.WARNING, at_key)


def ordered(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Return faults by place, errors before warnings of the same place."""
    origin = Span(1, 1, 1)
    return tuple(sorted(faults, key=lambda f: ((f.span or origin).line, (f.span or origin).column, f.severity)))


Paint = Callable[[str, str], str]  # (style, text) to the text in that style: bad, warn, bold
_STYLES = {Severity.ERROR: "bad", Severity.WARNING: "warn"}


def unpainted(_style: str, text: str) -> str:
    """Return `text` as it is."""
    return text


def as_text(faults: Sequence[Fault], source: Source, paint: Paint = unpainted) -> str:
    """Return all faults with their line and a caret under the place."""
    return "\n".join(_text(fault, source, paint) for fault in faults)


def _text(fault: Fault, source: Source, paint: Paint) -> str:
    style = _STYLES[fault.severity]
    span = fault.span or Span(1, 1, 1)
    path = f"{fault.path}: " if fault.loc else ""
    place = paint("bold", f"{source.path}:{span.line}:{span.column}:")
    head = f"{place} {paint(style, f'{fault.severity}:')} {printable(path + fault.message)}"
    if not 0 < span.line <= len(source.lines):
        return f"{head}\n{' ' * 7}= {fault.hint}" if fault.hint else head
    line = source.lines[span.line - 1]
    shown, start = _window(line, span.column - 1)
    # A tab is kept in the pad, so that the caret stands right whatever the terminal makes of it.
    pad = "".join("\t" if char == "\t" else " " for char in line[start : span.column - 1])
    width = max(1, min(span.width, start + len(shown) - span.column + 1))
    shown = "\t".join("".join(map(_one_column, part)) for part in shown.split("\t"))
    return f"{head}\n{span.line:5} | {shown}\n{'':5} | {pad}{paint(style, '^' * width)} {fault.hint}".rstrip()


def _one_column(char: str) -> str:
    """A character, or one as wide in the place of what would turn the line around."""
    return char if printable(char) == char else "\N{REPLACEMENT CHARACTER}"


def _window(line: str, column: int) -> tuple[str, int]:
    """The part of a long line around a column, and where it begins."""
    if len(line) <= _MAX_SHOWN:
        return line, 0
    start = max(0, min(column - _MAX_SHOWN // 3, len(line) - _MAX_SHOWN))
    shown = line[start : start + _MAX_SHOWN]
    if start + _MAX_SHOWN < len(line):
        shown = shown[:-1] + "…"
    return ("…" + shown[1:] if start else shown), start


def as_json(faults: Sequence[Fault], source: Source) -> str:
    """Return one JSON object with all faults, for programs."""
    return json.dumps(
        {
            "schema": "arv-balance/check/v1",
            "file": source.path,
            "valid": not any(fault.severity is Severity.ERROR for fault in faults),
            "faults": [_plain(fault) for fault in faults],
        },
        indent=2,
    )


def _plain(fault: Fault) -> dict[str, object]:
    span = fault.span or Span(1, 1, 1)
    return {
        "severity": fault.severity.value,
        "path": fault.path,
        "line": span.line,
        "column": span.column,
        "end_column": span.column + span.width,
        "message": fault.message,
        "hint": fault.hint,
    }


def as_github(faults: Sequence[Fault], source: Source) -> str:
    """Return GitHub workflow commands, one a line."""
    return "\n".join(_command(fault, source) for fault in faults)


def _command(fault: Fault, source: Source) -> str:
    span = fault.span or Span(1, 1, 1)
    text = printable(
        f"{fault.path + ': ' if fault.loc else ''}{fault.message}{'; ' + fault.hint if fault.hint else ''}"
    )
    data = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = source.path.replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{fault.severity} file={name},line={span.line},col={span.column}::{data}"


def without_echoes(faults: Iterable[Fault]) -> list[Fault]:
    """Return the faults without those at or below a place that an earlier error already refused."""
    kept: list[Fault] = []
    refused: set[Loc] = set()
    bad_keys: set[Loc] = set()  # what they stand for is looked at all the same
    for fault in faults:
        if fault.loc in bad_keys or any(fault.loc[:end] in refused for end in range(1, len(fault.loc) + 1)):
            continue
        kept.append(fault)
        if fault.severity is Severity.ERROR and fault.loc:
            (bad_keys if fault.at_key else refused).add(fault.loc)
    return kept


def misspelt(faults: Iterable[Fault], written: Container[Loc]) -> frozenset[Loc]:
    """Return places of keys that are there under a name that is nearly theirs; `written`: places of the file."""
    return frozenset(fault.meant for fault in faults if fault.meant and fault.meant not in written)


def placed(fault: Fault, span: Span) -> Fault:
    """Return the fault with its place."""
    return replace(fault, span=span)
