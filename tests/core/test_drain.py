"""The admin axis, and the steps of a drain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.drain import Remaining, StepKind, admin, decide
from balancer.model import Admin, Drain

DRAIN = Drain(timeout_s=60.0, tunnel_grace_s=30.0)


@pytest.mark.parametrize(
    ("is_drained", "is_removed", "is_empty", "state"),
    [
        (False, False, False, Admin.ENABLED),
        (False, False, True, Admin.ENABLED),
        (True, False, False, Admin.DRAINING),
        (True, False, True, Admin.DRAINED),
        (False, True, False, Admin.DRAINING),
        (False, True, True, Admin.REMOVED),
        (True, True, False, Admin.DRAINING),
        (True, True, True, Admin.REMOVED),
    ],
)
def test_a_node_is_drained_or_removed_only_when_it_is_empty(
    is_drained: bool, is_removed: bool, is_empty: bool, state: Admin
) -> None:
    assert admin(is_drained=is_drained, is_removed=is_removed, is_empty=is_empty) is state


@pytest.mark.parametrize(
    ("exchanges", "tunnels", "elapsed", "may_cut", "closed", "kind", "again"),
    [
        (0, 0, 0.0, False, False, StepKind.DONE, None),
        (0, 0, 99.0, False, False, StepKind.DONE, None),
        (1, 0, 0.0, False, False, StepKind.WAIT, 60.0),
        (1, 1, 0.0, False, False, StepKind.WAIT, 30.0),
        (0, 1, 30.0, False, False, StepKind.CLOSE_TUNNELS, 30.0),
        (0, 1, 31.0, False, True, StepKind.WAIT, 29.0),
        (1, 0, 60.0, False, True, StepKind.GIVE_UP, None),
        (1, 0, 60.0, True, True, StepKind.CUT, None),
        (0, 1, 60.0, True, True, StepKind.CUT, None),
    ],
)
def test_the_steps_of_a_drain(
    exchanges: int, tunnels: int, elapsed: float, may_cut: bool, closed: bool, kind: StepKind, again: float | None
) -> None:
    step = decide(Remaining(exchanges, tunnels), DRAIN, elapsed, may_cut=may_cut, tunnels_closed=closed)
    assert (step.kind, step.again_in_s) == (kind, again)
    assert step.reason


@given(
    st.integers(0, 3),
    st.integers(0, 3),
    st.floats(0, 1000),
    st.booleans(),
    st.booleans(),
    st.sampled_from((0.0, 5.0, 60.0)),
)
def test_nothing_is_cut_unless_it_may_be_and_waiting_always_has_a_reason_to_end(
    exchanges: int, tunnels: int, elapsed: float, may_cut: bool, closed: bool, timeout: float
) -> None:
    step = decide(Remaining(exchanges, tunnels), Drain(timeout, 30.0), elapsed, may_cut=may_cut, tunnels_closed=closed)
    assert (step.kind is StepKind.DONE) is (exchanges + tunnels == 0)
    assert step.kind is not StepKind.CUT or (may_cut and timeout and elapsed >= timeout)
    if step.kind is StepKind.WAIT:
        assert step.again_in_s is None or step.again_in_s > 0
        assert timeout == 0 or step.again_in_s is not None


def test_what_remains_is_said_in_words() -> None:
    assert str(Remaining(1, 0)) == "1 exchange"
    assert str(Remaining(2, 1)) == "2 exchanges and 1 tunnel"
    assert str(Remaining(0, 0)) == "nothing"
