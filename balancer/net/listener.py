"""Listening sockets: accepting a bounded batch a turn."""

import errno
import logging
import socket
from typing import TYPE_CHECKING

from balancer.core.forwarded import UNIX, Networks
from balancer.model import Listener
from balancer.net.poller import READ

if TYPE_CHECKING:
    from balancer.net.plane import Plane

logger = logging.getLogger(__name__)

BATCH = 16  # connections taken a turn, so that those that are open go on
FULL_WAIT_NS = 100_000_000  # pause of accepting when out of descriptors


class Gate:
    """What connections of one listener have in common in this worker, and its tallies of a turn."""

    __slots__ = ("cell", "codes", "durations", "family", "is_unix", "listener", "proxy_from", "scheme", "slot")

    def __init__(self, listener: Listener, cell: int) -> None:
        self.listener = listener
        self.slot = listener.slot
        self.cell = cell  # first cell of this listener in our row
        self.scheme = b"https" if listener.tls is not None else b"http"
        self.is_unix = listener.bind.startswith("unix:")
        self.family = socket.AF_UNIX if self.is_unix else socket.AF_INET6 if "[" in listener.bind else socket.AF_INET
        self.proxy_from = Networks(listener.proxy_protocol_from)
        self.codes: dict[tuple[bytes, int], int] = {}
        self.durations: list[int] = []

    def must_send_proxy(self, peer: str) -> bool:
        """Whether a connection from `peer` has to begin with a PROXY header."""
        return (UNIX if self.is_unix else peer) in self.proxy_from


class Acceptor:
    """One listening socket."""

    __slots__ = ("expected", "gate", "listening", "plane", "sock")

    def __init__(self, plane: "Plane", sock: socket.socket, gate: Gate) -> None:
        self.plane = plane
        self.sock = sock
        self.gate = gate
        self.listening = False
        self.expected = 1

    def listen(self) -> None:
        """Accept from now on."""
        self.sock.setblocking(False)
        if self.sock.family != socket.AF_UNIX:
            # Inherited by every accepted connection: one system call here instead of one each.
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.listening:
            self.listening = True
            self.plane.reactor.watch(self.sock.fileno(), READ, self)

    def pause(self) -> None:
        """Accept nothing for now; what comes waits in the kernel's queue."""
        if self.listening:
            self.listening = False
            self.plane.reactor.forget(self.sock.fileno())

    def ready(self, mask: int) -> None:
        """See reactor.Handler."""
        del mask
        # As many as came last time, then twice as many: asking until there is none costs an exception of 2 us.
        count = self.accept(self.expected)
        self.expected = min(BATCH, 2 * count) if count == self.expected else max(1, count)

    def broken(self, error: Exception) -> None:
        """See reactor.Handler."""
        logger.error("accepting failed inside: %r", error, exc_info=error)

    def accept(self, most: int) -> int:
        """Accept up to `most` connections; return how many there were."""
        plane = self.plane
        for count in range(most):
            try:
                fd, address = self.sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - accept() makes three more calls
            except BlockingIOError:
                return count
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self.pause()
                    plane.reactor.call_later(FULL_WAIT_NS, self._go_on)
                return count
            plane.accepted_connection(self.gate, fd, address)
        return most

    def _go_on(self) -> None:
        if not self.plane.closing:
            self.listen()

    def close(self) -> None:
        """Stop accepting and close. Take what waits first: closing resets it."""
        self.pause()
        while self.accept(64):
            continue
        self.sock.close()
