"""The loop of a worker: one level-triggered poller, two phases a turn.

First everything that is ready is read and parsed, then all sends are done: a loopback send runs the receiver's side in
the kernel and wakes it, so doing them together keeps our own code warm (measured 7 % on realistic heads). Descriptors
are closed at the end of a turn, so that an event of an old one never meets a new one of the same number.
"""

import heapq
import logging
from collections.abc import Callable
from typing import Protocol

from balancer.net.clock import monotonic_ns
from balancer.net.poller import Poller, SelectorsPoller

logger = logging.getLogger(__name__)

BUFFER_BYTES = 256 << 10  # more than a head and 64 KiB of body, so that such a message is one read
SWEEP_NS = 250_000_000  # deadlines are looked at this often
HEARTBEAT_NS = 500_000_000
ROUNDS = 64  # of sending and looking again in one turn; then the clock and the other connections have their turn


class Handler(Protocol):
    """Owner of a descriptor."""

    def ready(self, mask: int, /) -> None:
        """Do what its readiness allows. Spurious calls happen."""

    def broken(self, error: Exception, /) -> None:
        """An unexpected exception came out of `ready` or `flush`; give everything back."""


class Sender(Handler, Protocol):
    """Somebody with output for phase two."""

    def flush(self) -> None:
        """Send."""


class Reactor:
    """Turns the wheel. Single-threaded; everything below it may change its state freely."""

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.poller_forgets = not isinstance(poller, SelectorsPoller)
        self.handlers: dict[int, Handler] = {}
        self.sends: list[Sender] = []  # phase two of this turn
        self.again: list[Callable[[], None]] = []  # after phase two: what input is left in our own buffers
        self.closing: list[Callable[[], None]] = []
        self.turn_ends: list[Callable[[], None]] = []  # called each turn
        self.sweeps: list[Callable[[], None]] = []  # called every SWEEP_NS
        self.buffer = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.now = monotonic_ns()  # ns; as of this turn
        self.running = True
        self.soon_ns = 0  # somebody wants a turn by then; 0 nobody
        self.turns = 0
        self.lag_max_ns = 0
        self._later: list[tuple[int, int, Callable[[], None]]] = []
        self._later_count = 0
        self._next_sweep = self.now + SWEEP_NS

    def watch(self, fd: int, mask: int, handler: Handler) -> None:
        """Start watching `fd`."""
        self.handlers[fd] = handler
        self.poller.register(fd, mask)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`; it may be closed at the end of the turn."""
        if self.handlers.pop(fd, None) is not None:
            self.poller.unregister(fd)

    def retire(self, fd: int, close: Callable[[], None]) -> None:
        """Stop watching `fd` and close it at the end of the turn.

        Closing takes it out of an epoll set by itself, so one system call less for a connection that nobody shares.
        """
        if self.handlers.pop(fd, None) is not None and not self.poller_forgets:
            self.poller.unregister(fd)
        self.closing.append(close)

    def call_later(self, delay_ns: int, call: Callable[[], None]) -> None:
        """Call once after `delay_ns`. For rare events only; deadlines are swept."""
        self._later_count += 1
        heapq.heappush(self._later, (self.now + delay_ns, self._later_count, call))

    def want_turn(self, within_ns: int) -> None:
        """Ask for a turn to come soon even when nothing is ready."""
        at = self.now + within_ns
        if not self.soon_ns or at < self.soon_ns:
            self.soon_ns = at

    def run(self) -> None:
        """Turn until `running` is false."""
        while self.running:
            self.turn()

    def turn(self) -> None:
        """One turn: wait, read and parse, send, keep house."""
        events = self.poller.poll(self._timeout_s())
        self.now = began = monotonic_ns()
        self.turns += 1
        handlers = self.handlers
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:
                try:
                    handler.ready(mask)
                except Exception as error:  # noqa: BLE001 - top of a unit of work: one connection pays, not all
                    handler.broken(error)
        self._send()
        if self._later or self.now >= self._next_sweep:
            self._run_timers()
        for call in self.turn_ends:
            call()
        if self.closing:
            closing, self.closing = self.closing, []
            for call in closing:
                call()
        if self.now - began > self.lag_max_ns:
            self.lag_max_ns = self.now - began

    def _send(self) -> None:
        for _ in range(ROUNDS):
            if not self.sends and not self.again:
                return
            sends, self.sends = self.sends, []
            for sender in sends:
                try:
                    sender.flush()
                except Exception as error:  # noqa: BLE001 - as in `turn`
                    sender.broken(error)
            again, self.again = self.again, []
            for call in again:
                call()

    def _timeout_s(self) -> float:
        if self.again or self.sends:
            return 0.0
        until = self._next_sweep
        if self._later and self._later[0][0] < until:
            until = self._later[0][0]
        if self.soon_ns and self.soon_ns < until:
            until = self.soon_ns
        self.soon_ns = 0
        left = until - monotonic_ns()
        # epoll waits in whole milliseconds, rounded up by Python
        return left / 1e9 if left > 0 else 0.0

    def _run_timers(self) -> None:
        self.now = monotonic_ns()
        while self._later and self._later[0][0] <= self.now:
            heapq.heappop(self._later)[2]()
        if self.now >= self._next_sweep:
            self._next_sweep = self.now + SWEEP_NS
            for sweep in self.sweeps:
                sweep()
        self._send()
