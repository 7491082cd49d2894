"""What the parent decides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.supervisor.rules import (
    Beat,
    Timings,
    failures_after,
    free_slot,
    judge_beat,
    missing_shares,
    restart_delay,
    slept,
)

T = Timings()


@pytest.mark.parametrize(
    ("age_s", "verdict"),
    [(0, Beat.FRESH), (1.99, Beat.FRESH), (2, Beat.STALE), (4.99, Beat.STALE), (5, Beat.DEAD), (60, Beat.DEAD)],
)
def test_a_heartbeat_grows_stale_then_dead(age_s: float, verdict: Beat) -> None:
    assert judge_beat(1000, 100, 1000 - age_s, T) is verdict


@pytest.mark.parametrize(("age_s", "verdict"), [(0, Beat.FRESH), (19, Beat.FRESH), (20, Beat.DEAD)])
def test_a_process_that_starts_has_longer_for_its_first_beat(age_s: float, verdict: Beat) -> None:
    assert judge_beat(1000, 1000 - age_s, 900, T) is verdict


def test_a_parent_that_was_held_up_knows_it() -> None:
    assert not slept(10.6, 10, T)
    assert slept(12, 10, T)


def test_the_first_restart_is_at_once_and_later_ones_wait_longer() -> None:
    assert [restart_delay(failures, T) for failures in range(9)] == [0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5]
    assert restart_delay(10_000, T) == 5


def test_a_process_that_lived_is_a_first_failure_again() -> None:
    assert failures_after(4, 9.9, T) == 5
    assert failures_after(4, 10, T) == 1


OWNERS = st.lists(st.frozensets(st.integers(0, 5), max_size=4), max_size=8)
WORKERS = st.lists(st.integers(0, 5), unique=True, max_size=6)


@given(OWNERS, WORKERS, st.booleans())
def test_every_socket_gets_an_owner_and_every_worker_a_socket(
    owners: list[frozenset[int]], workers: list[int], shared: bool
) -> None:
    given_out = missing_shares(owners, workers, shared=shared)
    assert set(given_out) <= set(workers)
    after = [set(own) & set(workers) for own in owners]
    for worker, indices in given_out.items():
        for index in indices:
            assert worker not in owners[index], "it had that one already"
            after[index].add(worker)
    if workers:
        assert all(after)
    if owners:
        assert all(any(worker in own for own in after) for worker in workers)
    if shared:
        assert all(own == set(workers) for own in after)


@given(st.integers(1, 8))
def test_fresh_sockets_are_one_for_each_worker(count: int) -> None:
    workers = list(range(count))
    given_out = missing_shares([frozenset()] * count, workers, shared=False)
    assert sorted(given_out.values()) == [(index,) for index in range(count)]


@given(OWNERS, WORKERS)
def test_sharing_twice_changes_nothing(owners: list[frozenset[int]], workers: list[int]) -> None:
    first = missing_shares(owners, workers, shared=False)
    after = [own | {worker for worker, given in first.items() if index in given} for index, own in enumerate(owners)]
    assert missing_shares([frozenset(own) for own in after], workers, shared=False) == {}


def test_the_lowest_free_row_is_taken() -> None:
    assert free_slot([0, 1, 3], 64) == 2
    assert free_slot([], 64) == 0
    assert free_slot(list(range(64)), 64) is None
