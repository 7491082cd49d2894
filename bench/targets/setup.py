"""What a target is given and what it gives back."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.machine import output_of

MAKES_ID, KEEPS_ID, FORWARDS_FOR, BALANCES = "makes a request id", "keeps it", "sends X-Forwarded-For", "uses all nodes"
WORK = frozenset({MAKES_ID, KEEPS_ID, FORWARDS_FOR, BALANCES})

# One log line a request: JSON with these, under each program's own spelling of the values.
LOG_FIELDS = (
    "timestamp",
    "client",
    "method",
    "target",
    "protocol",
    "status",
    "bytes_in",
    "bytes_out",
    "duration",
    "ttfb",
    "user_agent",
    "request_id",
    "node",
)


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a target listens (plain and TLS), its nodes' ports on 127.0.0.1, and a folder that is its own."""

    port: int
    tls_port: int
    nodes: tuple[int, ...]
    pem: Path  # certificate and key in one file
    certificate: Path
    key: Path
    folder: Path
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start it in the foreground."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


class Target(Protocol):
    """A program under test."""

    @property
    def name(self) -> str:
        """Word for the command line and the tables."""

    @property
    def without_tls(self) -> bool:
        """Whether it has no TLS listener here."""

    @property
    def cannot(self) -> frozenset[str]:
        """Parts of the work (of WORK) that it cannot do."""

    def missing(self) -> str:
        """Say what to install, or "" when it can run."""

    def version(self) -> str:
        """Return name and version for the results."""

    def prepare(self, setup: Setup) -> Launch:
        """Write its configuration and return how to start it."""


def first_line(argv: list[str], has: str = "") -> str:
    """Return the first line that a version command prints which contains `has`."""
    lines = output_of(argv).splitlines()
    return next((line.strip() for line in lines if has in line), "version unknown")


def log_line(values: dict[str, str], numbers: frozenset[str]) -> str:
    """Return a JSON log format: `values` by name of LOG_FIELDS, those in `numbers` without quotes."""
    pairs = (f'"{name}":{values[name]}' if name in numbers else f'"{name}":"{values[name]}"' for name in LOG_FIELDS)
    return "{" + ",".join(pairs) + "}"


def write_json(path: Path, value: object) -> str:
    """Write a JSON file (which YAML readers take too) and return its path."""
    path.write_text(json.dumps(value, indent=1))
    return str(path)
