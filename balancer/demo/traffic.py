"""Traffic of the demo: real clients that never retry, each counting what it saw."""

import asyncio
import itertools
import shutil
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

WINDOW = 2000  # latencies that the percentiles look at


@dataclass(slots=True)
class Tally:
    """What the clients saw. `failures` keeps the first few with their request id, for people to look up."""

    done: int = 0
    failed: int = 0
    websocket_echoes: int = 0
    by_node: Counter[str] = field(default_factory=Counter)
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    failures: list[str] = field(default_factory=list)

    def succeeded(self, node: str, seconds: float) -> None:
        """Count an answer."""
        self.done += 1
        self.by_node[node] += 1
        self.latencies_s.append(seconds)

    def fail(self, what: str) -> None:
        """Count a request without a good answer."""
        self.failed += 1
        if len(self.failures) < 20:
            self.failures.append(what)

    def percentile_ms(self, share: float) -> float:
        """A latency in milliseconds; 0 before the first answer."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else 0.0


async def reads_and_writes(url: str, tally: Tally, client_number: int) -> None:
    """One client: GETs and every fourth time a POST, on a kept connection, about ten a second. Never returns."""
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits, trust_env=False) as client:
        for number in itertools.count(client_number):
            method = "POST" if number % 4 == 0 else "GET"
            body = b'{"collection":{"name":"demo"}}' if method == "POST" else None
            await _one(client, tally, method, body)
            await asyncio.sleep(0.08)


async def _one(client: httpx.AsyncClient, tally: Tally, method: str, body: bytes | None) -> None:
    began = time.monotonic()
    try:
        answer = await client.request(method, "/arvados/v1/collections", content=body)
    except httpx.HTTPError as exc:
        tally.fail(f"{method}: {type(exc).__name__} {exc}")
        return
    if answer.status_code >= 400:
        tally.fail(f"{method}: {answer.status_code} {answer.headers.get('x-request-id', 'no request id')}")
        return
    tally.succeeded(answer.headers.get("x-node", "?"), time.monotonic() - began)


async def websocket_echo(url: str, tally: Tally) -> None:
    """One WebSocket client that sends a message a second and connects again when it is told to. Never returns."""
    target = url.replace("http://", "ws://") + "/websocket"
    while True:
        try:
            async with connect(target, proxy=None) as socket:
                for number in itertools.count():
                    await socket.send(f"hello {number}")
                    if await socket.recv() != f"hello {number}":
                        tally.fail("websocket: the echo differs")
                    tally.websocket_echoes += 1
                    await asyncio.sleep(1)
        except (OSError, WebSocketException):
            await asyncio.sleep(0.5)


async def curl_reads(url: str, tally: Tally) -> None:
    """The command-line client, a new connection every two seconds; nothing when curl is not installed."""
    curl = shutil.which("curl")
    while curl is not None:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(curl, "-sS", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code} %header{x-node}"),
            f"{url}/arvados/v1/collections",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        status, _, node = output.decode().partition(" ")
        if process.returncode or not status.startswith("2"):
            tally.fail(f"curl: exit {process.returncode}, {output.decode()!r}")
        else:
            tally.succeeded(node or "?", time.monotonic() - began)
        await asyncio.sleep(2)
