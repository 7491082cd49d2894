"""A whole site on loopback: example nodes, the real balancer, its admin API, and load."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from balancer import scoreboard as sb
from balancer.scoreboard import Ledger, Scoreboard
from tests.support.load import IDEMPOTENT
from tests.support.ports import free_port
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
START_S = 30.0


@dataclass(slots=True)
class NodeProcess:
    """An example node on a port that stays the same over restarts."""

    name: str
    port: int
    folder: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.launch()
        until(self.is_up, START_S, f"{self.name} listens")

    def launch(self) -> None:
        command = [sys.executable, "-P", str(ROOT / "examples/echo_node.py"), "--name", self.name]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--keepalive", "1", *self.options], stdout=log, stderr=log
            )

    def is_up(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(10)

    def ask(self, method: str, path: str) -> Any:
        """Ask the node itself, past the balancer."""
        return ask(self.port, method, path)[2]

    def counts(self) -> dict[str, Any]:
        """What it saw."""
        found: dict[str, Any] = self.ask("GET", "/_echo/counts")
        return found


def ask(
    port: int, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, dict[str, str], Any]:
    """One request on a connection of its own: status, headers (lower case), body (parsed when it is JSON)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        data = response.read()
        fields = {name.lower(): value for name, value in response.getheaders()}
        is_json = "json" in fields.get("content-type", "")
        return response.status, fields, json.loads(data) if is_json and data else data
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the clients of one load saw."""

    done: Counter[str]
    by_node: Counter[str]
    failures: list[dict[str, Any]]
    keys: list[str]
    slowest_s: float
    opened: int
    seconds: float

    @property
    def total(self) -> int:
        return sum(self.done.values())

    @property
    def rate(self) -> float:
        return self.total / self.seconds

    def failed(self, kinds: Sequence[str]) -> list[dict[str, Any]]:
        return [failure for failure in self.failures if failure["kind"] in kinds]

    @property
    def failed_idempotent(self) -> list[dict[str, Any]]:
        """Failures of requests that another node could have answered: large answers under way are not."""
        return [item for item in self.failed(IDEMPOTENT) if item["phase"] != "body"]

    def assert_clean(self) -> None:
        assert not self.failures, self.failures[:10]
        assert self.total > 50


@dataclass(slots=True)
class Load:
    """A running load generator."""

    process: subprocess.Popen[str]
    began: float = field(default_factory=time.monotonic)

    def stop(self, after_s: float = 0.0) -> LoadResult:
        """Let it run until it is `after_s` old, end it, and return what it saw."""
        time.sleep(max(0.0, self.began + after_s - time.monotonic()))
        output, _ = self.process.communicate(input="", timeout=40)
        found = json.loads(output)
        return LoadResult(
            done=Counter(found["done"]),
            by_node=Counter(found["by_node"]),
            failures=found["failures"],
            keys=found["keys"],
            slowest_s=found["slowest_s"],
            opened=found["opened"],
            seconds=found["seconds"],
        )


class Site:
    """Nodes and a balancer. `config` stands above the defaults, section by section.

    `without`: a mechanism that its workers shall not have.
    """

    def __init__(self, *, nodes: int = 3, workers: int = 2, without: str = "", **config: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="arv-"))
        self.port = free_port()
        names = [f"api{number}" for number in range(1, nodes + 1)]
        self.nodes = {name: NodeProcess(name, free_port(), self.folder) for name in names}
        self.workers = workers
        self.process: subprocess.Popen[bytes] | None = None
        self.extra: dict[str, Any] = config
        self.listed = list(names)
        self.loads: list[Load] = []
        self.without = without
        self.environment = {"WITHOUT": without, "PYTHONPATH": str(ROOT)} if without else {}

    # --- configuration --------------------------------------------------------------------------------------

    @property
    def config_path(self) -> Path:
        return self.folder / "arv-balance.yml"  # JSON is YAML

    def config(self) -> dict[str, Any]:
        base: dict[str, Any] = {
            "version": 1,
            "cluster": "xtest",
            "listen": [{"bind": f"127.0.0.1:{self.port}"}],
            "nodes": {name: {"url": f"http://127.0.0.1:{self.nodes[name].port}"} for name in self.listed},
            "health": {
                "path": "/_health/ping",
                "expect": {"json": {"health": "OK"}},
                "interval": "1s",
                "fast_interval": "300ms",
                "timeout": "900ms",
            },
            "balance": {"slow_start": "0s"},
            "drain": {"timeout": "10s", "tunnel_grace": "1s"},
            "workers": self.workers,
            "admin": {"socket": str(self.folder / "admin.sock")},
            "state": {"dir": str(self.folder / "state")},
            "log": {"access": "json", "path": str(self.folder / "access.log")},
        }
        for section, value in self.extra.items():
            if isinstance(value, dict) and isinstance(base.get(section), dict):
                base[section] = {**base[section], **value}
            else:
                base[section] = value
        return base

    def write(self) -> None:
        self.config_path.write_text(json.dumps(self.config(), indent=1))

    # --- life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start nodes and balancer; returns when all listed nodes are healthy."""
        for node in self.nodes.values():
            node.launch()
        self.write()
        self.serve()
        self.until_healthy(len(self.listed))

    def serve(self) -> None:
        """Start the balancer and wait until it says that it is ready."""
        ready = self.words().count("ready:")
        command = [sys.executable, "-P", "-m", *self._program()]
        with (self.folder / "stderr").open("ab") as stderr:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(command, stdout=stderr, stderr=stderr, cwd=ROOT, env=environment)

        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.words()
            return self.words().count("ready:") > ready

        until(is_ready, START_S, "the balancer is ready")

    def _program(self) -> list[str]:
        if not self.without:
            return ["balancer", "serve", "-c", str(self.config_path)]
        where = ["--config", str(self.config_path), "--state-dir", str(self.folder / "state")]
        return ["balancer.supervisor", *where, "--worker-module", "tests.support.altered_worker"]

    def words(self) -> str:
        path = self.folder / "stderr"
        return path.read_text() if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def board(self) -> Scoreboard:
        """The scoreboard, by way of the parent's descriptor."""
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "arv-balance-scoreboard" in str(fd.readlink()):
                    return Scoreboard(os.open(fd, os.O_RDWR))
        raise AssertionError("the parent has no scoreboard")

    def control_pid(self) -> int:
        with self.board() as board:
            return int(until(lambda: board.cells[sb.H_CONTROL_PID], what="control runs"))

    def worker_pids(self) -> dict[int, int]:
        """Pids of the workers that accept, by slot."""
        with self.board() as board:
            rows = {slot: sb.row(slot) for slot in range(board.cells[sb.H_ROWS])}
            return {
                slot: int(board.cells[base + sb.W_PID])
                for slot, base in rows.items()
                if board.cells[base + sb.W_STATE] == sb.STATE_LISTENING
            }

    def until_workers(self, count: int, without: Sequence[int] = (), within_s: float = 15) -> dict[int, int]:
        """Wait for `count` accepting workers, none of them of `without`."""

        def found() -> dict[int, int] | None:
            pids = self.worker_pids()
            return pids if len(pids) == count and not set(pids.values()) & set(without) else None

        pids = until(found, within_s, f"{count} workers")
        assert pids is not None
        return pids

    def ledger(self) -> Ledger:
        with self.board() as board:
            return board.ledger()

    def assert_balanced(self) -> Ledger:
        """The ledger comes to rest with nothing open."""
        until(lambda: self.ledger().open == 0, 10, "no exchange is open")
        return self.ledger()

    def kill(self, pid: int, number: int = signal.SIGKILL) -> float:
        """Send a signal to one of the balancer's processes; returns when (CLOCK_MONOTONIC)."""
        os.kill(pid, number)
        return time.monotonic()

    def kill_parent(self) -> float:
        at = self.kill(self.pid)
        assert self.process is not None
        self.process.wait()
        return at

    # --- talking to it --------------------------------------------------------------------------------------

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the admin API over its Unix socket; AssertionError when it says no."""
        return json.loads(self._asked(method, path, body) or b"null")

    def metrics(self) -> str:
        """What a scraper gets."""
        return self._asked("GET", "/metrics").decode()

    def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        try:
            connection.sock.connect(str(self.folder / "admin.sock"))
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            answer = response.read()
            assert response.status < 400, answer
            return answer
        finally:
            connection.close()

    def cli(self, *words: str, code: int | None = 0, timeout_s: float = 40) -> str:
        """Run a command of the balancer; returns its standard output."""
        environment = {**os.environ, "ARV_BALANCE_ADMIN": f"unix:{self.folder}/admin.sock"}
        result = subprocess.run(
            [sys.executable, "-P", "-m", "balancer", *words],
            capture_output=True, text=True, env=environment, timeout=timeout_s, check=False, cwd=ROOT,
        )  # fmt: skip
        assert code is None or result.returncode == code, (result.returncode, result.stdout, result.stderr)
        return result.stdout

    def states(self) -> dict[str, str]:
        """The nodes' states by name; {} while nobody answers."""
        try:
            nodes = self.admin("GET", "/v1/nodes")["nodes"]
        except OSError:
            return {}
        return {node["name"]: node["state"] for node in nodes}

    def until_healthy(self, count: int, within_s: float = START_S) -> None:
        until(lambda: list(self.states().values()).count("healthy") >= count, within_s, f"{count} healthy nodes")

    def ask(self, method: str = "GET", path: str = "/", **more: Any) -> tuple[int, dict[str, str], Any]:
        """One request through the balancer."""
        return ask(self.port, method, path, **more)

    @contextlib.contextmanager
    def load(self, *options: str) -> Iterator[Load]:
        """Run the load generator; call `stop` of what it yields for the result."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.support.load", "--port", str(self.port), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            yield Load(process)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def log_lines(self) -> list[dict[str, Any]]:
        """The access log so far."""
        path = self.folder / "access.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    # --- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything that was started here, in whatever state it is."""
        ours = set(self._pids())
        if self.process is not None and self.process.poll() is None:
            for _ in range(2):
                self.process.send_signal(signal.SIGTERM)
                time.sleep(0.05)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(8)
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                node.process.kill()
                node.process.wait()
        for pid in ours | set(self._pids()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        if "Traceback" in self.words():
            sys.stderr.write(self.words())
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pids(self) -> list[int]:
        """Processes of this site, by its folder in their environment or command."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                    if re.search(rb"balancer", text) and str(self.folder).encode() in text:
                        found.append(int(entry.name))
        return found
