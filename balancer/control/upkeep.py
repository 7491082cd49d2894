"""What moves on by itself: intents end, drains become true, added nodes that were removed go away."""

import asyncio
import logging

from balancer.control.actions import is_drained
from balancer.control.events import EventLog
from balancer.control.intents import Intent, Intents, Kind
from balancer.control.site import Site
from balancer.core.drain import Remaining, StepKind, decide
from balancer.errors import BalanceError
from balancer.model import Admin

logger = logging.getLogger(__name__)

LOOK_S = 0.1  # at what drains; nothing else is polled
RETRY_S = 5.0


class Upkeep:
    """Two tasks; run both in the group of the process."""

    def __init__(self, site: Site, events: EventLog) -> None:
        self._site = site
        self._events = events

    async def expire(self) -> None:
        """End intents whose time has passed, until cancelled."""
        clock = self._site.parts.clock
        while True:
            self._site.changed.clear()
            ends = self._site.intents.next_expiry()
            wait_s = None if ends is None else max(0.0, (ends - clock.now()).total_seconds())
            try:
                async with asyncio.timeout(wait_s):
                    await self._site.changed.wait()
                continue
            except TimeoutError:
                pass
            try:
                await self._end_expired()
            except BalanceError as exc:  # the disk is full: workers end a pause themselves, the rest is tried again
                self._events.add("intent-stuck", f"an intent could not be ended: {exc}", level="error")
                await asyncio.sleep(RETRY_S)

    async def _end_expired(self) -> None:
        now = self._site.parts.clock.now()
        ended = self._site.intents.expired(now)

        def without(intents: Intents) -> Intents:
            for item in intents.expired(now):
                intents = intents.without(item.kind, item.node)
            return intents

        await self._site.change(without)
        for item in ended:
            if item.kind is Kind.RATE:
                continue  # part of a resume, and told with it
            what = f"{item.kind.value} of {item.node}" if item.node else item.kind.value
            self._events.add(
                "intent-ended", f"{what} by {item.who} ended by itself", node=item.node, reason=item.reason
            )

    async def drain(self) -> None:
        """Notice what has drained, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._site.is_running:
                continue
            try:
                await self._drained()
            except BalanceError as exc:
                self._events.add("drain-stuck", f"a drain could not be ended: {exc}", level="error")
                await asyncio.sleep(RETRY_S)

    async def _drained(self) -> None:
        publisher = self._site.parts.publisher
        workers = [address.slot for address in publisher.workers]
        await self._cut_late()
        found = [
            node.name
            for node in self._site.snapshot.nodes
            if node.admin is Admin.DRAINING
            and node.name not in self._site.done
            and is_drained(node, publisher.board, publisher.generation, workers)
        ]
        if not found:
            return
        self._site.done.update(found)
        gone = [name for name in found if self._is_gone(name)]
        if gone:
            await self._site.change(lambda intents: _without_nodes(intents, gone))
        if len(gone) < len(found):
            await self._site.refresh()
        for name in found:
            removed = name in gone or self._site.intents.get(Kind.REMOVE, name)
            kind, text = ("node-removed", "removed") if removed else ("node-drained", "drained: nothing is in flight")
            self._events.add(kind, f"{name} is {text}", node=name)

    async def _cut_late(self) -> None:
        """End by force what is left at nodes whose drain may do that, once its time is over."""
        for intent in self._site.intents:
            node = self._site.node(intent.node) if intent.settings.get("cut") else None
            if node is None or node.admin is not Admin.DRAINING:
                continue
            publisher = self._site.parts.publisher
            left = Remaining(publisher.board.in_flight(node.slot), publisher.board.tunnels(node.slot))
            reason = f"{left} left" if intent.settings.get("now") and left else self._overdue(left, intent)
            if reason and await publisher.cut(node.name):
                self._events.add("node-cut", f"{node.name}: {reason}; cut", node=node.name, level="warning")

    def _overdue(self, left: Remaining, intent: Intent) -> str:
        """Return why what is left has to be cut, "" while it has not."""
        limits = self._site.snapshot.drain
        elapsed_s = (self._site.parts.clock.now() - intent.at).total_seconds()
        closed = elapsed_s >= limits.tunnel_grace_s
        step = decide(left, limits, elapsed_s, may_cut=True, tunnels_closed=closed)
        return step.reason if step.kind is StepKind.CUT else ""

    def _is_gone(self, name: str) -> bool:
        """An added node that is removed leaves no trace; one of the file stays known as removed."""
        intents = self._site.intents
        return intents.get(Kind.REMOVE, name) is not None and name not in self._site.config.node_map


def _without_nodes(intents: Intents, names: list[str]) -> Intents:
    for name in names:
        intents = intents.without_node(name)
    return intents
