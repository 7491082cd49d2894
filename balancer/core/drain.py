"""Ending exchanges politely: what people decided about a node, what still runs, when it is over.

Used for a node (`nodes drain`), for a pause, and for a whole worker at its stop.
"""

from dataclasses import dataclass
from enum import StrEnum

from balancer.model import Admin, Drain


def admin(*, is_drained: bool, is_removed: bool, is_empty: bool) -> Admin:
    """Return the state of a node from what people want of it and whether anything is in flight there.

    A removed node is drained first, and counts as removed once it is empty.
    """
    if not is_drained and not is_removed:
        return Admin.ENABLED
    if not is_empty:
        return Admin.DRAINING
    return Admin.REMOVED if is_removed else Admin.DRAINED


@dataclass(frozen=True, slots=True)
class Remaining:
    """What still runs, over all workers. Tunnels are not among the exchanges."""

    exchanges: int
    tunnels: int

    def __bool__(self) -> bool:
        return bool(self.exchanges or self.tunnels)

    def __str__(self) -> str:
        parts = [
            f"{count} {word}{'s' if count != 1 else ''}"
            for count, word in ((self.exchanges, "exchange"), (self.tunnels, "tunnel"))
            if count
        ]
        return " and ".join(parts) or "nothing"


class StepKind(StrEnum):
    """What to do now."""

    DONE = "done"
    WAIT = "wait"
    CLOSE_TUNNELS = "close-tunnels"  # WebSocket Close 1001 or half-close; they may still end by themselves
    CUT = "cut"  # end everything that is left
    GIVE_UP = "give-up"  # nothing may be cut: name what is left and undo


@dataclass(frozen=True, slots=True)
class Step:
    """`again_in_s`: when the answer changes by time alone; None: only when something ends."""

    kind: StepKind
    reason: str
    again_in_s: float | None = None


def decide(remaining: Remaining, drain: Drain, elapsed_s: float, *, may_cut: bool, tunnels_closed: bool) -> Step:
    """Return the next step of a drain that began `elapsed_s` ago.

    Args:
        remaining: what runs now.
        drain: the limits; `timeout_s` 0: wait without end.
        elapsed_s: since it began.
        may_cut: exchanges older than the timeout may be ended by force.
        tunnels_closed: CLOSE_TUNNELS was carried out already.
    """
    if not remaining:
        return Step(StepKind.DONE, "nothing is in flight")
    if drain.timeout_s and elapsed_s >= drain.timeout_s:
        if may_cut:
            return Step(StepKind.CUT, f"{remaining} left after {drain.timeout_s:g} s")
        return Step(StepKind.GIVE_UP, f"{remaining} left after {drain.timeout_s:g} s, and nothing may be cut")
    left_s = drain.timeout_s - elapsed_s if drain.timeout_s else None
    if remaining.tunnels and not tunnels_closed:
        grace_left_s = drain.tunnel_grace_s - elapsed_s
        if grace_left_s <= 0:
            return Step(StepKind.CLOSE_TUNNELS, f"{Remaining(0, remaining.tunnels)} outlived the grace", left_s)
        left_s = grace_left_s if left_s is None else min(grace_left_s, left_s)
    return Step(StepKind.WAIT, f"{remaining} in flight", left_s)
