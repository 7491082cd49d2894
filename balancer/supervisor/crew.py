"""The workers: who sits on which slot, who is on the way out, and which sockets each has."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from balancer.scoreboard import (
    H_RESTARTS,
    H_ROWS,
    MAX_WORKERS,
    STATE_LISTENING,
    W_BEAT_NS,
    W_PID,
    W_STATE,
    row,
)
from balancer.supervisor.allotment import Allotment
from balancer.supervisor.children import Process, start
from balancer.supervisor.holdings import Holdings, read_snapshot
from balancer.supervisor.link import Link, socket_path
from balancer.supervisor.loop import Loop, Timer
from balancer.supervisor.rules import (
    Beat,
    Timings,
    failures_after,
    free_slot,
    judge_beat,
    restart_delay,
)
from balancer.wire import Message

logger = logging.getLogger(__name__)
LISTENING_POLL_S = 0.02


@dataclass(slots=True, eq=False)
class Worker:
    """A worker process on a slot."""

    slot: int
    process: Process
    link: Link
    stopping: bool = False
    foreign: bool = False  # writes to a scoreboard of another layout, so its heartbeat is not seen
    reported: bool = False  # its stale heartbeat is known to control
    kill: Timer | None = None


@dataclass(slots=True, eq=False)
class Seat:
    """A slot that must have a worker: now, or after a back-off."""

    worker: Worker | None = None
    failures: int = 0
    restart: Timer | None = None
    lent: bool = False  # others keep its sockets while it waits for a restart


class Crew:
    """Keeps the wanted number of workers alive on the listening sockets.

    `report` gets what control and people want to know: `worker-lost`, `worker-stuck`, `workers`.
    """

    def __init__(
        self, loop: Loop, holdings: Holdings, *, module: str, timings: Timings, report: Callable[[Message], None]
    ) -> None:
        self._loop = loop
        self._holdings = holdings
        self._module = module
        self._timings = timings
        self._report = report
        self.seats: dict[int, Seat] = {}
        self.retiring: list[Worker] = []  # of another program; they get `stop` when all seats listen
        self.stopping: list[Worker] = []
        self.closed = False  # no replacements any more
        self.drain_s = 60.0  # time that a worker gets to end its exchanges
        self._awaiting: Timer | None = None
        self._allotment = Allotment(holdings.registry, self._send_to)

    def workers(self) -> Iterator[Worker]:
        """All that are alive."""
        yield from (seat.worker for seat in self.seats.values() if seat.worker is not None)
        yield from self.retiring
        yield from self.stopping

    def described(self) -> list[dict[str, Any]]:
        """The workers as control knows them."""
        return [
            {
                "slot": worker.slot,
                "pid": worker.process.pid,
                "socket": str(socket_path(self._holdings.run_dir, worker.slot, worker.process.pid)),
                **({"stopping": True} if worker.stopping else {}),
            }
            for worker in sorted(self.workers(), key=lambda worker: worker.slot)
        ]

    @property
    def is_listening(self) -> bool:
        """Every seat has a worker that accepts."""
        return bool(self.seats) and all(seat.worker and self._listens(seat.worker) for seat in self.seats.values())

    @property
    def start_failures(self) -> int:
        """Most quick deaths in a row of any seat."""
        return max((seat.failures for seat in self.seats.values()), default=0)

    def is_fresh(self, now_s: float) -> bool:
        """No worker's heartbeat is so old that it will be killed."""
        return all(self._beat(worker, now_s) is not Beat.DEAD for worker in self.workers())

    def has_room(self, count: int) -> bool:
        """Tell whether `resize(count)` finds enough free slots."""
        return count - len(self.seats) <= MAX_WORKERS - len({worker.slot for worker in self.workers()})

    # --- who is there ---------------------------------------------------------------------------------------

    def adopt(self, slot: int, process: Process) -> None:
        """Take in a running worker on a seat. An access log on standard output goes to ours from now on."""
        worker = self._watch(slot, process)
        self.seats[slot] = Seat(worker)
        snapshot = read_snapshot(self._holdings.snapshot[0]) if self._holdings.snapshot else None
        if snapshot is not None and snapshot.access_log.path == "-":
            worker.link.send({"type": "reopen-log"}, (1,))

    def adopt_outdated(self, slot: int, process: Process, *, foreign: bool) -> None:
        """Take in a worker of another program until its successors listen."""
        worker = self._watch(slot, process)
        worker.foreign = foreign
        self.retiring.append(worker)

    def resize(self, count: int) -> None:
        """Have `count` seats on the sockets as they are now: start, stop, and hand out sockets."""
        leaving = sorted(self.seats)[count:]
        retired = [worker for slot in leaving if (worker := self.seats.pop(slot).worker) is not None]
        taken = [worker.slot for worker in self.workers()] + [worker.slot for worker in retired]
        fresh: list[int] = []
        while len(self.seats) < count and (slot := free_slot([*taken, *self.seats], MAX_WORKERS)) is not None:
            self.seats[slot] = Seat()
            fresh.append(slot)
        self._allotment.share(sorted(self.seats))
        for slot in fresh:
            self._start(slot)
        for worker in retired:
            self.stop(worker, self.drain_s)
        self._await_listening()
        self._changed()

    def withdraw(self, listener: int) -> None:
        """Tell every worker to accept no more on a listener slot."""
        self._allotment.withdraw(listener, [worker.slot for worker in self.workers()])

    def stop(self, worker: Worker, deadline_s: float, *, final: bool = False) -> None:
        """Ask a worker to finish; killed when it is still there after the deadline. `final`: nobody follows it."""
        if worker in self.retiring:
            self.retiring.remove(worker)
        if worker not in self.stopping:
            self.stopping.append(worker)
        worker.stopping = True
        if worker.slot not in self.seats:
            self._allotment.disown(worker.slot)
        worker.link.send({"type": "stop", "deadline_s": deadline_s, "final": final})
        if worker.kill is not None:
            worker.kill.cancel()
        worker.kill = self._loop.later(deadline_s + self._timings.kill_grace_s, worker.process.kill)

    def stop_all(self, deadline_s: float) -> None:
        """Ask all to finish; nobody is replaced from now on."""
        self.closed = True
        for seat in self.seats.values():
            if seat.restart is not None:
                seat.restart.cancel()
        for worker in list(self.workers()):
            self.stop(worker, deadline_s, final=True)
        self.seats.clear()

    def kill_all(self) -> None:
        """End all at once."""
        for worker in self.workers():
            worker.process.kill()

    # --- what happens to them -------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Look at the heartbeats; let old workers go once the new ones listen."""
        for worker in list(self.workers()):
            beat = self._beat(worker, now_s)
            if beat is Beat.FRESH:
                worker.reported = False
                continue
            if not worker.reported:
                worker.reported = True
                self._report(
                    {"type": "worker-stuck", **self._named(worker), "age_s": round(self._age(worker, now_s), 1)}
                )
            if beat is Beat.DEAD:
                logger.warning("worker %d (pid %d) is stuck, killed", worker.slot, worker.process.pid)
                worker.process.kill()
        self._take_back()
        self._retire()

    def _retire(self) -> None:
        if self.retiring and self.is_listening:
            for worker in list(self.retiring):
                self.stop(worker, self.drain_s)
            self._changed()

    def _await_listening(self) -> None:
        if self._awaiting is not None:
            self._awaiting.cancel()
        self._retire()
        if not self.closed and not self.is_listening:
            self._awaiting = self._loop.later(LISTENING_POLL_S, self._await_listening)

    def _start(self, slot: int) -> None:
        seat = self.seats.get(slot)
        if self.closed or seat is None or seat.worker is not None:
            return
        seat.restart = None
        held, board = self._holdings, self._holdings.board
        board.cells[H_ROWS] = max(board.cells[H_ROWS], slot + 1)
        listeners = self._allotment.of(slot)
        settings = {
            "role": "worker",
            "slot": slot,
            "run_dir": str(held.run_dir),
            "scoreboard": board.fd,
            "wake": held.wakes[slot],
            "wakes": held.wakes,
            "listeners": listeners,
            "snapshot": held.snapshot,
            "log_fd": 1,
        }
        sockets = [fd for fds in listeners.values() for fd in fds]
        process = start(self._module, settings, [board.fd, *held.wakes, *sockets, *held.snapshot], self._loop.now())
        seat.worker = self._watch(slot, process)

    def _watch(self, slot: int, process: Process) -> Worker:
        path = socket_path(self._holdings.run_dir, slot, process.pid)
        worker = Worker(slot, process, Link(self._loop, path, self._on_message))
        self._loop.watch(process.pidfd, lambda: self._ended(worker))
        worker.link.open()
        return worker

    def _ended(self, worker: Worker) -> None:
        self._loop.unwatch(worker.process.pidfd)
        status = worker.process.reap()
        worker.link.close()
        if worker.kill is not None:
            worker.kill.cancel()
        socket_path(self._holdings.run_dir, worker.slot, worker.process.pid).unlink(missing_ok=True)
        lost = 0 if worker.foreign else self._holdings.board.book_lost(worker.slot)
        self._wake_all()
        polite = worker.stopping and status in (0, None)
        if not polite:
            logger.warning(
                "worker %d (pid %d) ended (%s); %d exchanges lost", worker.slot, worker.process.pid, status, lost
            )
            self._report({"type": "worker-lost", **self._named(worker), "status": status, "lost": lost})
        for group in (self.retiring, self.stopping):
            if worker in group:
                group.remove(worker)
                self._allotment.disown(worker.slot)
        seat = self.seats.get(worker.slot)
        if seat is not None and seat.worker is worker:
            self._replace(worker, seat)
        self._changed()

    def _replace(self, worker: Worker, seat: Seat) -> None:
        seat.worker = None
        seat.failures = failures_after(seat.failures, self._loop.now() - worker.process.started_s, self._timings)
        self._holdings.board.cells[H_RESTARTS] += 1
        delay_s = restart_delay(seat.failures, self._timings)
        if delay_s:
            logger.warning(
                "worker %d died %d times in a row; next start in %.1f s", worker.slot, seat.failures, delay_s
            )
            seat.restart = self._loop.later(delay_s, lambda: self._start(worker.slot))
            self._lend(seat)
        else:
            self._start(worker.slot)

    @staticmethod
    def _on_message(message: Message) -> None:
        """Workers tell us what they tell control; `listening` needs no answer and events are control's."""
        logger.debug("a worker says %s", message)

    def _lend(self, seat: Seat) -> None:
        present = [slot for slot, other in sorted(self.seats.items()) if other.worker is not None]
        if present:
            seat.lent = True
            self._allotment.share(present)

    def _take_back(self) -> None:
        for slot, seat in self.seats.items():
            if seat.lent and seat.worker is not None and self._listens(seat.worker):
                seat.lent = False
                self._allotment.take_back(slot)

    def _send_to(self, slot: int, message: Message, fds: tuple[int, ...]) -> None:
        for worker in self.workers():
            if worker.slot == slot:
                worker.link.send(message, fds)

    # --- small questions ------------------------------------------------------------------------------------

    def _listens(self, worker: Worker) -> bool:
        cells, base = self._holdings.board.cells, row(worker.slot)
        return bool(cells[base + W_STATE] == STATE_LISTENING and cells[base + W_PID] == worker.process.pid)

    def _beat_s(self, worker: Worker) -> float:
        return float(self._holdings.board.cells[row(worker.slot) + W_BEAT_NS] / 1e9)

    def _beat(self, worker: Worker, now_s: float) -> Beat:
        if worker.foreign:
            return Beat.FRESH
        return judge_beat(now_s, worker.process.started_s, self._beat_s(worker), self._timings)

    def _age(self, worker: Worker, now_s: float) -> float:
        return now_s - max(self._beat_s(worker), worker.process.started_s)

    @staticmethod
    def _named(worker: Worker) -> dict[str, int]:
        return {"slot": worker.slot, "pid": worker.process.pid}

    def _wake_all(self) -> None:
        # Claims of the dead worker are free again; whoever queues for them must look.
        for worker in self.workers():
            os.eventfd_write(self._holdings.wakes[worker.slot], 1)

    def _changed(self) -> None:
        self._report({"type": "workers", "workers": self.described()})
