"""What an attribute of a resource is: its name, its kind, its column, and how values of it are read and written."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from apiserver.errors import InvalidError
from apiserver.names import kind_of
from apiserver.times import format_time, parse_time

try:
    import orjson
except ImportError:  # the extra `fast` is not installed, or there is no wheel of it here
    orjson = None  # type: ignore[assignment]

INT32 = 2**31
INT64 = 2**63


class Kind(StrEnum):
    """The letter used in the tables of `apiserver.schema`."""

    STRING = "s"
    TEXT = "t"
    INTEGER = "i"
    BIGINT = "I"
    FLOAT = "f"
    BOOLEAN = "b"
    DATETIME = "d"
    HASH = "H"  # JSON object kept as text: `like` sees its compact text
    ARRAY = "A"  # JSON array kept as text
    JSONB_HASH = "J"
    JSONB_ARRAY = "K"


TEXTS = (Kind.STRING, Kind.TEXT, Kind.HASH, Kind.ARRAY)
JSONB = (Kind.JSONB_HASH, Kind.JSONB_ARRAY)
HASHES = (Kind.HASH, Kind.JSONB_HASH)
ARRAYS = (Kind.ARRAY, Kind.JSONB_ARRAY)
DISCOVERY_TYPES = {
    Kind.STRING: "string",
    Kind.TEXT: "text",
    Kind.INTEGER: "integer",
    Kind.BIGINT: "integer",
    Kind.FLOAT: "float",
    Kind.BOOLEAN: "boolean",
    Kind.DATETIME: "datetime",
    Kind.HASH: "Hash",
    Kind.ARRAY: "Array",
    Kind.JSONB_HASH: "Hash",
    Kind.JSONB_ARRAY: "Array",
}
SQL_TYPES = {
    Kind.INTEGER: "integer",
    Kind.BIGINT: "bigint",
    Kind.FLOAT: "double precision",
    Kind.BOOLEAN: "boolean",
    Kind.DATETIME: "timestamptz",
    Kind.JSONB_HASH: "jsonb",
    Kind.JSONB_ARRAY: "jsonb",
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. `hidden` ones can be written and are never shown, audited, selected or filtered on."""

    name: str
    kind: Kind
    hidden: bool = False
    decode: Callable[[Any], Any] | None = field(init=False, repr=False, compare=False)  # None: shown as it is

    def __post_init__(self) -> None:
        is_json = self.kind in HASHES or self.kind in ARRAYS
        decode = _from_json if is_json else format_time if self.kind is Kind.DATETIME else None
        object.__setattr__(self, "decode", decode)

    @property
    def sql_type(self) -> str:
        """The type of its column."""
        return SQL_TYPES.get(self.kind, "text")

    def from_client(self, value: Any) -> Any:
        """Return what the column takes for a value out of a request.

        Raises:
            InvalidError: the value does not fit the kind.
        """
        if value is None:
            return "{}" if self.kind in HASHES else "[]" if self.kind in ARRAYS else None
        match self.kind:
            case Kind.STRING | Kind.TEXT:
                return _text(self.name, value)
            case Kind.INTEGER:
                return _integer(self.name, value, INT32)
            case Kind.BIGINT:
                return _integer(self.name, value, INT64)
            case Kind.FLOAT:
                return _number(self.name, value)
            case Kind.BOOLEAN:
                return _boolean(self.name, value)
            case Kind.DATETIME:
                return _moment(self.name, value)
            case Kind.HASH | Kind.JSONB_HASH:
                return _json(self.name, value, dict)
            case Kind.ARRAY | Kind.JSONB_ARRAY:
                return _json(self.name, value, list)

    def to_client(self, value: Any) -> Any:
        """Return how a column's value looks in a reply."""
        return value if value is None or self.decode is None else self.decode(value)


def _from_json(text: str) -> Any:
    """Return the value of a column's JSON; most are empty, and need no parser."""
    return {} if text == "{}" else [] if text == "[]" else json.loads(text)


def dumps(value: Any) -> str:
    """Return compact JSON, as it is kept in text columns."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def encoded(value: Any) -> bytes:
    """Return the JSON of `dumps`, for the wire, by the faster encoder where it is there; that spells 1e-05 0.00001."""
    if orjson is not None:
        with suppress(TypeError):  # an integer of more than 64 bits, a key that is no text
            return orjson.dumps(value)
    return dumps(value).encode()


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise InvalidError(f"{name} must be a string, not {_shown(value)}")


def _integer(name: str, value: Any, limit: int) -> int:
    if isinstance(value, str) and value.strip().lstrip("-").isascii() and value.strip().lstrip("-").isdigit():
        value = int(value) if len(value) < 24 else limit
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError(f"{name} must be an integer, not {_shown(value)}")
    if not -limit <= value < limit:
        raise InvalidError(f"{name} is out of range")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidError(f"{name} must be a number, not {_shown(value)}")
    try:
        number = float(value)
    except OverflowError as exc:
        raise InvalidError(f"{name} is out of range") from exc
    if not math.isfinite(number):
        raise InvalidError(f"{name} must be finite")
    return number


def _boolean(name: str, value: Any) -> bool:
    for result, spellings in ((True, (True, "true", "1", 1)), (False, (False, "false", "0", 0))):
        if any(value == spelling and type(value) is type(spelling) for spelling in spellings):
            return result
    raise InvalidError(f"{name} must be true or false, not {_shown(value)}")


def _moment(name: str, value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return parse_time(value)
        except ValueError:
            pass
    raise InvalidError(f"{name} must be a time such as 2026-01-31T12:00:00Z, not {_shown(value)}")


def _json(name: str, value: Any, wanted: type) -> str:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, wanted):
        raise InvalidError(f"{name} must be {'an object' if wanted is dict else 'an array'}")
    try:
        return dumps(value)
    except (ValueError, TypeError, RecursionError) as exc:
        raise InvalidError(f"{name} cannot be written as JSON: {exc}") from exc


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True, slots=True)
class Resource:
    """One class of objects.

    Attributes:
        singular: key of the attributes wrapper in a request, `container_request`.
        table: name of its table and of its path, `container_requests`.
        computed: attributes of replies that are no columns; they may be selected, not filtered on.
        unlisted: columns that a list leaves out unless they are selected.
        kind: `arvados#containerRequest`.
        visible: names of the columns that a reply may hold; `hidden` of those that none holds.
    """

    class_name: str
    singular: str
    table: str
    infix: str
    attributes: Mapping[str, Attribute]
    computed: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()  # never written by clients, without an error
    kind: str = field(init=False)
    visible: tuple[str, ...] = field(init=False)
    hidden: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = self.attributes.items()
        object.__setattr__(self, "kind", kind_of(self.class_name))
        object.__setattr__(self, "visible", tuple(name for name, attribute in names if not attribute.hidden))
        object.__setattr__(self, "hidden", tuple(name for name, attribute in names if attribute.hidden))


def table_of(spec: str, hidden: Iterable[str] = ()) -> dict[str, Attribute]:
    """Return the attributes of a text such as `name:s is_trashed:b`, in its order."""
    hidden = set(hidden)
    pairs = (word.split(":") for word in spec.split())
    return {name: Attribute(name, Kind(kind), name in hidden) for name, kind in pairs}
