"""Single GET requests to nodes, over plain TCP, TLS or a Unix socket: a new connection each, no redirect, no proxy.

On raw sockets of the event loop, because health checks share the cores with the workers: one costs a quarter of what a
client library takes. The same parser as in the byte path reads the answer, so what passes here can be forwarded there.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from balancer import __version__
from balancer.core.http1 import ChunkFollower, Incomplete, Refusal, ResponseHead, parse_response

BODY_BYTES = 64 << 10  # more is not read
READ_BYTES = 64 << 10
SWITCHING_PROTOCOLS = 101


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask. `address` is literal (names are resolved before); `unix_path` stands in its place."""

    address: str
    port: int
    authority: str  # the Host field
    path: str
    unix_path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    token: str = field(default="", repr=False)


class NoAnswerError(Exception):
    """There is no answer that can be read; the message says why. `refused`: nobody listens, which counts at once."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


async def get(target: Target, *, timeout_s: float, limit: int = BODY_BYTES) -> tuple[int, bytes]:
    """Return status and the first `limit` bytes of the body. Raises NoAnswerError, and nothing else for a bad node."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(target, limit)
    except TimeoutError:
        raise NoAnswerError(f"no answer within {timeout_s:g} s") from None
    except (ConnectionResetError, BrokenPipeError):
        raise NoAnswerError("connection closed before the answer") from None
    except OSError as exc:
        raise NoAnswerError(f"connection failed: {exc.strerror or exc}") from exc


def request(target: Target) -> bytes:
    """Return the request's bytes. Raises NoAnswerError for what would be more than one header line."""
    lines = [
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        f"User-Agent: arv-balance/{__version__} (health check)",
        "Accept: application/json, */*;q=0.5",
        "Connection: close",
    ]
    if target.token:
        lines.append(f"Authorization: Bearer {target.token}")
    text = "\r\n".join(lines)
    if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1:
        raise NoAnswerError("the request cannot be sent: a line break in its path, host or token")
    return (text + "\r\n\r\n").encode()


async def _exchange(target: Target, limit: int) -> tuple[int, bytes]:
    sent = request(target)
    with _connecting(target) as sock:
        plain = _Plain(sock)
        try:
            # On one machine a connection is there at once, so sending is tried before anything is waited for.
            rest = sent if target.tls is not None else plain.send_some(sent)
            if len(rest) == len(sent):
                await plain.writable()
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
        except OSError as exc:
            raise _cannot_connect(exc) from exc
        wire = plain if target.tls is None else await _secured(plain, target.tls, target.server_name)
        await wire.send(rest)
        return await _answer(wire, limit)


def _connecting(target: Target) -> socket.socket:
    """Return a socket that is connected or on its way."""
    family = socket.AF_UNIX if target.unix_path else socket.AF_INET6 if ":" in target.address else socket.AF_INET
    address: str | tuple[str, int] = target.unix_path or (target.address, target.port or 80)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise _cannot_connect(OSError(code, os.strerror(code)))
    except BaseException:
        sock.close()
        raise
    return sock


def _cannot_connect(exc: OSError) -> NoAnswerError:
    if exc.errno in (errno.ECONNREFUSED, errno.ENOENT):
        return NoAnswerError("connection refused", refused=True)
    return NoAnswerError(f"cannot connect: {exc.strerror or exc}")


class _Plain:
    """A non-blocking socket in the event loop."""

    __slots__ = ("_fd", "_loop", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()

    def send_some(self, data: bytes) -> bytes:
        """Return what the kernel did not take at once."""
        try:
            return data[self._sock.send(data) :]
        except BlockingIOError:
            return data

    async def send(self, data: bytes) -> None:
        """Send all."""
        while data:
            data = self.send_some(data)
            if data:
                await self.writable()

    async def receive(self) -> bytes:
        """Return what there is, b"" at the end."""
        while True:
            await self._until(self._loop.add_reader, self._loop.remove_reader)
            try:
                return self._sock.recv(READ_BYTES)
            except BlockingIOError:
                continue

    async def writable(self) -> None:
        """Wait until it is connected and takes more."""
        await self._until(self._loop.add_writer, self._loop.remove_writer)

    async def _until(self, watch: Callable[..., object], forget: Callable[[int], object]) -> None:
        ready = self._loop.create_future()
        watch(self._fd, _resolve, ready)
        try:
            await ready
        finally:
            forget(self._fd)


def _resolve(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


class _Tls:
    """TLS over a plain connection."""

    __slots__ = ("_incoming", "_outgoing", "_plain", "_tls")

    def __init__(self, plain: _Plain, context: ssl.SSLContext, server_name: str) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name or None)

    async def shake_hands(self) -> None:
        """Raises ssl.SSLError, OSError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._feed()
            else:
                return

    async def send(self, data: bytes) -> None:
        """Send all; memory takes any amount at once."""
        self._tls.write(data)
        await self._flush()

    async def receive(self) -> bytes:
        """Return what there is, b"" at the end."""
        while True:
            try:
                return self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def _feed(self) -> None:
        await self._flush()
        data = await self._plain.receive()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._plain.send(self._outgoing.read())


async def _secured(plain: _Plain, context: ssl.SSLContext, server_name: str) -> _Tls:
    wire = _Tls(plain, context, server_name)
    try:
        await wire.shake_hands()
    except ssl.SSLCertVerificationError as exc:
        raise NoAnswerError(f"certificate not accepted: {exc}") from exc
    except ssl.SSLError as exc:
        raise NoAnswerError(f"cannot connect: {exc.strerror or exc}") from exc
    return wire


async def _answer(wire: _Plain | _Tls, limit: int) -> tuple[int, bytes]:
    data = b""
    while True:
        parsed = parse_response(data, b"GET")
        match parsed:
            case Incomplete():
                received = await wire.receive()
                if not received:
                    raise NoAnswerError("connection closed before the answer")
                data += received
            case Refusal():
                raise NoAnswerError(f"the answer is not HTTP: {parsed.reason}")
            case _ if parsed.status < 200 and parsed.status != SWITCHING_PROTOCOLS:
                data = data[parsed.length :]
            case _:
                return parsed.status, await _body(wire, parsed, data[parsed.length :], limit)


async def _body(wire: _Plain | _Tls, head: ResponseHead, first: bytes, limit: int) -> bytes:
    """Return up to `limit` bytes. Raises NoAnswerError when the connection ends inside them."""
    follower = ChunkFollower() if head.chunked else None
    ends_by_closing = follower is None and head.content_length is None
    wanted = limit if head.content_length is None else min(limit, head.content_length)
    body, received = bytearray(), first
    while True:
        body += received if follower is None else _content(follower, received)
        if len(body) >= wanted or (follower is not None and follower.done):
            return bytes(body[:wanted])
        try:
            received = await wire.receive()
        except ConnectionResetError:
            received, ends_by_closing = b"", False
        if not received and ends_by_closing:
            return bytes(body)
        if not received:
            raise NoAnswerError("connection closed in the middle of the answer")


def _content(follower: ChunkFollower, data: bytes) -> bytes:
    step = follower.feed(data)
    if isinstance(step, Refusal):
        raise NoAnswerError(f"the answer is not HTTP: {step.reason}")
    return b"".join(step[0])
