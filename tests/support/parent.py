"""Run the parent with stand-in children, and look at what it does."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from balancer.scoreboard import Scoreboard
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
Name = tuple[int, int]  # slot and pid of a worker, as a stand-in answers


class ParentUnderTest:
    """A parent with dummy control and workers, in a folder of its own."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.log = folder / "config.log"
        self.stderr = folder / "stderr"
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.write({"workers": 2, "binds": ["127.0.0.1:0"], "drain_s": 5, **config})

    def write(self, config: Mapping[str, Any]) -> None:
        self.config.write_text(json.dumps(config))

    def command(self, *options: str) -> list[str]:
        modules = ["--control-module", "tests.support.dummy_control", "--worker-module", "tests.support.dummy_worker"]
        where = ["--config", str(self.config), "--state-dir", str(self.folder / "state")]
        return [sys.executable, "-P", "-m", "balancer.supervisor", *where, *modules, *options]

    def start(self, *options: str, wrap: tuple[str, ...] = (), pass_fds: tuple[int, ...] = ()) -> None:
        """Start it. `wrap`: words before the command."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*wrap, *self.command(*options)], env=environment, stderr=stderr, pass_fds=pass_fds
            )

    def serve(self, *options: str) -> None:
        """Start it and wait until it is ready."""
        starts = self.words().count("ready:")
        self.start(*options)
        until(lambda: self.words().count("ready:") > starts, what="ready")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def words(self) -> str:
        """All that it said to people."""
        return self.stderr.read_text() if self.stderr.exists() else ""

    def heard(self, kind: str) -> list[dict[str, Any]]:
        """What control was told, and its own starts."""
        if not self.log.exists():
            return []
        whole, _, _being_written = self.log.read_text().rpartition("\n")
        lines = whole.splitlines()
        return [message for line in lines if (message := json.loads(line))["type"] == kind]

    def last(self, kind: str) -> dict[str, Any]:
        until(lambda: self.heard(kind), what=kind)
        return self.heard(kind)[-1]

    @property
    def address(self) -> tuple[str, int]:
        """Where listener 0 listens."""
        host, _, port = self.last("applied")["addresses"]["0"].rpartition(":")
        return host, int(port)

    def board(self) -> Scoreboard:
        """The scoreboard, by way of the parent's descriptor."""
        fd = self.heard("started")[-1]["settings"]["scoreboard"]
        return Scoreboard(os.open(f"/proc/{self.pid}/fd/{fd}", os.O_RDWR))

    def connect(self, line: bytes = b"hello\n", timeout_s: float = 30.0) -> socket.socket:
        """Open a connection and say something."""
        client = socket.create_connection(self.address, timeout_s)
        client.sendall(line)
        return client

    def ask(self, timeout_s: float = 30.0) -> Name:
        """One whole exchange; returns who answered."""
        with self.connect(timeout_s=timeout_s) as client:
            return name_in(client)

    def names(self, asks: int = 40) -> set[Name]:
        """Who answers."""
        return {self.ask() for _ in range(asks)}

    def worker_pids(self) -> dict[int, int]:
        """Pids by slot, as control was last told; those that finish are left out."""
        workers = until(lambda: self.heard("workers"))[-1]["workers"]
        return {worker["slot"]: worker["pid"] for worker in workers if not worker.get("stopping")}

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, within_s: float = 30.0) -> int:
        assert self.process is not None
        return self.process.wait(within_s)

    def close(self) -> None:
        """End all that was started here, in whatever state it is."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for message in self.heard("workers"):
            for worker in message["workers"]:
                self._kill_ours(worker["pid"])
        for message in self.heard("started"):
            self._kill_ours(message["pid"])

    def _kill_ours(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            if str(self.folder).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)


def name_in(client: socket.socket) -> Name:
    """Read the answer of a stand-in worker."""
    data = b""
    while not data.endswith(b"\n"):
        more = client.recv(100)
        if not more:
            raise ConnectionResetError("closed without an answer")
        data += more
    slot, pid = data.split()
    return int(slot), int(pid)


@contextlib.contextmanager
def notify_socket(path: Path, *, abstract: bool = False) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's end: (NOTIFY_SOCKET, the datagram socket)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{path}" if abstract else str(path))
        sock.settimeout(30)
        yield (f"@{path}" if abstract else str(path)), sock
