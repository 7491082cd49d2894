"""Texts with a meaning: durations, sizes, rates, shares, addresses, networks, URLs.

Each is parsed once, by `parse`, and prints itself again in the form that the file uses. A bad text raises
PydanticCustomError of type "text" with the context keys `message` and `hint`.
"""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from balancer import durations

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_DURATION = r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+"
_SIZE = r"\d+(?:B|KiB|MiB|GiB|KB|MB|GB)"
_VARIABLE = r".*\$\{.*"  # the published schema is checked before variables are replaced


def bad(message: str, hint: str = "") -> PydanticCustomError:
    """Return the error of a text that cannot be used."""
    return PydanticCustomError("text", "{message}", {"message": message, "hint": hint})


def lacks_unit(value: object) -> bool:
    """Whether `value` is a number to which nothing is lacking but a unit."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def spelled(value: object) -> str:
    """Return `value` as a person would name it in a message: its kind, and the value when it is short."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value!r}" if len(value) <= 40 else "a text"
        case dict():
            return "a mapping"
        case _:
            return "a list"


class Text(ABC):
    """What all of them share: strict about being text, printed as text, a pattern in the JSON Schema."""

    _pattern = ".*"
    _example = ""
    _noun = "a text"

    @classmethod
    @abstractmethod
    def parse(cls, value: object) -> Self:
        """Return the value of a text. Raises PydanticCustomError."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._accept, serialization=core_schema.to_string_ser_schema(when_used="always")
        )

    @classmethod
    def _accept(cls, value: object) -> Self:
        return value if isinstance(value, cls) else cls.parse(value)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^(?:{cls._pattern}|{_VARIABLE})$", "examples": [cls._example]}

    @classmethod
    def _text(cls, value: object) -> str:
        if isinstance(value, str):
            return value
        raise bad(f"{spelled(value)} is not {cls._noun}", f"write it as text, such as {cls._example}")


class Duration(Text, float):
    """Seconds, written `500ms`, `30s`, `5m`, `2h`, `1h30m`."""

    _pattern, _example, _noun = _DURATION, "30s", "a duration"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the duration in seconds."""
        if lacks_unit(value):
            raise bad(f"{value} has no unit", f"write {value}s for seconds, or {value}ms for milliseconds")
        text = cls._text(value)
        try:
            return cls(durations.parse(text))
        except ValueError:
            hint = "write a number and a unit: 500ms, 30s, 5m, 2h or 1h30m"
            raise bad(f"{text!r} is not a duration", hint) from None

    def __str__(self) -> str:
        if not self:
            return "0s"
        for unit, seconds in reversed(_UNITS_S.items()):
            if unit != "d" and abs(self / seconds - round(self / seconds)) < 1e-9 and self >= seconds:
                return f"{round(self / seconds)}{unit}"
        return f"{float(self):g}s" if self >= 1 else f"{self * 1000:g}ms"

    __repr__ = __str__


class Size(Text, int):
    """Bytes, written `512B`, `64KiB`, `128MiB`, `2GiB` (or decimal: `64KB`, `1MB`)."""

    _pattern, _example, _noun = _SIZE, "64KiB", "a size"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the size in bytes."""
        if lacks_unit(value):
            raise bad(f"{value} has no unit", f"write {value}B for bytes, or use KiB, MiB, GiB")
        text = cls._text(value)
        found = re.fullmatch(r"(\d+)(B|KiB|MiB|GiB|KB|MB|GB)", text)
        if not found:
            raise bad(f"{text!r} is not a size", "write a whole number and a unit: 512B, 64KiB, 128MiB or 2GiB")
        return cls(int(found[1]) * _SIZES[found[2]])

    def __str__(self) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % _SIZES[unit] == 0:
                return f"{self // _SIZES[unit]}{unit}"
        return f"{int(self)}B"

    __repr__ = __str__


class Rate(Text, float):
    """Things per second, written `200/s` or `30/m`."""

    _pattern, _example, _noun = r"\d+(?:\.\d+)?/(?:s|m|h)", "200/s", "a rate"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the rate per second."""
        if lacks_unit(value):
            raise bad(f"{value} has no unit", f"write {value}/s")
        text = cls._text(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)/(s|m|h)", text)
        if not found:
            raise bad(f"{text!r} is not a rate", "write a number and a unit of time: 200/s or 30/m")
        return cls(float(found[1]) / _UNITS_S[found[2]])

    def __str__(self) -> str:
        return f"{float(self):g}/s" if self >= 1 or not self else f"{self * 60:g}/m"

    __repr__ = __str__


