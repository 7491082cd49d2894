"""The whole table of the retry rule, and the budget."""

from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.retry import Budget, FailedAttempt, Failure, RetryKind, decide, may_use_kept_connection
from balancer.model import Retry

POLICY = Retry()
SAFE = (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE")
UNSAFE = (b"POST", b"PATCH", b"LOCK", b"get")
FLAGS = (False, True)


@dataclass(frozen=True)
class Expected:
    kind: RetryKind
    costs: bool
    reason: str


def by_the_book(failed: FailedAttempt, policy: Retry, budget_left: bool) -> Expected:
    """The rule once more, as a list of rows: the first that fits."""
    give_up, fresh, other = RetryKind.GIVE_UP, RetryKind.SAME_NODE_FRESH, RetryKind.OTHER_NODE
    repeatable = not failed.sent or failed.method in SAFE
    rows = [
        (failed.downstream, Expected(give_up, False, "with the client")),
        (failed.failure in (Failure.PROTOCOL, Failure.TIMEOUT), Expected(give_up, False, "not repeated")),
        (failed.failure.value not in policy.on, Expected(give_up, False, "not repeated")),
        (not failed.body_held, Expected(give_up, False, "not held")),
        (not repeatable, Expected(give_up, False, "twice")),
        (failed.reused and failed.failure is Failure.RESET, Expected(fresh, False, "fresh")),
        (failed.retries >= policy.retries, Expected(give_up, False, "retries are used")),
        (not failed.others, Expected(give_up, False, "no other node")),
        (failed.failure is Failure.CONNECT, Expected(other, False, "no connection")),
        (not budget_left, Expected(give_up, False, "budget")),
        (True, Expected(other, True, "closed the connection")),
    ]
    return next(expected for fits, expected in rows if fits)


@pytest.mark.parametrize("failure", Failure)
def test_the_whole_table(failure: Failure) -> None:
    for on, method, sent, downstream, held, reused, retries, others, budget in product(
        ((), ("connect",), POLICY.on), SAFE + UNSAFE, FLAGS, FLAGS, FLAGS, FLAGS, (0, 1, 2, 3), FLAGS, FLAGS
    ):
        policy = Retry(on=on)
        failed = FailedAttempt(failure, method, sent, downstream, held, reused, retries, others)
        verdict = decide(failed, policy, budget_left=budget)
        expected = by_the_book(failed, policy, budget)
        assert (verdict.kind, verdict.costs_budget) == (expected.kind, expected.costs), failed
        assert expected.reason in verdict.reason, failed


@pytest.mark.parametrize("method", SAFE + UNSAFE)
def test_a_refused_connect_goes_elsewhere_for_any_method_and_for_free(method: bytes) -> None:
    verdict = decide(FailedAttempt(Failure.CONNECT, method, sent=False), POLICY, budget_left=False)
    assert verdict.kind is RetryKind.OTHER_NODE
    assert not verdict.costs_budget


def test_a_post_that_was_sent_is_never_sent_again() -> None:
    for failure, reused, others in product(Failure, FLAGS, FLAGS):
        failed = FailedAttempt(failure, b"POST", sent=True, reused=reused, others=others)
        assert decide(failed, POLICY, budget_left=True).kind is RetryKind.GIVE_UP


def test_a_post_on_a_kept_connection_that_was_closed_already_is_sent_once() -> None:
    failed = FailedAttempt(Failure.RESET, b"POST", sent=False, reused=True)
    assert decide(failed, POLICY, budget_left=False).kind is RetryKind.SAME_NODE_FRESH


def test_the_only_node_gets_a_second_chance_by_a_fresh_connection_alone() -> None:
    reused = FailedAttempt(Failure.RESET, b"GET", sent=True, reused=True, others=False)
    fresh = FailedAttempt(Failure.RESET, b"GET", sent=True, reused=False, others=False)
    assert decide(reused, POLICY, budget_left=True).kind is RetryKind.SAME_NODE_FRESH
    assert decide(fresh, POLICY, budget_left=True).kind is RetryKind.GIVE_UP


def test_any_chain_of_failures_ends() -> None:
    retries, attempts, reused = 0, 0, True
    while True:
        attempts += 1
        failed = FailedAttempt(Failure.RESET, b"GET", sent=True, reused=reused, retries=retries)
        kind = decide(failed, POLICY, budget_left=True).kind
        if kind is RetryKind.GIVE_UP:
            break
        retries += kind is RetryKind.OTHER_NODE
        reused = kind is RetryKind.OTHER_NODE  # the worst luck: every new node is reached by a dead kept connection
    assert attempts == 2 * (POLICY.retries + 1)


def test_a_post_takes_no_connection_that_may_be_closing() -> None:
    assert may_use_kept_connection(b"POST", 0.4)
    assert not may_use_kept_connection(b"POST", 0.5)
    assert may_use_kept_connection(b"GET", 14.0)


def test_the_budget_allows_its_minimum_at_no_load() -> None:
    budget = Budget()
    budget.follow(POLICY)
    budget.sample(5.0, 0, 0)
    assert [budget.allows(5.0, 0, spent) for spent in (0, 9, 10)] == [True, True, False]
    budget.sample(5.5, 0, 10)
    assert not budget.allows(15.4, 0, 10)
    assert budget.allows(15.5, 0, 10)


def test_the_budget_grows_with_the_exchanges_of_the_window() -> None:
    budget = Budget()
    for second in range(60):
        budget.sample(float(second), second * 100, 0)
    assert budget.allows(59.0, 6000, 219)  # 1100 exchanges since second 49
    assert not budget.allows(59.0, 6000, 220)
    for second in range(60, 100):
        budget.sample(float(second), 6000, 220)
    assert not budget.allows(99.0, 6000, 230)


def test_a_worker_that_starts_knows_what_the_others_spent_since() -> None:
    budget = Budget()
    budget.sample(100.0, 5000, 77)
    assert budget.allows(101.0, 5010, 77 + 9)
    assert not budget.allows(101.0, 5010, 77 + 10)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 200), st.integers(0, 3), st.booleans()), max_size=80))
def test_retries_in_a_window_never_pass_the_share(script: list[tuple[float, int, int, bool]]) -> None:
    budget, now, accepted = Budget(), 0.0, 0
    made: list[float] = []
    totals = [(0.0, 0)]
    for step, more, others, wants in script:
        now, accepted = now + step, accepted + more
        made += [now] * others  # by other workers
        budget.sample(now, accepted, len(made))
        totals.append((now, accepted))
        if wants and budget.allows(now, accepted, len(made)):
            made.append(now)
            before = max(total for at, total in totals if at <= max(0.0, now - 12.0))  # a sample may be 2 s old
            spent = sum(at > now - 10 for at in made)
            assert spent <= max(10, 0.2 * (accepted - before))
