"""Attempts that fail: what is tried again, where, and what the client gets."""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from balancer.model import Health, Outcome, Park, Retry, Timeouts
from balancer.scoreboard import OUTCOME_CELLS, W_ACCEPTED, W_OUT_NODE_CUT, W_OUT_US, W_PARKED
from tests.support.client import Client, request
from tests.support.upstream import Close, Request, Reset, Script, Sleep, Stall, Step, Upstream, answer
from tests.support.worker import Worker, running, snapshot_of, wait_until


def steps(*given: Step) -> Script:
    """Always the same steps."""
    return lambda _: list(given)


def balanced(worker: Worker) -> None:
    """The ledger balances and nothing is in flight."""
    cells = [worker.board.cell(cell) for cell in OUTCOME_CELLS.values()]
    wait_until(lambda: worker.board.cell(W_ACCEPTED) == sum(worker.board.cell(c) for c in OUTCOME_CELLS.values()))
    assert worker.board.busy() == 0, cells


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that refuses, and that is nobody else's meanwhile; who asks for this very one gets it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_refused_connection_goes_to_another_node_for_any_method(dead_port: int) -> None:
    with Upstream() as good, running(snapshot_of(dead_port, good.port)) as worker, Client(worker.connect()) as client:
        for _ in range(4):
            assert client.post(b"x" * 100).status == 200
        assert len(good.requests) == 4
        lines = worker.log_lines(4)
        assert any(line["arv.history"].startswith("n0:refused") for line in lines)
        balanced(worker)


@pytest.mark.parametrize("failure", [Reset(), Close()])
def test_an_idempotent_request_survives_a_node_that_breaks(failure: Step) -> None:
    bad_first = steps(failure)
    with Upstream(bad_first) as bad, Upstream() as good, running(snapshot_of(bad.port, good.port)) as worker:
        with Client(worker.connect()) as client:
            ids = {client.get("/").one("X-Request-Id") for _ in range(6)}
            assert len(ids) == 6
            put = client.post(b"body", method="PUT")
            assert put.status == 200
        assert {got.one("X-Request-Id") for got in good.requests} >= {got.one("X-Request-Id") for got in bad.requests}
        balanced(worker)


@pytest.mark.parametrize("failure", [Reset(), Close()])
def test_a_post_is_never_sent_twice(failure: Step) -> None:
    bad, other = Upstream(steps(failure)), Upstream(steps(failure))
    with bad, other, running(snapshot_of(bad.port, other.port)) as worker, Client(worker.connect()) as client:
        found = client.post(b"pay")
        assert (found.status, found.one("X-Arv-Balance")) == (502, "node-reset")
        assert len(bad.requests) + len(other.requests) == 1
        balanced(worker)


def test_a_kept_connection_that_died_is_replaced_without_harm() -> None:
    with Upstream() as node, running(snapshot_of(node.port)) as worker, Client(worker.connect()) as client:
        seen: list[int] = []

        def dies(got: Request) -> list[Step] | None:
            seen.append(got.connection)
            return [Close()] if len(seen) == 2 else None

        node.script = dies
        assert client.get("/").status == 200
        assert client.get("/").status == 200
        assert seen == [0, 0, 1]
        assert worker.log_lines(2)[1]["arv.history"] == "n0:reset"
        balanced(worker)


def test_a_small_answer_that_is_cut_is_retried_or_a_502() -> None:
    cut = steps(answer(b"half", length=100), Close())
    with Upstream(cut) as bad, Upstream() as good, running(snapshot_of(bad.port, good.port)) as worker:
        with Client(worker.connect()) as client:
            assert [client.get("/").status for _ in range(4)] == [200] * 4
        balanced(worker)
    with Upstream(cut) as bad, running(snapshot_of(bad.port)) as worker, Client(worker.connect()) as client:
        found = client.get("/")
        assert (found.status, found.one("X-Arv-Balance")) == (502, "node-truncated")
        balanced(worker)


def test_a_large_answer_that_is_cut_is_cut_for_the_client_and_booked() -> None:
    cut = steps(answer(b"x" * 200_000, length=400_000), Sleep(0.1), Close())
    with Upstream(cut) as bad, running(snapshot_of(bad.port)) as worker, Client(worker.connect()) as client:
        client.send(request("/"))
        assert client.read_head()[0] == 200
        with pytest.raises(ConnectionResetError):
            client.read_raw(400_000)
        wait_until(lambda: worker.board.cell(W_OUT_NODE_CUT) == 1)
        assert worker.log_lines(1)[0]["arv.termination"] == "node-cut"
        balanced(worker)


@pytest.mark.parametrize(
    "junk",
    [
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 101 Switch\r\nUpgrade: ssh\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
    ],
)
def test_a_malformed_answer_is_a_502_and_not_repeated(junk: bytes) -> None:
    with Upstream(steps(junk)) as bad, running(snapshot_of(bad.port)) as worker, Client(worker.connect()) as client:
        found = client.get("/")
        assert (found.status, found.one("X-Arv-Balance")) == (502, "node-protocol")
        assert len(bad.requests) == 1
        balanced(worker)


