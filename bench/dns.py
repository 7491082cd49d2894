"""Hosts per second of the DNS sender beside nsupdate, on the same server, in the same run.

    python -P -m bench.dns [--server bind|knot] [--hosts 1000] [--rounds 5] [--batches-only]

Each round does the same work six times, in changing order: nsupdate fed one host at a time and fed the batches that our
sender sends, our client alone (`exchange`) fed the same, our whole sender with batches of one and as it is. The work is
a new A record and its ownership marker a host, in a zone that was empty before. nsupdate is one process fed by a pipe;
the sender includes everything from the dirty rows in PostgreSQL to the booked answers. Printed are the medians, the
ratios of each round's pair, and CPU per host: of the client, of PostgreSQL, of the name server. `--batches-only` leaves
out the ways with one host a message, which take long.
"""

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import asyncpg

from apiserver.launcher import LocalServer, find_binaries
from bench.process import family_cpu_ns
from dnsupdate.exchange import Channel
from dnsupdate.loader import load
from dnsupdate.metrics import NoMetrics
from dnsupdate.plan import Change, Guard, Policy, RRset
from dnsupdate.schema import migrate
from dnsupdate.sender import Sender, SenderConfig
from dnsupdate.service import Keys, primary, wall_clock
from dnsupdate.settings import Settings
from dnsupdate.store import Store
from dnsupdate.update import Fence, Update, apply_changes, fence_name, nsupdate_script, unfenced
from tests.support.nameservers import KEY, NameServer, bind, knot, running, write_key

POLICY = Policy("nsupdate")
BATCH = 250
_WAYS = 6
_DIRTY = """WITH made AS (INSERT INTO dns_hosts (uuid, facts)
 SELECT name, jsonb_build_object('hostname', name, 'ips', jsonb_build_array(ip))
 FROM unnest($1::text[], $2::text[]) AS n(name, ip)
 RETURNING uuid, gen) INSERT INTO dns_dirty (target, node_uuid, gen) SELECT 'main', uuid, gen FROM made"""


class Took(NamedTuple):
    """Seconds of one way in one round, and CPU seconds of those who worked for it."""

    wall: float
    client: float
    database: float
    server: float

    def scaled(self, factor: float) -> "Took":
        """Return what so many times the work would have taken."""
        return Took(*(seconds * factor for seconds in self))


