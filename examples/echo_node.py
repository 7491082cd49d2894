"""A small API-like node to put behind the balancer: health as Arvados answers it, echo, delays, sizes, WebSocket.

    python examples/echo_node.py --name api1 --port 9001

Any path answers with JSON that tells what arrived, and with its request id. Query parameters shape the answer:

    delay=SECONDS     wait before answering          size=BYTES      answer that many bytes instead of JSON
    status=CODE       answer with this status        chunked=1       send the body in chunks

`GET /_health/ping` answers 200 with `{"health":"OK"}`, or, when sick, *also 200* with `{"health":"ERROR"}`; with
--token it wants `Authorization: Bearer TOKEN`. `Upgrade: websocket` gets an echo, any other upgrade a byte echo.
`/_echo/counts` tells how many requests there were, by method, path and X-Key field; `/_echo/log` lists the newest;
`PUT /_echo/sick` and `DELETE /_echo/sick` make the node sick and well. `/discovery/v1/apis/arvados/v1/rest` has the
--version as its revision, for `versions.path`.

Needs only the standard library. Listens on loopback unless told otherwise.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import signal
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
DISCOVERY = "/discovery/v1/apis/arvados/v1/rest"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
HEAD_BYTES = 64 << 10
PIECE_BYTES = 64 << 10
LOG_LENGTH = 50_000
PIECE = bytes(range(256)) * (PIECE_BYTES // 256)


@dataclass(slots=True)
class Request:
    """One request head. Header names are lower case, in the order of arrival."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]

    def header(self, name: str) -> str:
        """The first value of a field, "" when there is none."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def path(self) -> str:
        """The path without its query."""
        return urlsplit(self.target).path

    def number(self, name: str) -> float:
        """A query parameter as a number, 0 when there is none."""
        return float(parse_qs(urlsplit(self.target).query).get(name, ["0"])[0])

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants to use the connection again."""
        connection = self.header("connection").lower()
        return "close" not in connection and (self.version == "HTTP/1.1" or "keep-alive" in connection)


@dataclass(slots=True)
class Node:
    """The node's state, and what it saw."""

    name: str
    token: str = ""
    idle_s: float = 60.0
    version: str = ""
    sickness: str = ""
    requests: int = 0
    by_method: Counter[str] = field(default_factory=Counter)
    by_path: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str] = field(default_factory=Counter)
    log: deque[dict[str, object]] = field(default_factory=lambda: deque(maxlen=LOG_LENGTH))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests on one connection until either side has enough."""
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError):
            while await self._one(reader, writer):
                pass
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(self.idle_s):
            head = await reader.readuntil(b"\r\n\r\n")
        request = parse(head)
        request_id, head_only = request.header("x-request-id"), request.method == "HEAD"
        answer = Answer(writer, self.name, request_id, keep=request.keeps_alive, head_only=head_only)
        if request.path == "/_health/ping":
            await answer.send(*self._health(request))
            return answer.keep
        if request.path == DISCOVERY:
            await answer.send(HTTPStatus.OK, {"version": "v1", "revision": self.version or "unknown"})
            return answer.keep
        if request.path.startswith("/_echo/"):
            await answer.send(HTTPStatus.OK, self._about(request))
            return answer.keep
        self._note(request)
        if request.header("upgrade"):
            await upgrade(request, reader, writer)
            return False
        if request.header("expect").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        digest, length = hashlib.sha256(), 0
        async for piece in body(request, reader):
            digest.update(piece)
            length += len(piece)
        await asyncio.sleep(request.number("delay"))
        await self._reply(request, answer, length, digest.hexdigest())
        return answer.keep

    async def _reply(self, request: Request, answer: "Answer", length: int, digest: str) -> None:
        status = int(request.number("status") or 200)
        size = int(request.number("size"))
        if size:
            await answer.stream(status, size, chunked=bool(request.number("chunked")))
            return
        seen = {
            "node": self.name,
            "method": request.method,
            "target": request.target,
            "headers": request.headers,
            "body_bytes": length,
            "body_sha256": digest,
            "number": self.requests,
        }
        await answer.send(status, seen)

    def _health(self, request: Request) -> tuple[int, object]:
        given = request.header("authorization")
        if self.token and not given:
            return HTTPStatus.UNAUTHORIZED, "authorization required"
        if self.token and given != f"Bearer {self.token}":
            return HTTPStatus.FORBIDDEN, "authorization error"
        if self.sickness:
            return HTTPStatus.OK, {"health": "ERROR", "error": self.sickness}
        return HTTPStatus.OK, {"health": "OK"}

    def _about(self, request: Request) -> object:
        match request.method, request.path:
            case "PUT", "/_echo/sick":
                self.sickness = "told to be sick"
            case "DELETE", "/_echo/sick":
                self.sickness = ""
            case _, "/_echo/log":
                return list(self.log)
        return {
            "node": self.name,
            "requests": self.requests,
            "methods": self.by_method,
            "paths": self.by_path,
            "keys": self.by_key,
        }

    def _note(self, request: Request) -> None:
        self.requests += 1
        self.by_method[request.method] += 1
        self.by_path[request.path] += 1
        if key := request.header("x-key"):
            self.by_key[key] += 1
        self.log.append(
            {
                "at": time.monotonic(),
                "method": request.method,
                "target": request.target,
                "request_id": request.header("x-request-id"),
            }
        )


@dataclass(slots=True)
class Answer:
    """Writes one response. `keep` says whether the connection goes on afterwards."""

    writer: asyncio.StreamWriter
    node: str
    request_id: str
    keep: bool
    head_only: bool

    async def send(self, status: int, content: object) -> None:
        """Send JSON, or plain text when `content` is one."""
        kind = "text/plain" if isinstance(content, str) else "application/json"
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode() + b"\n"
        self.writer.write(self._head(status, f"Content-Type: {kind}\r\nContent-Length: {len(data)}"))
        if not self.head_only:
            self.writer.write(data)
        await self.writer.drain()

    async def stream(self, status: int, size: int, *, chunked: bool) -> None:
        """Send `size` bytes of a repeating pattern, no faster than they are read."""
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        self.writer.write(self._head(status, f"Content-Type: application/octet-stream\r\n{framing}"))
        for start in range(0, 0 if self.head_only else size, PIECE_BYTES):
            piece = PIECE[: min(PIECE_BYTES, size - start)]
            self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self.writer.drain()
        if chunked and not self.head_only:
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def _head(self, status: int, fields: str) -> bytes:
        try:
            reason = HTTPStatus(status).phrase
        except ValueError:
            reason = "Status"
        first = f"HTTP/1.1 {status} {reason}\r\nDate: {formatdate(usegmt=True)}\r\nX-Node: {self.node}\r\n"
        if self.request_id and self.request_id.isprintable():
            first += f"X-Request-Id: {self.request_id}\r\n"
        return f"{first}{fields}\r\nConnection: {'keep-alive' if self.keep else 'close'}\r\n\r\n".encode()


def parse(head: bytes) -> Request:
    """Read a request head. Raises ValueError when it is not one."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, version = first.split(" ")
    pairs = [line.split(":", 1) for line in lines]
    return Request(method, target, version, [(name.lower(), value.strip()) for name, value in pairs])


