"""Upgraded connections."""

import math
import time
from dataclasses import replace
from typing import Any

import pytest

from balancer.model import Admin, Drain, Limits, Timeouts
from balancer.scoreboard import (
    CODES,
    L_DURATION,
    L_REQUESTS,
    METHODS,
    N_IN_FLIGHT,
    N_TUNNELS,
    TIMING_CELLS,
    W_LISTENERS,
    W_NODES,
    W_OUT_NODE,
    W_TUNNELS,
)
from tests.support.client import Client, request
from tests.support.upstream import Echo, Request, Sleep, Step, Upstream
from tests.support.worker import Worker, running, snapshot_of, wait_until

WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


GREETING = b"\x81\x02hi"  # a text frame
FRAME = b"\x81\x8a\0\0\0\0still open"  # masked, as a client sends it


def agree(got: Request) -> list[Step] | None:
    """Switches to whatever is asked, greets, then echoes."""
    token = got.one("Upgrade")
    if token is None:
        return None
    head = f"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {token}\r\nX-Hop: 1\r\n\r\n"
    return [head.encode() + GREETING, Echo()]


def opened(worker: Worker, *lines: str, method: str = "GET") -> Client:
    """Return a client whose tunnel is open and greeted."""
    client = Client(worker.connect())
    client.send(request("/tunnel", *lines, method=method))
    found = client.read()
    assert found.status == 101
    assert found.one("X-Request-Id") is not None
    assert client.read_raw(4) == GREETING
    return client


@pytest.mark.parametrize(
    ("lines", "method"),
    [
        (WEBSOCKET, "GET"),
        (("Connection: upgrade", "Upgrade: ssh"), "POST"),
        (("Connection: upgrade", "Upgrade: tunnel"), "POST"),
    ],
)
def test_bytes_pass_both_ways_and_half_close_is_kept(lines: tuple[str, ...], method: str) -> None:
    with Upstream(agree) as node, running(snapshot_of(node.port)) as worker:
        with opened(worker, *lines, method=method) as client:
            assert (worker.board.cell(W_TUNNELS), worker.board.cell(W_NODES + N_TUNNELS)) == (1, 1)
            assert (worker.board.busy(), worker.board.cell(W_NODES + N_IN_FLIGHT)) == (0, 0)
            data = bytes(range(256)) * 4000
            for _ in range(2):
                client.send(data[:50_000])
                assert client.read_raw(50_000) == data[:50_000]
            client.send(b"last")
            client.sock.shutdown(1)
            assert client.read_raw(100) == b"last"
        wait_until(lambda: worker.board.cell(W_OUT_NODE) == 1)
        assert worker.board.cell(W_TUNNELS) == 0
        listener = W_LISTENERS + L_REQUESTS + METHODS.index(method) * len(CODES)
        wait_until(lambda: worker.board.cell(listener + CODES.index(101)) == 1)
        times = range(W_LISTENERS + L_DURATION, W_LISTENERS + L_DURATION + TIMING_CELLS)
        assert not any(worker.board.cell(cell) for cell in times)  # how long it lasted is no answer's time
        line = worker.log_lines(1)[0]
        assert (line["http.response.status_code"], line["arv.termination"]) == (101, "tunnel-closed")
        assert line["arv.bytes_in"] == 100_004


@pytest.mark.parametrize(
    "lines",
    [("Connection: upgrade", "Upgrade: h2c"), ("Upgrade: websocket",), ("Connection: upgrade", "Upgrade: irc")],
)
def test_an_upgrade_that_is_not_allowed_is_an_ordinary_request(lines: tuple[str, ...]) -> None:
    with Upstream(agree) as node, running(snapshot_of(node.port)) as worker, Client(worker.connect()) as client:
        assert client.get("/", *lines).status == 200
        assert node.requests[0].one("Upgrade") is None


def test_a_refused_upgrade_is_passed_on() -> None:
    with Upstream() as node, running(snapshot_of(node.port)) as worker, Client(worker.connect()) as client:
        assert client.get("/", *WEBSOCKET).status == 200
        assert node.requests[0].one("Upgrade") == "websocket"
        assert client.get("/").status == 200