@dataclass(frozen=True)
class Site:
    """The name server and the database, with their processes."""

    server: NameServer
    dsn: str
    postgres_pid: int
    server_pid: int

    def clocks(self) -> Took:
        """Return what all clocks show; the difference of two is what was taken between them."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        client = time.process_time() + children.ru_utime + children.ru_stime
        others = [family_cpu_ns(pid) / 1e9 for pid in (self.postgres_pid, self.server_pid)]
        return Took(time.perf_counter(), client, *others)

    def since(self, before: Took) -> Took:
        """Return what was taken since then."""
        now = time.perf_counter()  # before the reading of the others' clocks, which takes a while
        after = self.clocks()
        return Took(now - before.wall, *(late - early for late, early in zip(after[1:], before[1:], strict=True)))


def zone_of(mark: str) -> str:
    """Return the zone of one measurement: one for all would grow with the rounds, and so would its first comparison."""
    return f"{mark}.bench.example."


def settings(port: int, folder: Path, batch: int, owner: str) -> Settings:
    """Return a site with one zone and one record a host."""
    target = {"servers": ["127.0.0.1"], "port": port, "key_file": str(write_key(folder)), "batch": batch}
    record = {"name": f"{{{{ hostname }}}}.{zone_of(owner)}", "each": "ipv4", "type": "A", "data": "{{ item }}"}
    return load(
        {
            "owner": owner,
            "targets": {"main": target},
            "zones": [{"name": zone_of(owner), "target": "main"}],
            "templates": {"compute": {"records": [record]}},
        }
    )


def names(mark: str, hosts: int) -> list[tuple[str, str]]:
    """Return names and addresses that no other measurement uses."""
    return [
        (f"{mark}-{number}", f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}")
        for number in range(hosts)
    ]


def changes(mark: str, hosts: int) -> list[Change]:
    """Return the changes that the sender makes for these hosts."""
    zone = zone_of(mark)
    return [
        Change(zone, f"{name}.{zone}", Guard.ABSENT, (), (RRset("A", 60, (ip,)),), ("A",), frozenset(), mark=True)
        for name, ip in names(mark, hosts)
    ]


def nsupdate(site: Site, updates: list[Update]) -> Took:
    """Feed nsupdate."""
    script = nsupdate_script(updates, server="127.0.0.1", port=site.server.port)
    key = site.server.folder / "nsupdate.key"
    key.write_text((site.server.folder.parent / "upd.key").read_text())
    key.chmod(0o600)
    before = site.clocks()
    done = subprocess.run(["nsupdate", "-v", "-k", str(key)], input=script, text=True, capture_output=True, check=False)
    took = site.since(before)
    if done.returncode or done.stderr.strip():
        raise SystemExit(f"nsupdate failed: {done.stderr[-500:]}")
    return took


class Waker:
    """Does not wait: the bench measures work, not rest."""

    async def wait(self, seconds: float) -> None:
        """Let others run."""
        del seconds
        await asyncio.sleep(0)


async def ours(site: Site, mark: str, hosts: int, batch: int) -> Took:
    """Drain dirty hosts."""
    found = settings(site.server.port, site.server.folder.parent, batch, mark)
    connection = await asyncpg.connect(site.dsn)
    await connection.execute(
        "TRUNCATE dns_hosts, dns_dirty, dns_published, dns_unsure, dns_sending, dns_messages, dns_lease"
    )
    async with Store.open(site.dsn) as store:
        await store.register("main", "rfc2136")
        loop = asyncio.get_running_loop()
        work = primary("main", found, Keys(KEY, KEY), store, holder="bench", observer=NoMetrics(), clock=loop.time)
        config = SenderConfig(target="main", settings=found.targets["main"], holder="bench")
        sender = Sender(config, store=store, work=work, waker=Waker(), random=lambda: 1.0)
        await sender.cycle()  # lease, fence, first comparison
        every = names(mark, hosts)
        await connection.execute(_DIRTY, [name for name, _ in every], [ip for _, ip in every])
        before = site.clocks()
        while sender.status.text != "all is published" or await connection.fetchval("SELECT count(*) FROM dns_dirty"):
            await sender.cycle()
            if sender.status.error:
                raise SystemExit(f"sender: {sender.status.error}")
        took = site.since(before)
        await work.close()
    await connection.close()
    return took


async def fence_of(server: NameServer, zone: str) -> Fence:
    """Set a fence, so that nsupdate's batches can carry the prerequisite that ours carry."""
    from dnsupdate.exchange import Peer
    from dnsupdate.update import Add, Delete

    fence = Fence(owner="nsupdate", epoch=1)
    name = fence_name(fence.owner, zone)
    async with Channel(Peer(address="127.0.0.1", port=server.port, key=KEY), wall_clock) as channel:
        await channel.update(Update(zone, (), (Delete(name, "TXT"), Add(name, "TXT", 0, (fence.text(),)))))
    return fence


def batches(server: NameServer, mark: str, hosts: int) -> list[Update]:
    """Return the messages of our sender, for nsupdate."""
    every, zone = changes(mark, hosts), zone_of(mark)
    fence = asyncio.run(fence_of(server, zone))
    return [apply_changes(zone, every[at : at + BATCH], fence, POLICY, 60) for at in range(0, hosts, BATCH)]


async def exchange(site: Site, updates: list[Update]) -> Took:
    """Send the batches by our client alone, without database and templates: what nsupdate does."""
    from dnsupdate.exchange import Peer

    async with Channel(Peer(address="127.0.0.1", port=site.server.port, key=KEY), wall_clock) as channel:
        before = site.clocks()
        replies = await channel.update(*updates)
        took = site.since(before)
    if not all(reply.diagnosis.is_applied for reply in replies):
        raise SystemExit(f"exchange: {replies[0].diagnosis}")
    return took


