"""The benchmark runs from end to end, so that it cannot rot; its figures are not looked at."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.equality import prove
from bench.machine import BenchError, binary
from bench.stage import stage
from bench.targets import ON_REQUEST, TARGETS
from bench.targets.haproxy import Haproxy

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not (binary("wrk") and binary("nginx") and not TARGETS["haproxy"].missing()),
        reason="needs wrk, nginx and haproxy: run `make system-packages`",
    ),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPU cores"),
]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a short path: sockets in it have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        yield Path(folder)


def started(scratch: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bench", "--smoke", *options],
        env={**os.environ, "TMPDIR": str(scratch)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_using(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.resolve().is_relative_to(folder):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_a_smoke_run_prints_a_table_without_failed_requests_and_leaves_nothing(scratch: Path) -> None:
    run = started(scratch)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err + out
    for title in ("1 KiB GET, small unique heads", "TLS keep-alive 1 KiB GET", "WebSocket 125 B echo", "KiB per idle"):
        assert title in out
    assert "FAILED" not in out
    assert list(scratch.iterdir()) == []
    assert processes_using(scratch) == []


def test_an_interrupted_run_stops_and_removes_everything(scratch: Path) -> None:
    run = started(scratch, "--rounds", "50", "--seconds", "5")
    deadline = time.monotonic() + 60
    while not processes_using(scratch) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_using(scratch), "it never started anything"
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err + out
    assert list(scratch.iterdir()) == []
    assert processes_using(scratch) == []


def test_a_row_that_does_not_exist_is_named(scratch: Path) -> None:
    run = started(scratch, "--rows", "smal")
    _out, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "there is no row 'smal'; there are small, real" in err


def test_every_installed_peer_proves_that_it_does_equal_work(scratch: Path) -> None:
    peers = ",".join(name for name, target in TARGETS.items() if name not in ON_REQUEST and not target.missing())
    run = started(scratch, "--targets", peers, "--rows", "small")
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err + out


def test_a_peer_that_does_less_than_it_says_is_not_measured() -> None:
    with stage() as on:
        ports = on.nodes()
        with (
            on.started(Haproxy(), ports[:1]) as instance,
            pytest.raises(BenchError, match=r"lacks \['uses all nodes'\]"),
        ):
            prove(instance, nodes=2)
