"""Ends what a demo leaves, however the demo ended: the database, processes that still run, the folders.

    python -P -m balancer.demo.keeper FOLDER SCRATCH

The demo holds the other end of its standard input and writes the pid of each process group that it starts, one a line.
The end of the input, which also `kill -9` of the demo brings about, is the sign to begin.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from apiserver.errors import LauncherError
from apiserver.launcher import LocalServer, find_binaries
from balancer.demo.layout import is_running

GRACE_S = 10.0
_LOOK_S = 0.05


def end(groups: list[int]) -> None:
    """End process groups: all politely and at once, then not."""
    for number, grace_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        left = [group for group in groups if _members(group)]
        for group in left:
            with suppress(ProcessLookupError):
                # The head of a group ends its own children; what it leaves gets the hard signal.
                (os.kill if number == signal.SIGTERM and is_running(group) else os.killpg)(group, number)
        _wait(lambda: not any(_members(group) for group in groups), grace_s)


def _members(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                state, _parent, of = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(of) == group and state != "Z":
                    found.append(int(entry.name))
    return found


def _wait(condition: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def main() -> None:
    """Wait for the end of the input, then clean."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends the demo, this is what cleans
    folder, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    end([int(line) for line in sys.stdin])
    with suppress(LauncherError):
        server = LocalServer(scratch / "pg", find_binaries())
        server.stop(immediate=True)
        shutil.rmtree(server.socket_folder, ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
