"""The byte path's own form of a rule gives the answers of the rule."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from balancer.core.health import available, is_ejected
from balancer.model import Admin, Balance, Health, Node, Snapshot
from balancer.net.claims import Claims
from balancer.net.nodes import BOUNDS_NS, NodeState, observe
from balancer.net.site import Site
from balancer.scoreboard import (
    C_HEALTH,
    C_HEALTHY_SINCE_NS,
    C_VERDICT_NS,
    H_ROWS,
    HISTOGRAM_CELLS,
    N_IN_FLIGHT,
    Scoreboard,
    control_cell,
    node_cell,
)

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


def site_on(board: Scoreboard) -> Site:
    nodes = tuple(Node(f"n{slot}", slot, "127.0.0.1", 1) for slot in range(3))
    states = {node.slot: NodeState(node, board.cells, 0) for node in nodes}
    snapshot = Snapshot(1, "test", nodes=nodes, balance=Balance(slow_start_s=2.0))
    return Site(snapshot, states, Claims(board, 0, []))


EVENTS = st.one_of(
    st.tuples(st.just("health"), st.integers(0, 2), st.sampled_from(Health)),
    st.tuples(st.just("eject"), st.integers(0, 2), st.none()),
    st.tuples(st.just("later"), st.sampled_from([0, 10_000_000, 600_000_000, 3 * SECOND, 11 * SECOND]), st.none()),
)


@given(st.lists(EVENTS, max_size=25))
def test_looking_only_when_something_may_have_changed_misses_nothing(
    events: list[tuple[str, int, Health | None]],
) -> None:
    with Scoreboard.create(1) as board:
        sparing, thorough, now = site_on(board), site_on(board), 100 * SECOND
        for what, value, health in events:
            told = False
            match what:
                case "health":
                    cell = control_cell(value)
                    if board.cells[cell + C_HEALTH] != health:  # as control does: the same word begins nothing anew
                        board.cells[cell + C_HEALTHY_SINCE_NS] = now if health is Health.HEALTHY else 0
                    board.cells[cell + C_VERDICT_NS] = now
                    board.cells[cell + C_HEALTH] = health or 0
                case "eject":
                    for site in (sparing, thorough):
                        site.nodes[value].eject(now)
                    told = True
                case _:
                    now += value
            changed = thorough.refresh(now)
            assert sparing.refresh(now, told=told) is changed
            serving = [[node.slot for node in site.everything.serving] for site in (sparing, thorough)]
            assert serving[0] == serving[1]


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=3))
def test_the_loads_of_all_nodes_at_once_are_those_of_each(rows: list[list[int]]) -> None:
    with Scoreboard.create(1) as board:
        board.cells[H_ROWS] = len(rows)
        for worker, loads in enumerate(rows):
            for slot, load in enumerate(loads):
                board.cells[node_cell(worker, slot) + N_IN_FLIGHT] = load
        claims = Claims(board, 0, [])
        states = [NodeState(Node("n", slot, "127.0.0.1", 1), board.cells, 0) for slot in range(4)]
        assert claims.loads(4) == [claims.load(state) for state in states]


@given(st.lists(st.sampled_from([*BOUNDS_NS, *(bound + 1 for bound in BOUNDS_NS), 0]), min_size=1, max_size=60))
def test_durations_are_counted_in_the_first_bucket_that_holds_them(durations: list[int]) -> None:
    cells = memoryview(bytearray(8 * (HISTOGRAM_CELLS + 1))).cast("Q")
    expected = [0] * (HISTOGRAM_CELLS + 1)
    for duration in durations:
        expected[1 + next((n for n, bound in enumerate(BOUNDS_NS) if duration <= bound), len(BOUNDS_NS))] += 1
    expected[HISTOGRAM_CELLS] = sum(durations) // 1000
    observe(cells, 1, durations)
    assert cells.tolist() == expected
