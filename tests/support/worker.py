"""A real worker process for tests: its scoreboard, listening sockets and snapshot made here, as the parent would."""

import contextlib
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from balancer import snapshot as snapshots
from balancer.model import AccessLog, Health, Listener, Node, Snapshot
from balancer.scoreboard import (
    C_HEALTH,
    C_HEALTHY_SINCE_NS,
    C_VERDICT_NS,
    H_ROWS,
    ROW_CELLS,
    STATE_LISTENING,
    W_STATE,
    WORKERS,
    Scoreboard,
    control_cell,
)
from balancer.wire import Channel, Message

ROOT = Path(__file__).resolve().parents[2]


def memfd(data: bytes, name: str = "test") -> int:
    """Return a memfd holding `data`."""
    fd = os.memfd_create(name, 0)
    os.write(fd, data)
    return fd


def nodes_of(*ports: int, **more: Any) -> tuple[Node, ...]:
    """Return nodes n0, n1... on loopback ports; `more` goes to each."""
    return tuple(Node(f"n{slot}", slot, "127.0.0.1", port, **more) for slot, port in enumerate(ports))


class Board:
    """A scoreboard with verdicts as control would write them."""

    def __init__(self) -> None:
        self.board = Scoreboard.create(time.monotonic_ns())
        self.wakes = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
        self.board.cells[H_ROWS] = 1

    def verdict(self, slot: int, health: Health, age_s: float = 0.0) -> None:
        """Write a verdict, `age_s` old, and wake the workers."""
        cells, cell = self.board.cells, control_cell(slot)
        cells[cell + C_HEALTH] = health
        cells[cell + C_VERDICT_NS] = time.monotonic_ns() - int(age_s * 1e9)
        cells[cell + C_HEALTHY_SINCE_NS] = 1
        for wake in self.wakes:
            os.eventfd_write(wake, 1)

    def cell(self, offset: int, slot: int = 0) -> int:
        """Return a cell of a worker's row."""
        return self.board.cells[WORKERS + slot * ROW_CELLS + offset]

    def busy(self, slot: int = 0) -> int:
        """Return the exchanges that a worker has at nodes."""
        return self.board.busy(slot)

    def close(self) -> None:
        """Give all back."""
        self.board.close()
        for wake in self.wakes:
            os.close(wake)


