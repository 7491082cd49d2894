"""Traffic over time, for small charts: counters read at even distances, and what happened between two of them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from balancer.observe.counts import Counts

SPANS = {"minute": (1.0, 60), "quarter": (15.0, 60)}  # seconds between readings, how many are kept


@dataclass(frozen=True, slots=True)
class Point:
    """What happened between two readings: per second, 95 % were answered within (None: nothing was), failed ones."""

    per_s: float
    p95_s: float | None
    failed: int


class Series:
    """The last minute second by second, and the last quarter of an hour; readings come in by `add`, one a second."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[Counts]] = {name: deque(maxlen=count + 1) for name, (_, count) in SPANS.items()}

    def add(self, counts: Counts) -> None:
        """Take a reading where it is due."""
        for name, (every_s, _) in SPANS.items():
            kept = self._kept[name]
            # Half a second of tolerance: a reading that came a little early is due, too.
            if not kept or counts.at_s - kept[-1].at_s >= every_s - 0.5:
                kept.append(counts)

    def points(self, span: str, slot: int | None = None) -> list[Point]:
        """Return what happened at a node, or (None) in the whole cluster, oldest first."""
        kept = list(self._kept[span])
        pairs = pairwise(kept)
        if slot is None:
            return [_cluster(old, new) for old, new in pairs]
        return [_node(old, new, slot) for old, new in pairs if slot in old.nodes and slot in new.nodes]


def columns(points: Sequence[Point]) -> dict[str, list[float | None]]:
    """Return points as one list a quantity."""
    return {
        "requests_per_s": [round(point.per_s, 2) for point in points],
        "p95_s": [point.p95_s for point in points],
        "failed": [float(point.failed) for point in points],
    }


def _cluster(old: Counts, new: Counts) -> Point:
    return Point(
        per_s=max(0, new.answered - old.answered) / (new.at_s - old.at_s),
        p95_s=new.timing.since(old.timing, old.at_s).quantile(0.95),
        failed=max(0, new.failed - old.failed),
    )


def _node(old: Counts, new: Counts, slot: int) -> Point:
    before, after = old.nodes[slot], new.nodes[slot]
    return Point(
        per_s=max(0, after.attempts - before.attempts) / (new.at_s - old.at_s),
        p95_s=after.timing.since(before.timing, old.at_s).quantile(0.95),
        failed=max(0, after.failed - before.failed),
    )
