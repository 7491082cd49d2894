"""What differs between two configurations: the answer to a reload."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from balancer.config import flat
from balancer.config.errors import Loc
from balancer.config.schema import Config


@dataclass(frozen=True, slots=True)
class Change:
    """One changed key; `old` None: it was not set, `new` None: it is no longer. Secrets are never in them."""

    path: str
    old: object
    new: object

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.path}: {flat.scalar(self.new)}"
        if self.new is None:
            return f"- {self.path}: {flat.scalar(self.old)}"
        return f"~ {self.path}: {flat.scalar(self.old)} -> {flat.scalar(self.new)}"

    def as_json(self) -> dict[str, object]:
        """Return the change for programs."""
        return {"path": self.path, "old": self.old, "new": self.new}


def differences(old: Config, new: Config) -> tuple[Change, ...]:
    """Return the changed keys in the order of the file.

    Items of lists are matched by name, bind or certificate; what is there on one side only is one change.
    """
    return tuple(_between(flat.unmasked(old), flat.unmasked(new), (), ""))


def _between(old: Any, new: Any, loc: Loc, path: str) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _between(old.get(key), new.get(key), (*loc, key), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list) and flat.is_list_of_mappings([*old, *new]):
        was, now = _by_name(old), _by_name(new)
        for name in {**was, **now}:
            yield from _between(was.get(name), now.get(name), (*loc, name), f"{path}[{name}]")
        if list(was) != list(now) and sorted(was) == sorted(now):
            yield Change(f"{path} (order)", list(was), list(now))
    else:
        yield Change(path, *(None if side is None else flat.masked(side, loc) for side in (old, new)))


def _by_name(items: list[Any]) -> dict[str, Any]:
    return {flat.item_name(item, index): item for index, item in enumerate(items)}
