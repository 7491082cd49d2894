"""The body of a client's request on its way to a node, and what else a client sends during its exchange."""

from abc import abstractmethod
from typing import TYPE_CHECKING

from balancer.core.chunked import ChunkFollower
from balancer.core.exchange import Cause, State
from balancer.core.message import Refusal
from balancer.core.retry import IDEMPOTENT
from balancer.net.clientanswer import ClientAnswer
from balancer.net.poller import PEER_CLOSED, READ, WRITE
from balancer.net.stream import Socket

if TYPE_CHECKING:
    from balancer.net.exchange import Exchange
    from balancer.net.plane import Plane

AHEAD_BYTES = 64 << 10  # of pipelined requests that are read ahead


class RequestBody(ClientAnswer):
    """The part of `Downstream` that reads bodies."""

    __slots__ = ("body_began_at", "body_left", "body_paused_at", "body_seen", "follower")

    def __init__(self, worker: "Plane", sock: Socket, fd: int) -> None:
        super().__init__(worker, sock, fd)
        self.body_left = 0  # of a body with Content-Length
        self.follower: ChunkFollower | None = None  # of a chunked one
        self.body_seen = self.body_began_at = self.body_paused_at = 0

    @abstractmethod
    def abort(self, cause: Cause) -> None:
        """See Downstream."""

    def take_body(self, exchange: "Exchange", rest: bytes | memoryview, length: int) -> None:
        """Split what came behind the head into body and what follows."""
        if len(rest) >= length:
            exchange.body = rest[:length]
            self.data = bytes(rest[length:])
        else:
            exchange.body = rest
            exchange.body_open = True
            exchange.hold_body = exchange.method in IDEMPOTENT
            self.body_left = length - len(rest)
            self.follower = None
            self.data = b""
        exchange.request_bytes = len(exchange.body)

    def take_chunks(self, exchange: "Exchange") -> bool:
        """Take the chunks that came with the head into `exchange.body`; False: refused and answered."""
        pieces = self._follow(exchange, self.data)
        if pieces is None:
            return False
        exchange.body = b"".join(pieces)
        exchange.request_bytes = len(exchange.body)
        if not exchange.body_open:
            exchange.body_held = True
        return True

    def _follow(self, exchange: "Exchange", data: bytes) -> "list[bytes] | None":
        """Feed the chunk follower; return our own chunks for the node, or None when it was refused and answered."""
        follower = self.follower
        assert follower is not None
        step = follower.feed(data)
        if isinstance(step, Refusal):
            exchange.answer(Cause.BAD_CHUNK, step.reason)
            return None
        pieces, used = step
        if follower.body_bytes > exchange.site.body_bytes:
            exchange.answer(Cause.TOO_LARGE)
            return None
        out = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
        self.data = b""
        if follower.done:
            out.append(b"0\r\n\r\n")
            self.data = data[used:]
            self.follower = None
            exchange.body_open = False
        return out

    def body_begins(self) -> None:
        """The node is there: read the body now."""
        now = self.reactor.now
        if not self.body_began_at:
            self.body_began_at = now
            self.body_seen = 0
            self.body_paused_at = 0
        self.deadline = now + self.worker.site.body_idle_ns
        self.interest(READ | (self.mask & WRITE))

    def body_may_go_on(self) -> None:
        """The node takes more."""
        if self.body_paused_at:
            self.body_began_at += self.reactor.now - self.body_paused_at  # waiting for the node is not the client's
            self.body_paused_at = 0
        self.deadline = self.reactor.now + self.worker.site.body_idle_ns
        if not self.mask & READ:
            self.interest(self.mask | READ)

    def read_body(self, exchange: "Exchange") -> None:
        """Pass on what has come."""
        reactor = self.reactor
        if exchange.state in (State.CONNECTING, State.DELAYED, State.QUEUED):
            self.hold_input()
            return
        try:
            count = self.recv_into(reactor.buffer)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count == 0:
            self.abort(Cause.CLIENT_LEFT)
            return
        self.body_seen += count
        if exchange.state is State.SENDING:
            self.deadline = reactor.now + self.worker.site.body_idle_ns
        if self.follower is not None:
            pieces = self._follow(exchange, reactor.view[:count].tobytes())
            if pieces is None:
                return
            exchange.pass_body(b"".join(pieces), last=not exchange.body_open)
        else:
            take = min(count, self.body_left)
            self.body_left -= take
            if take < count:
                self.data = reactor.view[take:count].tobytes()
            exchange.pass_body(reactor.view[:take], last=not self.body_left)
        upstream = exchange.upstream
        if exchange.body_open and upstream is not None and upstream.out:
            self.body_paused_at = reactor.now
            self.interest(self.mask & ~READ)
            self.deadline = reactor.now + exchange.target.response_ns
        elif not exchange.body_open:
            self.body_began_at = 0

    def check_rate(self, now: int) -> None:
        """End a body that arrives too slowly."""
        exchange = self.exchange
        if exchange is None or not self.body_began_at or self.body_paused_at or exchange.state is not State.SENDING:
            return
        limits = exchange.site.snapshot.limits
        passed_s = (now - self.body_began_at) / 1e9
        wanted = limits.min_rate_bytes_per_s * passed_s if passed_s > limits.min_rate_after_s else 0
        if self.body_seen < wanted:
            exchange.answer(Cause.BODY_SLOW)

    def hold_input(self) -> None:
        """Read nothing while the exchange waits; a client that leaves is still noticed."""
        self.interest(PEER_CLOSED | (self.mask & WRITE))

    def read_ahead(self, exchange: "Exchange") -> None:
        """The client sends during its exchange: pipelined requests, or its end."""
        if self.lingering >= 0:
            self.throw_away()
            return
        if exchange.state in (State.PARKED, State.QUEUED) or len(self.data) >= AHEAD_BYTES:
            self.hold_input()
            return
        view = self.reactor.view[: AHEAD_BYTES - len(self.data)]
        try:
            count = self.recv_into(view)
        except BlockingIOError:
            return
        except OSError:
            count = 0
            self.abort(Cause.CLIENT_LEFT)
            return
        if count == 0:
            if self.worker.site.snapshot.limits.half_close:
                exchange.close = True
                self.interest(self.mask & ~READ)
            else:
                self.abort(Cause.CLIENT_LEFT)
            return
        self.data += view[:count].tobytes()
