"""What `top` shows: pure functions from documents of the admin API and the state of the keys to lines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from balancer.cli import lists
from balancer.cli.events import line as event_line
from balancer.cli.output import Painter

Document = dict[str, Any]

BARS = " ▁▂▃▄▅▆▇█"
EVENTS = 8
HELP = "q quit  ↑↓ choose  s sort  r reverse  d drain  u undrain  e events  space hold still"
SORTS: dict[str, Callable[[Document], Any]] = {
    "name": lambda node: node["name"],
    "state": lambda node: (not node["serving"], node["state"]),
    "req/s": lambda node: -node["rates"]["requests_per_s"],
    "p95": lambda node: -(node["rates"]["p95_s"] or 0.0),
    "errors": lambda node: -(node["rates"]["error_ratio"] or 0.0),
    "in flight": lambda node: -node["in_flight"],
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was asked for last. `fault`: why there is nothing newer."""

    status: Document
    series: Document
    events: Sequence[Document] = ()
    fault: str = ""


@dataclass(slots=True)
class Choice:
    """What keys have chosen. `prompt` and `typed`: a reason that is being asked for; `told`: what the last key did."""

    sort: str = "name"
    reverse: bool = False
    node: str = ""
    has_events: bool = True
    is_held: bool = False
    prompt: str = ""
    typed: str = ""
    told: str = field(default="")

    def move(self, names: Sequence[str], step: int) -> None:
        """Choose the next node, or the one before."""
        at = names.index(self.node) if self.node in names else (-1 if step > 0 else len(names))
        if names:
            self.node = names[max(0, min(len(names) - 1, at + step))]

    def next_sort(self) -> None:
        """Sort by the next column."""
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]


def arranged(nodes: Sequence[Document], choice: Choice) -> list[Document]:
    """Return nodes in the order that was chosen."""
    return sorted(nodes, key=SORTS[choice.sort], reverse=choice.reverse)


def lines(seen: Seen, choice: Choice, painter: Painter) -> list[str]:
    """Return the whole screen."""
    nodes = arranged(seen.status["nodes"], choice)
    header, *rows = lists.nodes_table(nodes, painter, wide=False, indent=2)
    shown = [
        lists.headline(seen.status, painter),
        f"{painter.paint('good', bars(seen.series['requests_per_s']))}  {spread(seen.series['requests_per_s'])}",
        "",
        painter.paint("dim", header),
    ]
    for number, row in enumerate(rows):
        is_chosen = number < len(nodes) and nodes[number]["name"] == choice.node
        shown.append(f"{painter.paint('bold', '>') if is_chosen else ' '} {row}")
    shown[3] = f"  {shown[3]}"
    below = lists.footer(seen.status, painter)
    shown += ["", *below] if below else []
    if choice.has_events and seen.events:
        shown += ["", *(event_line(event, painter) for event in reversed(seen.events))]
    return [*shown, "", last_line(seen, choice, painter)]


def last_line(seen: Seen, choice: Choice, painter: Painter) -> str:
    """Return what is asked, what went wrong, what was done, or what keys there are."""
    if choice.prompt:
        return f"{painter.paint('bold', choice.prompt)} {choice.typed}_"
    if seen.fault:
        return painter.paint("bad", seen.fault)
    if choice.told:
        return choice.told
    state = f"by {choice.sort}{' reversed' if choice.reverse else ''}{', held still' if choice.is_held else ''}"
    return painter.paint("dim", f"{state}   {HELP}")  # what a narrow terminal cuts off is the help


def bars(values: Sequence[float | None]) -> str:
    """Return a line of bars, a character a value; the highest one is full, 0 is empty."""
    top = max((value for value in values if value), default=0.0)
    if not top:
        return ""
    return "".join(BARS[round((len(BARS) - 1) * (value or 0.0) / top)] for value in values)


def spread(values: Sequence[float | None]) -> str:
    """Return between what a line of bars lies."""
    known = [value for value in values if value is not None]
    return f"{min(known):.0f} to {max(known):.0f} req/s, last minute" if known else ""
