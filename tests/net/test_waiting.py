"""Parking, pausing and queueing."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import pytest

from balancer.model import Health, Match, Park, Pause, Queue, Route, Snapshot
from balancer.scoreboard import W_OUT_CLIENT_LEFT, W_PARKED, W_PARKED_BYTES, W_PAUSED_GENERATION, W_QUEUED
from tests.support.client import Client, request
from tests.support.upstream import Hold, Sleep, Stall, Upstream, answer
from tests.support.worker import Worker, running, snapshot_of, wait_until

SEQUENCE = (0, 1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 1)  # in which of two workers the requests are parked


def holding(until: threading.Event) -> Upstream:
    """A node that answers nothing before the event."""
    return Upstream(lambda _: [Hold(until), answer()])


def pause_for(snapshot: Snapshot, seconds: float) -> Snapshot:
    return replace(snapshot, pause=Pause(time.monotonic() + seconds, "test"))


def test_requests_wait_for_the_first_verdict() -> None:
    with (
        Upstream() as node,
        running(snapshot_of(node.port), healthy=False) as worker,
        Client(worker.connect()) as client,
    ):
        client.send(request("/"))
        wait_until(lambda: worker.board.cell(W_PARKED) == 1)
        assert not node.requests
        worker.board.verdict(0, Health.HEALTHY)
        assert client.read().status == 200
        assert worker.board.cell(W_PARKED) == worker.board.cell(W_PARKED_BYTES) == 0
        assert worker.log_lines(1)[0]["arv.queue_s"] > 0


@pytest.mark.parametrize("health", [Health.CHECKING, Health.UNHEALTHY, Health.MISMATCHED])
def test_a_node_that_is_not_healthy_takes_nothing(health: Health) -> None:
    with Upstream() as bad, Upstream() as good, running(snapshot_of(bad.port, good.port), healthy=False) as worker:
        worker.board.verdict(0, health)
        worker.board.verdict(1, Health.HEALTHY)
        with Client(worker.connect()) as client:
            assert all(client.get("/").status == 200 for _ in range(6))
        assert not bad.requests


def test_a_pause_holds_everything_but_exempt_routes_until_it_is_lifted() -> None:
    exempt = Route("health", 0, Match(path="/health"), park=False)
    with Upstream() as node:
        snapshot = snapshot_of(node.port, routes=(exempt,))
        with running(snapshot) as worker, ThreadPoolExecutor(8) as pool:
            assert worker.apply(pause_for(snapshot, 60))["type"] == "applied"
            assert worker.board.cell(W_PAUSED_GENERATION) == 2
            assert worker.board.busy() == 0

            def get(number: int) -> int:
                with Client(worker.connect()) as client:
                    return client.get(f"/{number}").status

            waiting = [pool.submit(get, number) for number in range(6)]
            wait_until(lambda: worker.board.cell(W_PARKED) == 6)
            with Client(worker.connect()) as client:
                assert client.get("/health").status == 200
            assert [got.target for got in node.requests] == ["/health"]
            worker.apply(snapshot)
            assert [future.result() for future in waiting] == [200] * 6


def test_parked_requests_are_released_first_come_first_served_and_at_the_rate() -> None:
    # Nothing is answered yet, so each takes a connection of its own: their numbers are the order of the releases.
    released = threading.Event()
    node = holding(released)
    snapshot = snapshot_of(node.port, park=Park(release_per_s=50))
    with node, running(snapshot) as worker:
        worker.apply(pause_for(snapshot, 60))
        clients = [Client(worker.connect()) for _ in range(15)]
        for number, client in enumerate(clients):
            client.send(request(f"/{number}"))
            wait_until(lambda number=number: worker.board.cell(W_PARKED) == number + 1)
        began = time.monotonic()
        worker.apply(snapshot)
        node.wait_for(15)
        assert time.monotonic() - began > 0.15  # 15 at 50/s with a bucket of 2.5
        released.set()
        order = [got.target for got in sorted(node.requests, key=lambda got: got.connection)]
        assert order == [f"/{number}" for number in range(15)]
        assert all(client.read().status == 200 for client in clients)
        for client in clients:
            client.close()


def test_caps_of_the_parking_lot_hold() -> None:
    with Upstream() as node:
        snapshot = snapshot_of(node.port, park=Park(max=4, max_per_client=2))
        with running(snapshot) as worker:
            worker.apply(pause_for(snapshot, 60))
            kept = [Client(worker.connect(source=f"127.0.0.{host}")) for host in (2, 2, 3, 3)]
            for client in kept:
                client.send(request("/"))
            wait_until(lambda: worker.board.cell(W_PARKED) == 4)
            for host in (2, 4):
                with Client(worker.connect(source=f"127.0.0.{host}")) as refused:
                    found = refused.get("/")
                    assert (found.status, found.one("X-Arv-Balance")) == (503, "park-full")
                    assert int(found.one("Retry-After") or 0) > 30
            kept[0].close()
            wait_until(lambda: worker.board.cell(W_PARKED) == 3)
            for client in kept:
                client.close()


def test_one_client_cannot_take_more_than_its_share() -> None:
    with Upstream() as node:
        snapshot = snapshot_of(node.port, park=Park(max_per_client=1))
        with running(snapshot) as worker:
            worker.apply(pause_for(snapshot, 60))
            with Client(worker.connect()) as first, Client(worker.connect()) as second:
                first.send(request("/"))
                wait_until(lambda: worker.board.cell(W_PARKED) == 1)
                assert second.get("/").one("X-Arv-Balance") == "park-full"


def test_a_client_that_leaves_while_parked_is_dropped() -> None:
    with Upstream() as node, running(snapshot_of(node.port), healthy=False) as worker:
        client = Client(worker.connect())
        client.send(request("/", "Content-Length: 5", method="POST") + b"ab")
        wait_until(lambda: worker.board.cell(W_PARKED) == 1)
        client.send(b"c")  # unread input must not hide that it left
        client.close()
        wait_until(lambda: worker.board.cell(W_PARKED) == 0)
        wait_until(lambda: worker.board.cell(W_OUT_CLIENT_LEFT) == 1)
        worker.board.verdict(0, Health.HEALTHY)
        time.sleep(0.1)
        assert not node.requests


def burnt_by_a_half_closed_parked_client(seconds: float, enough_s: float = math.inf, **more: Any) -> float:
    snapshot = snapshot_of(1)
    snapshot = replace(snapshot, limits=replace(snapshot.limits, half_close=True))
    with running(snapshot, healthy=False, **more) as worker, Client(worker.connect()) as client:
        client.send(request("/"))
        wait_until(lambda: worker.board.cell(W_PARKED) == 1)
        client.sock.shutdown(1)
        time.sleep(0.2)
        burnt = worker.cpu_s_within(seconds, enough_s)
        assert worker.board.cell(W_PARKED) == 1
        return burnt


@pytest.mark.parametrize("seconds", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_half_closed_parked_client_costs_no_cpu(seconds: int) -> None:
    assert burnt_by_a_half_closed_parked_client(seconds) <= 0.05


def test_a_half_closed_parked_client_would_make_the_worker_spin_if_the_interest_were_kept() -> None:
    """The negative control of the test above."""
    assert burnt_by_a_half_closed_parked_client(20, 0.25, without="dropping interests") >= 0.25


def test_a_parked_body_is_sent_after_the_release() -> None:
    with (
        Upstream() as node,
        running(snapshot_of(node.port), healthy=False) as worker,
        Client(worker.connect()) as client,
    ):
        client.send(request("/", "Content-Length: 200000", "Expect: 100-continue", method="POST"))
        wait_until(lambda: worker.board.cell(W_PARKED) == 1)
        worker.board.verdict(0, Health.HEALTHY)
        assert client.read_head()[0] == 100
        client.send(b"x" * 200_000)
        assert client.read().status == 200
        assert node.requests[0].body == b"x" * 200_000


def test_capacity_holds_and_the_rest_queues() -> None:
    seen = threading.Event()
    with holding(seen) as node, ThreadPoolExecutor(6) as pool:
        snapshot = snapshot_of(node.port)
        snapshot = replace(snapshot, nodes=(replace(snapshot.nodes[0], capacity=2),))
        with running(snapshot) as worker:

            def get(_: int) -> int:
                with Client(worker.connect()) as client:
                    return client.get("/").status

            results = [pool.submit(get, number) for number in range(6)]
            wait_until(lambda: worker.board.cell(W_QUEUED) == 4)
            assert worker.board.busy() == 2
            seen.set()
            assert [future.result() for future in results] == [200] * 6
            assert node.connections <= 2
            assert worker.board.cell(W_QUEUED) == 0


def test_a_full_queue_and_a_late_one_are_503() -> None:
    seen = threading.Event()
    with holding(seen) as node, ThreadPoolExecutor(2) as pool:
        snapshot = snapshot_of(node.port, queue=Queue(max=1, timeout_s=0.3))
        snapshot = replace(snapshot, nodes=(replace(snapshot.nodes[0], capacity=1),))
        with running(snapshot) as worker, Client(worker.connect()) as first:
            first.send(request("/"))
            wait_until(lambda: worker.board.busy() == 1)

            def get() -> str | None:
                with Client(worker.connect()) as client:
                    return client.get("/").one("X-Arv-Balance")

            assert get() == "queue-timeout"
            worker.apply(replace(snapshot, queue=Queue(max=1, timeout_s=60)))
            waiting = pool.submit(get)
            wait_until(lambda: worker.board.cell(W_QUEUED) == 1)
            assert get() == "queue-full"
            seen.set()
            assert waiting.result() is None
            assert first.read().status == 200


def burnt_while_requests_wait_for_room(without: str = "") -> float:
    """CPU seconds in 1 s of the busier one of two workers whose requests wait for a full node."""
    node = Upstream(lambda _: [Stall()])
    snapshot = snapshot_of(node.port)
    snapshot = replace(snapshot, nodes=(replace(snapshot.nodes[0], capacity=1),))
    with node, running(snapshot, without=without) as first:
        second = Worker(snapshot, first.board, slot=1, without=without).wait_ready()
        clients = [Client(worker.connect()) for worker in (first, first, second, second)]
        for client in clients:
            client.send(request("/"))
        wait_until(lambda: sum(first.board.cell(W_QUEUED, slot) for slot in (0, 1)) == 3)
        before = first.cpu_s(), second.cpu_s()
        time.sleep(1.0)  # the measure is what is burnt meanwhile
        burnt = first.cpu_s() - before[0], second.cpu_s() - before[1]
        for client in clients:
            client.close()
        second.close()
        return max(burnt)


def test_waiting_for_room_costs_no_cpu_in_any_worker() -> None:
    """A worker that is asked to look all the time has no credit with the kernel when its turn at the node comes."""
    assert burnt_while_requests_wait_for_room() <= 0.1


def test_waiting_for_room_would_take_a_core_if_the_queue_were_looked_at_again_at_once() -> None:
    """The negative control of the test above."""
    assert any(burnt_while_requests_wait_for_room("rest") > 0.1 for _ in range(20))  # more when the machine is idle


def test_capacity_holds_across_workers_and_nobody_starves() -> None:
    node = Upstream(lambda _: [Sleep(0.01), answer()])
    snapshot = snapshot_of(node.port)
    snapshot = replace(snapshot, nodes=(replace(snapshot.nodes[0], capacity=1),))
    with node, running(snapshot) as first:
        second = Worker(snapshot, first.board, slot=1).wait_ready()

        def load(worker: Worker, count: int = 20) -> None:
            with Client(worker.connect()) as client:
                for _ in range(count):
                    assert client.get(f"/{worker.slot}").status == 200

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(load, worker) for worker in (first, first, second, second)]:
                future.result()
        second.close()
        assert sum(first.board.busy(slot) for slot in (0, 1)) == 0
        began = [got.began_at for got in node.requests]
        assert all(b - a > 0.009 for a, b in pairwise(began))
        # Who starves has its turn when the other is done; a worker that is off the CPU for a while has it later.
        turns = [slot for slot, _ in groupby(got.target for got in node.requests)]
        assert len(turns) > 15, turns


def test_without_a_shared_scoreboard_capacity_would_not_hold() -> None:
    """Negative control of the test above: two workers that do not share cells are at the node together."""
    seen = threading.Event()
    node = holding(seen)
    snapshot = snapshot_of(node.port)
    snapshot = replace(snapshot, nodes=(replace(snapshot.nodes[0], capacity=1),))
    with node, running(snapshot) as first, running(snapshot) as second:
        clients = [Client(worker.connect()) for worker in (first, second)]
        for client in clients:
            client.send(request("/"))
        node.wait_for(2)  # and neither has been answered
        seen.set()
        for client in clients:
            assert client.read().status == 200
            client.close()


def order_of_release(without: str = "") -> tuple[list[int], float]:
    """The numbers of 12 requests, parked in two workers, as they reach the node; the longest time from turn to turn."""
    # Nothing is answered yet, so each takes a connection of its own: their numbers are the order of the releases.
    released = threading.Event()
    node = holding(released)
    snapshot = snapshot_of(node.port, park=Park(release_per_s=100))
    with node, running(snapshot, healthy=False, without=without) as first:
        second = Worker(snapshot, first.board, slot=1, without=without).wait_ready()
        clients = [Client((first, second)[SEQUENCE[number]].connect()) for number in range(12)]
        for number, client in enumerate(clients):
            client.send(request(f"/{number}"))
            wait_until(lambda n=number: sum(first.board.cell(W_PARKED, slot) for slot in (0, 1)) == n + 1)
        began = time.monotonic()
        first.board.verdict(0, Health.HEALTHY)
        node.wait_for(12)
        released.set()
        assert all(client.read().status == 200 for client in clients)
        for client in clients:
            client.close()
        second.close()
        order = [int(got.target[1:]) for got in sorted(node.requests, key=lambda got: got.connection)]
        turns: list[list[float]] = [[began], [began]]
        for got in node.requests:
            turns[SEQUENCE[int(got.target[1:])]].append(got.began_at)
        return order, max(late - early for times in turns for early, late in pairwise(sorted(times)))


def is_in_order(order: list[int]) -> bool:
    """Two that are released one after the other by two workers may meet on their way to the node."""
    return all(abs(place - number) <= 1 for place, number in enumerate(order))


def test_parked_requests_of_two_workers_are_released_in_one_order() -> None:
    order, longest_s = order_of_release()
    assert is_in_order(order) or longest_s > 0.2, order  # who takes no turn for 200 ms, off the CPU, is passed over


def test_parked_requests_of_two_workers_would_be_mixed_if_each_kept_its_own_order() -> None:
    """The negative control of the test above."""
    assert any(not is_in_order(order_of_release("tickets")[0]) for _ in range(20))


def refused_by_a_node_that_control_calls_healthy(without: str = "") -> int:
    """How many of 10 requests try a node that is gone while control has been silent for a minute."""
    dying = Upstream()
    with dying, Upstream() as good, running(snapshot_of(dying.port, good.port), without=without) as worker:
        for slot in (0, 1):
            worker.board.verdict(slot, Health.HEALTHY, age_s=60)
        dying.stop()
        with Client(worker.connect()) as client:
            assert [client.get("/").status for _ in range(10)] == [200] * 10
        return len([line for line in worker.log_lines(10) if "refused" in line["arv.history"]])


def test_a_stale_verdict_gives_way_to_passive_signs() -> None:
    assert refused_by_a_node_that_control_calls_healthy() <= 1


def test_a_stale_verdict_would_be_believed_without_passive_signs() -> None:
    """The negative control of the test above."""
    assert any(refused_by_a_node_that_control_calls_healthy("passive signs") > 1 for _ in range(20))


def first_request_after_a_pause(within_s: float, without: str = "") -> float | None:
    """When the node sees a request that came in a pause of 0.8 s, from its end (s); None: not within so many."""
    with Upstream() as node, running(snapshot_of(node.port), without=without) as worker:
        paused = pause_for(worker.snapshot, 0.8)
        worker.apply(paused)
        assert paused.pause is not None
        with Client(worker.connect(timeout_s=0.8 + within_s)) as client:
            try:
                assert client.get("/").status == 200
            except TimeoutError:
                return None
            return node.requests[0].began_at - paused.pause.until


def test_a_pause_ends_by_itself() -> None:
    late_s = first_request_after_a_pause(20)
    assert late_s is not None
    assert late_s >= 0


def test_a_pause_would_stay_if_workers_did_not_know_its_end() -> None:
    """The negative control of the test above."""
    assert first_request_after_a_pause(2, "the deadline of a pause") is None
