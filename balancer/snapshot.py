"""Snapshots as JSON: what control sends and workers read. Only our own processes are trusted with it."""

import json
import types
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from balancer.errors import WireError
from balancer.model import Snapshot

VERSION = 1


def encode(snapshot: Snapshot) -> bytes:
    """Return the JSON text of `snapshot`."""
    return json.dumps({"version": VERSION, "snapshot": _plain(snapshot)}, separators=(",", ":")).encode()


def decode(data: bytes) -> Snapshot:
    """Return the snapshot in `data`. Raises WireError when it is of another version or shape."""
    try:
        message = json.loads(data)
        if message["version"] != VERSION:
            raise WireError(f"snapshot has version {message['version']}, this program reads {VERSION}")
        value = _value(Snapshot, message["snapshot"])
    except (ValueError, KeyError, TypeError) as exc:
        raise WireError(f"snapshot cannot be read: {exc}") from exc
    if not isinstance(value, Snapshot):
        raise WireError("snapshot is not an object")
    return value


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(kind: Any, data: Any) -> object:
    if data is None:
        return None
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _value(next(arg for arg in get_args(kind) if arg is not types.NoneType), data)
    if origin is tuple:
        args = get_args(kind)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_value(args[0], item) for item in data)
        return tuple(_value(arg, item) for arg, item in zip(args, data, strict=True))
    if is_dataclass(kind):
        hints = _hints(kind) if isinstance(kind, type) else {}
        return kind(**{name: _value(hints[name], item) for name, item in data.items()})  # type: ignore[operator]
    return kind(data)
