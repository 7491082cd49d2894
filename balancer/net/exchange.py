"""One request and its response: choosing a node, attempts, retries, and the one outcome."""

import random
import sys
from typing import TYPE_CHECKING

from balancer.core.exchange import NO_ANSWER, Cause, State, may_follow
from balancer.core.headers import response_head
from balancer.core.message import ResponseHead
from balancer.core.retry import FRESH_IDLE_S, IDEMPOTENT, Failure
from balancer.net.attempts import Attempts
from balancer.net.nodes import NodeState
from balancer.net.pipes import Pipe
from balancer.net.poller import READ
from balancer.net.responsebody import HEAD, IDLE
from balancer.net.stream import COPY_BYTES
from balancer.net.upstream import Upstream

if TYPE_CHECKING:
    from balancer.core.chunked import ChunkFollower

HELD_BODY_BYTES = 64 << 10  # of a request body, kept so that an idempotent request can be repeated
FRESH_IDLE_NS = int(FRESH_IDLE_S * 1e9)
_WAITING = State.WAITING  # a member looked up in its enum costs 90 ns
CLIENT_LEFT = 499  # status in the log and the metrics of an exchange whose client left without an answer
_random = random.random


class Exchange(Attempts):
    """One exchange: from a request that was understood to its answer or its end."""

    # --- choosing -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Choose a node and go, or wait."""
        target, site, worker = self.target, self.site, self.client.worker
        now = self.client.reactor.now
        if site.pause_until and target.park and now < site.pause_until:  # `Site.paused` by hand: 50 ns a request
            worker.lot.park(self, "paused")
            return
        if worker.waiting and worker.queue.exchanges and not self.ticket:
            worker.queue.enqueue(self)
            return
        chooser = target.chooser
        if chooser is None or now >= chooser.refresh_at_ns:
            node = site.choose(target, self.tried, self.key, now)
        else:
            slot = chooser.choose(self.tried, self.key, _random)
            node = None if slot is None else site.nodes[slot]
        if node is None:
            self._cannot_go()
            return
        if node.node.capacity:
            if not worker.claims.take(node):
                self._cannot_go()
                return
        else:  # `Claims.take` by hand
            node.cells[node.in_flight] += 1
        for told in node.choosers:
            told.claimed(node.slot)
        self.node = node
        self.chosen_at = now
        pool = node.pool
        if pool and not self.fresh and (now - pool[-1].idle_since < FRESH_IDLE_NS or self.method in IDEMPOTENT):
            connection = pool.pop()  # the rule is retry.may_use_kept_connection
            node.reuses += 1
            self.connected_at = now
            if self.body or self.body_open or self.held_body is not None:
                self.connected(connection)
                return
            # `connected` and `Upstream.begin` by hand for a request without a body.
            self.state = _WAITING
            self.upstream = connection
            client = self.client
            client.deadline = now + target.response_ns
            connection.exchange = self
            connection.phase = HEAD
            connection.out = self.head
            client.reactor.sends.append(connection)
            return
        self._connect(node)

    def _cannot_go(self) -> None:
        """No node can take it now: full nodes mean the queue, no node at all the parking lot."""
        worker = self.client.worker
        if any(node.slot not in self.tried for node in self.target.serving):
            worker.queue.enqueue(self)
        elif self.target.park and not self.downstream:
            self.tried = frozenset()
            worker.lot.park(self, "all-down")
        else:
            self.answer(Cause.NO_NODE)

    def _connect(self, node: NodeState) -> None:
        self.move(State.CONNECTING)
        client = self.client
        client.deadline = client.reactor.now + self.site.connect_ns
        connection = Upstream.connect(client.reactor, node, self)
        if connection is None:
            self.connect_failed("refused")
            return
        self.upstream = connection
        if connection.phase == 2:  # connected at once (Unix)
            self.connected(connection)

    def connected(self, connection: Upstream) -> None:
        """Send the request on `connection`."""
        client = self.client
        now = client.reactor.now
        self.upstream = connection
        if not self.connected_at:
            self.connected_at = now
        client.deadline = now + self.target.response_ns
        if self.body_open or self.expects_continue:
            self._begin_body()
        else:
            self.move(_WAITING)
        body = self.body if self.held_body is None else b"".join((self.body, *self.held_body))
        if not body:
            connection.begin(self, self.head)
        elif isinstance(body, bytes):
            connection.begin(self, self.head + body)
        else:
            connection.begin_at_once(self, self.head, body)

    def _begin_body(self) -> None:
        self.move(State.SENDING)
        client = self.client
        if self.expects_continue:
            self.expects_continue = False
            client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.body_begins()

    # --- the body goes up -----------------------------------------------------------------------------------------

    def pass_body(self, data: "memoryview | bytes", *, last: bool) -> None:
        """Pass on a piece of the body."""
        upstream = self.upstream
        size = len(data)
        self.request_bytes += size
        if self.body_held and size:
            if self.hold_body and self.request_bytes <= HELD_BODY_BYTES:
                held = self.held_body
                if held is None:
                    held = self.held_body = []
                held.append(bytes(data))
            else:
                self.body_held = False
                self.held_body = None
        if last:
            self.body_open = False
            if self.state is State.SENDING:
                self.move(State.WAITING)
                self.client.deadline = self.client.reactor.now + self.target.response_ns
        if upstream is not None and size and not upstream.closed:
            upstream.write(data)

    # --- the answer ---------------------------------------------------------------------------------------------

    def ending(self, *, kept_id: bool) -> bytes:
        """Return the last lines of an ordinary answer's head."""
        if self.body_open:
            self.close = True
        if self.close:
            return b"Connection: close\r\n\r\n" if kept_id else self.id_line() + b"Connection: close\r\n\r\n"
        return b"\r\n" if kept_id else self.id_line() + b"\r\n"

    def framing_of(self, head: ResponseHead) -> bytes:
        """Return the lines that state framing and the connection's fate, and decide on chunking."""
        if self.body_open:
            self.close = True
        lines = b""
        unknown = head.chunked or head.content_length is None
        self.chunk_out = unknown and self.http11
        if unknown and not self.http11:
            self.close = True  # HTTP/1.0 knows no chunks: the end of the connection is the end of the body
        if self.chunk_out:
            lines = b"Transfer-Encoding: chunked\r\n"
        if self.close:
            return lines + b"Connection: close\r\n"
        return lines if self.http11 else lines + b"Connection: keep-alive\r\n"

    def interim(self, head: ResponseHead) -> None:
        """Pass a 1xx on; 100 is answered by us already, and HTTP/1.0 knows none."""
        if head.status == 100 or not self.http11:
            return
        self.client.write(response_head(head, self.site.rules, self.request_id, b""))

    def stream_head(self) -> None:
        """Send the head; from here on nothing can be taken back."""
        self.move(State.STREAMING)
        self.downstream = True
        head, self.response_head = self.response_head, b""
        self.client.deadline = self.client.reactor.now + self.site.response_idle_ns
        self.client.write(head)

    def answer_held(self, pieces: "list[bytes | memoryview]", follower: "ChunkFollower | None") -> None:
        """Send a whole answer. The pieces may lie in the receive buffer."""
        size = sum(map(len, pieces))
        self.response_bytes += size
        if self.chunk_out:
            if size:
                pieces = [b"%x\r\n" % size, *pieces, b"\r\n"]
            pieces = [*pieces, self.last_chunk(follower)]
        if size <= COPY_BYTES:
            self.client.respond(b"".join((self.response_head, *pieces)))
        else:
            self.client.respond_pieces([self.response_head, *pieces])

    def answer_piped(self, pipe: Pipe) -> None:
        """Send a whole answer that is in a pipe."""
        self.response_bytes += pipe.held - len(self.response_head)
        self.client.respond_piped(pipe)

    def last_chunk(self, follower: "ChunkFollower | None") -> bytes:
        """Return the last chunk, with the trailers that are allowed if the client takes them."""
        if follower is None or not follower.trailers or not self.te_trailers:
            return b"0\r\n\r\n"
        return b"0\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % item[1:] for item in follower.trailers)

    def switch_protocols(self, upstream: Upstream, head: ResponseHead, rest: bytes) -> None:
        """The node agreed to an upgrade, or claims to."""
        wanted = {part.strip().lower() for part in self.upgrade.split(b",")}
        if not self.upgrade or head.upgrade.lower() not in wanted:
            upstream.close()
            self.node_failed(Failure.PROTOCOL, "protocol", "101 without a matching Upgrade")
            return
        self.status = 101
        self.first_byte_at = self.client.reactor.now
        self.client.worker.tunnels.open(self, upstream, head, rest)

    def node_done(self) -> None:
        """The node's answer is here, whole: give the node back and end when the client has it."""
        if self.done:  # the client left while the last of it was sent; the node was given back then
            return
        node, upstream = self.node, self.upstream
        assert node is not None
        assert upstream is not None
        client = self.client
        now = client.reactor.now
        self.upstream = None
        status = self.status
        if 200 <= status < 300:
            node.ok_attempts += 1
        else:
            node.count_answer(status)
        self.done_at = now
        durations = node.durations
        if not durations:
            client.worker.tallied.append(node)
        durations.append(now - self.chosen_at)
        node.first_bytes.append(self.first_byte_at - self.chosen_at)
        if upstream.reusable and not self.body_open and not upstream.out and node.pool_open:
            upstream.exchange = None
            upstream.phase = IDLE
            upstream.idle_since = now
            if upstream.mask != READ:
                upstream.interest(READ)
            node.pool.append(upstream)
        else:
            upstream.close()
        if node.node.capacity:
            self.release()
        else:  # `release` and `Claims.give` by hand
            self.node = None
            self.last_node = node.name
            worker = client.worker
            node.cells[node.in_flight] -= 1
            slot = node.slot
            for chooser in node.choosers:
                chooser.released(slot)
            if worker.waiting and worker.queue.exchanges:
                worker.queue.wake_soon()
        self.complete = True
        if not client.out:
            client.exchange_over()

    def client_left(self, cause: Cause = Cause.CLIENT_LEFT) -> None:
        """The client is gone; nobody needs the answer."""
        if not self.done:
            worker = self.client.worker
            if not worker.lot.leave(self):
                worker.queue.leave(self)
            self.abandon_node()
            self.status = self.status if self.downstream else CLIENT_LEFT
            self.end(NO_ANSWER[cause], cause)

    def expired(self) -> None:
        """Its deadline passed; what that means depends on where it is."""
        worker = self.client.worker
        match self.state:
            case State.PARKED:
                worker.lot.expired(self)
            case State.QUEUED:
                worker.queue.expired(self)
            case State.CONNECTING:
                if self.upstream is not None:
                    self.upstream.close()
                self.connect_failed("timeout")
            case State.SENDING if self.upstream is None or not self.upstream.out:
                self.answer(Cause.BODY_TIMEOUT)
            case State.SENDING | State.WAITING | State.HOLDING:
                if self.upstream is not None:
                    self.upstream.close()
                self.node_failed(Failure.TIMEOUT, "timeout")
            case State.STREAMING | State.ANSWERING:
                upstream = self.upstream
                stalled = bool(self.client.out) or (upstream is not None and upstream.holds_output)
                self.abandon_node()
                cause = Cause.CLIENT_STALLED if stalled else Cause.NODE_STALLED
                self.end(NO_ANSWER[cause], cause)
                self.client.reset()
            case _:
                self.client.deadline = self.client.reactor.now + self.site.connect_ns


class CheckedExchange(Exchange):
    """With `-X dev`, in all tests: every transition must be in the table of `core.exchange`."""

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute."""
        if (
            name == "state"
            and isinstance(value, State)
            and value is not self.state
            and not may_follow(self.state, value)
        ):
            raise RuntimeError(f"an exchange went from {self.state.name} to {value.name}")
        super().__setattr__(name, value)


_ORDINARY = (
    *("client", "site", "method", "path", "host", "agent", "started_at", "target", "request_id", "head"),
    *("node", "chosen_at", "connected_at", "state", "upstream", "body", "request_bytes", "sent_bytes"),
    *("status", "first_byte_at", "response_bytes", "response_head", "downstream", "done_at", "last_node", "complete"),
    *("done", "outcome", "cause"),
)


def share_keys() -> None:
    """Have CPython lay out all exchanges for the attributes that ordinary ones have, before there is any.

    It takes the layout (at most 29 names) from the first instances; with many made at once before one is filled it
    takes too few, and each exchange gets a dictionary of its own: 0.4 us.
    """
    exchange = Exchange()
    for name in _ORDINARY:
        setattr(exchange, name, None)


share_keys()
make_exchange = CheckedExchange if sys.flags.dev_mode else Exchange
