"""A worker process: `python -P -m balancer.worker`, started with its descriptors (docs/architecture.md)."""

import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
from typing import Any

from balancer.errors import BalanceError
from balancer.net.clock import monotonic_ns
from balancer.net.controlchannel import ControlSocket, Holdings
from balancer.net.plane import Plane
from balancer.net.poller import READ, Poller, make_poller
from balancer.net.reactor import Reactor
from balancer.scoreboard import ROW_CELLS, STATE_NONE, STATE_STARTING, W_PID, W_STARTED_NS, W_STATE, WORKERS, Scoreboard

logger = logging.getLogger(__name__)

STOP_DEADLINE_S = 30.0  # of a SIGTERM that comes without a deadline
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_heap() -> None:
    """Tell glibc not to give freed memory back at once.

    Buffers of 64 KiB at the heap's top would be unmapped and faulted in again for every message: 15 to 90 % on 64 KiB
    bodies. Does nothing with another C library.
    """
    libc = ctypes.CDLL(None)
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 256 << 20)
        mallopt(M_TOP_PAD, 16 << 20)
        mallopt(M_MMAP_THRESHOLD, 64 << 20)


class Wakeups:
    """Our eventfd: somebody wants us to look again."""

    def __init__(self, plane: Plane, fd: int) -> None:
        self.plane = plane
        self.fd = fd

    def ready(self, mask: int) -> None:
        """See reactor.Handler."""
        del mask
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return
        self.plane.health_changed()

    def broken(self, error: Exception) -> None:
        """See reactor.Handler."""
        logger.error("a wake-up failed inside: %r", error, exc_info=error)


class Signals:
    """SIGTERM as an event of the loop."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.receiver, self.sender = socket.socketpair()
        self.receiver.setblocking(False)
        self.sender.setblocking(False)

    def install(self) -> None:
        """Catch SIGTERM; SIGINT is the parent's business (Ctrl-C reaches the whole group)."""
        signal.set_wakeup_fd(self.sender.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.plane.reactor.watch(self.receiver.fileno(), READ, self)

    def ready(self, mask: int) -> None:
        """See reactor.Handler."""
        del mask
        try:
            numbers = self.receiver.recv(64)
        except BlockingIOError:
            return
        if signal.SIGTERM in numbers:
            self.plane.stop(STOP_DEADLINE_S, final=True)

    def broken(self, error: Exception) -> None:
        """See reactor.Handler."""
        logger.error("a signal failed inside: %r", error, exc_info=error)


def run(given: dict[str, Any], poller: Poller | None = None, plane_type: type[Plane] = Plane) -> int:
    """Serve until stopped; `given` is ARV_BALANCE_CHILD, `poller` this system's best one. Returns the exit code."""
    keep_heap()
    board = Scoreboard(given["scoreboard"])
    slot = given["slot"]
    row = WORKERS + slot * ROW_CELLS
    board.cells[row + W_PID] = os.getpid()
    board.cells[row + W_STARTED_NS] = monotonic_ns()
    board.cells[row + W_STATE] = STATE_STARTING
    reactor = Reactor(poller or make_poller(force_selectors=bool(given.get("force_selectors"))))
    plane = plane_type(reactor, board, slot, given["wakes"], given.get("log_fd", 1))
    holdings = Holdings(plane, given["wakes"])
    os.set_blocking(given["wake"], False)
    reactor.watch(given["wake"], READ, Wakeups(plane, given["wake"]))
    Signals(plane).install()
    control = ControlSocket(plane, holdings, os.path.join(given["run_dir"], f"worker-{slot}-{os.getpid()}.sock"))  # noqa: PTH118
    control.listen()
    for listener, fds in given["listeners"].items():
        plane.add_sockets(int(listener), [socket.socket(fileno=fd) for fd in fds])
    if given["snapshot"]:
        try:
            holdings.take_snapshot(list(given["snapshot"]))
        except BalanceError as error:
            logger.error("the snapshot cannot be used: %s", error)
    plane.turn_end()
    gc.collect()
    gc.freeze()  # what is there stays: the collector needs not look at it again
    reactor.run()
    plane.close()
    control.close()
    board.cells[row + W_STATE] = STATE_NONE
    return 0


def main() -> int:
    """Entry of `python -m balancer.worker`."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    return run(json.loads(os.environ["ARV_BALANCE_CHILD"]))


if __name__ == "__main__":
    sys.exit(main())
