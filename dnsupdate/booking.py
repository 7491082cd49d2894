"""What a sender takes from the tables and what it books there: values only, `dnsupdate.store` reads and writes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dnsupdate.host import Host, from_facts
from dnsupdate.plan import Conflict, Key
from dnsupdate.records import Contribution

ORPHAN = "orphan:"
Triple = tuple[str, str, str]  # zone, name, type


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send to a target. `epoch` is the number of its fence."""

    target: str
    holder: str
    epoch: int
    seconds: float


class Due(NamedTuple):
    """A host that is to be looked at. `host` is None for a name that has no host."""

    uuid: str
    gen: int
    released: bool
    attempts: int
    host: Host | None

    @property
    def orphan(self) -> Triple | None:
        """The zone, name and comma-separated types of a name that has our marker and no host."""
        if not self.uuid.startswith(ORPHAN):
            return None
        zone, name, types = self.uuid.removeprefix(ORPHAN).split("/")
        return zone, name, types


@dataclass(frozen=True, slots=True)
class Known:
    """What the tables say about names."""

    published: tuple[Contribution, ...]
    unsure: frozenset[Triple]
    adopted: frozenset[Key]
    published_hosts: int
    held_hosts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What became of a batch; written in one transaction.

    `settled` was unsure before; `sending` are the notes of its messages, of which all is known now.
    """

    contributions: Mapping[Key, tuple[Contribution, ...]]
    settled: frozenset[Triple]
    sending: tuple[int, ...] = ()
    had: frozenset[Key] = frozenset()  # names that the table has something of
    done: tuple[Due, ...] = ()
    failed: Mapping[str, tuple[str, str]] | None = None  # uuid to (state, error)
    batch: tuple[Due, ...] = ()
    robbed: tuple[Conflict, ...] = ()
    adopted: frozenset[Key] = frozenset()
    frees: bool = False
    traces: tuple["Trace", ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether there are only new names, and nothing that went wrong: one statement books that."""
        special = self.settled or self.failed or self.robbed or self.adopted or self.frees
        return not special and self.had.isdisjoint(self.contributions)


@dataclass(frozen=True, slots=True)
class Trace:
    """One answered message, for `dns trace`."""

    zone: str
    hosts: tuple[str, ...]
    message_id: int
    seconds: float
    rcode: str


def dues_of(rows: Sequence[Any]) -> list[Due]:
    """Return the hosts in the rows of a query for what is due."""
    texts = ",".join([row["facts"] or "null" for row in rows])
    return [
        Due(row["node_uuid"], row["dirty_gen"], row["released"], row["attempts"], _host(row, facts))
        for row, facts in zip(rows, json.loads(f"[{texts}]"), strict=True)
        if row["node_uuid"] is not None
    ]


def _host(row: Any, facts: Any) -> Host | None:
    if facts is None:
        return None
    return from_facts(row["node_uuid"], facts, gen=row["gen"], removed=row["removed"], missing=row["missing"])
