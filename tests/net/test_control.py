"""The control socket: snapshots swapped under load, questions, stop, handover; and the access log."""

import contextlib
import json
import os
import select
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from balancer.model import AccessLog, Admin, Listener, Match, Route
from balancer.observe import counts
from balancer.scoreboard import (
    L_CELLS,
    L_DURATION,
    MAX_ROUTES,
    N_2XX,
    N_DURATION,
    N_IDLE,
    STATE_NONE,
    W_ACCEPTED,
    W_BEAT_NS,
    W_GENERATION,
    W_LISTENERS,
    W_LOG_DROPPED,
    W_NODES,
    W_OUT_NODE,
    W_PARKED,
    W_STATE,
)
from tests.support.altered_worker import UNSPEAKABLE
from tests.support.client import Client, request
from tests.support.upstream import Close, Hold, Request, Sleep, Step, Upstream, answer
from tests.support.worker import Worker, running, snapshot_of, wait_until


def slow(_: Request) -> list[Step]:
    return [Sleep(0.4), answer(b"slow")]


class Load:
    """Clients that never retry, each on its own connection, until stopped."""

    def __init__(self, worker: Worker, clients: int = 4) -> None:
        self.failures: list[object] = []
        self.done = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(worker,)) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, worker: Worker) -> None:
        with Client(worker.connect()) as client:
            while not self._stop.is_set():
                try:
                    found = client.post(b"x")
                except (OSError, AssertionError) as error:
                    self.failures.append(error)
                    return
                if found.status != 200:
                    self.failures.append(found)
                self.done += 1


def test_nodes_come_and_go_under_load_without_a_failure() -> None:
    with Upstream(name="a") as a, Upstream(name="b") as b, running(snapshot_of(a.port, b.port)) as worker:
        both = worker.snapshot
        with Load(worker) as load:
            for _ in range(10):
                drained = replace(both.nodes[1], admin=Admin.DRAINING)
                assert worker.apply(replace(both, nodes=(both.nodes[0], drained)))["type"] == "applied"
                wait_until(lambda: worker.board.cell(W_NODES) >= 0)
                assert worker.apply(replace(both, nodes=both.nodes[:1]))["generation"] == worker.snapshot.generation
                assert worker.board.cell(W_GENERATION) == worker.snapshot.generation
                before = load.done
                wait_until(lambda before=before: load.done > before + 20)
                worker.apply(both)
        assert not load.failures
        assert load.done > 200
        assert b.requests
        wait_until(lambda: worker.board.cell(W_ACCEPTED) == worker.board.cell(W_OUT_NODE) == load.done)


def test_draining_closes_idle_connections_and_lets_exchanges_finish() -> None:
    draining_begun = threading.Event()
    with (
        Upstream(lambda got: [Hold(draining_begun), answer(b"slow")] if got.target == "/slow" else None) as node,
        running(snapshot_of(node.port)) as worker,
        Client(worker.connect()) as client,
        Client(worker.connect()) as other,
    ):
        assert other.get("/").status == 200
        client.send(request("/slow"))
        node.wait_for(2)
        draining = replace(worker.snapshot, nodes=(replace(worker.snapshot.nodes[0], admin=Admin.DRAINING),))
        worker.apply(draining)
        draining_begun.set()
        assert client.read().body == b"slow"
        wait_until(lambda: node.open_connections == 0)
        other.send(request("/"))
        wait_until(lambda: worker.board.cell(W_PARKED) == 1)


def test_exchanges_are_listed_by_node() -> None:
    seen = threading.Event()
    node = Upstream(lambda _: [Hold(seen), answer()])
    with node, running(snapshot_of(node.port)) as worker, Client(worker.connect()) as client:
        client.send(request("/a/b?api_token=secret", "X-Request-Id: id-1"))
        node.wait_for(1)
        (found,) = worker.ask({"type": "exchanges", "node": "n0", "limit": 10})["exchanges"]
        assert found.pop("age_s") >= 0
        expected = {"request_id": "id-1", "method": "GET", "path": "/a/b", "node": "n0", "state": "waiting"}
        assert found == {**expected, "client": "127.0.0.1"}
        assert worker.ask({"type": "exchanges", "node": "other", "limit": 10})["exchanges"] == []
        seen.set()
        assert client.read().status == 200


