"""The schema for machines (JSON Schema) and for people (docs/config.md), both from the sections themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from balancer.config import addresses, flat, presets, scalars
from balancer.config.errors import Loc
from balancer.config.schema import Config
from balancer.config.section import Between
from balancer.config.upgradeplan import Plan

SCHEMA_ID = "urn:arv-balance:config:1"

_NOUNS = {
    scalars.Duration: "duration",
    scalars.Size: "size",
    scalars.Rate: "rate",
    scalars.ByteRate: "bytes a second",
    scalars.Share: "share",
    scalars.Workers: "`auto` or 1 to 64",
    addresses.Network: "network",
    addresses.Bind: "address",
    addresses.NodeUrl: "URL",
    str: "text",
    int: "number",
    float: "number",
    bool: "`true` or `false`",
}

_SECTIONS = {"": "section", "[]": "list of sections", ".NAME": "sections by name"}

_INTRODUCTION = """\
# Configuration

<!-- Written by tools/config_reference.py from balancer/config; do not edit. -->

One YAML file. `arv-balance check` reports all its mistakes at once; `arv-balance config show --origin` prints every
value that is in effect and where it comes from; `arv-balance config schema` prints a JSON Schema for editors (also
[here](arv-balance.schema.json)); `arv-balance reload` (or SIGHUP) takes a changed file over when it is valid, and
answers with what changed.

* **Where it is**: `--config FILE`, then `ARV_BALANCE_CONFIG`, then `./arv-balance.yml`, then
  `/etc/arv-balance/config.yml`.
* **YAML 1.2**: `off`, `no` and `8000:30` are texts. A key that is there twice is an error. Anchors and aliases work;
  merge keys (`<<`) are not YAML 1.2.
* **Durations** are texts with a unit (`500ms`, `30s`, `5m`, `2h`, `1h30m`), so are **sizes** (`512B`, `64KiB`,
  `128MiB`), **rates** (`200/s`, `30/m`) and **shares** (`20%`).
* **Variables**: `${NAME}` in a value is replaced from the environment, `${NAME:-default}` also when it is not set;
  `$${` is a plain `${`. This happens after parsing, so a variable can never add keys. Inside `{ }` and `[ ]` it needs
  quotes.
* **Secrets** never stand in the file: `{file: PATH}` (refused when everyone may read it), `{env: NAME}` or
  `{credential: NAME}` (systemd `LoadCredential=`). They are read again at each reload.
* **Order of precedence**: the file, then its `preset`, then the defaults below. What operators change at run time
  (drains, weights, added nodes, pauses) is kept apart in `state.dir` and is shown by `status`; addresses in the file
  win.

Smallest file: [examples/minimal.yml](../examples/minimal.yml). For Arvados:
[examples/arv-balance.yml](../examples/arv-balance.yml). Every key: [examples/full.yml](../examples/full.yml).
"""

_PLAN_INTRODUCTION = """\
# Upgrade plans

<!-- Written by tools/config_reference.py from balancer/config; do not edit. -->

A YAML file of commands for `arv-balance upgrade run PLAN.yml`, checked like the configuration. A command is a text
(split at its blanks, no shell), a list of words, or a section as below. Plans to start from are in
[examples/upgrade](../examples/upgrade).
"""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file."""
    schema = _without_titles(Config.model_json_schema(by_alias=True))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, "title": "arv-balance"}
    return {**head, **schema}


def _without_titles(value: Any) -> Any:
    # Titles only repeat the keys.
    if isinstance(value, dict):
        return {key: _without_titles(item) for key, item in value.items() if key != "title" or isinstance(item, dict)}
    return [_without_titles(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file: `path` as `listen[].bind` or `nodes.NAME.url`, its section, and what may stand there."""

    path: str
    section: str
    kind: str
    default: str
    description: str
    child: type[BaseModel] | None = None


def keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[Key]:
    """Yield every key that can be set, sections before what is in them."""
    for key in _own_keys(model, prefix):
        yield key
        if key.child is not None:
            yield from keys(key.child, key.path)


def _own_keys(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        own = f"{prefix}.{field.alias or name}" if prefix else field.alias or name
        for suffix, child in _children(field.annotation):
            kind = _SECTIONS[suffix] if child is not None else _kind_of(field.annotation, tuple(field.metadata))
            yield Key(own + suffix, prefix, kind, _default(field), field.description or "", child)


def _children(annotation: Any) -> list[tuple[str, type[BaseModel] | None]]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _children(arguments[0])
    if origin in (Union, UnionType):
        found = [child for option in arguments if option is not type(None) for child in _children(option)]
        return [child for child in found if child[1] is not None] or found[:1]
    if origin is tuple and (child := _children(arguments[0])[0][1]) is not None:
        return [("[]", child)]
    if origin is dict and (child := _children(arguments[1])[0][1]) is not None:
        return [(".NAME", child)]
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [("", annotation if is_section else None)]


def _kind_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    between = next((item for item in metadata if isinstance(item, Between)), None)
    if origin is Annotated:
        return _kind_of(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind_of(item) for item in arguments if item is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return f"list of {_kind_of(arguments[0])}"
    if origin is dict:
        return f"mapping of {_kind_of(arguments[1])}"
    return f"{between.low} to {between.high}" if between else _NOUNS.get(annotation, "any")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.default
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    if value in ((), {}):
        return "none"
    return f"`{value if isinstance(value, scalars.Text) else flat.scalar(value)}`"


def markdown() -> str:
    """Return docs/config.md."""
    return "\n".join([_INTRODUCTION, *_sections(Config), _presets()])


def plan_markdown() -> str:
    """Return docs/upgrade-plan.md."""
    return "\n".join([_PLAN_INTRODUCTION, *_sections(Plan)])


def _sections(model: type[BaseModel]) -> Iterator[str]:
    yield _section("Top level", model.__doc__ or "", list(_own_keys(model, "")))
    for key in keys(model):
        if key.child is not None:
            yield _section(f"`{key.path}`", key.child.__doc__ or "", list(_own_keys(key.child, key.path)))


def _section(title: str, text: str, rows: list[Key]) -> str:
    lines = [f"## {title}", "", text.strip(), "", "| key | kind | default | |", "| --- | --- | --- | --- |"]
    lines += [f"| {_link(row)} | {row.kind} | {row.default} | {row.description} |".replace("\n", " ") for row in rows]
    return "\n".join(lines) + "\n"


def _link(row: Key) -> str:
    name = row.path.removeprefix(f"{row.section}.") if row.section else row.path
    if row.child is None:
        return f"`{name}`"
    anchor = "".join(char for char in row.path.lower() if char.isalnum() or char in "_-")
    return f"[`{name}`](#{anchor})"


def _presets() -> str:
    lines = ["## Preset `arvados`", "", "Set `preset: arvados` and these hold unless the file says otherwise.", ""]
    lines += ["| key | value |", "| --- | --- |"]
    for loc, value in presets.leaves(presets.ARVADOS).items():
        text = "all nodes in their order" if value == {} else f"`{flat.scalar(value)}`"
        lines.append(f"| `{_path(loc)}` | {text} |")
    lines.append("")
    lines.append(
        "With `nodes: {from: {arvados: FILE}}` each node's capacity is the smaller of `API.MaxConcurrentRequests` and "
        "`API.MaxConcurrentRailsRequests` where the file sets them, and the health check sends its `ManagementToken`."
    )
    return "\n".join(lines) + "\n"


def _path(loc: Loc) -> str:
    return ".".join(str(part) for part in loc).replace(".0.", "[].")
