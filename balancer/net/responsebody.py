"""The body of a node's answer on its way to the client: held until it is whole, passed on, or moved by the kernel."""

from abc import abstractmethod
from typing import TYPE_CHECKING

from balancer.core.chunked import ChunkFollower
from balancer.core.exchange import State
from balancer.core.message import Refusal
from balancer.core.retry import Failure
from balancer.net.nodes import NodeState
from balancer.net.pipes import LEAST_BYTES, LEAST_HELD_BYTES, Pipe
from balancer.net.poller import READ, WRITE
from balancer.net.reactor import Reactor
from balancer.net.stream import COPY_BYTES, Socket, Stream

if TYPE_CHECKING:
    from balancer.net.exchange import Exchange

CONNECTING, HANDSHAKE, IDLE, HEAD, HOLD, STREAM = range(6)  # phases of a connection to a node
UNTIL_CLOSE = 1 << 62
CHUNKED_HOLD_NS = 50_000_000  # a chunked answer is held this long for its end, so that a short one is whole or nothing


class ResponseBody(Stream):
    """The part of `Upstream` that reads bodies. `exchange` is the one that the connection works for."""

    __slots__ = ("exchange", "follower", "held", "left", "node", "phase", "pipe", "reusable", "wide")

    def __init__(self, reactor: Reactor, sock: Socket, fd: int, node: NodeState) -> None:
        super().__init__(reactor, sock, fd)
        self.node = node
        self.exchange: Exchange | None = None
        self.phase = CONNECTING
        self.reusable = False
        self.held: list[bytes | memoryview] = []  # of an answer that is held
        self.left = 0  # bytes of the body still to come
        self.follower: ChunkFollower | None = None
        self.pipe: Pipe | None = None  # while the kernel moves the body
        # What is read first of an answer: HEAD_BYTES, or all there is because the last answer was larger than that, or
        # because what TLS has decrypted must not be left behind.
        self.wide = node.tls is not None

    @abstractmethod
    def lost(self) -> None:
        """See Upstream."""

    # --- held or passed on -----------------------------------------------------------------------------------

    def _begin_body(self, first: memoryview, total: int) -> None:
        """Hold a small answer whole, so that a node dying half-way becomes a 502; stream any other."""
        exchange = self.exchange
        assert exchange is not None
        if total <= exchange.site.snapshot.limits.buffered_response_bytes:
            self.phase = HOLD
            exchange.move(State.HOLDING)
            exchange.client.deadline = self.reactor.now + exchange.site.response_idle_ns
            if self.left >= LEAST_HELD_BYTES and len(first) <= COPY_BYTES and not exchange.chunk_out:
                self.pipe = exchange.client.worker.pipes.between(self.sock, exchange.client.sock)
            if self.pipe is not None:
                self.pipe.put(exchange.response_head + first)
                self._hold_in_pipe(self.pipe, exchange, ready=False)  # most often all of it is here
            else:
                self.held = [first.tobytes()] if first else []
                self.wide = True
            return
        self.phase = STREAM
        exchange.stream_head()
        if first:
            self._pass_on(first)

    def _begin_unknown(self, rest: bytes) -> None:
        """A body of unknown length is held only for a moment: its end may come along with the head, or never."""
        exchange = self.exchange
        assert exchange is not None
        self.phase = HOLD
        self.held = []
        exchange.move(State.HOLDING)
        exchange.client.deadline = self.reactor.now + exchange.site.response_idle_ns
        if rest:
            self._hold(memoryview(rest))
        if self.exchange is exchange and self.phase == HOLD:
            self.reactor.call_later(CHUNKED_HOLD_NS, lambda: self._stop_holding(exchange))

    def _stop_holding(self, exchange: "Exchange") -> None:
        if self.exchange is exchange and self.phase == HOLD and not self.closed:
            self._stream_held(exchange)

    def _stream_held(self, exchange: "Exchange") -> None:
        held, self.held = self.held, []
        self.phase = STREAM
        exchange.stream_head()
        for piece in held:
            self._pass_on(memoryview(piece))

    def _hold(self, view: memoryview) -> None:
        exchange = self.exchange
        assert exchange is not None
        pieces = self._content(view)
        if pieces is None:
            return
        if self.left == 0:
            self.held += pieces  # sent at once, so the last of it needs no copy
            self._body_ended()
            return
        self.held += [bytes(piece) for piece in pieces]
        exchange.client.deadline = self.reactor.now + exchange.site.response_idle_ns
        if (
            self.left == UNTIL_CLOSE
            and sum(map(len, self.held)) > exchange.site.snapshot.limits.buffered_response_bytes
        ):
            self._stream_held(exchange)

    def _stream(self, view: memoryview) -> None:
        pieces = self._content(view)
        if pieces is not None:
            for piece in pieces:
                self._pass_on(piece)
            exchange = self.exchange
            if self.closed or exchange is None:
                return
            if self.left == 0:
                self._body_ended()
            elif LEAST_BYTES <= self.left < UNTIL_CLOSE and not exchange.chunk_out:
                # Only now: a first large read opens the kernel's receive window, which spares one splice in eight.
                self.pipe = exchange.client.worker.pipes.between(self.sock, exchange.client.sock)

    def _content(self, view: memoryview) -> "list[memoryview] | list[bytes] | None":
        """Take the body's content out of what was read and count it off; None: the framing is broken."""
        if self.follower is None:
            size = len(view)
            if self.left != UNTIL_CLOSE:
                if size > self.left:
                    view = view[: self.left]
                    size = self.left
                    self.reusable = False
                self.left -= size
            return [view]
        step = self.follower.feed(view.tobytes())
        if isinstance(step, Refusal):
            exchange = self.exchange
            self.close()
            if exchange is not None:
                exchange.node_failed(Failure.PROTOCOL, "protocol", step.reason)
            return None
        pieces, used = step
        if self.follower.done:
            self.left = 0
            if used < len(view):
                self.reusable = False
        return pieces

    def _pass_on(self, piece: "memoryview | bytes") -> None:
        exchange = self.exchange
        if exchange is None or self.closed:
            return
        exchange.response_bytes += len(piece)
        client = exchange.client
        if exchange.chunk_out:
            client.write(b"".join((b"%x\r\n" % len(piece), piece, b"\r\n")))
        else:
            client.write(piece)
        if exchange.done:
            return
        if client.out:
            self.interest(self.mask & ~READ)
            client.deadline = self.reactor.now + exchange.site.send_idle_ns
        else:
            client.deadline = self.reactor.now + exchange.site.response_idle_ns

    def _body_ended(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        if self.phase == HOLD:
            exchange.answer_held(self.held, self.follower)
            self.held = []
        elif exchange.chunk_out:
            exchange.client.write(exchange.last_chunk(self.follower))
        exchange.node_done()

    def may_go_on(self) -> None:
        """The client took all: read on."""
        if self.pipe is not None and self.pipe.held and self.exchange is not None:
            self._let_out(self.pipe, self.exchange)
        elif not self.closed and not self.mask & READ:
            self.interest(self.mask | READ)

    # --- moved by the kernel ---------------------------------------------------------------------------------

    def _splice(self, pipe: Pipe) -> None:
        """Have the kernel move what is there of a long body: a third of the work of copying it."""
        exchange = self.exchange
        assert exchange is not None
        if self.phase == HOLD:
            self._hold_in_pipe(pipe, exchange, ready=True)
            return
        if exchange.client.out or pipe.held:
            self.interest(self.mask & ~READ)  # `may_go_on` comes when the client took it
            return
        try:
            count = pipe.take_in(self.fd, self.left)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self.lost()
            return
        self.left -= count
        exchange.response_bytes += count
        self._let_out(pipe, exchange)

    def _hold_in_pipe(self, pipe: Pipe, exchange: "Exchange", *, ready: bool) -> None:
        """Have the kernel hold a body, behind its head, until it is whole, without its being copied to us and back.

        `ready`: the poller said that there is something.
        """
        try:
            count = pipe.take_in(self.fd, self.left)
        except BlockingIOError:
            if ready:  # the pipe is full: it holds few pieces, and they may be small
                self.pipe = None
                self.held = [pipe.drain()[len(exchange.response_head) :]]
                pipe.give_back()
            return
        except OSError:
            count = 0
        if not count:
            self.lost()
            return
        self.left -= count
        exchange.client.deadline = self.reactor.now + exchange.site.response_idle_ns
        if not self.left:
            self.pipe = None
            exchange.answer_piped(pipe)
            pipe.give_back()
            exchange.node_done()

    @property
    def holds_output(self) -> bool:
        """Whether bytes for the client wait in the pipe."""
        return self.pipe is not None and self.pipe.held > 0 and self.phase == STREAM

    def _let_out(self, pipe: Pipe, exchange: "Exchange") -> None:
        client = exchange.client
        try:
            pipe.let_out(client.fd, more=self.left > 0)
        except OSError as error:
            client.send_failed(error)
            return
        now = self.reactor.now
        if pipe.held:
            client.deadline = now + exchange.site.send_idle_ns
            self.interest(self.mask & ~READ)
            client.interest(client.mask | WRITE)
        elif self.left:
            client.deadline = now + exchange.site.response_idle_ns
            self.interest(self.mask | READ)
        else:
            self.pipe = None
            pipe.give_back()
            self._body_ended()

    def close(self) -> None:
        """See Stream."""
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            pipe.give_back()
        super().close()
