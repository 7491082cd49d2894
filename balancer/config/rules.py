"""What the schema cannot say: names that must exist, values that must fit together. Errors first, lessons after.

Each rule is a generator over a `Context`; adding one is adding it to a table. Rules see a whole configuration even
when parts of the file are broken (defaults stand in), and ask `sound` before they judge a value.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from balancer.config.arvados import Cluster
from balancer.config.errors import Fault, Loc, did_you_mean
from balancer.config.loader import Document
from balancer.config.schema import Config
from balancer.config.validation import Validated
from balancer.scoreboard import MAX_LISTENERS, MAX_NODES


@dataclass(frozen=True, slots=True)
class Context:
    """What the rules look at. `broken` are the locations that already have an error."""

    config: Config
    document: Document
    validated: Validated
    broken: frozenset[Loc]
    cluster: Cluster | None
    env: Mapping[str, str]
    look_at_files: bool
    now: datetime

    def sound(self, *locs: Loc) -> bool:
        """True when nothing at, above or below these locations has an error."""
        return not any(loc[: len(other)] == other or other[: len(loc)] == loc for loc in locs for other in self.broken)

    @property
    def node_names(self) -> list[str]:
        """Names of all nodes, those with errors too."""
        if self.cluster is not None:
            return [node.name for node in self.cluster.nodes]
        raw = self.document.value(("nodes",))
        return [str(name) for name in raw] if isinstance(raw, dict) else []

    @property
    def nodes_known(self) -> bool:
        """False when an inventory could not be read, so that any name may be right."""
        raw = self.document.value(("nodes",))
        is_inventory = isinstance(raw, dict) and isinstance(raw.get("from"), dict)
        return isinstance(raw, dict) and (self.cluster is not None or not is_inventory)

    @property
    def designated_names(self) -> list[str]:
        """Names of all designations, those with errors and those of the preset too."""
        raw = self.document.value(("designated",))
        names = [str(name) for name in raw] if isinstance(raw, dict) else []
        return list(dict.fromkeys([*names, *self.config.designated]))


Rule = Callable[[Context], Iterable[Fault]]


def errors(context: Context) -> list[Fault]:
    """Return what makes the file unusable."""
    return [fault for rule in ERRORS for fault in rule(context)]


def warnings(context: Context) -> list[Fault]:
    """Return what is allowed and should be known."""
    return [fault for rule in WARNINGS for fault in rule(context)]


def _needed(context: Context) -> Iterator[Fault]:
    config = context.config
    if not config.listen and context.sound(("listen",)):
        yield Fault(("listen",), "nothing to listen on", 'such as listen: [{bind: "0.0.0.0:8080"}]', at_key=True)
    if not config.node_map and not context.node_names and context.sound(("nodes",)):
        yield Fault(("nodes",), "no nodes", 'such as nodes: {api1: {url: "http://10.0.0.11:8003"}}', at_key=True)


def _unknown_node(context: Context, loc: Loc, name: str, *, at_key: bool = False) -> Iterator[Fault]:
    names = context.node_names
    if context.nodes_known and name not in names:
        hint = did_you_mean(name, names) or f"nodes: {', '.join(names)}"
        yield Fault(loc, f"there is no node '{name}'", hint, at_key=at_key)


def _designated_nodes(context: Context) -> Iterator[Fault]:
    for name, designated in context.config.designated.items():
        for loc, node in context.validated.each(("designated", name, "order"), designated.order):
            yield from _unknown_node(context, loc, node)


ERRORS: tuple[Rule, ...] = (_needed, _designated_nodes)
WARNINGS: tuple[Rule, ...] = ()
_USED = (MAX_LISTENERS, MAX_NODES, Iterable)
