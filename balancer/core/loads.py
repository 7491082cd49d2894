"""What every chooser starts from: its candidates, and how much each is doing as far as this worker knows."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

Random = Callable[[], float]  # uniform in [0, 1)

UNLIMITED = 1 << 62
REFRESH_NS_PER_NODE = 125_000  # so that refreshing costs an exchange the same for any number of nodes
REFRESH_NS_MIN = 1_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may take exchanges now. `name` places it on the hash ring, so the ring is the same on every machine.

    weight: above 0, slow start already applied; capacity: exchanges at once over all workers, 0 no limit.
    """

    slot: int
    weight: int = 100
    capacity: int = 0
    name: str = ""


class Chooser(Protocol):
    """Picks a slot for each exchange. Calls are cheap; `choose` does not claim, tell it by `claimed`."""

    refresh_at_ns: int  # call `refresh` before choosing once the clock is past this

    def refresh(self, loads: Sequence[int], now_ns: int, /) -> None:
        """Take over real loads. `loads` by scoreboard slot, over all workers, this one's claims included."""

    def choose(self, excluded: Collection[int], key: bytes | None, random: Random, /) -> int | None:
        """Return a slot that is not full and not in `excluded`, or None when there is none.

        `key` is what the `hash` policy looks at; None: this exchange has none.
        """

    def claimed(self, slot: int, /) -> None:
        """Count one exchange more at `slot`; a slot that is no candidate is ignored."""

    def released(self, slot: int, /) -> None:
        """Count one exchange less at `slot`."""


def refresh_interval_ns(nodes: int) -> int:
    """How long loads of other workers may be believed: 1 ms up to 8 nodes, 8 ms for 64."""
    return max(REFRESH_NS_MIN, nodes * REFRESH_NS_PER_NODE)


class Loads:
    """Loads and capacities by candidate position; base of the choosers."""

    __slots__ = ("_capacities", "_full", "_interval_ns", "_loads", "_position", "_slots", "_weights", "refresh_at_ns")

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._slots = [candidate.slot for candidate in candidates]
        self._weights = [candidate.weight for candidate in candidates]
        self._capacities = [candidate.capacity or UNLIMITED for candidate in candidates]
        self._position = {slot: position for position, slot in enumerate(self._slots)}
        self._loads = [0] * len(self._slots)
        self._full: set[int] = set()  # slots
        self._interval_ns = refresh_interval_ns(len(self._slots))
        self.refresh_at_ns = 0

    def refresh(self, loads: Sequence[int], now_ns: int) -> None:
        """See Chooser."""
        self.refresh_at_ns = now_ns + self._interval_ns
        fresh = [loads[slot] for slot in self._slots]
        if fresh != self._loads:
            self._loads = fresh
            self._rebuild()

    def claimed(self, slot: int) -> None:
        """See Chooser."""
        position = self._position.get(slot)
        if position is not None:
            load = self._loads[position] = self._loads[position] + 1
            if load >= self._capacities[position]:
                self._full.add(slot)

    def released(self, slot: int) -> None:
        """See Chooser."""
        position = self._position.get(slot)
        if position is not None:
            load = self._loads[position] = max(0, self._loads[position] - 1)
            if load < self._capacities[position]:
                self._full.discard(slot)

    def _rebuild(self) -> None:
        self._full = {
            slot
            for slot, load, capacity in zip(self._slots, self._loads, self._capacities, strict=True)
            if load >= capacity
        }

    def _open(self, excluded: Collection[int]) -> list[int]:
        """Positions of candidates that may be chosen."""
        return [p for p, slot in enumerate(self._slots) if slot not in excluded and slot not in self._full]
