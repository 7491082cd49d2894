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

from dnsupdate.errors import KeyFileError
from dnsupdate.exchange import Channel, Peer
from dnsupdate.keys import Key, read
from dnsupdate.metrics import NoMetrics
from dnsupdate.plan import Policy
from dnsupdate.primary import Observer, Primary, PrimaryConfig
from dnsupdate.records import Renderer
from dnsupdate.sender import EventWaker, Sender
from dnsupdate.settings import Settings, TargetSettings, prefilled
from dnsupdate.store import Store

logger = logging.getLogger(__name__)
SWEEP_S = 30.0


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


class Service:
    """The senders of a process; `senders` is for status pages."""

    def __init__(
        self,
        settings: Settings,
        keys: Mapping[str, Keys],
        store: Store,
        *,
        holder: str,
        observer: Observer | None = None,
    ) -> None:
        self._keys = keys
        self._settings, self._store, self._holder = settings, store, holder
        self._observer: Observer = observer or NoMetrics()
        self.senders: dict[str, Sender] = {}

    async def run(self) -> None:
        """Send to all primaries until cancelled."""
        async with self._store.nudges() as heard, asyncio.TaskGroup() as group:
            wakes = {name: asyncio.Event() for name, target in self._settings.targets.items() if target.kind != "files"}
            for name, wake in wakes.items():
                self.senders[name] = self._sender(name, wake)
                group.create_task(self.senders[name].run(), name=f"dns-{name}")
            group.create_task(_spread(heard, wakes), name="dns-nudges")
            group.create_task(self._sweep(), name="dns-sweep")

    def _sender(self, name: str, wake: asyncio.Event) -> Sender:
        work = primary(
            name,
            self._settings,
            self._keys[name],
            self._store,
            holder=self._holder,
            observer=self._observer,
            clock=asyncio.get_running_loop().time,
        )
        return Sender(
            target=name,
            settings=self._settings.targets[name],
            store=self._store,
            work=work,
            holder=self._holder,
            waker=EventWaker(wake),
            random=random.SystemRandom().random,
        )

    async def _sweep(self) -> None:
        """Notice missing hosts and fill names in, now and then; any process may, the changes are made once."""
        afters = [found.missing_after for found in self._settings.templates.values() if found.missing_after is not None]
        names = [name for found in self._settings.templates.values() for name in prefilled(found.prefill)]
        while True:
            await self._store.sweep(
                missing_after_s=min(afters, default=None), prefill=names, domain=self._settings.domain
            )
            await asyncio.sleep(SWEEP_S)


async def _spread(heard: asyncio.Event, wakes: dict[str, asyncio.Event]) -> None:
    while True:
        await heard.wait()
        heard.clear()
        for wake in wakes.values():
            wake.set()
