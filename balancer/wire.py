"""Messages between our own processes over Unix stream sockets: length, JSON, and descriptors beside them.

A frame is a 4-byte big-endian length and that many bytes of JSON (one object with a "type"). Descriptors ride
on the first byte of their frame (SCM_RIGHTS); their number stands in the object as "fds".
"""

import array
import json
import os
import socket
import struct
from collections import deque
from typing import Any

from balancer.errors import WireError

Message = dict[str, Any]
MAX_FRAME_BYTES = 16 << 20
MAX_FDS = 250  # the kernel's SCM_MAX_FD is 253
_LENGTH = struct.Struct(">I")


class Channel:
    """One end of a connection. Works blocking and non-blocking; the owner closes it."""

    __slots__ = ("_fds", "_in", "_out", "sock")

    def __init__(self, sock: socket.socket) -> None:
        """Take ownership of a connected AF_UNIX SOCK_STREAM socket."""
        self.sock = sock
        self._in = bytearray()
        self._fds: deque[int] = deque()
        self._out: deque[tuple[memoryview, tuple[int, ...]]] = deque()

    def fileno(self) -> int:
        """Descriptor for a poller."""
        return self.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """True while `flush` has something left to send."""
        return bool(self._out)

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Queue a message and send what goes now.

        The descriptors stay the caller's; do not close them while `wants_write`. Raises WireError when the
        other side is gone.
        """
        if len(fds) > MAX_FDS:
            raise WireError(f"{len(fds)} descriptors in one message, at most {MAX_FDS} can be sent")
        body = json.dumps({**message, "fds": len(fds)}, separators=(",", ":")).encode()
        if len(body) > MAX_FRAME_BYTES:
            raise WireError(f"message of {len(body)} bytes, at most {MAX_FRAME_BYTES} can be sent")
        self._out.append((memoryview(_LENGTH.pack(len(body)) + body), fds))
        self.flush()

    def flush(self) -> None:
        """Send until done or the socket is full."""
        while self._out:
            data, fds = self._out[0]
            try:
                if fds:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
                    sent = self.sock.sendmsg([data], [rights])
                else:
                    sent = self.sock.send(data)
            except BlockingIOError:
                return
            except OSError as exc:
                raise WireError(f"the other side is gone: {exc}") from exc
            if sent < len(data):
                self._out[0] = (data[sent:], ())
            else:
                self._out.popleft()

    def receive(self) -> list[tuple[Message, tuple[int, ...]]]:
        """Read once and return the whole messages that are there, with their descriptors (now the caller's).

        Non-blocking and nothing there: an empty list. Raises WireError at end of stream or on a bad frame.
        """
        try:
            data, ancillary, _flags, _addr = self.sock.recvmsg(
                1 << 16, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return []
        except OSError as exc:
            raise WireError(f"the other side is gone: {exc}") from exc
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        if not data:
            raise WireError("the other side closed the connection")
        self._in += data
        return self._frames()

    def _frames(self) -> list[tuple[Message, tuple[int, ...]]]:
        found: list[tuple[Message, tuple[int, ...]]] = []
        while len(self._in) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._in)
            if length > MAX_FRAME_BYTES:
                raise WireError(f"frame of {length} bytes, at most {MAX_FRAME_BYTES} are read")
            end = _LENGTH.size + length
            if len(self._in) < end:
                break
            try:
                message = json.loads(bytes(self._in[_LENGTH.size : end]))
                fds = tuple(self._fds.popleft() for _ in range(message["fds"]))
            except (ValueError, KeyError, TypeError, IndexError) as exc:
                raise WireError(f"bad frame: {exc}") from exc
            del self._in[:end]
            found.append((message, fds))
        return found

    def close(self) -> None:
        """Close the socket and descriptors that nobody took."""
        self.sock.close()
        while self._fds:
            os.close(self._fds.popleft())
