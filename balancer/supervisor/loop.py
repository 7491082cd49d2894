"""The parent's event loop: descriptors, timers and signals on one poll object."""

import heapq
import itertools
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

READ = select.POLLIN | select.POLLHUP | select.POLLERR
WRITE = select.POLLOUT


@dataclass(order=True, slots=True)
class Timer:
    """A pending call; `cancel` makes it do nothing."""

    when_s: float
    number: int
    call: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Forget the call."""
        self.call = None


class Loop:
    """Run callbacks until stopped. Callbacks must not block; an exception from one ends the process."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._numbers = itertools.count()
        self._running = False

    @staticmethod
    def now() -> float:
        """CLOCK_MONOTONIC, the clock of all processes."""
        return time.monotonic()

    def watch(self, fd: int, call: Callable[[], None], events: int = READ) -> None:
        """Call `call` while `fd` is ready for `events`; replaces an earlier watch."""
        self._calls[fd] = call
        self._poll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Stop watching; unknown descriptors are fine, so that two owners of an end may both say so."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call once after `delay_s`."""
        timer = Timer(self.now() + delay_s, next(self._numbers), call)
        heapq.heappush(self._timers, timer)
        return timer

    def on_signals(self, numbers: Iterable[int], call: Callable[[int], None]) -> None:
        """Call with the number for each signal, outside of signal context."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def deliver() -> None:
            for number in os.read(reader, 64):
                call(number)

        self.watch(reader, deliver)

    def run(self) -> None:
        """Run until `stop`."""
        self._running = True
        while self._running:
            ready = self._poll.poll(self._wait_ms())
            for fd, _events in ready:
                call = self._calls.get(fd)  # an earlier callback of this round may have ended it
                if call is not None:
                    call()
            self._run_timers()

    def stop(self) -> None:
        """End `run` after the current round."""
        self._running = False

    def _wait_ms(self) -> int | None:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0, int((self._timers[0].when_s - self.now()) * 1000) + 1)

    def _run_timers(self) -> None:
        now = self.now()
        while self._timers and self._timers[0].when_s <= now:
            call = heapq.heappop(self._timers).call
            if call is not None:
                call()
