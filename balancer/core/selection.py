"""Which node takes an exchange, among those that are available: one chooser a policy, over scoreboard slots.

A chooser knows only the candidates it was made for; when availability or weights change, make a new one with
`make_chooser(..., previous=old)`. Between two refreshes it counts this worker's claims and releases itself, so its
loads are exact with one worker, and older than `refresh_interval_ns` for other workers' share only. It never blocks the
promise on capacity: that is held by the claim on the scoreboard (`balancer.core.claims`); a chooser only avoids
nodes that it knows to be full.

Costs, claim and release included, on the machine of `bench/RESULTS.md`: least requests with equal weights 0.5 us for 2
nodes and for 64; unequal weights 1.2 us and 1.5 us.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

from balancer.core.hash_ring import HashRing
from balancer.core.least_requests import LeastRequests, WeightedLeastRequests
from balancer.core.loads import Candidate, Chooser, refresh_interval_ns
from balancer.core.round_robin import RoundRobin
from balancer.core.two_choices import TwoChoices
from balancer.model import Balance, Policy

__all__ = ["Candidate", "Chooser", "make_chooser", "refresh_interval_ns", "slow_start_weight"]

SLOW_START_FLOOR = 0.1  # a smaller first share warms nothing up, and rounds to none


def make_chooser(
    balance: Balance, candidates: Iterable[Candidate], start: int = 0, previous: Chooser | None = None
) -> Chooser:
    """Return the chooser of the configured policy. Candidates of weight 0 take nothing and are left out.

    Args:
        balance: policy.
        candidates: available nodes, in configured order.
        start: where turns begin, e.g. the worker's number, so that workers do not all begin with the same node.
        previous: the chooser that this one replaces; round robin goes on where that one was.
    """
    takers = tuple(candidate for candidate in candidates if candidate.weight > 0)
    match balance.policy:
        case Policy.ROUND_ROBIN:
            return RoundRobin(takers, start, previous if isinstance(previous, RoundRobin) else None)
        case Policy.LEAST_REQUESTS:
            return _least_requests(takers, start)
        case Policy.TWO_CHOICES:
            return TwoChoices(takers)
        case Policy.HASH:
            return HashRing(takers, _least_requests(takers, start))
        case _:
            assert_never(balance.policy)


def _least_requests(candidates: Sequence[Candidate], start: int) -> Chooser:
    if len({candidate.weight for candidate in candidates}) <= 1:
        return LeastRequests(candidates, start)
    return WeightedLeastRequests(candidates)


def slow_start_weight(weight: int, healthy_since_s: float, now_s: float, slow_start_s: float) -> int:
    """Return the weight of a node healthy since `healthy_since_s`: it grows linearly from a tenth to all."""
    elapsed_s = now_s - healthy_since_s
    if weight <= 0 or slow_start_s <= 0 or elapsed_s >= slow_start_s:
        return weight
    share = max(SLOW_START_FLOOR, elapsed_s / slow_start_s)
    return max(1, round(weight * share))
