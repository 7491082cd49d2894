"""Keeps secrets out of what is shown: a secret that was written into the file by mistake, and its neighbours."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache

from balancer.config.errors import Loc, Span
from balancer.config.loader import Document

MASK = "***"
_SHORTEST = 4
_WORDS = ("token", "secret", "password", "passwd", "credential", "tsig", "dsn", "private", "database")
_SAFE = frozenset({"file", "env", "credential", "arvados", "name", "role", "algorithm", "tokens", "redact"})
_IN_URL = re.compile(r"(?<=://)[^\s/@]+@")
_INLINE = re.compile(
    rf"""(?i)(["']?[\w-]*(?:{"|".join(_WORDS)})[\w-]*["']?\s*:\s+)("[^"]*"?|'[^']*'?|[^\s{{}}\[\]#&*|>"'][^,}}\]#]*)"""
)


def is_secret(loc: Loc) -> bool:
    """True when the value at `loc` may be a secret: below a key that speaks of one, and not a place of one."""
    last = next((part for part in reversed(loc) if isinstance(part, str)), None)
    return last not in _SAFE and any(isinstance(part, str) and _speaks_of_one(part) for part in loc)


@lru_cache(maxsize=4096)  # a close match costs 50 us, and the same keys come again
def _speaks_of_one(key: str) -> bool:
    word = key.lower()
    if word in ("redact", "reader_tokens"):
        return False
    return any(sign in word for sign in _WORDS) or bool(get_close_matches(word, _WORDS, n=1, cutoff=0.75))


def masked_lines(document: Document, known: Collection[str]) -> tuple[str, ...]:
    """Return the lines of the file with stars in place of what may be a secret; columns stay as they are.

    `known` are the top-level keys that may be there: below others nothing is shown, because that is another
    program's file, and may be full of secrets.
    """
    lines = [without_credentials(_INLINE.sub(_inline, line)) for line in document.lines]
    for loc, span in document.spans.items():
        is_foreign = len(loc) > 1 and loc[0] not in known
        if is_foreign and loc in document.keys:
            _cover(lines, document.keys[loc])
        if (is_secret(loc) or is_foreign) and not span.is_block and loc not in document.containers:
            _cover(lines, span)
    return tuple(lines)


def _cover(lines: list[str], span: Span) -> None:
    for number in range(span.line, max(span.line, span.line_end) + 1):
        line, start = lines[number - 1], span.column - 1 if number == span.line else 0
        end = span.column_end - 1 if number == span.line and span.line_end <= span.line else len(line)
        lines[number - 1] = line[:start] + "*" * (end - start) + line[end:]


def _stars(found: re.Match[str]) -> str:
    return "*" * (len(found[0]) - 1) + "@"


def _inline(found: re.Match[str]) -> str:
    key = found[1].split(":")[0].strip().strip("\"'")
    return found[0] if key in _SAFE else found[1] + "*" * len(found[2])


def without_credentials(text: str) -> str:
    """Return `text` with stars in place of the credentials of URLs."""
    return _IN_URL.sub(_stars, text)


def masked(text: str, value: object) -> str:
    """Return `text` without `value`, however it was quoted in it. What is shorter than a secret stays readable."""
    shown = str(value)
    if not shown:
        return text
    text = text.replace(repr(shown), repr(MASK))
    return text.replace(shown, MASK) if len(shown) >= _SHORTEST else text
