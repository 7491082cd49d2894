"""What an operator does to nodes: guarded, recorded with who and why, on the disk before it takes effect."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from balancer.config.errors import did_you_mean
from balancer.config.overlay import AddedNode
from balancer.control.board import Board
from balancer.control.events import EventLog
from balancer.control.intents import Intent, Intents, Kind
from balancer.control.overlay import admin_of
from balancer.control.prober import Prober
from balancer.control.site import Site
from balancer.control.words import is_serving, state
from balancer.errors import BalanceError, RefusedError
from balancer.model import Admin, Health, Node


class UnknownNameError(BalanceError):
    """There is nothing of that name. `listing`: the command that shows what there is."""

    def __init__(self, kind: str, name: str, known: Collection[str], listing: str) -> None:
        super().__init__(f"there is no {kind} {name!r}")
        self.why = f"{kind}s are {', '.join(known)}" if known else f"there are no {kind}s"
        self.hint = did_you_mean(name, known) or (listing if known else "")


class UnknownNodeError(UnknownNameError):
    """There is no node of that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__("node", name, list(known), "arv-balance nodes list")


class GuardError(RefusedError):
    """Too few nodes would serve."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for an action and on which terms.

    cut: end by force what is left after drain.timeout. now: the same, at once.
    """

    who: str
    reason: str = ""
    until: datetime | None = None
    force: bool = False
    cut: bool = False
    now: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What an action came to. `changed` False: it was like that already."""

    node: str
    state: str
    changed: bool = True
    consequence: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class NodeActions:
    """Drain, undrain, weight, add, remove, forget."""

    def __init__(self, *, site: Site, board: Board, prober: Prober, events: EventLog) -> None:
        self._site = site
        self._board = board
        self._prober = prober
        self._events = events

    async def drain(self, name: str, request: Request) -> Done:
        """Give the node no new exchange. Raises RefusedError when too few would serve."""
        return await self._take_out(Kind.DRAIN, name, request)

    async def remove(self, name: str, request: Request) -> Done:
        """Drain the node and let go of it. One that the file holds stays away until `forget`."""
        return await self._take_out(Kind.REMOVE, name, request)

    async def undrain(self, name: str, request: Request) -> Done:
        """Let the node serve again, as soon as its checks say so."""
        self._known(name)
        stands = [kind for kind in (Kind.DRAIN, Kind.REMOVE) if self._site.intents.get(kind, name)]
        if not stands:
            return self._done(name, changed=False, consequence="it was not draining")
        if not request.dry_run:
            await self._site.change(lambda intents: intents.without(Kind.DRAIN, name).without(Kind.REMOVE, name))
            self._prober.check_now(name)
            self._event("node-undrained", f"{name} may serve again", name, request)
        return self._done(name, changed=True)

    async def weight(self, name: str, weight: int, request: Request) -> Done:
        """Give the node another share of the balanced exchanges."""
        if not 0 <= weight <= 1000:
            raise RefusedError(f"weight {weight} is out of range: write 0 to 1000")
        node = self._known(name)
        if not request.dry_run:
            await self._site.change(
                lambda intents: intents.with_(self._intent(Kind.WEIGHT, name, request, weight=weight))
            )
            self._event("node-weight", f"weight of {name} is {weight} (was {node.weight})", name, request)
        return self._done(name, changed=node.weight != weight, facts={"weight": weight, "was": node.weight})

    async def add(self, name: str, added: AddedNode, request: Request) -> Done:
        """Add a node that the file does not hold. It is checked before it gets anything."""
        if any(node.name == name for node in self._site.snapshot.nodes):
            raise RefusedError(f"there is a node {name} already")
        twin = next((node.name for node in self._site.snapshot.nodes if node.url == added.url), None)
        if twin is not None:
            raise RefusedError(f"{added.url} is node {twin} already")
        settings = {"url": added.url, "weight": added.weight, "capacity": added.capacity}
        if not request.dry_run:

            def edit(intents: Intents) -> Intents:
                if intents.get(Kind.ADD, name):  # another operator was quicker
                    raise RefusedError(f"there is a node {name} already")
                return intents.with_(self._intent(Kind.ADD, name, request, **settings))

            await self._site.change(edit)
            self._event("node-added", f"{name} added at {added.url}; it serves once its checks succeed", name, request)
        return Done(name, "checking", facts=settings)

    async def forget(self, name: str, request: Request) -> Done:
        """Drop every intent on a name: a node of the file is as the file says again, an added one is gone."""
        stands = self._site.intents.of(name)
        if not stands:
            return self._done(name, changed=False, facts={"dropped": 0})
        if name not in self._site.config.node_map and self._site.node(name) is not None:
            self._guard(name, request)
        if not request.dry_run:
            await self._site.change(lambda intents: intents.without_node(name))
            kinds = ", ".join(item.kind.value for item in stands)
            self._event("node-forgotten", f"intents on {name} dropped: {kinds}", name, request)
        node = self._site.node(name)
        return Done(name, state(node.admin, self._health(node)) if node else "removed", facts={"dropped": len(stands)})

    def consequence(self, name: str) -> str:
        """Return in words what taking a node out means for the others."""
        serving = self._serving()
        left = [other for other in serving if other != name]
        whole = len(self._site.snapshot.nodes)
        if name not in serving:
            return f"{len(left)} of {whole} nodes serve, as before"
        if not left:
            return f"0 of {whole} nodes will serve: requests wait, then fail"
        more = round(100 / len(left))
        return f"{len(left)} of {whole} nodes will serve; {more} % more load each"

    async def _take_out(self, kind: Kind, name: str, request: Request) -> Done:
        self._known(name)
        settings = {"cut": True} if request.cut or request.now else {}
        settings |= {"now": True} if request.now else {}
        stands = self._site.intents.get(kind, name)
        if stands and settings.keys() <= stands.settings.keys():
            return self._done(name, changed=False, consequence=f"it was {self._done(name).state} already")
        consequence = self.consequence(name)
        self._guard(name, request)
        if not request.dry_run:

            def edit(intents: Intents) -> Intents:
                self._guard(name, request)  # again, under the lock: another operator may have been quicker
                return intents.with_(self._intent(kind, name, request, **settings))

            await self._site.change(edit)
            verb = "draining" if kind is Kind.DRAIN else "being removed"
            self._event(f"node-{kind.value}", f"{name} is {verb}; {consequence}", name, request)
        return self._done(name, changed=True, consequence=consequence)

    def _guard(self, name: str, request: Request) -> None:
        serving, least = self._serving(), self._site.config.balance.min_serving
        left = len([other for other in serving if other != name])
        if name in serving and left < least and not request.force:
            whole = len(self._site.snapshot.nodes)
            raise GuardError(f"{left} of {whole} nodes would serve, balance.min_serving is {least}")

    def _serving(self) -> list[str]:
        nodes = self._site.snapshot.nodes
        return [
            node.name
            for node in nodes
            if is_serving(admin_of(self._site.intents, node.name, is_done=False), self._health(node))
        ]

    def _known(self, name: str) -> Node:
        node = self._site.node(name)
        if node is None:
            raise UnknownNodeError(name, (node.name for node in self._site.snapshot.nodes))
        return node

    def _health(self, node: Node) -> Health:
        return self._prober.seen(node.name).state.health

    def _done(
        self, name: str, *, changed: bool = True, consequence: str = "", facts: Mapping[str, Any] | None = None
    ) -> Done:
        node = self._known(name)
        admin = admin_of(self._site.intents, name, is_done=name in self._site.done)
        return Done(name, state(admin, self._health(node)), changed, consequence, facts or {})

    def _intent(self, kind: Kind, name: str, request: Request, **settings: Any) -> Intent:
        now = self._site.parts.clock.now()
        return Intent(kind, request.who, now, name, request.reason, request.until, settings)

    def _event(self, kind: str, text: str, name: str, request: Request) -> None:
        self._events.add(kind, text, actor=request.who, node=name, reason=request.reason)


def is_drained(node: Node, board: Board, generation: int, workers: list[int]) -> bool:
    """Return whether a draining node has nothing in flight, and no worker can begin anything at it any more."""
    return (
        node.admin is not Admin.ENABLED
        and board.is_acknowledged(generation, workers)
        and board.in_flight(node.slot) == 0
        and board.tunnels(node.slot) == 0
    )
