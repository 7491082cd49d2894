"""Our own words for each kind of error that the schema finds."""

import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from balancer.config.errors import Fault, Loc, did_you_mean
from balancer.config.inventory import Inventory, Node
from balancer.config.scalars import spelled
from balancer.config.schema import Config
from balancer.config.section import Secret

Error = Mapping[str, Any]

# What the schema calls the two forms of `nodes` in its locations.
_FORMS: Mapping[Loc, Any] = {("<inventory>",): Inventory, ("<nodes>",): dict[str, Node]}

_KINDS = {
    "int_type": ("a whole number", "such as 3"),
    "float_type": ("a number", "such as 0.5"),
    "bool_type": ("true or false", "write true or false, without quotes"),
    "string_type": ("a text", "put quotes around it"),
    "tuple_type": ("a list", ""),
    "dict_type": ("a mapping", ""),
    "model_type": ("a mapping", ""),
    "int_from_float": ("a whole number", ""),
}


def fault(error: Error, root: type[BaseModel] = Config) -> Fault:
    """Return the fault of one pydantic error (`ValidationError.errors()`) of a file whose schema is `root`."""
    tagged, at_key = _tagged(error)
    loc = _plain(tagged)
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            known = known_keys(tagged[:-1], root)
            near, far = did_you_mean(loc[-1], known, likeness=0.8), did_you_mean(loc[-1], known)
            hint = near or _belongs(loc[-1], root) or far or f"known keys: {', '.join(known)}"
            if loc[-1] == "<<":
                hint = "YAML 1.2 merges no mappings: write its keys here"
            meant = [(*loc[:-1], key) for key in known if hint == f"did you mean '{key}'?"]
            return Fault(loc, f"unknown key '{loc[-1]}'", hint, at_key=True, meant=meant[0] if meant else ())
        case "missing":
            return Fault(loc, f"missing key '{loc[-1]}'", _example(tagged, root), at_key=True)
        case "literal_error":
            known = _choices(tagged, root)
            message = f"{spelled(value)} is not one of {', '.join(known)}"
            if isinstance(value, str):
                message = f"'{value}' is not one of {', '.join(known)}"
            return Fault(loc, message, did_you_mean(value, known) or f"write {' or '.join(known)}")
        case "text":
            return Fault(loc, context["message"], context["hint"], at_key=at_key)
        case _ if kind in _KINDS:
            return _wrong_kind(loc, tagged, (kind, value), root)
        case _:
            return Fault(loc, f"{spelled(value)} cannot be used: {error['msg']}", at_key=at_key)


def _wrong_kind(loc: Loc, tagged: Loc, found: tuple[str, object], root: type[BaseModel]) -> Fault:
    kind, value = found
    noun, hint = _KINDS[kind]
    if value is None:
        return Fault(loc, f"is empty, expected {noun}", "give it a value or remove the line", at_key=True)
    target = _model(_kind_at(tagged, root))
    if target is not None and issubclass(target, Secret):
        where = "write {file: /path}, {env: NAME} or {credential: NAME}"
        return Fault(loc, "a secret cannot stand in the file; say where it is kept", where)
    if kind in ("tuple_type", "dict_type", "model_type"):
        return Fault(loc, f"expected {noun}, got {_noun(value)}", _form(tagged, kind, value, root))
    if kind in ("int_type", "float_type") and isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        hint = "remove the quotes"
    helps = isinstance(value, str) or kind == "string_type"
    return Fault(loc, f"expected {noun}, got {spelled(value)}", hint if helps else "")


def _noun(value: object) -> str:
    """The kind of a value, without the value: it stands in the line that is shown, masked where it has to be."""
    nouns: Mapping[type, str] = {
        str: "a text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        dict: "a mapping",
    }
    return nouns.get(type(value), "a list")


def _form(tagged: Loc, kind: str, value: object, root: type[BaseModel]) -> str:
    """How to write a list or a mapping at a place."""
    keys = known_keys(tagged, root)
    if kind == "tuple_type":
        return "begin each item with a dash" if isinstance(value, dict) else "put it in brackets: [...]"
    if kind == "dict_type" and isinstance(value, tuple):
        return "give each a name instead of a dash, such as api1: {...}"
    if keys and isinstance(value, str | int | float):
        return f"such as {{{keys[0]}: ...}}" + (f"; keys: {', '.join(keys)}" if len(keys) > 1 else "")
    return f"keys: {', '.join(keys)}" if keys else ""


def location(error: Error) -> Loc:
    """Return where in the file the error is."""
    return _plain(_tagged(error)[0])


def _tagged(error: Error) -> tuple[Loc, bool]:
    """The location in the schema, which has the form of `nodes` in it, and whether the key itself is wrong."""
    loc: Loc = tuple(error["loc"])
    at_key = loc[-1:] == ("[key]",) and error["type"] not in ("extra_forbidden", "missing")
    return (loc[:-1] if at_key else loc), at_key


def _plain(tagged: Loc) -> Loc:
    return (*tagged[:1], *tagged[2:]) if tagged[:1] == ("nodes",) and tagged[1:2] in _FORMS else tagged


def known_keys(tagged: Loc, root: type[BaseModel] = Config) -> list[str]:
    """Return the keys that the mapping at a location may have."""
    model = _model(_kind_at(tagged, root))
    return [field.alias or name for name, field in model.model_fields.items()] if model is not None else []


def _belongs(key: str | int, root: type[BaseModel]) -> str:
    """Where a key that is at the wrong level belongs."""
    owners = [owner for owner in known_keys((), root) if key in known_keys((owner,), root)]
    return f"it belongs under {' or '.join(owners)}" if owners else ""


def _example(tagged: Loc, root: type[BaseModel]) -> str:
    model = _model(_kind_at(tagged[:-1], root))
    if model is None:
        return ""
    field = next((f for name, f in model.model_fields.items() if (f.alias or name) == tagged[-1]), None)
    example = getattr(next(iter(_alternatives(field.annotation)), None), "_example", "") if field else ""
    return f"such as {tagged[-1]}: {example}" if example else ""


def _kind_at(tagged: Loc, root: type[BaseModel]) -> Any:
    kind: Any = root
    for index, part in enumerate(tagged):
        if index == 1 and (part,) in _FORMS and tagged[0] == "nodes":
            kind = _FORMS[part,]
            continue
        kind = next((step for option in _alternatives(kind) if (step := _step(option, part)) is not None), None)
        if kind is None:
            return None
    return kind


def _alternatives(kind: Any) -> Iterator[Any]:
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _alternatives(get_args(kind)[0])
    elif origin in (Union, UnionType):
        for option in get_args(kind):
            yield from _alternatives(option)
    elif kind is not type(None):
        yield kind


def _step(kind: Any, part: str | int) -> Any:
    origin = get_origin(kind)
    if origin is dict:
        return get_args(kind)[1]
    if origin is tuple:
        return get_args(kind)[0] if isinstance(part, int) else None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if (field.alias or name) == part:
                return field.annotation
    return None


def _model(kind: Any) -> type[BaseModel] | None:
    for option in _alternatives(kind):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _choices(tagged: Loc, root: type[BaseModel]) -> list[str]:
    for option in _alternatives(_kind_at(tagged, root)):
        if get_origin(option) is Literal:
            return [str(choice) for choice in get_args(option)]
    return []
