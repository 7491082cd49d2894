"""What rules look at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from balancer.config.arvados import Cluster
from balancer.config.errors import Loc
from balancer.config.loader import Document
from balancer.config.schema import Config
from balancer.config.section import Secret
from balancer.config.validation import Validated


@dataclass(frozen=True, slots=True)
class Context:
    """A configuration with its file. `broken` are the locations that already have an error."""

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

    def written(self, *loc: str | int) -> bool:
        """True when the file itself has this key."""
        return loc in self.document.spans

    @property
    def node_names(self) -> list[str]:
        """Names of all nodes, those with errors too."""
        if self.cluster is not None:
            return [node.name for node in self.cluster.nodes]
        raw = self.document.value(("nodes",))
        return [str(name) for name in raw] if isinstance(raw, dict) else []

    @property
    def nodes_known(self) -> bool:
        """False when the nodes could not be read, so that any name may be right."""
        raw = self.document.value(("nodes",))
        is_inventory = isinstance(raw, dict) and isinstance(raw.get("from"), dict)
        return isinstance(raw, dict) and (self.cluster is not None or not is_inventory)

    @property
    def designated_names(self) -> list[str]:
        """Names of all designations, those with errors and those of the preset too."""
        raw = self.document.value(("designated",))
        names = [str(name) for name in raw] if isinstance(raw, dict) else []
        return list(dict.fromkeys([*names, *self.config.designated]))

    def secrets(self) -> Iterator[tuple[Loc, Secret]]:
        """Yield every secret that the file refers to, with its location."""
        config = self.config
        if config.health.token is not None:
            yield ("health", "token"), config.health.token
        if config.state.database is not None:
            yield ("state", "database"), config.state.database
        for name, peer in config.peers.items():
            if peer.token is not None:
                yield ("peers", name, "token"), peer.token
        for loc, token in self.validated.each(("admin", "tokens"), config.admin.tokens):
            yield loc, token.secret