def test_a_tunnel_does_not_hide_what_is_slow() -> None:
    def script(got: Request) -> list[Step] | None:
        return [Sleep(5)] if got.target == "/slow" else agree(got)

    with (
        Upstream(script) as node,
        running(snapshot_of(node.port)) as worker,
        opened(worker, *WEBSOCKET),
        Client(worker.connect()) as client,
    ):
        client.send(request("/slow"))
        wait_until(lambda: worker.board.busy() == 1)
        found = worker.ask({"type": "exchanges", "node": None, "limit": 5})["exchanges"]
        assert [item["path"] for item in found] == ["/slow", "/tunnel"]


def test_an_idle_tunnel_ends() -> None:
    with Upstream(agree) as node, running(snapshot_of(node.port, timeouts=Timeouts(tunnel_idle_s=0.3))) as worker:
        with opened(worker, *WEBSOCKET) as client:
            assert client.at_end()
        assert worker.log_lines(1)[0]["arv.termination"] == "tunnel-idle"


def burnt_by_a_half_closed_tunnel(seconds: float, enough_s: float = math.inf, **more: Any) -> float:
    with (
        Upstream(agree) as node,
        running(snapshot_of(node.port), **more) as worker,
        opened(worker, "Connection: upgrade", "Upgrade: ssh", method="POST"),
    ):
        node.close_connections()
        time.sleep(0.2)
        return worker.cpu_s_within(seconds, enough_s)


@pytest.mark.parametrize("seconds", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_half_closed_tunnel_costs_no_cpu(seconds: int) -> None:
    assert burnt_by_a_half_closed_tunnel(seconds) <= 0.05


def test_a_half_closed_tunnel_would_spin_if_the_interest_were_kept() -> None:
    """The negative control of the test above."""
    assert burnt_by_a_half_closed_tunnel(20, 0.25, without="dropping interests") >= 0.25


@pytest.mark.parametrize("cut", [0, 1, 2, 7, len(FRAME) - 1])
def test_draining_a_node_says_goodbye_between_frames_after_the_grace(cut: int) -> None:
    with Upstream(agree) as node:
        snapshot = snapshot_of(node.port, drain=Drain(tunnel_grace_s=0.3))
        with running(snapshot) as worker, opened(worker, *WEBSOCKET) as client:
            client.send(FRAME + FRAME[:cut])
            assert client.read_raw(len(FRAME) + cut) == FRAME + FRAME[:cut]
            worker.apply(replace(snapshot, nodes=(replace(snapshot.nodes[0], admin=Admin.DRAINING),)))
            if cut:
                time.sleep(1.0)  # the grace and a sweep are over: it waits for the frame to end
                client.send(FRAME[cut:])
                assert client.read_raw(len(FRAME) - cut) == FRAME[cut:]
            assert client.read_raw(100) == b"\x88\x02\x03\xe9"
            wait_until(lambda: worker.board.cell(W_TUNNELS) == 0)


def test_within_the_grace_bytes_go_on_to_a_draining_node() -> None:
    with Upstream(agree) as node:
        snapshot = snapshot_of(node.port, drain=Drain(tunnel_grace_s=60))
        with running(snapshot) as worker, opened(worker, *WEBSOCKET) as client:
            worker.apply(replace(snapshot, nodes=(replace(snapshot.nodes[0], admin=Admin.DRAINING),)))
            client.send(FRAME)
            assert client.read_raw(len(FRAME)) == FRAME
            assert worker.board.cell(W_TUNNELS) == 1


def test_draining_a_node_half_closes_other_tunnels() -> None:
    with Upstream(agree) as node:
        snapshot = snapshot_of(node.port, drain=Drain(tunnel_grace_s=0.3))
        with running(snapshot) as worker, opened(worker, "Connection: upgrade", "Upgrade: ssh") as client:
            client.send(b"bytes")
            assert client.read_raw(5) == b"bytes"
            worker.apply(replace(snapshot, nodes=(replace(snapshot.nodes[0], admin=Admin.DRAINING),)))
            assert client.at_end()
            wait_until(lambda: worker.board.cell(W_TUNNELS) == 0)


def test_tunnels_are_capped() -> None:
    node, limits = Upstream(agree), Limits(tunnels=1)
    with node, running(snapshot_of(node.port, limits=limits)) as worker, opened(worker, *WEBSOCKET):
        client = Client(worker.connect())
        found = client.get("/", *WEBSOCKET)
        assert (found.status, found.one("X-Arv-Balance")) == (503, "tunnels-full")
        client.close()
