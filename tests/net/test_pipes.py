"""Long bodies go through the kernel's pipes, whole or cut like any other, and no pipe is lost on the way."""

import hashlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from balancer.model import Limits, Node
from balancer.net.pipes import PIPE_BYTES, Pipes
from balancer.scoreboard import W_OUT_CLIENT_LEFT, W_OUT_NODE, W_OUT_NODE_CUT
from tests.support.client import Client, request
from tests.support.upstream import Close, Hold, Request, Sleep, Step, Upstream, answer
from tests.support.worker import Worker, running, snapshot_of, wait_until

BODY = os.urandom(1 << 20) * 10


def pipes_of(worker: Worker) -> int:
    found = 0
    for path in Path(f"/proc/{worker.process.pid}/fd").iterdir():
        try:
            found += path.readlink().name.startswith("pipe:")
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "script",
    [
        lambda _request: answer(BODY),
        lambda _request: [answer(b"", length=len(BODY)), Sleep(0.05), BODY[:7], Sleep(0.05), BODY[7:]],
        lambda _request: [answer(BODY[: 1 << 19], length=len(BODY)), Sleep(0.05), BODY[1 << 19 :]],
        lambda _request: [b"HTTP/1.1 200 OK\r\n\r\n" + BODY, Close()],
    ],
    ids=["at once", "head alone", "in two", "until close"],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_long_body_arrives_whole_and_the_connections_go_on(
    script: Callable[[Request], "list[Step] | bytes"], version: str
) -> None:
    with Upstream(script) as node, running(snapshot_of(node.port)) as worker:
        for _ in range(2):
            with Client(worker.connect()) as client:
                client.send(request("/", "Connection: keep-alive", version=version))
                found = client.read()
                assert hashlib.sha256(found.body).digest() == hashlib.sha256(BODY).digest()
                if not found.closed:
                    assert len(client.send(request("/", version=version)).read().body) == len(BODY)
        wait_until(lambda: worker.board.cell(W_OUT_NODE) >= 2)


HELD = BODY[: 64 << 10]  # is sent when all of it is here


def in_pieces(size: int, pause_s: float) -> list[Step]:
    pieces: list[Step] = [answer(b"", length=len(HELD))]
    for start in range(0, len(HELD), size):
        pieces += [HELD[start : start + size], Sleep(pause_s)]
    return pieces


@pytest.mark.parametrize(
    "script",
    [
        lambda _request: answer(HELD),
        lambda _request: [answer(b"", length=len(HELD)), Sleep(0.05), HELD],
        lambda _request: [answer(HELD[:9000], length=len(HELD)), Sleep(0.05), HELD[9000:]],
        lambda _request: [answer(HELD[:-1], length=len(HELD)), Sleep(0.05), HELD[-1:]],
        lambda _request: in_pieces(200, 0.0005),  # a pipe takes 64 pieces, however small
    ],
    ids=["at once", "head alone", "in two", "all but one", "in many"],
)
def test_an_answer_that_is_held_whole_arrives_whole(script: Callable[[Request], "list[Step] | bytes"]) -> None:
    with Upstream(script) as node, running(snapshot_of(node.port)) as worker, Client(worker.connect()) as client:
        for _ in range(3):
            assert client.get().body == HELD
        wait_until(lambda: worker.board.cell(W_OUT_NODE) == 3)


def test_a_client_that_asks_much_and_reads_late_gets_every_held_answer() -> None:
    count = 80  # 5 MiB: more than the kernel takes for a client that does not read
    with Upstream(lambda _request: answer(HELD)) as node, running(snapshot_of(node.port)) as worker:
        before = pipes_of(worker)
        with Client(worker.connect()) as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
            client.send(request("/") * count)
            wait_until(lambda: worker.board.board.in_flight(0) == 0 and len(node.requests) > 2)
            assert pipes_of(worker) == before + 2  # what waits for the client is in none
            assert all(client.read().body == HELD for _ in range(count))
        wait_until(lambda: worker.board.cell(W_OUT_NODE) == count)


def test_a_node_that_dies_while_its_answer_is_held_is_not_noticed() -> None:
    seen: list[Request] = []

    def dies_once(request: Request) -> list[Step]:
        seen.append(request)
        return [answer(HELD[:50_000], length=len(HELD)), Sleep(0.1), Close()] if len(seen) == 1 else [answer(HELD)]

    with Upstream(dies_once) as node, Upstream(dies_once) as other:
        snapshot = snapshot_of(node.port, other.port)
        with running(snapshot) as worker, Client(worker.connect()) as client:
            assert client.get().body == HELD
            wait_until(lambda: worker.board.cell(W_OUT_NODE) == 1)
    assert len(seen) == 2


