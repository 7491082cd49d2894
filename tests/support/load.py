"""A load generator that never retries: what it counts as failed, a client has seen fail.

    python -P -m tests.support.load --port 8080 [--clients 32] [--fresh]

Runs until its standard input ends, then prints a JSON summary. Kept connections send, per client, one kind of
request over and over, at a pace that makes about 320 requests a second with 32 clients:

    fast    GET, 1 ms in the node        down    GET, 1 MiB answer       post    POST, one unique X-Key each
    slow    GET, 2 s in the node         up      POST, 1 MiB body        ws      WebSocket echo
    later   POST, 2 s in the node
    read    GET of a real API node       create  POST of a collection to one; the token is in LOAD_TOKEN

`--fresh` makes every request on a connection of its own instead (`fast` only, as fast as it goes). A connection
that the other side ended while it was idle is opened anew, which is no failure; a request that was written and got no
whole, right answer is one.
"""

import argparse
import asyncio
import base64
import itertools
import json
import os
import ssl
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

BIG_BYTES = 1 << 20
ANSWER_S = 40.0  # a pause is longer than what clients usually wait
KINDS = ("fast", "slow", "later", "down", "up", "post", "ws")
API_KINDS = ("read", "create")
TOKEN = os.environ.get("LOAD_TOKEN", "")
IDEMPOTENT = ("fast", "slow", "down")
# Clients of each kind among 32, and the time from one request of a client to its next.
MIX = {
    "fast": (22, 0.07),
    "slow": (2, 0.0),
    "later": (2, 0.0),
    "down": (2, 0.15),
    "up": (1, 0.15),
    "post": (2, 0.07),
    "ws": (1, 0.1),
    "read": (16, 0.1),
    "create": (8, 0.1),
}


@dataclass(slots=True)
class Failure:
    """A request without a whole, right answer. Times are CLOCK_MONOTONIC."""

    kind: str
    request_id: str
    phase: str  # connect, head, body, content
    error: str
    opened_at: float
    sent_at: float
    failed_at: float


@dataclass(slots=True)
class Tally:
    """What all clients saw."""

    done: Counter[str] = field(default_factory=Counter)
    by_node: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    failures: list[Failure] = field(default_factory=list)
    slowest_s: float = 0.0
    keys: list[str] = field(default_factory=list)  # of POSTs that were answered

    def summary(self, seconds: float) -> dict[str, Any]:
        return {
            "done": dict(self.done),
            "by_node": dict(self.by_node),
            "opened": self.opened,
            "failures": [asdict(failure) for failure in self.failures],
            "slowest_s": self.slowest_s,
            "keys": self.keys,
            "seconds": seconds,
        }


@dataclass(slots=True)
class Target:
    port: int
    tls: ssl.SSLContext | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, limit=256 << 10)


class BadAnswerError(Exception):
    """An answer that is not the right one."""


class Client:
    """One client; it sends the requests of one kind one after the other."""

    def __init__(self, target: Target, tally: Tally, number: int, kind: str) -> None:
        self.target, self.tally, self.number, self.kind = target, tally, number, kind
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.opened_at = 0.0

    async def run(self, stop: asyncio.Event, pause_s: float, *, fresh: bool) -> None:
        next_at = time.monotonic()
        for count in itertools.count():
            if stop.is_set():
                break
            await self.one(f"load-{os.getpid()}-{self.number}-{count}")
            if fresh:
                self.close()
            now = time.monotonic()
            next_at = max(next_at + pause_s, now - 10 * pause_s)  # what was slow is made up for, within reason
            if next_at > now:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(asyncio.get_running_loop().time() + next_at - now):
                        await stop.wait()
        self.close()

    async def one(self, request_id: str) -> None:
        phase, sent_at = "connect", 0.0
        try:
            if self.reader is None or self.writer is None or self.reader.at_eof():
                await self.open()
            assert self.reader is not None
            assert self.writer is not None
            phase, sent_at = "head", time.monotonic()
            async with asyncio.timeout(ANSWER_S):
                self.writer.writelines(self.request(request_id))
                status, headers = await read_head(self.reader)
                phase = "body"
                body = await read_body(self.reader, headers)
            phase = "content"
            self.check(status, headers, body, request_id)
        except (OSError, EOFError, BadAnswerError, ValueError) as exc:
            at = time.monotonic()
            failure = Failure(self.kind, request_id, phase, repr(exc), self.opened_at, sent_at, at)
            self.tally.failures.append(failure)
            self.close()
            await asyncio.sleep(0.02)
            return
        self.tally.done[self.kind] += 1
        self.tally.by_node[headers.get("x-node", "?")] += 1
        self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - sent_at)
        if self.kind in ("post", "later", "create"):
            self.tally.keys.append(request_id)
        if headers.get("connection", "").lower() == "close":
            self.close()

    def request(self, request_id: str) -> list[bytes]:
        method, target, body = {
            "fast": ("GET", "/fast?delay=0.001", b""),
            "slow": ("GET", "/slow?delay=2", b""),
            "later": ("POST", "/later?delay=2", b"{}"),
            "down": ("GET", f"/down?size={BIG_BYTES}", b""),
            "up": ("POST", "/up", BIG_BODY),
            "post": ("POST", "/post", b'{"collection":{"name":"load"}}'),
            "read": ("GET", "/arvados/v1/users/current", b""),
            "create": ("POST", "/arvados/v1/collections", b'{"collection":{"name":"%s"}}' % request_id.encode()),
        }[self.kind]
        key = f"X-Key: {request_id}\r\n" if self.kind in ("post", "later") else ""
        if self.kind in API_KINDS:
            key = f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: load\r\nX-Request-Id: {request_id}\r\n{key}{length}\r\n"
        return [head.encode(), body]

    def check(self, status: int, headers: dict[str, str], body: bytes, request_id: str) -> None:
        if status != 200:
            raise BadAnswerError(f"status {status}: {body[:200]!r}")
        if headers.get("x-request-id") != request_id:
            raise BadAnswerError(f"the answer has request id {headers.get('x-request-id')!r}")
        if self.kind == "down":
            if len(body) != BIG_BYTES:
                raise BadAnswerError(f"{len(body)} bytes")
            return
        seen = json.loads(body)
        if self.kind in API_KINDS:
            if self.kind == "create" and seen["name"] != request_id:
                raise BadAnswerError(f"the collection is {seen['name']!r}")
            return
        if self.kind == "up" and seen["body_bytes"] != BIG_BYTES:
            raise BadAnswerError(f"the node got {seen['body_bytes']} bytes")
        if ["x-request-id", request_id] not in seen["headers"]:
            raise BadAnswerError("the node got another request id")

    async def open(self) -> None:
        self.close()
        self.opened_at = time.monotonic()
        self.reader, self.writer = await self.target.open()
        self.tally.opened += 1

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