def singles(mark: str, hosts: int) -> list[Update]:
    """Return one message a host, as a script without our sender would make them."""
    return [unfenced(zone_of(mark), [change], POLICY, 60) for change in changes(mark, hosts)]


def measure(site: Site, hosts: int, rounds: int, *, batches_only: bool) -> dict[str, list[Took]]:
    """Return what each way took in each round."""
    few = max(1, hosts // 5)  # single ways are slow, and their rate does not depend on how many there are
    ways: dict[str, Callable[[str], Took]] = {
        "nsupdate, one at a time": lambda mark: nsupdate(site, singles(mark, few)).scaled(hosts / few),
        "nsupdate, same batches": lambda mark: nsupdate(site, batches(site.server, mark, hosts)),
        "exchange, one at a time": lambda mark: asyncio.run(exchange(site, singles(mark, hosts))),
        "exchange, same batches": lambda mark: asyncio.run(exchange(site, batches(site.server, mark, hosts))),
        "sender, one at a time": lambda mark: asyncio.run(ours(site, mark, few, 1)).scaled(hosts / few),
        "sender": lambda mark: asyncio.run(ours(site, mark, hosts, BATCH)),
    }
    if batches_only:
        ways = {way: run for way, run in ways.items() if "one at a time" not in way}
    found: dict[str, list[Took]] = {way: [] for way in ways}
    for number in range(rounds):
        order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        for at, way in enumerate(order):
            found[way].append(ways[way](f"r{number}w{at}"))
            print(f"{way}: {found[way][-1].wall:.2f} s", file=sys.stderr, flush=True)
    return found


def report(found: dict[str, list[Took]], hosts: int, title: str) -> None:
    """Print rates, ratios of pairs, CPU."""
    print(f"\n{title}: {hosts} hosts, {len(next(iter(found.values())))} rounds, medians")
    print(f"  {'':<26} {'hosts/s':>8}   CPU us a host: client  PostgreSQL  server")
    for way, took in found.items():
        rate = statistics.median(hosts / one.wall for one in took)
        client, database, server = (statistics.median(one[at] / hosts * 1e6 for one in took) for at in (1, 2, 3))
        print(f"  {way:<26} {rate:8.0f}   {client:21.0f} {database:11.0f} {server:7.0f}")
    for over, under in (
        ("sender", "nsupdate, one at a time"),
        ("sender", "nsupdate, same batches"),
        ("exchange, same batches", "nsupdate, same batches"),
        ("exchange, one at a time", "nsupdate, one at a time"),
        ("sender, one at a time", "nsupdate, one at a time"),
    ):
        if over in found and under in found:
            ratios = [theirs.wall / mine.wall for mine, theirs in zip(found[over], found[under], strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"  {over} / {under}: {statistics.median(ratios):.2f} times ({spread})")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--server", choices=["bind", "knot"], default="bind")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches-only", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="arv-bench-dns-"))
    folder.chmod(0o755)
    postgres = LocalServer(folder / "pg", find_binaries())
    postgres.start()
    try:
        dsn = postgres.dsn("postgres")
        asyncio.run(_migrate(dsn))
        (folder / given.server).mkdir()
        write_key(folder)
        zones = [zone_of(f"r{number}w{at}") for number in range(given.rounds) for at in range(_WAYS)]
        with running((bind if given.server == "bind" else knot)(folder / given.server, zones)) as server:
            postgres_pid = int((postgres.data / "postmaster.pid").read_text().split()[0])
            site = Site(server, dsn, postgres_pid, server.process.pid if server.process is not None else 0)
            found = measure(site, given.hosts, given.rounds, batches_only=given.batches_only)
        report(found, given.hosts, f"{given.server}, {os.cpu_count()} cores")
    finally:
        postgres.stop(immediate=True)


async def _migrate(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await migrate(connection)
    await connection.close()


if __name__ == "__main__":
    main()
