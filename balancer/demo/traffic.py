"""Traffic of the demo: real clients. Readers never retry; a writer sends again only with the same Idempotency-Key.

None of these returns; they are cancelled at the end.
"""

import asyncio
import itertools
import json
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from balancer.demo.layout import Layout
from balancer.demo.tally import Tally

# All our own calls are plain HTTP; without this each client would read all certificates of the machine, in 30 ms.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
READERS, WRITERS = 6, 3
READ_EVERY_S, WRITE_EVERY_S, CURL_EVERY_S = 0.1, 0.2, 2.0
ANSWER_S = 60.0  # what waits in a pause is answered after it
RESEND_AFTER_S, RESENDS = 0.3, 20
READS = ("/arvados/v1/users/current", "/arvados/v1/collections?limit=10&order=created_at+desc", "/arvados/v1/groups")


@dataclass(frozen=True, slots=True)
class Target:
    """Where clients go, as whom, and where they count."""

    layout: Layout
    token: str
    tally: Tally

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Open a client with one kept connection."""
        limits = httpx.Limits(max_connections=1)
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(
            base_url=self.layout.url, timeout=ANSWER_S, limits=limits, headers=headers, trust_env=False, verify=NO_TLS
        ) as client:
            yield client


def clients(target: Target) -> list[Coroutine[None, None, None]]:
    """Return all clients."""
    readers = [read(target, number) for number in range(READERS)]
    writers = [write(target, f"demo-{number}") for number in range(WRITERS)]
    hearer = echo_websocket(target) if target.layout.echo else hear_events(target)
    return [*readers, *writers, hearer, curl_reads(target)]


async def read(target: Target, number: int) -> None:
    """GET one thing after the other on a kept connection."""
    await asyncio.sleep(number * READ_EVERY_S / READERS)
    async with target.client() as client:
        for path in itertools.islice(itertools.cycle(READS), number, None):
            if problem := await asks(client, target.tally, "GET", path):
                target.tally.fail(problem)
            await asyncio.sleep(READ_EVERY_S)


async def write(target: Target, name: str) -> None:
    """Make collections, each with a key of its own: one that is sent again with its key is made once."""
    async with target.client() as client:
        for number in itertools.count(1):
            await _written(client, target, name, number)
            await asyncio.sleep(WRITE_EVERY_S)


async def _written(client: httpx.AsyncClient, target: Target, name: str, number: int) -> None:
    body = {"collection": {"name": f"{name}-{number}"}}
    key = {"Idempotency-Key": f"{target.layout.scratch.name}-{name}-{number}"}
    problem = ""
    for attempt in range(1 + RESENDS):
        if attempt:
            target.tally.resend(problem)
            await asyncio.sleep(RESEND_AFTER_S)
        problem = await asks(client, target.tally, "POST", "/arvados/v1/collections", json=body, headers=key)
        if not problem:
            target.tally.acknowledged[name] = number
            return
    target.tally.fail(problem)


async def asks(client: httpx.AsyncClient, tally: Tally, method: str, path: str, **more: Any) -> str:
    """Send a request once. Counts a good answer; returns what was wrong with another, or that there was none."""
    began = time.monotonic()
    try:
        answer = await client.request(method, path, **more)
    except httpx.HTTPError as exc:
        return f"{method} {path.partition('?')[0]}: {type(exc).__name__} {exc}"
    if answer.is_error:
        return f"{method} {path.partition('?')[0]}: {answer.status_code} {answer.headers.get('x-request-id', '')}"
    tally.succeeded(time.monotonic() - began)
    return ""


async def hear_events(target: Target) -> None:
    """Listen to the cluster's events over a WebSocket, and connect again when told to."""
    url = f"{target.layout.url.replace('http://', 'ws://')}/websocket?api_token={target.token}"
    while True:
        try:
            async with connect(url, proxy=None, open_timeout=ANSWER_S) as socket:
                await socket.send(json.dumps({"method": "subscribe"}))
                async for _ in socket:
                    target.tally.events += 1
        except (OSError, TimeoutError, WebSocketException):
            await asyncio.sleep(0.5)


async def echo_websocket(target: Target) -> None:
    """Send a message a second and want it back, and connect again when told to."""
    while True:
        try:
            async with connect(f"{target.layout.url.replace('http://', 'ws://')}/websocket", proxy=None) as socket:
                for number in itertools.count():
                    await socket.send(f"hello {number}")
                    if await socket.recv() != f"hello {number}":
                        target.tally.fail("websocket: the echo differs")
                    target.tally.events += 1
                    await asyncio.sleep(1)
        except (OSError, TimeoutError, WebSocketException):
            await asyncio.sleep(0.5)


async def curl_reads(target: Target) -> None:
    """The command-line client, a new connection each time; nothing when curl is not installed."""
    curl = shutil.which("curl")
    headers = target.layout.secrets / "curl-headers"
    while curl is not None:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(curl, "-sS", "--max-time", str(ANSWER_S), "-o", "/dev/null", "-w", "%{http_code}", "-H", f"@{headers}"),
            *("--noproxy", "*", f"{target.layout.url}{READS[0]}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        if process.returncode or not output.startswith(b"2"):
            target.tally.fail(f"curl: exit {process.returncode}, {output.decode()!r}")
        else:
            target.tally.succeeded(time.monotonic() - began)
        await asyncio.sleep(CURL_EVERY_S)
