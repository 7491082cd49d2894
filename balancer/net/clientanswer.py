"""Answers on their way to a client, and the polite end of its connection."""

import socket
from abc import abstractmethod
from typing import TYPE_CHECKING

from balancer.core.exchange import State
from balancer.net.pipes import Pipe
from balancer.net.poller import READ, WRITE
from balancer.net.stream import Socket, Stream

if TYPE_CHECKING:
    from balancer.net.exchange import Exchange
    from balancer.net.plane import Plane

MOST_PIECES = 64  # in one sendmsg; the kernel takes 1024
LINGER_NS = 2_000_000_000
LINGER_BYTES = 1 << 20


class ClientAnswer(Stream):
    """The part of `Downstream` that sends answers."""

    __slots__ = ("data", "deadline", "exchange", "is_ordinary", "lingering", "worker")

    def __init__(self, worker: "Plane", sock: Socket, fd: int) -> None:
        super().__init__(worker.reactor, sock, fd)
        self.worker = worker
        self.data = b""  # received and not yet understood
        self.exchange: Exchange | None = None
        self.deadline = self.reactor.now + worker.site.header_ns
        self.is_ordinary = True  # what is read next is no more than a head: the last request had less than HEAD_BYTES
        self.lingering = -1  # bytes that may still be thrown away; -1: not ending

    @abstractmethod
    def exchange_over(self) -> None:
        """See Downstream."""

    def respond(self, data: bytes) -> None:
        """Send a whole answer in phase two of this turn."""
        exchange = self.exchange
        if exchange is not None:
            exchange.downstream = True
        if self.out:
            self.out += data
        else:
            self.out = data
            self.reactor.sends.append(self)
        if exchange is not None:
            self.deadline = self.reactor.now + exchange.site.send_idle_ns

    def respond_now(self, head: bytes, body: memoryview) -> None:
        """Send a whole answer whose body lies in the receive buffer."""
        exchange = self.exchange
        if exchange is not None:
            exchange.downstream = True
            self.deadline = self.reactor.now + exchange.site.send_idle_ns
        self.write(body, head)

    def respond_pieces(self, pieces: "list[bytes | memoryview]") -> None:
        """Send a whole answer that lies in several pieces without copying them together first."""
        exchange = self.exchange
        if self.closed or self.out or len(pieces) > MOST_PIECES:
            self.respond(b"".join(pieces))
            return
        if exchange is not None:
            exchange.downstream = True
            self.deadline = self.reactor.now + exchange.site.send_idle_ns
        try:
            sent = self.sock.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.send_failed(error)
            return
        if sent != sum(map(len, pieces)):
            self.out = b"".join(pieces)[sent:]
            self.interest(self.mask | WRITE)

    def respond_piped(self, pipe: Pipe) -> None:
        """Send a whole answer that is in a pipe. What the client does not take at once is copied out of that."""
        exchange = self.exchange
        if self.closed:
            return
        if exchange is not None:
            exchange.downstream = True
            self.deadline = self.reactor.now + exchange.site.send_idle_ns
        try:
            if not self.out:
                pipe.let_out(self.fd, more=False)
        except OSError as error:
            self.send_failed(error)
            return
        if pipe.held:
            self.out += pipe.drain()
            self.interest(self.mask | WRITE)

    def flush(self) -> None:
        """See Stream; the ordinary end of an exchange by hand: its small answer goes whole."""
        exchange = self.exchange
        out = self.out
        if exchange is None or not exchange.complete or self.mask != READ or not out or self.closed:
            super().flush()
            return
        try:
            sent = self.send_once(out)
        except OSError:
            sent = 0  # it is full or broken: the general way finds out again
        if sent == len(out):
            self.out = b""
            self.exchange_over()
            return
        self.out = out[sent:]
        self.progressed(sent)
        super().flush()

    def drained(self) -> None:
        """See Stream."""
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.complete:
            self.exchange_over()
        elif exchange.upstream is not None:
            if exchange.state is State.STREAMING:
                self.deadline = self.reactor.now + exchange.site.response_idle_ns
            exchange.upstream.may_go_on()

    def progressed(self, sent: int) -> None:
        """See Stream: a client that takes something is not stalled."""
        if sent and self.exchange is not None:
            self.deadline = self.reactor.now + self.exchange.site.send_idle_ns

    def linger(self) -> None:
        """Say that nothing more comes, and throw away what still arrives for a moment."""
        self.lingering = LINGER_BYTES
        self.is_ordinary = False
        self.data = b""
        self.deadline = self.reactor.now + LINGER_NS
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.interest(READ)

    def throw_away(self) -> None:
        """Take what still comes, within limits."""
        try:
            count = self.recv_into(self.reactor.buffer)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        self.lingering -= count
        if count == 0 or self.lingering < 0:
            self.close()
