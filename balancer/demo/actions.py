"""What the running demo does when a scene asks for it; `remote` is the other side."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from balancer.demo import database, names
from balancer.demo.site import Site
from balancer.demo.tally import Tally
from balancer.errors import BalanceError

Document = dict[str, Any]
Action = Callable[[Document], Awaitable[Document]]


class Actions:
    """What may be asked for."""

    def __init__(self, site: Site, tally: Tally) -> None:
        self._site, self._tally = site, tally
        self.by_name: Mapping[str, Action] = {
            "about": self.about,
            "add": self.add,
            "applied": self.applied,
            "dig": self.dig,
            "install": self.install,
            "kill": self.kill,
            "mark": self.mark,
            "node": self.node,
            "release": self.release,
            "restart-database": self.restart_database,
            "seen": self.seen,
            "start": self.start,
            "status": self.status,
            "stop": self.stop,
            "writes": self.writes,
        }

    async def about(self, _: Document) -> Document:
        """Where everything is."""
        layout = self._site.layout
        return {
            "nodes": {node.name: node.url for node in layout.nodes.values()},
            "echo": layout.echo,
            "access_log": str(layout.access_log),
            "admin_socket": str(layout.admin_socket),
        }

    async def status(self, _: Document) -> Document:
        """What the balancer says of itself."""
        return await self._site.status()

    async def mark(self, _: Document) -> Document:
        """What clients have seen so far; `slowest_s` begins anew."""
        return self._tally.mark()

    async def seen(self, _: Document) -> Document:
        """What clients have seen so far."""
        return self._tally.document()

    async def start(self, asked: Document) -> Document:
        """Start a node."""
        await self._site.start_node(asked["node"])
        return {}

    async def stop(self, asked: Document) -> Document:
        """End a node politely."""
        await self._site.stop_node(asked["node"])
        return {}

    async def kill(self, asked: Document) -> Document:
        """End a node by SIGKILL."""
        return {"pid": await self._site.kill_node(asked["node"])}

    async def install(self, asked: Document) -> Document:
        """Install the newest release for a node."""
        self._site.install(asked["node"])
        return {}

    async def node(self, asked: Document) -> Document:
        """What a node runs."""
        node = self._site.layout.nodes[asked["node"]]
        return {"config": str(self._site.layout.node_file(node.name)), "release": node.release}

    async def add(self, _: Document) -> Document:
        """Start one more node."""
        node = await self._site.add_node()
        return {"name": node.name, "url": node.url}

    async def release(self, _: Document) -> Document:
        """Make the next release of the API nodes."""
        made = await self._site.next_release()
        return {"version": made.version, "migration": made.migration, "folder": str(made.folder)}

    async def writes(self, _: Document) -> Document:
        """Whether every acknowledged write is in the database, once."""
        return await database.writes(self._site.dsn, dict(self._tally.acknowledged))

    async def applied(self, asked: Document) -> Document:
        """How often a migration was applied."""
        return {"count": await database.applied(self._site.dsn, asked["migration"])}

    async def restart_database(self, _: Document) -> Document:
        """End PostgreSQL with all its connections, and start it again."""
        await self._site.restart_database()
        return {}

    async def dig(self, asked: Document) -> Document:
        """Ask the name server for a host as people do."""
        command, output = await names.dig(self._site.layout, asked["host"])
        return {"command": command, "output": output}


@asynccontextmanager
async def served(path: Path, actions: Mapping[str, Action]) -> AsyncIterator[None]:
    """Answer on the socket until the end of the context."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            try:
                asked = json.loads(await reader.readline())
                said = await actions[asked["do"]](asked)
            except httpx.HTTPError as exc:
                said = {"error": f"the balancer does not answer: {exc}"}
            except (BalanceError, KeyError, ValueError) as exc:
                said = {"error": f"{type(exc).__name__}: {exc}" if isinstance(exc, KeyError) else str(exc)}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    await asyncio.to_thread(path.chmod, 0o600)
    try:
        yield
    finally:
        server.close()  # a scene that still waits for an answer is not waited for
