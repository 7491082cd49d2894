"""Runs the schema, and goes on with what is sound when some of it is not.

So the rules that need a whole configuration also run over a file with faults: what failed is left out and its
default stands in. `Validated.each` gives the locations of the file for lists that became shorter by that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from balancer.config import messages
from balancer.config.errors import Fault, Loc
from balancer.config.schema import Config

T = TypeVar("T")
_ROUNDS = 12  # each leaves out at least one more level; the file's schema is seven levels deep


@dataclass(frozen=True, slots=True)
class Validated:
    """The sound part of a file. `kept`: for lists, the original indexes of what is left."""

    config: Config
    faults: tuple[Fault, ...] = ()
    kept: Mapping[Loc, tuple[int, ...]] = field(default_factory=dict)

    def each(self, loc: Loc, items: Sequence[T]) -> Iterator[tuple[Loc, T]]:
        """Yield the items of the list at `loc` with their location in the file."""
        indexes = self.kept.get(loc, range(len(items)))
        for index, item in zip(indexes, items, strict=False):
            yield (*loc, index), item


def validate(data: Mapping[str, object]) -> Validated:
    """Return the configuration in `data` with all faults that the schema finds."""
    faults: list[Fault] = []
    left_out: set[Loc] = set()
    kept: dict[Loc, tuple[int, ...]] = {}
    sound: Any = data
    for attempt in range(_ROUNDS):
        try:
            return Validated(Config.model_validate(sound), tuple(faults), kept)
        except ValidationError as exc:
            found = exc.errors(include_url=False)
        if attempt == 0:
            faults = [messages.fault(error) for error in found]
        for error in found:
            loc = _original(messages.plain(tuple(error["loc"])), kept)
            left_out.add(loc[:-1] if error["type"] == "missing" else loc)
        kept = {}
        sound = _without(data, (), left_out, kept)
    return Validated(Config(), tuple(faults))


def _original(loc: Loc, kept: Mapping[Loc, tuple[int, ...]]) -> Loc:
    original: Loc = ()
    for part in loc:
        indexes = kept.get(original) if isinstance(part, int) else None
        original = (*original, indexes[part] if indexes is not None and isinstance(part, int) else part)
    return original


def _without(value: object, loc: Loc, left_out: set[Loc], kept: dict[Loc, tuple[int, ...]]) -> object:
    if isinstance(value, dict):
        return {
            key: _without(item, (*loc, key), left_out, kept)
            for key, item in value.items()
            if (*loc, key) not in left_out
        }
    if isinstance(value, tuple):
        indexes = tuple(index for index in range(len(value)) if (*loc, index) not in left_out)
        kept[loc] = indexes
        return tuple(_without(value[index], (*loc, index), left_out, kept) for index in indexes)
    return value
