"""Upgraded connections: bytes both ways, half-close kept, ended politely when their node is drained."""

import socket
from typing import TYPE_CHECKING

from balancer.core.exchange import Cause, State
from balancer.core.headers import response_head
from balancer.core.message import ResponseHead
from balancer.core.websocket import CLOSE_TO_CLIENT, CLOSE_TO_NODE, FrameFollower
from balancer.model import Outcome
from balancer.net.poller import READ, WRITE
from balancer.net.stream import READABLE, Stream
from balancer.scoreboard import N_TUNNELS, ROW_CELLS, W_TUNNELS, WORKERS

if TYPE_CHECKING:
    from balancer.net.downstream import Downstream
    from balancer.net.exchange import Exchange
    from balancer.net.plane import Plane
    from balancer.net.upstream import Upstream

LAST_WORDS_NS = 2_000_000_000  # after a Close or half-close the ends have this long


class End(Stream):
    """One side of a tunnel; takes over the socket of a client or node connection."""

    __slots__ = ("ended", "frames", "goodbye", "muted", "other", "passed", "tunnel", "wants_end")

    def __init__(self, tunnel: "Tunnel", old: Stream) -> None:
        super().__init__(old.reactor, old.sock, old.fd)
        self.tunnel = tunnel
        self.other: End = self
        self.ended = False  # it sends no more
        self.passed = 0  # bytes from here to the other end
        self.frames: FrameFollower | None = None  # of a WebSocket: what was read here so far
        self.goodbye = b""  # goes to the other end at the next boundary, and nothing after it
        self.muted = False  # what is read here is thrown away: the other end has had its last word
        self.wants_end = False  # the other end sends no more: half-close once `out` is gone
        self.out = old.out
        self.mask = old.mask
        self.reactor.handlers[self.fd] = self
        old.out = b""
        old.closed = True

    def ready(self, mask: int) -> None:
        """See reactor.Handler."""
        if mask & WRITE:
            self.flush()
        if mask & READABLE and not self.closed and not self.ended:
            self._read()

    def _read(self) -> None:
        reactor = self.reactor
        try:
            count = self.recv_into(reactor.buffer)
        except BlockingIOError:
            return
        except OSError:
            self.tunnel.close(Cause.TUNNEL_CLOSED)
            return
        tunnel = self.tunnel
        if not tunnel.ending:
            tunnel.deadline = reactor.now + tunnel.idle_ns
        if count == 0:
            self.ended = True
            self.interest(self.mask & ~READ)  # level-triggered: the end would be reported for ever
            self.other.finish_sending()
            return
        if self.muted:
            return
        self.passed += count
        view = reactor.view[:count]
        if self.frames is not None:
            boundary = self.frames.feed(view)
            if self.goodbye and boundary >= 0:
                self._last_word(view[:boundary])
                return
        other = self.other
        other.write(view)
        if other.out and not self.closed:
            self.interest(self.mask & ~READ)

    def take_leave(self, goodbye: bytes) -> None:
        """Let the other end have `goodbye` as its last word, between two frames; without one just the end."""
        self.goodbye = goodbye
        if self.frames is None or self.frames.at_boundary:
            self._last_word(b"")

    def _last_word(self, before: "memoryview | bytes") -> None:
        self.muted = True
        other = self.other
        if not other.closed and not other.wants_end:
            if before or self.goodbye:
                other.write(self.goodbye, bytes(before))
            other.finish_sending()

    def finish_sending(self) -> None:
        """Half-close after what is left to send."""
        self.wants_end = True
        if not self.out:
            self._half_close()

    def _half_close(self) -> None:
        if self.closed:
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.tunnel.close(Cause.TUNNEL_CLOSED)
            return
        if self.ended and self.other.wants_end and not self.other.out:
            self.tunnel.close(Cause.TUNNEL_CLOSED)

    def drained(self) -> None:
        """See Stream."""
        if self.wants_end:
            self._half_close()
        elif not self.other.ended:
            self.other.interest(self.other.mask | READ)

    def send_failed(self, error: OSError) -> None:
        """See Stream."""
        self.tunnel.close(Cause.TUNNEL_CLOSED)

    def broken(self, error: Exception) -> None:
        """See reactor.Handler."""
        self.tunnel.close(Cause.TUNNEL_CLOSED)


