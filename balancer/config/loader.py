"""YAML with positions: YAML 1.2 core values, the place of each key and value, `${VARIABLES}` after parsing.

The composer is PyYAML's (YAML 1.1 syntax); what a plain scalar means follows YAML 1.2.2 section 10.3, so `off`,
`NO`, `8000:30` and `2026-01-01` stay texts. Sequences become tuples, because settings are never changed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from balancer.config.errors import Fault, Loc, Span

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
MAX_ALIASES = 200
MAX_DEPTH = 50

_TAG = "tag:yaml.org,2002:"
_CORE: tuple[tuple[str, str, str], ...] = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)$", "-+0123456789."),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
)
_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with the plain scalars of YAML 1.2 core."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own name


for _name, _regex, _first in _CORE:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_regex), [c if c != "\0" else "" for c in _first])


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file. `spans` are the values' places, `keys` the keys', both by location.

    `variables` are the values in which `${}` was replaced, `empties` keys with nothing behind them, `containers`
    the mappings and lists.
    """

    path: str
    lines: tuple[str, ...]
    data: object
    spans: Mapping[Loc, Span]
    keys: Mapping[Loc, Span]
    variables: frozenset[Loc] = frozenset()
    empties: frozenset[Loc] = frozenset()
    containers: frozenset[Loc] = frozenset()
    faults: tuple[Fault, ...] = ()

    def place(self, loc: Loc, *, at_key: bool = False) -> Span:
        """Return where to point for `loc`: its key, its value, or the nearest parent that is in the file.

        A block mapping or an empty value is shown by its key, which is where a reader looks.
        """
        for end in range(len(loc), 0, -1):
            here = loc[:end]
            span = self.spans.get(here)
            if span is None:
                continue
            key = self.keys.get(here)
            return key if key is not None and (at_key or end < len(loc) or span.is_block) else span
        return Span(1, 1, 1)

    def value(self, loc: Loc) -> object:
        """Return the value at `loc`, None when there is none."""
        value = self.data
        for part in loc:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, tuple) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def places_below(self, key: str) -> dict[Loc, tuple[int, int]]:
        """Return the (line, column) of each value below a top-level key; of keys under their location and "@key"."""
        places = {loc[1:]: (span.line, span.column) for loc, span in self.spans.items() if loc[:1] == (key,)}
        return places | {
            (*loc[1:], "@key"): (span.line, span.column) for loc, span in self.keys.items() if loc[:1] == (key,)
        }


def parse(text: str, path: str, env: Mapping[str, str]) -> Document:
    """Return the document in `text`. A syntax error gives a document without data and one fault."""
    lines = tuple(text.splitlines())
    if len(text.encode()) > MAX_BYTES:
        return _broken(path, lines, Span(1, 1, 1), f"the file is larger than {MAX_BYTES >> 20} MiB")
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        walk = _Walk(env=env, resolve=loader.resolve)
        data = walk.value(node, ()) if node is not None else {}
    except yaml.MarkedYAMLError as exc:
        return _broken(path, lines, _mark(exc), *_syntax(exc))
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        column = exc.position - (text.rfind("\n", 0, exc.position) + 1) + 1
        return _broken(path, lines, Span(line, column, column + 1), f"the character {exc.character!r} is not allowed")
    except RecursionError:
        return _broken(path, lines, Span(1, 1, 1), "the file is nested too deep")
    except _TooMuchError as exc:
        return _broken(path, lines, exc.span, str(exc), exc.hint)
    finally:
        if loader is not None:
            loader.dispose()
    return Document(
        path=path,
        lines=lines,
        data=data,
        spans=walk.spans,
        keys=walk.keys,
        variables=frozenset(walk.variables),
        empties=frozenset(walk.empties),
        containers=frozenset(walk.containers),
        faults=tuple(walk.faults),
    )


def resolves_to_text(text: str) -> bool:
    """True when a plain scalar of this text is a text, not a number, boolean or null."""
    return not any(re.match(regex, text) for _, regex, _ in _CORE)


def _broken(path: str, lines: tuple[str, ...], span: Span, message: str, hint: str = "") -> Document:
    return Document(path, lines, None, {}, {}, faults=(Fault((), message, hint=hint, span=span),))


def _mark(exc: yaml.MarkedYAMLError) -> Span:
    mark = exc.problem_mark or exc.context_mark
    return Span(mark.line + 1, mark.column + 1, mark.column + 2) if mark else Span(1, 1, 1)


_SYNTAX_HINTS = (
    ("'\\t'", "indent with spaces, not with tabs"),
    ("mapping values are not allowed", "check the indentation; a text with ': ' in it needs quotes"),
    ("expected <block end>", "check the indentation of this line"),
    ("could not find expected ':'", "a key needs a colon and a space behind it"),
    ("'%'", "quote a text that begins with %"),
    ("'@'", "quote a text that begins with @"),
    ("'`'", "quote a text that begins with `"),
    ("expected a single document", "keep one document in the file: remove the second ---"),
    ("undefined alias", "a text that begins with * needs quotes"),
    ("but got '{'", "put quotes around ${...} inside { } and [ ]"),
    ("expected ',' or ']'", "a [ has no matching ]"),
    ("expected ',' or '}'", "a { has no matching }"),
)


