"""A WebSocket echo node: `python -P -m bench.echo PORT...`. Answers any other request with 200.

Its cost does not count: only the target's CPU time is measured.
"""

import contextlib
import select
import socket
import sys

from bench.websocket import accept_of, client_frame_length, server_frame

_READ_BYTES = 256 << 10
_PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Connection:
    """One connection from a target: plain HTTP until it is upgraded, then frames are sent back."""

    def __init__(self, sock: socket.socket, poller: select.epoll) -> None:
        self.sock = sock
        self._poller = poller
        self._upgraded = False
        self._data = bytearray()
        self._unsent = bytearray()

    def readable(self) -> bool:
        """Read once and answer; returns False at the end of the connection."""
        data = self.sock.recv(_READ_BYTES)
        if not data:
            return False
        self._data += data
        if not self._upgraded:
            self._answer_heads()
        if self._upgraded:
            self._echo()
        return True

    def writable(self) -> None:
        """Send what did not go before."""
        self._send(b"")

    def _answer_heads(self) -> None:
        while not self._upgraded and (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).lower()
            key = next(
                (
                    line
                    for line in bytes(self._data[:end]).split(b"\r\n")
                    if line.lower().startswith(b"sec-websocket-key:")
                ),
                None,
            )
            del self._data[: end + 4]
            if key is not None and b"\r\nupgrade: websocket" in head:
                self._upgraded = True
                accept = accept_of(key.partition(b":")[2].strip())
                self._send(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                )
            else:
                self._send(_PLAIN)

    def _echo(self) -> None:
        while (found := client_frame_length(self._data)) is not None and len(self._data) >= sum(found):
            start, length = found
            self._send(server_frame(bytes(self._data[start : start + length])))
            del self._data[: start + length]

    def _send(self, data: bytes) -> None:
        was_waiting = bool(self._unsent)
        self._unsent += data
        with contextlib.suppress(BlockingIOError):
            sent = self.sock.send(self._unsent)
            del self._unsent[:sent]
        if bool(self._unsent) != was_waiting:
            waits = select.EPOLLOUT if self._unsent else 0
            self._poller.modify(self.sock, select.EPOLLIN | waits)


def serve(ports: list[int]) -> None:
    """Echo until killed."""
    poller = select.epoll()
    listeners = {}
    for port in ports:
        listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listeners[listener.fileno()] = listener
        poller.register(listener, select.EPOLLIN)
    connections: dict[int, Connection] = {}
    while True:
        for fd, events in poller.poll():
            if fd in listeners:
                sock, _address = listeners[fd].accept()
                sock.setblocking(False)
                poller.register(sock, select.EPOLLIN)
                connections[sock.fileno()] = Connection(sock, poller)
            else:
                _serve_one(connections, fd, events)


def _serve_one(connections: dict[int, Connection], fd: int, events: int) -> None:
    connection = connections[fd]
    try:
        if events & select.EPOLLOUT:
            connection.writable()
        alive = connection.readable() if events & ~select.EPOLLOUT else True
    except BlockingIOError:
        return
    except OSError:
        alive = False
    if not alive:
        connection.sock.close()
        del connections[fd]


if __name__ == "__main__":
    serve([int(port) for port in sys.argv[1:]])
