"""A configuration as single values with their paths, and as YAML: for `show`, `diff` and the answer to a reload."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from balancer.config import masking
from balancer.config.errors import Loc
from balancer.config.loader import resolves_to_text
from balancer.config.schema import Config

# What tells the items of a list apart; others are told apart by their place.
_KEYS = ("name", "bind", "cert")
_PLAIN = re.compile(r"[A-Za-z0-9/._-][A-Za-z0-9/._%+-]*")
_NOT_PLAIN = re.compile(r"(?i)(?:y|n|yes|no|on|off)|[.-].*")  # other readers follow YAML 1.1


@dataclass(frozen=True, slots=True)
class Value:
    """One value. `loc` has list indexes, `path` the names of the items: `routes[node-ping].park`."""

    loc: Loc
    path: str
    value: object


def plain(config: Config) -> dict[str, Any]:
    """Return the configuration as JSON can hold it: units as text, unset keys left out, secrets of `dns:` masked."""
    return {key: masked(value, (key,)) for key, value in unmasked(config).items()}


def unmasked(config: Config) -> dict[str, Any]:
    """Return the same with what stands under `dns:`, for comparing alone."""
    data: dict[str, Any] = _set(config.model_dump(mode="json", by_alias=True), ())
    return data


def _set(value: Any, loc: Loc) -> Any:
    if isinstance(value, dict):
        # A header of a match without a value means that it has to be present; elsewhere None is "not set".
        is_match = loc[-1:] == ("headers",)
        return {key: _set(item, (*loc, key)) for key, item in value.items() if item is not None or is_match}
    return [_set(item, (*loc, index)) for index, item in enumerate(value)] if isinstance(value, list) else value


def masked(value: Any, loc: Loc) -> Any:
    """Return the value at `loc` with stars in place of secrets. Only under `dns:` can there be any."""
    if loc[0] != "dns":
        return value
    if isinstance(value, dict):
        return {key: masked(item, (*loc, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, (*loc, index)) for index, item in enumerate(value)]
    return masking.MASK if masking.is_secret(loc) else value


def values(data: object, loc: Loc = (), path: str = "") -> Iterator[Value]:
    """Yield what is neither a mapping nor a list of mappings, in the order of the schema."""
    if isinstance(data, dict) and data:
        for key, item in data.items():
            yield from values(item, (*loc, key), f"{path}.{key}" if path else str(key))
    elif isinstance(data, list) and is_list_of_mappings(data):
        for index, item in enumerate(data):
            yield from values(item, (*loc, index), f"{path}[{item_name(item, index)}]")
    else:
        yield Value(loc, path, data)


def item_name(item: Any, index: int) -> str:
    """Return what tells an item of a list from the others."""
    return str(next((item[key] for key in _KEYS if key in item), index))


def is_list_of_mappings(data: Any) -> bool:
    """True for a list whose items have keys of their own."""
    return isinstance(data, list) and any(isinstance(item, dict) for item in data)


def as_yaml(data: dict[str, Any], comment: Callable[[Loc], str] | None = None) -> str:
    """Return the data as YAML. `comment` gives what stands behind a value, "" for nothing."""
    lines = list(_lines(data, (), 0))
    if comment is None:
        return "".join(f"{text}\n" for text, _ in lines)
    width = min(60, max((len(text) for text, loc in lines if loc is not None), default=0))
    notes = (comment(loc) if loc is not None else "" for _, loc in lines)
    return "".join(
        f"{text:{width}}  # {note}\n" if note else f"{text}\n" for (text, _), note in zip(lines, notes, strict=True)
    )


def _lines(data: Any, loc: Loc, depth: int) -> Iterator[tuple[str, Loc | None]]:
    pad = "  " * depth
    for key, item in data.items():
        here, name = (*loc, key), scalar(key)
        if isinstance(item, dict) and item:
            yield f"{pad}{name}:", None
            yield from _lines(item, here, depth + 1)
        elif is_list_of_mappings(item):
            yield f"{pad}{name}:", None
            for index, entry in enumerate(item):
                first, *rest = _lines(entry, (*here, index), depth + 2)
                yield f"{pad}  - {first[0].strip()}", first[1]
                yield from rest
        else:
            yield f"{pad}{name}: {scalar(item)}", here


def scalar(value: Any) -> str:
    """Return a value on one line, so that every YAML reader takes it for the same."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(scalar(item) for item in value)}]"
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and not _NOT_PLAIN.fullmatch(value) and resolves_to_text(value)
        return value if is_plain else _quoted(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    # JSON's own escapes of astral characters are surrogate pairs, which YAML does not join again.
    escaped = (char if char.isprintable() and char not in '"\\' else _escape(ord(char)) for char in text)
    return f'"{"".join(escaped)}"'.replace("${", "$${")


def _escape(code: int) -> str:
    if code < 0x100:
        return {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x09: "\\t"}.get(code, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
