"""A client that sends bytes as they are, never retries, and reads answers strictly."""

import http.client
import socket
from dataclasses import dataclass
from typing import BinaryIO, cast


@dataclass
class Answer:
    """One answer. `headers` keep order and case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    closed: bool = False

    def all(self, name: str) -> list[str]:
        """Values of all fields called `name`."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        """The only value of `name`."""
        values = self.all(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None


@dataclass
class Client:
    """One connection. Use as a context manager."""

    sock: socket.socket

    def __post_init__(self) -> None:
        self._reader = cast(BinaryIO, self.sock.makefile("rb", buffering=1 << 16))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
        self.sock.close()

    def send(self, data: bytes) -> "Client":
        """Send bytes."""
        self.sock.sendall(data)
        return self

    def get(self, target: str = "/", *lines: str, method: str = "GET") -> Answer:
        """Send a request without a body and read the answer."""
        self.send(request(target, *lines, method=method))
        return self.read(head_only=method == "HEAD")

    def post(self, body: bytes, target: str = "/", *lines: str, method: str = "POST") -> Answer:
        """Send a request with a body and read the answer."""
        self.send(request(target, f"Content-Length: {len(body)}", *lines, method=method) + body)
        return self.read()

    def line(self) -> bytes:
        """Read one line."""
        return self._reader.readline()

    def read_head(self) -> tuple[int, list[tuple[str, str]]]:
        """Read one head, an interim one, too."""
        first = self.line()
        assert first.startswith(b"HTTP/1.1 "), first
        headers = []
        while (line := self.line()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").rstrip("\r\n").partition(":")
            headers.append((name, value.strip()))
        return int(first.split()[1]), headers

    def read(self, *, head_only: bool = False) -> Answer:
        """Read one final answer."""
        status, headers = self.read_head()
        while status < 200 and status != 101:
            status, headers = self.read_head()
        found = Answer(status, headers, b"")
        if head_only or status in (101, 204, 304):
            return found
        if found.one("Transfer-Encoding") == "chunked":
            found.body = self._read_chunked(found)
        elif (length := found.one("Content-Length")) is not None:
            found.body = self._reader.read(int(length))
            if len(found.body) != int(length):
                raise http.client.IncompleteRead(found.body, int(length) - len(found.body))
        else:
            found.body = self._reader.read()
            found.closed = True
        return found

    def _read_chunked(self, found: Answer) -> bytes:
        body = b""
        while True:
            line = self.line()
            if not line:
                raise http.client.IncompleteRead(body)
            size = int(line, 16)
            if size == 0:
                break
            body += self._reader.read(size)
            assert self._reader.read(2) == b"\r\n"
        while (line := self.line()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").rstrip("\r\n").partition(":")
            found.headers.append((name, value.strip()))
        return body

    def read_raw(self, size: int) -> bytes:
        """Read exactly `size` bytes, or what there is before the end."""
        return self._reader.read(size)

    def at_end(self) -> bool:
        """Whether the other side closed; waits for it."""
        try:
            return self._reader.read(1) == b""
        except ConnectionResetError:
            return True


def request(target: str = "/", *lines: str, method: str = "GET", version: str = "1.1", host: str = "a.test") -> bytes:
    """Return a request head."""
    head = [f"{method} {target} HTTP/{version}", f"Host: {host}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
