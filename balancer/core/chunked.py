"""Chunked bodies, followed strictly and in any cut (RFC 9112 section 7.1)."""

import re
from dataclasses import dataclass, field
from typing import Final

from balancer.core.message import BARE, FIELD, Field, Refusal

CHUNK_SIZE_DIGITS = 15  # 2^60 bytes; capped before arithmetic

# Fields that a trailer must not carry: framing, routing, authentication, what we vouch for (RFC 9110 section 6.5.1).
# An allow-list rather than the RFC's deny-list: what a node does with an unexpected trailer is not ours to guess.
TRAILERS_ALLOWED: Final = frozenset(
    b"content-digest repr-digest digest content-md5 etag server-timing "
    b"grpc-status grpc-message grpc-status-details-bin x-checksum".split()
)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,%d})(?:;([^\x00-\x08\x0a-\x1f\x7f]*))?\r\n" % CHUNK_SIZE_DIGITS)
_QUOTES_CLOSED = re.compile(rb"(?:[^\"]|\"(?:[^\"\\]|\\.)*\")*\Z")
_SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


@dataclass(slots=True)
class ChunkFollower:
    """Follows a chunked body and hands out its content; extensions and forbidden trailers never come out of it.

    Feed it bytes in any cut. Only its state is held, and an unfinished size or trailer line.
    """

    extension_bytes: int = 4 << 10
    trailer_bytes: int = 4 << 10
    done: bool = False
    trailers: list[Field] = field(default_factory=list)
    body_bytes: int = 0
    _state: int = _SIZE
    _left: int = 0
    _held: bytes = b""
    _extensions: int = 0
    _trailer_total: int = 0

    def feed(self, data: bytes) -> tuple[list[bytes], int] | Refusal:
        """Return (pieces of content, bytes of `data` used), or the refusal.

        All of `data` is used unless the body ends inside it: then `done` is true and the rest belongs to what follows.
        """
        pieces: list[bytes] = []
        held = len(self._held)
        if held:
            data = self._held + data
            self._held = b""
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            moved = self._size_line(data, at) if self._state == _SIZE else self._other_line(data, at)
            if isinstance(moved, Refusal):
                return moved
            if moved == at:
                self._held = data[at:]
                at = size
            at = max(at, moved)
        return pieces, at - held

    def _size_line(self, data: bytes, at: int) -> int | Refusal:
        found = _CHUNK_SIZE.match(data, at)
        if found is None:
            return self._bad_size_line(data, at)
        extension = found[2]
        if extension is not None:
            self._extensions += len(extension)
            if self._extensions > self.extension_bytes:
                return Refusal(400, f"chunk extensions are longer than {self.extension_bytes} bytes")
            if not _QUOTES_CLOSED.match(extension):
                return Refusal(400, "a chunk extension's quotes are not closed")
        self._left = int(found[1], 16)
        self.body_bytes += self._left
        self._state = _DATA if self._left else _TRAILER
        return found.end()

    def _bad_size_line(self, data: bytes, at: int) -> int | Refusal:
        """Nothing moved when the line may only be unfinished."""
        line_end = data.find(b"\n", at)
        line = data[at:] if line_end < 0 else data[at : line_end + 1]
        if line_end >= 0 or not _SIZE_BEGUN.match(line):
            return Refusal(400, "a chunk size line is not HEX-DIGITS [;EXTENSION] CRLF")
        if len(line) > self.extension_bytes + CHUNK_SIZE_DIGITS + 3:
            return Refusal(400, f"chunk extensions are longer than {self.extension_bytes} bytes")
        return at

    def _other_line(self, data: bytes, at: int) -> int | Refusal:
        if self._state == _DATA_END:
            ending = data[at : at + 2]
            if ending == b"\r\n":
                self._state = _SIZE
                return at + 2
            return at if ending == b"\r" else Refusal(400, "chunk data is not followed by CRLF")
        return self._trailer_line(data, at)

    def _trailer_line(self, data: bytes, at: int) -> int | Refusal:
        line_end = data.find(b"\r\n", at)
        line = data[at:line_end] if line_end >= 0 else data[at:]
        if BARE.search(line):
            return Refusal(400, "a trailer line ends in a bare CR or LF")
        if self._trailer_total + len(line) > self.trailer_bytes:
            return Refusal(400, f"trailers are longer than {self.trailer_bytes} bytes")
        if line_end < 0:
            return at
        if not line:
            self.done = True
            self._state = _DONE
            return line_end + 2
        found = FIELD.match(line)
        if found is None:
            return Refusal(400, "a trailer line is not NAME ':' VALUE")
        self._trailer_total += len(line) + 2
        name, value = found[1], found[2].strip(b" \t")
        if name.lower() in TRAILERS_ALLOWED:
            self.trailers.append((name.lower(), name, value))
        return line_end + 2


_SIZE_BEGUN = re.compile(
    rb"[0-9A-Fa-f]{1,%d}(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r?\Z|[0-9A-Fa-f]{0,%d}\Z"
    % (CHUNK_SIZE_DIGITS, CHUNK_SIZE_DIGITS)
)
