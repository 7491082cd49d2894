"""The control process's side of the scoreboard: its word on nodes, its heartbeat, and waking workers."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from balancer import scoreboard as sb
from balancer.model import Health

BEAT_S = 0.5
_HEALTHS = frozenset(Health)


class Board:
    """Writes control's own cells. `clock_ns` is CLOCK_MONOTONIC, as in all processes."""

    def __init__(self, board: sb.Scoreboard, wakes: Sequence[int], *, clock_ns: Callable[[], int]) -> None:
        self.shared = board
        self._wakes = tuple(wakes)
        self._clock_ns = clock_ns

    def health(self, node_slot: int) -> Health:
        """Return the last word on a node, that of an earlier control process included."""
        value = self.shared.cells[sb.control_cell(node_slot) + sb.C_HEALTH]
        return Health(value) if value in _HEALTHS else Health.CHECKING

    def healthy_since_ns(self, node_slot: int) -> int:
        """Return since when a node is healthy, 0 when it is not."""
        return self.shared.cells[sb.control_cell(node_slot) + sb.C_HEALTHY_SINCE_NS]

    def healthy_for(self, node_slot: int) -> timedelta:
        """Return for how long a node has been healthy, 0 when it is not."""
        since_ns = self.healthy_since_ns(node_slot)
        return timedelta(microseconds=(self._clock_ns() - since_ns) / 1000) if since_ns else timedelta()

    def verdict(self, node_slot: int, health: Health, *, check_ok: bool) -> None:
        """Write the word on a node after a check of it, and wake the workers when it is another one."""
        cell = sb.control_cell(node_slot)
        self.shared.cells[cell + (sb.C_CHECKS_OK if check_ok else sb.C_CHECKS_FAILED)] += 1
        self.word(node_slot, health)

    def word(self, node_slot: int, health: Health) -> None:
        """Write the word on a node without having checked it."""
        cells, cell, now = self.shared.cells, sb.control_cell(node_slot), self._clock_ns()
        changed = cells[cell + sb.C_HEALTH] != health
        if changed:
            cells[cell + sb.C_HEALTHY_SINCE_NS] = now if health is Health.HEALTHY else 0
        cells[cell + sb.C_VERDICT_NS] = now
        cells[cell + sb.C_HEALTH] = health
        if changed:
            self.poke()

    def forget(self, node_slot: int) -> None:
        """Clear a slot for a node that gets it anew."""
        cell = sb.control_cell(node_slot)
        for index in range(sb.C_CELLS):
            self.shared.cells[cell + index] = 0

    def poke(self) -> None:
        """Make every worker look at the scoreboard."""
        for wake in self._wakes[: self.shared.cells[sb.H_ROWS]]:
            os.eventfd_write(wake, 1)

    def busy_slots(self) -> frozenset[int]:
        """Return the node slots in which exchanges or tunnels run."""
        rows = range(self.shared.cells[sb.H_ROWS])
        return frozenset(slot for slot in range(sb.MAX_NODES) if self.in_flight(slot, rows) or self.tunnels(slot, rows))

    def busy(self) -> int:
        """Return the exchanges at all nodes now; 0 is what a pause waits for."""
        return sum(map(self.shared.busy, range(self.shared.cells[sb.H_ROWS])))

    def in_flight(self, node_slot: int, rows: Iterable[int] | None = None) -> int:
        """Return the exchanges at a node now, over all workers."""
        return self._node_sum(node_slot, sb.N_IN_FLIGHT, rows)

    def tunnels(self, node_slot: int, rows: Iterable[int] | None = None) -> int:
        """Return the tunnels to a node now, over all workers."""
        return self._node_sum(node_slot, sb.N_TUNNELS, rows)

    def _node_sum(self, node_slot: int, cell: int, rows: Iterable[int] | None) -> int:
        cells = self.shared.cells
        used = range(cells[sb.H_ROWS]) if rows is None else rows
        return sum(cells[sb.node_cell(row, node_slot) + cell] for row in used)

    def total(self, cell: int) -> int:
        """Return the sum of a worker's cell over all rows ever used."""
        return self.shared.total(cell, self.shared.cells[sb.H_ROWS])

    def is_acknowledged(self, generation: int, worker_slots: Sequence[int]) -> bool:
        """Return whether all these workers run on `generation` or a newer one."""
        cells = self.shared.cells
        return all(cells[sb.row(slot) + sb.W_GENERATION] >= generation for slot in worker_slots)

    async def beat(self) -> None:
        """Write the heartbeat until cancelled."""
        self.shared.cells[sb.H_CONTROL_PID] = os.getpid()
        while True:
            self.shared.cells[sb.H_CONTROL_BEAT_NS] = self._clock_ns()
            await asyncio.sleep(BEAT_S)
