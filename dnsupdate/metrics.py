"""The `dns_*` metrics; other parts of a process mount them into their registry."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PREFIX = "arv_balance_"


class NoMetrics:
    """Counts nothing."""

    def exchanged(self, target: str, zone: str, server: str, rcode: str, seconds: float) -> None:
        """See `Metrics`."""

    def published(self, target: str, records: int) -> None:
        """See `Metrics`."""

    def serial(self, target: str, zone: str, server: str, serial: int) -> None:
        """See `Metrics`."""


class Metrics:
    """Counters and gauges in a registry of prometheus_client. `now`: wall clock in seconds."""

    def __init__(self, registry: "CollectorRegistry", *, now: "object") -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._now = now
        place = ["zone", "server"]
        self._updates = Counter(
            PREFIX + "dns_updates", "UPDATE messages by answer.", [*place, "rcode"], registry=registry
        )
        self._seconds = Histogram(
            PREFIX + "dns_update_duration_seconds", "Time to an answer.", [*place, "rcode"], registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )  # fmt: skip
        self._success = Gauge(
            PREFIX + "dns_last_success_timestamp_seconds",
            "When an update was confirmed last.",
            place,
            registry=registry,
        )
        self._serial = Gauge(PREFIX + "dns_serial", "SOA serial at the primary.", place, registry=registry)
        self._records = Counter(
            PREFIX + "dns_records_changed", "Record sets changed and confirmed.", ["target"], registry=registry
        )
        self._pending = Gauge(
            PREFIX + "dns_pending_changes", "Hosts whose records are not as they should be.", ["target", "state"],
            registry=registry,
        )  # fmt: skip
        self._leads = Gauge(PREFIX + "dns_sender", "1 where this process is the sender.", ["target"], registry=registry)
        self._total = Gauge(PREFIX + "dns_records", "Records published.", ["target"], registry=registry)

    def exchanged(self, target: str, zone: str, server: str, rcode: str, seconds: float) -> None:
        """Count an UPDATE."""
        del target
        self._updates.labels(zone, server, rcode).inc()
        self._seconds.labels(zone, server, rcode).observe(seconds)
        if rcode == "NOERROR" and callable(self._now):
            self._success.labels(zone, server).set(self._now())

    def published(self, target: str, records: int) -> None:
        """Count confirmed record sets."""
        self._records.labels(target).inc(records)

    def serial(self, target: str, zone: str, server: str, serial: int) -> None:
        """Show a zone's serial."""
        del target
        self._serial.labels(zone, server).set(serial)

    def leads(self, target: str, read: Callable[[], float]) -> None:
        """Show whether this process is the sender of a target, as `read` says it: 1 or 0."""
        self._leads.labels(target).set_function(read)

    def show(self, target: str, *, records: int, states: Mapping[str, int]) -> None:
        """Show what the database says about a target: records published, hosts by state."""
        self._total.labels(target).set(records)
        for state in ("pending", "conflict", "failed", "held"):
            self._pending.labels(target, state).set(states.get(state, 0))
