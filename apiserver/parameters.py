"""The parameters of a request, out of the query, a form or a JSON body, brought to their types by one table."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from apiserver.errors import BadRequestError, InvalidError

BOOLEANS = frozenset({
    "distinct", "ensure_unique_name", "include_trash", "include_old_versions", "redirect_to_new_user",
    "send_notification_email", "bypass_federation", "recursive", "exclude_home_project", "no_forward", "async",
    "assign_slot",
})  # fmt: skip
COMMA_LISTS = frozenset({"order", "include", "select"})
JSON_PARAMETERS = COMMA_LISTS | {"filters", "where", "scopes", "reader_tokens", "replace_files", "replace_segments"}
FORM = "application/x-www-form-urlencoded"
MAX_DEPTH = 200
MAX_PARAMETERS = 2000
_INTERNAL = frozenset({"api_token", "oauth_token", "reader_tokens", "_method", "alt", "key", "fields"})


def from_pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs of a query string or a form.

    Raises:
        BadRequestError: it is not one.
    """
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except (ValueError, UnicodeDecodeError) as exc:
        raise BadRequestError(f"the query or form cannot be read: {exc}") from exc


def from_json(body: bytes) -> dict[str, Any]:
    """Return the object in a JSON body; an empty body is an empty object.

    Raises:
        BadRequestError: it is not JSON, or no object.
    """
    if not body.strip():
        return {}
    try:
        found = json.loads(body)
    except (ValueError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequestError(f"the body is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise BadRequestError("the body must be a JSON object")
    return found


def normalise(pairs: Iterable[tuple[str, Any]], wrappers: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return parameters by name, each as its type; the last of equal names counts.

    Text of a list, object or wrapper parameter is JSON; the empty text and `null` mean "not given".

    Raises:
        BadRequestError: text that must be JSON is not.
        InvalidError: a value holds what no database text can hold, or is nested too deeply.
    """
    parameters: dict[str, Any] = {}
    for name, raw in pairs:
        value = _typed(name, raw, is_json=name in JSON_PARAMETERS or name in wrappers)
        check_text(name)
        check_text(value)
        if value is None:
            parameters.pop(name, None)
        else:
            parameters[name] = value
    return parameters


def _typed(name: str, value: Any, *, is_json: bool) -> Any:
    if isinstance(value, str):
        if value in ("", "null"):
            return None
        if is_json and value.lstrip()[:1] in ("[", "{", '"'):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as exc:
                raise BadRequestError(f"{name} is not JSON: {exc}") from exc
    if name in BOOLEANS:
        return _flag(value)
    if name in COMMA_LISTS and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if name in ("limit", "offset"):
        return _count(name, value)
    return value


def _flag(value: Any) -> bool:
    return value not in (None, False, 0, "", "false", "0")


def _count(name: str, value: Any) -> int:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 40:
        value = int(value)
    if name == "limit" and value in (-1, "-1"):
        return -1
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidError(f"{name} must be a non-negative integer")
    return value


def check_text(value: Any, depth: int = 0) -> None:
    """Raise InvalidError when a value holds NUL, a lone surrogate, a non-finite number, or is nested too deeply."""
    if isinstance(value, str):
        if "\x00" in value:
            raise InvalidError("a value contains a NUL character")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise InvalidError("a value contains a lone surrogate")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidError("a number is not finite")
    elif isinstance(value, Mapping | list):
        if depth > MAX_DEPTH:
            raise InvalidError("a value is nested too deeply")
        for item in value if isinstance(value, list) else [*value, *value.values()]:
            check_text(item, depth + 1)


def attributes_of(parameters: Mapping[str, Any], wrapper: str, known: Iterable[str]) -> dict[str, Any]:
    """Return the attributes of a create or update: the wrapper's, or all that is no parameter.

    Raises:
        InvalidError: the wrapper holds something else than an object.
    """
    if wrapper in parameters:
        found = parameters[wrapper]
        if not isinstance(found, dict):
            raise InvalidError(f"{wrapper} must be an object with attributes")
        return dict(found)
    known = {*known, *_INTERNAL, "uuid"}
    return {name: value for name, value in parameters.items() if name not in known}


def bearer_tokens(header: str | None) -> list[str]:
    """Return the tokens of an Authorization header: Bearer, OAuth2, or the password of Basic."""
    scheme, _, rest = (header or "").strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() in ("bearer", "oauth2"):
        return [rest] if rest else []
    if scheme.lower() == "basic":
        try:
            _, _, password = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return []
        return [password] if password else []
    return []


def reader_tokens(value: Any) -> tuple[str, ...]:
    """Return the reader tokens of a request: an array, or JSON text that holds one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    if not isinstance(value, list) or len(value) >= 100:
        return ()
    return tuple(token for token in value if isinstance(token, str))
