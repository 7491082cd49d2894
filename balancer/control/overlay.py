"""Intents in the shape in which the configuration takes them."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from balancer.config.overlay import AddedNode, Holder, NodeIntent, Overlay
from balancer.control.intents import Intent, Intents, Kind
from balancer.core import drain
from balancer.model import Admin, Pause


def overlay(
    intents: Intents,
    *,
    done: Collection[str],
    holders: Mapping[str, Holder],
    monotonic: Callable[[datetime], float],
) -> Overlay:
    """Return what is laid over the file.

    done: draining nodes that have nothing in flight any more. monotonic: wall clock to CLOCK_MONOTONIC seconds.
    """
    names = {item.node for item in intents if item.node}
    nodes = {name: _node(intents, name, is_done=name in done) for name in names}
    pause = intents.get(Kind.PAUSE)
    return Overlay(nodes=nodes, holders=holders, pause=_pause(pause, monotonic) if pause else None)


def admin_of(intents: Intents, name: str, *, is_done: bool) -> Admin:
    """Return what people decided about a node."""
    return drain.admin(
        is_drained=intents.get(Kind.DRAIN, name) is not None,
        is_removed=intents.get(Kind.REMOVE, name) is not None,
        is_empty=is_done,
    )


def release_rate(intents: Intents) -> float | None:
    """Return the rate at which an operator lets parked requests go, None for the configured one."""
    rate = intents.get(Kind.RATE)
    return float(rate.settings["per_s"]) if rate else None


def _node(intents: Intents, name: str, *, is_done: bool) -> NodeIntent:
    admin = admin_of(intents, name, is_done=is_done)
    added, weight = intents.get(Kind.ADD, name), intents.get(Kind.WEIGHT, name)
    return NodeIntent(
        added=AddedNode(**added.settings) if added else None,
        admin=None if admin is Admin.ENABLED else admin,
        weight=int(weight.settings["weight"]) if weight else None,
    )


def _pause(intent: Intent, monotonic: Callable[[datetime], float]) -> Pause:
    until = float("inf") if intent.until is None else monotonic(intent.until)
    return Pause(until=until, reason=intent.reason)
