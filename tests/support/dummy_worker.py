"""A worker without HTTP for tests of the parent: beats, takes messages, answers each connection with its name.

A client sends one line. `hold`: the exchange stays open until the client closes; `freeze`: the worker stops
working but lives; anything else: one exchange, answered with `SLOT PID` and closed.
With the file of BROKEN_PROGRAM in place it cannot be imported.
With the file of DUMMY_WORKER_CRASH in place a worker ends at its start; DUMMY_VERSION changes what it says it is.
"""

import json
import os
import select
import socket
import sys
import time
from pathlib import Path

from balancer import __version__
from balancer.errors import WireError
from balancer.scoreboard import (
    MAGIC,
    STATE_LISTENING,
    STATE_STARTING,
    STATE_STOPPING,
    W_ACCEPTED,
    W_BEAT_NS,
    W_GENERATION,
    W_OUT_NODE,
    W_PID,
    W_STARTED_NS,
    W_STATE,
    Scoreboard,
    row,
)
from balancer.snapshot import decode
from balancer.wire import Channel, Message

BEAT_S = 0.2


class DummyWorker:
    def __init__(self, settings: dict[str, object]) -> None:
        self.settings = settings
        self.slot = int(str(settings["slot"]))
        self.board = Scoreboard(int(str(settings["scoreboard"])))
        self.base = row(self.slot)
        self.listeners: dict[str, list[socket.socket]] = {}
        for slot, fds in settings["listeners"].items():  # type: ignore[attr-defined]
            self.listeners[slot] = [socket.socket(fileno=fd) for fd in fds]
        self.snapshot: tuple[int, ...] = tuple(settings["snapshot"])  # type: ignore[arg-type]
        self.messages = socket.socket(socket.AF_UNIX)
        self.channels: list[Channel] = []
        self.held: list[socket.socket] = []
        self.stop_at: float | None = None

    def run(self) -> None:
        cells, base = self.board.cells, self.base
        cells[base + W_PID], cells[base + W_STARTED_NS] = os.getpid(), time.monotonic_ns()
        cells[base + W_STATE] = STATE_STARTING
        self.messages.bind(f"{self.settings['run_dir']}/worker-{self.slot}-{os.getpid()}.sock")
        self.messages.listen(16)
        size = os.fstat(self.snapshot[0]).st_size
        cells[base + W_GENERATION] = decode(os.pread(self.snapshot[0], size, 0)).generation
        cells[base + W_STATE] = STATE_LISTENING
        while self.stop_at is None or (self.held and time.monotonic() < self.stop_at):
            cells[base + W_BEAT_NS] = time.monotonic_ns()
            self.round()

    def round(self) -> None:
        sockets = [sock for group in self.listeners.values() for sock in group]
        waited: list[socket.socket | Channel] = [self.messages, *sockets, *self.channels, *self.held]
        for source in select.select(waited, [], [], BEAT_S)[0]:
            if source is self.messages:
                self.channels.append(Channel(self.messages.accept()[0]))
            elif isinstance(source, Channel):
                self.read(source)
            elif source in self.held:
                if not source.recv(100):
                    self.held.remove(source)
                    source.close()
                    self.board.cells[self.base + W_OUT_NODE] += 1
            elif source.fileno() >= 0:
                self.accept(source)

    def accept(self, listener: socket.socket) -> bool:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return False
        client.settimeout(4)
        self.board.cells[self.base + W_ACCEPTED] += 1
        line = client.recv(100)
        if line.startswith(b"freeze"):
            time.sleep(3600)
        client.sendall(f"{self.slot} {os.getpid()}\n".encode())
        if line.startswith(b"hold"):
            self.held.append(client)
        else:
            client.close()
            self.board.cells[self.base + W_OUT_NODE] += 1
        return True

    def read(self, channel: Channel) -> None:
        try:
            for message, fds in channel.receive():
                self.handle(channel, message, fds)
        except WireError:
            self.channels.remove(channel)
            channel.close()

    def handle(self, channel: Channel, message: Message, fds: tuple[int, ...]) -> None:
        match message["type"]:
            case "listeners":
                at = 0
                for slot, count in message["listeners"].items():
                    added = [socket.socket(fileno=fd) for fd in fds[at : at + count]]
                    at += count
                    if count:
                        self.listeners.setdefault(slot, []).extend(added)
                    else:
                        self.leave(slot)
                channel.send({"type": "listening"})
            case "snapshot":
                self.snapshot = fds
            case "stop":
                self.board.cells[self.base + W_STATE] = STATE_STOPPING
                for slot in list(self.listeners):
                    self.leave(slot)
                self.stop_at = time.monotonic() + message["deadline_s"]
            case "handover":
                self.hand_over(channel)
            case _:
                pass

    def leave(self, slot: str) -> None:
        for listener in self.listeners.pop(slot, []):
            while self.accept(listener):
                pass
            listener.close()

    def hand_over(self, channel: Channel) -> None:
        listeners = dict(sorted(self.listeners.items(), key=lambda item: int(item[0])))
        sockets = [sock.fileno() for group in listeners.values() for sock in group]
        wakes = [int(fd) for fd in self.settings["wakes"]]  # type: ignore[attr-defined]
        channel.send(
            {
                "type": "handover",
                "slot": self.slot,
                "pid": os.getpid(),
                "version": os.environ.get("DUMMY_VERSION", __version__),
                "layout": MAGIC,
                "listeners": {slot: len(group) for slot, group in listeners.items()},
                "snapshot": len(self.snapshot),
                "wakes": len(wakes),
            },
            (self.board.fd, *wakes, *sockets, *self.snapshot),
        )


if (broken := os.environ.get("BROKEN_PROGRAM")) and Path(broken).exists():
    raise RuntimeError("told not to be importable")

if __name__ == "__main__":
    if (crash := os.environ.get("DUMMY_WORKER_CRASH")) and Path(crash).exists():
        sys.exit("dummy worker: told to crash")
    DummyWorker(json.loads(os.environ["ARV_BALANCE_CHILD"])).run()
