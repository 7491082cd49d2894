"""A real control process between a parent and workers that are played by the test."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from balancer import scoreboard as sb
from balancer import snapshot as codec
from balancer.control.link import Link, close_all
from balancer.errors import WireError
from balancer.model import Snapshot

Document = dict[str, Any]
DEADLINE_S = 30.0


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], *, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until the condition gives something true, and return that."""
    value: Any = None
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                value = condition()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never true: {condition}, last {value!r}") from None


@dataclass
class FakeNode:
    """An API server whose health answer a test chooses."""

    name: str
    url: str = ""
    status: int = 200
    body: Any = field(default_factory=lambda: {"health": "OK"})
    hang: bool = False
    token: str = ""
    asked: int = 0
    seen: list[dict[str, str]] = field(default_factory=list)
    script: deque[Any] = field(default_factory=deque)  # bodies of the next answers, before `body` again
    runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> "FakeNode":
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self.runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", port)
        await site.start()
        server: Any = site._server
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.seen.append(dict(request.headers))
        if self.hang:
            await asyncio.sleep(60)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=403, text="wrong token")
        body = self.script.popleft() if self.script else self.body
        if isinstance(body, str):
            return web.Response(status=self.status, text=body)
        return web.json_response(body, status=self.status)


class FakeWorker:
    """Takes snapshots as a worker does and writes its cells; a test writes the rest of them."""

    def __init__(self, slot: int, run_dir: Path, board: sb.Scoreboard) -> None:
        self.slot, self.pid = slot, 10_000 + slot
        self.path = run_dir / f"worker-{slot}-{self.pid}.sock"
        self.board = board
        self.snapshot: Snapshot | None = None
        self.exchanges: list[Document] = []
        self.silent = False  # stuck: answers nothing
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._links: list[Link] = []

    def address(self) -> Document:
        return {"slot": self.slot, "pid": self.pid, "socket": str(self.path)}

    async def run(self) -> None:
        self._sock.bind(str(self.path))
        self._sock.listen()
        self._sock.setblocking(False)
        self.board.cells[sb.row(self.slot) + sb.W_PID] = self.pid
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                sock, _ = await loop.sock_accept(self._sock)
                tasks.create_task(self._serve(Link(sock)))

    def close(self) -> None:
        self._sock.close()

    async def say(self, message: Document) -> None:
        for link in self._links:
            await link.send({"type": "event", **message})

    async def _serve(self, link: Link) -> None:
        self._links.append(link)
        with suppress(WireError):
            async with link:
                async for message, fds in link.messages():
                    if not self.silent:
                        await self._answer(link, message, fds)
                    close_all(fds)
        self._links.remove(link)

    async def _answer(self, link: Link, message: Document, fds: tuple[int, ...]) -> None:
        match message["type"]:
            case "snapshot":
                self.snapshot = read_snapshot(fds[0])
                generation = self.snapshot.generation
                self.board.cells[sb.row(self.slot) + sb.W_GENERATION] = generation
                if self.snapshot.pause is not None:
                    self.board.cells[sb.row(self.slot) + sb.W_PAUSED_GENERATION] = generation
                await link.send({"type": "applied", "generation": generation})
            case "exchanges":
                found = [item for item in self.exchanges if message["node"] in {None, item["node"]}]
                await link.send({"type": "exchanges", "exchanges": found[: message["limit"]]})
            case "reopen-log":
                await link.send({"type": "reopened"})
            case other:
                raise AssertionError(f"a worker does not know {other!r}")


def read_snapshot(fd: int) -> Snapshot:
    return codec.decode(os.pread(fd, os.fstat(fd).st_size, 0))