def test_a_node_that_does_not_answer_in_time_is_a_504() -> None:
    timeouts = Timeouts(response_s=0.3)
    with Upstream(steps(Stall())) as bad, running(snapshot_of(bad.port, timeouts=timeouts)) as worker:
        with Client(worker.connect()) as client:
            found = client.get("/")
            assert (found.status, found.one("X-Arv-Balance")) == (504, "node-timeout")
            assert client.get("/").status == 504
        balanced(worker)


def test_without_another_node_a_refused_request_waits_for_the_next_verdict(dead_port: int) -> None:
    with running(snapshot_of(dead_port)) as worker, Client(worker.connect()) as client:
        client.send(request("/"))
        wait_until(lambda: worker.board.cell(W_PARKED) == 1)
        with Upstream(port=dead_port) as node:
            worker.board.verdict(0, Health.HEALTHY)
            assert client.read().status == 200
            assert len(node.requests) == 1
        balanced(worker)


def test_a_refused_request_is_answered_when_it_may_not_wait_longer(dead_port: int) -> None:
    snapshot = snapshot_of(dead_port, park=Park(timeout_s=0.3))
    with running(snapshot) as worker, Client(worker.connect()) as client:
        found = client.get("/")
        assert (found.status, found.one("X-Arv-Balance")) == (503, "park-timeout")
        assert int(found.one("Retry-After") or 0) >= 1
        balanced(worker)


def test_retries_stop_at_their_number_and_their_budget() -> None:
    failing = steps(Reset())
    with Upstream(failing) as a, Upstream(failing) as b, Upstream(failing) as c, Upstream(failing) as d:
        snapshot = snapshot_of(a.port, b.port, c.port, d.port)
        with running(snapshot) as worker, Client(worker.connect()) as client:
            assert client.get("/").status == 502
            assert sum(len(node.requests) for node in (a, b, c, d)) == 3
            tight = replace(snapshot, retry=Retry(budget_min=0, budget_ratio=0.0))
            worker.apply(tight)
            assert client.get("/").status == 502
            assert sum(len(node.requests) for node in (a, b, c, d)) == 4
            wait_until(lambda: worker.board.cell(W_OUT_US) == 2)
            balanced(worker)


def retries_of_two_workers(*, shared: bool) -> int:
    """How often two workers try again what one node resets, with a budget of five."""
    with Upstream(steps(Reset())) as bad, Upstream(steps(Reset())) as worse:
        snapshot = snapshot_of(
            bad.port, worse.port, retry=Retry(1, budget_min=5, budget_ratio=0.0, budget_window_s=600)
        )
        with running(snapshot) as first, contextlib.ExitStack() as stack:
            second = stack.enter_context(running(snapshot)) if not shared else None
            if second is None:
                second = Worker(snapshot, first.board, slot=1).wait_ready()
                stack.callback(second.close)
            for _ in range(10):
                for worker in (first, second):
                    with Client(worker.connect()) as client:
                        assert client.get("/").status == 502
        return len(bad.requests) + len(worse.requests) - 20


def test_all_workers_share_one_retry_budget() -> None:
    assert retries_of_two_workers(shared=True) == 5


def test_without_a_shared_scoreboard_each_worker_would_have_a_budget_of_its_own() -> None:
    """The negative control of the test above."""
    assert retries_of_two_workers(shared=False) == 10


def retries_at_once(without: str) -> int:
    """How often two workers whose requests fail at the same time try again, with a budget of five."""
    with Upstream(steps(Reset())) as bad, Upstream(steps(Reset())) as worse, ThreadPoolExecutor(4) as pool:
        snapshot = snapshot_of(bad.port, worse.port, retry=Retry(retries=1, budget_min=5, budget_ratio=0.0))
        with running(snapshot, without=without) as first, contextlib.ExitStack() as stack:
            second = Worker(snapshot, first.board, slot=1, without=without).wait_ready()
            stack.callback(second.close)

            def fail(worker: Worker) -> None:
                with Client(worker.connect()) as client:
                    assert [client.get("/").status for _ in range(5)] == [502] * 5

            for done in [pool.submit(fail, worker) for worker in (first, second) * 2]:
                done.result()
        return len(bad.requests) + len(worse.requests) - 20


@pytest.mark.parametrize("without", ["", "haste"])
def test_workers_that_fail_at_the_same_time_do_not_pass_the_retry_budget(without: str) -> None:
    assert 1 <= retries_at_once(without) <= 5


def test_workers_that_look_before_they_ask_would_pass_the_retry_budget() -> None:
    """The negative control of the test above."""
    assert any(retries_at_once("asking first") > 5 for _ in range(20))


def test_outcomes_are_a_closed_list() -> None:
    assert set(OUTCOME_CELLS) == set(Outcome)
