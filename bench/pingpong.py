"""WebSocket load: `python -P -m bench.pingpong PORT CONNECTIONS BYTES`, until SIGINT.

Every connection sends one message, waits for its echo and sends the next. Prints RUNNING with the first echo, so that
nobody takes the time of its start for that of its work, and at the end the same RESULT line as `load.lua`; `requests`
are messages that came back whole.
"""

import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field

from bench.websocket import KEY, accept_of, client_frame, server_frame

_READ_BYTES = 256 << 10
_PATIENCE_S = 5.0  # for the first echo


@dataclass(slots=True)
class Stream:
    """One open WebSocket and how much of the current echo is still missing."""

    sock: socket.socket
    missing: int
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))


def connect(port: int) -> socket.socket:
    """Return an upgraded connection. Raises OSError when the target does not upgrade."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        b"GET /websocket HTTP/1.1\r\nHost: xarv1.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
    )
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(4096)
        if not data:
            break
        head += data
    if b" 101 " not in head[:20] or accept_of(KEY) not in head:
        raise OSError(f"no upgrade: {head[:200]!r}")
    return sock


class Load:
    """Runs ping-pong over all connections and counts."""

    def __init__(self, port: int, connections: int, size: int) -> None:
        payload = bytes(size)
        self._frame = memoryview(client_frame(payload))
        self._echo_bytes = len(server_frame(payload))
        self._port, self._connections = port, connections
        self._poller = select.epoll()
        self._streams: dict[int, Stream] = {}
        self.messages = self.errors = 0
        self.stopped = False

    def run(self) -> float:
        """Send until `stopped`; returns the seconds it took."""
        for _ in range(self._connections):
            sock = connect(self._port)
            sock.setblocking(False)
            self._streams[sock.fileno()] = Stream(sock, self._echo_bytes)
            self._poller.register(sock, select.EPOLLIN)
        started = time.monotonic()
        for stream in self._streams.values():
            self._send(stream, self._frame)
        told = False
        while not self.stopped and self._streams:
            for fd, events in self._poller.poll(0.05):
                self._turn(self._streams[fd], events)
            if not told and (self.messages or time.monotonic() > started + _PATIENCE_S):
                print("RUNNING", flush=True)
                told = True
        return time.monotonic() - started

    def _turn(self, stream: Stream, events: int) -> None:
        if events & select.EPOLLOUT:
            self._send(stream, stream.unsent)
        if not events & ~select.EPOLLOUT:
            return
        try:
            count = len(stream.sock.recv(_READ_BYTES))
        except OSError:
            count = 0
        if count == 0 or count > stream.missing:
            self.errors += 1
            del self._streams[stream.sock.fileno()]
            stream.sock.close()
            return
        stream.missing -= count
        if not stream.missing:
            self.messages += 1
            stream.missing = self._echo_bytes
            self._send(stream, self._frame)

    def _send(self, stream: Stream, data: memoryview) -> None:
        try:
            rest = data[stream.sock.send(data) :]
        except BlockingIOError:
            rest = data
        if bool(rest) != bool(stream.unsent):
            self._poller.modify(stream.sock, select.EPOLLIN | (select.EPOLLOUT if rest else 0))
        stream.unsent = rest


def main(port: int, connections: int, size: int) -> None:
    """Run the load and print the result."""
    load = Load(port, connections, size)

    def stop(_number: int, _frame: object) -> None:
        load.stopped = True

    signal.signal(signal.SIGINT, stop)
    seconds = load.run()
    print(
        f"RESULT requests={load.messages} bytes={load.messages * size} duration_us={seconds * 1e6:.0f} "
        f"p50_us=0 p99_us=0 connect=0 read={load.errors} write=0 timeout=0 status=0"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
