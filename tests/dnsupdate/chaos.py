"""Many sender processes, killed and stopped at random, and a server that stalls: who is right at rest?

A round pings hosts, hurts processes, lets everything calm down and compares every host with the database. `naive`
switches one mechanism off, for the negative controls.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from dnsupdate.authority import Fault
from dnsupdate.enqueue import enqueue
from tests.dnsupdate.builders import host
from tests.dnsupdate.servers import FORWARD, Target
from tests.support.postgres import until

HOSTS = 60
CALM_DEADLINE_S = 45.0
LATEST_S = 2.0  # how long a message is held back at most; longer than it takes a busy machine to send again
_ENTRY = "from tests.dnsupdate.chaos_sender import main; main()"


@dataclass
class Chaos:
    """The processes of one site."""

    server: Target
    dsn: str
    settings: dict[str, Any]
    seed: int
    naive: str = ""
    workers: int = 3
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    pings: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def start_worker(self) -> None:
        spec = {"dsn": self.dsn, "settings": self.settings, "naive": self.naive, "seed": self.random.random()}
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-c", _ENTRY],
                env={**os.environ, "CHAOS": json.dumps(spec)},
                cwd=Path(__file__).parents[2],
                stdout=subprocess.DEVNULL,
            )
        )

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self.processes:
            process.wait(10)

    async def hurt_a_worker(self) -> None:
        """Stop one for a while, or kill one and start another."""
        process = self.random.choice(self.processes)
        if self.random.random() < 0.5:
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self.random.uniform(0.2, 1.4))
            process.send_signal(signal.SIGCONT)
        else:
            process.kill()
            process.wait(10)
            self.processes.remove(process)
            self.start_worker()

    async def hurt_the_server(self) -> None:
        """Stall it, so that clients give up on messages that it will still apply."""
        seconds = self.random.uniform(0.4, 0.9)
        if self.server.process is not None:
            self.server.process.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            self.server.process.signal(signal.SIGCONT)
            return
        assert self.server.authority is not None
        faults = self.server.authority.faults.queue
        kinds = [self.random.choice(["late", "late", "drop", "stall", "close"]) for _ in range(2)]
        faults.extend(Fault(kind, self.random.uniform(0.4, LATEST_S)) for kind in kinds)
        await asyncio.sleep(seconds)
        faults.clear()

    async def ping(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        name = f"compute{self.random.randrange(HOSTS)}"
        async with connection.transaction():
            await enqueue(connection, host(name, f"10.0.{self.random.randrange(4)}.{self.random.randrange(1, 250)}"))
        self.pings += 1

    async def round(self, connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, tuple[str, str]]:
        """Return the hosts that are wrong at rest: name to (database, server)."""
        hurts = [self.hurt_the_server(), self.hurt_a_worker()]
        self.random.shuffle(hurts)
        async with asyncio.TaskGroup() as group:
            for hurt in hurts:
                group.create_task(hurt)
            for _ in range(60):
                await self.ping(connection)
                await asyncio.sleep(0.015)
        await self._calm(connection)
        await asyncio.sleep(LATEST_S + 0.3)  # what was held back has arrived
        return await self._wrong(connection)

    async def _calm(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        await until(lambda: connection.fetchval("SELECT count(*) = 0 FROM dns_dirty"), CALM_DEADLINE_S)

    async def _wrong(self, connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, tuple[str, str]]:
        rows = await connection.fetch("SELECT facts FROM dns_hosts WHERE NOT removed")
        wanted = {}
        for row in rows:
            facts = json.loads(row["facts"])
            wanted[f"{facts['hostname']}.{FORWARD}"] = ",".join(sorted(facts["ips"]))
        there: dict[str, str] = {}
        for line in self.server.hosts(FORWARD):
            name, _, rdtype, data = line.split()
            if rdtype == "A":
                there[name] = ",".join(sorted([*filter(None, [there.get(name)]), data]))
        names = {*wanted, *there}
        return {
            name: (wanted.get(name, ""), there.get(name, ""))
            for name in names
            if wanted.get(name, "") != there.get(name, "")
        }


@asynccontextmanager
async def chaos(
    server: Target, dsn: str, settings: dict[str, Any], *, seed: int, naive: str = ""
) -> AsyncIterator[Chaos]:
    """Start the workers; kill them at the end."""
    one = Chaos(server, dsn, settings, seed, naive)
    try:
        for _ in range(one.workers):
            one.start_worker()
        yield one
    finally:
        one.stop()


async def rounds(one: Chaos, count: int) -> list[dict[str, tuple[str, str]]]:
    """Run rounds; return what was wrong in each."""
    connection = await asyncpg.connect(one.dsn)
    try:
        return [await one.round(connection) for _ in range(count)]
    finally:
        await connection.close()
