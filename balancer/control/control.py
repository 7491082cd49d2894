"""The pieces of the control process, wired, and what they tell each other."""

import asyncio
import logging
import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from balancer.config.file import Loaded
from balancer.control.actions import NodeActions
from balancer.control.addresses import Addresses
from balancer.control.admin.app import Api, Gate
from balancer.control.admin.endpoints import endpoints
from balancer.control.admin.services import Services
from balancer.control.admin.sockets import host_names, listening
from balancer.control.board import Board
from balancer.control.certificates import Certificates
from balancer.control.dashboard.dashboard import Dashboard
from balancer.control.dashboard.sessions import Sessions
from balancer.control.designation_store import FileStore, Stores
from balancer.control.designations import DesignationKeeper
from balancer.control.dnsstate import DnsState
from balancer.control.events import EventLog
from balancer.control.facts import Gatherer
from balancer.control.intents import IntentStore
from balancer.control.link import Link
from balancer.control.pauses import Pauses
from balancer.control.peers import Peers
from balancer.control.plans import address_fault, plans
from balancer.control.probe import Result
from balancer.control.prober import Prober
from balancer.control.publisher import Publisher, PublishError
from balancer.control.reload import Reader
from balancer.control.site import Clock, Current, Parts, Site
from balancer.control.statefile import StateFile
from balancer.control.status import Sources, Status
from balancer.control.upgrade.journal import Journal
from balancer.control.upgrade.upgrades import Upgrades
from balancer.control.upkeep import Upkeep
from balancer.control.vault import REFRESH_S, Vault
from balancer.control.versions import Versions
from balancer.errors import BalanceError, ConfigError
from balancer.model import Admin, Health, Snapshot
from balancer.observe import counts
from balancer.observe.metrics import Metrics
from balancer.observe.series import Series
from balancer.wire import Message

logger = logging.getLogger(__name__)

SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Outside:
    """What the control process is given: the file, its ways out, what is kept, the clocks."""

    config: Path
    parent: Link
    publisher: Publisher
    board: Board
    events: EventLog
    intents: IntentStore
    designations: StateFile
    versions: StateFile
    sessions: StateFile
    upgrade: Journal
    clock: Clock
    workers: int | None = None  # stands above the configuration
    last_good: Path | None = None  # a copy of the configuration in use


