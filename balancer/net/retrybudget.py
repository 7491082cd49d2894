"""The retry budget that all workers share: the scoreboard's cells under the rule of `balancer.core.retry.Budget`."""

from balancer.core.retry import Budget
from balancer.model import Retry
from balancer.net.claims import Claims
from balancer.scoreboard import ROW_CELLS, W_ACCEPTED, W_RETRIES_BUDGETED, W_RETRY_ASKED, WORKERS, Scoreboard


class RetryBudget:
    """This worker's part in it.

    Whoever wants a retry says so in its own cell first, then sums: workers that ask in one instant see each other, so
    together they never pass the budget; at worst one of them is refused its last retries. Asking has a cell of its own
    because what has been spent must never go down again: another worker may be noting it as the start of a window.
    """

    __slots__ = ("_asked", "_budget", "_cells", "_claims", "_spent")

    def __init__(self, board: Scoreboard, claims: Claims) -> None:
        row = WORKERS + claims.slot * ROW_CELLS
        self._cells = board.cells
        self._claims = claims
        self._asked, self._spent = row + W_RETRY_ASKED, row + W_RETRIES_BUDGETED
        self._budget = Budget()

    def follow(self, policy: Retry) -> None:
        """Use what the configuration says now."""
        self._budget.follow(policy)

    def sample(self, now: int) -> None:
        """Note the totals at `now` (ns)."""
        total = self._claims.total
        self._budget.sample(now / 1e9, total(W_ACCEPTED), total(W_RETRIES_BUDGETED))

    def take(self, now: int) -> bool:
        """Spend one retry; False: the budget is used up."""
        cells = self._cells
        cells[self._asked] = 1
        granted = self._allows(now)
        if granted:
            cells[self._spent] += 1
        cells[self._asked] = 0
        return granted

    def _allows(self, now: int) -> bool:
        total = self._claims.total
        # In this order: another worker books a retry before it stops asking, so it is missed in neither sum.
        others = total(W_RETRY_ASKED) - 1
        return self._budget.allows(now / 1e9, total(W_ACCEPTED), total(W_RETRIES_BUDGETED) + others)
