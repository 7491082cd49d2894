"""Clients and nodes that misbehave at random: the worker keeps its books, its descriptors and its temper."""

import contextlib
import http.client
import random
import socket
import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from balancer.model import Health, Limits, Listener, ListenerTls, Park, Pause, Queue, Timeouts
from balancer.scoreboard import (
    N_CELLS,
    N_IN_FLIGHT,
    N_TUNNELS,
    OUTCOME_CELLS,
    W_ACCEPTED,
    W_CONNECTIONS,
    W_NODES,
    W_PARKED,
    W_PARKED_BYTES,
    W_QUEUED,
    W_TUNNELS,
)
from tests.support.client import Client, request
from tests.support.upstream import Close, Echo, Request, Reset, Sleep, Step, Upstream, answer, chunked
from tests.support.worker import Worker, running, snapshot_of, wait_until

TIMES = Timeouts(
    header_s=0.5,
    body_idle_s=0.5,
    connect_s=0.5,
    response_s=0.6,
    response_idle_s=0.5,
    keepalive_s=0.7,
    tunnel_idle_s=0.8,
    upstream_idle_s=0.5,
    send_idle_s=0.6,
)
STEPS: tuple[Step, ...] = (
    answer(b"small"),
    answer(b"m" * 70_000),
    answer(b"L" * 700_000),
    answer(b"cut", length=50),
    answer(b"cut" * 40_000, length=900_000),
    chunked(b"a", b"b" * 5000),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 103 Hints\r\n\r\n" + answer(b"hinted"),
    b"HTTP/1.1 101 Go\r\nUpgrade: ssh\r\nConnection: upgrade\r\n\r\nhello",
    b"rubbish\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Le",
    b"",
)


class Node(Upstream):
    """A node that draws its behaviour."""

    def __init__(self, seed: int) -> None:
        super().__init__(self.behave)
        self.random = random.Random(seed)

    def behave(self, _: Request) -> list[Step]:
        draw = self.random
        if draw.random() < 0.6:
            return [answer(b"fine")]
        steps: list[Step] = [draw.choice(STEPS)]
        if draw.random() < 0.3:
            steps.insert(0, Sleep(draw.choice((0.01, 0.1, 0.9))))
        steps.append(draw.choice((Close(), Reset(), Sleep(0.2), Echo(), answer(b"more"))))
        return steps


def misbehave(worker: Worker, seed: int, rounds: int, tls: ssl.SSLContext | None) -> None:
    """One client after the other, each with a story of its own."""
    draw = random.Random(seed)
    for _ in range(rounds):
        with contextlib.suppress(OSError, AssertionError, ValueError, http.client.HTTPException):
            one_story(worker, draw, tls)


def one_story(worker: Worker, draw: random.Random, tls: ssl.SSLContext | None) -> None:
    sock = worker.connect(timeout_s=1.5)
    if tls is not None and draw.random() < 0.95:
        sock = tls.wrap_socket(sock, server_hostname="a.test")
    with Client(sock) as client:
        for _ in range(draw.randint(1, 4)):
            client.send(drawn_request(draw))
            if not goes_on(client, draw):
                return


def drawn_request(draw: random.Random) -> bytes:
    size = draw.choice((0, 0, 0, 10, 5_000, 300_000))
    method = draw.choice(("GET", "POST", "PUT", "DELETE"))
    lines = [f"Content-Length: {size}"] if size else []
    if draw.random() < 0.1:
        lines += ["Connection: upgrade", "Upgrade: ssh"]
    if draw.random() < 0.1:
        lines.append("Expect: 100-continue")
    data = request(f"/{draw.randrange(9)}", *lines, method=method) + b"b" * size
    if draw.random() < 0.15:
        data = request("/c", "Transfer-Encoding: chunked", method=method) + b"3\r\nabc\r\n0\r\n\r\n"
    if draw.random() < 0.1:
        data = data[: draw.randrange(len(data))] + draw.choice((b"", b"\x00", b"\r\n\r\n", b"zz"))
    return data + request("/pipelined") if draw.random() < 0.2 else data


