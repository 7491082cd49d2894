"""A client that sends given bytes in given cuts and judges what it gets by llhttp."""

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import httptools

PATIENCE_S = 8.0


@dataclass(slots=True)
class Answer:
    """One response."""

    status: int = 0
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    def value(self, name: bytes) -> bytes | None:
        return next((value for lower, value in self.fields if lower == name), None)


class Conversation:
    """One client connection. Close it after use."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.answers: list[Answer] = []  # final ones
        self.interim: list[int] = []
        self.closed = False
        self.reset = False
        self.raw = b""
        self._sock = socket.create_connection(address, timeout=PATIENCE_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = Answer()
        self._parser = httptools.HttpResponseParser(self)

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send what goes: the other side may have answered and closed in the middle."""
        for piece in pieces:
            try:
                self._sock.sendall(piece)
            except OSError:
                return

    def read(self, until_answers: int | None = None, until_interim: int = 0, patience_s: float = PATIENCE_S) -> None:
        """Read until there are so many answers (None: until closed)."""
        deadline = time.monotonic() + patience_s
        while not self.closed and not self._enough(until_answers, until_interim):
            self._sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError:
                return
            except OSError:
                self.reset = self.closed = True
                return
            self.raw += data
            if not data:
                self.closed = True
                return
            with contextlib.suppress(httptools.HttpParserUpgrade):
                self._parser.feed_data(data)

    def _enough(self, answers: int | None, interim: int) -> bool:
        if interim:
            return len(self.interim) >= interim or bool(self.answers)
        return answers is not None and len(self.answers) >= answers

    def end(self) -> None:
        self._sock.close()

    def on_message_begin(self) -> None:
        self._answer = Answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._answer.body += body

    def on_message_complete(self) -> None:
        if 100 <= self._answer.status < 200 and self._answer.status != 101:
            self.interim.append(self._answer.status)
        else:
            self.answers.append(self._answer)


@contextlib.contextmanager
def talking(address: tuple[str, int]) -> Iterator[Conversation]:
    conversation = Conversation(address)
    try:
        yield conversation
    finally:
        conversation.end()
