"""A `balancer.wire` channel on the event loop."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self

from balancer.errors import WireError
from balancer.wire import Channel, Message

Received = tuple[Message, tuple[int, ...]]


class Link:
    """Messages one way and the other. An async context: leaving it closes the socket."""

    def __init__(self, sock: socket.socket) -> None:
        """Take ownership of a connected Unix stream socket."""
        sock.setblocking(False)
        self._channel = Channel(sock)
        self._sending = asyncio.Lock()

    @classmethod
    async def connect(cls, path: str, *, deadline_s: float) -> Self:
        """Connect to a Unix socket. Raises WireError when nobody answers in time."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.get_running_loop().sock_connect(sock, path)
        except OSError as exc:  # TimeoutError is one
            sock.close()
            raise WireError(f"{path}: {str(exc) or 'no answer in time'}") from exc
        return cls(sock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._channel.close()

    async def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send a message whole; the descriptors stay the caller's. Raises WireError when the other side is gone."""
        loop, fd = asyncio.get_running_loop(), self._channel.fileno()
        async with self._sending:
            self._channel.send(message, fds)
            try:
                while self._channel.wants_write:
                    await _ready(lambda done: loop.add_writer(fd, done), lambda: loop.remove_writer(fd))
                    self._channel.flush()
            except asyncio.CancelledError:
                # Half a frame is out, and its descriptors are the caller's to close now: nothing may follow it.
                self._channel.sock.shutdown(socket.SHUT_RDWR)
                raise

    async def messages(self) -> AsyncIterator[Received]:
        """Yield what arrives; descriptors are the taker's. Raises WireError at the end of the stream."""
        loop, fd = asyncio.get_running_loop(), self._channel.fileno()
        while True:
            # The interest lasts one reading only: a taker that is busy elsewhere must not make the loop spin.
            await _ready(lambda done: loop.add_reader(fd, done), lambda: loop.remove_reader(fd))
            for received in self._channel.receive():
                yield received


async def _ready(arm: Callable[[Callable[[], None]], object], disarm: Callable[[], object]) -> None:
    ready = asyncio.Event()
    arm(ready.set)
    try:
        await ready.wait()
    finally:
        disarm()


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that a message brought and nobody needs."""
    for fd in fds:
        os.close(fd)