BIG_BODY = bytes(BIG_BYTES)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read a response head. Raises EOFError when it is cut."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split(" ")[1]), {name.lower(): value.strip() for name, _, value in fields}


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Read a body by its framing. Raises EOFError when it is cut."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        pieces = []
        while length := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append(await reader.readexactly(length))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return b"".join(pieces)
    return await reader.readexactly(int(headers.get("content-length", "0")))


class WebSocketClient:
    """Sends a message now and then and wants it back; connects again after a close frame."""

    def __init__(self, target: Target, tally: Tally) -> None:
        self.target, self.tally = target, tally

    async def run(self, stop: asyncio.Event, pause_s: float) -> None:
        while not stop.is_set():
            opened_at = time.monotonic()
            try:
                await self.session(stop, pause_s)
            except (OSError, EOFError, BadAnswerError) as exc:
                at = time.monotonic()
                self.tally.failures.append(Failure("ws", "", "body", repr(exc), opened_at, opened_at, at))
                await asyncio.sleep(0.05)

    async def session(self, stop: asyncio.Event, pause_s: float) -> None:
        reader, writer = await self.target.open()
        try:
            key = base64.b64encode(os.urandom(16)).decode()
            upgrade = (
                f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13"
            )
            writer.write(f"GET /websocket HTTP/1.1\r\nHost: load\r\n{upgrade}\r\n\r\n".encode())
            status, _headers = await read_head(reader)
            if status != 101:
                raise BadAnswerError(f"status {status}")
            for count in itertools.count():
                if stop.is_set() or not await self.echo(reader, writer, b"message %d" % count):
                    return
                self.tally.done["ws"] += 1
                await asyncio.sleep(pause_s)
        finally:
            writer.close()

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bool:
        """One message there and back; False when the other side says that it closes."""
        writer.write(bytes([0x81, 0x80 | len(data)]) + bytes(4) + data)
        async with asyncio.timeout(ANSWER_S):
            first, length = await reader.readexactly(2)
            answer = await reader.readexactly(length)
        if first & 0x0F == 8:
            return False
        if answer != data:
            raise BadAnswerError(f"the echo of {data!r} is {answer!r}")
        return True


async def run(options: argparse.Namespace) -> dict[str, Any]:
    tally, stop = Tally(), asyncio.Event()
    context = None
    if options.tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    target = Target(options.port, context)
    asyncio.get_running_loop().add_reader(0, lambda: None if os.read(0, 100) else stop.set())
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for kind, number, pause_s in clients(options):
            if kind == "ws":
                group.create_task(WebSocketClient(target, tally).run(stop, pause_s))
            else:
                client = Client(target, tally, number, kind)
                group.create_task(client.run(stop, pause_s, fresh=options.fresh))
        await asyncio.sleep(0.2)
        sys.stdout.write("running\n")
        sys.stdout.flush()
        await stop.wait()
        asyncio.get_running_loop().remove_reader(0)
    return tally.summary(time.monotonic() - began)


def clients(options: argparse.Namespace) -> list[tuple[str, int, float]]:
    if options.fresh:
        return [("fast", number, 0.0) for number in range(options.clients)]
    wanted = [(kind, pause_s) for kind, (count, pause_s) in MIX.items() for _ in range(count) if kind in options.kinds]
    return [(kind, number, pause_s) for number, (kind, pause_s) in enumerate(wanted[: options.clients])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS + API_KINDS)
    parser.add_argument("--fresh", action="store_true", help="every request on a connection of its own")
    parser.add_argument("--tls", action="store_true")
    json.dump(asyncio.run(run(parser.parse_args())), sys.stdout)


if __name__ == "__main__":
    main()