class Tunnel:
    """Two ends and the exchange that they came from."""

    def __init__(self, exchange: "Exchange", idle_ns: int, *, websocket: bool) -> None:
        self.exchange = exchange
        self.idle_ns = idle_ns
        self.websocket = websocket
        self.deadline = 0
        self.ending = False
        self.down: End
        self.up: End
        self.client: Downstream | None = None

    def say_goodbye(self) -> None:
        """Ask both ends to go: WebSocket Close 1001, or half-close."""
        self.ending = True
        self.deadline = self.up.reactor.now + LAST_WORDS_NS
        self.up.take_leave(CLOSE_TO_CLIENT if self.websocket else b"")
        if not self.exchange.done:
            self.down.take_leave(CLOSE_TO_NODE if self.websocket else b"")

    def close(self, cause: Cause) -> None:
        """Close both ends and book the exchange."""
        if self.exchange.done:
            return
        self.exchange.client.worker.tunnels.closed(self)
        self.down.close()
        self.up.close()
        self.exchange.request_bytes += self.down.passed
        self.exchange.response_bytes += self.up.passed
        self.exchange.end(Outcome.NODE, cause)


class Tunnels:
    """All tunnels of a worker. They are counted apart from the exchanges at a node."""

    def __init__(self, plane: "Plane") -> None:
        self.plane = plane
        self.open_ones: set[Tunnel] = set()
        self._cell = WORKERS + plane.slot * ROW_CELLS + W_TUNNELS

    @property
    def full(self) -> bool:
        """Whether no more may be opened."""
        return len(self.open_ones) >= self.plane.site.snapshot.limits.tunnels

    def open(self, exchange: "Exchange", upstream: "Upstream", head: ResponseHead, rest: bytes) -> None:
        """Turn an exchange into a tunnel: pass the 101 on, then what came behind it."""
        plane, client = self.plane, exchange.client
        exchange.move(State.TUNNEL)
        exchange.downstream = True
        exchange.client.interest(READ | (client.mask & WRITE))
        idle_ns = int(exchange.site.snapshot.timeouts.tunnel_idle_s * 1e9)
        tunnel = Tunnel(exchange, idle_ns, websocket=head.upgrade.lower() == b"websocket")
        node = exchange.node
        assert node is not None
        node.count_answer(101)
        tunnel.deadline = plane.reactor.now + idle_ns
        framing = b"Connection: upgrade\r\nUpgrade: %b\r\n" % head.upgrade
        first_up, client.data = client.data, b""
        tunnel.down, tunnel.up = End(tunnel, client), End(tunnel, upstream)
        tunnel.down.other, tunnel.up.other = tunnel.up, tunnel.down
        if tunnel.websocket:
            tunnel.down.frames, tunnel.up.frames = FrameFollower(), FrameFollower()
            tunnel.up.frames.feed(rest)
            tunnel.down.frames.feed(first_up)
        exchange.upstream = None
        plane.connection_became_tunnel(client)
        self.open_ones.add(tunnel)
        plane.cells[self._cell] += 1
        plane.cells[node.cell + N_TUNNELS] += 1
        exchange.tunnel_node = node
        exchange.release()
        if tunnel.down.write(rest, response_head(head, exchange.site.rules, exchange.request_id, framing)) and first_up:
            tunnel.up.write(first_up)
        if not exchange.done:
            tunnel.up.interest(READ | (tunnel.up.mask & WRITE))

    def closed(self, tunnel: Tunnel) -> None:
        """Count it off."""
        if tunnel in self.open_ones:
            self.open_ones.discard(tunnel)
            cells = self.plane.cells
            cells[self._cell] -= 1
            node = tunnel.exchange.tunnel_node
            if node is not None:
                cells[node.cell + N_TUNNELS] -= 1
            self.plane.tunnel_ended()

    def sweep(self, now: int) -> None:
        """End idle ones, and those whose node is wanted empty, after their grace."""
        for tunnel in list(self.open_ones):
            if now >= tunnel.deadline:
                tunnel.close(Cause.TUNNEL_IDLE)
            elif not tunnel.ending and self._must_end(tunnel, now):
                tunnel.say_goodbye()

    def _must_end(self, tunnel: Tunnel, now: int) -> bool:
        node = tunnel.exchange.tunnel_node
        ends = [self.plane.tunnels_end_at, node.tunnels_end_at if node is not None else 0]
        return any(end and now >= end for end in ends)
