"""One request and its response: choosing a node, attempts, retries, and the one outcome."""

import json
import random
import sys
from typing import TYPE_CHECKING

from balancer.core.exchange import NO_ANSWER, REASON_PHRASES, STATUS, TEXT, Cause, State, may_follow
from balancer.core.headers import response_head
from balancer.core.message import ResponseHead
from balancer.core.retry import FRESH_IDLE_S, IDEMPOTENT, FailedAttempt, Failure, RetryKind, decide
from balancer.model import Outcome
from balancer.net.nodes import NodeState
from balancer.net.pipes import Pipe
from balancer.net.stream import COPY_BYTES
from balancer.net.upstream import HEAD, Upstream
from balancer.scoreboard import (
    N_PROTOCOL,
    N_REFUSED,
    N_REFUSED_NS,
    N_RESET,
    N_SHORT_BODY,
    N_TIMEOUT,
    N_TLS,
    REJECT_REASONS,
    W_REJECTED,
    W_RETRIES_BUDGETED,
    W_RETRIES_CONNECT,
    W_RETRIES_FAILED,
    W_RETRIES_REFUSED,
    W_RETRIES_RESET,
    W_RETRIES_TRUNCATED,
)

if TYPE_CHECKING:
    from balancer.core.chunked import ChunkFollower
    from balancer.net.downstream import Downstream
    from balancer.net.site import Site, Target

HELD_BODY_BYTES = 64 << 10  # of a request body, kept so that an idempotent request can be repeated
FRESH_IDLE_NS = int(FRESH_IDLE_S * 1e9)
_WAITING, _DONE = State.WAITING, State.DONE  # a member looked up in its enum costs 90 ns
_random = random.random
CLIENT_LEFT = 499  # status in the log and the metrics of an exchange whose client left without an answer
BACKOFF_S, BACKOFF_MAX_S = 0.025, 0.25

_NODE_ERROR = {
    Failure.CONNECT: N_REFUSED,
    Failure.RESET: N_RESET,
    Failure.TRUNCATED: N_SHORT_BODY,
    Failure.PROTOCOL: N_PROTOCOL,
    Failure.TIMEOUT: N_TIMEOUT,
}
_CAUSE = {
    Failure.CONNECT: Cause.NODE_REFUSED,
    Failure.RESET: Cause.NODE_RESET,
    Failure.TRUNCATED: Cause.NODE_TRUNCATED,
    Failure.PROTOCOL: Cause.NODE_PROTOCOL,
    Failure.TIMEOUT: Cause.NODE_TIMEOUT,
}
_RETRY_CELL = {
    Failure.CONNECT: W_RETRIES_CONNECT,
    Failure.RESET: W_RETRIES_RESET,
    Failure.TRUNCATED: W_RETRIES_TRUNCATED,
}
_REJECTED = {
    Cause.NO_NODE: "no_node",
    Cause.QUEUE_FULL: "queue_full",
    Cause.QUEUE_TIMEOUT: "queue_timeout",
    Cause.PAUSED: "paused",
    Cause.PARK_FULL: "park_full",
    Cause.PARK_TIMEOUT: "park_timeout",
    Cause.TOO_LARGE: "too_large",
    Cause.MALFORMED: "malformed",
    Cause.BAD_CHUNK: "malformed",
    Cause.PLAIN_ON_TLS: "malformed",
    Cause.EXPECTATION: "malformed",
    Cause.NOT_SERVED: "not_found",
    Cause.HEADER_TIMEOUT: "timeout",
    Cause.BODY_TIMEOUT: "timeout",
    Cause.BODY_SLOW: "timeout",
    Cause.TUNNELS_FULL: "tunnels_full",
    Cause.CONNECTIONS_FULL: "connections_full",
}


