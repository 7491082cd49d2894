"""Metrics in Prometheus' format, read from the scoreboard at each scrape: what is shown is what workers count."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from balancer import scoreboard as sb
from balancer.model import Outcome
from balancer.observe.counts import total, totals, used_rows

PREFIX = "arv_balance_"
CHECK_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
STATES = ("checking", "healthy", "unhealthy", "mismatched", "draining", "drained")

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric. `kind`: counter, gauge, histogram or info; `name` without prefix and `_total`."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exposed(self) -> str:
        """The name as Prometheus shows it."""
        return PREFIX + self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


_C, _G, _H, _I = "counter", "gauge", "histogram", "info"
SPECS = (
    Spec("build", _I, "Version of the balancer.", ("version", "python")),
    Spec("config", _I, "Configuration that runs.", ("sha256",)),
    Spec("config_last_reload_successful", _G, "1 when the newest reading of the configuration was used, else 0."),
    Spec("config_last_reload_success_timestamp_seconds", _G, "When the configuration that runs was read."),
    Spec(
        "exchanges",
        _C,
        "Exchanges that ended, by how; with exchanges_open they add up to those accepted.",
        ("outcome",),
    ),
    Spec("exchanges_accepted", _C, "Exchanges accepted."),
    Spec("exchanges_open", _G, "Exchanges under way, waiting ones too."),
    Spec(
        "requests",
        _C,
        "Answers by listener, method and status; code `other` is a rare one.",
        ("listener", "method", "code"),
    ),
    Spec(
        "request_duration_seconds",
        _H,
        "From the request's head to the end of the answer; without tunnels.",
        ("listener",),
    ),
    Spec("route_request_duration_seconds", _H, "The same by named route, of the first 64.", ("route",)),
    Spec("route_failures", _C, "Answers 5xx and cut ones by named route.", ("route",)),
    Spec("overhead_seconds", _H, "Time in the balancer itself, waiting excluded."),
    Spec("requests_in_flight", _G, "Exchanges at nodes."),
    Spec("requests_rejected", _C, "Answers of our own by reason.", ("reason",)),
    Spec("request_body_bytes", _C, "Bytes of request bodies."),
    Spec("response_body_bytes", _C, "Bytes of response bodies."),
    Spec("client_connections", _G, "Open connections of clients."),
    Spec("client_connections_opened", _C, "Connections of clients ever accepted."),
    Spec("tunnels", _G, "Open upgraded connections."),
    Spec("tls_handshakes", _C, "TLS handshakes with clients by result.", ("result",)),
    Spec("tls_certificate_not_after_timestamp_seconds", _G, "When a listener's certificate ends.", ("name",)),
    Spec("retries", _C, "Attempts repeated, by what had failed.", ("reason",)),
    Spec(
        "retried_exchanges",
        _C,
        "Exchanges with a failed attempt: recovered, failed, refused (not repeatable).",
        ("outcome",),
    ),
    Spec("queue_depth", _G, "Exchanges that wait for a node under its capacity."),
    Spec("queue_duration_seconds", _H, "Time in the queue."),
    Spec("paused", _G, "1 while an operator has paused traffic."),
    Spec("parked", _G, "Exchanges that wait because traffic is paused or no node can serve."),
    Spec("parked_bytes", _G, "Memory that parked exchanges hold."),
    Spec("parked_oldest_seconds", _G, "How long the oldest parked exchange has waited."),
    Spec("upgrade_open", _G, "1 while an upgrade is not over, also when no command drives it."),
    Spec("upgrade_driven", _G, "1 while a command drives the upgrade."),
    Spec("upgrade_steps_left", _G, "Steps that the open upgrade has to do yet."),
    Spec("node_up", _G, "1 when the node takes new exchanges.", ("node",)),
    Spec("node_state", _G, "1 for the state that the node is in, 0 for the others.", ("node", "state")),
    Spec("node_state_changes", _C, "Changes of state; cause: check, passive, admin, version.", ("node", "to", "cause")),
    Spec("node_requests", _C, "Answers of the node by class of status.", ("node", "code_class")),
    Spec("node_attempts", _C, "Attempts at the node.", ("node",)),
    Spec("node_errors", _C, "Attempts that failed, by how.", ("node", "reason")),
    Spec("node_request_duration_seconds", _H, "From sending to the end of the node's answer.", ("node",)),
    Spec("node_time_to_first_byte_seconds", _H, "From sending to the first byte of the node's answer.", ("node",)),
    Spec("node_in_flight", _G, "Exchanges at the node.", ("node",)),
    Spec("node_tunnels", _G, "Upgraded connections to the node.", ("node",)),
    Spec("node_capacity", _G, "Exchanges that the node takes at once; 0 without limit.", ("node",)),
    Spec("node_weight", _G, "Weight as configured or changed.", ("node",)),
    Spec("node_effective_weight", _G, "Weight now: slow start applied, 0 while it takes nothing.", ("node",)),
    Spec("node_connections_idle", _G, "Kept connections without an exchange.", ("node",)),
    Spec("node_connects", _C, "Connections opened.", ("node",)),
    Spec("node_connection_reuse", _C, "Attempts on a kept connection.", ("node",)),
    Spec("node_health_checks", _C, "Checks by result.", ("node", "result")),
    Spec("node_health_check_duration_seconds", _H, "Duration of checks.", ("node",)),
    Spec("node_health_check_timestamp_seconds", _G, "When the newest check ended.", ("node",)),
    Spec("node", _I, "Version that the node says it runs.", ("node", "version")),
    Spec("designation", _I, "Node that holds a designation.", ("name", "node")),
    Spec("designation_epoch", _G, "Number of the decision; grows by one each time it moves.", ("name",)),
    Spec("intents", _G, "Changes by operators that stand.", ("kind", "actor")),
    Spec("admin_actions", _C, "Requests for a change through the admin API.", ("action", "result")),
    Spec("workers", _G, "Worker processes."),
    Spec("worker_restarts", _C, "Workers replaced since the start."),
    Spec("event_loop_lag_seconds", _G, "Longest turn of a worker's loop since it started.", ("worker",)),
    Spec("log_lines", _C, "Lines of the access log."),
    Spec("log_lines_dropped", _C, "Lines dropped because the log's reader was too slow."),
    Spec("events_lost", _C, "Events that could not be written to the disk."),
    Spec("peer_up", _G, "1 when another balancer answers as one of ours.", ("peer",)),
    Spec("peer_differences", _G, "In how many points another balancer is not as this one.", ("peer",)),
)
BY_NAME = {spec.name: spec for spec in SPECS}


@dataclass(slots=True)
class Tallies:
    """What control counts itself. Series of a node go away with it."""

    state_changes: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # node, to, cause
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)  # action, result
    checks: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * (len(CHECK_BUCKETS_S) + 1)))
    check_seconds: Counter[str] = field(default_factory=Counter)

    def check(self, node: str, duration_s: float) -> None:
        """Count a check."""
        index = sum(duration_s > bound for bound in CHECK_BUCKETS_S)
        self.checks[node][index] += 1
        self.check_seconds[node] += duration_s  # type: ignore[assignment]  # a Counter holds floats as well

    def keep(self, nodes: Iterable[str]) -> None:
        """Forget nodes that are not among these."""
        known = set(nodes)
        for node in self.checks.keys() - known:
            del self.checks[node]
            self.check_seconds.pop(node, None)
        for key in [key for key in self.state_changes if key[0] not in known]:
            del self.state_changes[key]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the scoreboard does not hold about a node. `checked_at`: Unix time, None before the first check."""

    name: str
    slot: int
    state: str
    is_serving: bool
    weight: int
    effective_weight: int
    capacity: int
    version: str = ""
    checked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the scoreboard does not hold. Times are Unix time; `oldest_parked_s` is an age."""

    version: str
    python: str
    config_sha256: str
    config_ok: bool
    config_at: float
    nodes: Sequence[NodeFacts]
    listeners: Mapping[int, str]
    routes: Mapping[int, str]  # those that are counted apart
    workers: Sequence[int]
    intents: Mapping[tuple[str, str], int]
    designations: Sequence[tuple[str, str | None, int]]  # name, node, epoch
    certificates: Mapping[str, float]
    peers: Sequence[tuple[str, bool, int]]  # name, whether it answers, in how much it differs
    is_paused: bool
    upgrade: Mapping[str, Any] | None  # members open, steps, done, driver; None when there never was one
    oldest_parked_s: float
    events_lost: int
    tallies: Tallies


class Metrics(Collector):
    """Collects at each scrape. `facts` is asked once a scrape."""

    def __init__(self, board: sb.Scoreboard, facts: Callable[[], Facts]) -> None:
        self._board = board
        self._facts = facts

    def collect(self) -> Iterator[Family]:
        """Yield all families, in the order of `SPECS`."""
        facts, rows = self._facts(), used_rows(self._board)
        made = {spec.name: _family(spec) for spec in SPECS}
        for fill in (_service, _traffic, _waiting, _nodes, _node_traffic, _administration):
            fill(made, self._board, rows, facts)
        yield from made.values()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return body and content type for a scraper's Accept field."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        encoder, content_type = choose_encoder(accept)
        return encoder(registry), content_type


Made = Mapping[str, Family]


def _family(spec: Spec) -> Family:
    kinds: dict[str, type[Family]] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
        "info": InfoMetricFamily,
    }
    return kinds[spec.kind](PREFIX + spec.name, spec.help, labels=spec.labels if spec.kind != "info" else ())


def _set(made: Made, name: str, value: float, *labels: str) -> None:
    family = made[name]
    if not isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        raise TypeError(f"{name} holds no single value")
    family.add_metric(labels, value)


def _info(made: Made, name: str, *labels: str) -> None:
    family = made[name]
    if not isinstance(family, InfoMetricFamily):
        raise TypeError(f"{name} is no info")
    family.add_metric((), dict(zip(BY_NAME[name].labels, labels, strict=True)))


def _histogram(
    made: Made, name: str, counts: Sequence[int], sum_s: float, *labels: str, bounds: Sequence[float] = sb.BUCKETS_S
) -> None:
    family = made[name]
    if not isinstance(family, HistogramMetricFamily):
        raise TypeError(f"{name} is no histogram")
    cumulative, buckets = 0, []
    for bound, count in zip((*map(_bound, bounds), "+Inf"), counts, strict=True):
        cumulative += count
        buckets.append((bound, cumulative))
    family.add_metric(labels, buckets, sum_s)


def _bound(value: float) -> str:
    return str(float(value))


def _cells(made: Made, name: str, cells: Sequence[int], *labels: str) -> None:
    _histogram(made, name, cells[:-1], cells[-1] / 1e6, *labels)


def _service(made: Made, board: sb.Scoreboard, rows: range, facts: Facts) -> None:
    _info(made, "build", facts.version, facts.python)
    _info(made, "config", facts.config_sha256)
    _set(made, "config_last_reload_successful", int(facts.config_ok))
    _set(made, "config_last_reload_success_timestamp_seconds", facts.config_at)
    _set(made, "workers", len(facts.workers))
    _set(made, "worker_restarts", board.cells[sb.H_RESTARTS])
    for worker in facts.workers:
        _set(made, "event_loop_lag_seconds", board.cells[sb.row(worker) + sb.W_LOOP_LAG_MAX_NS] / 1e9, str(worker))
    _set(made, "log_lines", total(board, rows, sb.W_LOG_LINES))
    _set(made, "log_lines_dropped", total(board, rows, sb.W_LOG_DROPPED))
    _set(made, "events_lost", facts.events_lost)
    for name, answers, differences in facts.peers:
        _set(made, "peer_up", int(answers), name)
        _set(made, "peer_differences", differences, name)
    for name, not_after in facts.certificates.items():
        _set(made, "tls_certificate_not_after_timestamp_seconds", not_after, name)


def _traffic(made: Made, board: sb.Scoreboard, rows: range, facts: Facts) -> None:
    ledger = board.ledger(len(rows))
    for outcome in Outcome:
        _set(made, "exchanges", ledger.outcomes[outcome], outcome.value)
    _set(made, "exchanges_accepted", ledger.accepted)
    _set(made, "exchanges_open", ledger.open)
    for slot, listener in facts.listeners.items():
        base = sb.W_LISTENERS + slot * sb.L_CELLS
        counts = totals(board, rows, base + sb.L_REQUESTS, len(sb.METHODS) * len(sb.CODES))
        for index, count in enumerate(counts):
            if count:
                method, code = sb.METHODS[index // len(sb.CODES)], sb.CODES[index % len(sb.CODES)]
                _set(made, "requests", count, listener, method, str(code) if code else "other")
        durations = totals(board, rows, base + sb.L_DURATION, sb.HISTOGRAM_CELLS)
        _cells(made, "request_duration_seconds", durations, listener)
    for slot, route in facts.routes.items():
        base = sb.W_ROUTES + slot * sb.R_CELLS
        _cells(
            made, "route_request_duration_seconds", totals(board, rows, base + sb.R_DURATION, sb.HISTOGRAM_CELLS), route
        )
        _set(made, "route_failures", total(board, rows, base + sb.R_FAILED), route)
    _cells(made, "overhead_seconds", totals(board, rows, sb.W_OVERHEAD_HISTOGRAM, sb.HISTOGRAM_CELLS))
    _set(made, "requests_in_flight", sum(map(board.busy, rows)))
    for index, reason in enumerate(sb.REJECT_REASONS):
        _set(made, "requests_rejected", total(board, rows, sb.W_REJECTED + index), reason)
    for name, cell in (
        ("request_body_bytes", sb.W_REQUEST_BYTES),
        ("response_body_bytes", sb.W_RESPONSE_BYTES),
        ("client_connections", sb.W_CONNECTIONS),
        ("client_connections_opened", sb.W_CONNECTIONS_TOTAL),
        ("tunnels", sb.W_TUNNELS),
    ):
        _set(made, name, total(board, rows, cell))
    failed = total(board, rows, sb.W_TLS_FAILED)
    _set(made, "tls_handshakes", total(board, rows, sb.W_TLS_HANDSHAKES), "done")
    _set(made, "tls_handshakes", failed, "failed")
    for reason, cell in (
        ("connect", sb.W_RETRIES_CONNECT),
        ("reset", sb.W_RETRIES_RESET),
        ("truncated", sb.W_RETRIES_TRUNCATED),
    ):
        _set(made, "retries", total(board, rows, cell), reason)
    for outcome_name, cell in (
        ("recovered", sb.W_RETRIES_RECOVERED),
        ("failed", sb.W_RETRIES_FAILED),
        ("refused", sb.W_RETRIES_REFUSED),
    ):
        _set(made, "retried_exchanges", total(board, rows, cell), outcome_name)


def _waiting(made: Made, board: sb.Scoreboard, rows: range, facts: Facts) -> None:
    _set(made, "queue_depth", total(board, rows, sb.W_QUEUED))
    _cells(made, "queue_duration_seconds", totals(board, rows, sb.W_QUEUE_HISTOGRAM, sb.HISTOGRAM_CELLS))
    _set(made, "paused", int(facts.is_paused))
    _set(made, "parked", total(board, rows, sb.W_PARKED))
    _set(made, "parked_bytes", total(board, rows, sb.W_PARKED_BYTES))
    _set(made, "parked_oldest_seconds", facts.oldest_parked_s)
    upgrade = facts.upgrade if facts.upgrade and facts.upgrade["open"] else None
    _set(made, "upgrade_open", int(upgrade is not None))
    _set(made, "upgrade_driven", int(upgrade is not None and bool(upgrade["driver"])))
    _set(made, "upgrade_steps_left", upgrade["steps"] - upgrade["done"] if upgrade else 0)


def _nodes(made: Made, board: sb.Scoreboard, _rows: range, facts: Facts) -> None:
    tallies = facts.tallies
    for node in facts.nodes:
        _set(made, "node_up", int(node.is_serving), node.name)
        for state in STATES:
            _set(made, "node_state", int(state == node.state), node.name, state)
        _set(made, "node_capacity", node.capacity, node.name)
        _set(made, "node_weight", node.weight, node.name)
        _set(made, "node_effective_weight", node.effective_weight, node.name)
        cell = sb.control_cell(node.slot)
        _set(made, "node_health_checks", board.cells[cell + sb.C_CHECKS_OK], node.name, "ok")
        _set(made, "node_health_checks", board.cells[cell + sb.C_CHECKS_FAILED], node.name, "failed")
        if node.name in tallies.checks:
            counts, seconds = tallies.checks[node.name], tallies.check_seconds[node.name]
            name = "node_health_check_duration_seconds"
            _histogram(made, name, counts, seconds, node.name, bounds=CHECK_BUCKETS_S)
        if node.checked_at is not None:
            _set(made, "node_health_check_timestamp_seconds", node.checked_at, node.name)
        _info(made, "node", node.name, node.version)
    for (name, to, cause), count in sorted(tallies.state_changes.items()):
        _set(made, "node_state_changes", count, name, to, cause)


def _node_traffic(made: Made, board: sb.Scoreboard, rows: range, facts: Facts) -> None:
    for node in facts.nodes:
        cells = totals(board, rows, sb.W_NODES + node.slot * sb.N_CELLS, sb.N_CELLS)
        for index, code_class in enumerate(("1xx", "2xx", "3xx", "4xx", "5xx")):
            _set(made, "node_requests", cells[sb.N_1XX + index], node.name, code_class)
        for index, reason in enumerate(sb.NODE_ERRORS):
            _set(made, "node_errors", cells[sb.N_REFUSED + index], node.name, reason)
        for name, cell in (
            ("node_attempts", sb.N_ATTEMPTS),
            ("node_in_flight", sb.N_IN_FLIGHT),
            ("node_tunnels", sb.N_TUNNELS),
            ("node_connections_idle", sb.N_IDLE),
            ("node_connects", sb.N_CONNECTS),
            ("node_connection_reuse", sb.N_REUSES),
        ):
            _set(made, name, cells[cell], node.name)
        durations = cells[sb.N_DURATION : sb.N_DURATION + sb.HISTOGRAM_CELLS]
        first_bytes = cells[sb.N_FIRST_BYTE : sb.N_FIRST_BYTE + sb.HISTOGRAM_CELLS]
        _cells(made, "node_request_duration_seconds", durations, node.name)
        _cells(made, "node_time_to_first_byte_seconds", first_bytes, node.name)


def _administration(made: Made, _board: sb.Scoreboard, _rows: range, facts: Facts) -> None:
    for name, node, epoch in facts.designations:
        _info(made, "designation", name, node or "")
        _set(made, "designation_epoch", epoch, name)
    for (kind, actor), count in sorted(facts.intents.items()):
        _set(made, "intents", count, kind, actor)
    for (action, result), count in sorted(facts.tallies.actions.items()):
        _set(made, "admin_actions", count, action, result)


def reference() -> str:
    """Return the metrics reference as Markdown."""
    lines = [
        "# Metrics",
        "",
        "Every metric of `/metrics`, generated from `balancer/observe/metrics.py`. Durations are in seconds, sizes in",
        "bytes. Series of a node go away with the node.",
        "",
        "| Metric | Type | Labels | Meaning |",
        "|---|---|---|---|",
    ]
    for spec in SPECS:
        labels = ", ".join(f"`{label}`" for label in spec.labels) or "-"
        lines.append(f"| `{spec.exposed}` | {spec.kind} | {labels} | {spec.help} |")
    return "\n".join(lines) + "\n"
