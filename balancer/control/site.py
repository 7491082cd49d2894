"""The one place where file, intents, designations and addresses become the snapshot that workers run on."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from balancer.config import build
from balancer.config.overlay import Holder, Overlay
from balancer.config.schema import Config
from balancer.config.slots import Slots
from balancer.control.addresses import Addresses
from balancer.control.events import EventLog
from balancer.control.intents import Intent, Intents, IntentStore, Kind
from balancer.control.overlay import overlay, release_rate
from balancer.control.publisher import Bundle, Publisher, PublishError
from balancer.errors import RefusedError
from balancer.model import Admin, Designation, Node, Snapshot

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks: `now` for what people read and files keep, `monotonic` in seconds for what workers compare."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]

    def at(self, moment: datetime) -> float:
        """Return a wall-clock moment on the monotonic clock."""
        return self.monotonic() + (moment - self.now()).total_seconds()

    def after(self, seconds: float) -> datetime:
        """Return the wall-clock moment in so many seconds."""
        return self.now() + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Current:
    """The configuration that runs and where it came from."""

    config: Config
    path: Path
    sha256: str
    loaded_at: datetime


class Follower(Protocol):
    """Whoever has to do something about a new snapshot: the prober."""

    async def followed(self, current: Current, snapshot: Snapshot) -> None:
        """A snapshot is out."""


@dataclass(slots=True)
class Parts:
    """What a site works with."""

    publisher: Publisher
    intents: IntentStore
    addresses: Addresses
    events: EventLog
    clock: Clock


class Site:
    """Serialises every change. `current` and `snapshot` are what runs now."""

    def __init__(self, parts: Parts, *, followers: Iterable[Follower] = (), workers: int | None = None) -> None:
        """`workers` stands above the configuration's number."""
        self.parts = parts
        self.followers = list(followers)
        self.current: Current | None = None
        self.holders: dict[str, Holder] = {}
        self.done: set[str] = set()  # draining nodes with nothing in flight
        self.is_stopping = False
        self.changed = asyncio.Event()  # somebody's `until` may be another one now
        self._workers = workers
        self._slots: Slots | None = None
        self._lock = asyncio.Lock()

    @property
    def config(self) -> Config:
        """The configuration that runs."""
        if self.current is None:
            raise RuntimeError("no configuration is loaded yet")
        return self.current.config

    @property
    def is_running(self) -> bool:
        """True once a snapshot of ours is out."""
        return self.current is not None

    @property
    def snapshot(self) -> Snapshot:
        """What workers run on."""
        if self.parts.publisher.bundle is None:
            raise RuntimeError("no snapshot is out yet")
        return self.parts.publisher.bundle.snapshot

    @property
    def intents(self) -> Intents:
        """The intents that stand."""
        return self.parts.intents.current

    def published_designations(self) -> tuple[Designation, ...]:
        """Return the designations that workers run on; none before the first snapshot."""
        bundle = self.parts.publisher.bundle
        return bundle.snapshot.designations if bundle else ()

    def node(self, name: str) -> Node | None:
        """Return a node of the snapshot."""
        return next((node for node in self.snapshot.nodes if node.name == name), None)

    async def use(self, current: Current) -> None:
        """Run on another configuration. Raises PublishError and keeps the old one when it cannot be made true."""
        async with self._lock:
            intents = without_known(self.intents, current.config)
            await self.parts.addresses.look_up(_hosts(current.config, intents))
            bundle = await self._build(current, intents)
            if intents != self.intents:
                await self.parts.intents.save(intents)
            await self.parts.publisher.publish(bundle)
            self.current = current
            await self._tell()

    async def change(self, edit: Callable[[Intents], Intents]) -> None:
        """Change intents: on the disk first, then in the workers. Raises StateError when the disk refuses.

        `edit` sees the newest intents and may raise, so that two operators at once do not undo each other.
        """
        async with self._lock:
            current = self.require()
            intents = edit(self.intents)
            if intents == self.intents:
                return
            self.done &= {item.node for item in intents if item.kind in {Kind.DRAIN, Kind.REMOVE}}
            await self.parts.addresses.look_up(_hosts(current.config, intents))
            bundle = await self._build(current, intents)
            before = self.intents
            await self.parts.intents.save(intents)
            try:
                await self.parts.publisher.publish(bundle)
            except PublishError:
                await self.parts.intents.save(before)  # what is on the disk is what runs
                raise
            self.changed.set()
            await self._tell()

    def hosts(self) -> list[str]:
        """Return the hosts of all nodes as configured."""
        return _hosts(self.config, self.intents)

    async def refresh(self) -> None:
        """Publish again, because an address, a designation or a drain has moved on."""
        async with self._lock:
            current = self.require()
            await self.parts.publisher.publish(await self._build(current, self.intents))
            await self._tell()

    def require(self) -> Current:
        """Return the configuration that runs. Raises RefusedError while there is none yet."""
        if self.current is None:
            raise RefusedError("arv-balance is still starting: no configuration is loaded yet")
        return self.current

    def overlay(self, intents: Intents | None = None) -> Overlay:
        """Return what is laid over the file: the intents that stand, or these."""
        items = self.intents if intents is None else intents
        return overlay(items, done=self.done, holders=self.holders, monotonic=self.parts.clock.at)

    async def _build(self, current: Current, intents: Intents) -> Bundle:
        publisher = self.parts.publisher
        built = await asyncio.to_thread(
            build.snapshot,
            current.config,
            self.overlay(intents),
            generation=publisher.generation + 1,
            slots=self._slots or (Slots.of(publisher.bundle.snapshot) if publisher.bundle else None),
            busy_nodes=publisher.board.busy_slots(),
            workers=len(os.sched_getaffinity(0)),
        )
        snapshot = with_addresses(built.snapshot, self.parts.addresses)
        if self._workers is not None:
            snapshot = replace(snapshot, workers=self._workers)
        rate = release_rate(intents)
        if rate is not None:
            snapshot = replace(snapshot, park=replace(snapshot.park, release_per_s=rate))
        self._slots = built.slots
        backlogs = {str(listen.bind): listen.backlog for listen in current.config.listen}
        return Bundle(snapshot, built.pems, backlogs)

    async def _tell(self) -> None:
        for follower in self.followers:
            await follower.followed(self.require(), self.snapshot)


def with_addresses(snapshot: Snapshot, addresses: Addresses) -> Snapshot:
    """Return the snapshot with addresses in place of names; a name without one stays, and its node is not healthy."""
    nodes = tuple(replace(node, host=addresses.of(node.host) or node.host) for node in snapshot.nodes)
    return replace(snapshot, nodes=nodes)


def without_known(intents: Intents, config: Config) -> Intents:
    """Return the intents without added nodes that the file now holds itself: its address is the one that counts."""
    for item in intents:
        if item.kind is Kind.ADD and item.node in config.node_map:
            intents = intents.without(Kind.ADD, item.node)
    return intents


def fingerprint(data: bytes) -> str:
    """Return the name of a configuration file's content."""
    return hashlib.sha256(data).hexdigest()


def _hosts(config: Config, intents: Intents) -> list[str]:
    urls = [node.url.parts.host for node in config.node_map.values()]
    return urls + [_host(item) for item in intents if item.kind is Kind.ADD]


def _host(intent: Intent) -> str:
    return urlsplit(str(intent.settings["url"])).hostname or ""


def serving(nodes: Iterable[Node], healthy: Callable[[Node], bool]) -> list[str]:
    """Return the names of the nodes that take new exchanges."""
    return [node.name for node in nodes if node.admin is Admin.ENABLED and healthy(node)]
