"""Take over from a parent that died: its workers still hold everything, and hand it over."""

import logging
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from balancer import __version__
from balancer.errors import StateError, WireError
from balancer.scoreboard import H_PARENT_PID, MAGIC, Scoreboard
from balancer.supervisor.children import Process, watch_process
from balancer.supervisor.holdings import Holdings, close_all, fresh_board, fresh_wakes, read_snapshot
from balancer.supervisor.link import connect
from balancer.supervisor.sockets import UNIX_PREFIX, Bind, Held, Wanted
from balancer.wire import Channel, Message

logger = logging.getLogger(__name__)
PATIENCE_S = 5.0  # the same as for a heartbeat: a worker that does not answer for this long is stuck
_CREDENTIALS = struct.Struct("3i")


@dataclass(slots=True)
class Survivor:
    """A worker found running. The descriptors are what it handed over; sockets by listener slot."""

    slot: int
    process: Process
    version: str
    layout: int
    scoreboard: int
    wakes: tuple[int, ...]
    snapshot: tuple[int, ...]
    sockets: dict[int, list[socket.socket]] = field(default_factory=dict)

    @property
    def is_current(self) -> bool:
        """It runs this very program on this very layout, so it may stay."""
        return self.version == __version__ and self.layout == MAGIC


def survivors(run_dir: Path, patience_s: float = PATIENCE_S) -> list[Survivor]:
    """Ask every worker of `run_dir` for a handover. Those that do not answer are killed."""
    asked = [found for path in sorted(run_dir.glob("worker-*.sock")) if (found := _ask(path))]
    deadline = time.monotonic() + patience_s
    poll = select.poll()
    for channel, _process in asked:
        poll.register(channel.fileno(), select.POLLIN)
    waiting = {channel.fileno(): (channel, process) for channel, process in asked}
    taken: list[Survivor] = []
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for fd, _events in poll.poll(left_s * 1000):
            channel, process = waiting[fd]
            try:
                answers = [found for found in channel.receive() if found[0].get("type") == "handover"]
                if not answers:
                    continue
                taken.append(_survivor(process, *answers[0]))
            except WireError as exc:
                logger.warning("worker with pid %d cannot be taken over: %s", process.pid, exc)
                process.kill()
            poll.unregister(fd)
            del waiting[fd]
    for _channel, process in waiting.values():
        logger.warning("worker with pid %d does not answer, killed", process.pid)
        process.kill()
    for channel, _process in asked:
        channel.close()
    return taken


def _ask(path: Path) -> tuple[Channel, Process] | None:
    try:
        channel = connect(path)
    except BlockingIOError:
        return None  # its queue is full; the pid in its name is no proof of who it is
    except OSError:
        path.unlink(missing_ok=True)
        return None
    pid, uid, _gid = _CREDENTIALS.unpack(
        channel.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    try:
        if uid != os.geteuid():
            raise ProcessLookupError(f"{path} is of user {uid}")
        process = watch_process(pid, time.monotonic())
        channel.send({"type": "handover"})
    except (ProcessLookupError, WireError):
        channel.close()
        return None
    return channel, process


def _survivor(process: Process, message: Message, fds: tuple[int, ...]) -> Survivor:
    """Sort the descriptors of a handover: scoreboard, wakes, listeners by slot, snapshot. Raises WireError."""
    try:
        counts = {int(slot): int(number) for slot, number in message["listeners"].items()}
        wakes, snapshot = int(message["wakes"]), int(message["snapshot"])
        if len(fds) != 1 + wakes + sum(counts.values()) + snapshot:
            raise WireError(f"handover has {len(fds)} descriptors, its numbers say otherwise")
        at = 1 + wakes
        found = Survivor(
            slot=int(message["slot"]),
            process=process,
            version=str(message.get("version", "")),
            layout=int(message.get("layout", 0)),
            scoreboard=fds[0],
            wakes=fds[1:at],
            snapshot=fds[len(fds) - snapshot :] if snapshot else (),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        raise WireError(f"handover cannot be read: {exc!r}") from exc
    for slot, number in sorted(counts.items()):
        found.sockets[slot] = [socket.socket(fileno=fd) for fd in fds[at : at + number]]
        at += number
    return found


def assemble(found: Sequence[Survivor], run_dir: Path, lock: int) -> Holdings:
    """Build the holdings out of what the survivors handed over; what is missing is made anew."""
    newest: tuple[int, Survivor] | None = None
    for worker in found:
        snapshot = read_snapshot(worker.snapshot[0]) if worker.snapshot else None
        if snapshot is not None and (newest is None or snapshot.generation > newest[0]):
            newest = (snapshot.generation, worker)
    board, wakes = _shared_memory(found)
    held = Holdings(run_dir, lock, board, wakes)
    if newest is not None:
        held.snapshot = newest[1].snapshot
    _adopt_sockets(held, found)
    for worker in found:
        if worker.snapshot is not held.snapshot:
            close_all(worker.snapshot)
    return held


def _shared_memory(found: Sequence[Survivor]) -> tuple[Scoreboard, tuple[int, ...]]:
    board: Scoreboard | None = None
    wakes: tuple[int, ...] = ()
    for worker in found:
        if board is None and worker.layout == MAGIC:
            try:
                board, wakes = Scoreboard(worker.scoreboard), worker.wakes
                continue
            except StateError as exc:
                logger.warning("scoreboard of worker %d: %s", worker.slot, exc)
        else:
            os.close(worker.scoreboard)
        close_all(worker.wakes)
    if board is None:
        return fresh_board(), fresh_wakes()
    board.cells[H_PARENT_PID] = os.getpid()
    return board, wakes


def _adopt_sockets(held: Holdings, found: Sequence[Survivor]) -> None:
    """Sort the sockets under their binds; the same socket from two workers is one with two owners."""
    snapshot = read_snapshot(held.snapshot[0]) if held.snapshot else None
    names = {listener.slot: listener.bind for listener in snapshot.listeners} if snapshot else {}
    known: dict[tuple[int, int], Held] = {}
    for worker in found:
        for slot, sockets in worker.sockets.items():
            for sock in sockets:
                sock.setblocking(False)
                item = Held(sock)
                earlier = known.setdefault(item.identity, item)
                earlier.owners.add(worker.slot)
                if earlier is not item:
                    sock.close()
                elif slot in names:
                    bind = held.registry.binds.setdefault(slot, Bind(Wanted(slot, names[slot])))
                    bind.sockets.append(item)
                else:
                    held.registry.spare.append(sock)
    for bind in held.registry.binds.values():
        unix = bind.wanted.bind.startswith(UNIX_PREFIX)
        reusable = all(_reuses_port(item.sock) for item in bind.sockets) and not unix
        bind.shared, bind.inherited = not reusable, not reusable and not unix


def _reuses_port(sock: socket.socket) -> bool:
    return sock.family != socket.AF_UNIX and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
