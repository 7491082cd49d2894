"""Pipes through which the kernel moves long bodies from one socket to another without our copying them."""

import fcntl
import os
from _socket import socket as PlainSocket  # noqa: N812 - the C type under socket.socket
from collections.abc import Callable
from typing import Final

# The least that is left of a body for which the pipe pays: of one that is passed on as it comes, and of one that is
# held until it is whole.
LEAST_BYTES = 256 << 10
LEAST_HELD_BYTES = 32 << 10
# What a slow client can make us hold; 1 MiB is 3 % less work for a fast one.
PIPE_BYTES = 256 << 10
# Of one worker. Linux lets a user have 64 MiB in pipes before it gives small ones only; what finds none is copied.
MOST_PIPES = 128
KEPT_PIPES = 64

_SPLICE: Final[Callable[..., int] | None] = getattr(os, "splice", None)
_NONBLOCK: int = getattr(os, "SPLICE_F_NONBLOCK", 0)
_MORE: int = getattr(os, "SPLICE_F_MORE", 0)


class Pipe:
    """One pipe and how much is in it."""

    __slots__ = ("_pool", "held", "reader", "writer")

    def __init__(self, pool: "Pipes") -> None:
        """Open it. Raises OSError."""
        self._pool = pool
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        try:
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            self.close()
            raise

    def take_in(self, fd: int, most: int) -> int:
        """Move up to `most` bytes from a socket into the empty pipe; 0 at the end. Raises BlockingIOError, OSError."""
        assert _SPLICE is not None
        count = _SPLICE(fd, self.writer, min(most, PIPE_BYTES), flags=_NONBLOCK)
        self.held += count
        return count

    def put(self, data: bytes) -> None:
        """Write a head and little more, less than PIPE_BYTES in any case, into the empty pipe."""
        self.held += os.write(self.writer, data)

    def let_out(self, fd: int, *, more: bool) -> None:
        """Move what is held to a socket, as far as it takes it. `more`: the body goes on. Raises OSError."""
        assert _SPLICE is not None
        try:
            while self.held:
                self.held -= _SPLICE(self.reader, fd, self.held, flags=_NONBLOCK | (_MORE if more else 0))
        except BlockingIOError:
            return

    def drain(self) -> bytes:
        """Take out what is held. Raises OSError."""
        pieces = []
        while self.held:
            pieces.append(os.read(self.reader, self.held))
            self.held -= len(pieces[-1])
        return b"".join(pieces)

    def give_back(self) -> None:
        """Its borrower needs it no more."""
        self._pool.take_back(self)

    def close(self) -> None:
        """Give it back to the system, with what it holds."""
        os.close(self.reader)
        os.close(self.writer)


class Pipes:
    """The pipes of a worker: at most MOST_PIPES are open, KEPT_PIPES are kept for the next body."""

    def __init__(self, most: int = MOST_PIPES) -> None:
        self._most = most if _SPLICE is not None else 0
        self._idle: list[Pipe] = []
        self._lent = 0

    def between(self, source: object, sink: object) -> Pipe | None:
        """Lend a pipe for bytes from one socket to another; None: they have to be copied (TLS, too many pipes)."""
        if not isinstance(source, PlainSocket) or not isinstance(sink, PlainSocket) or self._lent >= self._most:
            return None
        if self._idle:
            pipe = self._idle.pop()
        else:
            try:
                pipe = Pipe(self)
            except OSError:  # out of descriptors, or of the user's share of pipe memory
                return None
        self._lent += 1
        return pipe

    def take_back(self, pipe: Pipe) -> None:
        """See Pipe.give_back. One that still holds bytes is closed with them."""
        self._lent -= 1
        if pipe.held or len(self._idle) >= KEPT_PIPES:
            pipe.close()
        else:
            self._idle.append(pipe)
