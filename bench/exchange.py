"""What an exchange costs in our own code, without the kernel: `python -P -m bench.exchange [ROUNDS] [--profile]`.

A real `Plane` on its reactor, with a poller and sockets that only copy bytes. A batch of connections is ready in each
turn, as under load. The best batch counts, which a busy machine disturbs least; so a change of 0.1 us can be seen.
"""

import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from balancer.model import Health, Listener, Node, Snapshot
from balancer.net.downstream import Downstream
from balancer.net.listener import Gate
from balancer.net.plane import Plane
from balancer.net.poller import READ
from balancer.net.reactor import Reactor
from balancer.net.responsebody import IDLE
from balancer.net.upstream import Upstream
from balancer.scoreboard import C_HEALTH, C_HEALTHY_SINCE_NS, C_VERDICT_NS, W_LISTENERS, Scoreboard, control_cell
from bench.core import REAL_REQUEST, REAL_RESPONSE, SMALL_REQUEST, SMALL_RESPONSE

CONNECTIONS = 48
BODY = b"x" * 1024
_ID = b"req-00000000001000000001"


class Readiness:
    """A poller that says what it is told to say, and counts what it is asked to change."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.changes = 0

    def register(self, _fd: int, _mask: int) -> None:
        """See Poller."""

    def modify(self, _fd: int, _mask: int) -> None:
        """See Poller."""
        self.changes += 1

    def unregister(self, _fd: int) -> None:
        """See Poller."""

    def poll(self, _timeout: float | None = None, _maxevents: int = -1) -> list[tuple[int, int]]:
        """See Poller."""
        events, self.events = self.events, []
        return events

    def close(self) -> None:
        """See Poller."""


class Wire:
    """A socket that has `incoming` to read and keeps what was `sent`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.incoming = b""
        self.sent = b""

    def recv(self, _size: int) -> bytes:
        """See Socket."""
        return self.incoming

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        """See Socket."""
        data = self.incoming
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        """See Socket."""
        self.sent = data  # type: ignore[assignment]
        return len(data)

    def sendmsg(self, buffers: Iterable[bytes | memoryview]) -> int:
        """See Socket."""
        self.sent = b"".join(buffers)
        return len(self.sent)

    def fileno(self) -> int:
        """See Socket."""
        return self.number

    def shutdown(self, _how: int) -> None:
        """See Socket."""

    def close(self) -> None:
        """See Socket."""


class Bench:
    """A plane with connections on both sides."""

    def __init__(self, folder: Path) -> None:
        board = Scoreboard.create(time.monotonic_ns())
        now = time.monotonic_ns()
        nodes = tuple(Node(name=f"n{slot}", slot=slot, host="127.0.0.1", port=9) for slot in range(2))
        for node in nodes:
            cell = control_cell(node.slot)
            board.cells[cell + C_HEALTHY_SINCE_NS] = 1
            board.cells[cell + C_VERDICT_NS] = now + 10**13
            board.cells[cell + C_HEALTH] = Health.HEALTHY
        self.readiness = Readiness()
        self.reactor = Reactor(self.readiness)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(os.open("/dev/null", os.O_WRONLY), log)
        self.plane = Plane(self.reactor, board, 0, [], log)
        listener = Listener(0, "127.0.0.1:1")
        self.plane.apply(Snapshot(1, "bench", listeners=(listener,), nodes=nodes), [])
        self.plane.turn_end()
        gate = Gate(listener, self.plane.row + W_LISTENERS)
        self.plane.gates[0] = gate
        self.clients = [Downstream(self.plane, Wire(n), n, gate, "127.0.0.1", n) for n in range(100, 100 + CONNECTIONS)]
        self.plane.clients.update(self.clients)
        self.wires: dict[int, Wire] = {}
        for number in range(1000, 1000 + 2 * CONNECTIONS):
            wire = self.wires[number] = Wire(number)
            upstream = Upstream(self.reactor, wire, number, self.plane.nodes[number % 2])
            upstream.mask = READ
            self.reactor.watch(number, READ, upstream)
            upstream.phase = IDLE
            self.plane.nodes[number % 2].pool.append(upstream)
        for client in self.clients:
            client.mask = READ
            self.reactor.watch(client.fd, READ, client)

    def batch_ns(self, request: bytes, response: bytes) -> int:
        """Run one exchange on every client connection; returns the time spent in the reactor's turns."""
        for client in self.clients:
            client.sock.incoming = request  # type: ignore[attr-defined]
        self.readiness.events = [(client.fd, READ) for client in self.clients]
        started = time.perf_counter_ns()
        self.reactor.turn()
        spent = time.perf_counter_ns() - started
        events = []
        for client in self.clients:
            exchange = client.exchange
            if exchange is None or exchange.upstream is None:
                raise RuntimeError("an exchange did not begin")
            exchange.upstream.sock.incoming = response.replace(_ID, exchange.request_id)  # type: ignore[attr-defined]
            events.append((exchange.upstream.fd, READ))
        self.readiness.events = events
        started = time.perf_counter_ns()
        self.reactor.turn()
        spent += time.perf_counter_ns() - started
        if any(client.exchange is not None for client in self.clients):
            raise RuntimeError("exchanges did not end")
        return spent


def main(argv: list[str]) -> None:
    """Print microseconds and poller changes per exchange."""
    rounds = int(argv[0]) if argv and argv[0].isdigit() else 3000
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name, request, response in (
            ("small heads", SMALL_REQUEST, SMALL_RESPONSE + BODY),
            ("850-byte heads", REAL_REQUEST, REAL_RESPONSE + BODY),
        ):
            bench.batch_ns(request, response)
            bench.readiness.changes = 0
            profile = cProfile.Profile()
            if "--profile" in argv:
                profile.enable()
            best = min(bench.batch_ns(request, response) for _ in range(rounds))
            profile.disable()
            per = best / CONNECTIONS / 1000
            changes = bench.readiness.changes / rounds / CONNECTIONS
            print(f"{name:20} {per:6.2f} us an exchange, {changes:.2f} epoll_ctl")
            if "--profile" in argv:
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main(sys.argv[1:])
