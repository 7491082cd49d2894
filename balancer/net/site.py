"""A snapshot in the form that the byte path works with: compiled rules, routes, and who can take what now."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from balancer.core.forwarded import UNIX
from balancer.core.headers import Rules
from balancer.core.http1 import fast_request
from balancer.core.loads import Candidate, Chooser
from balancer.core.requestid import MAKERS, acceptor
from balancer.core.routing import RouteTable
from balancer.core.selection import make_chooser, slow_start_weight
from balancer.model import HashKey, Policy, Route, Snapshot
from balancer.net.claims import Claims
from balancer.net.nodes import NodeState
from balancer.net.requestids import RequestIds
from balancer.scoreboard import route_cell

if TYPE_CHECKING:
    from balancer.net.tls import ListenerContexts

NOBODY: Final[frozenset[int]] = frozenset()
SLOW_START_STEP_S = 0.5  # how often growing weights are renewed


class Target:
    """Where exchanges of a route may go: some nodes and the chooser among those that serve now."""

    __slots__ = (
        *("cell", "chooser", "designation", "durations", "name", "nodes", "park", "response_ns", "retry", "route"),
        "serving",
    )

    def __init__(self, route: Route | None, nodes: tuple[NodeState, ...], response_s: float, cell: int = 0) -> None:
        self.route = route
        self.name = route.name.encode() if route else b""
        self.nodes = nodes
        self.designation = b""  # the X-Arv-Designation line of a designated route
        self.chooser: Chooser | None = None
        self.serving: tuple[NodeState, ...] = ()
        self.cell = cell  # first cell of this route in our row; 0: not counted apart
        self.durations: list[int] | None = [] if cell else None  # of this turn, as those of a node
        self.response_ns = int(((route.response_timeout_s if route else None) or response_s) * 1e9)
        self.park = route is None or route.park
        self.retry = route is None or route.retry


class Site:
    """One generation. Exchanges keep the one that they began with."""

    def __init__(self, snapshot: Snapshot, nodes: dict[int, NodeState], claims: Claims) -> None:
        """Compile `snapshot`; `nodes` by scoreboard slot. Raises ValueError or ConfigError when it cannot be used."""
        self.snapshot = snapshot
        self.nodes = nodes
        self.claims = claims
        self.rules = Rules.of(snapshot.forwarding, snapshot.request_id.header)
        self.unix_trusted = UNIX in self.rules.trusted
        self.accept_id = acceptor(snapshot.request_id.accept)
        self.default_accept = snapshot.request_id.accept == type(snapshot.request_id)().accept
        limits = snapshot.limits
        # The fast path knows the default name of the request id only; another name sends all heads the slow way.
        self.fast = fast_request(limits.header_count).match if self.rules.id_lower == b"x-request-id" else _never
        self.fast_bytes = min(limits.header_bytes, limits.header_field_bytes)
        self.target_bytes, self.body_bytes = limits.target_bytes, limits.body_bytes or 1 << 62
        self.requests_per_connection = limits.requests_per_connection or -1
        self.ids = RequestIds(MAKERS[snapshot.request_id.format])
        self.id_line = self.rules.id_name + b": "
        self.routes = RouteTable(snapshot.routes) if snapshot.routes else None
        self.tls: dict[int, ListenerContexts] = {}
        self.tails: dict[tuple[str, bytes, bytes], bytes] = {}  # our lines by (peer, host, scheme)
        times = snapshot.timeouts
        self.header_ns, self.keepalive_ns = int(times.header_s * 1e9), int(times.keepalive_s * 1e9)
        self.body_idle_ns, self.send_idle_ns = int(times.body_idle_s * 1e9), int(times.send_idle_s * 1e9)
        self.connect_ns, self.response_idle_ns = int(times.connect_s * 1e9), int(times.response_idle_s * 1e9)
        self.interval_ns = int(snapshot.verdicts.interval_s * 1e9)
        self.pause_until = int(snapshot.pause.until * 1e9) if snapshot.pause else 0
        self.everything = Target(None, tuple(nodes.values()), times.response_s)
        self._targets = {route.name: self._target(route) for route in snapshot.routes}
        self._signature: tuple[object, ...] = ()
        self._slots = max(nodes, default=-1) + 1
        self._healths: list[int] = []  # by node slot, when we looked last
        self._is_still = False  # nobody is ejected, nobody's weight grows
        self.keyed = snapshot.balance.policy is Policy.HASH

    def _target(self, route: Route) -> Target:
        response_s = self.snapshot.timeouts.response_s
        cell = route_cell(self.claims.slot, route.slot)
        by_name = {node.node.name: node for node in self.nodes.values()}
        if route.designated is None:
            names = route.nodes
            nodes = tuple(by_name[name] for name in names if name in by_name) if names else tuple(by_name.values())
            return Target(route, nodes, response_s, cell)
        found = next((d for d in self.snapshot.designations if d.name == route.designated), None)
        holder = by_name.get(found.node) if found and found.node else None
        target = Target(route, (holder,) if holder else (), response_s, cell)
        if found is not None and found.header:
            target.designation = b"X-Arv-Designation: %b;epoch=%d\r\n" % (found.name.encode(), found.epoch)
        return target

    def target_of(self, method: bytes, host: bytes, path: bytes, lookup: Callable[[bytes], bytes | None]) -> Target:
        """Return where a request goes."""
        if self.routes is None:
            return self.everything
        route = self.routes.match(method, host, path, lookup)
        return self.everything if route is None else self._targets[route.name]

    @property
    def targets(self) -> list[Target]:
        """All targets."""
        return [self.everything, *self._targets.values()]

    def paused(self, now: int) -> bool:
        """Whether a pause is in force."""
        return now < self.pause_until

    def refresh(self, now: int, *, told: bool = True) -> bool:
        """Look who serves now; True when that changed.

        `told`: something did change here. Otherwise 64 nodes cost 2 us as long as their healths are what they were and
        time alone changes nothing.
        """
        seen = self.claims.healths(self._slots)
        if not told and self._is_still and seen == self._healths:
            return False
        self._healths = seen
        now_s = now / 1e9
        slow_start_s = self.snapshot.balance.slow_start_s
        serving = [node for node in self.nodes.values() if node.serves_at(now)]
        self._is_still = not any(now < node.ejected_until for node in self.nodes.values()) and not any(
            now_s - node.healthy_since_s() < slow_start_s + SLOW_START_STEP_S for node in serving
        )
        step_s = now_s // SLOW_START_STEP_S * SLOW_START_STEP_S
        states = [
            (node.slot, slow_start_weight(node.node.weight, node.healthy_since_s(), step_s, slow_start_s))
            for node in serving
        ]
        signature = tuple(states)
        if signature == self._signature:
            return False
        self._signature = signature
        weights = dict(states)
        for target in self.targets:
            self._rebuild(target, weights)
        everywhere = [target for target in self.targets if target.chooser is not None]
        for node in self.nodes.values():
            node.choosers = tuple(t.chooser for t in everywhere if t.chooser is not None and node in t.nodes)
        return True

    def _rebuild(self, target: Target, weights: dict[int, int]) -> None:
        target.serving = tuple(node for node in target.nodes if node.slot in weights)
        if target.route is not None and target.route.designated is not None:
            return
        candidates = [
            Candidate(node.slot, weights[node.slot], node.node.capacity, node.node.name) for node in target.serving
        ]
        target.chooser = make_chooser(self.snapshot.balance, candidates, self.claims.slot, target.chooser)

    def choose(self, target: Target, excluded: frozenset[int], key: bytes | None, now: int) -> NodeState | None:
        """Return a node that may have room, or None. Claim it before use."""
        chooser = target.chooser
        if chooser is None:  # designated
            return next((node for node in target.serving if node.slot not in excluded), None)
        if now >= chooser.refresh_at_ns:
            chooser.refresh(self._loads(), now)
        chosen = chooser.choose(excluded, key, random.random)
        if chosen is None:
            # "Full" may be what another worker's claims looked like a moment ago: an exchange waits for what is true.
            chooser.refresh(self._loads(), now)
            chosen = chooser.choose(excluded, key, random.random)
        return None if chosen is None else self.nodes[chosen]

    def _loads(self) -> list[int]:
        """Exchanges by node slot, over all workers, now."""
        return self.claims.loads(self._slots)

    def key_of(self, client: str, lookup: Callable[[bytes], bytes | None]) -> bytes | None:
        """Return what the `hash` policy looks at, None without it."""
        balance = self.snapshot.balance
        if balance.hash_key is HashKey.CLIENT:
            return client.encode()
        if balance.hash_key is HashKey.HEADER:
            return lookup(balance.hash_name.lower().encode("latin-1"))
        return cookie(lookup(b"cookie") or b"", balance.hash_name.encode("latin-1"))

    def serves(self, node: NodeState) -> bool:
        """Whether `node` takes new exchanges, as of the last `refresh`."""
        return node in self.everything.serving


def cookie(header: bytes, name: bytes) -> bytes | None:
    """Return the value of a cookie (RFC 6265 section 4.2.1)."""
    for pair in header.split(b";"):
        found, equals, value = pair.strip().partition(b"=")
        if equals and found == name:
            return value
    return None


def _never(_data: bytes) -> None:
    return None
