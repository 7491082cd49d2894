"""The senders inside an API node, and what else such a node needs of this package besides `enqueue`."""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from dnsupdate.errors import StoreError
from dnsupdate.loader import load
from dnsupdate.metrics import Metrics, NoMetrics
from dnsupdate.names import Rules
from dnsupdate.overview import Overview
from dnsupdate.service import Designation, Secrets, Service, holder_name, read_files, wall_clock
from dnsupdate.settings import Settings
from dnsupdate.store import Store

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)
AGAIN_S = 5.0
COUNT_S = 10.0
NUDGE_S = 0.05


class Companion:
    """Runs beside the requests of an API node. Any number of nodes may have one: a target has one sender at a time."""

    def __init__(self, settings: Settings, secrets: Secrets, database: str) -> None:
        self.rules: Rules = settings.rules
        self._settings, self._secrets, self._database = settings, secrets, database
        self._designation = Designation()
        self._metrics: Metrics | None = None
        self._changed = asyncio.Event()
        self._service: Service | None = None

    @classmethod
    def read(cls, section: Mapping[str, Any], *, owner: str, database: str) -> Self:
        """Check a `dns:` section and read its files. Blocks: call it before the event loop runs.

        Args:
            section: plain values; `database` and `follow` in it are for the commands and not used here.
            owner: the cluster's id, used when the section has no `owner`.
            database: the address of the node's own database, which has the tables.

        Raises:
            DnsUpdateError: the section, a key or a template cannot be used; all faults at once.
        """
        settings = load(section, owner=owner)
        return cls(settings, read_files(settings), database)

    def grant(self, epoch: int) -> None:
        """A balancer designated this node: it may write the directories of targets of kind `files`."""
        self._designation.grant(epoch)

    def nudge(self) -> None:
        """A host changed and that is committed: tell all senders soon; a hint, they poll anyway."""
        self._changed.set()

    def mount(self, registry: "CollectorRegistry") -> None:
        """Show the `arv_balance_dns_*` numbers in a registry; at most once."""
        self._metrics = Metrics(registry, now=wall_clock)
        for name in self._settings.targets:
            self._metrics.leads(name, partial(self._leads, name))

    def _leads(self, target: str) -> float:
        sender = self._service.senders.get(target) if self._service is not None else None
        return float(sender is not None and sender.status.leads)

    async def run(self) -> None:
        """Send until cancelled, which gives the leases up. Nothing that goes wrong here ends the node."""
        while True:
            try:
                await self._run()
            except Exception:  # the node's requests matter more than a fault of its DNS part
                logger.exception("DNS starts again", extra={"action": "dns-restart"})
            await asyncio.sleep(AGAIN_S)

    async def _run(self) -> None:
        try:
            async with Store.open(self._database) as store, asyncio.TaskGroup() as group:
                self._service = self._serve(store)
                group.create_task(self._service.run(), name="dns-senders")
                group.create_task(self._pass_on(store), name="dns-nudge")
                group.create_task(self._count(store), name="dns-counts")
        except StoreError as exc:
            logger.warning("DNS waits", extra={"action": "dns-waits", "reason": str(exc)})

    def _serve(self, store: Store) -> Service:
        return Service(
            self._settings,
            self._secrets,
            store,
            holder=holder_name(),
            observer=self._metrics or NoMetrics(),
            designation=self._designation,
        )

    async def _pass_on(self, store: Store) -> None:
        """NOTIFY makes commits queue, so a burst of changes sends a few."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await store.nudge()
            except StoreError as exc:
                logger.warning("no nudge", extra={"action": "dns-nudge", "reason": str(exc)})
            await asyncio.sleep(NUDGE_S)

    async def _count(self, store: Store) -> None:
        overview = Overview(self._settings, store)
        while self._metrics is not None:
            try:
                for row in await overview.targets():
                    if row["target"] in self._settings.targets:
                        self._metrics.show(row["target"], records=row["records"], states=row)
            except StoreError as exc:
                logger.warning("no counts", extra={"action": "dns-counts", "reason": str(exc)})
            await asyncio.sleep(COUNT_S)