def test_a_client_that_leaves_while_its_answer_is_held_leaves_no_pipe_behind() -> None:
    never = threading.Event()
    node = Upstream(lambda _request: [answer(HELD[:50_000], length=len(HELD)), Hold(never), HELD[50_000:]])
    with node, running(snapshot_of(node.port)) as worker:
        before = pipes_of(worker)
        client = Client(worker.connect())
        client.send(request("/"))
        wait_until(lambda: pipes_of(worker) == before + 2)
        client.close()
        wait_until(lambda: pipes_of(worker) == before)


def test_a_pipe_is_used_while_a_client_reads_slowly_and_holds_no_more_than_it_may() -> None:
    with Upstream(lambda _request: answer(BODY)) as node, running(snapshot_of(node.port)) as worker:
        before = pipes_of(worker)
        with Client(worker.connect()) as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            client.send(request("/"))
            wait_until(lambda: pipes_of(worker) == before + 2)
            assert client.read().body == BODY
        assert PIPE_BYTES <= 256 << 10
        assert pipes_of(worker) == before + 2  # kept for the next body
        with Client(worker.connect()) as client:
            assert client.get().body == BODY
        assert pipes_of(worker) == before + 2


def test_a_node_that_dies_inside_a_long_body_cuts_the_client_too() -> None:
    def dies(_request: Request) -> list[Step]:
        return [answer(BODY[: 3 << 20], length=len(BODY)), Sleep(0.2), Close()]

    with Upstream(dies) as node, running(snapshot_of(node.port)) as worker:
        with Client(worker.connect()) as client:
            client.send(request("/"))
            with pytest.raises((OSError, Exception), match=r"reset|IncompleteRead"):
                client.read()
        wait_until(lambda: worker.board.cell(W_OUT_NODE_CUT) == 1)


def test_a_client_that_leaves_inside_a_long_body_leaves_no_pipe_behind() -> None:
    with Upstream(lambda _request: answer(BODY)) as node, running(snapshot_of(node.port)) as worker:
        before = pipes_of(worker)
        for _ in range(5):
            client = Client(worker.connect())
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            client.send(request("/"))
            wait_until(lambda: pipes_of(worker) == before + 2)
            client.close()
            wait_until(lambda: pipes_of(worker) == before)
        wait_until(lambda: worker.board.cell(W_OUT_CLIENT_LEFT) == 5)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket() as one, socket.socket() as other:
        yield one, other


def test_pipes_are_lent_up_to_the_cap_and_to_plain_sockets_only(pair: tuple[socket.socket, socket.socket]) -> None:
    pipes = Pipes(most=2)
    assert pipes.between(object(), pair[1]) is None
    first, second = pipes.between(*pair), pipes.between(*pair)
    assert first is not None
    assert second is not None
    assert pipes.between(*pair) is None
    first.give_back()
    assert pipes.between(*pair) is first
    for pipe in (first, second):
        pipe.held = 1  # closed with what it holds, not kept
        pipe.give_back()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pipe.reader)


def answers_more_than_a_pipe_takes(listening: socket.socket, worker: Worker, body: bytes) -> None:
    """A node whose second answer is there, as far as a Unix socket takes it, before the worker looks."""
    node, _ = listening.accept()
    pid = worker.process.pid
    with node:
        node.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        node.recv(4096)
        node.sendall(answer(HELD[:20_000]))  # from now on the worker reads all there is of this connection
        node.recv(4096)
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        whole = answer(body)
        there = node.send(whole, socket.MSG_DONTWAIT)
        os.kill(pid, signal.SIGCONT)
        node.sendall(whole[there:])
        assert there > PIPE_BYTES


def test_a_held_answer_of_which_more_is_there_than_a_pipe_takes_arrives_whole(tmp_path: Path) -> None:
    """A pipe takes so much and no more, and does not say what it left out: what is read already is not put into one."""
    body = BODY[: 512 << 10]
    nodes = (Node("n0", 0, "", 0, unix_path=str(tmp_path / "node.sock")),)
    snapshot = snapshot_of(nodes=nodes, limits=Limits(buffered_response_bytes=1 << 20))
    with socket.socket(socket.AF_UNIX) as listening, running(snapshot) as worker, ThreadPoolExecutor(1) as pool:
        listening.bind(nodes[0].unix_path)
        listening.listen()
        listening.settimeout(20)
        node = pool.submit(answers_more_than_a_pipe_takes, listening, worker, body)
        with Client(worker.connect()) as client:
            assert client.get().body == HELD[:20_000]
            assert client.get().body == body
            wait_until(lambda: worker.board.cell(W_OUT_NODE) == 2)
    node.result()
