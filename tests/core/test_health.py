"""Rise and fall, closed ports, stale verdicts, and the one predicate."""

from itertools import product

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from balancer.core.health import (
    TRANSITIONS,
    Event,
    NodeHealth,
    Thresholds,
    after_check,
    after_connects,
    after_look,
    after_version,
    available,
    ejects,
    in_transition,
    is_ejected,
    unavailable_because,
    verdict_is_stale,
)
from balancer.model import Admin, Health

LIMITS = Thresholds(rise=2, fall=3)


def checked(results: str, limits: Thresholds = LIMITS) -> NodeHealth:
    """`+` a good check, `-` a failed one, `x` a refused one, `r` a refused live connect, `w` one that worked."""
    node = NodeHealth()
    for result in results:
        if result in "+-x":
            node = after_check(node, limits, passed=result == "+", refused=result == "x")
        else:
            node = after_connects(node, limits, refused=int(result == "r"), worked=result == "w")
    return node


@pytest.mark.parametrize(
    ("results", "health"),
    [
        ("", Health.CHECKING),
        ("+", Health.HEALTHY),  # requests wait for the first verdict: one look is enough
        ("-", Health.UNHEALTHY),
        ("+--", Health.HEALTHY),
        ("+---", Health.UNHEALTHY),
        ("+--+--", Health.HEALTHY),  # in a row, or it does not count
        ("-+", Health.UNHEALTHY),
        ("-++", Health.HEALTHY),
        ("-+-+-+", Health.UNHEALTHY),
        ("+---+-++", Health.HEALTHY),
        ("+xrr", Health.UNHEALTHY),  # a closed port, seen by both
        ("+rrx", Health.UNHEALTHY),
        ("+rr", Health.HEALTHY),
        ("+xr", Health.HEALTHY),
        ("+rwrx", Health.HEALTHY),
        ("+-rr", Health.HEALTHY),  # a failed check that was not refused has to fall slowly
        ("+rr+x", Health.HEALTHY),  # a good check wipes old refusals out
        ("+xrr++", Health.HEALTHY),
        ("rrr", Health.CHECKING),  # live traffic gives no first verdict
    ],
)
def test_checks_and_connects_give_a_verdict(results: str, health: Health) -> None:
    assert checked(results).health is health


def test_one_failure_is_enough_where_a_pause_ends() -> None:
    assert after_look(checked("++"), LIMITS, passed=True).health is Health.HEALTHY
    assert after_look(checked("++"), LIMITS, passed=False).health is Health.UNHEALTHY
    assert after_look(checked("--"), LIMITS, passed=True).health is Health.UNHEALTHY  # coming back takes `rise`


def test_one_and_one_flips_at_once() -> None:
    assert checked("+-+", Thresholds(1, 1)).health is Health.HEALTHY
    assert checked("+-", Thresholds(1, 1)).health is Health.UNHEALTHY


def test_the_table_is_complete() -> None:
    assert {(state, event) for state, row in TRANSITIONS.items() for event in row} == set(product(Health, Event))


def test_a_version_that_differs_is_a_state_of_its_own() -> None:
    node = after_version(checked("+"), LIMITS, differs=True)
    assert node.health is Health.MISMATCHED
    assert after_check(node, LIMITS, passed=True).health is Health.MISMATCHED
    assert after_version(node, LIMITS, differs=False).health is Health.HEALTHY
    for _ in range(3):
        node = after_check(node, LIMITS, passed=False)
    assert node.health is Health.UNHEALTHY
    for _ in range(2):
        node = after_check(node, LIMITS, passed=True)
    assert node.health is Health.MISMATCHED  # it never looks healthy in between


def test_a_version_known_before_the_first_check_waits_for_it() -> None:
    node = after_version(NodeHealth(), LIMITS, differs=True)
    assert node.health is Health.CHECKING
    assert after_check(node, LIMITS, passed=True).health is Health.MISMATCHED


