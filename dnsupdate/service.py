"""All senders of a process, put together from the settings."""

import asyncio
import hashlib
import logging
import os
import random
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dnsupdate.errors import KeyFileError, RenderError, StoreError
from dnsupdate.exchange import Channel, Peer
from dnsupdate.files import Files, FilesConfig, FileTemplate, read_template
from dnsupdate.folder import Folder
from dnsupdate.keys import Key, read
from dnsupdate.metrics import NoMetrics
from dnsupdate.plan import Policy
from dnsupdate.primary import Observer, Primary, PrimaryConfig
from dnsupdate.records import Renderer, synthetic_hosts
from dnsupdate.sender import EventWaker, Sender, SenderConfig
from dnsupdate.settings import Settings, TargetSettings
from dnsupdate.store import Store

logger = logging.getLogger(__name__)
SWEEP_S = 30.0
LISTEN_S = 60.0


def wall_clock() -> float:
    """Seconds since 1970, for signatures."""
    return datetime.now(UTC).timestamp()


def wall_text() -> str:
    """Now, as the fence record says it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def holder_name() -> str:
    """Return a name for this process that no other has, fit for a TXT record."""
    host = "".join(char for char in socket.gethostname().lower() if char.isalnum() or char in "-.")[:40]
    return f"{host or 'host'}/{os.getpid()}-{secrets.token_hex(3)}"


def peers(target: TargetSettings, key: Key | None) -> tuple[Peer, ...]:
    """Return the addresses of a target's server."""
    return tuple(
        Peer(address=address, port=target.port, key=key, fudge_s=target.fudge, timeout_s=target.timeout)
        for address in target.servers
    )


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a target: for updates, and for transfers."""

    update: Key | None = None
    transfer: Key | None = None


def read_keys(settings: Settings) -> dict[str, Keys]:
    """Read the key files of all targets. Blocks: call it before the event loop runs, or in a thread.

    Raises:
        KeyFileError: with target and file.
    """
    return {name: _keys(name, target) for name, target in settings.targets.items()}


def _keys(name: str, target: TargetSettings) -> Keys:
    try:
        weak = target.allow_weak_algorithms
        update = None if target.key_file is None else read(target.key_file, name=target.key_name, allow_weak=weak)
        path = target.transfer_key_file
        transfer = update if path is None else read(path, name=target.transfer_key_name, allow_weak=weak)
    except KeyFileError as exc:
        raise KeyFileError(f"target {name}: {exc}") from None
    return Keys(update, transfer)


def fingerprint(settings: Settings) -> str:
    """Return what changes when templates, zones or lifecycles do, so that all hosts are to be looked at again."""
    shape = settings.model_dump_json(include={"templates", "zones", "defaults", "domain", "info", "owner"})
    return hashlib.sha256(shape.encode()).hexdigest()[:16]


def primary(
    name: str,
    settings: Settings,
    keys: Keys,
    store: Store,
    *,
    holder: str,
    observer: Observer,
    clock: Callable[[], float],
) -> Primary:
    """Return the work for a target that is an authoritative primary."""
    target = settings.targets[name]
    config = PrimaryConfig(
        target=name,
        settings=target,
        zones=tuple(zone.name for zone in settings.zones_of(name)),
        policy=Policy(settings.owner_id, target.ownership, target.conflict),
        peers=peers(target, keys.update),
        transfer_peers=peers(target, keys.transfer),
        fingerprint=fingerprint(settings),
        holder=holder,
    )
    return Primary(
        config=config,
        renderer=Renderer(settings),
        store=store,
        connect=lambda peer: Channel(peer, wall_clock),
        observer=observer,
        clock=clock,
        wall=wall_text,
    )


class Designation:
    """The right to write directories: the newest epoch with which a balancer designated this node.

    No node knows its own name; it learns that it is the designated one by the `X-Arv-Designation` header of pings.
    """

    def __init__(self) -> None:
        self._epoch: int | None = None

    def grant(self, epoch: int) -> None:
        """A ping came with this epoch."""
        self._epoch = max(epoch, self._epoch or 0)

    def epoch(self) -> int | None:
        """Return the newest epoch, None while nothing designated this node."""
        return self._epoch


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is read from files before anything starts."""

    keys: Mapping[str, Keys]
    templates: Mapping[str, FileTemplate]


