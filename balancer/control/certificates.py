"""The listeners' certificates: when they end, and word of those that have."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from balancer.config.certificates import describe
from balancer.config.schema import Config
from balancer.control.events import EventLog
from balancer.errors import ConfigError


class Certificates:
    """Those of the configuration in use."""

    def __init__(self, events: EventLog, now: Callable[[], datetime]) -> None:
        self.ends: Mapping[str, float] = {}  # name -> Unix time
        self._events = events
        self._now = now
        self._told: frozenset[str] = frozenset()

    async def read(self, config: Config) -> None:
        """Read their files."""
        self.ends = await asyncio.to_thread(ends, config)
        self.look()

    def look(self) -> None:
        """Tell of each once that it has expired."""
        expired = self.expired()
        for fault in expired:
            if fault not in self._told:
                self._events.add("certificate-expired", f"{fault}; clients refuse it", level="error")
        self._told = frozenset(expired)

    def expired(self) -> list[str]:
        """Return a sentence for each that has expired."""
        now_s = self._now().timestamp()
        return [
            f"the certificate of {name} expired on {datetime.fromtimestamp(end, UTC):%Y-%m-%d}"
            for name, end in self.ends.items()
            if end <= now_s
        ]


def ends(config: Config) -> dict[str, float]:
    """Return the end of each certificate as Unix time, by its first name or file. Reads files: call it in a thread."""
    found: dict[str, float] = {}
    for path in _paths(config):
        try:
            described = describe(Path(path).read_bytes(), path)
        except (OSError, ConfigError):
            continue  # the reader of the configuration has said so; the running listeners keep the old one
        found[described.names[0] if described.names else path] = described.not_after.timestamp()
    return found


def _paths(config: Config) -> list[str]:
    found = []
    for listen in config.listen:
        if listen.tls is not None:
            found += [listen.tls.cert] if listen.tls.cert else []
            found += [item.cert for item in listen.tls.certificates]
    return found
