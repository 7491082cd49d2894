"""A node as a worker sees it: its address, pool of idle connections, passive signs, and tallies of this turn."""

import socket
from bisect import bisect_right
from ipaddress import ip_address
from typing import TYPE_CHECKING

from balancer.core.health import EJECTION_S, verdict_is_stale
from balancer.model import Admin, Health, Node
from balancer.scoreboard import (
    BUCKETS_S,
    C_HEALTH,
    C_HEALTHY_SINCE_NS,
    C_VERDICT_NS,
    HISTOGRAM_CELLS,
    MARK_BITS,
    MARK_MOST,
    N_1XX,
    N_2XX,
    N_ATTEMPTS,
    N_DURATION,
    N_FIRST_BYTE,
    N_IDLE,
    N_IN_FLIGHT,
    N_REUSES,
    SLOWEST_CELLS,
    control_cell,
    node_cell,
)

if TYPE_CHECKING:
    from balancer.core.loads import Chooser
    from balancer.net.tls import NodeContext
    from balancer.net.upstream import Upstream

EJECT_NS = int(EJECTION_S * 1e9)
BOUNDS_NS = tuple(int(bound * 1e9) for bound in BUCKETS_S)


def observe(cells: "memoryview[int]", first: int, durations: list[int]) -> None:
    """Add durations (ns) to the histogram at `first`. Sorts the list."""
    durations.sort()
    count = len(durations)
    below = 0
    for bucket, bound in enumerate(BOUNDS_NS):
        upto = count if durations[-1] <= bound else bisect_right(durations, bound, below)
        if upto != below:
            cells[first + bucket] += upto - below
            below = upto
            if below == count:
                break
    else:
        cells[first + len(BOUNDS_NS)] += count - below
    cells[first + HISTOGRAM_CELLS - 1] += sum(durations) // 1000


def observe_marked(cells: "memoryview[int]", first: int, durations: list[int], second: int) -> None:
    """Add durations to the histogram at `first`, and mark the longest in the ring behind it. Sorts the list."""
    observe(cells, first, durations)
    mark = (second << MARK_BITS) + min(durations[-1] // 1000, MARK_MOST)
    cell = first + HISTOGRAM_CELLS + second % SLOWEST_CELLS
    if mark > cells[cell]:
        cells[cell] = mark


class NodeState:
    """Outlives snapshots while its node's name, slot and address stay."""

    __slots__ = (
        "address",
        "cell",
        "cells",
        "choosers",
        "control",
        "durations",
        "ejected_until",
        "family",
        "first_bytes",
        "in_flight",
        "name",
        "node",
        "ok_attempts",
        "pool",
        "pool_open",
        "reuses",
        "slot",
        "tls",
        "tunnels_end_at",
    )

    def __init__(self, node: Node, cells: "memoryview[int]", worker_slot: int) -> None:
        self.node = node
        self.name = node.name.encode()
        self.slot = node.slot
        self.cells = cells
        self.cell = node_cell(worker_slot, node.slot)  # first cell of this node in our row
        self.in_flight = self.cell + N_IN_FLIGHT
        self.control = control_cell(node.slot)
        self.family, self.address = _address(node)
        self.tls: NodeContext | None = None
        self.pool: list[Upstream] = []  # idle connections, the youngest last
        self.pool_open = True
        self.choosers: tuple[Chooser, ...] = ()
        self.ejected_until = 0  # ns; passive signs of this worker
        self.tunnels_end_at = 0  # ns; 0: they may stay
        # Tallies of this turn, written to the scoreboard at its end: one list append here is 30 ns, one cell 70 ns.
        self.durations: list[int] = []
        self.first_bytes: list[int] = []
        self.ok_attempts = 0  # answered 2xx
        self.reuses = 0

    def serves_at(self, now: int) -> bool:
        """Whether it may take a new exchange: `core.health.available` by hand, because it is asked every turn.

        Tests hold the two to the same answers.
        """
        if self.node.admin is not Admin.ENABLED or self.cells[self.control + C_HEALTH] != Health.HEALTHY:
            return False
        if self.address is None:
            return False
        if now >= self.ejected_until:
            return True
        # A verdict that is newer than what made us eject it is worth more than that.
        return self.cells[self.control + C_VERDICT_NS] > self.ejected_until - EJECT_NS

    def verdict_is_stale(self, now: int, interval_ns: int) -> bool:
        """Whether control has been silent for too long to be believed."""
        return verdict_is_stale(now, self.cells[self.control + C_VERDICT_NS], interval_ns)

    def eject(self, now: int) -> None:
        """Send nothing new there for a while, unless control finds it healthy after this moment."""
        self.ejected_until = now + EJECT_NS

    def healthy_since_s(self) -> float:
        """When it became healthy, on the monotonic clock."""
        return self.cells[self.control + C_HEALTHY_SINCE_NS] / 1e9

    def count_answer(self, status: int) -> None:
        """Count an attempt's answer that is not 2xx by class."""
        self.cells[self.cell + N_1XX - 1 + status // 100] += 1

    def count(self, cell: int) -> None:
        """Add one to a node cell (`N_...`)."""
        self.cells[self.cell + cell] += 1

    def flush_tallies(self, second: int) -> None:
        """Write the tallies of this turn. `second`: now, or half a second ago."""
        cells, cell = self.cells, self.cell
        if self.durations:
            observe_marked(cells, cell + N_DURATION, self.durations, second)
            self.durations.clear()
        if self.first_bytes:
            cells[cell + N_ATTEMPTS] += len(self.first_bytes)
            observe(cells, cell + N_FIRST_BYTE, self.first_bytes)
            self.first_bytes.clear()
        if self.ok_attempts:
            cells[cell + N_2XX] += self.ok_attempts
            self.ok_attempts = 0
        if self.reuses:
            cells[cell + N_REUSES] += self.reuses
            self.reuses = 0
        cells[cell + N_IDLE] = len(self.pool)

    def close_idle(self, before: int | None = None) -> None:
        """Close idle connections: those idle since before `before` (ns), or all."""
        pool = self.pool
        if before is None:
            self.pool = []
        else:
            kept = 0
            while kept < len(pool) and pool[kept].idle_since < before:
                kept += 1
            self.pool, pool = pool[kept:], pool[:kept]
        for connection in pool:
            connection.close()


def _address(node: Node) -> tuple[int, str | tuple[str, int] | None]:
    """Return (family, address); no address while control has not resolved the node's name.

    The loop must never wait for a name server, so a name here is as good as nothing.
    """
    if node.unix_path:
        return socket.AF_UNIX, node.unix_path
    try:
        version = ip_address(node.host.partition("%")[0]).version
    except ValueError:
        return socket.AF_INET, None
    return (socket.AF_INET6 if version == 6 else socket.AF_INET), (node.host, node.port)
