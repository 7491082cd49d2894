"""Sums over workers' rows of the scoreboard, and what follows from two of them: rates, quantiles, shares."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from balancer import scoreboard as sb
from balancer.model import Outcome

RATE_S = 10.0  # rates and quantiles are over this
KEPT_S = 60.0  # failures are counted over this
EMPTY = (0,) * sb.HISTOGRAM_CELLS
REST = -1  # in the place of a route's slot: what no route matched
MARKS_LATE_S = 1.0  # a mark bears the second of a worker's last heartbeat


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
class Spent:
    """How long things took in a span of time: a histogram's cells, and the longest that was measured."""

    cells: tuple[int, ...] = EMPTY
    slowest_s: float | None = None

    def quantile(self, share: float) -> float | None:
        """Return a quantile in seconds, None without a sample: never more than the longest that was measured."""
        return quantile(self.cells, share, self.slowest_s)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things took since the start: a histogram's cells, and the marks of the longest of the last seconds."""

    cells: tuple[int, ...] = EMPTY
    marks: tuple[int, ...] = ()

    @classmethod
    def of(cls, board: sb.Scoreboard, rows: Sequence[int], offset: int) -> Self:
        """Read the histogram at `offset` of the rows, and the ring behind it."""
        cells = totals(board, rows, offset, sb.HISTOGRAM_CELLS)
        if not any(cells):
            return cls(cells)
        rings = [sb.row(slot) + offset + sb.HISTOGRAM_CELLS for slot in rows]
        return cls(cells, tuple(mark for ring in rings for mark in board.cells[ring : ring + sb.SLOWEST_CELLS]))

    def __add__(self, other: Self) -> Self:
        return type(self)(tuple(map(sum, zip(self.cells, other.cells, strict=True))), self.marks + other.marks)

    def since(self, before: Self, at_s: float) -> Spent:
        """Return what came after an earlier reading, of `at_s`."""
        cells = tuple(max(0, new - old) for new, old in zip(self.cells, before.cells, strict=True))
        return Spent(cells, self.slowest_s(at_s) if any(cells) else None)

    def slowest_s(self, since_s: float) -> float | None:
        """Return the longest that was measured since then, None when nothing was or nobody knows any more."""
        first = int(since_s - MARKS_LATE_S)
        recent = [mark & sb.MARK_MOST for mark in self.marks if mark >> sb.MARK_BITS >= first]
        return max(recent) / 1e6 if recent else None


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Counters of a node or route since the start. `failed`: 5xx and no answer, with a route 5xx and cut ones."""

    attempts: int = 0
    failed: int = 0
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters of everything since the start, at one moment. `failed`: 5xx answers, cut ones and lost ones."""

    at_s: float
    accepted: int = 0
    answered: int = 0
    failed: int = 0
    retried: int = 0
    timing: Timing = Timing()
    nodes: dict[int, PartCounts] = field(default_factory=dict)
    routes: dict[int, PartCounts] = field(default_factory=dict)  # by slot; `REST`: what no route matched


def read(board: sb.Scoreboard, node_slots: Iterable[int], at_s: float, route_slots: Iterable[int] = ()) -> Counts:
    """Read the counters now; `node_slots` and `route_slots` are the nodes and routes to look at."""
    rows = used_rows(board)
    outcomes = {outcome: total(board, rows, cell) for outcome, cell in sb.OUTCOME_CELLS.items()}
    timing, failed = Timing(), outcomes[Outcome.NODE_CUT] + outcomes[Outcome.WORKER_LOST]
    for listener in range(sb.MAX_LISTENERS):
        base = sb.W_LISTENERS + listener * sb.L_CELLS
        part = Timing.of(board, rows, base + sb.L_DURATION)
        if not any(part.cells):
            continue
        timing += part
        failed += _server_errors(totals(board, rows, base + sb.L_REQUESTS, len(sb.METHODS) * len(sb.CODES)))
    routes = {slot: _route(board, rows, slot) for slot in route_slots if slot < sb.MAX_ROUTES}
    if routes:
        routes[REST] = _rest(timing, failed, routes.values())
    return Counts(
        at_s=at_s,
        accepted=total(board, rows, sb.W_ACCEPTED),
        answered=sum(outcomes.values()),
        failed=failed,
        retried=total(board, rows, sb.W_RETRIES_RECOVERED),
        timing=timing,
        nodes={slot: _node(board, rows, slot) for slot in node_slots},
        routes=routes,
    )