def goes_on(client: Client, draw: random.Random) -> bool:
    """Read the answer, or leave in one of the ways in which clients leave."""
    match draw.randrange(8):
        case 0:
            return False
        case 1:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return False
        case 2:
            client.sock.shutdown(socket.SHUT_WR)
            client.read()
            return False
        case 3:
            client.line()
            return False
        case _:
            client.read()
            return True


def settled(worker: Worker) -> bool:
    cell = worker.board.cell
    booked = sum(cell(outcome) for outcome in OUTCOME_CELLS.values())
    idle = (W_CONNECTIONS, W_PARKED, W_PARKED_BYTES, W_QUEUED, W_TUNNELS)
    nodes = [W_NODES + slot * N_CELLS + offset for slot in range(3) for offset in (N_IN_FLIGHT, N_TUNNELS)]
    return cell(W_ACCEPTED) == booked and not any(cell(one) for one in (*idle, *nodes))


@pytest.mark.parametrize(("seed", "listener"), [(1, "plain"), (2, "plain"), (3, "plain"), (4, "tls"), (5, "selectors")])
def test_books_and_descriptors_balance_after_chaos(seed: int, listener: str) -> None:
    nodes = [Node(seed * 10 + number) for number in range(3)]
    limits = Limits(tunnels=3, body_bytes=200_000 if seed == 2 else 1 << 20)
    snapshot = snapshot_of(
        *(node.port for node in nodes), timeouts=TIMES, limits=limits, park=Park(timeout_s=0.5), queue=Queue(4, 0.4)
    )
    if seed == 3:
        snapshot = replace(snapshot, nodes=tuple(replace(node, capacity=2) for node in snapshot.nodes))
    more: dict[str, Any] = {"env": {"force_selectors": listener == "selectors"}}
    tls = None
    if listener == "tls":
        ca = trustme.CA()
        tls = ssl.create_default_context()
        ca.configure_trust(tls)
        more["pems"] = [ca.issue_cert("a.test").private_key_and_cert_chain_pem.bytes()]
        snapshot = replace(snapshot, listeners=(Listener(0, "127.0.0.1:0", ListenerTls((((), 0),))),))
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.enter_context(node)
        worker = stack.enter_context(running(snapshot, **more))
        before = descriptors(worker)
        threads = [threading.Thread(target=misbehave, args=(worker, seed * 100 + n, 25, tls)) for n in range(8)]
        for thread in threads:
            thread.start()
        draw = random.Random(seed)
        while any(thread.is_alive() for thread in threads):
            for slot in range(3):
                worker.board.verdict(slot, draw.choice((Health.HEALTHY, Health.HEALTHY, Health.UNHEALTHY)))
            paused = Pause(time.monotonic() + 0.1) if draw.random() < 0.3 else None
            assert worker.apply(replace(snapshot, pause=paused))["type"] == "applied"
            threads[draw.randrange(len(threads))].join(0.05)
        wait_until(lambda: settled(worker), 10)
        assert worker.process.poll() is None
        wait_until(lambda: descriptors(worker) <= before + 40)  # idle node connections and spare pipes
        wait_until(lambda: not any(node.open_connections for node in nodes))  # none is left that echoes
        for slot, node in enumerate(nodes):
            node.script = None
            worker.board.verdict(slot, Health.HEALTHY)
        worker.apply(replace(snapshot, timeouts=Timeouts()))  # short ones end what is off the CPU, too
        sock = worker.connect()
        with Client(sock if tls is None else tls.wrap_socket(sock, server_hostname="a.test")) as client:
            assert client.get("/").status == 200


def descriptors(worker: Worker) -> int:
    return len(list(Path("/proc", str(worker.process.pid), "fd").iterdir()))
