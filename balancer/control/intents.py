"""What operators changed at run time: who, why, since when, until when; on the disk before it takes effect."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from balancer.control.statefile import Document, Loaded, StateFile
from balancer.errors import StateError


class Kind(StrEnum):
    """What an intent changes. A node holds at most one of each kind; `PAUSE` and `RATE` concern all traffic."""

    DRAIN = "drain"
    WEIGHT = "weight"
    ADD = "add"
    REMOVE = "remove"
    PAUSE = "pause"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Intent:
    """One change. `settings`: of ADD the node as the file would hold it, of WEIGHT the weight, of RATE the rate."""

    kind: Kind
    who: str
    at: datetime
    node: str = ""  # "" for all traffic
    reason: str = ""
    until: datetime | None = None  # None until it is undone
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Kind, str]:
        """What a newer intent replaces."""
        return self.kind, self.node


@dataclass(frozen=True, slots=True)
class Intents:
    """All intents that stand; a value: changes give another one."""

    items: tuple[Intent, ...] = ()

    def __iter__(self) -> Iterator[Intent]:
        return iter(self.items)

    def get(self, kind: Kind, node: str = "") -> Intent | None:
        """Return the intent of that kind on that node."""
        return next((item for item in self.items if item.key == (kind, node)), None)

    def of(self, node: str) -> tuple[Intent, ...]:
        """Return the intents on a node."""
        return tuple(item for item in self.items if item.node == node)

    def with_(self, intent: Intent) -> "Intents":
        """Return these with `intent`, in place of one with the same key."""
        return Intents((*(item for item in self.items if item.key != intent.key), intent))

    def without(self, kind: Kind, node: str = "") -> "Intents":
        """Return these without one."""
        return Intents(tuple(item for item in self.items if item.key != (kind, node)))

    def without_node(self, node: str) -> "Intents":
        """Return these with nothing about a node."""
        return Intents(tuple(item for item in self.items if item.node != node))

    def expired(self, now: datetime) -> tuple[Intent, ...]:
        """Return those whose time has passed."""
        return tuple(item for item in self.items if item.until is not None and item.until <= now)

    def next_expiry(self) -> datetime | None:
        """Return when the next one ends by itself."""
        return min((item.until for item in self.items if item.until is not None), default=None)


class IntentStore:
    """The intents on the disk. `current` changes only after `save` has synced them."""

    def __init__(self, file: StateFile) -> None:
        self._file = file
        self.current = Intents()

    def load(self) -> Loaded:
        """Read them; what cannot be read is reported in the answer and leaves none."""
        loaded = self._file.load()
        if loaded.document is None:
            return loaded
        try:
            self.current = from_document(loaded.document)
        except StateError as exc:
            return Loaded(None, f"{self._file.path}: {exc}")
        return loaded

    async def save(self, intents: Intents) -> None:
        """Write and sync, then make them current. Raises StateError when the disk refuses; nothing has changed then."""
        await asyncio.to_thread(self._file.save, to_document(intents))
        self.current = intents


def to_document(intents: Intents) -> Document:
    """Return the JSON form."""
    return {"intents": [intent_document(item) for item in intents]}


def intent_document(intent: Intent) -> Document:
    """Return the JSON form of one; the same on the disk and in the admin API."""
    return {
        "kind": intent.kind.value,
        "node": intent.node,
        "who": intent.who,
        "at": intent.at.isoformat(),
        "reason": intent.reason,
        "until": intent.until.isoformat() if intent.until else None,
        "settings": dict(intent.settings),
    }


def from_document(document: Document) -> Intents:
    """Return the intents in a document. Raises StateError when it does not hold any."""
    try:
        return Intents(tuple(_intent(item) for item in document["intents"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise StateError(f"holds no intents: {exc}") from exc


def _intent(item: Document) -> Intent:
    until = item["until"]
    intent = Intent(
        kind=Kind(item["kind"]),
        who=str(item["who"]),
        at=datetime.fromisoformat(item["at"]),
        node=str(item["node"]),
        reason=str(item["reason"]),
        until=datetime.fromisoformat(until) if until else None,
        settings=dict(item["settings"]),
    )
    if intent.at.tzinfo is None or (intent.until is not None and intent.until.tzinfo is None):
        raise ValueError("a time without its zone")
    return intent
