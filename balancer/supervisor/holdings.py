"""What the parent holds for all others, and the runtime folder that only one parent may own."""

import fcntl
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from balancer.errors import StateError, WireError
from balancer.model import Snapshot
from balancer.scoreboard import H_PARENT_PID, MAX_WORKERS, Scoreboard
from balancer.snapshot import decode
from balancer.supervisor.sockets import Registry

MAX_SNAPSHOT_BYTES = 64 << 20


@dataclass(slots=True)
class Holdings:
    """Shared memory, eventfds, listening sockets and the newest snapshot; they outlive every child.

    wakes: an eventfd for every possible slot. snapshot: the memfd and its PEM memfds, () before the first.
    """

    run_dir: Path
    lock: int
    board: Scoreboard
    wakes: tuple[int, ...]
    registry: Registry = field(default_factory=Registry)
    snapshot: tuple[int, ...] = ()

    def replace_snapshot(self, fds: tuple[int, ...]) -> None:
        """Keep a newer snapshot, close the older."""
        close_all(self.snapshot)
        self.snapshot = fds


def fresh_board() -> Scoreboard:
    """Return an empty scoreboard that names this process as parent."""
    board = Scoreboard.create(time.monotonic_ns())
    board.cells[H_PARENT_PID] = os.getpid()
    return board


def fresh_wakes() -> tuple[int, ...]:
    """Return one eventfd a slot."""
    return tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(MAX_WORKERS))


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


def read_snapshot(fd: int) -> Snapshot | None:
    """Return the snapshot in a memfd, None when this version cannot read it."""
    try:
        return decode(os.pread(fd, min(os.fstat(fd).st_size, MAX_SNAPSHOT_BYTES), 0))
    except (WireError, OSError):
        return None


def own_run_dir(state_dir: Path) -> tuple[Path, int]:
    """Make the runtime folder and lock it; returns it and the lock's descriptor, which must stay open.

    Raises StateError when another parent runs there, or when the folder cannot be used.
    """
    run_dir = state_dir / "run"
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_dir.chmod(0o700)
        lock = os.open(run_dir / "parent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StateError(f"the runtime folder {run_dir} (in state.dir) cannot be used: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        pid = os.pread(lock, 32, 0).decode().strip()
        os.close(lock)
        raise StateError(f"arv-balance already runs with the state folder {state_dir} (pid {pid})") from exc
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return run_dir, lock
