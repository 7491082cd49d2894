"""Shared memory of all processes: one memfd of aligned 64-bit cells, each with exactly one writer.

Workers write their own row, the control process its own block, the parent a dead worker's row. A cell is read
and written whole (one aligned 8-byte copy), so readers need no lock; two cells together are never consistent
by themselves, which is why the ledger writes `ACCEPTED` first and an outcome last.

The byte path indexes `cells` with the offsets below instead of calling methods: one `cells[i] += 1` is about
60 ns, a method call twice that.
"""

import mmap
import os
from dataclasses import dataclass

from balancer.errors import StateError
from balancer.model import Outcome

MAGIC = 0x4152562D_42414C33  # "ARV-BAL3"; a changed layout gets another number, so that nobody adopts it
MAX_WORKERS = 64
MAX_NODES = 256
MAX_LISTENERS = 16
MAX_ROUTES = 64  # counted apart; those of higher slots are not

# Bucket bounds of the duration histograms, in seconds; the last bucket of a histogram is +Inf.
BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300)
HISTOGRAM_CELLS = len(BUCKETS_S) + 2  # buckets (not cumulative), +Inf, sum in microseconds
# Behind a histogram of durations: the longest one of each of the last seconds, in a ring. A cell is a mark, the second
# (CLOCK_MONOTONIC) above the microseconds: that of a later second is larger, so nobody has to clear any.
SLOWEST_CELLS = 20
TIMING_CELLS = HISTOGRAM_CELLS + SLOWEST_CELLS
MARK_BITS = 36  # of microseconds, 19 hours; seconds have room for 8 years
MARK_MOST = (1 << MARK_BITS) - 1

# --- header and control block, cells from 0 -------------------------------------------------------------
H_MAGIC, H_STARTED_NS, H_PARENT_PID, H_PARENT_BEAT_NS, H_CONTROL_PID, H_CONTROL_BEAT_NS, H_GENERATION = range(7)
H_RELEASE_TOKENS_MICRO, H_RELEASE_AT_NS, H_NEXT_TICKET = 7, 8, 9  # written under the record lock `lock_release`
H_RESTARTS = 10  # workers replaced since the start
H_UPGRADE_SLOWEST_US = 12  # longest exchange since the upgrade began; control writes it
H_ROWS = 11  # rows ever used: sums over workers go over this many; it only grows, and the parent writes it
H_CELLS = 64

# Control's word on a node, at CONTROL_NODES + node_slot * C_CELLS.
C_HEALTH, C_VERDICT_NS, C_HEALTHY_SINCE_NS, C_CHECKS_OK, C_CHECKS_FAILED = range(5)
C_CELLS = 8
CONTROL_NODES = H_CELLS

# --- a worker's row, at WORKERS + slot * ROW_CELLS -------------------------------------------------------
WORKERS = CONTROL_NODES + MAX_NODES * C_CELLS

W_PID, W_STARTED_NS, W_BEAT_NS, W_GENERATION, W_STATE = range(5)
STATE_NONE, STATE_STARTING, STATE_LISTENING, STATE_STOPPING = range(4)  # of W_STATE
W_ACCEPTED, W_OUT_NODE, W_OUT_US, W_OUT_CLIENT_LEFT, W_OUT_NODE_CUT, W_OUT_WORKER_LOST = range(5, 11)
W_CONNECTIONS, W_CONNECTIONS_TOTAL, W_TUNNELS = 11, 12, 13
W_QUEUED, W_PARKED, W_PARKED_BYTES, W_PARKED_HEAD = 14, 15, 16, 17  # HEAD: ticket of its oldest; 0 none
W_LOG_DROPPED, W_LOG_LINES = 18, 19
W_REQUEST_BYTES, W_RESPONSE_BYTES = 20, 21
W_RETRIES_CONNECT, W_RETRIES_RESET, W_RETRIES_TRUNCATED, W_RETRIES_REFUSED = 22, 23, 24, 25
W_RETRIES_RECOVERED, W_RETRIES_FAILED = 26, 27
W_LOOPS, W_LOOP_LAG_MAX_NS = 28, 29
W_TLS_HANDSHAKES, W_TLS_FAILED = 30, 31
W_PAUSED_GENERATION = 32  # newest generation with a pause that this worker has acknowledged
W_QUEUED_HEAD = 46  # ticket of its oldest queued exchange; 0 none
W_RETRIES_BUDGETED = 47  # retries that cost the budget, which all workers share; never goes down
W_RETRY_ASKED = 48  # 1 while this worker asks for one of them
W_REJECTED = 34  # first of the counters by reason, REJECT_REASONS order
W_CELLS = 64
REJECT_REASONS = (
    "no_node",
    "queue_full",
    "queue_timeout",
    "paused",
    "park_full",
    "park_timeout",
    "too_large",
    "malformed",
    "timeout",
    "not_found",
    "tunnels_full",
    "connections_full",
)

