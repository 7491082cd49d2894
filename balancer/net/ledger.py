"""What a worker writes down of its exchanges: ledger, statistics, access log, heartbeat."""

from collections.abc import Callable
from typing import Any

from balancer.core.exchange import Cause
from balancer.model import Outcome
from balancer.net.attempts import Attempts
from balancer.net.clock import WallClock
from balancer.net.listener import Gate
from balancer.net.logwriter import LogWriter
from balancer.net.nodes import NodeState, observe, observe_marked
from balancer.net.reactor import HEARTBEAT_NS, Reactor
from balancer.net.site import Target
from balancer.observe.accesslog import Formatter
from balancer.scoreboard import (
    CODES,
    L_DURATION,
    L_REQUESTS,
    METHODS,
    OUTCOME_CELLS,
    R_DURATION,
    R_FAILED,
    ROW_CELLS,
    W_ACCEPTED,
    W_BEAT_NS,
    W_CONNECTIONS_TOTAL,
    W_LOG_DROPPED,
    W_LOG_LINES,
    W_LOOP_LAG_MAX_NS,
    W_LOOPS,
    W_OUT_NODE,
    W_OVERHEAD_HISTOGRAM,
    W_QUEUE_HISTOGRAM,
    W_REQUEST_BYTES,
    W_RESPONSE_BYTES,
    W_RETRIES_RECOVERED,
    WORKERS,
    Scoreboard,
)

METHOD_INDEX = {method.encode(): index for index, method in enumerate(METHODS)}
CODE_INDEX = {code: index for index, code in enumerate(CODES)}
FEW_NODES = 4  # cost as much to write down as one
TALLIES = 16  # of each node are worth a write
TALLIES_NS = 20_000_000  # longer than this none waits
_NODE = Outcome.NODE  # looking a member up in its enum costs 90 ns, hashing one 150
OTHER_METHOD, OTHER_CODE = len(METHODS) - 1, len(CODES) - 1


