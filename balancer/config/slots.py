"""Slots of the scoreboard: which column a node, listener or route has, kept over reloads."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from balancer.errors import ConfigError
from balancer.model import Snapshot


@dataclass(frozen=True, slots=True)
class Slots:
    """Slots by name, and those of names that are gone (`retired`), so that a name that comes back finds its own."""

    nodes: Mapping[str, int] = field(default_factory=dict)
    listeners: Mapping[str, int] = field(default_factory=dict)
    routes: Mapping[str, int] = field(default_factory=dict)
    retired_nodes: Mapping[str, int] = field(default_factory=dict)
    retired_listeners: Mapping[str, int] = field(default_factory=dict)
    retired_routes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Return the slots that a snapshot uses, for a control process that starts over running workers."""
        return cls(
            nodes={node.name: node.slot for node in snapshot.nodes},
            listeners={listener.bind: listener.slot for listener in snapshot.listeners},
            routes={route.name: route.slot for route in snapshot.routes},
        )


def assign(
    names: Iterable[str],
    current: Mapping[str, int],
    retired: Mapping[str, int],
    *,
    size: int,
    busy: Collection[int] = (),
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the slots of `names` and the retired ones.

    A name keeps its slot, or gets its old one back. A new name gets a slot that nobody had, then one whose name is
    gone and that is not `busy` (exchanges still run in it). Raises ConfigError when there is none.
    """
    wanted = list(names)
    known = {**retired, **current}
    slots = {name: known[name] for name in wanted if name in known}
    gone = {name: slot for name, slot in known.items() if name not in slots}
    taken = set(slots.values())
    free = [slot for slot in range(size) if slot not in taken and slot not in busy and slot not in gone.values()]
    reusable = [(slot, name) for name, slot in gone.items() if slot not in busy and slot not in taken]
    for name in wanted:
        if name in slots:
            continue
        if free:
            slots[name] = free.pop(0)
        elif reusable:
            slots[name], previous = reusable.pop(0)
            del gone[previous]
        else:
            raise ConfigError(f"no slot is free for {name}: {size} are in use, or still end their exchanges")
    return slots, gone
