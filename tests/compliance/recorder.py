"""A node that records every byte it gets, judged by llhttp: what llhttp refuses is malformed for somebody."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httptools

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE_S = 5.0


@dataclass(slots=True)
class Request:
    """One whole request as it arrived. Names are lower case."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        return [value for lower, value in self.fields if lower == name]


@dataclass(slots=True)
class Reply:
    """What the node answers to each request. early: when the head is there."""

    data: bytes = OK
    closes: bool = False
    early: bool = False


class Connection:
    """One accepted connection: its raw bytes, whole requests, and what llhttp had to object."""

    def __init__(self, sock: socket.socket, recorder: "Recorder") -> None:
        self.raw = bytearray()
        self.requests: list[Request] = []
        self.objection: str | None = None
        self.open = True
        self._sock = sock
        self._recorder = recorder
        self._current = Request(b"", b"")
        self._parser = httptools.HttpRequestParser(self)

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while self.open and (data := self._sock.recv(1 << 16)):
                self.raw += data
                try:
                    self._parser.feed_data(data)
                except httptools.HttpParserUpgrade:
                    pass
                except httptools.HttpParserError as exc:
                    self.objection = f"{exc}: {bytes(self.raw[-200:])!r}"
                    break
        self.open = False
        self._sock.close()

    def on_message_begin(self) -> None:
        self._current = Request(b"", b"")

    def on_url(self, url: bytes) -> None:
        self._current.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._current.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._current.method = self._parser.get_method()
        if self._recorder.reply.early:
            self._answer()

    def on_body(self, body: bytes) -> None:
        self._current.body += body

    def on_message_complete(self) -> None:
        self.requests.append(self._current)
        if not self._recorder.reply.early:
            self._answer()

    def _answer(self) -> None:
        self._sock.sendall(self._recorder.reply.data)
        if self._recorder.reply.closes:
            self._sock.shutdown(socket.SHUT_WR)
            self.open = False


class Recorder:
    """The node. `reset` before each vector."""

    def __init__(self) -> None:
        self.reply = Reply()
        self.connections: list[Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]

    def accept(self) -> None:
        """Serve until `close`; runs in a thread of its own."""
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(30)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, self)
            self.connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def reset(self, reply: Reply | None = None) -> None:
        """Forget what came so far. Connections stay open: the balancer keeps them."""
        self.reply = reply or Reply()
        self.connections = [connection for connection in self.connections if connection.open]
        for connection in self.connections:
            connection.requests.clear()
            connection.raw.clear()

    @property
    def requests(self) -> list[Request]:
        return [request for connection in self.connections for request in connection.requests]

    @property
    def objections(self) -> list[str]:
        return [connection.objection for connection in self.connections if connection.objection]

    def settle(self, requests: int) -> None:
        """Wait until this many whole requests are here; what the client was answered may be ahead of this thread."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.requests) < requests and time.monotonic() < deadline:
            time.sleep(0.001)


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    recorder = Recorder()
    thread = threading.Thread(target=recorder.accept, daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        recorder.close()
        thread.join(PATIENCE_S)
