"""haproxy.cfg as sections of words (configuration manual 2.2: quoting, escaping, comments)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from balancer.errors import ConfigError

_SECTIONS_WORDS = """
global defaults frontend backend listen peers resolvers mailers userlist cache ring program http-errors fcgi-app
log-forward log-profile crt-store traces acme
"""
_SECTIONS = frozenset(_SECTIONS_WORDS.split())


@dataclass(frozen=True, slots=True)
class Line:
    """A line with words. `text` is as it stands in the file, without the space around it."""

    number: int
    text: str
    words: tuple[str, ...]

    @property
    def keyword(self) -> str:
        """Its first word."""
        return self.words[0]


@dataclass(frozen=True, slots=True)
class Part:
    """A section: its kind, its name, its lines."""

    kind: str
    name: str
    head: Line
    lines: list[Line] = field(default_factory=list)


def sections(text: str) -> list[Part]:
    """Return the sections in their order. Raises ConfigError for a file that is no HAProxy configuration."""
    found: list[Part] = []
    for line in _lines(text):
        if line.keyword in _SECTIONS:
            name = line.words[1] if len(line.words) > 1 else ""
            found.append(Part(line.keyword, name, line))
        elif not found:
            raise ConfigError(f"line {line.number}: {line.text!r} stands before the first section of a haproxy.cfg")
        else:
            found[-1].lines.append(line)
    if not found:
        raise ConfigError("it has no section of a haproxy.cfg")
    return found


def _lines(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found = words(line)
        except ValueError as exc:
            raise ConfigError(f"line {number}: {exc}") from None
        if found:
            yield Line(number, line.strip(), tuple(found))


def words(line: str) -> list[str]:
    """Return the words of a line without their quotes. Raises ValueError for a quote that does not end."""
    found: list[str] = []
    word: list[str] | None = None
    quote, position = "", 0
    while position < len(line):
        character = line[position]
        if quote and character == quote:
            quote = ""
        elif character in "'\"" and not quote:
            quote, word = character, word or []
        elif character == "\\" and quote != "'" and position + 1 < len(line):
            position += 1
            following = line[position]
            # Inside double quotes only these are escaped.
            word = [*(word or []), following if not quote or following in '\\"$ ' else "\\" + following]
        elif not quote and character in " \t":
            if word is not None:
                found.append("".join(word))
            word = None
        elif not quote and character == "#":
            break
        else:
            word = word if word is not None else []
            word.append(character)
        position += 1
    if quote:
        raise ValueError(f"the quote {quote} does not end")
    return found if word is None else [*found, "".join(word)]
