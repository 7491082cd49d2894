"""The parent itself: signals, the `apply` transaction, readiness, shutdown, and the beat of it all."""

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from balancer.notify import Notifier, without_service_manager
from balancer.scoreboard import H_PARENT_BEAT_NS, H_PARENT_PID, H_ROWS, W_PID, row
from balancer.supervisor import reexec
from balancer.supervisor.crew import Crew
from balancer.supervisor.holdings import Holdings, close_all, read_snapshot
from balancer.supervisor.keeper import ControlKeeper, ControlSettings
from balancer.supervisor.loop import Loop
from balancer.supervisor.rules import Beat, Timings, slept
from balancer.supervisor.sockets import UNIX_PREFIX, Bind, BindError, Wanted
from balancer.wire import Message

logger = logging.getLogger(__name__)
HANDLED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
SELF_CHECK_S = 30.0
CONTROL_END_S = 5.0
CUT_S = 1.0  # what a second signal leaves to the workers
EXIT_FAILED = 1
EXIT_CONFIG = 3


class Parent:
    """Runs the balancer's processes until a signal ends them; `run` returns the exit code."""

    def __init__(
        self,
        loop: Loop,
        held: Holdings,
        notifier: Notifier,
        *,
        control: ControlSettings,
        worker_module: str,
        timings: Timings,
        hello: str = "",
    ) -> None:
        self._loop = loop
        self._hello = hello
        self._held = held
        self._notifier = notifier
        self._timings = timings
        self.crew = Crew(loop, held, module=worker_module, timings=timings, report=self._report)
        self._keeper = ControlKeeper(
            loop,
            held,
            control,
            timings=timings,
            on_message=self._on_control,
            on_end=self._control_ended,
            workers=self.crew.described,
        )
        self._control_ready = False
        self._was_ready = False
        self._reloading = False
        self._status = ""
        self._stopping = 0  # signals that asked for the end
        self._checking: subprocess.Popen[bytes] | None = None
        self._last_tick_s = loop.now()
        self._exit_code = 0

    def run(self) -> int:
        """Start control, serve until the end."""
        self._loop.on_signals(HANDLED, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        self._held.board.cells[H_PARENT_PID] = os.getpid()
        self._book_rows_of_nobody()
        self._keeper.start()
        self._tick()
        if self._notifier.watchdog_s:
            self._watchdog()
        self._loop.run()
        return self._exit_code

    def _book_rows_of_nobody(self) -> None:
        """Workers that died while no parent looked left open exchanges behind."""
        cells = self._held.board.cells
        alive = {worker.slot for worker in self.crew.workers() if not worker.foreign}
        for slot in range(cells[H_ROWS]):
            if cells[row(slot) + W_PID] and slot not in alive:
                lost = self._held.board.book_lost(slot)
                logger.warning("worker %d ended unseen; %d exchanges lost", slot, lost)

    # --- time -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now_s = self._loop.now()
        self._held.board.cells[H_PARENT_BEAT_NS] = int(now_s * 1e9)
        if not slept(now_s, self._last_tick_s, self._timings):
            self.crew.tick(now_s)
            self._keeper.tick(now_s)
        self._last_tick_s = now_s
        self._look_ready()
        if not self._was_ready and self.crew.start_failures >= self._timings.start_attempts:
            self._fail(EXIT_FAILED, "the workers do not start; their last words are above")
        self._loop.later(self._timings.tick_s, self._tick)

    def _watchdog(self) -> None:
        now_s = self._loop.now()
        if self._keeper.beat(now_s) is not Beat.DEAD and self.crew.is_fresh(now_s):
            self._notifier.watchdog()
        self._loop.later(self._notifier.watchdog_s / 3, self._watchdog)

    # --- control --------------------------------------------------------------------------------------------

    def _report(self, message: Message) -> None:
        """Pass on what the crew has to say."""
        self._keeper.send(message)
        if message["type"] == "workers":
            self._look_ready()
            if self._stopping and not message["workers"]:
                self._keeper.end(CONTROL_END_S, self._finish)

    def _on_control(self, message: Message, fds: tuple[int, ...]) -> None:
        match message.get("type"):
            case "apply":
                self._apply(message, fds)
                return
            case "ready":
                self._control_ready = True
                self._reloading = False
                self._loop.later(0, self._look_ready)
            case "status":
                self._status = str(message.get("text", ""))
                if self._was_ready and not self._stopping:
                    self._notifier.status(self._status)
            case "shutdown":
                self._stop(float(message.get("deadline_s", self.crew.drain_s)))
            case other:
                logger.warning("control says %r, which this version does not know", other)
        close_all(fds)

    def _control_ended(self, status: int | None) -> bool:
        """Decide whether another control process is started."""
        if self._stopping:
            return False
        if not self._was_ready and status == EXIT_CONFIG:
            self._fail(EXIT_CONFIG, "")
            return False
        if not self._was_ready and self._keeper.failures >= self._timings.start_attempts:
            self._fail(EXIT_FAILED, "control does not start; its last words are above")
            return False
        return True

    def _apply(self, message: Message, fds: tuple[int, ...]) -> None:
        """Take a generation whole, or refuse it with nothing changed."""
        snapshot = read_snapshot(fds[0]) if fds else None
        try:
            wanted = [
                Wanted(**{key: item[key] for key in ("slot", "bind", "backlog", "mode") if key in item})
                for item in message["listeners"]
            ]
            count = int(message["workers"])
        except (KeyError, TypeError, ValueError) as exc:
            self._refuse(fds, [{"error": f"apply cannot be read: {exc!r}"}])
            return
        if snapshot is None or count < 1 or not self.crew.has_room(count):
            fault = "the snapshot cannot be read" if snapshot is None else f"{count} workers cannot be started"
            self._refuse(fds, [{"error": fault}])
            return
        if self._stopping:
            self._refuse(fds, [{"error": "the balancer is stopping"}])
            return
        try:
            change = self._held.registry.prepare(wanted, count)
        except BindError as exc:
            self._refuse(fds, [{"slot": slot, "bind": bind, "error": why} for slot, bind, why in exc.faults])
            return
        self._held.registry.commit(change)
        self._held.replace_snapshot(fds)
        self.crew.drain_s = snapshot.drain.timeout_s
        for bind in change.removed:
            self.crew.withdraw(bind.wanted.slot)
        self.crew.resize(count)
        for bind in change.removed:
            _close(bind)
        addresses = {str(slot): bind.address for slot, bind in self._held.registry.binds.items()}
        applied = {"type": "applied", "generation": message["generation"], "workers": self.crew.described()}
        self._keeper.send({**applied, "addresses": addresses})

    def _refuse(self, fds: tuple[int, ...], errors: Sequence[dict[str, Any]]) -> None:
        close_all(fds)
        self._keeper.send({"type": "refused", "errors": list(errors)})

    def _look_ready(self) -> None:
        """Report readiness once control has spoken and every worker accepts."""
        if self._stopping or self._reloading or not (self._control_ready and self.crew.is_listening):
            return
        self._control_ready = False
        self._notifier.ready(self._status)
        if not self._was_ready:
            self._was_ready = True
            where = ", ".join(sorted(bind.address for bind in self._held.registry.binds.values()))
            logger.info("ready: %d workers on %s", len(self.crew.seats), where)
            if self._hello:
                logger.info("%s", self._hello)

    # --- signals --------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGHUP:
                self._reloading = True
                self._notifier.reloading()
                self._keeper.send({"type": "reload"})
            case signal.SIGUSR1:
                self._keeper.send({"type": "reopen-log"})
            case signal.SIGUSR2:
                self._check_new_program()
            case _:
                self._stop(self.crew.drain_s)

    def _stop(self, deadline_s: float) -> None:
        """Drain and end; asked again, cut what is left."""
        self._stopping += 1
        if self._stopping > 1:
            deadline_s = 0.0
        workers = len(list(self.crew.workers()))
        logger.info("stopping: %d workers have %.0f s to finish (a second signal cuts)", workers, deadline_s)
        self._notifier.stopping("finishing what is under way", deadline_s + CONTROL_END_S + CUT_S)
        self._keeper.send({"type": "stopping", "deadline_s": deadline_s})
        self.crew.stop_all(deadline_s)
        if self._stopping > 1:
            self._loop.later(CUT_S, self.crew.kill_all)
        self._close_listening()
        if not workers:
            self._keeper.end(CONTROL_END_S, self._finish)

    def _close_listening(self) -> None:
        # The workers accept what waits and close theirs: whoever comes later is refused at once and goes elsewhere.
        for bind in self._held.registry.binds.values():
            _close(bind)
        self._held.registry.binds.clear()

    def _fail(self, code: int, why: str) -> None:
        if self._stopping:
            return
        if why:
            logger.error("%s", why)
        self._exit_code = code
        self._stop(0.0)

    def _finish(self) -> None:
        logger.info("stopped")
        self._loop.stop()

    # --- a new program --------------------------------------------------------------------------------------

    def _check_new_program(self) -> None:
        if self._checking is not None or self._stopping:
            return
        self._notifier.reloading()
        try:
            process = subprocess.Popen(
                reexec.check_command(),
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                env=without_service_manager(os.environ),
            )
        except OSError as exc:
            self._keep_old(f"it cannot be started: {exc}")
            return
        self._checking = process
        pidfd = os.pidfd_open(process.pid)
        patience = self._loop.later(SELF_CHECK_S, process.kill)

        def checked() -> None:
            patience.cancel()
            self._loop.unwatch(pidfd)
            os.close(pidfd)
            output = process.communicate()[0].decode(errors="replace")
            self._checking = None
            if process.returncode != 0:
                self._keep_old(f"its self-check failed ({process.returncode})")
            elif not reexec.accepts(output):
                self._keep_old("it cannot take over from this version; restart instead")
            elif not self._stopping:
                self._keeper.end(CONTROL_END_S, self._become_new_program)

        self._loop.watch(pidfd, checked)

    def _keep_old(self, why: str) -> None:
        logger.error("the program is not replaced: %s", why)
        self._keeper.send({"type": "upgrade-refused", "reason": why})
        self._notifier.ready(self._status)

    def _become_new_program(self) -> None:
        if self._stopping:
            self._finish_without_control()
            return
        workers = [(worker.slot, worker.process.pid, worker.foreign) for worker in self.crew.workers()]
        logger.info("replacing the program; %d workers serve on", len(workers))
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # a signal before the new handlers would end us
        try:
            reexec.replace(self._held, workers)
        except OSError as exc:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            self._keeper.start()
            self._keep_old(str(exc))

    def _finish_without_control(self) -> None:
        if not list(self.crew.workers()):
            self._finish()


def _close(bind: Bind) -> None:
    for item in bind.sockets:
        item.sock.close()
    if bind.wanted.bind.startswith(UNIX_PREFIX) and not bind.inherited:
        Path(bind.wanted.bind.removeprefix(UNIX_PREFIX)).unlink(missing_ok=True)