@pytest.mark.parametrize("how", ["message", "signal"])
def test_stop_finishes_what_is_open_and_exits(how: str) -> None:
    with Upstream(slow) as node, running(snapshot_of(node.port)) as worker:
        busy, idle, waiting = (Client(worker.connect()) for _ in range(3))
        idle.post(b"x")
        busy.send(request("/"))
        node.wait_for(2)
        waiting.send(request("/"))  # in the kernel or just accepted: served, too
        if how == "message":
            worker.ask({"type": "stop", "deadline_s": 10}, answer=False)
        else:
            worker.process.send_signal(signal.SIGTERM)
        assert idle.at_end()
        found = busy.read()
        assert (found.body, waiting.read().body) == (b"slow", b"slow")
        assert busy.at_end()
        assert worker.process.wait(20) == 0
        assert worker.board.cell(W_STATE) == STATE_NONE
        assert worker.board.cell(W_ACCEPTED) == worker.board.cell(W_OUT_NODE) == 3
        for client in (busy, idle, waiting):
            client.close()


def test_stop_cuts_at_its_deadline() -> None:
    node = Upstream(lambda _: [Sleep(30), answer()])
    with node, running(snapshot_of(node.port)) as worker, Client(worker.connect()) as client:
        client.send(request("/"))
        node.wait_for(1)
        worker.ask({"type": "stop", "deadline_s": 0.3}, answer=False)
        assert worker.process.wait(20) == 0


def test_handover_gives_all_descriptors() -> None:
    with Upstream() as node, running(snapshot_of(node.port)) as worker:
        worker.channel.send({"type": "handover"})
        assert select.select([worker.channel.sock], [], [], 20)[0]
        ((found, fds),) = worker.channel.receive()
        assert found["listeners"] == {"0": 1}
        assert (found["snapshot"], found["wakes"], found["pid"]) == (1, 4, worker.process.pid)
        assert len(fds) == 1 + 4 + 1 + 1
        listening = socket.socket(fileno=os.dup(fds[5]))
        assert listening.getsockname()[1] == worker.port
        listening.close()
        for fd in fds:
            os.close(fd)


def test_sockets_are_added_and_dropped_while_running() -> None:
    with Upstream() as node, running(snapshot_of(node.port)) as worker:
        extra = socket.create_server(("127.0.0.1", 0))
        assert worker.ask({"type": "listeners", "listeners": {"5": 1}}, (extra.fileno(),))["type"] == "listening"
        early = Client(socket.create_connection(extra.getsockname(), 20))
        early.send(request("/"))  # waits in the kernel: the snapshot does not have this listener yet
        listeners = (*worker.snapshot.listeners, Listener(5, "127.0.0.1:0"))
        worker.apply(replace(worker.snapshot, listeners=listeners))
        assert early.read().status == 200
        waiting = Client(socket.create_connection(extra.getsockname(), 20))
        address = extra.getsockname()
        extra.close()
        assert worker.ask({"type": "listeners", "listeners": {"5": 0}})["type"] == "listening"
        assert waiting.get("/").status == early.get("/").status == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 20)
        early.close()
        waiting.close()


def test_the_heart_beats_and_counters_are_written() -> None:
    with Upstream() as node, running(snapshot_of(node.port)) as worker:
        beat = worker.board.cell(W_BEAT_NS)
        wait_until(lambda: worker.board.cell(W_BEAT_NS) > beat)
        with Client(worker.connect()) as client:
            for _ in range(3):
                client.get("/")
            client.get("/%00")
        worker.log_lines(4)
        cell = worker.board.cell
        wait_until(lambda: cell(W_NODES + N_2XX) == 3)
        assert sum(cell(W_NODES + N_DURATION + bucket) for bucket in range(20)) == 3
        assert sum(cell(W_LISTENERS + index) for index in range(L_DURATION)) == 4
        assert sum(cell(W_LISTENERS + L_CELLS + index) for index in range(L_DURATION)) == 0
        wait_until(lambda: cell(W_NODES + N_IDLE) == 1)


