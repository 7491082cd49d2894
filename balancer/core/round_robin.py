"""Smooth weighted round robin."""

import math
from collections.abc import Collection, Iterator, Sequence

from balancer.core.loads import Candidate, Loads, Random


class RoundRobin(Loads):
    """Smooth weighted round robin: in each cycle every node gets exactly its weight's share, spread out.

    Source: nginx ngx_http_upstream_round_robin. The sequence of one cycle is made lazily by nginx's rule and then
    replayed, so a choice costs the same for any number of nodes.
    """

    __slots__ = ("_cursor", "_cycle", "_making", "_sequence")

    def __init__(self, candidates: Sequence[Candidate], start: int = 0, previous: "RoundRobin | None" = None) -> None:
        super().__init__(candidates)
        divisor = math.gcd(*self._weights) or 1
        shares = [weight // divisor for weight in self._weights]
        self._cycle = sum(shares)
        self._sequence: list[int] = []
        self._cursor = 0
        self._making = _smooth(shares, self._first_turns(start, previous))

    def _first_turns(self, start: int, previous: "RoundRobin | None") -> list[int]:
        """Order of positions for ties: rotated by `start`, or those first to whom `previous` owes most."""
        count = len(self._slots)
        order = [(position + start) % count for position in range(count)]
        if previous is not None:
            owed = previous.owed()
            order.sort(key=lambda position: -owed.get(self._slots[position], 0.0))
        return order

    def owed(self) -> dict[int, float]:
        """Return by slot how many turns a candidate is behind its share of this cycle."""
        done, total = self._sequence[: self._cursor], sum(self._weights)
        return {
            slot: len(done) * weight / total - done.count(slot)
            for slot, weight in zip(self._slots, self._weights, strict=True)
        }

    def choose(self, excluded: Collection[int], _key: bytes | None, _random: Random) -> int | None:
        """The next in turn; who cannot take it loses this turn only."""
        full = self._full
        for _ in range(self._cycle):
            slot = self._next()
            if slot not in excluded and slot not in full:
                return slot
        return None

    def _next(self) -> int:
        if self._cursor == self._cycle:
            self._cursor = 0
        if self._cursor == len(self._sequence):
            self._sequence.append(self._slots[next(self._making)])
        self._cursor += 1
        return self._sequence[self._cursor - 1]


def _smooth(shares: list[int], order: list[int]) -> Iterator[int]:
    """Yield positions by nginx's rule; ties go by `order`."""
    total, currents = sum(shares), [0] * len(shares)
    while True:
        for position, share in enumerate(shares):
            currents[position] += share
        best = max(order, key=currents.__getitem__)
        currents[best] -= total
        yield best
