"""A scriptable node that records what reaches it: threads, one loopback port, answers by script.

A script is a function of the request it got; the shortest is `lambda request: answer(b"hello")`. It may return bytes
(sent as they are), a list of steps, or None for the default answer. Steps: bytes, `Sleep`, `Hold` (until the test lets
go), `Stall`, `Reset`, `Close`, `Echo` (echo raw bytes until the other side half-closes).
"""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_LINGER_0 = struct.pack("ii", 1, 0)


@dataclass
class Request:
    """One request as it arrived. `body` is decoded; `raw_head` are the bytes of the head."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    raw_head: bytes
    connection: int  # number of the connection that it came on, from 0
    began_at: float  # monotonic
    raw_body: bytes = b""
    complete: bool = True  # False: the connection ended inside the body

    def all(self, name: str) -> list[str]:
        """Values of all fields called `name`."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        """The only value of `name`; more than one is an error."""
        values = self.all(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None


@dataclass(frozen=True)
class Sleep:
    """Wait before the next step."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Wait until the test sets the event: no time is too short or too long for what it does meanwhile."""

    until: threading.Event


@dataclass(frozen=True)
class Stall:
    """Do nothing more until the node stops."""


@dataclass(frozen=True)
class Reset:
    """Send a TCP reset."""


@dataclass(frozen=True)
class Close:
    """Close the connection."""


@dataclass(frozen=True)
class Echo:
    """Send back what comes until the peer half-closes, then half-close, too."""


Step = bytes | Sleep | Hold | Stall | Reset | Close | Echo
Script = Callable[[Request], "bytes | list[Step] | None"]


def answer(
    body: bytes = b"ok", status: int = 200, headers: tuple[tuple[str, str], ...] = (), *, length: int | None = None
) -> bytes:
    """Return an answer with Content-Length (`length` to lie about it)."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def chunked(
    *pieces: bytes, trailers: tuple[tuple[str, str], ...] = (), headers: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """Return a chunked answer."""
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers) + "\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head.encode() + body + b"0\r\n" + "".join(f"{n}: {v}\r\n" for n, v in trailers).encode() + b"\r\n"


@dataclass
class _Counters:
    connections: int = 0
    open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Upstream:
    """The node. Use as a context manager; `port` is known from the start."""

    def __init__(
        self, script: Script | None = None, *, name: str = "node", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = script
        self._tls = tls
        self.name = name
        self.requests: list[Request] = []
        self._counters = _Counters()
        self._stopping = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "Upstream":
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def connections(self) -> int:
        """Connections that it accepted so far."""
        return self._counters.connections

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return self._counters.open

    def stop(self) -> None:
        """Refuse connections from now on and cut those that are open."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close_connections(self) -> None:
        """Cut the open connections, go on accepting."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def wait_for(self, count: int, timeout_s: float = 20.0) -> list[Request]:
        """Return the requests once there are `count`."""
        until = time.monotonic() + timeout_s
        while len(self.requests) < count:
            assert time.monotonic() < until, f"{self.name} got {len(self.requests)} requests, not {count}"
            time.sleep(0.005)
        return self.requests

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            with self._counters.lock:
                number = self._counters.connections
                self._counters.connections += 1
                self._counters.open += 1
            self._sockets.add(sock)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                self._sockets.discard(sock)
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._sockets.add(sock)
            self._serve_requests(sock, number)
        except OSError:
            pass  # the peer is gone, or the test is over: both are what scripts are for
        finally:
            self._sockets.discard(sock)
            sock.close()
            with self._counters.lock:
                self._counters.open -= 1

    def _serve_requests(self, sock: socket.socket, number: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock.makefile("rb", buffering=1 << 16) as stream:
            while not self._stopping.is_set():
                request = _read_request(stream, number, early=getattr(self.script, "early", False))
                if request is None:
                    return
                self.requests.append(request)
                steps = self.script(request) if self.script is not None else None
                if steps is None:
                    steps = answer(f"{self.name}\n".encode())
                for step in [steps] if isinstance(steps, bytes) else steps:
                    if not self._do(sock, stream, step):
                        return

    def _do(self, sock: socket.socket, stream: object, step: Step) -> bool:
        match step:
            case bytes():
                sock.sendall(step)
            case Sleep(seconds):
                self._stopping.wait(seconds)
            case Hold(until):
                while not until.wait(0.05) and not self._stopping.is_set():
                    continue
            case Stall():
                self._stopping.wait(60)
                return False
            case Reset():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
                return False
            case Close():
                return False
            case Echo():
                while data := sock.recv(1 << 16):
                    sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                return False
        return True


def _read_request(stream: "object", number: int, *, early: bool) -> Request | None:
    read = stream  # a BufferedReader; typed loosely because typeshed has no name for makefile's result
    lines: list[bytes] = []
    began_at = 0.0
    while True:
        line: bytes = read.readline()  # type: ignore[attr-defined]
        began_at = began_at or time.monotonic()
        if not line:
            return None
        lines.append(line)
        if line in (b"\r\n", b"\n"):
            break
    method, target, _ = lines[0].decode("latin-1").split(" ", 2)
    headers = []
    for raw in lines[1:-1]:
        name, _, value = raw.decode("latin-1").rstrip("\r\n").partition(":")
        headers.append((name, value.strip()))
    request = Request(method, target, headers, b"", b"".join(lines), number, began_at)
    if not early:
        _read_body(read, request)
    return request


def _read_body(stream: "object", request: Request) -> None:
    reader = stream
    if any("chunked" in value for value in request.all("Transfer-Encoding")):
        while True:
            size_line: bytes = reader.readline()  # type: ignore[attr-defined]
            request.raw_body += size_line
            if not size_line:
                request.complete = False
                return
            size = int(size_line.split(b";")[0], 16)
            if size == 0:
                break
            data: bytes = reader.read(size + 2)  # type: ignore[attr-defined]
            request.raw_body += data
            request.body += data[:size]
        while (line := reader.readline()) not in (b"\r\n", b""):  # type: ignore[attr-defined]
            request.raw_body += line
        return
    length = int(request.one("Content-Length") or 0)
    request.body = reader.read(length)  # type: ignore[attr-defined]
    request.complete = len(request.body) == length