def test_exchanges_of_a_named_route_are_counted_apart_their_failures_and_the_slowest_too() -> None:
    def node_script(got: Request) -> list[Step] | bytes:
        if got.target == "/a/cut":
            return [answer(b"x" * 200_000, length=400_000), Close()]
        return answer(b"", status=500) if got.target == "/a/bad" else [Sleep(0.3), answer(b"ok")]

    route = Route("a", 3, Match(path="/a/{rest}"))
    beyond = Route("b", MAX_ROUTES, Match(path="/b"))
    with Upstream(node_script) as node, running(replace(snapshot_of(node.port), routes=(beyond, route))) as worker:
        with Client(worker.connect()) as client:
            for target in ("/a/slow", "/a/bad", "/b", "/other"):
                client.get(target)
            client.send(request("/a/cut"))
            with pytest.raises((ConnectionError, EOFError)):
                client.read()
        worker.log_lines(5)
        wait_until(lambda: counts.read(worker.board.board, [], 0.0, [3]).routes[3].attempts == 3)
        found = counts.read(worker.board.board, [], time.monotonic(), [3, MAX_ROUTES])
    assert (found.routes[3].failed, found.failed) == (2, 2)
    assert found.routes[counts.REST].attempts == 2
    slowest_s = found.routes[3].timing.slowest_s(0.0)
    assert slowest_s is not None
    assert 0.3 <= slowest_s <= 5.0
    whole = found.timing.slowest_s(0.0)
    assert whole is not None
    assert slowest_s <= whole


# --- the access log ---------------------------------------------------------------------------------------------------


def test_log_lines_hold_no_secret_and_cannot_be_forged() -> None:
    with Upstream() as node, running(snapshot_of(node.port)) as worker, Client(worker.connect()) as client:
        secrets = "api_token=SECRET1&x=1&ping_secret=SECRET2&reader_tokens[]=SECRET3&api%5Ftoken=SECRET4"
        client.get(f"/p?{secrets}", "Authorization: Bearer SECRET5", "Cookie: s=SECRET6")
        client.get('/"},{"injected":1', 'User-Agent: a"b\\c\xe9')
        first, second = worker.log_lines(2)
        assert "SECRET" not in worker.log_path.read_text()
        assert first["url.query"].startswith("api_token=[redacted]&x=1&ping_secret=[redacted]")
        assert second["url.path"] == '/"},{"injected":1'
        assert second["user_agent.original"] == 'a"b\\c\xe9'
        assert first["arv.node"] == "n0"
        assert first["http.response.status_code"] == 200


@pytest.mark.parametrize(
    ("style", "parts"),
    [
        ("combined", ["127.0.0.1 - - [", '"GET /x?api_token=[redacted] HTTP/1.1" 200 5 "-" "agent"']),
        (
            "haproxy",
            [
                "127.0.0.1:",
                "fe nodes/n0 0/0/0/",
                ' 200 5 - - ---- 1/1/0/0/0 0/0 "GET /x?api_token=[redacted] HTTP/1.1"',
            ],
        ),
    ],
)
def test_other_formats(style: str, parts: list[str]) -> None:
    with Upstream() as node, running(snapshot_of(node.port, access_log=AccessLog(format=style))) as worker:
        with Client(worker.connect()) as client:
            client.get("/warm")
            client.get("/x?api_token=SECRET", "User-Agent: agent")
        wait_until(lambda: worker.log_path.read_bytes().count(b"\n") == 2)
        line = worker.log_path.read_text().splitlines()[1]
        assert all(part in line for part in parts), line


