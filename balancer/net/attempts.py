"""What goes wrong with an exchange, and how each one ends: failed attempts, retries, answers of ours, the outcome."""

import json
import random
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from balancer.core.exchange import REASON_PHRASES, STATUS, TEXT, Cause, State
from balancer.core.retry import FailedAttempt, Failure, RetryKind, decide
from balancer.model import Outcome
from balancer.net.nodes import NodeState
from balancer.net.upstream import Upstream
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
    W_RETRIES_CONNECT,
    W_RETRIES_FAILED,
    W_RETRIES_REFUSED,
    W_RETRIES_RESET,
    W_RETRIES_TRUNCATED,
)

if TYPE_CHECKING:
    from balancer.net.downstream import Downstream
    from balancer.net.site import Site, Target

BACKOFF_S, BACKOFF_MAX_S = 0.025, 0.25
_DONE = State.DONE  # a member looked up in its enum costs 90 ns

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


class Attempts(ABC):
    """The state of an exchange, and the part of `Exchange` that deals with failures and ends.

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

    @abstractmethod
    def start(self) -> None:
        """See Exchange."""

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
        if not self.target.retry and failure is not Failure.CONNECT:
            self.give_up(failure, detail)
            return
        verdict = decide(failed, self.site.snapshot.retry, budget_left=True)
        if verdict.costs_budget and not worker.retry_budget.take(client.reactor.now):
            verdict = decide(failed, self.site.snapshot.retry, budget_left=False)
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

    # --- ends ---------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """The node failed inside an answer whose status is with the client: cut there, too."""
        self.complete = True
        self.end(Outcome.NODE_CUT, Cause.NODE_CUT)
        self.client.reset()

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
        retry_after = client.worker.retry_after_s(cause) if status == 503 else None
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

    def id_line(self) -> bytes:
        """Return our request id as a header line."""
        return b"%b%b\r\n" % (self.site.id_line, self.request_id)


def own_answer(exchange: Attempts, status: int, cause: Cause, text: str, retry_after_s: int | None) -> bytes:
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
