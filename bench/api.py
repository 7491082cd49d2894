"""`python -P -m bench.api`: what a request of an API node costs, and how it grows with nodes.

A real PostgreSQL with durability on, real node processes, one asyncio client that keeps connections. Figures of one
machine are for comparing commits, not machines: the client and PostgreSQL share the cores with the nodes.
`--against TREE` does that: a node of each tree, on one database, measured in turns.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from apiserver.launcher import LocalServer, find_binaries

ROOT = "benchroottokenbenchroottoken123456"
CLIENTS = 8
HERE = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
Do = Callable[[aiohttp.ClientSession, str, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Node:
    """A running node."""

    process: "subprocess.Popen[str]"
    base: str
    log: Path

    def cpu_s(self) -> float:
        """Return the CPU time it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def nodes(database: str, folder: Path, trees: Sequence[Path]) -> Iterator[list[Node]]:
    """Run a node of each tree."""
    config = folder / "node.json"
    config.write_text(json.dumps({
        "cluster": "bench", "database_url": database, "listen": ["127.0.0.1:0"], "system_root_token": ROOT,
        "external_url": "https://bench.example/", "stop_delay_s": 0, "database_pool": 8,
    }))  # fmt: skip
    started = []
    for number, tree in enumerate(trees):
        log = folder / f"{len(trees)}-{number}.log"
        program = f"import sys; sys.path.insert(0, {str(tree)!r}); from balancer.cli import main; main()"
        with log.open("w") as sink:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", program, "api", "--config", str(config)],
                stdout=subprocess.PIPE, stderr=sink, text=True,
            )  # fmt: skip
        line = _first_line(process)
        started.append(Node(process, f"http://{json.loads(line)['listen'][0]}", log))
    try:
        yield started
    finally:
        for node in started:
            node.process.terminate()
        for node in started:
            node.process.wait(10)


def _first_line(process: "subprocess.Popen[str]") -> str:
    if process.stdout is None:
        raise RuntimeError("the node has no output")
    with process.stdout as output:
        return output.readline()


async def _call(http: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> Any:
    async with http.request(method, url, json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{method} {url}: {response.status} {await response.text()}")
        return await response.json()


async def _ping(http: aiohttp.ClientSession, base: str, number: int) -> None:
    node = PINGED[number % len(PINGED)]
    url = f"{base}/arvados/v1/nodes/{node['uuid']}/ping?ping_secret={node['info']['ping_secret']}"
    await _call(http, "POST", f"{url}&local_ipv4=10.1.0.{number % len(PINGED)}")


async def _current(http: aiohttp.ClientSession, base: str, number: int) -> None:
    del number
    await _call(http, "GET", f"{base}/arvados/v1/users/current")


async def _list(http: aiohttp.ClientSession, base: str, number: int) -> None:
    del number
    await _call(http, "GET", f"{base}/arvados/v1/collections?filters={FILTERS}&limit=100")


async def _create(http: aiohttp.ClientSession, base: str, number: int) -> None:
    body = {"collection": {"name": f"made {number} {os.urandom(6).hex()}"}}
    await _call(http, "POST", f"{base}/arvados/v1/collections", body)


PINGED: list[Any] = []
TOKENS: list[str] = []  # of the user that reads and creates
FILTERS = json.dumps([["name", "like", "row%"]])
WORK: dict[str, Do] = {
    "users/current": _current,
    "list of 100 of 200, counted": _list,
    "create with audit": _create,
    "node ping": _ping,
}


async def _fill(http: aiohttp.ClientSession, base: str) -> None:
    user = await _call(http, "POST", f"{base}/arvados/v1/users", {"user": {"email": "b@x.org", "is_active": True}})
    token = await _call(
        http, "POST", f"{base}/arvados/v1/api_client_authorizations",
        {"api_client_authorization": {"owner_uuid": user["uuid"]}},
    )  # fmt: skip
    TOKENS[:] = [f"v2/{token['uuid']}/{token['api_token']}"]
    http.headers["Authorization"] = f"Bearer {TOKENS[0]}"
    for number in range(200):
        await _call(http, "POST", f"{base}/arvados/v1/collections", {"collection": {"name": f"row{number}"}})
    http.headers["Authorization"] = f"Bearer {ROOT}"
    PINGED[:] = [await _call(http, "POST", f"{base}/arvados/v1/nodes", {"node": {}}) for _ in range(16)]
    for number in range(16):
        await _ping(http, base, number)


async def _measure(running: list[Node], work: Do, seconds: float) -> tuple[float, float]:
    """Return requests a second, and CPU milliseconds of all nodes a request."""
    done = 0
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKENS[0]}"}) as http:
        before, begun = sum(node.cpu_s() for node in running), time.monotonic()

        async def client(number: int) -> None:
            nonlocal done
            turn = number
            while time.monotonic() - begun < seconds:
                await work(http, running[turn % len(running)].base, turn)
                done += 1
                turn += CLIENTS + 1

        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(client(number))
        took = time.monotonic() - begun
        return done / took, (sum(node.cpu_s() for node in running) - before) * 1000 / done


async def _compare(running: list[Node], turns: int, seconds: float) -> None:
    """Print what a request costs the first node and the second, and the median of the ratios of their turns."""
    found: dict[str, list[list[float]]] = {name: [[], []] for name in WORK}
    for turn in range(turns):
        for name, work in WORK.items():
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                found[name][which].append((await _measure([running[which]], work, seconds))[1])
    for name, (before, after) in found.items():
        ratio = statistics.median(new / old for old, new in zip(before, after, strict=True))
        costs = f"{statistics.median(before):7.2f} -> {statistics.median(after):5.2f}"
        print(f"  {name:<28} {costs} ms CPU a request, ratio {ratio:.2f}")


async def _fan_out(running: list[Node], rounds: int) -> list[float]:
    """Return milliseconds from the answer of a write on one node to its event on a websocket of another."""
    found = []
    url = f"{running[-1].base}/websocket?api_token={ROOT}"
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {ROOT}"}) as http,
        http.ws_connect(url) as socket,
    ):
        await socket.send_json({"method": "subscribe", "filters": [["event_type", "in", ["create"]]]})
        await socket.receive()
        for number in range(rounds):
            await _create(http, running[0].base, number)
            answered = time.monotonic()
            await socket.receive()
            found.append((time.monotonic() - answered) * 1000)
            await asyncio.sleep(0.05)
    return found