def _syntax(exc: yaml.MarkedYAMLError) -> tuple[str, str]:
    problem = " ".join(part for part in (exc.context, exc.problem) if part) or "not YAML"
    hint = next((hint for sign, hint in _SYNTAX_HINTS if sign in problem), "")
    return f"not valid YAML: {problem}", hint


class _TooMuchError(Exception):
    def __init__(self, message: str, span: Span, hint: str = "") -> None:
        super().__init__(message)
        self.span, self.hint = span, hint


@dataclass(slots=True)
class _Walk:
    """Turns composed nodes into values and remembers where each was."""

    env: Mapping[str, str]
    resolve: Callable[[type[Node], str, tuple[bool, bool]], str]
    spans: dict[Loc, Span] = field(default_factory=dict)
    keys: dict[Loc, Span] = field(default_factory=dict)
    variables: set[Loc] = field(default_factory=set)
    empties: set[Loc] = field(default_factory=set)
    containers: set[Loc] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    aliases: int = 0

    def value(self, node: Node, loc: Loc) -> object:
        span = _span(node)
        self._guard(node, loc, span)
        self.spans[loc] = span
        if isinstance(node, ScalarNode):
            if node.style is None and not node.value:
                self.empties.add(loc)
            return self._scalar(node, loc)
        self.containers.add(loc)
        self.open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, loc)
            return tuple(self.value(item, (*loc, index)) for index, item in enumerate(node.value))
        finally:
            self.open.discard(id(node))

    def _guard(self, node: Node, loc: Loc, span: Span) -> None:
        if id(node) in self.open:
            raise _TooMuchError("an alias refers to what it stands in", span)
        if id(node) in self.seen:
            self.aliases += 1
        self.seen.add(id(node))
        if self.aliases > MAX_ALIASES or len(self.spans) > MAX_VALUES or len(loc) > MAX_DEPTH:
            hint = f"at most {MAX_ALIASES} aliases, {MAX_VALUES} values and {MAX_DEPTH} levels are read"
            raise _TooMuchError("the file grows too large when it is read", span, hint)
        kind = node.tag.removeprefix(_TAG)
        if kind not in ("null", "bool", "int", "float", "str", "map", "seq"):
            self.faults.append(Fault(loc, f"the tag {node.tag.replace(_TAG, '!!')!r} is not allowed", span=span))

    def _mapping(self, node: MappingNode, loc: Loc) -> dict[str, object]:
        data: dict[str, object] = {}
        for key_node, value_node in node.value:
            span = _span(key_node)
            if not isinstance(key_node, ScalarNode):
                self.faults.append(Fault(loc, "a key has to be a text", span=span))
                continue
            key = key_node.value
            here = (*loc, key)
            if key in data:
                first = self.keys[here].line
                self.faults.append(Fault(here, f"duplicate key '{key}' (first at line {first})", span=span))
                continue
            self.keys[here] = span
            data[key] = self.value(value_node, here)
        return data

    def _scalar(self, node: ScalarNode, loc: Loc) -> object:
        text: str = node.value
        tag = node.tag
        if "${" in text:
            text = self._interpolated(node, loc)
            if node.style is None:
                tag = self.resolve(ScalarNode, text, (True, False))
        return _core_value(tag.removeprefix(_TAG), text)

    def _interpolated(self, node: ScalarNode, loc: Loc) -> str:
        self.variables.add(loc)

        def replace(found: re.Match[str]) -> str:
            name = found["name"]
            if name is None:
                return "${"
            value = self.env.get(name, "")
            if value or (name in self.env and found["default"] is None):
                return value
            if found["default"] is not None:
                return found["default"]
            span = _span(node)
            if node.style is None and span.width == len(node.value):
                start = span.column + found.start()
                span = Span(span.line, start, start + len(found[0]))
            hint = f"set it, or give a value for when it is not set: ${{{name}:-value}}"
            self.faults.append(Fault(loc, f"the environment variable {name} is not set", hint=hint, span=span))
            return ""

        return _VARIABLE.sub(replace, node.value)


def _span(node: Node) -> Span:
    start, end = node.start_mark, node.end_mark
    is_block = isinstance(node, MappingNode | SequenceNode) and not node.flow_style
    is_empty = isinstance(node, ScalarNode) and start.index == end.index
    column_end = end.column + 1 if end.line == start.line else start.column + 2
    last = end.line if end.column else end.line - 1
    return Span(start.line + 1, start.column + 1, column_end, max(last, start.line) + 1, is_block or is_empty)


def _core_value(kind: str, text: str) -> object:
    try:
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            case "float":
                return float(
                    text.replace(".inf", "inf").replace(".nan", "nan").replace(".Inf", "inf").replace(".NaN", "nan")
                )
            case _:
                return text
    except ValueError:  # an explicit tag on a text that is not of that kind; the schema says what it wants
        return text