def read_files(settings: Settings) -> Secrets:
    """Read keys and file templates of all targets. Blocks: call it before the event loop runs, or in a thread.

    Raises:
        KeyFileError: a key, with target and file.
        RenderError: a template, with its file and line.
    """
    templates = {
        name: checked_template(target.template, settings)
        for name, target in settings.targets.items()
        if target.kind == "files" and target.template is not None
    }
    return Secrets(read_keys(settings), templates)


def checked_template(path: Path, settings: Settings) -> FileTemplate:
    """Read a host file's template and fill it once with a host that does not exist.

    Raises:
        RenderError: with file and line.
    """
    found = read_template(path)
    try:
        for host in synthetic_hosts(settings):
            found.render(Renderer(settings).variables(host))
    except RenderError as exc:
        raise RenderError(f"{path}: {exc}") from None
    return found


class Service:
    """The senders of a process; `senders` is for status pages."""

    def __init__(
        self,
        settings: Settings,
        secrets: Secrets,
        store: Store,
        *,
        holder: str,
        observer: Observer | None = None,
        designation: Designation | None = None,
    ) -> None:
        """Without a `designation` directories are left to other nodes."""
        self._settings, self._secrets, self._store, self._holder = settings, secrets, store, holder
        self._observer: Observer = observer or NoMetrics()
        self._designation = designation
        self.senders: dict[str, Sender] = {}

    async def run(self) -> None:
        """Send to all targets until cancelled; survives a database that goes away."""
        async with asyncio.TaskGroup() as group:
            targets = self._settings.targets.items()
            wakes = {name: asyncio.Event() for name, target in targets if target.kind != "files" or self._designation}
            for name, wake in wakes.items():
                self.senders[name] = self._sender(name, wake)
                group.create_task(self.senders[name].run(), name=f"dns-{name}")
            group.create_task(self._listen(wakes), name="dns-nudges")
            group.create_task(self._sweep(), name="dns-sweep")

    def _sender(self, name: str, wake: asyncio.Event) -> Sender:
        target = self._settings.targets[name]
        is_files = target.kind == "files" and self._designation is not None
        config = SenderConfig(
            target=name,
            settings=target,
            holder=self._holder,
            designation=self._designation.epoch if is_files and self._designation is not None else None,
        )
        return Sender(
            config,
            store=self._store,
            work=self._files(name, target) if is_files else self._primary(name),
            waker=EventWaker(wake),
            random=random.SystemRandom().random,
        )

    def _primary(self, name: str) -> Primary:
        return primary(
            name,
            self._settings,
            self._secrets.keys[name],
            self._store,
            holder=self._holder,
            observer=self._observer,
            clock=asyncio.get_running_loop().time,
        )

    def _files(self, name: str, target: TargetSettings) -> Files:
        return Files(
            config=FilesConfig(name, target, self._secrets.templates[name], self._settings.owner_id),
            renderer=Renderer(self._settings),
            store=self._store,
            folder=Folder(target.dir or Path(), rules=self._settings.rules),
            clock=asyncio.get_running_loop().time,
        )

    async def _listen(self, wakes: dict[str, asyncio.Event]) -> None:
        """Pass nudges on; without a connection the poll has to do."""
        while True:
            try:
                async with self._store.nudges() as heard:
                    while True:
                        async with asyncio.timeout(LISTEN_S):
                            await heard.wait()
                        heard.clear()
                        for wake in wakes.values():
                            wake.set()
            except TimeoutError:
                continue  # a new connection now and then: a dead one tells nothing
            except StoreError:
                await asyncio.sleep(LISTEN_S / 10)

    async def _sweep(self) -> None:
        """Notice missing hosts and fill names in, now and then; any process may, the changes are made once."""
        settings = self._settings
        missing_after_s, names = settings.missing_after, settings.prefilled
        while True:
            try:
                await self._store.sweep(missing_after_s=missing_after_s, prefill=names, domain=settings.domain)
            except StoreError as exc:
                logger.warning("no sweep", extra={"action": "sweep", "reason": str(exc)})
            await asyncio.sleep(SWEEP_S)