class Control:
    """Everything that runs in the control process; an async context. `start` it in a task group that it may use."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._events, self._clock, self._board = outside.events, outside.clock, outside.board
        self._addresses = Addresses()
        self._host_names: list[str] = []
        parts = Parts(outside.publisher, outside.intents, self._addresses, outside.events, outside.clock)
        self._site = Site(parts, followers=[self], workers=outside.workers)
        self._prober = Prober(board=outside.board, watcher=self, now=outside.clock.now)
        self._reader = Reader(self._site, outside.config, outside.events, outside.clock, last_good=outside.last_good)
        self._vault = Vault(self._unreadable)
        self._versions = Versions(outside.versions, outside.events)
        self._trend, self._series = counts.Trend(), Series()
        self._upkeep = Upkeep(self._site, outside.events)
        self._stores = Stores(FileStore(outside.designations, self._unreadable), lambda: self._vault.opened.database)
        self._designations = DesignationKeeper(
            site=self._site,
            prober=self._prober,
            events=outside.events,
            clock=outside.clock,
            store_for=self._stores,
        )
        self._upgrades = Upgrades(
            site=self._site,
            prober=self._prober,
            versions=self._versions,
            trend=self._trend,
            journal=outside.upgrade,
        )
        self._certificates = Certificates(outside.events, outside.clock.now)
        self._peers = Peers(
            site=self._site,
            events=outside.events,
            tokens=lambda: self._vault.opened.peers,
        )
        self._dns = DnsState(self._site)
        sources = self._made_sources()
        self._gatherer = Gatherer(sources, outside.events)
        self._status = Status(sources)
        self._sessions = Sessions(outside.sessions, outside.clock)
        self._dashboard, self._api = self._made_api()
        self._work: asyncio.Queue[str] = asyncio.Queue()
        self._stack = AsyncExitStack()

    def _made_sources(self) -> Sources:
        return Sources(
            site=self._site,
            board=self._board,
            prober=self._prober,
            reader=self._reader,
            trend=self._trend,
            started=self._clock.now(),
            versions=self._versions.of,
            designations=self._designations.documents,
            upgrade=self._upgrades.brief,
            certificates=self._certificates,
            peers=self._peers,
            dns=self._dns,
        )

    def _made_api(self) -> tuple[Dashboard, Api]:
        outside, site = self._outside, self._site
        actions = NodeActions(site=site, board=outside.board, prober=self._prober, events=outside.events)
        services = Services(
            site=site,
            status=self._status,
            actions=actions,
            pauses=Pauses(
                site=site, board=outside.board, trend=self._trend, events=outside.events, look=self._prober.look
            ),
            upgrades=self._upgrades,
            designations=self._designations,
            events=outside.events,
            reader=self._reader,
            publisher=outside.publisher,
            explain=self._gatherer.explain,
            metrics=Metrics(outside.board.shared, self._gatherer.facts).exposition,
            series=self._series,
            login_code=self._sessions.offer_code,
        )
        gate = Gate(
            tokens=lambda: self._vault.opened.tokens,
            hosts=lambda: [*self._host_names, *self._site.config.admin.hosts],
            management_token=self._management_token,
        )
        dashboard = Dashboard(services, gate, self._sessions, self._count_action)
        return dashboard, Api(endpoints(services), gate, self._count_action, dashboard)

    # --- what others tell us --------------------------------------------------------------------------------

    async def followed(self, current: Current, snapshot: Snapshot) -> None:
        """Check the nodes of a new snapshot, and decide again what depends on them."""
        await self._vault.open(current.config, snapshot.nodes)
        self._set_plans(current, snapshot)
        self._versions.allow_mixed = current.config.versions.allow_mixed
        self._versions.judge(self._prober)
        self._designations.look()
        logging.getLogger().setLevel(current.config.log.level.upper())
        if self._api.addresses:
            self._work.put_nowait("admin")  # later: the request that asked for this may be on a socket that goes
        await self._certificates.read(current.config)

    def _set_plans(self, current: Current, snapshot: Snapshot) -> None:
        secrets = self._vault.opened.secrets
        faults = {node.name: address_fault(node, self._addresses) for node in snapshot.nodes}
        self._prober.set_plans(plans(current.config, snapshot, secrets, faults))

    def health_changed(self, name: str, old: Health, new: Health, why: str, cause: str) -> None:
        """Record a node's change of state."""
        is_good = new is Health.HEALTHY
        was = f" (was {old.name.lower()})" if old is not Health.CHECKING else ""
        text = f"{name} is {new.name.lower()}{was}" + ("" if is_good else f": {why}")
        self._events.add("node-health", text, node=name, reason=why, level="info" if is_good else "warning")
        self._gatherer.tallies.state_changes[name, new.name.lower(), cause] += 1
        self._designations.look()

    def checked(self, name: str, result: Result) -> None:
        """Count a check."""
        self._gatherer.tallies.check(name, result.duration_s)

    def version_read(self, name: str, version: str) -> None:
        """Compare a node's version with the others'."""
        self._versions.note(name, version, self._prober)

    def from_worker(self, message: Message) -> None:
        """Take what a worker says without being asked."""
        match message.get("kind"):
            case "node-refused":
                self._prober.live_refused(str(message.get("node", "")))
            case "node-reset":
                self._prober.check_now(str(message.get("node", "")))
            case kind:
                said = {key: value for key, value in message.items() if key not in {"type", "kind", "fds"}}
                facts = ", ".join(f"{key} {value}" for key, value in said.items())
                self._events.add(str(kind), f"worker reports {kind}: {facts}", level="warning")

    def from_parent(self, message: Message) -> None:
        """Take what the parent says."""
        match message["type"]:
            case "applied" | "refused":
                self._outside.publisher.take_parent_answer(message)
            case "workers":
                self._outside.publisher.set_workers_from(message["workers"])
            case "worker-lost":
                text = f"worker {message['slot']} (pid {message['pid']}) died, {message['lost']} exchanges lost"
                self._events.add("worker-lost", text, level="error")
            case "worker-stuck":
                text = f"worker {message['slot']} (pid {message['pid']}) has not moved for {message['age_s']:.1f} s"
                self._events.add("worker-stuck", text, level="warning")
            case "upgrade-refused":
                self._events.add("upgrade-refused", f"the program is not replaced: {message['reason']}", level="error")
            case "stopping":
                self._site.is_stopping = True
                self._events.add("stopping", f"stopping: {message['deadline_s']:g} s for what is under way")
            case "reload" | "reopen-log" as kind:
                self._work.put_nowait(kind)
            case kind:
                logger.warning("the parent says what this version does not know", extra={"action": kind})

    def _unreadable(self, fault: str) -> None:
        self._events.add("state-unreadable", fault, level="warning")

    def _management_token(self) -> bytes:
        return self._vault.opened.secrets.token.encode()

    def _count_action(self, action: str, result: str) -> None:
        self._gatherer.tallies.actions[action, result] += 1

    # --- life -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._prober)
        self._stack.push_async_callback(self._stores.close)
        self._stack.push_async_callback(self._api.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, exc, trace)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start everything in `tasks`; returns once the first snapshot is out.

        Raises ConfigError when the file cannot be used.
        """
        tasks.create_task(self._board.beat(), name="heartbeat")
        tasks.create_task(self._events.run(), name="events")
        for fault in (await self._begin()).warnings:
            logger.warning("%s: %s", fault.path, fault.message)
        for name, task in (
            ("rates", self._sample()),
            ("expiry", self._upkeep.expire()),
            ("drains", self._upkeep.drain()),
            ("designations", self._designations.run()),
            ("versions", self._versions.run()),
            ("work", self._do_work()),
            ("dashboard", self._dashboard.run()),
            ("secrets", self._keep_secrets()),
            ("dns", self._dns.run()),
            ("peers", self._peers.run(self._status.cluster)),
            ("host names", self._learn_host_names()),
            ("addresses", self._addresses.run(self._names, self._addresses_changed)),
        ):
            tasks.create_task(task, name=name)
        await self._serve()
        count = len(self._outside.publisher.workers)
        text = (
            f"control started (pid {os.getpid()}) over {count} workers, generation {self._outside.publisher.generation}"
        )
        self._events.add("control-started", text)
        await self._outside.parent.send({"type": "ready"})

    async def _learn_host_names(self) -> None:
        self._host_names = await asyncio.to_thread(host_names)

    async def _begin(self) -> Loaded:
        """Use the file. Over running workers one that cannot be used gives way to the last that could."""
        try:
            loaded, current = await self._reader.read()
            await self._use_first(current)
        except (ConfigError, PublishError) as refused:
            if not self._outside.publisher.generation:
                raise
            loaded, current = await self._reader.read_last_good(refused)
            await self._use_first(current)
        else:
            await self._reader.keep()
        return loaded

    async def _use_first(self, current: Current) -> None:
        await self._vault.open(current.config, ())
        await self._versions.load()
        await self._sessions.load()
        await self._upgrades.load()
        await self._designations.load(current.config)
        await self._site.use(current)

    async def _serve(self) -> None:
        """Serve the admin API where the configuration says.

        An address that cannot be used is an event: traffic does not depend on it.
        """
        admin = self._site.config.admin
        wanted = [f"unix:{admin.socket}", *([str(admin.listen)] if admin.listen else [])]
        for address in set(self._api.addresses) - set(wanted):
            await self._api.stop(address)
        for address in wanted:
            if address in self._api.addresses:
                continue
            try:
                await self._api.serve(address, listening(address))
            except OSError as exc:
                text = f"the admin API cannot be served at {address}: {exc.strerror or exc}"
                self._events.add("admin-failed", text, level="error")

    async def _sample(self) -> None:
        said = ""
        while True:
            slots = [node.slot for node in self._site.snapshot.nodes if node.admin is not Admin.REMOVED]
            self._certificates.look()
            routes = [route.slot for route in self._site.snapshot.routes]
            reading = counts.read(self._board.shared, slots, self._clock.monotonic(), routes)
            self._trend.add(reading)
            self._series.add(reading)
            self._upgrades.counted(reading)
            text = self._status.line()
            if text != said:
                await self._outside.parent.send({"type": "status", "text": text})
                said = text
            await asyncio.sleep(SAMPLE_S)

    async def _do_work(self) -> None:
        while True:
            what = await self._work.get()
            try:
                match what:
                    case "reload":
                        await self._reader.reload("SIGHUP")
                    case "reopen-log":
                        await self._outside.publisher.reopen_logs()
                    case "admin":
                        await self._serve()
                    case _:
                        await self._site.refresh()
            except BalanceError as exc:
                logger.error("%s failed: %s", what, exc)
            if what == "reload":
                await self._outside.parent.send({"type": "ready"})  # also after a refusal: the old one runs on

    def _names(self) -> Iterable[str]:
        return self._site.hosts()

    def _addresses_changed(self, names: list[str]) -> None:
        self._events.add("address-changed", f"another address for {', '.join(names)}")
        self._work.put_nowait("addresses")

    async def _keep_secrets(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            if await self._vault.open(self._site.config, self._site.snapshot.nodes):
                self._set_plans(self._site.require(), self._site.snapshot)
