"""What the parent hands to the control process: ARV_BALANCE_CHILD and the descriptors it names."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from balancer.control.publisher import WorkerAddress
from balancer.errors import WireError

ENVIRONMENT = "ARV_BALANCE_CHILD"


@dataclass(frozen=True, slots=True)
class Child:
    """Descriptors by number and what runs already; see docs/architecture.md."""

    config: Path
    run_dir: Path
    parent_fd: int
    scoreboard_fd: int
    wakes: tuple[int, ...]
    workers: tuple[WorkerAddress, ...] = ()
    snapshot_fds: tuple[int, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)


def from_environment(environment: Mapping[str, str]) -> Child:
    """Return what the parent handed over. Raises WireError when this process was not started by it."""
    text = environment.get(ENVIRONMENT, "")
    if not text:
        raise WireError(f"{ENVIRONMENT} is not set: this program is started by `arv-balance serve`")
    try:
        given = json.loads(text)
        child = Child(
            config=Path(given["config"]),
            run_dir=Path(given["run_dir"]),
            parent_fd=int(given["parent"]),
            scoreboard_fd=int(given["scoreboard"]),
            wakes=tuple(int(fd) for fd in given["wakes"]),
            workers=tuple(WorkerAddress.from_message(item) for item in given["workers"]),
            snapshot_fds=tuple(int(fd) for fd in given["snapshot"]),
            overrides=dict(given.get("overrides", {})),
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise WireError(f"{ENVIRONMENT} cannot be read: {exc}") from exc
    for fd in (child.parent_fd, child.scoreboard_fd, *child.wakes, *child.snapshot_fds):
        os.set_inheritable(fd, False)  # commands that an upgrade runs must not hold them
    return child