class ByteRate(Text, int):
    """Bytes per second, written `240B/s` or `1KiB/s`."""

    _pattern, _example, _noun = _SIZE + "/s", "240B/s", "a rate in bytes"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return bytes per second."""
        if lacks_unit(value):
            raise bad(f"{value} has no unit", f"write {value}B/s")
        text = cls._text(value)
        if not re.fullmatch(_SIZE + "/s", text):
            raise bad(f"{text!r} is not a rate in bytes", "write a size a second: 240B/s or 1KiB/s")
        return cls(Size.parse(text[:-2]))

    def __str__(self) -> str:
        return f"{Size(self)}/s"

    __repr__ = __str__


class Share(Text, float):
    """A part of a whole, written `20%`; the value is 0.2."""

    _pattern, _example, _noun = r"\d+(?:\.\d+)?%", "20%", "a share"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the share between 0 and 1."""
        if lacks_unit(value):
            raise bad(f"{value} is not a share", "write it in percent, such as 20%")
        text = cls._text(value)
        if not re.fullmatch(r"\d+(?:\.\d+)?%", text) or float(text[:-1]) > 100:
            raise bad(f"{text!r} is not a share", "write 0% to 100%")
        return cls(float(text[:-1]) / 100)

    def __str__(self) -> str:
        return f"{self * 100:g}%"

    __repr__ = __str__


class Workers(Text, int):
    """How many worker processes: a number, or `auto` (0 here) for one a CPU core."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the number of workers, 0 for auto."""
        if value == "auto":
            return cls(0)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 64:
            return cls(value)
        raise bad(f"{spelled(value)} is not a number of workers", "write auto, or a number from 1 to 64")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        shown = core_schema.plain_serializer_function_ser_schema(lambda value: int(value) or "auto")
        return core_schema.no_info_plain_validator_function(cls._accept, serialization=shown)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 64}]}

    def __str__(self) -> str:
        return str(int(self)) if self else "auto"

    __repr__ = __str__


def within(low: str, high: str) -> Any:
    """Return the annotation that keeps a duration, size or rate between two texts, both included."""

    def check(value: Any) -> Any:
        kind = type(value)
        if not kind.parse(low) <= value <= kind.parse(high):
            raise bad(f"{value} is out of range", f"write {low} to {high}")
        return value

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class _Like:
    """Annotation that keeps a text to a pattern, with our own words when it does not."""

    pattern: str
    noun: str
    hint: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the inner schema with the check behind it."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the inner schema with the pattern."""
        return {**handler(schema), "pattern": f"^(?:{self.pattern}|{_VARIABLE})$"}

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise bad(f"{value!r} is not {self.noun}", self.hint)
        return value


def _regex(value: str) -> str:
    try:
        re.compile(value.encode("ascii"))  # workers match bytes
    except re.error as exc:
        raise bad(f"{value!r} is not a regular expression: {exc}", "quote backslashes: '...' keeps them") from None
    except UnicodeEncodeError:
        raise bad(f"{value!r} is not a regular expression over ASCII", "write \\x.. for other bytes") from None
    return value


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
Name = Annotated[str, _Like(NAME, "a name", "use up to 63 letters, digits, dots, dashes and underscores")]
HeaderName = Annotated[
    str, _Like(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", "a header name", "use letters, digits and dashes")
]
Method = Annotated[str, _Like(r"[A-Z]{1,20}", "a method", "write it in capitals: GET")]
AbsolutePath = Annotated[str, _Like(r"/[^\x00]*", "an absolute path", "begin with /")]
LogPath = Annotated[str, _Like(r"-|/[^\x00]+", "a log file", "write an absolute path, or - for standard output")]
UrlPath = Annotated[str, _Like(r"/[\x21-\x7e]*", "a path", "begin with / and percent-encode other than ASCII")]
RouteHost = Annotated[
    str, _Like(r"(?:\*\.)?[a-z0-9.:\[\]_-]+", "a host", "write it in lower case without a port, or *.example.org")
]
HostName = Annotated[str, _Like(r"[A-Za-z0-9._:\[\]-]{1,255}", "a host name", "write a name or an address")]
CertName = Annotated[str, _Like(r"(?:\*\.)?[A-Za-z0-9._:-]{1,255}", "a server name", "write a name, or *.example.org")]
ParameterName = Annotated[
    str, _Like(r"[A-Za-z0-9_.~-]{1,64}", "a parameter name", "use letters, digits, _, -, . and ~")
]
Token = Annotated[str, _Like(r"[a-z0-9-]{1,32}", "a protocol token", "write it in lower case: websocket")]
Regex = Annotated[str, AfterValidator(_regex)]
