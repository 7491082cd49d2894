"""Listening sockets of the admin API."""

import socket
from collections.abc import Sequence
from pathlib import Path

BACKLOG = 128
MODE = 0o660  # who may open it is an admin; its group is the service's


def unix_socket(path: Path) -> socket.socket:
    """Listen on a Unix socket, in place of one that a dead process left. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(fresh))
        fresh.chmod(MODE)
        sock.listen(BACKLOG)
        fresh.replace(path)  # a client finds either the old socket or one that listens
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def listening(address: str) -> socket.socket:
    """Listen at `unix:/path` or `HOST:PORT`. Raises OSError."""
    if address.startswith("unix:"):
        return unix_socket(Path(address.removeprefix("unix:")))
    return tcp_socket(address)


def host_names() -> list[str]:
    """Return the names that this machine may be called by in a Host field, beside loopback.

    Asks the resolver, which may take seconds.
    """
    return [socket.gethostname().lower(), socket.getfqdn().lower()]


def reached_by(listen: str, hosts: Sequence[str]) -> list[str]:
    """Return the `HOST:PORT` by which browsers reach an address that is listened at, best first; none for a socket.

    `hosts` are the names that it is known by.
    """
    host, _, port = listen.rpartition(":")
    if not port or listen.startswith("unix:"):
        return []
    is_everywhere = host in {"0.0.0.0", "[::]", ""}  # noqa: S104 - compared, not bound
    names = [*hosts, *([socket.gethostname().lower()] if is_everywhere and not hosts else [])]
    return [f"{name}:{port}" for name in ([] if is_everywhere else [host]) + names]


def tcp_socket(bind: str) -> socket.socket:
    """Listen on `HOST:PORT` or `[V6]:PORT`. Raises OSError."""
    host, _, port = bind.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), int(port)))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
