"""Power of two choices."""

from bisect import bisect_right
from collections.abc import Collection, Sequence

from balancer.core.loads import Candidate, Loads, Random


class TwoChoices(Loads):
    """The less loaded (by weight) of two nodes drawn at random by weight: no herd to a node that all see idle."""

    __slots__ = ("_bounds",)

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        super().__init__(candidates)
        self._bounds: list[int] = []
        for weight in self._weights:
            self._bounds.append(weight + (self._bounds[-1] if self._bounds else 0))

    def draw(self, random: Random) -> tuple[int, int]:
        """Return two different positions, drawn by weight; the same twice when there is only one."""
        bounds, total = self._bounds, self._bounds[-1]
        first = bisect_right(bounds, min(int(random() * total), total - 1))
        rest = total - self._weights[first]
        if rest == 0:
            return first, first
        at = min(int(random() * rest), rest - 1)  # on the line without the first one's stretch
        if at >= bounds[first] - self._weights[first]:
            at += self._weights[first]
        return first, bisect_right(bounds, at)

    def choose(self, excluded: Collection[int], _key: bytes | None, random: Random) -> int | None:
        """The better of two that can take it; when neither can, the best of the rest."""
        if not self._slots:
            return None
        first, second = self.draw(random)
        loads, weights = self._loads, self._weights
        better = (
            [first, second] if loads[first] * weights[second] <= loads[second] * weights[first] else [second, first]
        )
        for position in better:
            slot = self._slots[position]
            if slot not in self._full and slot not in excluded:
                return slot
        rest = min(self._open(excluded), key=lambda p: loads[p] / weights[p], default=None)
        return None if rest is None else self._slots[rest]