def test_a_log_reader_that_stops_holds_up_nobody() -> None:
    reader, writer = os.pipe()
    with Upstream() as node, running(snapshot_of(node.port), log_fd=writer) as worker:
        os.close(writer)
        long = "x" * 3000
        with Client(worker.connect()) as client:
            for _ in range(10):
                client.send(request(f"/{long}") * 150)
                assert all(client.read().status == 200 for _ in range(150))
            wait_until(lambda: worker.board.cell(W_LOG_DROPPED) > 0)
            found = bytearray()

            def all_are_accounted_for() -> bool:
                if select.select([reader], [], [], 0)[0]:
                    found.extend(os.read(reader, 1 << 20))
                return found.count(b"\n") == 1500 - worker.board.cell(W_LOG_DROPPED)  # which is written twice a second

            wait_until(all_are_accounted_for, 20)
            lines = found.splitlines()
            assert len(lines) > 1000
            assert all(json.loads(line)["http.response.status_code"] == 200 for line in lines)
    os.close(reader)


def after_a_line_that_fails(without: str) -> tuple[int, str]:
    """How many of five requests of another client are answered after it, and what the worker said."""
    with Upstream() as node, running(snapshot_of(node.port), without=without) as worker:
        with Client(worker.connect()) as other, Client(worker.connect()) as client:
            assert other.get("/before").status == 200
            client.send(request(UNSPEAKABLE.decode()))
            assert client.read().status == 200  # the node's answer is not to blame
            answered = 0
            with contextlib.suppress(OSError, EOFError):
                while answered < 5 and other.get("/after").status == 200:
                    answered += 1
            assert client.sock.recv(1) == b""  # its connection is the price
        if answered == 5:
            assert [line["url.path"] for line in worker.log_lines(6)] == ["/before", *["/after"] * 5]
            assert worker.board.cell(W_ACCEPTED) == worker.board.cell(W_OUT_NODE) == 7
            worker.process.kill()  # its words are read here
        worker.process.wait()
        return answered, worker.errors()


def test_a_log_line_that_fails_costs_its_connection_alone() -> None:
    answered, said = after_a_line_that_fails("a line")
    assert answered == 5
    assert said.count("failed inside: ValueError") == 1


def test_a_log_line_that_fails_would_end_the_worker_if_nothing_caught_it() -> None:
    """The negative control of the test above."""
    answered, said = after_a_line_that_fails("a guard of lines")
    assert answered < 5
    assert "a line that cannot be said" in said


def test_a_line_that_found_its_pipe_full_is_written_when_there_is_room_without_waiting_for_another() -> None:
    reader, writer = os.pipe()
    with Upstream() as node, running(snapshot_of(node.port), log_fd=writer) as worker:
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"\n" * 4096)
        with Client(worker.connect()) as client:
            client.get("/kept")
            wait_until(lambda: worker.board.cell(W_ACCEPTED) == 1)
            beat = worker.board.cell(W_BEAT_NS)
            wait_until(lambda: worker.board.cell(W_BEAT_NS) != beat)  # by then it has tried
            found = b""
            while b"/kept" not in found:
                assert select.select([reader], [], [], 20)[0]
                found += os.read(reader, 1 << 20)
    os.close(reader)
    os.close(writer)


def test_the_log_is_reopened_by_path_and_by_descriptor(tmp_path: Path) -> None:
    path, moved, other = tmp_path / "access.log", tmp_path / "moved", tmp_path / "other"
    node, log = Upstream(), AccessLog(path=str(path))
    with node, running(snapshot_of(node.port, access_log=log)) as worker, Client(worker.connect()) as client:
        client.get("/one")
        wait_until(lambda: "/one" in read(path))
        path.rename(moved)
        assert worker.ask({"type": "reopen-log"})["type"] == "reopened"
        client.get("/two")
        wait_until(lambda: "/two" in read(path))
        with other.open("wb") as file:
            worker.ask({"type": "reopen-log"}, (file.fileno(),))
        client.get("/three")
        wait_until(lambda: "/three" in read(other))
        assert "/two" not in read(moved)


def test_no_log_at_all() -> None:
    with Upstream() as node, running(snapshot_of(node.port, access_log=AccessLog(format="off"))) as worker:
        with Client(worker.connect()) as client:
            client.get("/")
        time.sleep(0.1)
        assert worker.log_path.read_bytes() == b""


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