@dataclass
class Rig:
    """The whole set-up. `start` and `kill` are those of the control process."""

    folder: Path
    board: sb.Scoreboard
    wakes: list[int]
    workers: list[FakeWorker]
    tasks: asyncio.TaskGroup
    config: Document
    process: subprocess.Popen[bytes] | None = None
    parent: Link | None = None
    snapshot_fds: tuple[int, ...] = ()
    messages: list[Document] = field(default_factory=list)
    refuse: list[Document] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    listening: asyncio.Task[None] | None = None
    state: Path | None = None  # instead of the usual state directory

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yml"

    @property
    def state_dir(self) -> Path:
        return self.state or self.folder / "state"

    @property
    def socket(self) -> str:
        return str(self.folder / "admin.sock")

    def write_config(self) -> None:
        self.config_path.write_text(yaml.safe_dump(self.config, sort_keys=False))

    async def start(self, *, ready: bool = True) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        child = {
            "role": "control",
            "config": str(self.config_path),
            "parent": theirs.fileno(),
            "scoreboard": self.board.fd,
            "wakes": self.wakes,
            "run_dir": str(self.state_dir / "run"),
            "workers": [worker.address() for worker in self.workers] if self.snapshot_fds else [],
            "snapshot": list(self.snapshot_fds),
        }
        fds = [theirs.fileno(), self.board.fd, *self.wakes, *self.snapshot_fds]
        self.messages.clear()
        self.process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec, milliseconds
            [sys.executable, "-P", "-m", "balancer.control"],
            env={**os.environ, **self.environment, "ARV_BALANCE_CHILD": json.dumps(child)},
            pass_fds=fds,
        )
        theirs.close()
        self.parent = Link(ours)
        self.listening = self.tasks.create_task(self._listen(self.parent))
        if ready:
            process = self.process
            await until(lambda: self.said("ready") or process.poll() is not None)
            assert process.poll() is None, "control ended at its start; its words are in the captured output"

    async def kill(self, number: int = signal.SIGKILL) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return await asyncio.to_thread(process.wait, 30)

    async def hang_up(self) -> int:
        """The parent goes away: control ends by itself."""
        process, self.process = self.process, None
        assert process is not None
        assert self.listening is not None
        self.listening.cancel()
        return await asyncio.to_thread(process.wait, 30)

    def said(self, kind: str) -> list[Document]:
        return [message for message in self.messages if message["type"] == kind]

    async def tell(self, message: Document) -> None:
        assert self.parent is not None
        await self.parent.send(message)

    async def _listen(self, link: Link) -> None:
        with suppress(WireError):
            async with link:
                async for message, fds in link.messages():
                    self.messages.append(message)
                    if message["type"] == "apply":
                        await self._apply(link, message, fds)
                    else:
                        close_all(fds)

    async def _apply(self, link: Link, message: Document, fds: tuple[int, ...]) -> None:
        if self.refuse:
            close_all(fds)
            await link.send({"type": "refused", "errors": self.refuse})
            return
        close_all(self.snapshot_fds)
        self.snapshot_fds = fds
        addresses = [worker.address() for worker in self.workers]
        await link.send({"type": "applied", "generation": message["generation"], "workers": addresses})

    async def call(self, method: str, path: str, body: Document | None = None) -> tuple[int, Document]:
        """Ask the admin API over its Unix socket."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=self.socket)) as session,
            session.request(method, f"http://localhost{path}", json=body) as response,
        ):
            return response.status, await response.json(content_type=None)

    async def page(self, path: str) -> str:
        """Return a page of the dashboard, as whoever may open the Unix socket sees it."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=self.socket)) as session,
            session.get(f"http://localhost{path}") as response,
        ):
            assert response.status == 200, await response.text()
            return await response.text()

    async def get(self, path: str) -> Document:
        status, document = await self.call("GET", path)
        assert status == 200, document
        return document

    async def post(self, path: str, **body: Any) -> Document:
        status, document = await self.call("POST", path, body)
        assert status == 200, document
        return document

    async def states(self) -> dict[str, str]:
        return {node["name"]: node["state"] for node in (await self.get("/v1/nodes"))["nodes"]}

    async def until_states(self, **wanted: str) -> None:
        async def fits() -> bool:
            found = await self.states()
            return all(found.get(name) == state for name, state in wanted.items())

        await until(fits)

    async def events(self) -> list[Document]:
        found: list[Document] = (await self.get("/v1/events"))["events"]
        return found

    def claim(self, node: str, count: int, *, worker: int = 0) -> None:
        """Play that a worker has so many exchanges at a node."""
        snapshot = self.workers[worker].snapshot
        assert snapshot is not None
        slot = next(item.slot for item in snapshot.nodes if item.name == node)
        self.board.cells[sb.node_cell(worker, slot) + sb.N_IN_FLIGHT] = count


@asynccontextmanager
async def rig(nodes: list[FakeNode], *, workers: int = 2, start: bool = True, **config: Any) -> AsyncIterator[Rig]:
    """Give a rig over `nodes`; control runs in it unless `start` is False."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arv-control-")))
        (folder / "state" / "run").mkdir(parents=True)
        board = sb.Scoreboard.create(time.monotonic_ns())
        stack.callback(board.close)
        board.cells[sb.H_ROWS] = workers
        wakes = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(workers)]
        stack.callback(close_all, wakes)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        made = Rig(
            folder=folder,
            board=board,
            wakes=wakes,
            workers=[FakeWorker(slot, folder / "state" / "run", board) for slot in range(workers)],
            tasks=tasks,
            config={
                "version": 1,
                "cluster": "xtest",
                "listen": [{"bind": "127.0.0.1:8080"}],
                "nodes": {node.name: {"url": node.url} for node in nodes},
                "health": {
                    "path": "/_health/ping",
                    "expect": {"json": {"health": "OK"}},
                    "interval": "400ms",
                    "fast_interval": "50ms",
                    "timeout": "400ms",
                },
                "admin": {"socket": str(folder / "admin.sock")},
                "state": {"dir": str(folder / "state")},
                **config,
            },
        )
        made.write_config()
        running = [tasks.create_task(worker.run()) for worker in made.workers]
        try:
            if start:
                await made.start()
            yield made
        finally:
            await made.kill()
            for task in running:
                task.cancel()
            if made.listening is not None:
                made.listening.cancel()
            for worker in made.workers:
                worker.close()
            close_all(made.snapshot_fds)


@asynccontextmanager
async def nodes(*names: str) -> AsyncIterator[list[FakeNode]]:
    """Give running nodes."""
    made = [await FakeNode(name).start() for name in names]
    try:
        yield made
    finally:
        for node in made:
            await node.stop()
