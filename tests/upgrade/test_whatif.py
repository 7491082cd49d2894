"""Simulations of other set-ups, against what queueing theory says."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.control.whatif import Arrival, Setup, read, simulate
from balancer.model import Policy


def steady(count: int, gap_s: float, service_s: float) -> list[Arrival]:
    return [Arrival(number * gap_s, service_s, f"10.0.0.{number % 50}") for number in range(count)]


def test_nodes_that_are_enough_make_nobody_wait() -> None:
    found = simulate(steady(2000, 0.01, 0.1), Setup(3, capacity=4))
    assert (found.queue_longest, found.refused, found.expired, found.p99_s) == (0, 0, 0, 0.1)
    assert sum(found.busy) == pytest.approx(10, rel=0.01)


def test_one_server_with_random_arrivals_waits_as_the_formula_says() -> None:
    """M/D/1 (Pollaczek-Khinchine): the mean wait is load x service / (2 x (1 - load))."""
    chance, at, arrivals = random.Random(3), 0.0, []
    for _ in range(40_000):
        at += chance.expovariate(8)
        arrivals.append(Arrival(at, 0.1))
    found = simulate(arrivals, Setup(1, capacity=1, queue_max=1 << 30, queue_timeout_s=1e9))
    assert found.p50_s is not None
    assert found.busy[0] == pytest.approx(0.8, rel=0.02)
    assert found.p50_s - 0.1 == pytest.approx(0.125, rel=0.2)  # the median of that queue, by its distribution


def test_too_few_nodes_fill_the_queue_and_the_rest_is_refused_or_expires() -> None:
    arrivals = steady(2000, 0.01, 0.1)  # 100 a second, and two places do 20
    refused = simulate(arrivals, Setup(1, capacity=2, queue_max=10))
    assert refused.queue_longest == 10
    assert refused.refused == pytest.approx(1600, abs=40)
    expired = simulate(arrivals, Setup(1, capacity=2, queue_timeout_s=1.0))
    assert expired.expired == pytest.approx(1580, abs=40)
    assert expired.queue_p99_s == 1.0


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.tuples(st.floats(0, 0.2), st.floats(0.001, 0.5)), min_size=1, max_size=80),
    nodes=st.integers(1, 4),
    capacity=st.integers(0, 3),
    policy=st.sampled_from(Policy),
    queue_max=st.integers(0, 20),
)
def test_every_request_is_answered_refused_or_expires(
    gaps: list[tuple[float, float]], nodes: int, capacity: int, policy: Policy, queue_max: int
) -> None:
    at, arrivals = 0.0, []
    for gap, service in gaps:
        at += gap
        arrivals.append(Arrival(at, service, "c"))
    setup = Setup(nodes, policy, capacity, queue_max, queue_timeout_s=0.3)
    found = simulate(arrivals, setup)
    spent_s = sum(found.busy) * max(1e-9, arrivals[-1].at_s - arrivals[0].at_s)
    whole_s = sum(item.service_s for item in arrivals)
    assert found.requests == len(arrivals)
    assert 0 <= found.refused + found.expired <= len(arrivals)
    assert spent_s <= whole_s * (1 + 1e-6) + 1e-6
    assert (found.refused + found.expired == 0) == (spent_s == pytest.approx(whole_s, rel=1e-6, abs=1e-9))
    assert found.queue_longest <= queue_max
    if not capacity:
        assert not found.queue_longest


def test_our_access_log_is_read_and_other_lines_are_counted() -> None:
    def line(**more: object) -> str:
        base = {
            "timestamp": "2026-11-24T09:00:01.000000+00:00", "http.server.request.duration": 0.5, "arv.queue_s": 0.2,
            "http.response.status_code": 200, "arv.node": "api1", "client.address": "10.0.0.1",
        }  # fmt: skip
        return json.dumps(base | more)

    refused = line(**{"http.response.status_code": 503, "arv.node": "", "http.server.request.duration": 30.0})
    log = read([line(), refused, line(**{"http.response.status_code": 101}), "rubbish", "{}"])
    assert [round(item.service_s, 3) for item in log.arrivals] == [0.3, 0.3]  # the one without a node: as the others
    assert (log.failed, log.unread, log.p99_s, log.queue_p99_s) == (1, 2, 30.0, 0.2)
