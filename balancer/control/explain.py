"""What would happen to a request now: rule, node and why not the others, header changes, timeouts, retries."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from balancer.core import health, requestid, retry
from balancer.core.forwarded import Networks, client_address, external_client, forwarded_for_value
from balancer.core.redaction import Redactor
from balancer.core.routing import RouteTable, effective_method, host_without_port, normalise
from balancer.core.selection import Candidate, make_chooser, slow_start_weight
from balancer.model import Admin, Health, Node, Route, Snapshot

SCHEMA = "arv-balance/explain/v1"
PREFERRED = 3  # how many nodes the order of preference names

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """The request in question. Header names as written; `peer` is the address of the connection."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()
    peer: str = "127.0.0.1"

    def values(self, name: str) -> list[bytes]:
        """Return the values of a field, as bytes."""
        return [value.encode("latin-1", "replace") for key, value in self.headers if key.lower() == name]


@dataclass(frozen=True, slots=True)
class Standing:
    """A node as it stands now. `check`: what the newest check said."""

    health: Health
    in_flight: int
    healthy_since_s: float
    check: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What an explanation rests on. `standings` by node name, `now_s` monotonic."""

    snapshot: Snapshot
    standings: Mapping[str, Standing]
    now_s: float
    random: Callable[[], float] = field(default=lambda: 0.5)


def explain(asked: Asked, situation: Situation) -> Document:
    """Return the explanation. Query values that are secrets are not repeated."""
    snapshot = situation.snapshot
    target = asked.target.encode("latin-1", "replace")
    method = asked.method.upper().encode("latin-1", "replace")
    host = (asked.values("host") or [snapshot.forwarding.default_host.encode()])[0]

    def header(name: bytes) -> bytes | None:
        values = asked.values(name.decode("latin-1"))
        return values[0] if values else None

    route = RouteTable(snapshot.routes).match(method, host, target, header)
    redactor = Redactor(snapshot.access_log.redact)
    nodes = [_node(node, route, situation) for node in snapshot.nodes]
    order = _order(asked, route, situation)
    for item in nodes:
        item["chosen"] = bool(order) and item["name"] == order[0]
    return {
        "schema": SCHEMA,
        "method": asked.method.upper(),
        "target": redactor.target(target).decode("latin-1"),
        "path": redactor.target(normalise(target)).decode("latin-1"),
        "effective_method": effective_method(method, target, header).decode("latin-1"),
        "host": host_without_port(host).decode("latin-1"),
        "route": _route(route, snapshot),
        "outcome": _outcome(route, order, nodes, situation),
        "chosen": order[0] if order else None,
        "preference": order,
        "nodes": nodes,
        "headers": _headers(asked, route, situation),
        "timeouts": _timeouts(route, snapshot),
        "retry": _retry(method, route, snapshot, others=sum(node["eligible"] for node in nodes) > 1),
    }


def _route(route: Route | None, snapshot: Snapshot) -> Document:
    if route is None:
        return {"name": None, "why": "no rule matches: any node", "to": "all nodes", "park": True, "retry": True}
    if route.designated:
        holder = next((item for item in snapshot.designations if item.name == route.designated), None)
        to = f"the node designated for {route.designated}: " + (holder.node or "nobody yet" if holder else "nobody")
    else:
        to = ", ".join(route.nodes) or "all nodes"
    conditions = []
    match = route.match
    if match.path:
        conditions.append(f"path {match.path}")
    if match.host:
        conditions.append(f"host {match.host}")
    if match.methods:
        conditions.append(f"method {' or '.join(match.methods)}")
    conditions += [f"field {name}" + (f": {value}" if value else "") for name, value in match.headers]
    return {
        "name": route.name,
        "why": "matches " + " and ".join(conditions or ["everything"]),
        "to": to,
        "park": route.park,
        "retry": route.retry,
    }


def _why_not(node: Node, route: Route | None, situation: Situation) -> str:
    """Return why a node would not get the request, "" when it can."""
    standing = situation.standings[node.name]
    if route is not None and route.designated:
        holder = next((item.node for item in situation.snapshot.designations if item.name == route.designated), None)
        if node.name != holder:
            return f"not the node designated for {route.designated}"
    if route is not None and route.nodes and node.name not in route.nodes:
        return f"not among the nodes of rule {route.name}"
    why = health.unavailable_because(node.admin, standing.health)
    if why is not None:
        return f"{why}: {standing.check}" if standing.check and node.admin is Admin.ENABLED else why
    if node.capacity and standing.in_flight >= node.capacity:
        return f"at its capacity: {standing.in_flight} of {node.capacity} in flight"
    if node.weight == 0 and (route is None or not route.designated):
        return "its weight is 0"
    return ""


def _node(node: Node, route: Route | None, situation: Situation) -> Document:
    standing = situation.standings[node.name]
    why_not = _why_not(node, route, situation)
    effective = effective_weight(node, standing, situation.snapshot, situation.now_s)
    return {
        "name": node.name,
        "eligible": not why_not,
        "why_not": why_not,
        "in_flight": standing.in_flight,
        "capacity": node.capacity,
        "weight": node.weight,
        "effective_weight": effective,
        "score": round(standing.in_flight / effective, 4) if effective and not why_not else None,
    }


def effective_weight(node: Node, standing: Standing, snapshot: Snapshot, now_s: float) -> int:
    """Return the weight with slow start applied, 0 for a node that is not healthy."""
    if standing.health is not Health.HEALTHY:
        return 0
    return slow_start_weight(node.weight, standing.healthy_since_s, now_s, snapshot.balance.slow_start_s)


def _order(asked: Asked, route: Route | None, situation: Situation) -> list[str]:
    """Return the first nodes in the order in which they would be tried."""
    able = [node for node in situation.snapshot.nodes if not _why_not(node, route, situation)]
    if route is not None and route.designated:
        return [node.name for node in able]
    candidates = [
        Candidate(
            slot=node.slot,
            weight=effective_weight(node, situation.standings[node.name], situation.snapshot, situation.now_s),
            capacity=node.capacity,
            name=node.name,
        )
        for node in able
    ]
    chooser = make_chooser(situation.snapshot.balance, candidates)
    loads = [0] * (max((node.slot for node in situation.snapshot.nodes), default=-1) + 1)
    for node in situation.snapshot.nodes:
        loads[node.slot] = situation.standings[node.name].in_flight
    chooser.refresh(loads, 0)
    names, order, tried = {node.slot: node.name for node in able}, list[str](), set[int]()
    while len(order) < PREFERRED:
        slot = chooser.choose(tried, _hash_key(asked, situation.snapshot), situation.random)
        if slot is None:
            break
        tried.add(slot)
        order.append(names[slot])
    return order


def _hash_key(asked: Asked, snapshot: Snapshot) -> bytes | None:
    match snapshot.balance.hash_key.value:
        case "header":
            values = asked.values(snapshot.balance.hash_name.lower())
            return values[0] if values else None
        case "cookie":
            wanted = snapshot.balance.hash_name.encode() + b"="
            pairs = [pair.strip() for line in asked.values("cookie") for pair in line.split(b";")]
            return next((pair.removeprefix(wanted) for pair in pairs if pair.startswith(wanted)), None)
        case _:
            return _client(asked, snapshot).encode()


def _outcome(route: Route | None, order: list[str], nodes: list[Document], situation: Situation) -> str:
    snapshot = situation.snapshot
    if snapshot.pause is not None and (route is None or route.park):
        return f"waits: traffic is paused{f' ({snapshot.pause.reason})' if snapshot.pause.reason else ''}"
    if order:
        policy = "designated" if route is not None and route.designated else snapshot.balance.policy.value
        return f"goes to {order[0]} ({policy})"
    if any("at its capacity" in node["why_not"] for node in nodes):
        return f"waits in the queue for at most {snapshot.queue.timeout_s:g} s: every node is at its capacity"
    if route is not None and not route.park:
        return "gets 503: no node can serve, and this rule does not wait"
    return f"waits for at most {snapshot.park.timeout_s:g} s: no node can serve"


def _client(asked: Asked, snapshot: Snapshot) -> str:
    trusted = Networks(snapshot.forwarding.trusted_proxies)
    return client_address(asked.peer, asked.values("x-forwarded-for"), trusted)


def _headers(asked: Asked, route: Route | None, situation: Situation) -> Document:
    snapshot, forwarding = situation.snapshot, situation.snapshot.forwarding
    trusted = Networks(forwarding.trusted_proxies)
    client = _client(asked, snapshot)
    sets: dict[str, str] = {
        "X-Forwarded-For": forwarded_for_value(asked.peer, asked.values("x-forwarded-for"), trusted).decode("latin-1"),
        "X-Real-IP": client,
        "Via": f"1.1 {forwarding.via}",
    }
    given = asked.values(snapshot.request_id.header.lower())
    kept = requestid.kept(given, requestid.acceptor(snapshot.request_id.accept))
    sets[snapshot.request_id.header] = kept.decode("latin-1") if kept else f"a new id ({snapshot.request_id.format})"
    if forwarding.external_client_header and forwarding.internal_networks:
        sets["X-External-Client"] = external_client(client, Networks(forwarding.internal_networks)).decode()
    if route is not None and route.designated:
        holder = next((item for item in snapshot.designations if item.name == route.designated), None)
        if holder is not None and holder.header and holder.node:
            sets["X-Arv-Designation"] = f"{holder.name};epoch={holder.epoch}"
    return {"client": client, "set": sets, "removed": _removed(asked, snapshot)}


_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings", "trailer"}
)


def _removed(asked: Asked, snapshot: Snapshot) -> list[str]:
    named = {
        token.strip().lower() for line in asked.values("connection") for token in line.decode("latin-1").split(",")
    }
    removed, forwarding = [], snapshot.forwarding
    for name, _ in asked.headers:
        lower = name.lower()
        odd = ("_" in lower and forwarding.drop_underscore) or ("." in lower and forwarding.drop_dotted)
        if lower in _HOP_BY_HOP or lower in named or odd or lower == "x-arv-designation":
            removed.append(name)
    return removed


def _timeouts(route: Route | None, snapshot: Snapshot) -> Document:
    times = snapshot.timeouts
    own = route.response_timeout_s if route is not None else None
    return {
        "connect_s": times.connect_s,
        "response_s": times.response_s if own is None else own,
        "response_idle_s": times.response_idle_s,
        "body_idle_s": times.body_idle_s,
        "queue_s": snapshot.queue.timeout_s,
        "park_s": snapshot.park.timeout_s,
    }


def _retry(method: bytes, route: Route | None, snapshot: Snapshot, *, others: bool) -> Document:
    """Ask the one rule about retries what it would say to each kind of failure."""
    failures = [retry.Failure.CONNECT, retry.Failure.RESET, retry.Failure.TRUNCATED]
    attempts = [
        retry.FailedAttempt(failure, method, sent=failure is not retry.Failure.CONNECT, others=others)
        for failure in failures
    ]
    verdicts = {item.failure: retry.decide(item, snapshot.retry, budget_left=True) for item in attempts}
    words = {failure.value: f"{verdict.kind.value}: {verdict.reason}" for failure, verdict in verdicts.items()}
    if route is not None and not route.retry:
        for failure in failures[1:]:  # a rule without retries still may try another connection: nothing was sent
            words[failure.value] = f"{retry.RetryKind.GIVE_UP.value}: rule {route.name} does not repeat requests"
    again = [name for name, said in words.items() if not said.startswith(retry.RetryKind.GIVE_UP.value)]
    times = f"up to {snapshot.retry.retries} times on another node"
    text = f"{times} after {', '.join(again)}" if again else f"never: {words['connect'].partition(': ')[2]}"
    return {"idempotent": method in retry.IDEMPOTENT, "verdicts": words, "text": text}
