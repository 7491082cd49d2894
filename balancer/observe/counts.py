"""Sums over workers' rows of the scoreboard, and what follows from two of them: rates, quantiles, shares."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from balancer import scoreboard as sb
from balancer.model import Outcome

RATE_S = 10.0  # rates and quantiles are over this
KEPT_S = 60.0  # failures are counted over this
EMPTY = (0,) * sb.HISTOGRAM_CELLS


def used_rows(board: sb.Scoreboard) -> range:
    """Return the worker slots that were ever used; a dead worker's row keeps its totals."""
    return range(board.cells[sb.H_ROWS])


def total(board: sb.Scoreboard, rows: Iterable[int], offset: int) -> int:
    """Return the sum of one cell over rows."""
    cells = board.cells
    return sum(cells[sb.row(slot) + offset] for slot in rows)


def totals(board: sb.Scoreboard, rows: Iterable[int], offset: int, length: int) -> tuple[int, ...]:
    """Return the sums of neighbouring cells over rows."""
    parts = [board.cells[sb.row(slot) + offset : sb.row(slot) + offset + length].tolist() for slot in rows]
    if len(parts) == 1:
        return tuple(parts[0])
    return tuple(map(sum, zip(*parts, strict=True))) if parts else (0,) * length


@dataclass(frozen=True, slots=True)
class NodeCounts:
    """Counters of one node since the start. `failed`: answers 5xx and attempts without an answer."""

    attempts: int = 0
    failed: int = 0
    durations: tuple[int, ...] = EMPTY


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters of everything since the start, at one moment. `failed`: 5xx answers, cut ones and lost ones."""

    at_s: float
    accepted: int = 0
    answered: int = 0
    failed: int = 0
    retried: int = 0
    durations: tuple[int, ...] = EMPTY
    nodes: dict[int, NodeCounts] = field(default_factory=dict)


def read(board: sb.Scoreboard, node_slots: Iterable[int], at_s: float) -> Counts:
    """Read the counters now; `node_slots` are the nodes to look at."""
    rows = used_rows(board)
    outcomes = {outcome: total(board, rows, cell) for outcome, cell in sb.OUTCOME_CELLS.items()}
    durations, failed = EMPTY, outcomes[Outcome.NODE_CUT] + outcomes[Outcome.WORKER_LOST]
    for listener in range(sb.MAX_LISTENERS):
        base = sb.W_LISTENERS + listener * sb.L_CELLS
        part = totals(board, rows, base + sb.L_DURATION, sb.HISTOGRAM_CELLS)
        if not any(part):
            continue
        durations = tuple(map(sum, zip(durations, part, strict=True)))
        failed += _server_errors(totals(board, rows, base + sb.L_REQUESTS, len(sb.METHODS) * len(sb.CODES)))
    return Counts(
        at_s=at_s,
        accepted=total(board, rows, sb.W_ACCEPTED),
        answered=sum(outcomes.values()),
        failed=failed,
        retried=total(board, rows, sb.W_RETRIES_RECOVERED),
        durations=durations,
        nodes={slot: _node(board, rows, slot) for slot in node_slots},
    )


def _server_errors(requests: Sequence[int]) -> int:
    codes = len(sb.CODES)
    return sum(count for index, count in enumerate(requests) if count and sb.CODES[index % codes] >= 500)


def _node(board: sb.Scoreboard, rows: Sequence[int], slot: int) -> NodeCounts:
    base = sb.W_NODES + slot * sb.N_CELLS
    cells = totals(board, rows, base, sb.N_CELLS)
    return NodeCounts(
        attempts=cells[sb.N_ATTEMPTS],
        failed=cells[sb.N_5XX] + sum(cells[sb.N_REFUSED : sb.N_REFUSED + len(sb.NODE_ERRORS)]),
        durations=cells[sb.N_DURATION : sb.N_DURATION + sb.HISTOGRAM_CELLS],
    )


def quantile(durations: Sequence[int], share: float) -> float | None:
    """Return the upper estimate of a quantile in seconds from a histogram's cells, None without a sample.

    Linear inside a bucket, as Prometheus' `histogram_quantile`; the last bucket gives its lower bound.
    """
    counts = durations[: len(sb.BUCKETS_S) + 1]
    whole = sum(counts)
    if whole <= 0:
        return None
    rank, before, lower = share * whole, 0, 0.0
    for bound, count in zip(sb.BUCKETS_S, counts, strict=False):
        if count and before + count >= rank:
            return lower + (bound - lower) * max(0.0, rank - before) / count
        before += count
        lower = float(bound)
    return lower


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened lately: per second, quantiles in seconds (None: nothing), shares 0 to 1."""

    per_s: float = 0.0
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    failed: int = 0  # over KEPT_S, not per second
    retried: int = 0
    error_ratio: float | None = None


class Trend:
    """The counters of the last minute, one reading a second."""

    def __init__(self) -> None:
        self._kept: deque[Counts] = deque()

    def add(self, counts: Counts) -> None:
        """Take a reading; old ones go."""
        self._kept.append(counts)
        while counts.at_s - self._kept[0].at_s > KEPT_S:
            self._kept.popleft()

    def cluster(self) -> Rates:
        """Return the rates over all nodes."""
        if len(self._kept) < 2:
            return Rates()
        old, new = self._back(RATE_S), self._kept[-1]
        delta = _minus(new.durations, old.durations)
        answered = new.answered - old.answered
        return Rates(
            per_s=answered / (new.at_s - old.at_s),
            p50_s=quantile(delta, 0.5),
            p95_s=quantile(delta, 0.95),
            p99_s=quantile(delta, 0.99),
            failed=new.failed - self._kept[0].failed,
            retried=new.retried - self._kept[0].retried,
            error_ratio=(new.failed - old.failed) / answered if answered else None,
        )

    def node(self, slot: int) -> Rates:
        """Return the rates of one node."""
        readings = [counts for counts in self._kept if slot in counts.nodes]
        if len(readings) < 2:
            return Rates()
        recent = [counts for counts in readings if readings[-1].at_s - counts.at_s <= RATE_S]
        first = recent[0] if len(recent) > 1 else readings[-2]
        old, new, span = first.nodes[slot], readings[-1].nodes[slot], readings[-1].at_s - first.at_s
        delta, attempts = _minus(new.durations, old.durations), new.attempts - old.attempts
        return Rates(
            per_s=attempts / span,
            p50_s=quantile(delta, 0.5),
            p95_s=quantile(delta, 0.95),
            p99_s=quantile(delta, 0.99),
            failed=new.failed - readings[0].nodes[slot].failed,
            error_ratio=min(1.0, (new.failed - old.failed) / attempts) if attempts else None,
        )

    def _back(self, seconds: float) -> Counts:
        newest = self._kept[-1]
        recent = [counts for counts in self._kept if newest.at_s - counts.at_s <= seconds]
        return recent[0] if len(recent) > 1 else self._kept[-2]


def _minus(new: Sequence[int], old: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(0, a - b) for a, b in zip(new, old, strict=True))
