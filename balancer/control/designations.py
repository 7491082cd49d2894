"""Keeps the designated nodes: reads what is remembered, decides when something changed, remembers before it acts."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from balancer.config.inventory import Designated
from balancer.config.overlay import Holder
from balancer.config.schema import Config
from balancer.control.actions import UnknownNameError, UnknownNodeError
from balancer.control.designation_store import LEASE_S, Remembered, Store, moved
from balancer.control.events import EventLog
from balancer.control.prober import Prober
from balancer.control.site import Clock, Site
from balancer.control.words import is_serving
from balancer.core import designation as rules
from balancer.errors import BalanceError, RefusedError, StateError
from balancer.model import Admin, Health

LOOK_S = 2.0

StoreFor = Callable[[Config, Designated], Store]


@dataclass(slots=True)
class _Known:
    """What is known of one designation. `fresh_until`: how long it may be acted on (monotonic), None without end."""

    held: Remembered | None = None
    fresh_until: float | None = None
    reason: str = ""
    fault: str = ""


class DesignationKeeper:
    """Owns `site.holders`."""

    def __init__(self, *, site: Site, prober: Prober, events: EventLog, clock: Clock, store_for: StoreFor) -> None:
        self._site = site
        self._prober = prober
        self._events = events
        self._clock = clock
        self._store_for = store_for
        self._known: dict[str, _Known] = {}
        self._standings: dict[str, rules.Standing] = {}
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()

    def look(self) -> None:
        """Decide again soon: a node's state or the configuration has changed."""
        self._wake.set()

    async def load(self, config: Config) -> None:
        """Read what is remembered, before the first snapshot goes out."""
        for name, item in config.designated.items():
            await self._read(config, name, item)
        self._site.holders = self._holders(config)

    async def run(self) -> None:
        """Decide whenever something changed, until cancelled."""
        while True:
            self._wake.clear()
            try:
                again_s = await self._look()
            except BalanceError as exc:
                self._events.add("designation-stuck", f"a decision could not be published: {exc}", level="error")
                again_s = LOOK_S
            try:
                async with asyncio.timeout(again_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def appoint(self, name: str, node: str, who: str, reason: str, *, dry_run: bool = False) -> None:
        """Give the designation to a node because a person says so; `dry_run` only finds out whether that can be.

        Raises UnknownNameError, RefusedError or StateError.
        """
        config = self._site.config
        item = config.designated.get(name)
        if item is None:
            raise UnknownNameError("designation", name, config.designated, "arv-balance designate")
        known_nodes = [item.name for item in self._site.snapshot.nodes]
        if node not in known_nodes:
            raise UnknownNodeError(node, known_nodes)
        order = self._order(config, item)
        if node not in order:
            raise RefusedError(f"{node} is not in designated.{name}.order, which is {', '.join(order)}")
        async with self._lock:
            store = await self._read(config, name, item)
            known = self._known[name]
            if store is None:
                raise StateError(known.fault)
            if dry_run:
                return
            decision = rules.appoint(_holder(known.held), node, who)
            is_done = decision.kind is rules.Kind.KEEP or await self._move(
                name, store, decision, f"{decision.reason}: {reason}" if reason else decision.reason, who
            )
        await self._publish(config)
        if not is_done or known.held is None:
            raise StateError(f"the designation {name} was changed by somebody else at the same time; look at it again")

    def documents(self) -> list[dict[str, Any]]:
        """Return the designations for the status."""
        config, found = self._site.config, []
        for name, item in config.designated.items():
            known = self._known.get(name, _Known())
            holder = self._site.holders.get(name)
            found.append(
                {
                    "name": name,
                    "node": holder.node if holder else None,
                    "epoch": holder.epoch if holder else 0,
                    "since": known.held.at if known.held else None,
                    "who": known.held.who if known.held else "",
                    "why": known.held.reason if known.held else "",
                    "now": known.fault or known.reason,
                    "order": list(self._order(config, item)),
                    "store": item.store,
                }
            )
        return found

    async def _look(self) -> float:
        """Look at every designation once; returns seconds until the next look."""
        config, wait_s = self._site.config, LOOK_S
        async with self._lock:
            self._standings = self._stand()
            for name, item in config.designated.items():
                again_s = await self._decide(config, name, item)
                wait_s = wait_s if again_s is None else min(wait_s, max(again_s, 0.01))
        await self._publish(config)
        return wait_s

    async def _decide(self, config: Config, name: str, item: Designated) -> float | None:
        store = await self._read(config, name, item)
        known, order = self._known[name], self._order(config, item)
        if store is None or self._is_too_early(known, order):
            return None
        policy = rules.Policy(order, item.failover == "automatic", item.failback == "automatic")
        decision = rules.decide(policy, _holder(known.held), self._standings, self._clock.monotonic())
        known.reason = decision.reason
        if decision.kind is rules.Kind.MOVE:
            try:
                await self._move(name, store, decision, decision.reason, "arv-balance")
            except StateError as exc:
                self._failed(name, known, str(exc))
        return decision.again_in_s

    async def _read(self, config: Config, name: str, item: Designated) -> Store | None:
        """Read the store and return it, None when it cannot be used.

        A decision that cannot be read any more is acted on only as long as its lease lasts.
        """
        known, asked_at = self._known.setdefault(name, _Known()), self._clock.monotonic()
        try:
            store = self._store_for(config, item)
            held = await store.read(name)
            known.held = await self._not_behind(name, store, held)
        except StateError as exc:
            self._failed(name, known, str(exc))
            return None
        known.fault = ""
        known.fresh_until = asked_at + LEASE_S if item.store == "postgres" else None
        return store

    async def _not_behind(self, name: str, store: Store, held: Remembered | None) -> Remembered | None:
        """Write back what workers run on when the store lost it: an epoch never goes back."""
        out = next((item for item in self._site.published_designations() if item.name == name), None)
        if out is None or out.node is None or out.epoch <= (held.epoch if held else 0):
            return held
        why = "taken over from the running workers: the store was behind"
        fresh = moved(held, out.node, out.epoch, self._now(), why)
        if not await store.swap(name, held.epoch if held else 0, fresh):
            return await store.read(name)
        self._events.add("designation-restored", f"{name} is {out.node}, epoch {out.epoch}: {why}", level="warning")
        return fresh

    async def _move(self, name: str, store: Store, decision: rules.Decision, reason: str, who: str) -> bool:
        """Remember a decision; False when somebody else decided first (the next look takes that over)."""
        known, node, epoch = self._known[name], decision.holder.node, decision.holder.epoch
        fresh = moved(known.held, node or "", epoch, self._now(), reason, who)
        if not await store.swap(name, known.held.epoch if known.held else 0, fresh):
            self._wake.set()
            return False
        known.held, known.reason = fresh, reason
        text = f"{name} is {node}, epoch {epoch}: {reason}"
        self._events.add("designation-moved", text, node=node or "", actor=who, reason=reason)
        return True

    async def _publish(self, config: Config) -> None:
        holders, before = self._holders(config), self._site.holders
        if holders == before:
            return
        self._site.holders = holders
        try:
            await self._site.refresh()
        except BalanceError:
            self._site.holders = before  # what is out is what stands; the next look tries again
            raise

    def _holders(self, config: Config) -> dict[str, Holder]:
        now_s, found = self._clock.monotonic(), {}
        for name in config.designated:
            known = self._known.get(name)
            if known is None or known.held is None:
                continue
            is_fresh = known.fresh_until is None or now_s < known.fresh_until
            # An old lease holds nothing: requests wait rather than reach a node that may not be the one any more.
            found[name] = Holder(known.held.node if is_fresh else None, known.held.epoch)
        return found

    def _is_too_early(self, known: _Known, order: tuple[str, ...]) -> bool:
        """The first decision waits until every candidate was looked at, else it is whoever answers quickest."""
        checking = [name for name in order if self._prober.seen(name).state.health is Health.CHECKING]
        if known.held is None and checking:
            known.reason = f"waiting for the first check of {', '.join(checking)}"
            return True
        return False

    def _stand(self) -> dict[str, rules.Standing]:
        now_s, found = self._clock.monotonic(), {}
        for node in self._site.snapshot.nodes:
            health = self._prober.seen(node.name).state.health
            available, old = is_serving(node.admin, health), self._standings.get(node.name)
            since_s = old.since_s if old is not None and old.available == available else now_s
            found[node.name] = rules.Standing(available, since_s, deliberate=node.admin is not Admin.ENABLED)
        return found

    def _order(self, config: Config, item: Designated) -> tuple[str, ...]:
        return tuple(item.order) or tuple(config.node_map)

    def _failed(self, name: str, known: _Known, why: str) -> None:
        if not known.fault:
            self._events.add("designation-stuck", f"{name}: {why}", level="error")
        known.fault = why

    def _now(self) -> str:
        return self._clock.now().isoformat()


def _holder(held: Remembered | None) -> rules.Holder:
    return rules.Holder(held.node, held.epoch) if held else rules.Holder()
