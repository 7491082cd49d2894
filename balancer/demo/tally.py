"""What the clients of a demo saw."""

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

WINDOW = 1000  # answers that the percentiles look at
KEPT_FAILURES = 20


@dataclass(slots=True)
class Tally:
    """Counts since the start. `failures` keeps the first few, with request ids, for people to look up."""

    done: int = 0
    failed: int = 0
    resent: int = 0  # writes without an answer that their client sent again with the same key
    events: int = 0  # heard over the WebSocket
    pings: int = 0  # of compute nodes
    official: int = 0  # calls of the official client
    acknowledged: dict[str, int] = field(default_factory=dict)  # writes by writer, each numbered from 1
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    slowest_s: float = 0.0  # since the last `mark`
    failures: list[str] = field(default_factory=list)

    def succeeded(self, seconds: float) -> None:
        """Count an answer."""
        self.done += 1
        self.latencies_s.append(seconds)
        self.slowest_s = max(self.slowest_s, seconds)

    def fail(self, what: str) -> None:
        """Count a request without a good answer."""
        self.failed += 1
        self._keep(what)

    def resend(self, what: str) -> None:
        """Count a write that got no answer and is sent again."""
        self.resent += 1
        self._keep(what)

    def _keep(self, what: str) -> None:
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(what)

    def percentile_ms(self, share: float) -> float:
        """A latency in milliseconds; 0 before the first answer."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else 0.0

    @property
    def writes(self) -> int:
        """Writes that were acknowledged."""
        return sum(self.acknowledged.values())

    def document(self) -> dict[str, Any]:
        """Return the counts as scenes read them."""
        left_out = ("latencies_s", "acknowledged")
        counts = {name: value for name, value in asdict(self).items() if name not in left_out}
        return {**counts, "writes": self.writes}

    def mark(self) -> dict[str, Any]:
        """Return the counts, and begin anew to look for the slowest answer."""
        found = self.document()
        self.slowest_s = 0.0
        return found
