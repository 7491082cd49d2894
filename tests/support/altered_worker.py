"""A worker without one of its mechanisms, for negative controls; the environment variable WITHOUT names it.

python -P -m tests.support.altered_worker
"""

import json
import os
import select
import sys
import time

from balancer.net.claims import Claims
from balancer.net.plane import Plane
from balancer.net.reactor import Reactor
from balancer.net.retrybudget import RetryBudget
from balancer.scoreboard import W_ACCEPTED, W_RETRIES_BUDGETED, Scoreboard
from balancer.worker import run

WITHOUT = "WITHOUT"
SLOW_SUM_S = 0.03


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
    "asking first": WithoutAsking,
    "haste": SlowBudget,
    "dropping interests": Plane,
}


def main() -> int:
    """Run a worker as the parent would."""
    without = os.environ[WITHOUT]
    poller = Sticky() if without == "dropping interests" else None
    return run(json.loads(os.environ["ARV_BALANCE_CHILD"]), poller, PLANES[without])


if __name__ == "__main__":
    sys.exit(main())
