"""The life of one request: lines of our access log and of the nodes' logs, by time, with the nodes' clocks set right.

Pure: lines come in as texts, times are Unix seconds.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Document = dict[str, Any]

# Where loggers keep the time, the words and what is told elsewhere already.
TIMES = ("time", "timestamp", "ts", "@timestamp", "asctime")
WORDS = ("msg", "message", "event", "MESSAGE", "event.name")
_DULL = frozenset({*TIMES, *WORDS, "level", "severity", "pid", "hostname", "RequestID", "request_id", "req_id"})
_JOURNAL_TIME = "__REALTIME_TIMESTAMP"  # of `journalctl -o json`: microseconds
_SHOWN = 8  # other fields of a line


@dataclass(frozen=True, slots=True)
class Exchange:
    """One line of our access log: a request that came under this id. `tried`: (node, what became of it) in order."""

    began_s: float
    ended_s: float
    method: str
    path: str
    client: str
    status: int
    node: str
    waited_s: float
    connect_s: float
    first_byte_s: float
    cause: str
    retry_reason: str
    tried: tuple[tuple[str, str], ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes in the order of the attempts."""
        names = [name for name, _ in self.tried]
        return (*names, self.node) if self.node and (not names or names[-1] != self.node) else tuple(names)


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One line of a node's log. `at_s` by the node's clock; None: the line has no time that can be read."""

    node: str
    at_s: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the answer. `at_s`: since the first of our lines, by our clock."""

    at_s: float
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything. `skew_s`: how far a node's clock is ahead, for those whose lines do not fit as they are."""

    lines: tuple[Line, ...]
    exchanges: tuple[Exchange, ...]
    skew_s: Mapping[str, float]


def exchanges(lines: Iterable[str], request_id: str) -> list[Exchange]:
    """Return what our access log (JSON) has of a request id, oldest first."""
    found = [exchange for line in lines if request_id in line and (exchange := _exchange(line, request_id))]
    return sorted(found, key=lambda exchange: exchange.began_s)


def node_lines(node: str, lines: Iterable[str], request_id: str) -> list[NodeLine]:
    """Return a node's lines that hold the id, as they come."""
    return [_node_line(node, line.strip()) for line in lines if request_id in line]


def traced(ours: Sequence[Exchange], theirs: Sequence[NodeLine]) -> Trace:
    """Merge them. A clock that is off is set right by this: what a node did, it did between our first and last moment.

    Within one exchange attempts follow each other, so the lines of an earlier attempt come before those of a later one
    even when both nodes' clocks leave that open.
    """
    if not ours:
        at = min((line.at_s for line in theirs if line.at_s is not None), default=0.0)
        return Trace(tuple(Line((line.at_s or at) - at, line.node, line.text) for line in theirs), (), {})
    began, ended = ours[0].began_s, max(exchange.ended_s for exchange in ours)
    # No node sees a request that waits; with an attempt that failed, part of the waiting may have come after it.
    reached = min(exchange.began_s + (0.0 if exchange.tried else exchange.waited_s) for exchange in ours)
    skew = {node: skewed for node in _names(theirs) if (skewed := _skew(theirs, node, reached, ended))}
    rows: list[tuple[float, int, Line]] = [
        (at, rank, Line(at - began, "balancer", text)) for exchange in ours for at, rank, text in _moments(exchange)
    ]
    for line in theirs:
        at = min(max((line.at_s or reached) - skew.get(line.node, 0.0), reached), ended)
        rows.append((at, _rank(ours, line.node), Line(at - began, line.node, line.text)))
    return Trace(tuple(line for _, _, line in _in_order(rows)), tuple(ours), skew)


def _in_order(rows: list[tuple[float, int, Line]]) -> list[tuple[float, int, Line]]:
    """By rank of the attempt first where one is known (above 0), and by time within."""
    first = [row for row in rows if row[1] <= 0]
    ranked = sorted((row for row in rows if row[1] > 0), key=lambda row: (row[1], row[0]))
    latest = 0.0
    moved = []
    for at, rank, line in ranked:  # an earlier attempt's line can only be earlier
        latest = max(latest, at)
        moved.append((latest, rank, line))
    return sorted([*first, *moved], key=lambda row: row[:2])


def _rank(ours: Sequence[Exchange], node: str) -> int:
    """Twice the place of the last attempt at a node: our own words about attempts fit between; 0: no attempt."""
    if len(ours) != 1:
        return 0
    nodes = ours[0].nodes
    return 2 * (len(nodes) - nodes[::-1].index(node)) if node in nodes else 0


