"""Asking the running demo, from another process: a Unix socket, one JSON object each way a connection."""

import json
import socket
from pathlib import Path
from typing import Any

from balancer.errors import BalanceError

ANSWER_S = 120.0
Document = dict[str, Any]


def ask(path: Path, do: str, **more: Any) -> Document:
    """Ask the demo for something and wait for it. Raises BalanceError when it says no or is not there."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
            said: Document = json.loads(connection.makefile("rb").readline())
        except (OSError, ValueError) as exc:
            raise BalanceError(f"the demo does not answer at {path}: {exc}") from exc
    if "error" in said:
        raise BalanceError(str(said["error"]))
    return said


def find(folder: Path) -> Path:
    """Return the socket of the demo that runs in a folder. Raises BalanceError when none does."""
    try:
        return Path((folder / "remote").read_text().strip())
    except OSError as exc:
        raise BalanceError(f"no demo runs in {folder}: start one with `make demo` or `arv-balance demo`") from exc
