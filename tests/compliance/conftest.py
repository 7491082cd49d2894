"""One worker in front of one recording node, shared by all vectors of a module."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from balancer.model import AccessLog, Health, Limits, Listener, Node, Snapshot, Timeouts, Verdicts
from balancer.scoreboard import (
    C_HEALTH,
    C_HEALTHY_SINCE_NS,
    C_VERDICT_NS,
    H_ROWS,
    STATE_LISTENING,
    W_STATE,
    Scoreboard,
    control_cell,
    row,
)
from balancer.snapshot import encode
from tests.compliance.recorder import Recorder, Reply, recording

START_S = 20.0
BODY_IDLE_S = 0.4


class Front:
    """The worker and what stands behind it."""

    def __init__(self, recorder: Recorder, address: tuple[str, int], board: Scoreboard, log: Path) -> None:
        self.recorder = recorder
        self.address = address
        self.board = board
        self.log = log

    def begin(self, reply: Reply | None = None) -> None:
        """Before each vector: a clean record, and a fresh verdict: the one before may have spoken against the node."""
        self.recorder.reset(reply)
        cell, now = control_cell(0), time.monotonic_ns()
        self.board.cells[cell + C_HEALTHY_SINCE_NS] = 1
        self.board.cells[cell + C_HEALTH] = Health.HEALTHY
        self.board.cells[cell + C_VERDICT_NS] = now


def snapshot(node_port: int, log: Path) -> Snapshot:
    return Snapshot(
        1,
        "test",
        listeners=(Listener(0, "127.0.0.1:0"),),
        nodes=(Node("api1", 0, "127.0.0.1", node_port),),
        timeouts=replace(Timeouts(), body_idle_s=BODY_IDLE_S, header_s=5.0, response_s=5.0, response_idle_s=5.0),
        limits=replace(Limits(), min_rate_bytes_per_s=0),
        verdicts=Verdicts(interval_s=3600.0),
        access_log=AccessLog(path=str(log)),
    )


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("worker")
    log = folder / "access.log"
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(recording())
        board = Scoreboard.create(time.monotonic_ns())
        stack.callback(board.close)
        board.cells[H_ROWS] = 1
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
        settings = memory(encode(snapshot(recorder.port, log)))
        stack.callback(os.close, settings)
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        stack.callback(os.close, wake)
        front = Front(recorder, listener.getsockname(), board, log)
        front.begin()
        child = {
            "role": "worker",
            "slot": 0,
            "run_dir": str(folder),
            "scoreboard": board.fd,
            "wake": wake,
            "wakes": [wake],
            "listeners": {"0": [listener.fileno()]},
            "snapshot": [settings],
            "log_fd": 1,
        }
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "balancer.worker"],
            env={**os.environ, "ARV_BALANCE_CHILD": json.dumps(child)},
            pass_fds=(board.fd, wake, listener.fileno(), settings),
        )
        stack.callback(end, process)
        wait_until_listening(process, board)
        yield front


def memory(data: bytes) -> int:
    """Return a memfd with `data`."""
    fd = os.memfd_create("test-snapshot", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def wait_until_listening(process: "subprocess.Popen[bytes]", board: Scoreboard) -> None:
    deadline = time.monotonic() + START_S
    while board.cells[row(0) + W_STATE] != STATE_LISTENING:
        assert process.poll() is None, f"the worker ended with {process.returncode}"
        assert time.monotonic() < deadline, "the worker does not listen"
        time.sleep(0.01)


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait(10)
