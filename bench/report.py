"""Tables of the results, for a terminal and for RESULTS.md."""

from collections.abc import Sequence

from bench.compare import Results, Spread
from bench.rows import IDLE, MEAN_GOAL, TRAFFIC
from bench.targets import BASE, OURS
from bench.targets.setup import Target

Table = list[list[str]]


def comparison(results: Results, targets: Sequence[Target], rows: Sequence[str]) -> Table:
    """Return the main table: one row a workload, ratios to HAProxy, quartiles in brackets."""
    names = [target.name for target in targets]
    table = [["workload", f"{BASE}, us", *(name for name in names if name != BASE), "goal"]]
    for row in TRAFFIC:
        if row.name in rows:
            base = results.cpu_us(row.name, BASE)
            cells = [_ratio(results, row.name, name) for name in names if name != BASE]
            table.append([row.title, _microseconds(base), *cells, f"<= {row.goal:g}"])
    means = [results.mean(name) for name in names if name != BASE]
    if any(means):
        shown = [f"{mean:.2f}" if mean else "-" for mean in means]
        table.append(["geometric mean of the nine", "", *shown, f"<= {MEAN_GOAL:g}"])
    for idle in IDLE:
        if idle.name in rows:
            cells = [_kib(results.idle_kib.get((idle.name, name))) for name in names if name != BASE]
            table.append([idle.title, _kib(results.idle_kib.get((idle.name, BASE))), *cells, f"<= {idle.goal:g}"])
    return table


def misses(results: Results) -> list[str]:
    """Return a sentence for each goal that we miss."""
    found = []
    for row in TRAFFIC:
        ratio = results.ratio(row.name, OURS)
        if ratio and ratio.middle > row.goal:
            found.append(f"{row.title}: {ratio.middle:.2f}, goal {row.goal:g}")
    for idle in IDLE:
        kib = results.idle_kib.get((idle.name, OURS))
        if kib is not None and kib > idle.goal:
            found.append(f"{idle.title}: {kib:.1f}, goal {idle.goal:g}")
    mean = results.mean(OURS)
    if mean and mean > MEAN_GOAL:
        found.append(f"geometric mean: {mean:.2f}, goal {MEAN_GOAL:g}")
    return found


def text(table: Table) -> str:
    """Return a table for a terminal: first column left, others right."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in ([*zip(line, widths, strict=True)] for line in table)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(line) + " |" for line in table]
    lines.insert(1, "|---|" + "---:|" * (len(table[0]) - 1))
    return "\n".join(lines)


def _ratio(results: Results, row: str, target: str) -> str:
    errors = results.errors(row, target)
    if errors:
        return f"{errors} failed"
    ratio = results.ratio(row, target)
    if ratio:
        return f"{ratio.middle:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    return _microseconds(results.cpu_us(row, target)) + " us" if results.cpu_us(row, target) else "-"


def _microseconds(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.middle:,.1f}" if spread.middle < 1000 else f"{spread.middle:,.0f}"


def _kib(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