def _queries(node: Node) -> dict[str, float]:
    """Return the mean number of statements a request sent, by operation, out of the node's log."""
    counts: dict[str, list[int]] = {}
    for line in node.log.read_text().splitlines():
        entry = json.loads(line)
        if entry["msg"] == "request" and entry.get("queries"):
            counts.setdefault(entry["operation"], []).append(entry["queries"])
    return {name: statistics.mean(values) for name, values in counts.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -P -m bench.api", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--nodes", default="1,2", help="numbers of nodes to run (default %(default)s)")
    parser.add_argument("--against", type=Path, metavar="TREE", help="compare with another checkout, in turns")
    parser.add_argument("--turns", type=int, default=5, help="how often both are measured (default %(default)s)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="arv-bench-api-"))
    folder.chmod(0o755)
    server = LocalServer(folder / "pg", find_binaries(), ("max_connections=100",))
    try:
        database = server.start()
        if options.against:
            with nodes(database, folder, [options.against.resolve(), HERE]) as running:
                asyncio.run(_fill_and(running, partial(_compare, running, options.turns, options.seconds)))
            return
        for count in map(int, options.nodes.split(",")):
            with nodes(database, folder, [HERE] * count) as running:
                asyncio.run(_fill_and(running, partial(_report, running, options.seconds)))
                for name, mean in sorted(_queries(running[0]).items()):
                    print(f"  statements a request  {name:<28} {mean:6.1f}")
    finally:
        server.stop(immediate=True)
        shutil.rmtree(folder, ignore_errors=True)


async def _fill_and(running: list[Node], work: Callable[[], Awaitable[None]]) -> None:
    if not PINGED:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ROOT}"}) as http:
            await _fill(http, running[0].base)
    await work()


async def _report(running: list[Node], seconds: float) -> None:
    print(f"{len(running)} node(s), {CLIENTS} clients, {seconds:g} s each")
    for name, work in WORK.items():
        rate, cpu = await _measure(running, work, seconds)
        print(f"  {name:<28} {rate:8.0f} requests/s {cpu:7.2f} ms CPU of the nodes a request")
    times = sorted(await _fan_out(running, 30))
    print(f"  event to a websocket         median {statistics.median(times):.1f} ms, worst of 30 {times[-1]:.1f} ms")


if __name__ == "__main__":
    main()
