"""What the parent decides: values and times in, decisions out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Timings:
    """Periods of the parent, in seconds."""

    tick_s: float = 0.5
    beat_stale_s: float = 2.0  # no heartbeat for this long is an event
    beat_dead_s: float = 5.0  # and for this long the end of the process
    first_beat_s: float = 20.0  # an interpreter that starts on a busy machine has this long for its first beat
    settled_s: float = 10.0  # a process that lived this long did not die of its start
    backoff_first_s: float = 0.1
    backoff_max_s: float = 5.0
    start_attempts: int = 5  # before the balancer was ever ready; afterwards it never gives up
    kill_grace_s: float = 2.0  # from the deadline of a `stop` to SIGKILL


class Beat(Enum):
    """What a heartbeat says."""

    FRESH = "fresh"
    STALE = "stale"
    DEAD = "dead"


def judge_beat(now_s: float, started_s: float, beat_s: float, timings: Timings) -> Beat:
    """Judge the heartbeat of a process started at `started_s`; a beat before that is its predecessor's."""
    if beat_s < started_s:
        return Beat.DEAD if now_s - started_s >= timings.first_beat_s else Beat.FRESH
    age_s = now_s - beat_s
    if age_s >= timings.beat_dead_s:
        return Beat.DEAD
    return Beat.STALE if age_s >= timings.beat_stale_s else Beat.FRESH


def slept(now_s: float, last_tick_s: float, timings: Timings) -> bool:
    """Tell whether the parent itself was held up (a stopped machine), so that old beats prove nothing."""
    return now_s - last_tick_s > timings.tick_s + timings.beat_stale_s / 2


def failures_after(failures: int, lived_s: float, timings: Timings) -> int:
    """Count quick deaths in a row."""
    return 1 if lived_s >= timings.settled_s else failures + 1


def restart_delay(failures: int, timings: Timings) -> float:
    """Wait before the next start: none after the first death, then doubling up to the maximum."""
    if failures <= 1:
        return 0.0
    return float(min(timings.backoff_max_s, timings.backoff_first_s * 2 ** min(failures - 2, 16)))


def missing_shares(
    owners: Sequence[frozenset[int]], workers: Sequence[int], *, shared: bool
) -> Mapping[int, tuple[int, ...]]:
    """Return which sockets of one bind each worker must be given.

    owners: for each socket the live workers that accept on it. Afterwards every socket has an owner, and every
    worker a socket; with `shared` every worker has all. Nothing is ever taken away: two workers on one socket
    do no harm, a socket without one leaves connections waiting.
    """
    if shared:
        every = range(len(owners))
        wanted = {worker: tuple(i for i in every if worker not in owners[i]) for worker in workers}
        return {worker: indices for worker, indices in wanted.items() if indices}
    held = {worker: {i for i, own in enumerate(owners) if worker in own} for worker in workers}
    given: dict[int, list[int]] = {worker: [] for worker in workers}
    for index, own in enumerate(owners):
        if workers and not own & held.keys():
            worker = min(workers, key=lambda slot: (len(held[slot]), slot))
            held[worker].add(index)
            given[worker].append(index)
    for worker in workers:
        if not held[worker] and owners:
            index = min(range(len(owners)), key=lambda i: (sum(i in mine for mine in held.values()), i))
            held[worker].add(index)
            given[worker].append(index)
    return {worker: tuple(indices) for worker, indices in given.items() if indices}


def free_slot(taken: Sequence[int], limit: int) -> int | None:
    """Return the lowest row that no live worker uses, None when all are."""
    return next((slot for slot in range(limit) if slot not in taken), None)
