"""How a cluster and its nodes look on a screen."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from balancer.cli.output import Painter, age, fit, table, terminal_columns
from balancer.durations import spell

Document = dict[str, Any]

HEADER = ("NODE", "STATE", "REQ/S", "P95", "ERR", "IN-FLIGHT", "WEIGHT", "CHECK", "SINCE", "NOTE")
WIDE = ("NODE", "URL", "STATE", "REQ/S", "P50", "P95", "P99", "ERR", "IN-FLIGHT", "TUNNELS", "WEIGHT", "CHECK", "SINCE")
WIDE_MORE = ("VERSION", "ORIGIN", "NOTE")
RIGHT = ("REQ/S", "P50", "P95", "P99", "ERR", "IN-FLIGHT", "TUNNELS", "WEIGHT")
DROP = ("WEIGHT", "SINCE", "ERR", "P95", "CHECK", "NOTE")  # on a narrow terminal, first first
NOTHING = "-"
SLOW_S = 1.0  # a route whose p99 is as long is worth a line
SHOWN_ROUTES = 5


def headline(status: Document, painter: Painter) -> str:
    """Return the cluster in one line."""
    traffic = status["traffic"]
    parts = [
        f"{painter.paint('bold', status['cluster'])}  {painter.state(status['verdict'])}",
        f"{status['serving']}/{status['nodes_total']} serving",
        f"{traffic['requests_per_s']:.0f} req/s",
        f"{traffic['failed']} failed",
    ]
    if traffic["p50_s"] is not None:
        parts.append(f"p50 {milliseconds(traffic['p50_s'])}  p95 {milliseconds(traffic['p95_s'])}")
    parts.append(f"in flight {of(traffic['in_flight'], traffic['capacity'])}")
    parts += [f"{traffic[name]} {name}" for name in ("queued", "parked") if traffic[name]]
    return "   ".join(parts)


def nodes_table(nodes: Sequence[Document], painter: Painter, *, wide: bool, indent: int = 0) -> list[str]:
    """Return the lines of the table; on a narrow terminal the least important columns go, and that is said."""
    header = (*WIDE, *WIDE_MORE) if wide else HEADER
    rows = [[_cell(name, node, painter) for name in header] for node in nodes]
    columns = terminal_columns()
    if columns is None or wide:
        return table(header, rows, right=RIGHT)
    keep = fit(header, rows, DROP, columns - indent)
    lines = table([header[i] for i in keep], [[row[i] for i in keep] for row in rows], right=RIGHT)
    return lines if len(keep) == len(header) else [*lines, painter.paint("dim", "(wide: -o wide)")]


def _cell(column: str, node: Document, painter: Painter) -> str:
    rates = node["rates"]
    cells: dict[str, Callable[[], str]] = {
        "NODE": lambda: str(node["name"]),
        "STATE": lambda: painter.state(node["state"]),
        "REQ/S": lambda: f"{rates['requests_per_s']:.0f}",
        "P50": lambda: milliseconds(rates["p50_s"]),
        "P95": lambda: milliseconds(rates["p95_s"]),
        "P99": lambda: milliseconds(rates["p99_s"]),
        "ERR": lambda: NOTHING if rates["error_ratio"] is None else f"{100 * rates['error_ratio']:.1f}%",
        "IN-FLIGHT": lambda: of(node["in_flight"], node["capacity"]),
        "CHECK": lambda: _check(node["check"]),
        "SINCE": lambda: age(node["since"]),
        "NOTE": lambda: note(node),
    }
    return cells[column]() if column in cells else str(node[column.lower()]) or NOTHING


def _check(check: Document) -> str:
    if check["ok"] is None:
        return NOTHING
    return f"OK {milliseconds(check['duration_s'])}" if check["ok"] else "failed"


def note(node: Document) -> str:
    """Return why a node is as it is: what people said, else what its check says."""
    told = [intent_note(intent) for intent in node["intents"] if intent["kind"] != "add"]
    if told:
        return "; ".join(told)
    return "" if node["check"]["ok"] is not False else str(node["check"]["text"])


def intent_note(intent: Document) -> str:
    """Return `disk swap (root, 9s ago, until 14:05)`."""
    what = intent["reason"] or intent["kind"]
    until = ""
    if intent["until"]:
        left = (datetime.fromisoformat(intent["until"]) - datetime.now(UTC)).total_seconds()
        until = f", ends in {spell(max(0.0, left))}"
    return f"{what} ({intent['who']}, {age(intent['at'])} ago{until})"


def footer(status: Document, painter: Painter) -> list[str]:
    """Return what is worth a line below the table."""
    lines = [painter.paint("warn", cause) for cause in status["causes"]]
    for item in status["designations"]:
        holder = item["node"] or "nobody"
        since = f", since {age(item['since'])}" if item["since"] else ""
        why = item["now"] or item["why"]
        lines.append(f"designated {item['name']}: {holder}  epoch {item['epoch']}{since}  ({why})")
    lines += [painter.paint("warn", route_line(route)) for route in troubled(status["routes"])]
    lines += [dns_line(target) for target in (status.get("dns") or {}).get("targets", ())]
    if status["upgrade"] and status["upgrade"]["open"]:
        lines.append(painter.paint("warn", upgrade_line(status["upgrade"])))
    gone = "{0} of the configuration is removed: arv-balance nodes forget {0}"
    lines += [painter.paint("dim", gone.format(name)) for name in status["removed"]]
    return lines


def troubled(routes: Sequence[Document]) -> list[Document]:
    """Return the routes that fail or are slow, the worst first."""
    found = [route for route in routes if route["rates"]["failed"] or (route["rates"]["p99_s"] or 0.0) >= SLOW_S]
    found.sort(key=lambda route: (-route["rates"]["failed"], -(route["rates"]["p99_s"] or 0.0)))
    return found[:SHOWN_ROUTES]


def route_line(route: Document) -> str:
    """Return a route in one line."""
    rates, name = route["rates"], f"route {route['name']}" if route["name"] else "no named route"
    parts = [f"{rates['requests_per_s']:.0f} req/s", f"p99 {milliseconds(rates['p99_s'])}"]
    if rates["failed"]:
        parts.append(f"{rates['failed']} failed in the last minute")
    return f"{name}: {', '.join(parts)}"


def dns_line(target: Document) -> str:
    """Return a DNS target in one line."""
    sends = f"{target['holder']} sends, epoch {target['epoch']}" if target["holder"] else "nobody sends"
    left = [f"{target[name]} {name}" for name in ("pending", "conflict", "failed", "held") if target[name]]
    return f"DNS {target['name']}: {target['records']} records{''.join(f', {text}' for text in left)}  ({sends})"


def upgrade_line(upgrade: Document) -> str:
    """Return an open upgrade in one line."""
    by = f"driven by {upgrade['driver']}" if upgrade["driver"] else "no command drives it: arv-balance upgrade resume"
    turned = "aborting, " if upgrade["phase"] == "aborting" else ""
    return f"upgrade {upgrade['id']}: {turned}{upgrade['done']} of {upgrade['steps']} steps, {upgrade['doing']}  ({by})"


def milliseconds(seconds: float | None) -> str:
    """Return `9ms` or `1.2s`."""
    return NOTHING if seconds is None else spell(seconds)


def of(count: int, limit: int | None) -> str:
    """Return `6/64`, or `6` without a limit."""
    return f"{count}/{limit}" if limit else str(count)
