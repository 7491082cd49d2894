"""Choosers keep their promise for any loads, weights and capacities."""

import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.selection import Candidate, Chooser, make_chooser, refresh_interval_ns, slow_start_weight
from balancer.core.two_choices import TwoChoices
from balancer.model import Balance, Policy

SLOTS = 8
weights = st.sampled_from((0, 1, 10, 37, 100, 100, 100, 1000))
candidates = st.lists(
    st.tuples(st.integers(0, SLOTS - 1), weights, st.sampled_from((0, 0, 1, 3))),
    unique_by=lambda c: c[0],
    max_size=SLOTS,
).map(lambda found: [Candidate(slot, weight, capacity, f"node{slot}") for slot, weight, capacity in found])
loads = st.lists(st.sampled_from((0, 0, 1, 2, 3, 7, 300, 301, 5000)), min_size=SLOTS, max_size=SLOTS)
steps = st.lists(
    st.tuples(st.sampled_from(("choose", "claim", "release", "refresh")), st.integers(0, SLOTS - 1)), max_size=40
)


def chooser_of(policy: Policy, nodes: Sequence[Candidate], previous: Chooser | None = None) -> Chooser:
    return make_chooser(Balance(policy=policy), nodes, previous=previous)


def pick(chooser: Chooser, excluded: Sequence[int] = (), key: bytes | None = None, seed: int = 0) -> int | None:
    return chooser.choose(excluded, key, random.Random(seed).random)


def run(chooser: Chooser, count: int) -> list[int]:
    """Choose and claim `count` times, each exchange ending before the next."""
    chosen = []
    for _ in range(count):
        slot = pick(chooser)
        assert slot is not None
        chooser.claimed(slot)
        chooser.released(slot)
        chosen.append(slot)
    return chosen


@pytest.mark.parametrize("policy", Policy)
@given(nodes=candidates, now=loads, excluded=st.sets(st.integers(0, SLOTS - 1)), seed=st.integers(0, 99))
def test_a_choice_is_a_candidate_that_can_take_it_and_none_only_when_there_is_none(
    policy: Policy, nodes: list[Candidate], now: list[int], excluded: set[int], seed: int
) -> None:
    chooser = chooser_of(policy, nodes)
    chooser.refresh(now, 0)
    able = {c.slot for c in nodes if c.weight and (not c.capacity or now[c.slot] < c.capacity)} - excluded
    for key in (None, b"10.0.0.1"):
        slot = pick(chooser, tuple(excluded), key, seed)
        assert slot in able if able else slot is None


@given(nodes=candidates, now=loads, script=steps, excluded=st.sets(st.integers(0, SLOTS - 1), max_size=3))
def test_least_requests_is_exact_through_any_history(
    nodes: list[Candidate], now: list[int], script: list[tuple[str, int]], excluded: set[int]
) -> None:
    chooser = chooser_of(Policy.LEAST_REQUESTS, nodes)
    by_slot = {c.slot: c for c in nodes if c.weight}
    known = [0] * SLOTS

    def check(apart: set[int]) -> None:
        able = [s for s, c in by_slot.items() if s not in apart and (not c.capacity or known[s] < c.capacity)]
        slot = pick(chooser, tuple(apart))
        if not able:
            assert slot is None
            return
        assert slot in able
        assert Fraction(known[slot], by_slot[slot].weight) == min(Fraction(known[s], by_slot[s].weight) for s in able)

    for step, slot in script:
        if step == "claim":
            chooser.claimed(slot)
            known[slot] += 1
        elif step == "release" and known[slot]:
            chooser.released(slot)
            known[slot] -= 1
        elif step == "refresh":
            known = list(now)
            chooser.refresh(known, 0)
        check(set())
        check(excluded)


@pytest.mark.parametrize("policy", [Policy.LEAST_REQUESTS, Policy.ROUND_ROBIN])
def test_idle_equals_take_turns(policy: Policy) -> None:
    chooser = chooser_of(policy, [Candidate(slot) for slot in (3, 1, 6)])
    assert run(chooser, 6) == [3, 1, 6, 3, 1, 6]


def test_workers_do_not_all_begin_with_the_same_node() -> None:
    firsts = {pick(make_chooser(Balance(), [Candidate(0), Candidate(1), Candidate(2)], start)) for start in range(3)}
    assert firsts == {0, 1, 2}


def test_idle_nodes_of_unequal_weight_get_turns_by_weight() -> None:
    chooser = chooser_of(Policy.LEAST_REQUESTS, [Candidate(0, 300), Candidate(1, 100)])
    assert Counter(run(chooser, 400)) == {0: 300, 1: 100}


def test_a_node_that_was_full_is_not_flooded_when_it_comes_back() -> None:
    chooser = chooser_of(Policy.LEAST_REQUESTS, [Candidate(0, 50), Candidate(1, 100, capacity=1)])
    chooser.claimed(1)
    assert set(run(chooser, 200)) == {0}
    chooser.released(1)
    assert Counter(run(chooser, 30))[0] >= 9


