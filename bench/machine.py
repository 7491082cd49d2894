"""This machine: the two cores used, its limits, and what a result must name to be repeatable."""

import os
import platform
import random
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PORTS = range(12_000, 32_000)  # below the ephemeral range, so that no client connection ever takes one
ROOT = Path(__file__).parents[1]


class BenchError(Exception):
    """The benchmark cannot go on; the message says what to do."""


def cores() -> tuple[int, int]:
    """Return (target's core, load's core). Raises BenchError when fewer than two may be used."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchError("two CPU cores are needed, one for the target and one for the load; this process may use one")
    return usable[0], usable[1]


def raise_limits() -> int:
    """Take all file descriptors that the hard limit allows; returns how many."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Ports:
    """Hands out loopback ports that nobody uses, each once."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return a free port. Raises BenchError after 500 tries."""
        for _ in range(500):
            port = random.choice(PORTS)
            if port not in self._taken and _is_free(port):
                self._taken.add(port)
                return port
        raise BenchError(f"no free port found between {PORTS.start} and {PORTS.stop}")

    def take_many(self, count: int) -> tuple[int, ...]:
        """Return `count` free ports."""
        return tuple(self.take() for _ in range(count))


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def binary(name: str) -> str | None:
    """Return the path of a program: beside this Python (wheels put theirs there), on PATH, or in /usr/sbin."""
    beside = Path(sys.prefix) / "bin" / name
    if beside.is_file() and os.access(beside, os.X_OK):
        return str(beside)
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def output_of(argv: Sequence[str]) -> str:
    """Return what a short command prints (both streams), or "" when it fails to run."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).strip()


def describe() -> str:
    """Return one line on processor, kernel and Python."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    congestion = "".join(_lines("/proc/sys/net/ipv4/tcp_congestion_control")) or "?"
    return (
        f"{os.cpu_count()} x {model}, Linux {platform.release()}, {congestion} congestion control, "
        f"Python {platform.python_version()}"
    )


def commit() -> str:
    """Return the commit that is measured, marked when files differ from it."""
    head = output_of(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    changed = output_of(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
    if not head or head.startswith("fatal"):
        return "not a git checkout"
    return head + (" with local changes" if changed else "")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
