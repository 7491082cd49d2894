"""Ports for servers that have to know theirs before they listen."""

import itertools
import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress

PORTS = range(15_000, 32_000)  # below the ephemeral range, so that no client's own port takes one meanwhile


def _walk() -> Iterator[int]:
    """Each port once before any comes again; the test processes of one run have ports of their own."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = PORTS[number :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    start = random.SystemRandom().randrange(len(own))
    return itertools.cycle([*own[start:], *own[:start]])


_ports = _walk()


def free_port() -> int:
    """A loopback port that is free for TCP and UDP, and that nobody else is given before it is bound."""
    for port in itertools.islice(_ports, len(PORTS)):
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams, suppress(OSError):
            stream.bind(("127.0.0.1", port))
            datagrams.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")
