"""The numbers of a node in Prometheus' text form: `arv_api_*`, and the `arvados_*` that dashboards know."""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True, order=True)
class Description:
    """One number, as the reference shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Metrics:
    """One process's registry; nothing global, so that several nodes may live in one test."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Description] = []
        self.requests = self._counter("arv_api_requests_total", "Requests answered.", ["operation", "code"])
        self.duration = self._histogram("arv_api_request_duration_seconds", "Time to answer.", ["operation"])
        self.database_errors = self._counter("arv_api_db_errors_total", "Failures of the database.", ["kind"])
        self.acquire = self._histogram("arv_api_db_acquire_duration_seconds", "Wait for a connection to the database.")
        self.lock_wait = self._histogram("arv_api_lock_wait_seconds", "Wait for a lock that all nodes share.", ["lock"])
        self.replays = self._counter("arv_api_idempotent_replays_total", "Answers repeated for an idempotency key.")
        self.retries = self._counter("arv_api_serialization_retries_total", "Transactions tried again.")
        self.queue_timeouts = self._counter("arvados_queue_timeout_total", "Requests that left the queue unanswered.")
        self.events = self._counter("arv_api_events_sent_total", "Events sent over websockets.")
        self.jobs = self._counter("arv_api_job_runs_total", "Runs of periodic jobs by this node.", ["job", "result"])

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        self.described.append(Description(name, "counter", tuple(labels or ()), text))
        return Counter(name, text, labels or [], registry=self.registry)

    def _histogram(self, name: str, text: str, labels: list[str] | None = None) -> Histogram:
        self.described.append(Description(name, "histogram", tuple(labels or ()), text))
        return Histogram(name, text, labels or [], registry=self.registry, buckets=_BUCKETS)

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        self.described.append(Description(name, "gauge", tuple(labels), text))
        return Gauge(name, text, labels, registry=self.registry)

    def watch(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """Show a number that is read when it is asked for."""
        gauge = self._gauge(name, text, list(labels))
        child = gauge.labels(**labels) if labels else gauge
        child.set_function(read)

    def watch_each(self, name: str, text: str, label: str, reads: dict[str, Callable[[], float]]) -> None:
        """Show one number for each value of a label."""
        gauge = self._gauge(name, text, [label])
        for value, read in reads.items():
            gauge.labels(value).set_function(read)

    def text(self) -> bytes:
        """Return all numbers."""
        return generate_latest(self.registry)