async def body(request: Request, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the request's body in pieces."""
    if "chunked" in request.header("transfer-encoding").lower():
        while length := int((await reader.readline()).split(b";")[0], 16):
            yield await reader.readexactly(length)
            await reader.readexactly(2)
        while (await reader.readline()).strip():
            pass  # trailers
        return
    left = int(request.header("content-length") or 0)
    while left:
        piece = await reader.read(min(left, PIECE_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(piece, left)
        left -= len(piece)
        yield piece


async def upgrade(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Switch protocols and echo until the client has enough."""
    protocol = request.header("upgrade")
    fields = f"Upgrade: {protocol}\r\nConnection: Upgrade\r\n"
    if protocol.lower() == "websocket":
        key = request.header("sec-websocket-key").encode()
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID, usedforsecurity=False).digest()).decode()
        fields += f"Sec-WebSocket-Accept: {accept}\r\n"
    writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n".encode())
    await writer.drain()
    if protocol.lower() == "websocket":
        await echo_frames(reader, writer)
        return
    while data := await reader.read(PIECE_BYTES):
        writer.write(data)
        await writer.drain()


async def echo_frames(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo WebSocket messages, answer pings and the close (RFC 6455 section 5)."""
    while True:
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
        mask = await reader.readexactly(4)
        data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(await reader.readexactly(length)))
        opcode = first & 0x0F
        writer.write(frame(first & 0xF0 | (PONG if opcode == PING else opcode), data))
        await writer.drain()
        if opcode == CLOSE:
            return


def frame(first: int, data: bytes) -> bytes:
    """Return an unmasked WebSocket frame."""
    if len(data) < 126:
        return bytes([first, len(data)]) + data
    if len(data) < 1 << 16:
        return bytes([first, 126]) + len(data).to_bytes(2) + data
    return bytes([first, 127]) + len(data).to_bytes(8) + data


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, then end at once, open requests included, as Arvados' controller does."""
    node = Node(options.name, options.token, options.keepalive, options.version)
    tls = None
    if options.cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.cert, options.key)
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(node.serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    if options.unix:
        server = await asyncio.start_unix_server(accept, options.unix, limit=HEAD_BYTES, ssl=tls)
    else:
        server = await asyncio.start_server(
            accept, options.host, options.port, limit=HEAD_BYTES, ssl=tls, backlog=1024, reuse_address=True
        )
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    where = options.unix or ":".join(map(str, server.sockets[0].getsockname()[:2]))
    print(f"{options.name} listens on {where}", flush=True)
    await ended.wait()
    server.close()
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


def main() -> None:
    """Run the node."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="node", help="its name, in answers and the X-Node field")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0: any free one, which is printed")
    parser.add_argument("--unix", type=Path, help="listen on this Unix socket instead")
    parser.add_argument("--keepalive", type=float, default=60.0, help="seconds until an idle connection is closed")
    parser.add_argument("--token", default="", help="ManagementToken that /_health/ping wants")
    parser.add_argument("--version", default="", help="what the discovery document says as its revision")
    parser.add_argument("--cert", type=Path, help="PEM file: serve TLS")
    parser.add_argument("--key", type=Path, help="PEM file of the private key")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
