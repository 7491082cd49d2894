"""Load from the second core: wrk for HTTP, `bench.pingpong` for WebSocket, `bench.idle` for waiting connections."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.machine import ROOT, BenchError, binary
from bench.process import Process

_SCRIPT = Path(__file__).with_name("load.lua")
_RESULT = re.compile(r"^RESULT (.*)$", re.MULTILINE)
_MODULES = {"PYTHONPATH": str(ROOT)}


@dataclass(frozen=True, slots=True)
class Work:
    """What one row sends. `kind`: small, real, post, close (see load.lua) or websocket.

    `unit_bytes`: when set, work done is counted as received bytes in units of this size, because a run ends in the
    middle of some answers and one answer is much.
    """

    kind: str
    path: str = "/small"
    body_bytes: int = 0
    connections: int = 64
    tls: bool = False
    unit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """What a run of the load did: units of work, failures of any kind, and latencies in microseconds (0: unknown)."""

    units: float
    errors: int
    seconds: float
    p50_us: int
    p99_us: int


class Driver:
    """Starts load on one core, with its files in one folder."""

    def __init__(self, *, core: int, folder: Path) -> None:
        self._core, self._folder = core, folder
        wrk = binary("wrk")
        if wrk is None:
            raise BenchError("wrk is needed to make load: run `make system-packages`")
        self._wrk = wrk
        self._seed = 0

    def run(self, work: Work, port: int, seconds: float) -> Done:
        """Run `work` against a port for `seconds`. Raises BenchError when the load itself fails."""
        argv = self._argv(work, port)
        with Process(argv, core=self._core, folder=self._folder, env=_MODULES).start(stdout=subprocess.PIPE) as load:
            if work.kind == "websocket" and load.child.stdout is not None:
                load.child.stdout.readline()  # RUNNING
            time.sleep(seconds)
            load.child.send_signal(signal.SIGINT)
            try:
                out, _err = load.child.communicate(timeout=20)
            except subprocess.TimeoutExpired as exc:
                raise BenchError(f"{argv[0]} does not end") from exc
            found = _RESULT.search(out.decode())
            if not found:
                raise BenchError(f"{argv[0]} gave no result (status {load.child.returncode}): {load.errors()}")
        return done(found.group(1), work)

    def _argv(self, work: Work, port: int) -> list[str]:
        if work.kind == "websocket":
            numbers = (port, work.connections, work.body_bytes)
            return [sys.executable, "-P", "-m", "bench.pingpong", *map(str, numbers)]
        self._seed += 1
        url = f"{'https' if work.tls else 'http'}://127.0.0.1:{port}{work.path}"
        wrk = [self._wrk, "-t1", f"-c{work.connections}", "-d600s", "--timeout", "10s", "-s", str(_SCRIPT), url]
        return [*wrk, "--", work.kind, work.path, str(work.body_bytes), str(self._seed)]


class IdleConnections:
    """Holds `count` kept-alive connections to a port while in its `with` block."""

    def __init__(self, *, core: int, folder: Path, port: int, count: int, tls: bool = False) -> None:
        argv = [sys.executable, "-P", "-m", "bench.idle", str(port), str(count), *(["tls"] if tls else [])]
        self._process = Process(argv, core=core, folder=folder, env=_MODULES)
        self._count = count

    def __enter__(self) -> "IdleConnections":
        self._process.start(stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        stdout = self._process.child.stdout
        if stdout is None or stdout.readline() != f"OPEN {self._count}\n".encode():
            said = self._process.errors()
            self._process.stop()
            raise BenchError(f"{self._count} idle connections could not be opened: {said}")
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.stop()


def done(line: str, work: Work) -> Done:
    """Read a RESULT line."""
    values = {name: int(value) for name, _, value in (pair.partition("=") for pair in line.split())}
    units: float = values["requests"]
    if work.unit_bytes:
        units = values["bytes"] / work.unit_bytes
    errors = sum(values[name] for name in ("connect", "read", "write", "timeout", "status"))
    return Done(units, errors, values["duration_us"] / 1e6, values["p50_us"], values["p99_us"])