@pytest.mark.parametrize(("results", "fast"), [("", True), ("+", False), ("+-", True), ("-", False), ("-+", True)])
def test_checks_are_faster_in_transition(results: str, fast: bool) -> None:
    assert in_transition(checked(results), LIMITS) is fast


def test_a_verdict_is_stale_after_three_intervals() -> None:
    assert not verdict_is_stale(16.0, 10.0, 2.0)
    assert verdict_is_stale(16.1, 10.0, 2.0)


def test_an_ejection_lasts_ten_seconds_or_until_a_newer_verdict() -> None:
    assert not is_ejected(5.0, None, 0.0)
    assert is_ejected(14.9, 5.0, 4.0)
    assert not is_ejected(15.0, 5.0, 4.0)
    assert not is_ejected(6.0, 5.0, 5.5)


def test_a_reset_ejects_only_when_nobody_else_judges() -> None:
    assert ejects(refused=True, stale=False)
    assert ejects(refused=False, stale=True)
    assert not ejects(refused=False, stale=False)


def test_a_node_serves_iff_enabled_and_healthy_and_not_ejected() -> None:
    for admin, health, ejected in product(Admin, Health, (False, True)):
        serves = admin is Admin.ENABLED and health is Health.HEALTHY and not ejected
        assert available(admin, health, ejected=ejected) is serves
        assert (unavailable_because(admin, health, ejected=ejected) is None) is serves


def test_it_is_said_why_a_node_does_not_serve() -> None:
    assert unavailable_because(Admin.DRAINING, Health.HEALTHY) == "it is draining"
    assert "version" in (unavailable_because(Admin.ENABLED, Health.MISMATCHED) or "")
    assert "first check" in (unavailable_because(Admin.ENABLED, Health.CHECKING) or "")
    assert "10 s ago" in (unavailable_because(Admin.ENABLED, Health.HEALTHY, ejected=True) or "")


def test_the_defaults_are_those_of_the_documents() -> None:
    assert (Thresholds().rise, Thresholds().fall) == (2, 3)


class HealthMachine(RuleBasedStateMachine):
    """Against a model that keeps the whole history and counts results in a row backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.node = NodeHealth()
        self.history: list[bool] = []
        self.up = False
        self.differs = False
        self.refused_in_a_row = 0
        self.last_refused = False

    def _closed(self) -> None:
        if self.last_refused and self.refused_in_a_row >= 2:
            self.up = False
            self.history = [False]

    @rule(passed=st.booleans(), refused=st.booleans())
    def check(self, passed: bool, refused: bool) -> None:
        self.node = after_check(self.node, LIMITS, passed=passed, refused=refused)
        self.history.append(passed)
        if len(self.history) == 1 and self.node.health is not Health.CHECKING:
            self.up = passed
        wanted = LIMITS.fall if self.up else LIMITS.rise
        if len(self.history) >= wanted and all(result is not self.up for result in self.history[-wanted:]):
            self.up = not self.up
        self.last_refused = refused and not passed
        if passed:
            self.refused_in_a_row = 0
        self._closed()

    @rule(refused=st.integers(0, 3), worked=st.booleans())
    def connects(self, refused: int, worked: bool) -> None:
        self.node = after_connects(self.node, LIMITS, refused=refused, worked=worked)
        self.refused_in_a_row = refused if worked else self.refused_in_a_row + refused
        if self.history:
            self._closed()

    @rule(differs=st.booleans())
    def version(self, differs: bool) -> None:
        self.node = after_version(self.node, LIMITS, differs=differs)
        self.differs = differs

    @invariant()
    def the_verdict_is_that_of_the_model(self) -> None:
        if not self.history:
            expected = Health.CHECKING
        elif not self.up:
            expected = Health.UNHEALTHY
        else:
            expected = Health.MISMATCHED if self.differs else Health.HEALTHY
        assert self.node.health is expected


TestHealthMachine = HealthMachine.TestCase
