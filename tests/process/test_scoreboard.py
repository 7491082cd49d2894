"""The shared cells: layout, sums, the ledger, and a dead worker's row."""

import itertools
import multiprocessing
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from balancer import scoreboard as sb
from balancer.errors import StateError
from balancer.model import Outcome
from balancer.scoreboard import Scoreboard

SLOTS = st.integers(0, sb.MAX_WORKERS - 1)
NODES = st.integers(0, sb.MAX_NODES - 1)


def test_blocks_do_not_overlap() -> None:
    blocks = [(0, sb.H_CELLS)]
    blocks += [(sb.control_cell(node), sb.C_CELLS) for node in range(sb.MAX_NODES)]
    for slot in (0, 1, sb.MAX_WORKERS - 1):
        base = sb.row(slot)
        blocks.append((base, sb.W_CELLS))
        blocks.append((base + sb.W_QUEUE_HISTOGRAM, sb.HISTOGRAM_CELLS))
        blocks.append((base + sb.W_OVERHEAD_HISTOGRAM, sb.HISTOGRAM_CELLS))
        blocks += [(sb.node_cell(slot, node), sb.N_CELLS) for node in range(sb.MAX_NODES)]
        listeners = range(sb.MAX_LISTENERS)
        blocks += [(base + sb.W_LISTENERS + number * sb.L_CELLS, sb.L_CELLS) for number in listeners]
        blocks += [(sb.route_cell(slot, number), sb.R_CELLS) for number in range(sb.MAX_ROUTES)]
    blocks.sort()
    for (first, length), (second, _) in itertools.pairwise(blocks):
        assert first + length <= second
    assert sum(blocks[-1]) <= sb.TOTAL_CELLS


@pytest.mark.parametrize("prefix", ["H_", "C_", "W_", "N_", "L_", "R_"])
def test_names_of_a_block_have_cells_of_their_own_within_it(prefix: str) -> None:
    names = [name for name in vars(sb) if name.startswith(prefix) and not name.endswith("_CELLS")]
    names = [name for name in names if name not in {"W_NODES", "W_LISTENERS", "W_ROUTES"}]
    offsets = [getattr(sb, name) for name in names]
    assert len(set(offsets)) == len(offsets), names
    small = [offset for name, offset in zip(names, offsets, strict=True) if "HISTOGRAM" not in name]
    assert max(small) < getattr(sb, f"{prefix}CELLS")
    if prefix == "W_":
        assert sb.W_REJECTED + len(sb.REJECT_REASONS) <= sb.W_CELLS


def test_cells_are_shared_between_processes_and_survive_their_writer() -> None:
    with Scoreboard.create(1) as board:
        child = multiprocessing.get_context("fork").Process(target=_write, args=(board,), daemon=True)
        child.start()
        child.join()
        assert board.cells[sb.row(3) + sb.W_ACCEPTED] == 42
        again = Scoreboard(os.dup(board.fd))
        assert again.cells[sb.row(3) + sb.W_ACCEPTED] == 42
        again.close()


def _write(board: Scoreboard) -> None:
    board.cells[sb.row(3) + sb.W_ACCEPTED] = 42


@pytest.mark.parametrize(("size", "magic"), [(64, sb.MAGIC), (sb.TOTAL_CELLS * 8, sb.MAGIC + 1)])
def test_memory_of_another_layout_is_refused(size: int, magic: int) -> None:
    fd = os.memfd_create("test")
    os.ftruncate(fd, size)
    os.pwrite(fd, magic.to_bytes(8, "little"), 0)
    with pytest.raises(StateError, match=r"this version needs"):
        Scoreboard(fd)


@given(st.dictionaries(st.tuples(SLOTS, NODES), st.integers(0, 1000), max_size=20))
def test_in_flight_is_the_sum_over_workers(claims: dict[tuple[int, int], int]) -> None:
    with Scoreboard.create(1) as board:
        for (slot, node), count in claims.items():
            board.cells[sb.node_cell(slot, node) + sb.N_IN_FLIGHT] = count
        for node in {node for _slot, node in claims}:
            assert board.in_flight(node) == sum(count for (_, at), count in claims.items() if at == node)


class LedgerMachine(RuleBasedStateMachine):
    """Workers accept, end and die in any order: the ledger always adds up."""

    def __init__(self) -> None:
        super().__init__()
        self.board = Scoreboard.create(1)
        self.open = [0] * 4
        self.accepted = 0

    @rule(slot=st.integers(0, 3))
    def accept(self, slot: int) -> None:
        self.board.cells[sb.row(slot) + sb.W_ACCEPTED] += 1
        self.board.cells[sb.node_cell(slot, slot) + sb.N_IN_FLIGHT] += 1
        self.open[slot] += 1
        self.accepted += 1

    @rule(slot=st.integers(0, 3), outcome=st.sampled_from([o for o in Outcome if o is not Outcome.WORKER_LOST]))
    def end(self, slot: int, outcome: Outcome) -> None:
        if self.open[slot]:
            self.board.cells[sb.node_cell(slot, slot) + sb.N_IN_FLIGHT] -= 1
            self.board.cells[sb.row(slot) + sb.OUTCOME_CELLS[outcome]] += 1
            self.open[slot] -= 1

    @rule(slot=st.integers(0, 3))
    def die(self, slot: int) -> None:
        assert self.board.book_lost(slot) == self.open[slot]
        self.open[slot] = 0

    @rule(slot=st.integers(0, 3))
    def is_booked_twice(self, slot: int) -> None:
        self.die(slot)
        assert self.board.book_lost(slot) == 0

    @invariant()
    def adds_up(self) -> None:
        ledger = self.board.ledger()
        assert ledger.accepted == self.accepted
        assert ledger.open == sum(self.open)
        for slot in range(4):
            assert self.board.in_flight(slot) == self.open[slot]

    def teardown(self) -> None:
        self.board.close()


TestLedger = LedgerMachine.TestCase


def test_a_dead_workers_waiting_requests_and_claims_are_freed() -> None:
    with Scoreboard.create(1) as board:
        base = sb.row(2)
        freed = ("QUEUED", "PARKED", "PARKED_BYTES", "PARKED_HEAD", "CONNECTIONS", "TUNNELS", "PID", "STATE")
        for name in freed:
            board.cells[base + getattr(sb, f"W_{name}")] = 5
        board.cells[base + sb.W_CONNECTIONS_TOTAL] = 9
        board.cells[sb.node_cell(2, 3) + sb.N_IN_FLIGHT] = 5
        assert board.busy(2) == 5
        board.book_lost(2)
        assert board.busy(2) == 0
        assert [board.cells[base + getattr(sb, f"W_{name}")] for name in freed] == [0] * len(freed)
        assert board.cells[base + sb.W_CONNECTIONS_TOTAL] == 9  # counters go on


def test_open_is_never_negative_while_others_write() -> None:
    with Scoreboard.create(1) as board:
        child = multiprocessing.get_context("fork").Process(target=_exchange, args=(board,), daemon=True)
        child.start()
        while child.is_alive():
            assert board.ledger(1).open >= 0
        child.join()
        ledger = board.ledger()
        assert (ledger.accepted, ledger.open) == (100_000, 0)


def _exchange(board: Scoreboard) -> None:
    cells, base = board.cells, sb.row(0)
    for _ in range(100_000):
        cells[base + sb.W_ACCEPTED] += 1
        cells[base + sb.W_OUT_NODE] += 1
