"""The parent's line to one worker: connects when the worker listens, keeps what is to be said until then."""

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path

from balancer.errors import WireError
from balancer.supervisor.loop import READ, WRITE, Loop, Timer
from balancer.wire import Channel, Message

RETRY_FIRST_S = 0.01
RETRY_MAX_S = 0.25


def socket_path(run_dir: Path, slot: int, pid: int) -> Path:
    """Where a worker listens for messages."""
    return run_dir / f"worker-{slot}-{pid}.sock"


def connect(path: Path) -> Channel:
    """Connect to a worker without waiting. Raises OSError; a full queue counts as not there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        sock.setblocking(False)
        sock.connect(str(path))
        undo.pop_all()
    return Channel(sock)


class Link:
    """Sends messages in order, each once a connection. Descriptors are duplicated, so the caller may close its own."""

    def __init__(self, loop: Loop, path: Path, on_message: Callable[[Message], None]) -> None:
        self._loop = loop
        self._path = path
        self._on_message = on_message
        self._channel: Channel | None = None
        self._waiting: deque[tuple[Message, tuple[int, ...]]] = deque()
        self._ours: list[int] = []
        self._retry: Timer | None = None
        self._retry_s = RETRY_FIRST_S
        self._closed = False

    def open(self) -> None:
        """Start connecting."""
        self._retry = None
        if self._closed:
            return
        try:
            self._channel = connect(self._path)
        except OSError:
            self._again()
            return
        self._retry_s = RETRY_FIRST_S
        self._send_waiting()

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send now, or as soon as the worker listens."""
        copies = tuple(os.dup(fd) for fd in fds)
        self._ours += copies
        self._waiting.append((message, copies))
        self._send_waiting()

    def close(self) -> None:
        """Drop the connection and what is still to be sent."""
        self._closed = True
        self._waiting.clear()
        self._release()
        if self._retry is not None:
            self._retry.cancel()
        self._drop()

    def _send_waiting(self) -> None:
        if self._channel is None:
            return
        try:
            while self._waiting:
                message, fds = self._waiting[0]
                self._channel.send(message, fds)
                self._waiting.popleft()
        except WireError:
            self._lost()
            return
        self._watch()

    def _watch(self) -> None:
        if self._channel is None:
            return
        busy = self._channel.wants_write
        self._loop.watch(self._channel.fileno(), self._on_ready, READ | WRITE if busy else READ)
        if not busy and not self._waiting:
            self._release()

    def _release(self) -> None:
        while self._ours:
            os.close(self._ours.pop())

    def _on_ready(self) -> None:
        if self._channel is None:
            return
        try:
            self._channel.flush()
            messages = self._channel.receive()
        except WireError:
            self._lost()
            return
        self._watch()
        for message, fds in messages:
            for fd in fds:
                os.close(fd)
            self._on_message(message)

    def _lost(self) -> None:
        # The worker is ending (its pidfd tells) or dropped us; what was not sent goes over the next connection.
        self._drop()
        self._again()

    def _drop(self) -> None:
        if self._channel is not None:
            self._loop.unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _again(self) -> None:
        if not self._closed and self._retry is None:
            self._retry = self._loop.later(self._retry_s, self.open)
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
