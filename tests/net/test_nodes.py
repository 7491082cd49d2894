"""The byte path's own form of a rule gives the answers of the rule."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from balancer.core.health import available, is_ejected
from balancer.model import Admin, Health, Node
from balancer.net.nodes import BOUNDS_NS, NodeState, observe
from balancer.scoreboard import C_HEALTH, C_VERDICT_NS, HISTOGRAM_CELLS, Scoreboard

SECOND = 1_000_000_000


def test_a_worker_lets_serve_exactly_who_is_available() -> None:
    board = Scoreboard.create(1)
    answers = set()
    for admin, health, failed_at, verdict_at, now in product(
        Admin, Health, (None, 100, 105), (99, 100, 104, 106), (105, 110, 114, 115, 116)
    ):
        state = NodeState(Node("n", 0, "127.0.0.1", 1, admin=admin), board.cells, 0)
        board.cells[state.control + C_HEALTH] = health
        board.cells[state.control + C_VERDICT_NS] = verdict_at * SECOND
        if failed_at is not None:
            state.eject(failed_at * SECOND)
        expected = available(admin, health, ejected=is_ejected(now, failed_at, verdict_at))
        assert state.serves_at(now * SECOND) is expected, (admin, health, failed_at, verdict_at, now)
        answers.add(expected)
    assert answers == {False, True}
    board.close()


@given(st.lists(st.sampled_from([*BOUNDS_NS, *(bound + 1 for bound in BOUNDS_NS), 0]), min_size=1, max_size=60))
def test_durations_are_counted_in_the_first_bucket_that_holds_them(durations: list[int]) -> None:
    cells = memoryview(bytearray(8 * (HISTOGRAM_CELLS + 1))).cast("Q")
    expected = [0] * (HISTOGRAM_CELLS + 1)
    for duration in durations:
        expected[1 + next((n for n, bound in enumerate(BOUNDS_NS) if duration <= bound), len(BOUNDS_NS))] += 1
    expected[HISTOGRAM_CELLS] = sum(durations) // 1000
    observe(cells, 1, durations)
    assert cells.tolist() == expected
