"""Limits and time: each just under and just over."""

import select
import socket
import time
from dataclasses import replace

import pytest

from balancer.model import Limits, Timeouts
from balancer.net.plane import SURPLUS
from balancer.scoreboard import W_CONNECTIONS, W_OUT_CLIENT_LEFT, W_REQUEST_BYTES
from tests.support.client import Client, request
from tests.support.upstream import Request, Sleep, Step, Upstream, answer
from tests.support.worker import Worker, running, snapshot_of, wait_until


def test_a_head_that_does_not_end_is_a_408_and_silence_just_a_close() -> None:
    with Upstream() as node, running(snapshot_of(node.port, timeouts=Timeouts(header_s=0.4))) as worker:
        with Client(worker.connect()) as client:
            client.send(b"GET / HT")
            found = client.read()
            assert (found.status, found.one("X-Arv-Balance")) == (408, "header-timeout")
            assert client.at_end()
        with Client(worker.connect()) as silent:
            assert silent.at_end()
        with Client(worker.connect()) as dripping:
            began = time.monotonic()
            dripping.send(request("/")[:-2])
            while not select.select([dripping.sock], [], [], 0.05)[0]:
                assert time.monotonic() - began < 20
                dripping.send(b"x: y\r\n")
            assert dripping.read().status == 408


def test_an_idle_connection_is_closed_after_keepalive() -> None:
    with Upstream() as node, running(snapshot_of(node.port, timeouts=Timeouts(keepalive_s=0.3))) as worker:
        with Client(worker.connect()) as client:
            assert client.get("/").status == 200
            assert client.at_end()
        wait_until(lambda: worker.board.cell(W_CONNECTIONS) == 0)


def test_a_body_that_stops_is_a_408() -> None:
    with Upstream() as node, running(snapshot_of(node.port, timeouts=Timeouts(body_idle_s=0.3))) as worker:
        with Client(worker.connect()) as client:
            client.send(request("/", "Content-Length: 10", method="POST") + b"abc")
            found = client.read()
            assert (found.status, found.one("X-Arv-Balance")) == (408, "body-timeout")
            assert client.at_end()
        wait_until(lambda: node.open_connections == 0)
        assert not [got for got in node.requests if got.complete]


def test_a_body_that_drips_is_a_408() -> None:
    limits = Limits(min_rate_bytes_per_s=1000, min_rate_after_s=0.3)
    node = Upstream()
    with node, running(snapshot_of(node.port, limits=limits)) as worker, Client(worker.connect()) as client:
        client.send(request("/", "Content-Length: 1000", method="POST"))
        while not select.select([client.sock], [], [], 0.05)[0]:
            client.send(b"x")
        found = client.read()
        assert (found.status, found.one("X-Arv-Balance")) == (408, "body-slow")


@pytest.mark.parametrize("size", [1000, 1001])
def test_the_body_limit_holds_for_lengths_and_chunks(size: int) -> None:
    expected = 200 if size == 1000 else 413
    with Upstream() as node, running(snapshot_of(node.port, limits=Limits(body_bytes=1000))) as worker:
        with Client(worker.connect()) as client:
            assert client.post(b"x" * size).status == expected
        with Client(worker.connect()) as client:
            half = size // 2
            client.send(request("/", "Transfer-Encoding: chunked", method="POST"))
            client.send(b"%x\r\n%b\r\n" % (half, b"x" * half))
            time.sleep(0.05)
            client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size - half, b"x" * (size - half)))
            assert client.read().status == expected


@pytest.mark.parametrize(("sent", "kept"), [("req-abcdefghij0123456789", True), ("bad id", False)])
def test_a_refused_head_is_answered_with_the_request_id_of_the_client(sent: str, kept: bool) -> None:
    lines = ("Content-Length: 1001", f"X-Request-Id: {sent}")
    with Upstream() as node, running(snapshot_of(node.port, limits=Limits(body_bytes=1000))) as worker:
        with Client(worker.connect()) as client:
            client.send(request("/", *lines, method="POST"))
            found = client.read()
        assert found.status == 413
        assert (found.one("X-Request-Id") == sent) == kept
        assert worker.log_lines(1)[0]["request_id"] == found.one("X-Request-Id")