class Worker:
    """One worker process. `port` is that of its first TCP listener, `without` names a mechanism it shall not have."""

    def __init__(
        self,
        snapshot: Snapshot,
        board: Board,
        *,
        slot: int = 0,
        sockets: dict[int, socket.socket] | None = None,
        pems: Iterable[bytes] = (),
        env: dict[str, Any] | None = None,
        log_fd: int | None = None,
        without: str = "",
        flags: str = os.environ.get("WORKER_FLAGS", "-X dev"),
    ) -> None:
        self.board = board
        module = "tests.support.altered_worker" if without else "balancer.worker"
        self._command = [sys.executable, *flags.split(), "-P", "-m", module]
        self._without = without
        self.slot = slot
        self.snapshot = snapshot
        self.pems = list(pems)
        self.folder = tempfile.mkdtemp(prefix="arv-worker-")
        self.log_path = Path(self.folder, "access.log")
        self.sockets = sockets or {listener.slot: _listen(listener.bind) for listener in snapshot.listeners}
        self._given = env or {}
        self._log_fd = log_fd
        self._channel: Channel | None = None
        board.board.cells[H_ROWS] = max(board.board.cells[H_ROWS], slot + 1)
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        log = (
            self._log_fd if self._log_fd is not None else os.open(self.log_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        )
        fds = [memfd(snapshots.encode(self.snapshot)), *map(memfd, self.pems)]
        given = {
            "role": "worker",
            "slot": self.slot,
            "run_dir": self.folder,
            "scoreboard": self.board.board.fd,
            "wake": self.board.wakes[self.slot],
            "wakes": self.board.wakes,
            "listeners": {str(slot): [sock.fileno()] for slot, sock in self.sockets.items()},
            "snapshot": fds,
            "log_fd": log,
            **self._given,
        }
        passed = [self.board.board.fd, *self.board.wakes, *fds, log, *(s.fileno() for s in self.sockets.values())]
        process = subprocess.Popen(
            self._command,
            env={
                **os.environ,
                "ARV_BALANCE_CHILD": json.dumps(given),
                "PYTHONPATH": str(ROOT),
                "WITHOUT": self._without,
            },
            pass_fds=passed,
            stderr=subprocess.PIPE,
        )
        for fd in fds:
            os.close(fd)
        if self._log_fd is None:
            os.close(log)
        return process

    @property
    def port(self) -> int:
        """Port of the first listener."""
        return int(self.sockets[self.snapshot.listeners[0].slot].getsockname()[1])

    def wait_ready(self, timeout_s: float = 30.0) -> "Worker":
        """Wait until it accepts."""
        wait_until(
            lambda: self.board.cell(W_STATE, self.slot) == STATE_LISTENING or self.process.poll() is not None, timeout_s
        )
        assert self.process.poll() is None, self.errors()
        return self

    def connect(self, timeout_s: float = 20.0, slot: int | None = None, source: str | None = None) -> socket.socket:
        """Return a connection to a listener."""
        bound = self.sockets[self.snapshot.listeners[0].slot if slot is None else slot]
        if bound.family == socket.AF_UNIX:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout_s)
            sock.connect(bound.getsockname())
            return sock
        return socket.create_connection(bound.getsockname()[:2], timeout_s, (source, 0) if source else None)

    @property
    def channel(self) -> Channel:
        """A connection to its control socket."""
        if self._channel is None:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(f"{self.folder}/worker-{self.slot}-{self.process.pid}.sock")
            self._channel = Channel(sock)
        return self._channel

    def ask(self, message: Message, fds: tuple[int, ...] = (), *, answer: bool = True) -> Message:
        """Send a control message and return the answer; events in between are dropped."""
        self.channel.send(message, fds)
        while answer:
            assert select.select([self.channel.sock], [], [], 20.0)[0], f"no answer to {message}"
            for found, _ in self.channel.receive():
                if found["type"] != "event":
                    return found
        return {}

    def apply(self, snapshot: Snapshot, pems: Sequence[bytes] = ()) -> Message:
        """Swap the snapshot; the generation goes up by itself."""
        self.snapshot = replace(snapshot, generation=self.snapshot.generation + 1)
        fds = [memfd(snapshots.encode(self.snapshot)), *map(memfd, pems or self.pems)]
        try:
            return self.ask({"type": "snapshot"}, tuple(fds))
        finally:
            for fd in fds:
                os.close(fd)

    def errors(self) -> str:
        """What it said on standard error; call it after the end."""
        stderr = self.process.stderr
        return "" if stderr is None else stderr.read().decode()

    def log_lines(self, count: int, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """Return the JSON access log lines once there are `count`."""
        wait_until(lambda: self.log_path.read_bytes().count(b"\n") >= count, timeout_s)
        return [json.loads(line) for line in self.log_path.read_text("utf-8").splitlines()]

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_s_within(self, seconds: float, enough_s: float = math.inf) -> float:
        """CPU seconds used while so many pass, or until it is enough: what is burnt by doing nothing is the measure."""
        before, until = self.cpu_s(), time.monotonic() + seconds
        while (burnt := self.cpu_s() - before) < enough_s and time.monotonic() < until:
            time.sleep(0.1)
        return burnt

    def rss_kib(self) -> int:
        """Resident memory now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def close(self, *, quiet: bool = True) -> None:
        """Stop it; with `quiet` its standard error must be empty."""
        if self._channel is not None:
            self._channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        said = self.errors()
        if self.process.stderr is not None:
            self.process.stderr.close()
        for sock in self.sockets.values():
            sock.close()
        with contextlib.suppress(FileNotFoundError):
            for path in Path(self.folder).iterdir():
                path.unlink()
            Path(self.folder).rmdir()
        assert not quiet or "Traceback" not in said, said


def wait_until(condition: Any, timeout_s: float = 20.0) -> None:
    """Poll until `condition()` holds."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "the condition did not come true in time"
        time.sleep(0.005)


def _listen(bind: str) -> socket.socket:
    if bind.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(bind.removeprefix("unix:"))
    else:
        host, _, port = bind.rpartition(":")
        sock = socket.socket(socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, int(port)))
    sock.listen(512)
    return sock


def snapshot_of(*ports: int, **more: Any) -> Snapshot:
    """Return a snapshot with one plain listener and nodes on `ports`."""
    more.setdefault("listeners", (Listener(0, "127.0.0.1:0"),))
    more.setdefault("nodes", nodes_of(*ports))
    more.setdefault("access_log", AccessLog())
    return Snapshot(1, "test", **more)


@contextlib.contextmanager
def running(snapshot: Snapshot, *, healthy: bool = True, **more: Any) -> Iterator[Worker]:
    """A worker with its scoreboard; all nodes healthy unless told otherwise."""
    board = Board()
    if healthy:
        for node in snapshot.nodes:
            board.verdict(node.slot, Health.HEALTHY)
    worker = Worker(snapshot, board, **more)
    try:
        yield worker.wait_ready()
    except BaseException:
        worker.close(quiet=False)
        board.close()
        raise
    worker.close()
    board.close()
