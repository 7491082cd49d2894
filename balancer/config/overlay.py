"""What operators changed at run time, in the shape in which it is laid over the file.

The control process fills it from its intents; this package never stores it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from balancer.model import Admin, Pause


@dataclass(frozen=True, slots=True)
class AddedNode:
    """A node that is not in the file. `url` as in the file: http, https or unix."""

    url: str
    weight: int = 100
    capacity: int = 0


@dataclass(frozen=True, slots=True)
class NodeIntent:
    """Changes to one node; None leaves what the file says. `added` is ignored for a node of the file."""

    added: AddedNode | None = None
    admin: Admin | None = None
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a designation. `node` None: nobody was chosen yet."""

    node: str | None
    epoch: int


@dataclass(frozen=True, slots=True)
class Overlay:
    """All of it. `pause.until` is CLOCK_MONOTONIC seconds, as in the snapshot."""

    nodes: Mapping[str, NodeIntent] = field(default_factory=dict)
    holders: Mapping[str, Holder] = field(default_factory=dict)
    pause: Pause | None = None


NOTHING = Overlay()