def test_a_bad_chunk_is_a_400_and_the_node_gets_no_whole_request() -> None:
    with Upstream() as node, running(snapshot_of(node.port)) as worker, Client(worker.connect()) as client:
        client.send(request("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
        time.sleep(0.1)
        client.send(b"zz\r\n")
        found = client.read()
        assert (found.status, found.one("X-Arv-Balance")) == (400, "bad-chunk")
        assert client.at_end()
        wait_until(lambda: node.open_connections == 0)
        assert not [got for got in node.requests if got.complete]


def test_a_connection_over_the_cap_is_told_so_and_reaches_no_node() -> None:
    with Upstream() as node, running(snapshot_of(node.port, limits=Limits(connections=2))) as worker:
        first, second = Client(worker.connect()), Client(worker.connect())
        assert first.get("/").status == second.get("/").status == 200
        with Client(worker.connect()) as third:
            found = third.get("/third", "X-Request-Id: third")
            assert (found.status, found.one("X-Arv-Balance")) == (503, "connections-full")
            assert (found.one("X-Request-Id"), found.one("Retry-After")) == ("third", "1")
            assert third.at_end()
        assert [got.target for got in node.requests] == ["/", "/"]
        assert worker.log_lines(3)[2]["url.path"] == "/third"
        second.close()
        wait_until(lambda: worker.board.cell(W_CONNECTIONS) == 1)
        with Client(worker.connect()) as fourth:
            assert fourth.get("/").status == 200
        first.close()


def test_connections_far_over_the_cap_are_closed_and_silent_ones_end_soon() -> None:
    with Upstream() as node, running(snapshot_of(node.port, limits=Limits(connections=1))) as worker:
        clients = [Client(worker.connect()) for _ in range(1 + SURPLUS)]
        wait_until(lambda: worker.board.cell(W_CONNECTIONS) == 1 + SURPLUS)
        with Client(worker.connect()) as too_many:
            assert too_many.at_end()
        assert clients[0].get("/").status == 200
        assert clients[-1].at_end()
        wait_until(lambda: worker.board.cell(W_CONNECTIONS) == 1)
        for client in clients:
            client.close()


def test_requests_of_a_connection_are_capped() -> None:
    node, limits = Upstream(), Limits(requests_per_connection=2)
    with node, running(snapshot_of(node.port, limits=limits)) as worker, Client(worker.connect()) as client:
        assert client.get("/").one("Connection") is None
        assert client.get("/").one("Connection") == "close"
        assert client.at_end()


def big(_: Request) -> bytes:
    return answer(b"z" * (10 << 20))


def test_a_client_that_reads_nothing_is_cut_and_memory_stays_bounded() -> None:
    with Upstream(big) as node, running(snapshot_of(node.port, timeouts=Timeouts(send_idle_s=0.5))) as worker:
        with Client(worker.connect()) as warm:
            assert len(warm.get("/").body) == 10 << 20
        before = worker.rss_kib()
        with Client(worker.connect()) as client:
            client.send(request("/"))
            time.sleep(0.2)
            assert worker.rss_kib() - before < 1024
            wait_until(lambda: worker.board.cell(W_OUT_CLIENT_LEFT) == 1)
        assert worker.log_lines(2)[1]["arv.termination"] == "client-stalled"


def test_ten_mebibytes_pass_a_slow_reader_and_a_slow_node_whole() -> None:
    def slow_node(got: Request) -> list[Step]:
        body = b"y" * (10 << 20)
        return [answer(body[: 5 << 20], length=10 << 20), Sleep(0.2), body[5 << 20 :]]

    with Upstream(slow_node) as node, running(snapshot_of(node.port)) as worker:
        with Client(worker.connect()) as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            client.send(request("/", f"Content-Length: {10 << 20}", method="POST"))
            client.send(b"x" * (10 << 20))
            assert client.read_head()[0] == 200
            got = 0
            while got < 10 << 20:
                piece = client.read_raw(1 << 20)
                assert piece.count(b"y") == len(piece) > 0
                got += len(piece)
                time.sleep(0.02)
        assert node.requests[0].body == b"x" * (10 << 20)
        wait_until(lambda: worker.board.cell(W_REQUEST_BYTES) == 10 << 20)


def test_slow_clients_do_not_hold_up_others() -> None:
    with (
        Upstream(lambda got: big(got) if got.target == "/big" else None) as node,
        running(snapshot_of(node.port)) as worker,
    ):
        slow = [Client(worker.connect()) for _ in range(20)]
        for number, client in enumerate(slow):
            client.send(request("/big") if number % 2 else b"GET")
        with Client(worker.connect()) as client:
            began = time.monotonic()
            assert all(client.get("/").status == 200 for _ in range(50))
            assert time.monotonic() - began < 20
        for client in slow:
            client.close()


def test_many_idle_connections_cost_little() -> None:
    with Upstream() as node, running(snapshot_of(node.port)) as worker:
        before = worker.rss_kib()
        idle = [worker.connect() for _ in range(400)]
        wait_until(lambda: worker.board.cell(W_CONNECTIONS) == 400)
        assert (worker.rss_kib() - before) / 400 < 6  # -X dev doubles it; the release figure stands in bench/RESULTS.md
        with Client(worker.connect()) as client:
            assert client.get("/").status == 200
        for sock in idle:
            sock.close()


def test_limits_follow_the_snapshot() -> None:
    with Upstream() as node, running(snapshot_of(node.port)) as worker:
        snapshot = worker.snapshot
        assert status(worker, "x" * 300) == 200
        worker.apply(replace(snapshot, limits=Limits(target_bytes=100)))
        assert status(worker, "x" * 300) == 414
        worker.apply(replace(snapshot, limits=Limits(header_count=2)))
        assert status(worker, "x", "A: b") == 200
        assert status(worker, "x", "A: b", "C: d") == 431


def status(worker: Worker, path: str, *lines: str) -> int:
    with Client(worker.connect()) as client:
        return client.get("/" + path, *lines).status
