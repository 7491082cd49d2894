"""The pieces of the control process, wired, and what they tell each other."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from balancer.control.actions import NodeActions
from balancer.control.admin.app import Api, Gate
from balancer.control.admin.endpoints import Services, endpoints
from balancer.control.admin.sockets import tcp_socket, unix_socket
from balancer.control.board import Board
from balancer.control.link import Link
from balancer.control.plans import address_fault, plans
from balancer.control.probe import HttpClient, Result
from balancer.control.prober import Prober
from balancer.control.publisher import Publisher
from balancer.control.reload import Reader
from balancer.control.site import Current, Parts, Site
from balancer.control.status import Sources, Status
from balancer.control.upkeep import Upkeep
from balancer.control.vault import Vault
from balancer.errors import BalanceError
from balancer.model import Health, Snapshot
from balancer.observe import counts
from balancer.wire import Message

logger = logging.getLogger(__name__)

SAMPLE_S = 1.0


class Control:
    """Everything that runs in the control process. `start`, then `run` for as long as it lives."""

    def __init__(
        self, *, board: Board, publisher: Publisher, parent: Link, parts: Parts, config: Path, workers: int | None
    ) -> None:
        self.site = Site(parts, followers=[self], workers=workers)
        self.events = parts.events
        self._parts = parts
        self._board = board
        self._parent = parent
        self._client = HttpClient()
        self.prober = Prober(client=self._client, board=board, watcher=self, now=parts.clock.now)
        self.reader = Reader(self.site, config, parts.events, parts.clock)
        self._vault = Vault(self._unreadable)
        self._trend = counts.Trend()
        self._upkeep = Upkeep(self.site, parts.events)
        self._actions = NodeActions(site=self.site, board=board, prober=self.prober, events=parts.events)
        self.status = Status(
            Sources(
                site=self.site,
                board=board,
                prober=self.prober,
                reader=self.reader,
                trend=self._trend,
                started=parts.clock.now(),
                versions=lambda _name: "",
                designations=list,
            )
        )
        self._work: asyncio.Queue[str] = asyncio.Queue()
        self._stack = AsyncExitStack()
        services = Services(
            site=self.site,
            status=self.status,
            actions=self._actions,
            events=self.events,
            reader=self.reader,
            publisher=publisher,
        )
        gate = Gate(tokens=lambda: self._vault.opened.tokens, hosts=tuple)
        self._api = Api(endpoints(services), gate, lambda _action, _result: None)

    # --- what others tell us --------------------------------------------------------------------------------

    async def followed(self, current: Current, snapshot: Snapshot) -> None:
        """Check the nodes of a new snapshot."""
        await self._vault.open(current.config, snapshot)
        self._set_plans(current, snapshot)

    def _set_plans(self, current: Current, snapshot: Snapshot) -> None:
        self.prober.set_plans(
            plans(
                current.config,
                snapshot,
                self._vault.opened.secrets,
                lambda node: address_fault(node, self._parts.addresses),
            )
        )

    def _unreadable(self, fault: str) -> None:
        self.events.add("secret-unreadable", fault, level="warning")

    def health_changed(self, name: str, old: Health, new: Health, why: str) -> None:
        """Record a node's change of state."""
        was = f" (was {old.name.lower()})" if old is not Health.CHECKING else ""
        level = "info" if new is Health.HEALTHY else "warning"
        text = f"{name} is {new.name.lower()}{was}" + ("" if new is Health.HEALTHY else f": {why}")
        self.events.add("node-health", text, node=name, reason=why, level=level)

    def checked(self, name: str, result: Result) -> None:
        """Take note of a check."""

    def from_worker(self, message: Message) -> None:
        """Take what a worker says without being asked."""
        match message.get("kind"):
            case "node-refused" | "node-reset" as kind:
                name = str(message.get("node", ""))
                if kind == "node-refused":
                    self.prober.live_refused(name)
                else:
                    self.prober.check_now(name)
            case kind:
                facts = ", ".join(
                    f"{key} {value}" for key, value in message.items() if key not in {"type", "kind", "fds"}
                )
                self.events.add(str(kind), f"worker reports {kind}: {facts}", level="warning")

    def from_parent(self, message: Message) -> None:
        """Take what the parent says."""
        publisher = self._parts.publisher
        match message["type"]:
            case "applied" | "refused":
                publisher.take_parent_answer(message)
            case "workers":
                publisher.set_workers_from(message["workers"])
            case "worker-lost":
                text = f"worker {message['slot']} (pid {message['pid']}) died, {message['lost']} exchanges lost"
                self.events.add("worker-lost", text, level="error")
            case "worker-stuck":
                text = f"worker {message['slot']} (pid {message['pid']}) has not moved for {message['age_s']:.1f} s"
                self.events.add("worker-stuck", text, level="warning")
            case "upgrade-refused":
                self.events.add("upgrade-refused", f"the program is not replaced: {message['reason']}", level="error")
            case "stopping":
                self.events.add("stopping", f"stopping: {message['deadline_s']:g} s for what is under way")
            case "reload" | "reopen-log" as kind:
                self._work.put_nowait(kind)
            case kind:
                logger.warning("the parent says what this version does not know", extra={"action": kind})

    # --- life -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._client)
        await self._stack.enter_async_context(self.prober)
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
        tasks.create_task(self.events.run(), name="events")
        loaded, current = await self.reader.read()
        for fault in loaded.warnings:
            logger.warning("%s", fault.message, extra={"path": fault.path})
        await self.site.use(current)
        tasks.create_task(self._sample(), name="rates")
        tasks.create_task(self._upkeep.expire(), name="expiry")
        tasks.create_task(self._upkeep.drain(), name="drains")
        tasks.create_task(self._do_work(), name="work")
        tasks.create_task(self._keep_secrets(), name="secrets")
        tasks.create_task(self._parts.addresses.run(self._names, self._addresses_changed), name="addresses")
        await self._serve()
        await self._parent.send({"type": "ready"})

    async def _serve(self) -> None:
        """Open the admin API. An address that cannot be used is an event: traffic does not depend on it."""
        admin = self.site.config.admin
        try:
            await self._api.serve(unix_socket(Path(admin.socket)))
        except OSError as exc:
            self.events.add("admin-failed", f"admin socket {admin.socket}: {exc.strerror or exc}", level="error")
        if admin.listen:
            try:
                await self._api.serve(tcp_socket(admin.listen))
            except OSError as exc:
                self.events.add("admin-failed", f"admin address {admin.listen}: {exc.strerror or exc}", level="error")

    async def _sample(self) -> None:
        while True:
            slots = [node.slot for node in self.site.snapshot.nodes]
            self._trend.add(counts.read(self._board.shared, slots, self._parts.clock.monotonic()))
            await asyncio.sleep(SAMPLE_S)

    async def _do_work(self) -> None:
        while True:
            what = await self._work.get()
            try:
                match what:
                    case "reload":
                        await self.reader.reload("SIGHUP")
                    case "reopen-log":
                        await self._parts.publisher.reopen_logs()
                    case _:
                        await self.site.refresh()
            except BalanceError as exc:
                logger.error("%s failed: %s", what, exc)
            if what == "reload":
                await self._parent.send({"type": "ready"})

    def _names(self) -> Iterable[str]:
        return self.site.hosts() if self.site.is_running else ()

    def _addresses_changed(self, names: list[str]) -> None:
        self.events.add("address-changed", f"another address for {', '.join(names)}")
        self._work.put_nowait("addresses")

    async def _keep_secrets(self) -> None:
        while True:
            await asyncio.sleep(30.0)
            if await self._vault.open(self.site.config, self.site.snapshot):
                self._set_plans(self.site.require(), self.site.snapshot)
