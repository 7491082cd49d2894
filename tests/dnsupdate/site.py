"""A sender and a server and a database, to be driven step by step."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from dnsupdate.authority import Authority
from dnsupdate.enqueue import enqueue, remove, states
from dnsupdate.exchange import Channel
from dnsupdate.host import Host
from dnsupdate.loader import load
from dnsupdate.metrics import NoMetrics
from dnsupdate.sender import Sender, SenderConfig
from dnsupdate.service import Keys, primary
from dnsupdate.settings import Settings
from dnsupdate.store import Store
from dnsupdate.update import Add, Update
from dnsupdate.zone import Zone
from tests.dnsupdate.builders import SECTION, host
from tests.dnsupdate.servers import FORWARD, REVERSE, Target, wall
from tests.support.nameservers import KEY, write_key


class Waker:
    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.02))


class Counting(NoMetrics):
    """Remembers each exchange."""

    def __init__(self) -> None:
        self.exchanges: list[tuple[str, str]] = []

    def exchanged(self, target: str, zone: str, server: str, rcode: str, seconds: float) -> None:
        self.exchanges.append((zone, rcode))


def site_settings(server: Target, folder: Path, **more: Any) -> Settings:
    target = {
        "kind": "rfc2136",
        "servers": ["127.0.0.1"],
        "port": server.port,
        "key_file": str(write_key(folder)),
        "timeout": "5s",
        "retry": {"first": "10ms", "most": "50ms"},
        "poll": "20ms",
        **more.pop("target", {}),
    }
    return load({**SECTION, "targets": {"main": target}, **more})


@dataclass
class Site:
    """Everything that one test needs."""

    server: Target
    settings: Settings
    store: Store
    db: "asyncpg.Connection[asyncpg.Record]"
    sender: Sender
    counting: Counting
    makes: list[Sender] = field(default_factory=list)

    async def ping(self, *hosts: Host, **more: Any) -> None:
        async with self.db.transaction():
            await enqueue(self.db, *hosts, rules=self.settings.rules, **more)

    async def gone(self, *names: str) -> None:
        async with self.db.transaction():
            await remove(self.db, *(f"xarv1-7ekkf-{name}" for name in names))

    async def state(self, name: str) -> str:
        return (await states(self.db, [f"xarv1-7ekkf-{name}"]))[f"xarv1-7ekkf-{name}"].targets[0].text()

    async def rest(self, deadline_s: float = 30.0) -> None:
        """Run the sender until nothing is left to do but to wait."""
        quiet, end = 0, asyncio.get_running_loop().time() + deadline_s
        while quiet < 3:
            delay = await self.sender.cycle()
            is_quiet = self.sender.status.text == "all is published" or self.sender.status.text.startswith("0 names")
            quiet = quiet + 1 if is_quiet and self.sender.status.error is None else 0
            assert asyncio.get_running_loop().time() < end, self.sender.status
            await asyncio.sleep(min(delay, 0.02))

    async def steps(self, count: int) -> None:
        for _ in range(count):
            await self.sender.cycle()

    def other(self, holder: str = "api2") -> Sender:
        """Another process's sender."""
        return make_sender(self.settings, self.store, holder, self.counting)

    def forward(self) -> set[str]:
        return self.server.hosts(FORWARD)

    def reverse(self) -> set[str]:
        return self.server.hosts(REVERSE)

    async def events(self) -> dict[str, str]:
        rows = await self.db.fetch("SELECT kind, text FROM dns_events ORDER BY id")
        return {row["kind"]: row["text"] for row in rows}


def make_sender(settings: Settings, store: Store, holder: str, counting: Counting) -> Sender:
    loop = asyncio.get_running_loop()
    work = primary("main", settings, Keys(KEY, KEY), store, holder=holder, observer=counting, clock=loop.time)
    return Sender(
        SenderConfig(target="main", settings=settings.targets["main"], holder=holder),
        store=store,
        work=work,
        waker=Waker(),
        random=lambda: 1.0,
    )


@asynccontextmanager
async def site(server: Target, dsn: str, folder: Path, **more: Any) -> AsyncIterator[Site]:
    settings = site_settings(server, folder, **more)
    async with Store.open(dsn) as store:
        db = await asyncpg.connect(dsn)
        counting = Counting()
        sender = make_sender(settings, store, "api1", counting)
        await store.register("main", "rfc2136")
        try:
            yield Site(server, settings, store, db, sender, counting)
        finally:
            await sender._stop()
            await db.close()


FORWARD_ONLY = [{"name": "{{ fqdn }}.", "each": "ipv4", "type": "A", "data": "{{ item }}"}]


def forward_only(**template: Any) -> dict[str, Any]:
    return {"compute": {"records": FORWARD_ONLY, **template}}


def a(name: str, ip: str) -> str:
    return f"{name}.{FORWARD} 60 A {ip}"


def ptr(octet: int, name: str) -> str:
    return f"{octet}.{REVERSE} 60 PTR {name}.{FORWARD}"


def zone_of(server: Target, name: str = FORWARD) -> Zone:
    assert isinstance(server.authority, Authority)
    return next(zone for zone in server.authority.zones.values() if str(zone.origin) == name)


async def foreign(server: Target, name: str, ip: str) -> None:
    """An administrator makes a record by hand."""
    async with Channel(server.peer(), wall) as channel:
        (reply,) = await channel.update(Update(FORWARD, (), (Add(name, "A", 60, (ip,)),)))
        assert reply.diagnosis.is_applied


__all__ = ["FORWARD_ONLY", "Site", "a", "foreign", "forward_only", "host", "ptr", "site", "zone_of"]
