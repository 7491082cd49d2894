"""The control process: started, watched, replaced; and the line to it."""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from balancer.errors import WireError
from balancer.scoreboard import H_CONTROL_BEAT_NS, H_CONTROL_PID
from balancer.supervisor.children import Process, start
from balancer.supervisor.holdings import Holdings, close_all
from balancer.supervisor.loop import READ, WRITE, Loop, Timer
from balancer.supervisor.rules import Beat, Timings, failures_after, judge_beat, restart_delay
from balancer.wire import Channel, Message

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """What every control process is started with."""

    module: str
    config: str
    overrides: dict[str, Any]


class ControlKeeper:
    """Keeps one control process alive.

    on_message: gets a message and its descriptors (now the receiver's). on_end: gets the exit status of a process
    that was not asked to end, and says whether to start another. workers: the list for its settings.
    """

    def __init__(
        self,
        loop: Loop,
        holdings: Holdings,
        settings: ControlSettings,
        *,
        timings: Timings,
        on_message: Callable[[Message, tuple[int, ...]], None],
        on_end: Callable[[int | None], bool],
        workers: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._loop = loop
        self._holdings = holdings
        self._settings = settings
        self._timings = timings
        self._on_message = on_message
        self._on_end = on_end
        self._workers = workers
        self.process: Process | None = None
        self.failures = 0
        self._channel: Channel | None = None
        self._restart: Timer | None = None
        self._kill: Timer | None = None
        self._when_ended: Callable[[], None] | None = None

    def start(self) -> None:
        """Start it with what is held now."""
        self._restart = None
        held = self._holdings
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        held.board.cells[H_CONTROL_PID] = 0
        settings = {
            "role": "control",
            "config": self._settings.config,
            "parent": theirs.fileno(),
            "scoreboard": held.board.fd,
            "wakes": held.wakes,
            "run_dir": str(held.run_dir),
            "workers": self._workers(),
            "snapshot": held.snapshot,
            "overrides": self._settings.overrides,
        }
        with theirs:
            fds = [theirs.fileno(), held.board.fd, *held.wakes, *held.snapshot]
            self.process = start(self._settings.module, settings, fds, self._loop.now())
        self._channel = Channel(ours)
        self._loop.watch(self.process.pidfd, self._ended)
        self._watch_channel()

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Tell control; without one it is dropped, since a new one starts with what is true then."""
        if self._channel is None:
            return
        try:
            self._channel.send(message, fds)
        except WireError:
            self._hang_up()
        else:
            self._watch_channel()

    def end(self, patience_s: float, then: Callable[[], None]) -> None:
        """End it for good: hang up, kill it after `patience_s`, then call."""
        if self._restart is not None:
            self._restart.cancel()
        if self.process is None:
            then()
            return
        self._when_ended = then
        self._hang_up()
        self._kill = self._loop.later(patience_s, self.process.kill)

    def beat(self, now_s: float) -> Beat:
        """Judge its heartbeat."""
        if self.process is None:
            return Beat.FRESH  # between two of them; the back-off is bounded
        beat_s = self._holdings.board.cells[H_CONTROL_BEAT_NS] / 1e9
        return judge_beat(now_s, self.process.started_s, beat_s, self._timings)

    def tick(self, now_s: float) -> None:
        """Kill it when it is stuck."""
        if self.process is not None and self.beat(now_s) is Beat.DEAD:
            logger.warning("control (pid %d) is stuck, killed", self.process.pid)
            self.process.kill()

    def _watch_channel(self) -> None:
        if self._channel is not None:
            wanted = READ | WRITE if self._channel.wants_write else READ
            self._loop.watch(self._channel.fileno(), self._on_ready, wanted)

    def _on_ready(self) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            channel.flush()
            messages = channel.receive()
        except WireError:
            self._hang_up()
            return
        self._watch_channel()
        for message, fds in messages:
            if self._channel is channel:
                self._on_message(message, fds)
            else:
                close_all(fds)

    def _hang_up(self) -> None:
        """Close the line; a control process without one ends by itself or is killed."""
        if self._channel is None:
            return
        self._loop.unwatch(self._channel.fileno())
        self._channel.close()
        self._channel = None
        if self._when_ended is None and self.process is not None:
            self._kill = self._loop.later(self._timings.kill_grace_s, self.process.kill)

    def _ended(self) -> None:
        process = self.process
        if process is None:
            return
        self._on_ready()  # its last words
        self._loop.unwatch(process.pidfd)
        status = process.reap()
        self.process = None
        if self._kill is not None:
            self._kill.cancel()
        then, self._when_ended = self._when_ended, None
        self._hang_up()
        if then is not None:
            then()
            return
        self.failures = failures_after(self.failures, self._loop.now() - process.started_s, self._timings)
        logger.warning("control (pid %d) ended (%s)", process.pid, status)
        if self._on_end(status):
            self._restart = self._loop.later(restart_delay(self.failures, self._timings), self.start)
