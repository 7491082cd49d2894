"""Clients that behave, and a site that does not hold still: every request is answered, whole and in order."""

import io
import random
import select
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import cast

import pytest
import trustme

from balancer.model import Admin, Health, Listener, ListenerTls, NodeTls, Park, Pause, Queue
from balancer.net.stream import NOT_NOW
from balancer.scoreboard import OUTCOME_CELLS, W_ACCEPTED, W_OUT_NODE
from tests.support.client import Client, request
from tests.support.upstream import Request, Step, Upstream, answer, chunked
from tests.support.worker import Worker, running, snapshot_of, wait_until

CLIENTS, CONNECTIONS, NODES = 8, 30, 3
SIZES = (0, 0, 1, 3000, 4096, 20_000, 150_000)
ADMINS = (Admin.ENABLED, Admin.ENABLED, Admin.DRAINING)
CUTS = (1, 100, 4096, 5000, 16_384, 40_000)


def echo(got: Request) -> list[Step]:
    """Sends the body back, in chunks when it came so."""
    return [chunked(got.body) if got.one("Transfer-Encoding") and got.body else answer(got.body)]


def drawn(draw: random.Random) -> tuple[bytes, bytes]:
    """Return a request and its body."""
    body = draw.randbytes(draw.choice(SIZES))
    method = draw.choice(("POST", "PUT", "PATCH")) if body else draw.choice(("GET", "DELETE", "POST"))
    lines = [f"X-Pad: {'p' * draw.choice((0, 0, 900, 5000))}"]
    if body and draw.random() < 0.2:
        lines.append("Expect: 100-continue")  # and does not wait for it, as it may
    if not body or draw.random() < 0.6:
        return request("/", *lines, f"Content-Length: {len(body)}", method=method) + body, body
    cut = draw.randrange(1, len(body)) if len(body) > 1 else 1
    pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return request("/", *lines, "Transfer-Encoding: chunked", method=method) + framed + b"0\r\n\r\n", body


class Heard:
    """What came on a connection, to be read as if it came now."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object, **__: object) -> io.BytesIO:
        """See socket.socket."""
        return io.BytesIO(self._data)

    def close(self) -> None:
        """See socket.socket."""


def converse(sock: socket.socket, data: bytes, draw: random.Random) -> bytes:
    """Send in cuts and read meanwhile, in one thread: an SSL object takes no two. Returns what came up to the end."""
    sock.setblocking(False)
    heard, size = bytearray(), draw.choice(CUTS)
    while True:
        assert any(select.select([sock], [sock] if data else [], [], 60)), f"nothing for a minute after {heard[-60:]!r}"
        if data:
            with suppress(*NOT_NOW):
                data = data[sock.send(data[:size]) :]
                size = draw.choice(CUTS)
        with suppress(*NOT_NOW):
            while piece := sock.recv(1 << 16):
                heard += piece
            return bytes(heard)


def served(worker: Worker, seed: int, tls: ssl.SSLContext | None) -> int:
    """Be one client after the other, each with several requests on one connection; return how many were answered."""
    draw, count = random.Random(seed), 0
    for _ in range(CONNECTIONS):
        exchanges = [drawn(draw) for _ in range(draw.randint(1, 6))]
        last = request("/", "Connection: close")
        with worker.connect() as plain:
            sock = plain if tls is None else tls.wrap_socket(plain, server_hostname="a.test")
            heard = converse(sock, b"".join(sent for sent, _ in exchanges) + last, draw)
            sock.close()
        answers = Client(cast(socket.socket, Heard(heard)))
        for _, body in [*exchanges, (last, b"")]:
            found = answers.read()
            assert (found.status, found.body == body) == (200, True), (seed, found.headers)
        assert answers.at_end()
        count += len(exchanges) + 1
    return count


def unsettle(worker: Worker, draw: random.Random, is_over: threading.Event) -> None:
    """Change health, intents, capacity and pause until it is over, then let all of it be well."""
    calm = worker.snapshot
    while not is_over.wait(0.01):
        for slot in range(NODES):
            worker.board.verdict(slot, draw.choice((Health.HEALTHY, Health.UNHEALTHY)))
        nodes = tuple(
            replace(
                node, admin=draw.choice((Admin.ENABLED, Admin.ENABLED, Admin.DRAINING)), capacity=draw.choice((0, 1, 2))
            )
            for node in calm.nodes
        )
        paused = Pause(time.monotonic() + 60) if draw.random() < 0.3 else None
        assert worker.apply(replace(calm, nodes=nodes, pause=paused))["type"] == "applied"
        if draw.random() < 0.3:
            worker.apply(calm)
            for slot in range(NODES):
                worker.board.verdict(slot, Health.HEALTHY)
            is_over.wait(0.1)


@pytest.mark.parametrize(
    ("seed", "over"), [(1, "plain"), (2, "tls"), (3, "selectors"), (4, "tls"), (5, "tls to nodes"), (6, "tls twice")]
)
def test_every_request_of_a_client_that_behaves_is_answered_however_often_the_site_changes(
    seed: int, over: str
) -> None:
    ca, is_over = trustme.CA(), threading.Event()
    certificate = ca.issue_cert("a.test")
    to_balancer, at_nodes = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.configure_trust(to_balancer)
    certificate.configure_cert(at_nodes)
    tls = to_balancer if over in ("tls", "tls twice") else None
    node_tls = at_nodes if over in ("tls to nodes", "tls twice") else None
    with ExitStack() as stack:
        ports = [stack.enter_context(Upstream(echo, tls=node_tls)).port for _ in range(NODES)]
        snapshot = snapshot_of(*ports, park=Park(timeout_s=60), queue=Queue(1000, 60))
        if tls is not None:
            snapshot = replace(snapshot, listeners=(Listener(0, "127.0.0.1:0", ListenerTls((((), 0),))),))
        if node_tls is not None:
            nodes = tuple(replace(node, tls=NodeTls("a.test", ca=1)) for node in snapshot.nodes)
            snapshot = replace(snapshot, nodes=nodes)
        pems = [certificate.private_key_and_cert_chain_pem.bytes(), ca.cert_pem.bytes()]
        env = {"force_selectors": over == "selectors"}
        worker = stack.enter_context(running(snapshot, pems=pems, env=env))
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS + 1))
        changes = pool.submit(unsettle, worker, random.Random(seed), is_over)
        stack.callback(is_over.set)
        clients = [pool.submit(served, worker, seed * 100 + number, tls) for number in range(CLIENTS)]
        count = sum(client.result() for client in clients)
        is_over.set()
        changes.result()
        wait_until(lambda: worker.board.cell(W_OUT_NODE) == count)
        booked = sum(worker.board.cell(cell) for cell in OUTCOME_CELLS.values())
        assert (worker.board.cell(W_ACCEPTED), booked) == (count, count)
