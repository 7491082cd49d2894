"""A control process without asyncio for tests of the parent.

Its configuration is JSON: {"workers": 2, "binds": ["127.0.0.1:0"], "drain_s": 5}; `"exit": 3` ends it at once.
All that the parent says goes to CONFIG.log, one JSON object a line, together with its own starts.
"""

import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

from balancer.errors import WireError
from balancer.model import Drain, Listener, Snapshot
from balancer.scoreboard import H_CONTROL_BEAT_NS, H_CONTROL_PID, Scoreboard
from balancer.snapshot import decode, encode
from balancer.wire import Channel

BEAT_S = 0.2


class DummyControl:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.config = Path(settings["config"])
        self.overrides = settings["overrides"]
        self.board = Scoreboard(settings["scoreboard"])
        self.channel = Channel(socket.socket(fileno=settings["parent"]))
        self.generation = 0
        if settings["snapshot"]:
            fd = settings["snapshot"][0]
            self.generation = decode(os.pread(fd, os.fstat(fd).st_size, 0)).generation
        self.log({"type": "started", "pid": os.getpid(), "settings": settings})

    def log(self, message: dict[str, Any]) -> None:
        with self.config.with_suffix(".log").open("a") as file:
            file.write(json.dumps(message) + "\n")

    def apply(self) -> None:
        wanted = json.loads(self.config.read_text())
        if "exit" in wanted:
            sys.exit(wanted["exit"])
        self.generation += 1
        workers = self.overrides.get("workers", wanted["workers"])
        listeners = tuple(Listener(slot, bind) for slot, bind in enumerate(wanted["binds"]))
        drain = Drain(timeout_s=wanted.get("drain_s", 5))
        snapshot = Snapshot(self.generation, "test", listeners, drain=drain, workers=workers)
        fd = os.memfd_create("snapshot")
        os.write(fd, encode(snapshot))
        items = [{"slot": listener.slot, "bind": listener.bind, "backlog": 512} for listener in listeners]
        message = {"type": "apply", "generation": self.generation, "workers": workers, "listeners": items}
        self.channel.send(message, (fd,))
        os.close(fd)

    def run(self) -> None:
        self.board.cells[H_CONTROL_PID] = os.getpid()
        self.apply()
        while True:
            self.board.cells[H_CONTROL_BEAT_NS] = time.monotonic_ns()
            if select.select([self.channel], [], [], BEAT_S)[0]:
                for message, _fds in self.channel.receive():
                    self.handle(message)

    def handle(self, message: dict[str, Any]) -> None:
        self.log(message)
        match message["type"]:
            case "applied" | "refused":
                self.channel.send({"type": "ready"})
                self.channel.send({"type": "status", "text": f"generation {self.generation}"})
            case "reload":
                self.apply()
            case _:
                pass


if __name__ == "__main__":
    try:
        DummyControl(json.loads(os.environ["ARV_BALANCE_CHILD"])).run()
    except WireError:
        sys.exit(0)
