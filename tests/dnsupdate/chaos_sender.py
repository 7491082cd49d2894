"""One sender process of the chaos test, or one of the two that are known to be wrong."""

import asyncio
import json
import os
import random
from dataclasses import replace
from typing import Any

import asyncpg

from dnsupdate.booking import Lease
from dnsupdate.exchange import Channel
from dnsupdate.loader import load
from dnsupdate.metrics import NoMetrics
from dnsupdate.primary import Primary
from dnsupdate.records import Renderer
from dnsupdate.repair import Repair
from dnsupdate.sender import EventWaker, Sender, SenderConfig
from dnsupdate.service import Keys, holder_name, peers, primary, wall_clock
from dnsupdate.settings import Settings
from dnsupdate.store import Store
from dnsupdate.update import Add, Delete, Update
from tests.support.nameservers import KEY


def main() -> None:
    """Entry point of the process."""
    spec = json.loads(os.environ["CHAOS"])
    settings = load(spec["settings"])
    if spec["naive"] == "skip-locked":
        asyncio.run(skip_locked(settings, spec["dsn"]))
    else:
        asyncio.run(fenced(settings, spec["dsn"], naive=spec["naive"]))


async def fenced(settings: Settings, dsn: str, *, naive: str) -> None:
    """The real sender; `no-repair`: it compares no zone, so that only the fence is left; `no-fence`: nor that."""
    async with Store.open(dsn) as store, store.nudges() as wake:
        holder = holder_name()
        clock = asyncio.get_running_loop().time
        work = primary("main", settings, Keys(KEY, KEY), store, holder=holder, observer=NoMetrics(), clock=clock)
        if naive in ("no-repair", "no-fence"):
            work.repair = Blind()
        if naive == "no-fence":
            work = unfenced(work)
        sender = Sender(
            SenderConfig(target="main", settings=settings.targets["main"], holder=holder),
            store=store,
            work=work,
            waker=EventWaker(wake),
            random=random.random,
        )
        await sender.run()


class Blind(Repair):
    """Sees no drift. The real one notices a late message by the serial and mends what it did within a moment."""

    def __init__(self) -> None:
        """Needs nothing."""

    def begin(self) -> None:
        """Do nothing."""

    def doubt(self, zone: str) -> None:
        """Do nothing."""

    async def due(self, lease: Lease, zones: list[str], *, now: float, interval_s: float) -> None:
        """Do nothing."""

    async def compare(self, lease: Lease, zone: str, *, now: float) -> None:
        """Do nothing."""


def unfenced(work: Primary) -> Primary:
    """Cut the fence out of every message that changes hosts."""

    class Unfenced(Channel):
        async def update(self, *updates: Update) -> Any:
            return await super().update(*(self._cut(update) for update in updates))

        @staticmethod
        def _cut(update: Update) -> Update:
            if any("_dnsupdate-fence" in made.name for made in update.operations):
                return update
            kept = tuple(one for one in update.prerequisites if "_dnsupdate-fence" not in one.name)
            return replace(update, prerequisites=kept)

    work.link._connect = lambda peer: Unfenced(peer, wall_clock)
    return work


async def skip_locked(settings: Settings, dsn: str) -> None:
    """The plain outbox: whoever locks a dirty row sends the host's current state, and deletes the row."""
    renderer = Renderer(settings)
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO dns_lease (target) VALUES ('main') ON CONFLICT DO NOTHING")
    async with Channel(peers(settings.targets["main"], KEY)[0], wall_clock) as channel:
        while True:
            if not await send_one(connection, renderer, channel):
                await asyncio.sleep(0.02)


async def send_one(connection: "asyncpg.Connection[asyncpg.Record]", renderer: Renderer, channel: Channel) -> bool:
    from dnsupdate.host import from_facts

    async with connection.transaction():
        row = await connection.fetchrow(
            "SELECT d.gen, h.* FROM dns_dirty d JOIN dns_hosts h ON h.uuid = d.node_uuid "
            "ORDER BY since LIMIT 1 FOR UPDATE OF d SKIP LOCKED"
        )
        if row is None:
            return False
        found = from_facts(row["uuid"], json.loads(row["facts"]), gen=0, removed=False, missing=False)
        records = renderer.render(found).contributions
        zone, name = "cluster.example.", f"{found.hostname}.cluster.example."
        adds = tuple(Add(one.name, one.rdtype, one.ttl, (one.rdata,)) for one in records if one.zone == zone)
        (reply,) = await channel.update(Update(zone, (), (Delete(name, "A"), *adds)))
        if reply.diagnosis.is_applied:
            await connection.execute("DELETE FROM dns_dirty WHERE node_uuid = $1", row["uuid"])
        return reply.diagnosis.is_applied
