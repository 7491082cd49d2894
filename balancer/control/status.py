"""The document behind `status`: everything an operator wants to see at once, read from what runs."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from balancer import __version__
from balancer import scoreboard as sb
from balancer.control import words
from balancer.control.board import Board
from balancer.control.certificates import Certificates
from balancer.control.dnsstate import DnsState
from balancer.control.intents import Intent, Kind, intent_document
from balancer.control.peers import Peers
from balancer.control.prober import Prober
from balancer.control.reload import Reader, fault_document
from balancer.control.site import Site
from balancer.model import Admin, Health, Node, Outcome
from balancer.observe.counts import REST, Rates, Trend

STATUS = "arv-balance/status/v1"
NODES = "arv-balance/nodes/v1"
NODE = "arv-balance/node/v1"
LEDGER = "arv-balance/ledger/v1"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sources:
    """What a status is read from. `versions`: a node's version, "" when it is unknown."""

    site: Site
    board: Board
    prober: Prober
    reader: Reader
    trend: Trend
    started: datetime
    versions: Callable[[str], str]
    designations: Callable[[], list[Document]]
    upgrade: Callable[[], Document | None]
    certificates: Certificates
    peers: Peers
    dns: DnsState


class Status:
    """Makes the documents. They hold numbers in seconds and bytes, times as RFC 3339."""

    def __init__(self, sources: Sources) -> None:
        self._from = sources

    def cluster(self) -> Document:
        """Return the whole status."""
        site, board = self._from.site, self._from.board
        nodes = [self.node(node) for node in self._shown()]
        serving = [node["name"] for node in nodes if node["serving"]]
        pause = site.intents.get(Kind.PAUSE)
        rates = self._from.trend.cluster()
        return {
            "schema": STATUS,
            "cluster": site.snapshot.cluster,
            "verdict": self.verdict().value,
            "causes": self._causes(nodes),
            "serving": len(serving),
            "nodes_total": len(nodes),
            "min_serving": site.config.balance.min_serving,
            "traffic": {
                **rates_document(rates),
                "retried": rates.retried,
                "in_flight": sum(node["in_flight"] for node in nodes),
                "capacity": _capacity(nodes),
                "queued": board.total(sb.W_QUEUED),
                "parked": board.total(sb.W_PARKED),
                "tunnels": board.total(sb.W_TUNNELS),
                "connections": board.total(sb.W_CONNECTIONS),
            },
            "routes": self._routes(),
            "nodes": nodes,
            "removed": self._removed(),
            "designations": self._from.designations(),
            "peers": self._from.peers.documents(),
            "dns": self._from.dns.document(),
            "pause": intent_document(pause) if pause else None,
            "intents": [intent_document(item) for item in site.intents],
            "upgrade": self._from.upgrade(),
            "ledger": self.ledger(),
            "config": self.config(),
            "workers": self._workers(),
            "version": __version__,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "started_at": self._from.started.isoformat(),
            "generation": site.parts.publisher.generation,
            "listeners": self._listeners(),
        }

    def line(self) -> str:
        """Return one line for the service manager."""
        nodes = [words.is_serving(node.admin, self._health(node)) for node in self._shown()]
        paused = ", paused" if self._from.site.intents.get(Kind.PAUSE) else ""
        return f"{sum(nodes)}/{len(nodes)} nodes serve, {self._from.trend.cluster().per_s:.0f} req/s{paused}"

    def verdict(self) -> words.Verdict:
        """Return the cluster's word."""
        states = [(node.admin, self._health(node)) for node in self._shown()]
        return words.verdict(
            serving=sum(words.is_serving(*item) for item in states),
            troubled=sum(admin is Admin.ENABLED and not words.is_serving(admin, health) for admin, health in states),
            min_serving=self._from.site.config.balance.min_serving,
            paused=self._from.site.intents.get(Kind.PAUSE) is not None,
        )

    def nodes(self) -> Document:
        """Return all nodes."""
        return {"schema": NODES, "nodes": [self.node(node) for node in self._shown()]}

    def node(self, node: Node) -> Document:
        """Return one node."""
        seen, board, health = self._from.prober.seen(node.name), self._from.board, self._health(node)
        result, intents = seen.result, self._from.site.intents.of(node.name)
        return {
            "name": node.name,
            "url": node.url,
            "address": node.unix_path or node.authority,
            "state": words.state(node.admin, health),
            "admin": node.admin.value,
            "health": health.name.lower(),
            "serving": words.is_serving(node.admin, health),
            "since": self._since(node, seen.since, intents),
            "weight": node.weight,
            "capacity": node.capacity,
            "in_flight": board.in_flight(node.slot),
            "tunnels": board.tunnels(node.slot),
            "check": {
                "ok": result.ok if result else None,
                "text": result.text if result else "not checked yet",
                "duration_s": round(result.duration_s, 6) if result else None,
                "at": seen.at.isoformat() if seen.at else None,
            },
            "version": self._from.versions(node.name),
            "origin": "file" if node.name in self._from.site.config.node_map else "added",
            "intents": [intent_document(item) for item in intents],
            "rates": rates_document(self._from.trend.node(node.slot)),
        }

    def ledger(self) -> Document:
        """Return how all exchanges ended, over all workers that ever ran; `accepted` is the sum of the others."""
        found = self._from.board.shared.ledger(self._from.board.shared.cells[sb.H_ROWS])
        return {
            "schema": LEDGER,
            "accepted": found.accepted,
            **{outcome.value: found.outcomes[outcome] for outcome in Outcome},
            "open": found.open,
        }

    def config(self) -> Document:
        """Return which configuration runs, and how the newest reading went."""
        current, last = self._from.site.current, self._from.reader.last
        return {
            "path": str(current.path) if current else "",
            "sha256": current.sha256 if current else "",
            "loaded_at": current.loaded_at.isoformat() if current else None,
            "last_reload": {
                "ok": last.ok,
                "at": last.at.isoformat(),
                "error": last.error,
                "errors": [fault_document(fault) for fault in last.faults],
            }
            if last
            else None,
        }

    def _routes(self) -> list[Document]:
        """Return named routes in their order, then (name "") what none of them matched; nothing without routes."""
        names = {route.slot: route.name for route in self._from.site.snapshot.routes if route.slot < sb.MAX_ROUTES}
        slots = {**names, REST: ""} if names else {}
        return [{"name": name, "rates": rates_document(self._from.trend.route(slot))} for slot, name in slots.items()]

    def _shown(self) -> list[Node]:
        return [node for node in self._from.site.snapshot.nodes if node.admin is not Admin.REMOVED]

    def _health(self, node: Node) -> Health:
        return self._from.prober.seen(node.name).state.health

    def _since(self, node: Node, checked: datetime | None, intents: tuple[Intent, ...]) -> str | None:
        decided = [item.at for item in intents if item.kind in {Kind.DRAIN, Kind.REMOVE}]
        since = max(decided) if decided and node.admin is not Admin.ENABLED else checked
        return since.isoformat() if since else None

    def _causes(self, nodes: list[Document]) -> list[str]:
        """Return a sentence for each thing that keeps the cluster from being healthy, oldest first."""
        bad = [node for node in nodes if node["admin"] == "enabled" and not node["serving"]]
        causes = [f"{node['name']} is {node['state']}: {node['check']['text']}" for node in sorted(bad, key=_since_key)]
        pause = self._from.site.intents.get(Kind.PAUSE)
        if pause:
            causes.append(f"traffic is paused by {pause.who}" + (f": {pause.reason}" if pause.reason else ""))
        last = self._from.reader.last
        if last and not last.ok:
            see = (
                f": arv-balance check {self._from.site.current.path}" if last.faults and self._from.site.current else ""
            )
            causes.append(f"the configuration on disk is not in use: {last.error}{see}")
        return [*causes, *self._from.certificates.expired(), *self._from.peers.causes(), *self._from.dns.causes()]

    def _removed(self) -> list[str]:
        return [node.name for node in self._from.site.snapshot.nodes if node.admin is Admin.REMOVED]

    def _workers(self) -> list[Document]:
        cells, found = self._from.board.shared.cells, []
        for worker in self._from.site.parts.publisher.workers:
            base = sb.row(worker.slot)
            found.append(
                {
                    "slot": worker.slot,
                    "pid": worker.pid,
                    "stopping": worker.is_stopping,
                    "generation": cells[base + sb.W_GENERATION],
                    "connections": cells[base + sb.W_CONNECTIONS],
                    "busy": self._from.board.shared.busy(worker.slot),
                }
            )
        return found

    def _listeners(self) -> list[Document]:
        addresses = self._from.site.parts.publisher.addresses
        return [
            {
                "slot": item.slot,
                "bind": item.bind,
                "address": addresses.get(item.slot, item.bind),
                "tls": item.tls is not None,
            }
            for item in self._from.site.snapshot.listeners
        ]


def rates_document(rates: Rates) -> Document:
    """Return the JSON form of rates."""
    return {
        "requests_per_s": round(rates.per_s, 2),
        "p50_s": rates.p50_s,
        "p95_s": rates.p95_s,
        "p99_s": rates.p99_s,
        "slowest_s": rates.slowest_s,
        "failed": rates.failed,
        "error_ratio": rates.error_ratio,
    }


def _capacity(nodes: list[Document]) -> int | None:
    """Return how much the serving nodes take at once, None when one of them has no limit."""
    limits = [node["capacity"] for node in nodes if node["serving"]]
    return sum(limits) if limits and all(limits) else None


def _since_key(node: Document) -> str:
    return node["since"] or ""
