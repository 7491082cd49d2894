"""Writing log lines without ever waiting for their reader: a bounded buffer, batches, and a count of what was lost."""

import logging
import os
import select
import socket
import stat
from pathlib import Path

logger = logging.getLogger(__name__)

BUFFER_BYTES = 4 << 20
BATCH_BYTES = 4096  # PIPE_BUF: a write up to this is whole or not at all, so workers' lines never mix in a pipe
FILE_BATCH_BYTES = 64 << 10  # to all else; O_APPEND writes to a file are whole at any size
WORTH_LINES = 24  # fewer wait up to DELAY_NS for more: a write costs as much as three lines
DELAY_NS = 20_000_000
FULL_WAIT_NS = 50_000_000


class LogWriter:
    """Owns a description of the log of its own, so that it can be non-blocking without anybody else noticing."""

    __slots__ = (
        "_batch",
        "_dropped",
        "_fd",
        "_may_wait",
        "_path",
        "_size",
        "_sock",
        "_written",
        "_written_at",
        "lines",
        "rest",
    )

    def __init__(self, fd: int) -> None:
        """Write to what `fd` is open on; `fd` itself stays the caller's."""
        self.lines: list[bytes] = []
        self._size = 0  # bytes in `lines`
        self.rest = b""  # of a batch that went in part, or not at all
        self._dropped = self._written = self._written_at = 0
        self._path = "-"
        self._sock: socket.socket | None = None
        self._fd = -1
        self._batch = BATCH_BYTES
        self._may_wait = False  # writing could wait for the reader, so that has to be asked before
        self._attach(fd)

    def _attach(self, fd: int) -> None:
        kind = os.fstat(fd).st_mode
        self._batch = _batch_bytes(kind)
        self._may_wait = False
        if stat.S_ISSOCK(kind):
            self._sock = socket.socket(fileno=os.dup(fd))
            return
        try:
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # no /proc, or not ours to open: then `select` says whether a small write would wait
            self._fd = os.dup(fd)
            self._batch, self._may_wait = BATCH_BYTES, not stat.S_ISREG(kind)

    def reopen(self, fd: int | None) -> None:
        """Go on with another descriptor (which stays the caller's), or open the path again. Raises OSError."""
        if fd is None and self._path == "-":
            return
        old_fd, old_sock = self._fd, self._sock
        if fd is not None:
            self._sock = None
            self._attach(fd)
        else:
            self._fd = _open(self._path)
            self._sock, self._may_wait = None, False
            self._batch = _batch_bytes(os.fstat(self._fd).st_mode)
        if old_sock is not None:
            old_sock.close()
        elif old_fd >= 0:
            os.close(old_fd)

    def open_path(self, path: str) -> None:
        """Write to `path` from now on; "-" stays with what the process was given."""
        if path == "-":
            return
        old_path, self._path = self._path, path
        try:
            self.reopen(None)
        except OSError as error:
            self._path = old_path
            logger.error("the access log %s cannot be opened: %s", path, error)

    def add(self, line: bytes) -> None:
        """Take a line, or drop it when the reader is too slow."""
        size = self._size + len(line)
        if size <= BUFFER_BYTES:
            self._size = size
            self.lines.append(line)
        else:
            self._dropped += 1

    def write(self, now: int) -> int:
        """Write what is worth a system call; return ns after which to come again, 0 when all is written."""
        if len(self.lines) < WORTH_LINES and now - self._written_at < DELAY_NS and not self.rest:
            return DELAY_NS
        self._written_at = now
        while self.lines or self.rest:
            if not self._write_batch():
                return FULL_WAIT_NS
        return 0

    def _write_batch(self) -> bool:
        """Write one batch; False when the reader has to catch up first."""
        if self.rest:
            data, taken = self.rest, 0
        elif self._size <= self._batch:
            data, taken = b"".join(self.lines), len(self.lines)
            self._size = 0
            self.lines.clear()
        else:
            taken = size = 0
            for line in self.lines:
                size += len(line)
                if size > self._batch and taken:
                    break
                taken += 1
            data = b"".join(self.lines[:taken])
            self._size -= len(data)
            del self.lines[:taken]
        try:
            sent = self._send(data)
        except BlockingIOError:
            self.rest = data
            self._written += taken
            return False
        except OSError:  # nobody reads any more: a full disk, a closed pipe
            self._dropped += taken
            self.rest = b""
            return True
        self._written += taken
        self.rest = data[sent:]
        return not self.rest

    def _send(self, data: bytes) -> int:
        if self._sock is not None:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        if self._may_wait and not select.select([], [self._fd], [], 0)[1]:
            raise BlockingIOError
        return os.write(self._fd, data)

    def take_written(self) -> int:
        """Return and reset the count of written lines."""
        written, self._written = self._written, 0
        return written

    def take_dropped(self) -> int:
        """Return and reset the count of dropped lines."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def close(self) -> None:
        """Try once to write what is left, then close."""
        while self.lines or self.rest:
            if not self._write_batch():
                break
        if self._sock is not None:
            self._sock.close()
        elif self._fd >= 0:
            os.close(self._fd)


def _batch_bytes(kind: int) -> int:
    return BATCH_BYTES if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) else FILE_BATCH_BYTES


def _open(path: str) -> int:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