def test_a_load_far_above_the_others_costs_nothing_and_comes_back() -> None:
    chooser = chooser_of(Policy.LEAST_REQUESTS, [Candidate(0), Candidate(1)])
    for _ in range(600):
        chooser.claimed(0)
    assert pick(chooser) == 1
    for _ in range(601):
        chooser.claimed(1)
    assert pick(chooser) == 0
    for _ in range(601):
        chooser.released(1)
    assert pick(chooser) == 1


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 5))
def test_each_cycle_of_round_robin_gives_exactly_its_weight_to_each(shares: list[int], start: int) -> None:
    nodes = [Candidate(slot, share * 10) for slot, share in enumerate(shares)]
    chooser = make_chooser(Balance(policy=Policy.ROUND_ROBIN), nodes, start)
    cycle = [share // gcd(*shares) for share in shares]
    for _ in range(3):
        assert Counter(run(chooser, sum(cycle))) == dict(enumerate(cycle))


def test_round_robin_is_smooth() -> None:
    chooser = chooser_of(Policy.ROUND_ROBIN, [Candidate(0, 50), Candidate(1, 10), Candidate(2, 10)])
    assert run(chooser, 7) == [0, 0, 1, 0, 2, 0, 0]  # the example of nginx's own commit


def test_round_robin_goes_on_where_its_predecessor_was() -> None:
    nodes = [Candidate(slot) for slot in range(4)]
    chooser = chooser_of(Policy.ROUND_ROBIN, nodes)
    assert run(chooser, 2) == [0, 1]
    chooser = chooser_of(Policy.ROUND_ROBIN, nodes, chooser)
    assert run(chooser, 2) == [2, 3]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=2, max_size=SLOTS), st.integers(0, 10_000))
def test_two_choices_never_takes_the_worse_of_its_two(pairs: list[tuple[int, int]], seed: int) -> None:
    chooser = TwoChoices([Candidate(slot, weight) for slot, (weight, _) in enumerate(pairs)])
    now = [load for _, load in pairs]
    chooser.refresh(now, 0)
    first, second = chooser.draw(random.Random(seed).random)
    slot = pick(chooser, seed=seed)
    assert first != second
    assert slot in (first, second)
    other = second if slot == first else first
    assert Fraction(now[slot], pairs[slot][0]) <= Fraction(now[other], pairs[other][0])


def test_two_choices_draws_by_weight() -> None:
    chooser = TwoChoices([Candidate(0, 300), Candidate(1, 100), Candidate(2, 100)])
    source = random.Random(1)
    firsts = Counter(chooser.draw(source.random)[0] for _ in range(5000))
    assert 0.56 < firsts[0] / 5000 < 0.64


KEYS = [b"10.0.%d.%d" % (n // 250, n % 250) for n in range(1000)]


@given(st.lists(st.sampled_from((50, 100, 200)), min_size=2, max_size=6), st.data())
def test_a_node_that_goes_moves_only_its_own_keys(shares: list[int], data: st.DataObject) -> None:
    nodes = [Candidate(slot, weight, 0, f"api{slot}") for slot, weight in enumerate(shares)]
    lost = data.draw(st.sampled_from(nodes))
    before = chooser_of(Policy.HASH, nodes)
    after = chooser_of(Policy.HASH, [node for node in nodes if node is not lost])
    for key in KEYS[::7]:
        was = pick(before, key=key)
        now = pick(after, key=key)
        assert now == (pick(before, (lost.slot,), key) if was == lost.slot else was)


def test_keys_spread_by_weight_and_the_ring_is_that_of_names() -> None:
    nodes = [Candidate(0, 100, 0, "api1"), Candidate(1, 200, 0, "api2")]
    shares = Counter(pick(chooser_of(Policy.HASH, nodes), key=key) for key in KEYS)
    assert 0.55 < shares[1] / len(KEYS) < 0.78
    other_slots = chooser_of(Policy.HASH, [Candidate(5, 200, 0, "api2"), Candidate(4, 100, 0, "api1")])
    assert Counter(pick(other_slots, key=key) for key in KEYS) == {4: shares[0], 5: shares[1]}


@given(st.integers(0, 1000), st.integers(0, 100), st.integers(0, 30))
def test_slow_start_grows_to_the_whole_weight(weight: int, elapsed: int, slow: int) -> None:
    now = slow_start_weight(weight, 50.0, 50.0 + elapsed, slow)
    assert min(weight, 1) <= now <= weight
    if elapsed >= slow:
        assert now == weight
    assert now <= slow_start_weight(weight, 50.0, 51.0 + elapsed, slow)


def test_refreshing_is_rarer_with_more_nodes() -> None:
    assert [refresh_interval_ns(n) for n in (1, 8, 64)] == [1_000_000, 1_000_000, 8_000_000]
    chooser = chooser_of(Policy.LEAST_REQUESTS, [Candidate(slot) for slot in range(SLOTS)])
    chooser.refresh([0] * SLOTS, 5)
    assert chooser.refresh_at_ns == 1_000_005
