"""Whether a node may serve: what probes, live traffic and versions say about it, and the one predicate over all of it.

The counter is HAProxy's: 0 to rise + fall - 1, up from `rise` on; a change of side jumps to that side's end, so `rise`
and `fall` count results in a row. Nothing here ever fails open: what is not known to be healthy takes nothing.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from balancer.model import Admin, Health

STALE_INTERVALS = 3  # a verdict older than this many check intervals is no verdict any more
EJECTION_S = 10.0  # how long a failed connection speaks against a node for the worker that saw it
REFUSED_LIVE_CONNECTS = 2  # in a row, beside a refused check: down at once


class Event(StrEnum):
    """What the counter and the versions together say after a check."""

    UP = "up"  # the counter is at `rise` or above, and the version agrees
    UP_BUT_DIFFERS = "up-but-differs"  # ... but version or schema differ while mixed versions are not allowed
    DOWN = "down"  # the counter is below `rise`


TRANSITIONS: dict[Health, dict[Event, Health]] = {
    state: {Event.UP: Health.HEALTHY, Event.UP_BUT_DIFFERS: Health.MISMATCHED, Event.DOWN: Health.UNHEALTHY}
    for state in Health
}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """`rise` good results in a row bring a node up, `fall` bad ones down; both at least 1."""

    rise: int = 2
    fall: int = 3


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """All that is known of one node. Start with the default: nobody has looked yet."""

    health: Health = Health.CHECKING
    counter: int = 0
    differs: bool = False
    check_refused: bool = False  # the newest active check found the port closed
    live_refused: int = 0  # live connects refused since one last worked


def after_check(node: NodeHealth, limits: Thresholds, *, passed: bool, refused: bool = False) -> NodeHealth:
    """Return the state after an active check. `refused`: it failed because the connection was refused.

    The first verdict needs one check only: requests wait for it.
    """
    if node.health is Health.CHECKING:
        counter = limits.rise + limits.fall - 1 if passed else 0
    else:
        counter = _count(node.counter, limits, passed=passed)
        if passed and counter == node.counter and not (node.check_refused or node.live_refused):
            return _judged(node, limits)  # one good check more: nearly all are
    node = replace(
        node, counter=counter, check_refused=refused and not passed, live_refused=0 if passed else node.live_refused
    )
    return _judged(_down_if_nobody_listens(node), limits)


def after_look(node: NodeHealth, limits: Thresholds, *, passed: bool) -> NodeHealth:
    """Return the state after the check that ends a pause: what was known is of before, so one failure is enough."""
    return after_check(node if passed else replace(node, counter=0), limits, passed=passed)


def after_connects(node: NodeHealth, limits: Thresholds, *, refused: int, worked: bool) -> NodeHealth:
    """Return the state after live connects: `refused` more in a row, or `worked`: one of them got through meanwhile."""
    node = replace(node, live_refused=refused if worked else node.live_refused + refused)
    return node if node.health is Health.CHECKING else _judged(_down_if_nobody_listens(node), limits)


def after_version(node: NodeHealth, limits: Thresholds, *, differs: bool) -> NodeHealth:
    """Return the state once it is known whether the node's version differs from the others' where it must not.

    Pass False while a version is unknown: unreadable is not mismatched.
    """
    node = replace(node, differs=differs)
    return node if node.health is Health.CHECKING else _judged(node, limits)


def _count(counter: int, limits: Thresholds, *, passed: bool) -> int:
    if passed:
        counter += 1
        return limits.rise + limits.fall - 1 if counter >= limits.rise else counter
    counter -= 1
    return counter if counter >= limits.rise else 0


def _down_if_nobody_listens(node: NodeHealth) -> NodeHealth:
    """A closed port seen by a check *and* by live traffic is no passing weakness: do not wait for `fall`."""
    if node.check_refused and node.live_refused >= REFUSED_LIVE_CONNECTS:
        return replace(node, counter=0)
    return node


def _judged(node: NodeHealth, limits: Thresholds) -> NodeHealth:
    up = Event.UP_BUT_DIFFERS if node.differs else Event.UP
    event = up if node.counter >= limits.rise else Event.DOWN
    health = TRANSITIONS[node.health][event]
    return node if node.health is health else replace(node, health=health)


def in_transition(node: NodeHealth, limits: Thresholds) -> bool:
    """True while checks have begun to point the other way, or nobody has looked yet: then they come faster."""
    return node.health is Health.CHECKING or node.counter not in (0, limits.rise + limits.fall - 1)


def verdict_is_stale(now: float, verdict_at: float, interval: float) -> bool:
    """True when whoever gives verdicts has fallen silent. All three in one unit (s or ns)."""
    return now - verdict_at > STALE_INTERVALS * interval


def ejects(*, refused: bool, stale: bool) -> bool:
    """Whether a worker ejects a node whose connection just failed: refused, or else reset or broken off.

    A closed port is beyond doubt; a reset is not, and counts only when nobody else judges the node any more.
    """
    return refused or stale


def is_ejected(now_s: float, failed_at_s: float | None, verdict_at_s: float) -> bool:
    """True while a failed connection of this worker speaks against a node; None: there was none.

    For ten seconds, or until a verdict that is newer: that one is worth more.
    """
    return failed_at_s is not None and now_s - failed_at_s < EJECTION_S and verdict_at_s <= failed_at_s


def available(admin: Admin, health: Health, *, ejected: bool = False) -> bool:
    """Whether a node takes new exchanges (as far as it is under capacity, see `balancer.core.claims`).

    A stale verdict stands as long as nothing speaks against it; one that was not "healthy" stays: silence is no
    recovery.
    """
    return admin is Admin.ENABLED and health is Health.HEALTHY and not ejected


def unavailable_because(admin: Admin, health: Health, *, ejected: bool = False) -> str | None:
    """Return in words why `available` says no, or None when it says yes."""
    if available(admin, health, ejected=ejected):
        return None
    if admin is not Admin.ENABLED:
        return f"it is {admin.value}"
    if health is Health.HEALTHY:
        return f"a connection failed less than {EJECTION_S:g} s ago and no check has spoken since"
    return {
        Health.CHECKING: "its first check is not over",
        Health.UNHEALTHY: "its checks fail",
        Health.MISMATCHED: "its version differs from the others'",
    }[health]
