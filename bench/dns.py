"""Hosts per second of the DNS sender beside nsupdate, on the same server, in the same run.

    python -P -m bench.dns [--server bind|knot] [--hosts 1000] [--rounds 5]

Each round does the same work six times, in changing order: nsupdate fed one host at a time and fed the batches that our
sender sends, our client alone (`exchange`) fed the same, our whole sender with batches of one and as it is. The work is
a new A record and its ownership marker a host, in one zone. nsupdate is one process fed by a pipe; the sender includes
everything from the dirty rows in PostgreSQL to the booked answers. Printed are the medians, the ratios of each round's
pair, and CPU per host.
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
from pathlib import Path

import asyncpg

from apiserver.launcher import LocalServer, find_binaries
from dnsupdate.exchange import Channel
from dnsupdate.metrics import NoMetrics
from dnsupdate.plan import Change, Guard, Policy, RRset
from dnsupdate.schema import migrate
from dnsupdate.sender import Sender, SenderConfig
from dnsupdate.service import Keys, primary, wall_clock
from dnsupdate.settings import Settings, load
from dnsupdate.store import Store
from dnsupdate.update import Fence, Update, apply_changes, fence_name, nsupdate_script, unfenced
from tests.support.nameservers import KEY, NameServer, bind, knot, running, write_key

ZONE = "bench.example."
POLICY = Policy("nsupdate")
BATCH = 250
_DIRTY = """WITH made AS (INSERT INTO dns_hosts (uuid, facts)
 SELECT name, jsonb_build_object('hostname', name, 'ips', jsonb_build_array(ip))
 FROM unnest($1::text[], $2::text[]) AS n(name, ip)
 RETURNING uuid, gen) INSERT INTO dns_dirty (target, node_uuid, gen) SELECT 'main', uuid, gen FROM made"""


def settings(port: int, folder: Path, batch: int, owner: str) -> Settings:
    """Return a site with one zone and one record a host; an owner of its own finds nothing of others to tidy up."""
    target = {"servers": ["127.0.0.1"], "port": port, "key_file": str(write_key(folder)), "batch": batch}
    record = {"name": "{{ hostname }}.bench.example.", "each": "ipv4", "type": "A", "data": "{{ item }}"}
    return load(
        {
            "owner": owner,
            "targets": {"main": target},
            "zones": [{"name": ZONE, "target": "main"}],
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
    return [
        Change(ZONE, f"{name}.{ZONE}", Guard.ABSENT, (), (RRset("A", 60, (ip,)),), ("A",), frozenset(), mark=True)
        for name, ip in names(mark, hosts)
    ]


def nsupdate(server: NameServer, updates: list[Update]) -> tuple[float, float]:
    """Feed nsupdate; return seconds and CPU seconds."""
    script = nsupdate_script(updates, server="127.0.0.1", port=server.port)
    key = server.folder / "nsupdate.key"
    key.write_text((server.folder.parent / "upd.key").read_text())
    key.chmod(0o600)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(["nsupdate", "-v", "-k", str(key)], input=script, text=True, capture_output=True, check=False)
    took = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or done.stderr.strip():
        raise SystemExit(f"nsupdate failed: {done.stderr[-500:]}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Waker:
    """Does not wait: the bench measures work, not rest."""

    async def wait(self, seconds: float) -> None:
        """Let others run."""
        del seconds
        await asyncio.sleep(0)


async def ours(server: NameServer, dsn: str, mark: str, hosts: int, batch: int) -> tuple[float, float]:
    """Drain dirty hosts; return seconds and CPU seconds of this process."""
    found = settings(server.port, server.folder.parent, batch, mark)
    connection = await asyncpg.connect(dsn)
    await connection.execute("TRUNCATE dns_hosts, dns_dirty, dns_published, dns_unsure, dns_messages, dns_lease")
    async with Store.open(dsn) as store:
        await store.register("main", "rfc2136")
        loop = asyncio.get_running_loop()
        work = primary("main", found, Keys(KEY, KEY), store, holder="bench", observer=NoMetrics(), clock=loop.time)
        config = SenderConfig(target="main", settings=found.targets["main"], holder="bench")
        sender = Sender(config, store=store, work=work, waker=Waker(), random=lambda: 1.0)
        await sender.cycle()  # lease, fence, first comparison
        every = names(mark, hosts)
        await connection.execute(_DIRTY, [name for name, _ in every], [ip for _, ip in every])
        cpu, started = time.process_time(), time.perf_counter()
        while sender.status.text != "all is published" or await connection.fetchval("SELECT count(*) FROM dns_dirty"):
            await sender.cycle()
            if sender.status.error:
                raise SystemExit(f"sender: {sender.status.error}")
        took = time.perf_counter() - started
        cpu = time.process_time() - cpu
        await work.close()
    await connection.close()
    return took, cpu


async def fence_of(server: NameServer) -> Fence:
    """Set a fence, so that nsupdate's batches can carry the prerequisite that ours carry."""
    from dnsupdate.exchange import Peer
    from dnsupdate.update import Add, Delete

    fence = Fence(owner="nsupdate", epoch=1)
    name = fence_name(fence.owner, ZONE)
    async with Channel(Peer(address="127.0.0.1", port=server.port, key=KEY), wall_clock) as channel:
        await channel.update(Update(ZONE, (), (Delete(name, "TXT"), Add(name, "TXT", 0, (fence.text(),)))))
    return fence