def _server_errors(requests: Sequence[int]) -> int:
    codes = len(sb.CODES)
    return sum(count for index, count in enumerate(requests) if count and sb.CODES[index % codes] >= 500)


def _node(board: sb.Scoreboard, rows: Sequence[int], slot: int) -> PartCounts:
    base = sb.W_NODES + slot * sb.N_CELLS
    cells = totals(board, rows, base, sb.N_DURATION)
    return PartCounts(
        attempts=cells[sb.N_ATTEMPTS],
        failed=cells[sb.N_5XX] + sum(cells[sb.N_REFUSED : sb.N_REFUSED + len(sb.NODE_ERRORS)]),
        timing=Timing.of(board, rows, base + sb.N_DURATION),
    )


def _route(board: sb.Scoreboard, rows: Sequence[int], slot: int) -> PartCounts:
    base = sb.W_ROUTES + slot * sb.R_CELLS
    timing = Timing.of(board, rows, base + sb.R_DURATION)
    return PartCounts(sum(timing.cells[:-1]), total(board, rows, base + sb.R_FAILED), timing)


def _rest(timing: Timing, failed: int, routes: Collection[PartCounts]) -> PartCounts:
    """Return what is left of everything; the longest of it is not known, that of everything bounds it."""
    counted = zip(*(route.timing.cells for route in routes), strict=True)
    cells = tuple(max(0, whole - sum(parts)) for whole, parts in zip(timing.cells, counted, strict=True))
    left = max(0, failed - sum(route.failed for route in routes))
    return PartCounts(sum(cells[:-1]), left, Timing(cells, timing.marks))


def quantile(durations: Sequence[int], share: float, slowest_s: float | None = None) -> float | None:
    """Return the upper estimate of a quantile in seconds from a histogram's cells, None without a sample.

    Linear inside a bucket, as Prometheus' `histogram_quantile`, but no bucket reaches further than the longest that was
    measured. Where that is not known, the last bucket gives its lower bound.
    """
    counts = durations[: len(sb.BUCKETS_S) + 1]
    whole = sum(counts)
    if whole <= 0:
        return None
    most = float("inf") if slowest_s is None else slowest_s
    rank, before, lower = share * whole, 0, 0.0
    for bound, count in zip((*sb.BUCKETS_S, most), counts, strict=True):
        if count and before + count >= rank:
            upper = max(lower, min(bound, most))
            if upper == float("inf"):
                return lower
            # The sum may be rounded up.
            return min(upper, lower + (upper - lower) * max(0.0, rank - before) / count)
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
    slowest_s: float | None = None
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
        spent = new.timing.since(old.timing, old.at_s)
        answered = new.answered - old.answered
        return Rates(
            per_s=answered / (new.at_s - old.at_s),
            p50_s=spent.quantile(0.5),
            p95_s=spent.quantile(0.95),
            p99_s=spent.quantile(0.99),
            slowest_s=spent.slowest_s,
            failed=new.failed - self._kept[0].failed,
            retried=new.retried - self._kept[0].retried,
            error_ratio=(new.failed - old.failed) / answered if answered else None,
        )

    def node(self, slot: int) -> Rates:
        """Return the rates of one node."""
        return _rates([(counts.at_s, counts.nodes[slot]) for counts in self._kept if slot in counts.nodes])

    def route(self, slot: int) -> Rates:
        """Return the rates of one route, or of `REST`."""
        found = _rates([(counts.at_s, counts.routes[slot]) for counts in self._kept if slot in counts.routes])
        return replace(found, slowest_s=None) if slot == REST else found

    def _back(self, seconds: float) -> Counts:
        newest = self._kept[-1]
        recent = [counts for counts in self._kept if newest.at_s - counts.at_s <= seconds]
        return recent[0] if len(recent) > 1 else self._kept[-2]


def _rates(readings: Sequence[tuple[float, PartCounts]]) -> Rates:
    if len(readings) < 2:
        return Rates()
    newest_s, new = readings[-1]
    recent = [reading for reading in readings if newest_s - reading[0] <= RATE_S]
    old_s, old = recent[0] if len(recent) > 1 else readings[-2]
    spent, attempts = new.timing.since(old.timing, old_s), new.attempts - old.attempts
    return Rates(
        per_s=attempts / (newest_s - old_s),
        p50_s=spent.quantile(0.5),
        p95_s=spent.quantile(0.95),
        p99_s=spent.quantile(0.99),
        slowest_s=spent.slowest_s,
        failed=new.failed - readings[0][1].failed,
        error_ratio=min(1.0, (new.failed - old.failed) / attempts) if attempts else None,
    )