def _moments(exchange: Exchange) -> list[tuple[float, int, str]]:
    """Our own lines: time, rank, words."""
    began, ended, nodes = exchange.began_s, exchange.ended_s, exchange.nodes
    found = [(began, -1, f"accepted: {exchange.method} {exchange.path} from {exchange.client}")]
    chosen = began + exchange.waited_s
    if exchange.waited_s:
        found.append((chosen, -1, f"waited {exchange.waited_s * 1000:.1f} ms for the end of a pause or for a node"))
    for place, (name, what) in enumerate(exchange.tried, 1):
        again = "; another try" if place < len(nodes) else ""
        found.append((chosen, 2 * place + 1, f"{name}: {what}{again}"))
    if exchange.first_byte_s:
        text = f"{exchange.node}: first byte"
        found.append((began + exchange.first_byte_s, 2 * len(nodes) + 1, text))
    status = f"answered {exchange.status}" if exchange.status else "not answered"
    found.append((ended, 1 << 30, f"{status}: {exchange.cause}, {(ended - began) * 1000:.1f} ms"))
    return found


def _names(lines: Iterable[NodeLine]) -> list[str]:
    return list(dict.fromkeys(line.node for line in lines))


def _skew(lines: Iterable[NodeLine], node: str, began: float, ended: float) -> float:
    """Return how far a node's clock is ahead: 0 when its lines fit between `began` and `ended` as they are.

    All lines a..b of the node have to fit, so the skew lies between b - ended and a - began; the middle is taken.
    """
    times = [line.at_s for line in lines if line.node == node and line.at_s is not None]
    if not times:
        return 0.0
    least, most = max(times) - ended, min(times) - began
    if least <= 0.0 <= most:
        return 0.0
    return (least + most) / 2 if least <= most else most


def _exchange(line: str, request_id: str) -> Exchange | None:
    try:
        found = json.loads(line)
        if found["request_id"] != request_id:
            return None
        ended = datetime.fromisoformat(found["timestamp"]).timestamp()
        query = f"?{found['url.query']}" if found.get("url.query") else ""
        pairs = [item.rpartition(":") for item in found["arv.history"].split(",") if item]
        return Exchange(
            began_s=ended - float(found["http.server.request.duration"]),
            ended_s=ended,
            method=found["http.request.method"],
            path=found["url.path"] + query,
            client=found["client.address"],
            status=int(found["http.response.status_code"]),
            node=found["arv.node"].strip("-"),
            waited_s=float(found["arv.queue_s"]),
            connect_s=float(found["arv.connect_s"]),
            first_byte_s=float(found["arv.ttfb_s"]),
            cause=found["arv.termination"],
            retry_reason=found["arv.retry_reason"],
            tried=tuple((name, what) for name, _, what in pairs),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # not one of our lines


def _node_line(node: str, line: str) -> NodeLine:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return NodeLine(node, None, line)
    at = _time(found)
    inner = found.get("MESSAGE")
    if isinstance(inner, str) and inner.startswith("{"):  # JSON in journald's JSON
        nested = _node_line(node, inner)
        return NodeLine(node, nested.at_s if nested.at_s is not None else at, nested.text)
    return NodeLine(node, at, _told(found))


def _time(found: Mapping[str, Any]) -> float | None:
    if isinstance(found.get(_JOURNAL_TIME), str) and found[_JOURNAL_TIME].isdigit():
        return int(found[_JOURNAL_TIME]) / 1e6
    for name in TIMES:
        value = found.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value / 1000 if value > 1e11 else float(value)
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(_microseconds(value))
            except ValueError:
                continue
            return moment.timestamp() if moment.tzinfo else None  # without its zone it is anybody's guess
    return None


def _microseconds(text: str) -> str:
    """Cut nanoseconds, which Go writes and the parser does not take."""
    head, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return f"{head}.{rest[: min(digits, 6)].ljust(6, '0')}{rest[digits:]}" if dot else text


def _told(found: Mapping[str, Any]) -> str:
    words = next((str(found[name]) for name in WORDS if found.get(name)), "")
    plain = {
        name: value
        for name, value in found.items()
        if name not in _DULL and not name.startswith("_") and isinstance(value, str | int | float) and value != ""
    }
    more = " ".join(f"{name}={value}" for name, value in list(plain.items())[:_SHOWN])
    return " ".join(part for part in (words, more) if part) or json.dumps(found)
