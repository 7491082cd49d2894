"""A node inside the test process for tests that are not coroutines: property tests and state machines."""

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from apiserver.settings import Settings
from tests.support.api import ROOT, Client, running


@dataclass
class Target:
    """A node and a client of it without retries."""

    runner: asyncio.Runner
    client: Client

    def send(self, method: str, path: str, query: str, body: bytes | None, kind: str) -> tuple[int, str]:
        """Send bytes as they are; `path` is below the API's prefix. Return status and text."""

        async def run() -> tuple[int, str]:
            headers = {"Authorization": f"Bearer {ROOT}", "Content-Type": kind}
            url = URL(f"{self.client.base}/arvados/v1/{path}{'?' + query if query else ''}", encoded=True)
            async with self.client.http.request(
                method, url, data=io.BytesIO(body) if body else body, headers=headers
            ) as response:
                return response.status, await response.text()

        return self.runner.run(run())

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        """Return status and decoded body."""
        found = self.runner.run(self.client.call(method, path, json.loads(json.dumps(body)), **query))
        return found.status, found.body

    def good(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Return the body of a call that must succeed."""
        status, found = self.call(method, path, body, **query)
        assert status == 200, found
        return found


@contextmanager
def target_on(configured: Settings) -> Iterator[Target]:
    """Run a node; the caller made its database."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> Target:
            base = await stack.enter_async_context(running(configured))
            return Target(runner, Client(base, await stack.enter_async_context(aiohttp.ClientSession())))

        try:
            yield runner.run(start())
        finally:
            runner.run(stack.aclose())
