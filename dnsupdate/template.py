"""Templates of operators: sandboxed, strict Jinja2, and the classic `%{name}` files. The one door to Jinja2."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import jinja2
import jinja2.sandbox

from dnsupdate.errors import RenderError
from dnsupdate.names import one_line, shown
from dnsupdate.wording import near


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled template.

    `literal`: there is nothing to fill in. `names`: only plain variables are, `{{ hostname }}.x.`, at the places that
    `pattern` has for them; filling them in here takes a tenth of what Jinja takes, and gives the same.
    """

    template: jinja2.Template
    literal: str | None
    pattern: str = ""
    names: tuple[str, ...] = ()


_CLASSIC = re.compile(r"%(?:%|\{(?P<name>\w+)\}|(?P<bad>.?))", re.DOTALL)
_PLAIN = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_UNKNOWN = re.compile(r"'(\w+)' is undefined")
_FALSE = frozenset({"", "false", "0", "no", "none", "[]", "()", "{}"})
_UNFIT = re.compile(r"""[^ -~]|["'\\]""")
CLASSIC_NAMES = ("hostname", "uuid_prefix", "ip_address", "ptr_domain")


class AddressText(str):
    """An address in a template: its text, with `is_private` and `version`."""

    __slots__ = ()

    @property
    def is_private(self) -> bool:
        """Whether the address is not globally reachable."""
        return ip_address(str(self)).is_private

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_address(str(self)).version


class Engine:
    """Compiles and renders templates; what a template can reach is what it is given and nothing else."""

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self._env = jinja2.sandbox.ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined,
            autoescape=jinja2.select_autoescape(default=False, default_for_string=False),  # record data is not HTML
            keep_trailing_newline=True,
        )
        # dict() and range() stay; what is random or makes namespaces is of no use in a record.
        for name in ("lipsum", "cycler", "joiner", "namespace"):
            self._env.globals.pop(name, None)
        self._env.globals.update({"cidr": cidr, "octet": octet, **functions})

    def compile(self, source: str) -> Compiled:
        """Compile a template.

        Raises:
            RenderError: with the line inside the template.
        """
        try:
            found = self._env.from_string(source)
        except jinja2.TemplateSyntaxError as exc:
            raise RenderError(f"template line {exc.lineno}: {exc.message}") from None
        if "{" not in source:
            return Compiled(found, source)
        parts = _PLAIN.split(source)
        if any("{" in literal or "\r" in literal for literal in parts[::2]):
            return Compiled(found, None)
        return Compiled(found, None, "%s".join(part.replace("%", "%%") for part in parts[::2]), tuple(parts[1::2]))


def render(compiled: Compiled, variables: Mapping[str, Any]) -> str:
    """Render a compiled template.

    Raises:
        RenderError: an unknown variable, or an expression that fails.
    """
    if compiled.literal is not None:
        return compiled.literal
    if compiled.names:
        try:
            return compiled.pattern % tuple([variables[name] for name in compiled.names])
        except KeyError:
            pass  # an unknown one: Jinja says so
    try:
        return compiled.template.render(variables)
    except RenderError:
        raise
    except jinja2.TemplateError as exc:
        text = one_line(exc.message or type(exc).__name__)
        unknown = _UNKNOWN.fullmatch(text)
        hint = near(unknown[1], [*variables, *compiled.template.globals], "") if unknown else ""
        raise RenderError(f"{text}; {hint}" if hint else text) from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as exc:
        raise RenderError(one_line(f"{type(exc).__name__}: {exc}")) from None


class _Table(dict[str, Any]):
    """Entries to be named one by one: the text that Python makes of them all has quotes of its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise RenderError("a table of a host has no text: name one of its entries")


class _List(list[Any]):
    """As a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise RenderError("a list of a host has no text: name one of its entries, or join them")


def fit_for_lines(value: Any, name: str) -> Any:
    """Return a value of a host that others chose, for a file of lines and quotes.

    A text in it that would end a line or a quotation cannot be used: it is undefined, and says why. An entry with such
    a key is left out.
    """
    match value:
        case str() if _UNFIT.search(value):
            return jinja2.StrictUndefined(f"{name} has characters that could end a line or a quotation: {shown(value)}")
        case Mapping():
            return _Table(
                (key, fit_for_lines(one, f"{name}.{key}")) for key, one in value.items() if not _UNFIT.search(key)
            )
        case list() | tuple():
            return _List(fit_for_lines(one, f"{name}[{at}]") for at, one in enumerate(value))
        case _:
            return value


def truth(text: str) -> bool:
    """Return whether a rendered `when` says yes."""
    return text.strip().lower() not in _FALSE


def classic(text: str, variables: Mapping[str, str]) -> str:
    """Fill a classic template: `%{name}` with a known name, `%%` for a percent sign, nothing else.

    Raises:
        RenderError: with the line of the fault.
    """

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None and match["bad"] is None:
            return "%"
        if name in variables:
            return variables[name]
        line = text.count("\n", 0, match.start()) + 1
        known = ", ".join(f"%{{{known}}}" for known in CLASSIC_NAMES)
        raise RenderError(
            f"template line {line}: {shown(match[0])} is not known; write %% for a percent sign, or {known}"
        )

    return _CLASSIC.sub(fill, text)


def is_classic(name: str) -> bool:
    """Return whether a template file is a classic one: all are but `.j2`."""
    return not name.endswith(".j2")


def cidr(ip: str, length: int) -> str:
    """Return the network of an address: `cidr('192.0.2.7', 24)` is `192.0.2.0/24`."""
    return str(ip_network((str(ip), length), strict=False))


def octet(ip: str, index: int) -> int:
    """Return one octet of an IPv4 address; 0 is the first."""
    return ip_address(str(ip)).packed[index]