W_QUEUE_HISTOGRAM = W_CELLS
W_OVERHEAD_HISTOGRAM = W_QUEUE_HISTOGRAM + HISTOGRAM_CELLS
W_NODES = W_OVERHEAD_HISTOGRAM + HISTOGRAM_CELLS

# Per node, at row + W_NODES + node_slot * N_CELLS.
N_IN_FLIGHT, N_TUNNELS, N_IDLE = range(3)  # IN_FLIGHT: exchanges between the choice of the node and their end
N_1XX, N_2XX, N_3XX, N_4XX, N_5XX = range(3, 8)  # an attempt's answer by class; index is N_1XX - 1 + status // 100
N_REFUSED, N_TIMEOUT, N_RESET, N_TLS, N_PROTOCOL, N_SHORT_BODY = range(8, 14)
N_CONNECTS, N_REUSES, N_REFUSED_NS = 14, 15, 16  # REFUSED_NS: monotonic time of the last refused connect
N_ATTEMPTS = 17
N_DURATION = 20
N_FIRST_BYTE = N_DURATION + TIMING_CELLS
N_CELLS = N_FIRST_BYTE + HISTOGRAM_CELLS
NODE_ERRORS = ("refused", "timeout", "reset", "tls", "protocol", "short_body")  # order of N_REFUSED...

# Per listener, at row + W_LISTENERS + listener_slot * L_CELLS.
W_LISTENERS = W_NODES + MAX_NODES * N_CELLS
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "_OTHER")
CODES = (
    101,
    200,
    201,
    202,
    204,
    206,
    301,
    302,
    303,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    406,
    408,
    409,
    410,
    412,
    413,
    414,
    415,
    416,
    417,
    421,
    422,
    423,
    426,
    429,
    431,
    499,
    500,
    501,
    502,
    503,
    504,
    505,
    0,
)  # 0: any other
L_REQUESTS = 0  # + method index * len(CODES) + code index
L_DURATION = len(METHODS) * len(CODES)
L_CELLS = L_DURATION + TIMING_CELLS

# Per named route, at row + W_ROUTES + route_slot * R_CELLS. What no route matches is what is left of the listeners'.
W_ROUTES = W_LISTENERS + MAX_LISTENERS * L_CELLS
R_FAILED, R_DURATION = 0, 1
R_CELLS = R_DURATION + TIMING_CELLS

ROW_CELLS = W_ROUTES + MAX_ROUTES * R_CELLS
TOTAL_CELLS = WORKERS + MAX_WORKERS * ROW_CELLS

OUTCOME_CELLS = {
    Outcome.NODE: W_OUT_NODE,
    Outcome.US: W_OUT_US,
    Outcome.CLIENT_LEFT: W_OUT_CLIENT_LEFT,
    Outcome.NODE_CUT: W_OUT_NODE_CUT,
    Outcome.WORKER_LOST: W_OUT_WORKER_LOST,
}

# Byte offsets of record locks (fcntl) on the memfd; they lie behind the cells.
LOCK_RELEASE = TOTAL_CELLS * 8
LOCK_NODES = LOCK_RELEASE + 1  # + node slot: a claim close to capacity


def row(slot: int) -> int:
    """Index of the first cell of worker `slot`."""
    return WORKERS + slot * ROW_CELLS


def node_cell(worker_slot: int, node_slot: int) -> int:
    """Index of the first cell of a node in a worker's row."""
    return row(worker_slot) + W_NODES + node_slot * N_CELLS


def route_cell(worker_slot: int, route_slot: int) -> int:
    """Index of the first cell of a route in a worker's row; 0 for one that is not counted apart."""
    return row(worker_slot) + W_ROUTES + route_slot * R_CELLS if route_slot < MAX_ROUTES else 0