def batches(mark: str, hosts: int, fence: Fence) -> list[Update]:
    """Return the messages of our sender, for nsupdate."""
    every = changes(mark, hosts)
    return [apply_changes(ZONE, every[at : at + BATCH], fence, POLICY, 60) for at in range(0, hosts, BATCH)]


async def exchange(server: NameServer, updates: list[Update]) -> tuple[float, float]:
    """Send the batches by our client alone, without database and templates: what nsupdate does."""
    from dnsupdate.exchange import Peer

    async with Channel(Peer(address="127.0.0.1", port=server.port, key=KEY), wall_clock) as channel:
        cpu, started = time.process_time(), time.perf_counter()
        replies = await channel.update(*updates)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
    if not all(reply.diagnosis.is_applied for reply in replies):
        raise SystemExit(f"exchange: {replies[0].diagnosis}")
    return took, cpu


def singles(mark: str, hosts: int) -> list[Update]:
    """Return one message a host, as a script without our sender would make them."""
    return [unfenced(ZONE, [change], POLICY, 60) for change in changes(mark, hosts)]


def measure(server: NameServer, dsn: str, hosts: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return seconds and CPU seconds of each way and round."""
    fence = asyncio.run(fence_of(server))
    few = max(1, hosts // 5)  # single ways are slow, and their rate does not depend on how many there are
    ways: dict[str, Callable[[str], tuple[float, float]]] = {
        "nsupdate, one at a time": lambda mark: _scaled(nsupdate(server, singles(mark, few)), hosts / few),
        "nsupdate, same batches": lambda mark: nsupdate(server, batches(mark, hosts, fence)),
        "exchange, one at a time": lambda mark: asyncio.run(exchange(server, singles(mark, hosts))),
        "exchange, same batches": lambda mark: asyncio.run(exchange(server, batches(mark, hosts, fence))),
        "sender, one at a time": lambda mark: _scaled(asyncio.run(ours(server, dsn, mark, few, 1)), hosts / few),
        "sender": lambda mark: asyncio.run(ours(server, dsn, mark, hosts, BATCH)),
    }
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(rounds):
        order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        for at, way in enumerate(order):
            found[way].append(ways[way](f"r{number}w{at}"))
            print(f"{way}: {found[way][-1][0]:.2f} s", file=sys.stderr, flush=True)
    return found


def _scaled(pair: tuple[float, float], factor: float) -> tuple[float, float]:
    return pair[0] * factor, pair[1] * factor


def report(found: dict[str, list[tuple[float, float]]], hosts: int, title: str) -> None:
    """Print rates, ratios of pairs, CPU."""
    print(f"\n{title}: {hosts} hosts, {len(next(iter(found.values())))} rounds, medians")
    for way, pairs in found.items():
        rate = statistics.median(hosts / took for took, _ in pairs)
        cpu_us = statistics.median(cpu / hosts * 1e6 for _, cpu in pairs)
        print(f"  {way:<26} {rate:8.0f} hosts/s   {cpu_us:7.0f} us CPU a host")
    for over, under in (
        ("sender", "nsupdate, one at a time"),
        ("sender", "nsupdate, same batches"),
        ("exchange, same batches", "nsupdate, same batches"),
        ("exchange, one at a time", "nsupdate, one at a time"),
        ("sender, one at a time", "nsupdate, one at a time"),
    ):
        ratios = [theirs[0] / mine[0] for mine, theirs in zip(found[over], found[under], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {over} / {under}: {statistics.median(ratios):.2f} times ({spread})")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--server", choices=["bind", "knot"], default="bind")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
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
        with running((bind if given.server == "bind" else knot)(folder / given.server, [ZONE])) as server:
            found = measure(server, dsn, given.hosts, given.rounds)
        report(found, given.hosts, f"{given.server}, {os.cpu_count()} cores")
    finally:
        postgres.stop(immediate=True)


async def _migrate(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await migrate(connection)
    await connection.close()


if __name__ == "__main__":
    main()
