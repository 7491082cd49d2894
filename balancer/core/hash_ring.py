"""Consistent hashing: stickiness without memory."""

import hashlib
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence

from balancer.core.loads import Candidate, Chooser, Loads, Random

POINTS_PER_WEIGHT = 1.28  # 128 points for the default weight: shares within about 10 %
_POINTS_PER_HASH = 8


class HashRing(Loads):
    """The same node for the same key, as long as it can take it; a node that goes moves only its own keys.

    Source: consistent hashing (Karger et al. 1997) with points by weight. A node that is full or excluded hands
    its keys to the next on the ring for that time. An exchange without key goes to `keyless`.
    """

    __slots__ = ("_keyless", "_owners", "_points")

    def __init__(self, candidates: Sequence[Candidate], keyless: Chooser) -> None:
        super().__init__(candidates)
        ring = sorted((point, c.slot) for c in candidates for point in _ring_points(c))
        self._points = [point for point, _ in ring]
        self._owners = [slot for _, slot in ring]
        self._keyless = keyless

    def refresh(self, loads: Sequence[int], now_ns: int) -> None:
        """See Chooser."""
        super().refresh(loads, now_ns)
        self._keyless.refresh(loads, now_ns)

    def claimed(self, slot: int) -> None:
        """See Chooser."""
        super().claimed(slot)
        self._keyless.claimed(slot)

    def released(self, slot: int) -> None:
        """See Chooser."""
        super().released(slot)
        self._keyless.released(slot)

    def choose(self, excluded: Collection[int], key: bytes | None, random: Random) -> int | None:
        """The owner of the first point at or after the key's, or the next one that can take it."""
        if key is None:
            return self._keyless.choose(excluded, None, random)
        owners, full, count = self._owners, self._full, len(self._owners)
        point = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
        start = bisect_right(self._points, point)
        for step in range(count):
            slot = owners[(start + step) % count]
            if slot not in full and slot not in excluded:
                return slot
        return None


def _ring_points(candidate: Candidate) -> Iterator[int]:
    """Yield a candidate's places on the ring; they depend on its name and weight alone."""
    wanted = max(1, round(candidate.weight * POINTS_PER_WEIGHT))
    name = (candidate.name or str(candidate.slot)).encode()
    for block in range(-(-wanted // _POINTS_PER_HASH)):
        digest = hashlib.blake2b(b"%s#%d" % (name, block), digest_size=64).digest()
        for index in range(min(_POINTS_PER_HASH, wanted - block * _POINTS_PER_HASH)):
            yield int.from_bytes(digest[index * 8 : index * 8 + 8], "big")
