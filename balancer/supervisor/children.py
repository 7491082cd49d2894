"""Start processes by exec with inherited descriptors, and know when they ended."""

import json
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from balancer.notify import without_service_manager

ENVIRONMENT = "ARV_BALANCE_CHILD"


@dataclass(slots=True)
class Process:
    """A process that we watch: our child, or one adopted from a parent that died."""

    pid: int
    pidfd: int
    started_s: float

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; a process that has ended already is fine."""
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def reap(self) -> int | None:
        """Collect an ended process and close its pidfd; the exit status (negative: signal), None when adopted."""
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            return None
        finally:
            os.close(self.pidfd)
            self.pidfd = -1
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def watch_process(pid: int, started_s: float) -> Process:
    """Return a handle on a running process. Raises ProcessLookupError when there is none."""
    return Process(pid, os.pidfd_open(pid), started_s)


def start(module: str, settings: dict[str, Any], fds: Iterable[int], now_s: float) -> Process:
    """Run `python -P -m module` with `settings` in ARV_BALANCE_CHILD and the descriptors `fds` under their numbers.

    The child leads its own process group, so that Ctrl-C at a terminal reaches the parent alone.
    """
    inherited = set(fds)
    environment = without_service_manager(os.environ)
    environment[ENVIRONMENT] = json.dumps(settings, separators=(",", ":"))
    for fd in inherited:
        os.set_inheritable(fd, True)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", module],
            environment,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setpgroup=0,
            setsigmask=[],
        )
    finally:
        for fd in inherited:
            os.set_inheritable(fd, False)
    return watch_process(pid, now_s)
