"""Commands of an upgrade from the side of who asks: started so that they outlive it, found again by their token."""

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from balancer.control.upgrade.machine import Do
from balancer.control.upgrade.plan import Order
from balancer.control.upgrade.traffic import Terms

OUTPUT_BYTES = 64 << 10  # the end of it is kept in the journal


class How(StrEnum):
    """What is known of a command."""

    NEVER = "never"  # it was not begun
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"  # begun, and nobody is left who knows how it ended


@dataclass(frozen=True, slots=True)
class Found:
    """A command as it stands. `exit` None: it never ran, `why` says why not."""

    how: How
    exit: int | None = None
    why: str = ""
    output: str = ""


class Hands:
    """The folder of one upgrade, under the operator's own state folder, readable by nobody else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def of(cls, run_id: str) -> "Hands":
        """Return those of an upgrade of this user."""
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
        return cls(state / "arv-balance" / "upgrade" / run_id)

    @property
    def where(self) -> str:
        """The machine and the folder, for the journal."""
        return f"{platform.node()}:{self.folder}"

    def keep(self, orders: Mapping[tuple[Do, str], Order], terms: Terms) -> None:
        """Keep what is to be executed, for `resume`: it never comes from anywhere else."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        items = [{"do": do.value, "node": node, **order.document()} for (do, node), order in orders.items()]
        write(self.folder / "orders.json", {"orders": items, "terms": terms.document()})

    def kept(self) -> tuple[dict[tuple[Do, str], Order], Terms] | None:
        """Return what was kept, None when it was not here."""
        try:
            found = json.loads((self.folder / "orders.json").read_bytes())
            items, terms = found["orders"], Terms(**found["terms"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        orders = {
            (Do(item["do"]), item["node"]): Order(tuple(item["arguments"]), item["timeout_s"], item["database"])
            for item in items
        }
        return orders, terms

    def start(self, token: str, order: Order, *, is_migration: bool) -> None:
        """Start a command that goes on to its end without us. A migration keeps its lock while any part of it lives."""
        base = self.folder / token
        with self._locked(base) as lock_fd:
            if lock_fd is None:
                return  # it runs already
            write(Path(f"{base}.order.json"), order.document() | {"holds_lock": is_migration})
            self._children[token] = subprocess.Popen(
                [sys.executable, "-P", "-m", "balancer.control.upgrade.hand", str(base), str(lock_fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lock_fd,),
            )

    def look(self, token: str, where: str) -> Found:
        """Return how the command of a token stands; `where` as the journal has it from its beginning."""
        base = self.folder / token
        if where != self.where or not self.folder.is_dir():
            return Found(How.LOST, why=f"it was begun at {where}")
        if not Path(f"{base}.order.json").exists():
            return Found(How.NEVER)
        child = self._children.get(token)
        if child is not None:
            child.poll()
        with self._locked(base) as lock_fd:
            result = self._result(base)
            if result is not None:
                if child is not None:
                    child.wait()  # it has nothing left to do
                return Found(How.ENDED, result["exit"], result["why"], self._output(base))
            if lock_fd is None:
                return Found(How.RUNNING)
        return Found(How.LOST, why="the process that ran it is gone", output=self._output(base))

    @contextmanager
    def _locked(self, base: Path) -> Iterator[int | None]:
        """Hold a command's lock; None: somebody else has it."""
        fd = os.open(f"{base}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield fd
        finally:
            os.close(fd)  # a child that has it too keeps the lock

    @staticmethod
    def _result(base: Path) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(Path(f"{base}.result.json").read_bytes())
        except FileNotFoundError:
            return None
        return found

    @staticmethod
    def _output(base: Path) -> str:
        try:
            with Path(f"{base}.log").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - OUTPUT_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Put a document on the disk, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(fd)
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
