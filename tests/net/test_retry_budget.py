"""The retry budget of several workers, in every order in which their steps can happen."""

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from balancer.model import Retry
from balancer.net.claims import Claims
from balancer.net.retrybudget import RetryBudget
from balancer.scoreboard import H_ROWS, W_RETRIES_BUDGETED, W_RETRY_ASKED, Scoreboard, row
from tests.support.altered_worker import CheckingBudget
from tests.support.interleaving import SharedCells, Steps, all_orders

WORKERS = 2
LIMIT = 3
SECOND = 1_000_000_000
Task = Callable[[], Any]
Play = Callable[[list[RetryBudget]], tuple[list[Task], Task]]


class LoweringBudget(RetryBudget):
    """Says that it wants a retry in the cell of those that were made."""

    def __init__(self, board: Scoreboard, claims: Claims) -> None:
        super().__init__(board, claims)
        self._asked = self._spent

    def take(self, now: int) -> bool:
        self._cells[self._spent] += 1
        granted = self._allows(now)
        if not granted:
            self._cells[self._spent] -= 1
        return granted

    def _allows(self, now: int) -> bool:
        return self._budget.allows(now / 1e9, 0, self._claims.total(W_RETRIES_BUDGETED) - 1)


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    with Scoreboard.create(time.monotonic_ns()) as made:
        made.cells[H_ROWS] = WORKERS
        yield made


def made_in_all_orders(board: Scoreboard, kind: type[RetryBudget], spent: int, play: Play) -> list[int]:
    """How many retries are booked at the end of each order of what `play` gives the workers to do, and what follows."""
    watched = {row(worker) + cell: worker for worker in range(WORKERS) for cell in (W_RETRIES_BUDGETED, W_RETRY_ASKED)}

    def trial(steps: Steps) -> None:
        for cell in watched:
            board.cells[cell] = 0
        board.cells[row(0) + W_RETRIES_BUDGETED] = spent
        budgets = []
        for worker in range(WORKERS):
            seen = cast("Scoreboard", SimpleNamespace(cells=SharedCells(board.cells, steps, worker, watched), fd=-1))
            budgets.append(kind(seen, Claims(seen, worker, [])))
            budgets[-1].follow(Retry(budget_min=LIMIT, budget_ratio=0.0))
        at_once, afterwards = play(budgets)
        steps.run(*at_once)
        afterwards()

    return [board.total(W_RETRIES_BUDGETED) for _ in all_orders(trial)]


def two_ask(budgets: list[RetryBudget]) -> tuple[list[Task], Task]:
    """Both want a retry in one instant."""
    first, second = budgets
    return [lambda: first.take(SECOND), lambda: second.take(SECOND)], lambda: None


def one_asks_in_vain_while_the_other_begins_a_window(budgets: list[RetryBudget]) -> tuple[list[Task], Task]:
    """Later the other one takes all that this window has."""
    first, second = budgets

    def take_all() -> None:
        while second.take(31 * SECOND):
            continue

    return [lambda: first.take(20 * SECOND), lambda: second.sample(20 * SECOND)], take_all


def test_two_workers_that_ask_in_one_instant_never_pass_the_budget(board: Scoreboard) -> None:
    made = made_in_all_orders(board, RetryBudget, LIMIT - 1, two_ask)
    assert len(made) > 100
    assert max(made) == LIMIT
    assert set(made_in_all_orders(board, RetryBudget, LIMIT - 3, two_ask)) == {2}  # room enough: nobody is refused


def test_two_workers_would_pass_the_budget_if_they_looked_before_they_ask(board: Scoreboard) -> None:
    """The negative control of the test above."""
    assert max(made_in_all_orders(board, CheckingBudget, LIMIT - 1, two_ask)) == LIMIT + 1


def test_a_retry_that_is_refused_leaves_no_room_in_the_next_window(board: Scoreboard) -> None:
    made = made_in_all_orders(board, RetryBudget, LIMIT, one_asks_in_vain_while_the_other_begins_a_window)
    assert max(made) == 2 * LIMIT


def test_a_retry_that_is_refused_would_leave_room_if_it_were_counted_meanwhile(board: Scoreboard) -> None:
    """The negative control of the test above."""
    made = made_in_all_orders(board, LoweringBudget, LIMIT, one_asks_in_vain_while_the_other_begins_a_window)
    assert max(made) > 2 * LIMIT
