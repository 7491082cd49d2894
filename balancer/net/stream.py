"""A non-blocking connection with its pending output; what client and node connections have in common."""

import socket
import ssl
from _socket import socket as PlainSocket  # noqa: N812 - the C type under socket.socket: half the cost to make
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from balancer.net.poller import ERROR, HANGUP, READ, WRITE
from balancer.net.reactor import Reactor

if TYPE_CHECKING:
    from collections.abc import Iterable

COPY_BYTES = 16 << 10  # a message up to this is copied and sent in phase two; larger ones go at once from their buffer
HEAD_BYTES = (
    4096  # most heads and what comes with them; `recv` of so few makes a bytes object 0.3 us faster than others
)
READABLE = READ | ERROR | HANGUP
# What `recv` raises when there is nothing now; TLS says it in its own words, and translating them costs a call.
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Socket(Protocol):
    """What is used of `socket.socket`; `balancer.net.tls.TlsSocket` offers the same."""

    def recv(self, size: int, /) -> bytes:
        """Read up to `size`; b"" at the end. Raises one of NOT_NOW."""

    def recv_into(self, buffer: "bytearray | memoryview", /) -> int:
        """Read; 0 at the end. Raises BlockingIOError."""

    def send(self, data: "bytes | memoryview", /) -> int:
        """Send some. Raises BlockingIOError."""

    def sendmsg(self, buffers: "Iterable[bytes | memoryview]", /) -> int:
        """Send some of several buffers. Raises BlockingIOError."""

    def fileno(self) -> int:
        """Descriptor."""

    def shutdown(self, how: int, /) -> None:
        """Half-close."""

    def close(self) -> None:
        """Close."""


class Stream(ABC):
    """Owns a socket that the reactor watches. `out` is what the kernel did not take yet."""

    __slots__ = ("closed", "fd", "mask", "out", "reactor", "recv", "recv_into", "send", "send_once", "sock")

    def __init__(self, reactor: Reactor, sock: Socket, fd: int) -> None:
        self.reactor = reactor
        self.fd = fd
        self.use(sock)
        self.out: bytes = b""
        self.mask = 0
        self.closed = False

    def use(self, sock: Socket) -> None:
        """Go over `sock` from now on."""
        self.sock = sock
        self.recv = sock.recv
        self.recv_into = sock.recv_into  # bound once: a look-up per call is 40 ns
        self.send = sock.send
        self.send_once = sock.send  # of something small, whole or not: any OSError may mean "not now"

    @abstractmethod
    def ready(self, mask: int) -> None:
        """See reactor.Handler."""

    @abstractmethod
    def broken(self, error: Exception) -> None:
        """See reactor.Handler."""

    def drained(self) -> None:  # noqa: B027 - a hook that most need not
        """All of `out` is with the kernel."""

    def send_failed(self, error: OSError) -> None:  # noqa: B027 - a hook that most need not
        """The peer takes nothing any more."""

    def interest(self, mask: int) -> None:
        """Watch for `mask`."""
        if mask != self.mask and not self.closed:
            self.mask = mask
            self.reactor.poller.modify(self.fd, mask)

    def flush(self) -> None:
        """Send `out`; tell `drained` or `send_failed`."""
        if self.closed:
            return
        out = self.out
        if out:
            try:
                sent = self.send(out)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.send_failed(error)
                return
            if sent != len(out):
                self.out = out[sent:]
                if not self.mask & WRITE:
                    self.interest(self.mask | WRITE)
                self.progressed(sent)
                return
            self.out = b""
        if self.mask & WRITE:
            self.interest(self.mask & ~WRITE)
        self.drained()

    def progressed(self, sent: int) -> None:  # noqa: B027 - a hook that most need not
        """Some of `out` went."""

    def write(self, data: "bytes | memoryview", head: bytes = b"") -> bool:
        """Send `head` and `data` now; what does not go is kept. False: the connection is broken, and was told so."""
        if self.closed:
            return False
        if self.out:
            self.out = b"".join((self.out, head, data))
            return True
        try:
            sent = self.sock.sendmsg((head, data)) if head else self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.send_failed(error)
            return False
        total = len(head) + len(data)
        if sent != total:
            if sent < len(head):
                self.out = b"".join((head[sent:], data))
            else:
                self.out = bytes(data[sent - len(head) :])
            self.interest(self.mask | WRITE)
        return True

    def close(self) -> None:
        """Stop watching now, close at the end of the turn."""
        if not self.closed:
            self.closed = True
            self.out = b""
            self.reactor.retire(self.fd, self.sock.close)

    def reset(self) -> None:
        """Close so that the peer gets a reset: it must not take what it got for whole."""
        if not self.closed and isinstance(self.sock, PlainSocket):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.close()
