"""Connections that wait: `python -P -m bench.idle PORT COUNT [tls]` opens them, then holds them until its input ends.

Each has had one request answered, as a kept-alive connection of a real client has. Prints `OPEN n` when all are open.
"""

import socket
import ssl
import sys

from bench.machine import raise_limits

_REQUEST = b"GET /small?n=%d HTTP/1.1\r\nHost: xarv1.example.com\r\n\r\n"


def opened(port: int, number: int, context: ssl.SSLContext | None) -> socket.socket:
    """Return a connection that has had one answer. Raises OSError when the target refuses."""
    sock: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms a TLS connection with some targets
    if context:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    sock.sendall(_REQUEST % number)
    data = sock.recv(65536)
    if not data.startswith(b"HTTP/1.1 200"):
        raise OSError(f"connection {number} was answered {data[:60]!r}")
    head, _end, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        data = sock.recv(65536)
        if not data:
            raise OSError(f"connection {number} was cut")
        body += data
    return sock


def main(port: int, count: int, tls: str = "") -> None:
    """Open, report, hold."""
    raise_limits()
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a certificate made for this run; only its cost matters
    held = [opened(port, number, context) for number in range(count)]
    print(f"OPEN {len(held)}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4])