class Exchange:
    """The state of one exchange.

    What an ordinary one never touches are class attributes, so that making one costs only the stores it needs (no
    __slots__ for this reason: 0.5 us against 0.9 us with all of them set).
    """

    # --- set for every exchange by Downstream
    client: "Downstream"
    site: "Site"
    target: "Target"
    method: bytes
    path: bytes
    host: bytes
    agent = b""
    request_id: bytes
    head: bytes  # for the node, whole
    started_at: int

    # --- the request
    http11 = True
    close = False  # the client's connection ends with this exchange
    body: bytes | memoryview = b""  # what of the body came with the head
    body_open = False  # more of the body is to come from the client
    expects_continue = False
    upgrade = b""
    te_trailers = False
    key: bytes | None = None
    client_address = ""
    request_bytes = 0
    held_body: "list[bytes] | None" = None  # passed on and held for another attempt
    body_held = True
    hold_body = False

    # --- attempts
    state = State.READING
    node: NodeState | None = None
    upstream: Upstream | None = None
    tried: frozenset[int] = frozenset()
    attempts = 1
    retries = 0
    history = b""  # "n1:refused,n2:200"
    retry_reason = ""
    fresh = False  # the next attempt uses a new connection
    sent_bytes = 0
    chosen_at = 0
    connected_at = 0
    waited_since = 0
    waited_ns = 0
    ticket = 0
    why = ""
    parked_as = ("", 0)  # address and bytes that it was counted under
    tunnel_node: NodeState | None = None
    last_node = b""

    # --- the answer
    status = 0
    first_byte_at = 0
    done_at = 0  # the node's part was over
    response_head = b""
    response_bytes = 0
    chunk_out = False
    downstream = False  # a byte of the answer went to the client
    complete = False  # the answer is made; what is left is in the client's `out`
    done = False
    outcome = Outcome.NODE
    cause = Cause.OK

    # --- choosing -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Choose a node and go, or wait."""
        target, site, worker = self.target, self.site, self.client.worker
        now = self.client.reactor.now
        if site.pause_until and target.park and now < site.pause_until:
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
            cells = node.cells
            cells[node.in_flight] += 1
            cells[worker.claims.busy] += 1
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

    def id_line(self) -> bytes:
        """Return our request id as a header line."""
        return b"%b%b\r\n" % (self.site.id_line, self.request_id)

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

    def answer_piped(self, first: bytes, pipe: Pipe) -> None:
        """Send a whole answer whose body goes on in a pipe."""
        self.response_bytes += len(first) + pipe.held
        self.client.respond_piped(self.response_head + first, pipe)

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

    def node_done(self, upstream: Upstream) -> None:
        """The node's answer is here, whole: give the node back and end when the client has it."""
        if self.done:  # the client left while the last of it was sent; the node was given back then
            return
        node = self.node
        assert node is not None
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
            upstream.rest_idle()
        else:
            upstream.close()
        if node.node.capacity:
            self.release()
        else:  # `release` and `Claims.give` by hand
            self.node = None
            self.last_node = node.name
            worker = client.worker
            cells = node.cells
            cells[node.in_flight] -= 1
            cells[worker.claims.busy] -= 1
            slot = node.slot
            for chooser in node.choosers:
                chooser.released(slot)
            if worker.waiting and worker.queue.exchanges:
                worker.queue.wake_soon()
        self.complete = True
        if not client.out:
            client.exchange_over()

    def release(self) -> None:
        """Give the claim back."""
        node = self.node
        if node is not None:
            self.node = None
            worker = self.client.worker
            self.last_node = node.name
            worker.claims.give(node)
            for chooser in node.choosers:
                chooser.released(node.slot)
            if worker.queue.exchanges:
                worker.queue.wake_soon()

    # --- failures -----------------------------------------------------------------------------------------------

    def connect_failed(self, word: str) -> None:
        """No connection came about."""
        node = self.node
        assert node is not None
        worker = self.client.worker
        now = self.client.reactor.now
        if word == "refused":
            node.cells[node.cell + N_REFUSED_NS] = now
        node.eject(now)
        worker.health_changed()
        worker.tell_event({"type": "event", "kind": "node-refused", "node": node.node.name, "error": word})
        if word == "tls":
            node.count(N_TLS)
        elif word == "timeout":
            node.count(N_TIMEOUT)
        else:
            node.count(N_REFUSED)
        self._attempt_failed(Failure.CONNECT, word)

    def node_failed(self, failure: Failure, word: str, detail: str = "") -> None:
        """The attempt on an open connection failed; the connection is closed already."""
        if self.done:
            return
        node = self.node
        assert node is not None
        worker = self.client.worker
        reused = self.upstream is not None and self.upstream.reused
        node.count(_NODE_ERROR[failure])
        if failure is Failure.RESET and not reused:
            worker.tell_event({"type": "event", "kind": "node-reset", "node": node.node.name})
            if node.verdict_is_stale(self.client.reactor.now, self.site.interval_ns):
                node.eject(self.client.reactor.now)
                worker.health_changed()
        self._attempt_failed(failure, word, detail)

    def _attempt_failed(self, failure: Failure, word: str, detail: str = "") -> None:
        node, client = self.node, self.client
        assert node is not None
        worker = client.worker
        upstream, self.upstream = self.upstream, None
        self._note(node, word)
        reused = upstream is not None and upstream.reused
        sent = failure is not Failure.CONNECT and (self.sent_bytes > 0 or not (upstream is not None and upstream.out))
        self.release()
        if self.downstream:
            self.cut()
            return
        self.tried |= {node.slot}
        others = any(other.slot not in self.tried for other in self.target.serving)
        failed = FailedAttempt(
            failure, self.method, sent, self.downstream, self.body_held, reused, self.retries, others
        )
        verdict = decide(failed, self.site.snapshot.retry, budget_left=worker.may_retry())
        if not self.target.retry and failure is not Failure.CONNECT:
            self.give_up(failure, detail)
            return
        match verdict.kind:
            case RetryKind.GIVE_UP:
                if failure is Failure.CONNECT and not others and self.target.park and self.retries < 8:
                    # Nobody is there: nothing was sent, so it can wait for a node like any other.
                    self.retries += 1
                    self.tried = frozenset()
                    self._again(0)
                else:
                    worker.count(W_RETRIES_REFUSED)
                    self.give_up(failure, detail)
            case RetryKind.SAME_NODE_FRESH:
                self.tried -= {node.slot}
                self.fresh = True
                self._count_retry(failure)
                self._again(0)
            case RetryKind.OTHER_NODE:
                self.retries += 1
                if verdict.costs_budget:
                    worker.count(W_RETRIES_BUDGETED)
                self._count_retry(failure)
                first = failure is Failure.CONNECT and self.retries == 1
                limit_s = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** (self.retries - 1))
                self._again(0 if first else int(random.random() * limit_s * 1e9))

    def _count_retry(self, failure: Failure) -> None:
        self.attempts += 1
        self.retry_reason = failure.value
        cell = _RETRY_CELL.get(failure)
        if cell is not None:
            self.client.worker.count(cell)

    def _again(self, delay_ns: int) -> None:
        """Make another attempt, after a moment. Nothing of the failed one is left."""
        self.status = self.first_byte_at = self.connected_at = self.sent_bytes = self.done_at = 0
        self.response_head = b""
        self.response_bytes = 0
        self.chunk_out = False
        self.move(State.DELAYED)
        self.client.hold_input()
        reactor = self.client.reactor
        self.client.deadline = reactor.now + self.site.connect_ns
        if delay_ns:
            reactor.call_later(delay_ns, self._restart)
        else:
            reactor.again.append(self._restart)

    def _restart(self) -> None:
        if not self.done and self.state is State.DELAYED:
            self.start()

    def _note(self, node: NodeState, word: str) -> None:
        entry = b"%b:%b" % (node.name, word.encode())
        self.history = self.history + b"," + entry if self.history else entry

    def give_up(self, failure: Failure, detail: str = "") -> None:
        """Answer for the node."""
        if self.attempts > 1:
            self.client.worker.count(W_RETRIES_FAILED)
        self.answer(_CAUSE[failure], detail)

    def cut(self) -> None:
        """The node failed inside an answer whose status is with the client: cut there, too."""
        self.complete = True
        self.end(Outcome.NODE_CUT, Cause.NODE_CUT)
        self.client.reset()

    # --- ends ---------------------------------------------------------------------------------------------------

    def answer(self, cause: Cause, detail: str = "", status: int = 0) -> None:
        """Answer ourselves."""
        self.abandon_node()
        client = self.client
        self.status = status = status or STATUS[cause]
        self.outcome, self.cause = Outcome.US, cause
        if self.body_open or self.upgrade or status in (400, 408, 413, 414, 431, 501, 505):
            self.close = True
        reason = _REJECTED.get(cause)
        if reason is not None:
            client.worker.count(W_REJECTED + REJECT_REASONS.index(reason))
        retry_after = client.worker.retry_after_s(cause, self) if status == 503 else None
        text = own_answer(self, status, cause, detail or TEXT.get(cause, ""), retry_after)
        self.complete = True
        self.move(State.ANSWERING)
        client.respond(text)

    def abandon_node(self) -> None:
        """Drop the attempt that is under way."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.exchange = None
            upstream.close()
        if self.node is not None:
            self._note(self.node, "dropped")
            self.release()

    def client_left(self, cause: Cause = Cause.CLIENT_LEFT) -> None:
        """The client is gone; nobody needs the answer."""
        if not self.done:
            worker = self.client.worker
            if not worker.lot.leave(self):
                worker.queue.leave(self)
            self.abandon_node()
            self.status = self.status if self.downstream else CLIENT_LEFT
            self.end(NO_ANSWER[cause], cause)

    def end(self, outcome: Outcome, cause: Cause) -> None:
        """Book the outcome. Nothing may follow."""
        if self.done:
            return
        self.done = True
        self.move(_DONE)
        self.outcome, self.cause = outcome, cause
        self.client.worker.exchange_ended(self)

    def move(self, state: State) -> None:
        """Go to another state."""
        self.state = state

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


def own_answer(exchange: Exchange, status: int, cause: Cause, text: str, retry_after_s: int | None) -> bytes:
    """Return a whole answer of ours: JSON with the error and the request id."""
    body = json.dumps({"errors": [text], "request_id": exchange.request_id.decode("latin-1")}).encode() + b"\n"
    lines = [
        b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        % (status, REASON_PHRASES.get(status, b"Error"), len(body)),
        b"X-Arv-Balance: %b\r\n" % cause.encode(),
        exchange.id_line(),
    ]
    if retry_after_s is not None:
        lines.append(b"Retry-After: %d\r\n" % retry_after_s)
    if exchange.close:
        lines.append(b"Connection: close\r\n")
    elif not exchange.http11:
        lines.append(b"Connection: keep-alive\r\n")
    exchange.response_bytes = 0 if exchange.method == b"HEAD" else len(body)
    return b"".join((*lines, b"\r\n", b"" if exchange.method == b"HEAD" else body))
