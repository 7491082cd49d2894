"""Claims on a node's capacity, held across workers by the scoreboard (rules: `balancer.core.claims`)."""

import fcntl
import os

from balancer.core.claims import fits, needs_lock
from balancer.net.nodes import NodeState
from balancer.scoreboard import (
    C_CELLS,
    C_HEALTH,
    CONTROL_NODES,
    H_ROWS,
    LOCK_NODES,
    N_CELLS,
    N_IN_FLIGHT,
    ROW_CELLS,
    W_QUEUED,
    WORKERS,
    Scoreboard,
    node_cell,
)


class Claims:
    """This worker's claims, and what the scoreboard says of all nodes at once.

    One exchange holds one claim from the choice of its node until it is done with it.
    """

    __slots__ = ("_board", "_cells", "_own_row", "_wakes", "slot")

    def __init__(self, board: Scoreboard, slot: int, wakes: list[int]) -> None:
        self._board = board
        self._cells = board.cells
        self.slot = slot
        self._wakes = wakes
        self._own_row = WORKERS + slot * ROW_CELLS

    @property
    def rows(self) -> int:
        """How many rows count."""
        return max(self._cells[H_ROWS], self.slot + 1)

    def total(self, cell: int) -> int:
        """Sum of a row cell over workers."""
        return sum(self._cells[WORKERS + cell : WORKERS + cell + self.rows * ROW_CELLS : ROW_CELLS])

    def load(self, node: NodeState) -> int:
        """Exchanges at the node now, over all workers."""
        cells, first = self._cells, node_cell(0, node.slot) + N_IN_FLIGHT
        return sum(cells[first : first + self.rows * ROW_CELLS : ROW_CELLS])

    def healths(self, slots: int) -> list[int]:
        """Control's word on each of the first `slots` node slots now."""
        return self._cells[CONTROL_NODES + C_HEALTH : CONTROL_NODES + slots * C_CELLS : C_CELLS].tolist()

    def loads(self, slots: int) -> list[int]:
        """Exchanges at each of the first `slots` node slots now, over all workers."""
        cells, first, size = self._cells, node_cell(0, 0) + N_IN_FLIGHT, slots * N_CELLS
        starts = [first + row * ROW_CELLS for row in range(self.rows)]
        of_rows = [cells[start : start + size : N_CELLS].tolist() for start in starts]
        return of_rows[0] if len(of_rows) == 1 else list(map(sum, zip(*of_rows, strict=True)))

    def take(self, node: NodeState) -> bool:
        """Claim a place; False: it is full. Raise the own cell first, then sum: the limit is never passed."""
        cells = self._cells
        own = node.cell + N_IN_FLIGHT
        capacity = node.node.capacity
        if not capacity:
            cells[own] += 1
            return True
        if needs_lock(self.load(node), capacity, self.rows):
            return self._take_locked(node, own, capacity)
        cells[own] += 1
        if fits(self.load(node), capacity):
            return True
        cells[own] -= 1
        return False

    def _take_locked(self, node: NodeState, own: int, capacity: int) -> bool:
        """Under the node's record lock exactly the free places are handed out. Held elsewhere: as good as full.

        Never waits: a stopped worker may hold it.
        """
        cells = self._cells
        start = LOCK_NODES + node.slot
        try:
            fcntl.lockf(self._board.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start, os.SEEK_SET)
        except OSError:
            return False
        try:
            if self.load(node) >= capacity:
                return False
            cells[own] += 1
            return True
        finally:
            fcntl.lockf(self._board.fd, fcntl.LOCK_UN, 1, start, os.SEEK_SET)

    def give(self, node: NodeState) -> None:
        """Give a claim back, and wake workers that wait for one."""
        cells = self._cells
        cells[node.cell + N_IN_FLIGHT] -= 1
        if node.node.capacity:
            self.wake_waiting(W_QUEUED)

    def wake_waiting(self, cell: int) -> None:
        """Wake the other workers whose row cell `cell` is not zero."""
        for slot in range(self.rows):
            if slot != self.slot and self._cells[WORKERS + slot * ROW_CELLS + cell]:
                self.wake(slot)

    def wake(self, slot: int) -> None:
        """Make another worker take a turn."""
        if slot < len(self._wakes):
            try:
                os.eventfd_write(self._wakes[slot], 1)
            except BlockingIOError:  # its counter is full: it has a wake-up pending
                return
