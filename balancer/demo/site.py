"""The whole site: database, API nodes, name server, balancer; started in order, and what may be done to it."""

import asyncio
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from balancer.demo import database, files, layout, names, processes, release
from balancer.demo.layout import Layout, Node
from balancer.demo.processes import PYTHON, Processes, python, tail
from balancer.demo.stopping import whole
from balancer.demo.traffic import NO_TLS
from balancer.errors import BalanceError

START_DEADLINE_S = 60.0
LOOK_S = 0.05
Say = Callable[[str, float | None], None]  # a line, and how long it took


@dataclass(slots=True)
class Site:
    """A running site. Node names are those of the layout."""

    layout: Layout
    secrets: files.Secrets
    processes: Processes
    dsn: str = ""
    running: dict[str, Process] = field(default_factory=dict)
    releases: list[release.Release] = field(default_factory=list)

    async def start_node(self, name: str) -> None:
        """Start a node with what is installed for it, if it does not run; return when it takes requests.

        Raises BalanceError.
        """
        if name in self.running and self.running[name].returncode is None:
            return
        node = self.layout.nodes[name]
        process = await self.processes.start(name, self._command(node), self._path(node))
        self.running[name] = process
        await self._until(lambda: _listens(node.port), name, process)

    async def stop_node(self, name: str) -> None:
        """End a node politely."""
        await processes.stop(self.running[name])

    async def kill_node(self, name: str) -> int:
        """End a node by SIGKILL; return the pid that it had."""
        process = self.running[name]
        await processes.kill(process)
        return process.pid

    async def add_node(self) -> Node:
        """Start one more node, in the newest release; the balancer does not know it yet."""
        node = self.layout.next_node()
        if self.releases:
            node.release = str(self.releases[-1].folder)
        if not self.layout.echo:
            await asyncio.to_thread(files.write_node, self.layout, node)
        await self.start_node(node.name)
        return node

    async def next_release(self) -> release.Release:
        """Make the next release of the API nodes; nothing runs it yet."""
        before = self.releases[-1] if self.releases else None
        folder = self.layout.scratch / "releases" / str(len(self.releases) + 1)
        made = await asyncio.to_thread(release.make, folder, before)
        self.releases.append(made)
        return made

    def install(self, name: str) -> None:
        """Install the newest release for a node; it runs it from its next start on."""
        self.layout.nodes[name].release = str(self.releases[-1].folder)

    async def restart_database(self) -> None:
        """End PostgreSQL with all its connections, and start it again."""
        await database.restart(await asyncio.to_thread(database.server, self.layout))

    async def start_balancer(self) -> None:
        """Start the balancer; return when all nodes serve."""
        command = python("balancer", "serve", "--config", str(self.layout.config))
        process = await self.processes.start("balancer", command)
        self.running["balancer"] = process
        await self._until(self._all_serve, "balancer", process)

    async def status(self) -> dict[str, Any]:
        """Return what the balancer says of itself. Raises httpx.HTTPError."""
        return await self._admin("GET", "/v1/status")

    async def dashboard(self) -> str:
        """Return an address that logs in to the dashboard once. Raises httpx.HTTPError."""
        found = await self._admin("POST", "/v1/dashboard/login")
        return f"{found['addresses'][0]}login#{found['code']}"

    async def _admin(self, method: str, path: str) -> dict[str, Any]:
        transport = httpx.AsyncHTTPTransport(uds=str(self.layout.admin_socket), verify=NO_TLS)
        async with httpx.AsyncClient(base_url="http://localhost", transport=transport, timeout=5) as client:
            found: dict[str, Any] = (await client.request(method, path)).json()
            return found

    async def stop(self) -> None:
        """End what runs: first what clients see, then what that needs."""
        for name in ("balancer", *self.layout.nodes):
            if name in self.running:
                await processes.stop(self.running[name])

    def _command(self, node: Node) -> list[str]:
        if self.layout.echo:
            script = str(files.example_node())
            return [*PYTHON, script, "--name", node.name, "--port", str(node.port)]
        migrate = ["--no-migrate"] if node.release else []  # an upgrade migrates once, as a step of its own
        return python("balancer", "api", "--config", str(self.layout.node_file(node.name)), *migrate)

    @staticmethod
    def _path(node: Node) -> dict[str, str]:
        return {"PYTHONPATH": node.release} if node.release else {}

    async def _all_serve(self) -> bool:
        try:
            status = await self.status()
        except httpx.HTTPError:
            return False
        return bool(status["serving"] == len(self.layout.nodes))

    async def _until(self, is_ready: Callable[[], Awaitable[bool]], name: str, process: Process) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while not await is_ready():
            if process.returncode is not None or time.monotonic() > deadline:
                ended = f"it ended with {process.returncode}" if process.returncode is not None else "not in time"
                log = await asyncio.to_thread(tail, self.layout.logs / f"{name}.log")
                raise BalanceError(f"{name} does not start: {ended}\n{log}")
            await asyncio.sleep(LOOK_S)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def opened(where: Layout, say: Say) -> AsyncIterator[Site]:
    """Start everything; end and remove everything at the end, also when this process is killed. Raises BalanceError."""
    async with AsyncExitStack() as ending:
        site = Site(where, files.Secrets(), await ending.enter_async_context(processes.kept(where)))
        ending.push_async_callback(site.stop)
        await (_start_echo if where.echo else _start_api)(site, say, ending)
        clock = Clock(say)
        await site.start_balancer()
        serving = f"{len(where.nodes)}/{len(where.nodes)} nodes serve"
        clock.say(f"balancer    {where.url}, https on :{where.https}, {serving}")
        yield site


async def _start_api(site: Site, say: Say, ending: AsyncExitStack) -> None:
    where, clock = site.layout, Clock(say)
    found = await asyncio.to_thread(database.server, where)
    site.dsn = await whole(asyncio.to_thread(found.start))
    clock.say(f"PostgreSQL  {await asyncio.to_thread(database.version, found)}, on a Unix socket")
    await asyncio.to_thread(files.write, where, site.secrets, site.dsn)
    for node in where.nodes.values():
        await asyncio.to_thread(files.write_node, where, node)
    await ending.enter_async_context(names.authority(where, site.secrets.dns))
    clock.say(f"DNS         127.0.0.1:{where.dns}, zone {layout.DOMAIN}, updates by TSIG")
    async with asyncio.TaskGroup() as group:
        for name in where.nodes:
            group.create_task(site.start_node(name))
    clock.say(f"API nodes   {_urls(where)}")
    steps = await database.applied(site.dsn)
    clock.say(f"schema      {steps} migrations, each applied once by {len(where.nodes)} nodes at once")


async def _start_echo(site: Site, say: Say, _ending: AsyncExitStack) -> None:
    where, clock = site.layout, Clock(say)
    await asyncio.to_thread(files.write, where, site.secrets, "")
    async with asyncio.TaskGroup() as group:
        for name in where.nodes:
            group.create_task(site.start_node(name))
    clock.say(f"echo nodes  {_urls(where)}")


def _urls(where: Layout) -> str:
    return "  ".join(f"{node.name} :{node.port}" for node in where.nodes.values())


class Clock:
    """Says lines with the time since the line before."""

    def __init__(self, say: Say) -> None:
        self._say, self._at = say, time.monotonic()

    def say(self, text: str) -> None:
        """Say what was done since."""
        now = time.monotonic()
        self._say(text, now - self._at)
        self._at = now
