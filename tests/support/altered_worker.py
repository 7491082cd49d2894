"""A worker without one of its mechanisms, for negative controls; the environment variable WITHOUT names it.

python -P -m tests.support.altered_worker
"""

import json
import os
import select
import sys
import time

from balancer.model import Node, Snapshot
from balancer.net.claims import Claims
from balancer.net.nodes import NodeState
from balancer.net.plane import Plane
from balancer.net.reactor import Reactor
from balancer.net.retrybudget import RetryBudget
from balancer.net.waiting import ParkingLot
from balancer.observe.accesslog import Clock, Entry
from balancer.scoreboard import W_ACCEPTED, W_RETRIES_BUDGETED, Scoreboard
from balancer.worker import run

WITHOUT = "WITHOUT"
SLOW_SUM_S = 0.03
UNSPEAKABLE = b"/unspeakable"


class Trusting(NodeState):
    """Believes control, whatever happens at the node."""

    __slots__ = ()

    def eject(self, now: int) -> None:
        """See NodeState."""


class WithoutPassiveSigns(Plane):
    """A node that refuses goes on getting requests as long as control does not say otherwise."""

    def _node_state(self, node: Node) -> NodeState:
        return self.nodes.get(node.slot) or Trusting(node, self.cells, self.slot)


class WithoutPauseDeadline(Plane):
    """A pause stands until control lifts it."""

    def apply(self, snapshot: Snapshot, pems: list[int]) -> None:
        """See Plane."""
        super().apply(snapshot, pems)
        if snapshot.pause is not None:
            self.site.pause_until = 1 << 62


class OwnOrderLot(ParkingLot):
    """Knows nothing of who waits in other workers."""

    def older_elsewhere(self, ticket: int) -> int | None:
        """See Line."""
        return None


class WithoutTickets(Plane):
    """Each worker releases what is parked in its own order."""

    def __init__(self, reactor: Reactor, board: Scoreboard, slot: int, wakes: list[int], log_fd: int = 1) -> None:
        super().__init__(reactor, board, slot, wakes, log_fd)
        self.lot = OwnOrderLot(self)


class SilentClaims(Claims):
    """Tells nobody that there is room again."""

    __slots__ = ()

    def wake_waiting(self, cell: int) -> None:
        """See Claims."""


class WithoutWakeUps(Plane):
    """Who waits for room at a node finds out by itself when another worker makes some."""

    def __init__(self, reactor: Reactor, board: Scoreboard, slot: int, wakes: list[int], log_fd: int = 1) -> None:
        super().__init__(reactor, board, slot, wakes, log_fd)
        self.claims = SilentClaims(board, slot, wakes)


class WithoutRest(Plane):
    """Looks at its queue again at once, as long as somebody waits there."""

    def turn_end(self) -> None:
        """See Plane."""
        super().turn_end()
        if self.queue.exchanges:
            self.queue.wake_soon()


class SlowClaims(Claims):
    """Takes its time to sum the retries, so that workers often ask in one instant."""

    __slots__ = ()

    def total(self, cell: int) -> int:
        """See Claims."""
        found = super().total(cell)
        if cell == W_RETRIES_BUDGETED:
            time.sleep(SLOW_SUM_S)
        return found


class SlowBudget(Plane):
    """Nothing is left out: the other half of the experiment with CheckingBudget."""

    def __init__(self, reactor: Reactor, board: Scoreboard, slot: int, wakes: list[int], log_fd: int = 1) -> None:
        super().__init__(reactor, board, slot, wakes, log_fd)
        self.retry_budget = RetryBudget(board, SlowClaims(board, slot, wakes))


class CheckingBudget(RetryBudget):
    """Looks whether there is a retry left, and then takes it."""

    __slots__ = ()

    def take(self, now: int) -> bool:
        """See RetryBudget."""
        total = self._claims.total
        if not self._budget.allows(now / 1e9, total(W_ACCEPTED), total(W_RETRIES_BUDGETED)):
            return False
        self._cells[self._spent] += 1
        return True


class WithoutAsking(Plane):
    """Takes retries without saying so first."""

    def __init__(self, reactor: Reactor, board: Scoreboard, slot: int, wakes: list[int], log_fd: int = 1) -> None:
        super().__init__(reactor, board, slot, wakes, log_fd)
        self.retry_budget = CheckingBudget(board, SlowClaims(board, slot, wakes))


class FailingLine(Plane):
    """Cannot format the line of one path; nothing is left out: the other half of the experiment with UnguardedLine."""

    def apply(self, snapshot: Snapshot, pems: list[int]) -> None:
        """See Plane."""
        super().apply(snapshot, pems)
        formatter = self.formatter
        assert formatter is not None

        def line(entry: Entry, clock: Clock, now: int) -> bytes:
            if entry.path == UNSPEAKABLE:
                raise ValueError("a line that cannot be said")
            return formatter(entry, clock, now)

        self.formatter = line


class UnguardedLine(FailingLine):
    """Formats lines where nothing catches what comes out of them."""

    def write_down(self) -> None:
        """See Ledger."""
        for exchange in self._unwritten:
            if self.formatter is not None:
                self.formatter(exchange, self.clock, self.reactor.now)
        super().write_down()


class Sticky:
    """An epoll that ignores changes that only take something away."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._masks: dict[int, int] = {}
        self.poll, self.close, self.unregister = self._epoll.poll, self._epoll.close, self._epoll.unregister

    def register(self, fd: int, mask: int, /) -> None:
        """See Poller."""
        self._masks[fd] = mask
        self._epoll.register(fd, mask)

    def modify(self, fd: int, mask: int, /) -> None:
        """See Poller."""
        if mask & ~self._masks[fd]:
            self._masks[fd] = mask
            self._epoll.modify(fd, mask)


PLANES: dict[str, type[Plane]] = {
    "passive signs": WithoutPassiveSigns,
    "the deadline of a pause": WithoutPauseDeadline,
    "tickets": WithoutTickets,
    "wake-ups": WithoutWakeUps,
    "rest": WithoutRest,
    "asking first": WithoutAsking,
    "haste": SlowBudget,
    "dropping interests": Plane,
    "a line": FailingLine,
    "a guard of lines": UnguardedLine,
}


def main() -> int:
    """Run a worker as the parent would."""
    without = os.environ[WITHOUT]
    poller = Sticky() if without == "dropping interests" else None
    return run(json.loads(os.environ["ARV_BALANCE_CHILD"]), poller, PLANES[without])


if __name__ == "__main__":
    sys.exit(main())