class Ledger:
    """The part of `Plane` that keeps the books of one worker."""

    def __init__(self, reactor: Reactor, board: Scoreboard, slot: int, log_fd: int) -> None:
        self.reactor = reactor
        self.board = board
        self.cells: memoryview[int] = board.cells
        self.slot = slot
        self.row = WORKERS + slot * ROW_CELLS
        self.clock = WallClock()
        self.log = LogWriter(log_fd)
        self.formatter: Formatter | None = None
        self.gates: dict[int, Gate] = {}
        self.tell_event: Callable[[dict[str, Any]], None] = lambda _event: None
        self.accepted_cell = self.row + W_ACCEPTED
        self._answered_cell = self.row + W_OUT_NODE
        self._next_beat = 0
        self.second = reactor.now // 1_000_000_000  # as of the last beat
        self._unwritten: list[Attempts] = []  # ended in this turn
        # Tallies not written yet.
        self._request_bytes = self._response_bytes = self._connections = 0
        self.tallied: list[NodeState] = []  # nodes with tallies
        self._routed: list[Target] = []
        self.statistics_may_wait = True
        self._ended = self._tallied_at = 0  # exchanges since, and when, they were written last
        self._overheads: list[int] = []
        self._queue_times: list[int] = []

    def accept(self) -> None:
        """Book an exchange as accepted, before anything else is done with it."""
        self.cells[self.accepted_cell] += 1

    def exchange_ended(self, exchange: Attempts) -> None:
        """Book its outcome now; tallies and log line are made at the end of the turn, see `write_down`."""
        self._unwritten.append(exchange)
        if exchange.outcome is _NODE:
            self.cells[self._answered_cell] += 1
        else:
            self.cells[self.row + OUTCOME_CELLS[exchange.outcome]] += 1

    def write_down(self) -> None:
        """Tallies and log lines of the exchanges that ended in this turn.

        Together, because code that just ran is in the processor's caches: docs/decisions/0014.
        """
        ended, self._unwritten = self._unwritten, []
        self._ended += len(ended)
        now, cells, overheads = self.reactor.now, self.cells, self._overheads
        for exchange in ended:
            duration = now - exchange.started_at
            gate = exchange.client.gate
            status = exchange.status
            key = (exchange.method, status)
            codes = gate.codes
            codes[key] = codes.get(key, 0) + 1
            if status != 101:  # a tunnel lasts for as long as somebody wants it: it is no slow answer
                gate.durations.append(duration)
                target = exchange.target
                durations = target.durations
                if durations is not None:
                    if not durations:
                        self._routed.append(target)
                    durations.append(duration)
                    if status >= 500 or exchange.outcome is Outcome.NODE_CUT:
                        cells[target.cell + R_FAILED] += 1
            waited_ns = exchange.waited_ns
            if waited_ns:
                self._queue_times.append(waited_ns)
            if exchange.attempts > 1 and status and exchange.cause is Cause.OK:
                self.count(W_RETRIES_RECOVERED)
            done_at = exchange.done_at
            if done_at:
                # Time in the balancer itself: all but waiting in line and what the node took.
                overheads.append(duration - waited_ns - done_at + exchange.chosen_at)
            self._request_bytes += exchange.request_bytes
            self._response_bytes += exchange.response_bytes
        formatter, clock, add = self.formatter, self.clock, self.log.add
        if formatter is not None:
            for exchange in ended:
                try:
                    add(formatter(exchange, clock, now))
                except Exception as error:  # noqa: BLE001 - as in the reactor's turn
                    exchange.client.broken(error)

    def count(self, cell: int) -> None:
        """Add one to a cell of our row."""
        self.cells[self.row + cell] += 1

    def flush_tallies(self) -> None:
        """Write the statistics, unless they may wait for more: a write costs as much for one exchange as for many."""
        cells, row = self.cells, self.row
        nodes, now = self.tallied, self.reactor.now
        is_little = self._ended < TALLIES * max(FEW_NODES, len(nodes)) and now - self._tallied_at < TALLIES_NS
        if is_little and self.statistics_may_wait:
            self.reactor.want_turn(TALLIES_NS)
            return
        self._ended, self._tallied_at = 0, now
        for node in nodes:
            node.flush_tallies(self.second)
        nodes.clear()
        for gate in self.gates.values():
            if gate.codes:
                if gate.durations:
                    observe_marked(cells, gate.cell + L_DURATION, gate.durations, self.second)
                    gate.durations.clear()
                for (method, status), count in gate.codes.items():
                    index = METHOD_INDEX.get(method, OTHER_METHOD) * len(CODES) + CODE_INDEX.get(status, OTHER_CODE)
                    cells[gate.cell + L_REQUESTS + index] += count
                gate.codes.clear()
        if self._routed:
            for target in self._routed:
                if target.durations:
                    observe_marked(cells, target.cell + R_DURATION, target.durations, self.second)
                    target.durations.clear()
            self._routed.clear()
        if self._overheads:
            observe(cells, row + W_OVERHEAD_HISTOGRAM, self._overheads)
            self._overheads.clear()
        if self._queue_times:
            observe(cells, row + W_QUEUE_HISTOGRAM, self._queue_times)
            self._queue_times.clear()
        if self._request_bytes or self._response_bytes:
            cells[row + W_REQUEST_BYTES] += self._request_bytes
            cells[row + W_RESPONSE_BYTES] += self._response_bytes
            self._request_bytes = self._response_bytes = 0
        if self._connections:
            cells[row + W_CONNECTIONS_TOTAL] += self._connections
            self._connections = 0

    def write_log(self) -> None:
        """Write the lines that are worth it."""
        wait_ns = self.log.write(self.reactor.now)
        if wait_ns:
            self.reactor.want_turn(wait_ns)

    def beat(self, now: int) -> None:
        """Say that this worker is alive, and how it goes."""
        self._next_beat = now + HEARTBEAT_NS
        self.second = now // 1_000_000_000
        cells, row, reactor = self.cells, self.row, self.reactor
        cells[row + W_BEAT_NS] = now
        cells[row + W_LOOPS] += reactor.turns
        reactor.turns = 0
        cells[row + W_LOOP_LAG_MAX_NS] = max(cells[row + W_LOOP_LAG_MAX_NS], reactor.lag_max_ns)
        self.clock.adjust()
        cells[row + W_LOG_LINES] += self.log.take_written()
        dropped = self.log.take_dropped()
        if dropped:
            cells[row + W_LOG_DROPPED] += dropped
            self.tell_event({"type": "event", "kind": "log-full", "dropped": dropped})
