"""Runs the schema, and goes on with what is sound when some of it is not.

So the rules that need a whole configuration also run over a file with faults: what failed is left out and its
default stands in, or a value of ours where there is no default. `Validated.each` gives the locations of the file for
lists that became shorter by that.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from balancer.config import messages
from balancer.config.errors import Fault, Loc
from balancer.config.schema import Config

T = TypeVar("T")
_ROUNDS = 12  # each leaves out at least one more level; the file's schema is seven levels deep

# What stands in for a required key, so that the rest of its item is still judged. Each is valid and like no other.
STAND_INS: Mapping[str, Callable[[str], object]] = {
    "bind": lambda unique: f"unix:/stand-in/{unique}",
    "url": lambda unique: f"unix:/stand-in/{unique}",
    "cert": lambda unique: f"/stand-in/{unique}",
    "arvados": lambda unique: f"/stand-in/{unique}",
    "name": lambda unique: f"stand-in-{unique}",
    "role": lambda _: "viewer",
    "match": lambda _: {},
}


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
    sound = _Sound()
    rest: Any = data
    for attempt in range(_ROUNDS):
        try:
            return Validated(Config.model_validate(rest), tuple(faults), sound.kept)
        except ValidationError as exc:
            found = exc.errors(include_url=False)
        if attempt == 0:
            faults = [messages.fault(error) for error in found]
        for error in found:
            sound.note(messages.location(error), is_missing=error["type"] == "missing")
        rest = sound.of(data)
    return Validated(Config(), tuple(faults))


@dataclass(slots=True)
class _Sound:
    """What to leave out and what to put in its place, by location in the file."""

    left_out: set[Loc] = field(default_factory=set)
    missing: dict[Loc, list[str]] = field(default_factory=dict)
    kept: dict[Loc, tuple[int, ...]] = field(default_factory=dict)

    def note(self, found: Loc, *, is_missing: bool) -> None:
        loc = self._original(found)
        key = loc[-1] if loc else ""
        if not is_missing:
            self.left_out.add(loc)
        elif isinstance(key, str) and key in STAND_INS and key not in self.missing.get(loc[:-1], ()):
            self.missing.setdefault(loc[:-1], []).append(key)
        else:
            self.left_out.add(loc[:-1])

    def of(self, data: object) -> object:
        self.kept = {}
        return self._rest(data, ())

    def _original(self, loc: Loc) -> Loc:
        original: Loc = ()
        for part in loc:
            indexes = self.kept.get(original) if isinstance(part, int) else None
            original = (*original, indexes[part] if indexes is not None and isinstance(part, int) else part)
        return original

    def _rest(self, value: object, loc: Loc) -> object:
        if isinstance(value, dict):
            rest = {
                key: self._rest(item, (*loc, key)) for key, item in value.items() if (*loc, key) not in self.left_out
            }
            for key in self.missing.get(loc, ()):
                rest[key] = STAND_INS[key]("-".join(map(str, loc)))
            return rest
        if isinstance(value, tuple):
            indexes = tuple(index for index in range(len(value)) if (*loc, index) not in self.left_out)
            self.kept[loc] = indexes
            return tuple(self._rest(value[index], (*loc, index)) for index in indexes)
        return value
