"""Code of several workers on shared cells, in every order in which their steps can happen."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

STEP_S = 10.0  # nobody computes for so long between two steps


class Steps:
    """Lets one thread go on at a time, one step after the other, as `order` says; when that is used up, in turn."""

    def __init__(self, order: tuple[int, ...]) -> None:
        self.order = order
        self.taken: list[tuple[int, tuple[int, ...]]] = []  # who took each step, and who could have
        self._waiting: set[int] = set()
        self._alive: set[int] = set()
        self._changed = threading.Condition()
        self._turn = -1

    def run(self, *tasks: Callable[[], Any]) -> None:
        """Run all to their ends. Raises what one of them raised."""
        failures: list[BaseException] = []

        def whole(me: int, task: Callable[[], Any]) -> None:
            try:
                self.step(me)
                task()
            except BaseException as error:  # noqa: BLE001 - told to the caller
                failures.append(error)
            with self._changed:
                self._alive.discard(me)
                self._changed.notify_all()

        self._alive = set(range(len(tasks)))
        threads = [threading.Thread(target=whole, args=item) for item in enumerate(tasks)]
        for thread in threads:
            thread.start()
        self._lead()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def step(self, me: int) -> None:
        """Wait for the turn; called by a task before each of its steps. Costs nothing when no task runs any more."""
        with self._changed:
            if not self._alive:
                return
            self._waiting.add(me)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._turn == me, STEP_S)
            self._turn = -1
            self._waiting.discard(me)

    def _lead(self) -> None:
        with self._changed:
            while True:
                assert self._changed.wait_for(lambda: self._turn == -1 and self._waiting == self._alive, STEP_S)
                if not self._alive:
                    return
                could = tuple(sorted(self._waiting))
                number = len(self.taken)
                self._turn = self.order[number] if number < len(self.order) else could[0]
                self.taken.append((self._turn, could))
                self._changed.notify_all()


class SharedCells:
    """A scoreboard's cells as one worker sees them: each write, and each look at another worker's cell, is a step."""

    def __init__(self, cells: "memoryview[int]", steps: Steps, me: int, watched: dict[int, int]) -> None:
        """`watched`: whose cell it is, by index; others are read and written without a step."""
        self._cells, self._steps, self._me, self._watched = cells, steps, me, watched

    def __getitem__(self, index: "int | slice") -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self._cells)))]
        if self._watched.get(index, self._me) != self._me:
            self._steps.step(self._me)
        return self._cells[index]

    def __setitem__(self, index: int, value: int) -> None:
        if index in self._watched:
            self._steps.step(self._me)
        self._cells[index] = value


def all_orders(trial: Callable[[Steps], None]) -> Iterator[Steps]:
    """Make `trial` once for each order in which the steps of its tasks can happen (depth first)."""
    order: tuple[int, ...] | None = ()
    while order is not None:
        steps = Steps(order)
        trial(steps)
        yield steps
        order = _next(steps.taken)


def _next(taken: list[tuple[int, tuple[int, ...]]]) -> tuple[int, ...] | None:
    """The same up to the last step that somebody else could have taken; there, the next one."""
    for number in range(len(taken) - 1, -1, -1):
        who, could = taken[number]
        others = [other for other in could if other > who]
        if others:
            return (*(before for before, _ in taken[:number]), others[0])
    return None
