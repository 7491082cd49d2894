"""API nodes for tests: one inside the test process, or any number of real processes, all on one database."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from apiserver.node import Node, prepare
from apiserver.settings import Settings
from apiserver.store.migrator import migrations
from tests.support.postgres import TestServer

CLUSTER = "zzzzz"
ROOT = "systemroottokensystemroottoken1234"
MANAGEMENT = "managementtokenmanagementtoken1234"
STEPS = migrations()


def settings(database_url: str, **more: Any) -> Settings:
    return Settings(
        **{
            "cluster": CLUSTER,
            "database_url": database_url,
            "listen": ("127.0.0.1:0",),
            "external_url": "https://api.test.example/",
            "system_root_token": ROOT,
            "management_token": MANAGEMENT,
            "stop_delay_s": 0.0,
            "stop_timeout_s": 5.0,
            **more,
        }
    )


@dataclass
class Response:
    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def errors(self) -> str:
        return "; ".join(self.body["errors"])


@dataclass
class Client:
    """Calls a node as one user. `call` returns what came; the verbs assert success and return the body."""

    base: str
    http: aiohttp.ClientSession
    token: str | None = ROOT
    user_uuid: str = f"{CLUSTER}-tpzed-000000000000000"

    def with_token(self, token: str | None, user_uuid: str = "") -> "Client":
        return Client(self.base, self.http, token, user_uuid)

    async def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **query: Any
    ) -> Response:
        sent = {} if body is None else {"Content-Type": "application/json"}
        sent |= headers or {}
        data = None if body is None else io.BytesIO(json.dumps(body).encode())  # a large one may not be sent as bytes
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        params = "&".join(
            f"{name}={quote(value if isinstance(value, str) else json.dumps(value), safe='')}"
            for name, value in query.items()
        )
        url = f"{self.base}{path if path.startswith('/') else '/arvados/v1/' + path}"
        async with self.http.request(
            method, URL(url + ("?" + params if params else ""), encoded=True), data=data, headers=sent
        ) as response:
            text = await response.text()
            try:
                decoded = json.loads(text) if text else None
            except ValueError:
                decoded = text
            return Response(response.status, decoded, response.headers)

    async def _good(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        response = await self.call(method, path, body, **query)
        assert response.status in (200, 204), (method, path, response.status, response.body)
        return response.body

    async def get(self, path: str, **query: Any) -> Any:
        return await self._good("GET", path, **query)

    async def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return await self._good("POST", path, body, **query)

    async def put(self, path: str, body: Any, **query: Any) -> Any:
        return await self._good("PUT", path, body, **query)

    async def delete(self, path: str) -> Any:
        return await self._good("DELETE", path)

    async def user(self, name: str, *, active: bool = True) -> "Client":
        """Make a user with a token; return a client that is it. Only the root client can."""
        made = await self.post("users", {"user": {"email": f"{name}@example.org", "username": name,
                                                  "is_active": active, "first_name": name}})  # fmt: skip
        token = await self.post("api_client_authorizations", {"api_client_authorization": {"owner_uuid": made["uuid"]}})
        return self.with_token(f"v2/{token['uuid']}/{token['api_token']}", made["uuid"])


@pytest.fixture(scope="session")
def api_template(postgres_server: TestServer) -> str:
    """The name of a database with the schema and what every cluster has."""

    async def make() -> None:
        dsn = await postgres_server.make_template("template_api")
        await prepare(settings(dsn), STEPS)

    asyncio.run(make())
    return "template_api"


@asynccontextmanager
async def running(configured: Settings, vocabulary: dict[str, Any] | None = None) -> AsyncIterator[str]:
    """Run a node inside this process; yield its base URL."""
    node = Node(configured, vocabulary=vocabulary or {}, steps=STEPS, clock=asyncio.get_running_loop().time)
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(node.run(lambda addresses: ready.set()))
        try:
            async with asyncio.timeout(30):
                await ready.wait()
            yield f"http://{node.addresses[0]}"
        finally:
            node.stop()
            await task


@pytest.fixture
async def api_database(postgres_server: TestServer, api_template: str) -> AsyncIterator[str]:
    """The address of a fresh database with the schema."""
    async with postgres_server.new_database(api_template) as dsn:
        yield dsn


@pytest.fixture
async def root(api_database: str) -> AsyncIterator[Client]:
    """A client with the system root token of a node of its own."""
    async with running(settings(api_database)) as base, aiohttp.ClientSession() as http:
        yield Client(base, http)


@dataclass
class Process:
    """A node as a process of its own."""

    process: "subprocess.Popen[str]"
    base: str
    log: Path

    def await_ready(self) -> None:
        """Wait until it says where it listens."""
        if self.base:
            return
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-2000:]
        self.process.stdout.close()
        self.base = f"http://{json.loads(line)['listen'][0]}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def terminate(self) -> None:
        self.process.terminate()


@dataclass
class Processes:
    """Starts nodes and ends them all at the end."""

    folder: Path
    config: dict[str, Any]
    nodes: list[Process] = field(default_factory=list)

    def start(self, *, env: Mapping[str, str] | None = None, inside: Sequence[str] = (), **more: Any) -> Process:
        """Start one and wait until it is ready. Blocking: use it outside the loop or in a thread."""
        node = self.launch(env=env, inside=inside, **more)
        node.await_ready()
        return node

    def launch(self, *, env: Mapping[str, str] | None = None, inside: Sequence[str] = (), **more: Any) -> Process:
        """Start one; it is not ready yet. `inside` goes before its command: it runs in a network of its own."""
        number = len(self.nodes)
        path = self.folder / f"node{number}.yml"
        path.write_text(json.dumps({**self.config, **more}))
        log = self.folder / f"node{number}.log"
        with log.open("w") as sink:
            process = subprocess.Popen(
                [*inside, sys.executable, "-P", "-m", "balancer.cli", "api", "--config", str(path)],
                stdout=subprocess.PIPE, stderr=sink, text=True, env={**os.environ, **(env or {})},
            )  # fmt: skip
        node = Process(process, "", log)
        self.nodes.append(node)
        return node

    def await_ready(self) -> None:
        """Wait for all that were launched."""
        for node in self.nodes:
            node.await_ready()

    def end(self) -> None:
        """Kill all that still run."""
        for node in self.nodes:
            if node.process.poll() is None:
                node.thaw()
                node.kill()
            if node.process.stdout is not None:
                node.process.stdout.close()


def start_config(database_url: str) -> dict[str, Any]:
    """The file of a node that listens on any port."""
    return {
        "cluster": CLUSTER, "database_url": database_url, "listen": ["127.0.0.1:0"], "system_root_token": ROOT,
        "management_token": MANAGEMENT, "external_url": "https://api.test.example/", "stop_delay_s": 0.0,
        "stop_timeout_s": 5.0, "database_pool": 6,
    }  # fmt: skip


@pytest.fixture
def processes(tmp_path: Path, api_database: str) -> Iterator[Processes]:
    """Starts real nodes on a fresh database."""
    found = Processes(tmp_path, start_config(api_database))
    yield found
    found.end()


@asynccontextmanager
async def client_of(*bases: str) -> AsyncIterator[list[Client]]:
    """Yield one root client a base URL; `http://unix:/path` is a node on a Unix socket."""
    async with AsyncExitStack() as stack:
        found = []
        for base in bases:
            path = base.partition("//unix:")[2]
            connector = aiohttp.UnixConnector(path) if path else None
            http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            found.append(Client("http://node" if path else base, http))
        yield found
