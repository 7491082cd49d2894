"""What metrics and explanations need beside the scoreboard, gathered from what runs."""

import platform
from collections import Counter
from datetime import datetime

from balancer import __version__
from balancer import scoreboard as sb
from balancer.control.events import EventLog
from balancer.control.explain import Asked, Situation, Standing, effective_weight, explain
from balancer.control.intents import Kind
from balancer.control.status import Sources
from balancer.control.words import is_serving, state
from balancer.model import Admin, Node
from balancer.observe.metrics import Facts, NodeFacts, Tallies


class Gatherer:
    """Reads from everything, changes nothing."""

    def __init__(self, sources: Sources, events: EventLog) -> None:
        self._from = sources
        self._site, self._board, self._prober = sources.site, sources.board, sources.prober
        self._events = events
        self.tallies = Tallies()

    def facts(self) -> Facts:
        """Return the facts behind the metrics."""
        current, last, publisher = self._site.require(), self._from.reader.last, self._site.parts.publisher
        nodes = [node for node in self._site.snapshot.nodes if node.admin is not Admin.REMOVED]
        self.tallies.keep(node.name for node in nodes)
        return Facts(
            version=__version__,
            python=platform.python_version(),
            config_sha256=current.sha256,
            config_ok=last is None or last.ok,
            config_at=current.loaded_at.timestamp(),
            nodes=[self._node(node) for node in nodes],
            listeners={item.slot: item.bind for item in self._site.snapshot.listeners},
            routes={item.slot: item.name for item in self._site.snapshot.routes if item.slot < sb.MAX_ROUTES},
            workers=[address.slot for address in publisher.workers],
            intents=Counter((item.kind.value, item.who) for item in self._site.intents),
            designations=[(item.name, item.node, item.epoch) for item in self._site.snapshot.designations],
            certificates=self._from.certificates.ends,
            peers=[(peer.name, peer.fault == "", len(peer.differences)) for peer in self._from.peers.seen],
            is_paused=self._site.intents.get(Kind.PAUSE) is not None,
            upgrade=self._from.upgrade(),
            oldest_parked_s=self._oldest_parked_s(),
            events_lost=self._events.lost,
            tallies=self.tallies,
        )

    def explain(self, asked: Asked) -> dict[str, object]:
        """Return what would happen to a request now."""
        snapshot, now_s = self._site.snapshot, self._site.parts.clock.monotonic()
        standings = {node.name: self._standing(node) for node in snapshot.nodes}
        return explain(asked, Situation(snapshot, standings, now_s))

    def _standing(self, node: Node) -> Standing:
        seen = self._prober.seen(node.name)
        return Standing(
            health=seen.state.health,
            in_flight=self._board.in_flight(node.slot),
            healthy_since_s=self._board.healthy_since_ns(node.slot) / 1e9,
            check=seen.result.text if seen.result and not seen.result.ok else "",
        )

    def _node(self, node: Node) -> NodeFacts:
        seen, standing = self._prober.seen(node.name), self._standing(node)
        serves = is_serving(node.admin, standing.health)
        now_s = self._site.parts.clock.monotonic()
        return NodeFacts(
            name=node.name,
            slot=node.slot,
            state=state(node.admin, standing.health),
            is_serving=serves,
            weight=node.weight,
            effective_weight=effective_weight(node, standing, self._site.snapshot, now_s) if serves else 0,
            capacity=node.capacity,
            version=self._from.versions(node.name),
            checked_at=_unix(seen.at),
        )

    def _oldest_parked_s(self) -> float:
        cells = self._board.shared.cells
        heads = [cells[sb.row(row) + sb.W_PARKED_HEAD] for row in range(cells[sb.H_ROWS])]
        oldest = min((head for head in heads if head), default=0)
        return max(0.0, self._site.parts.clock.monotonic() - oldest / 1e9) if oldest else 0.0


def _unix(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None
