"""Replace the program under the same pid: everything held is passed on by descriptor number."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from balancer import __version__
from balancer.errors import StateError
from balancer.scoreboard import H_PARENT_PID, Scoreboard
from balancer.supervisor.children import Process, watch_process
from balancer.supervisor.holdings import Holdings, fresh_board, fresh_wakes
from balancer.supervisor.sockets import Bind, Held, Wanted

ENVIRONMENT = "ARV_BALANCE_REEXEC"
FORMAT = 1  # of the state in the environment; a program that reads another one is not exec'd


def self_check() -> str:
    """What `--self-check` prints: proof that the program starts, and which state it takes over."""
    return json.dumps({"version": __version__, "format": FORMAT})


def accepts(output: str) -> bool:
    """Judge the output of a self-check."""
    try:
        return bool(json.loads(output)["format"] == FORMAT)
    except (ValueError, KeyError, TypeError):
        return False


def check_command() -> list[str]:
    """The command of the self-check: the same interpreter and flags, one more option."""
    return [*_command(), "--self-check"]


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


def replace(held: Holdings, workers: list[tuple[int, int, bool]]) -> None:
    """Exec the program that is on disk now. workers: (slot, pid, foreign). Does not return; raises OSError.

    The old program's control process must be gone.
    """
    binds = [
        {
            "wanted": asdict(bind.wanted),
            "shared": bind.shared,
            "inherited": bind.inherited,
            "sockets": [[item.sock.fileno(), sorted(item.owners)] for item in bind.sockets],
        }
        for bind in held.registry.binds.values()
    ]
    state = {
        "lock": held.lock,
        "scoreboard": held.board.fd,
        "wakes": held.wakes,
        "snapshot": held.snapshot,
        "binds": binds,
        "spare": [sock.fileno() for sock in held.registry.spare],
        "workers": workers,
    }
    for fd in _descriptors(state):
        os.set_inheritable(fd, True)
    try:
        os.execve(sys.executable, _command(), {**os.environ, ENVIRONMENT: json.dumps(state)})  # noqa: S606 - ourselves
    finally:
        for fd in _descriptors(state):
            os.set_inheritable(fd, False)


def taken_over(
    environment: Mapping[str, str], run_dir: Path, now_s: float
) -> tuple[Holdings, list[tuple[int, Process, bool]]] | None:
    """Return what the program before us held, and its workers (slot, process, foreign); None at a plain start."""
    if ENVIRONMENT not in environment:
        return None
    state = json.loads(environment[ENVIRONMENT])
    for fd in _descriptors(state):
        os.set_inheritable(fd, False)
    foreign = False
    try:
        board, wakes = Scoreboard(state["scoreboard"]), tuple(state["wakes"])
        board.cells[H_PARENT_PID] = os.getpid()
    except StateError:
        board, wakes, foreign = fresh_board(), fresh_wakes(), True
    held = Holdings(run_dir, state["lock"], board, wakes, snapshot=tuple(state["snapshot"]))
    for item in state["binds"]:
        bind = Bind(Wanted(**item["wanted"]), shared=item["shared"], inherited=item["inherited"])
        bind.sockets = [Held(socket.socket(fileno=fd), set(owners)) for fd, owners in item["sockets"]]
        held.registry.binds[bind.wanted.slot] = bind
    held.registry.spare = [socket.socket(fileno=fd) for fd in state["spare"]]
    workers: list[tuple[int, Process, bool]] = []
    for slot, pid, was_foreign in state["workers"]:
        try:
            workers.append((slot, watch_process(pid, now_s), foreign or was_foreign))
        except ProcessLookupError:
            continue  # an adopted one that ended during the exec
    return held, workers


def _descriptors(state: dict[str, Any]) -> list[int]:
    sockets = [fd for bind in state["binds"] for fd, _owners in bind["sockets"]]
    return [state["lock"], state["scoreboard"], *state["wakes"], *state["snapshot"], *sockets, *state["spare"]]
