"""Least requests: exact, and as cheap for 64 nodes as for 2."""

import heapq
import math
from collections.abc import Collection, Sequence

from balancer.core.loads import Candidate, Loads, Random

_FULL = 255
_HIGH = 254  # loads this far above the base are all the same: never the lowest


class LeastRequests(Loads):
    """The node with the fewest exchanges, for equal weights; among equals they take turns.

    Exact for the loads it knows. One byte a node holds its load above a common base, so that the search for "the next
    one with the lowest load" is one memchr, whatever the number of nodes.
    """

    __slots__ = ("_base", "_cursor", "_levels", "_lowest")

    def __init__(self, candidates: Sequence[Candidate], start: int = 0) -> None:
        super().__init__(candidates)
        self._levels = bytearray()
        self._base = self._lowest = 0
        self._cursor = start % len(self._slots) if self._slots else 0
        self._rebuild()

    def _rebuild(self) -> None:
        pairs = list(zip(self._loads, self._capacities, strict=True))
        self._base = min((load for load, capacity in pairs if load < capacity), default=0)
        self._levels = bytearray(
            _FULL if load >= capacity else min(load - self._base, _HIGH) for load, capacity in pairs
        )
        self._lowest = 0

    def choose(self, excluded: Collection[int], _key: bytes | None, _random: Random) -> int | None:
        """The next of those with the lowest load."""
        if excluded:
            return self._choose_apart_from(excluded)
        levels, lowest = self._levels, self._lowest
        position = levels.find(lowest, self._cursor)
        if position < 0:
            position = levels.find(lowest)
            if position < 0:
                position = self._next_level()
                if position < 0:
                    return None
        self._cursor = position + 1
        return self._slots[position]

    def _next_level(self) -> int:
        """Find the lowest level again after it was emptied. Mostly it is the next one: a claim moves a node by one."""
        levels = self._levels
        lowest = self._lowest + 1
        if levels.find(lowest) < 0:
            lowest = min(levels, default=_FULL)
        if lowest == _HIGH:  # the base is far behind
            self._rebuild()
            levels, lowest = self._levels, 0
        if lowest >= _FULL:
            return -1
        self._lowest = lowest
        position = levels.find(lowest, self._cursor)
        return position if position >= 0 else levels.find(lowest)

    def _choose_apart_from(self, excluded: Collection[int]) -> int | None:
        count, loads, cursor = len(self._slots), self._loads, self._cursor
        best = min(
            (p for p, slot in enumerate(self._slots) if self._levels[p] != _FULL and slot not in excluded),
            key=lambda p: (loads[p], (p - cursor) % count),
            default=None,
        )
        if best is None:
            return None
        self._cursor = best + 1
        return self._slots[best]

    def claimed(self, slot: int) -> None:
        """See Chooser."""
        position = self._position.get(slot)
        if position is None:
            return
        load = self._loads[position] = self._loads[position] + 1
        if load >= self._capacities[position]:
            self._levels[position] = _FULL
        else:
            level = load - self._base
            self._levels[position] = level if level < _HIGH else _HIGH

    def released(self, slot: int) -> None:
        """See Chooser."""
        position = self._position.get(slot)
        if position is None:
            return
        load = self._loads[position]
        if load:
            load = self._loads[position] = load - 1
        level = load - self._base
        if level < 0:
            self._rebuild()
        elif load < self._capacities[position]:
            self._levels[position] = level if level < _HIGH else _HIGH
            if level < self._lowest:
                self._lowest = level


class WeightedLeastRequests(Loads):
    """The node with the fewest exchanges for its weight; among equals each gets its weight's share of turns.

    Exact for the loads it knows: `load / weight` is compared as `load * (lcm of all weights / weight)`. A heap with
    lazy deletion: an entry counts only while it is its node's current one.
    """

    __slots__ = ("_entries", "_heap", "_steps", "_turn", "_turns")

    # Beyond this the least common multiple of many odd weights is cut: loads closer than 1e-12 are then equal.
    _LCM_MAX = 1 << 62

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        super().__init__(candidates)
        common = min(math.lcm(*self._weights), self._LCM_MAX) if self._weights else 1
        self._steps = [max(1, common // weight) for weight in self._weights]
        # Start-time fair queueing for ties: a node's turn is when it last was chosen plus one step, never in the past.
        self._turns = [0] * len(self._slots)
        self._turn = 0
        self._entries: list[tuple[int, int, int] | None] = []
        self._heap: list[tuple[int, int, int]] = []
        self._rebuild()

    def _rebuild(self) -> None:
        self._entries = [
            None if load >= self._capacities[p] else (load * self._steps[p], self._turns[p], p)
            for p, load in enumerate(self._loads)
        ]
        self._heap = [entry for entry in self._entries if entry is not None]
        heapq.heapify(self._heap)

    def choose(self, excluded: Collection[int], _key: bytes | None, _random: Random) -> int | None:
        """The least loaded by weight."""
        if excluded:
            entries = (e for e in self._entries if e is not None and self._slots[e[2]] not in excluded)
            best = min(entries, default=None)
            return None if best is None else self._slots[best[2]]
        heap, entries_now = self._heap, self._entries
        while heap:
            entry = heap[0]
            if entry is entries_now[entry[2]]:
                return self._slots[entry[2]]
            heapq.heappop(heap)
        return None

    def claimed(self, slot: int) -> None:
        """See Chooser."""
        position = self._position.get(slot)
        if position is not None:
            step = self._steps[position]
            self._turn = turn = max(self._turn, self._turns[position])
            self._turns[position] = turn + step
            self._set(position, self._loads[position] + 1)

    def released(self, slot: int) -> None:
        """See Chooser."""
        position = self._position.get(slot)
        if position is not None:
            self._set(position, max(0, self._loads[position] - 1))

    def _set(self, position: int, load: int) -> None:
        self._loads[position] = load
        if load >= self._capacities[position]:
            self._entries[position] = None
            return
        entry = self._entries[position] = (load * self._steps[position], self._turns[position], position)
        heap = self._heap
        if len(heap) > 4 * len(self._slots) + 64:  # mostly outdated entries
            self._rebuild()
        elif heap and heap[0][2] == position:
            heapq.heapreplace(heap, entry)
        else:
            heapq.heappush(heap, entry)