def control_cell(node_slot: int) -> int:
    """Index of the first cell of control's word on a node."""
    return CONTROL_NODES + node_slot * C_CELLS


@dataclass(frozen=True, slots=True)
class Ledger:
    """Sums over workers; `open` is what is under way now and is never negative at rest."""

    accepted: int
    outcomes: dict[Outcome, int]

    @property
    def open(self) -> int:
        """Exchanges accepted that have no outcome yet."""
        return self.accepted - sum(self.outcomes.values())


class Scoreboard:
    """The mapped cells and the descriptor behind them. Close it after use; the memory lives with its last holder."""

    __slots__ = ("_map", "cells", "fd")

    def __init__(self, fd: int) -> None:
        """Map the memfd `fd`; takes ownership of it. Raises StateError when it is not one of this layout."""
        size = os.fstat(fd).st_size
        if size < TOTAL_CELLS * 8:
            raise StateError(f"scoreboard has {size} bytes, this version needs {TOTAL_CELLS * 8}")
        self.fd = fd
        self._map = mmap.mmap(fd, TOTAL_CELLS * 8)
        self.cells = memoryview(self._map).cast("Q")
        if self.cells[H_MAGIC] != MAGIC:
            found = self.cells[H_MAGIC]
            self.close()
            raise StateError(f"scoreboard has layout {found:#x}, this version needs {MAGIC:#x}")

    @classmethod
    def create(cls, started_ns: int) -> "Scoreboard":
        """Make an empty one in a new memfd. `started_ns` is CLOCK_MONOTONIC."""
        fd = os.memfd_create("arv-balance-scoreboard", os.MFD_CLOEXEC)
        os.ftruncate(fd, TOTAL_CELLS * 8)
        os.pwrite(fd, MAGIC.to_bytes(8, "little"), H_MAGIC * 8)
        board = cls(fd)
        board.cells[H_STARTED_NS] = started_ns
        return board

    def __enter__(self) -> "Scoreboard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmap and close."""
        self.cells.release()
        self._map.close()
        os.close(self.fd)

    def in_flight(self, node_slot: int, workers: int = MAX_WORKERS) -> int:
        """Exchanges at a node now, over all workers."""
        cells, first = self.cells, node_cell(0, node_slot) + N_IN_FLIGHT
        return sum(cells[first + slot * ROW_CELLS] for slot in range(workers))

    def busy(self, slot: int) -> int:
        """Exchanges at all nodes now, of one worker."""
        first = row(slot) + W_NODES
        return sum(self.cells[first + N_IN_FLIGHT : first + MAX_NODES * N_CELLS : N_CELLS].tolist())

    def total(self, cell: int, workers: int = MAX_WORKERS) -> int:
        """Sum of one row cell (a `W_...` offset, or one computed from `W_NODES`, `W_LISTENERS`) over workers."""
        cells, first = self.cells, WORKERS + cell
        return sum(cells[first + slot * ROW_CELLS] for slot in range(workers))

    def ledger(self, workers: int = MAX_WORKERS) -> Ledger:
        """The ledger now. Outcomes are read before `accepted`, so `open` is never negative."""
        outcomes = {outcome: self.total(cell, workers) for outcome, cell in OUTCOME_CELLS.items()}
        return Ledger(self.total(W_ACCEPTED, workers), outcomes)

    def book_lost(self, slot: int) -> int:
        """Book the open exchanges of a dead worker as worker-lost and free its claims; returns how many."""
        cells, base = self.cells, row(slot)
        booked = sum(cells[base + cell] for cell in OUTCOME_CELLS.values())
        lost = cells[base + W_ACCEPTED] - booked
        cells[base + W_OUT_WORKER_LOST] += lost
        for cell in (
            W_CONNECTIONS,
            W_TUNNELS,
            W_QUEUED,
            W_PARKED,
            W_PARKED_BYTES,
            W_PARKED_HEAD,
            W_QUEUED_HEAD,
            W_RETRY_ASKED,
            W_PID,
            W_STATE,
        ):
            cells[base + cell] = 0
        for node in range(MAX_NODES):
            first = base + W_NODES + node * N_CELLS
            cells[first + N_IN_FLIGHT] = cells[first + N_TUNNELS] = cells[first + N_IDLE] = 0
        return lost
