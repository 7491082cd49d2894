"""Keeps secrets out of what is shown: a secret that was written into the file by mistake, and its neighbours."""

import re
from difflib import get_close_matches
from functools import lru_cache

from balancer.config.errors import Loc
from balancer.config.loader import Document

MASK = "***"
_WORDS = ("token", "secret", "password", "passwd", "credential", "tsig", "dsn", "private")
_SAFE = frozenset({"file", "env", "credential", "arvados", "name", "role", "algorithm", "tokens", "redact"})
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


def masked_lines(document: Document) -> tuple[str, ...]:
    """Return the lines of the file with `***` in place of what may be a secret."""
    lines = [_INLINE.sub(_inline, line) for line in document.lines]
    for loc, span in document.spans.items():
        if not is_secret(loc) or span.is_block or loc in document.containers:
            continue
        for number in range(span.line, max(span.line, span.line_end) + 1):
            line, start = document.lines[number - 1], span.column - 1 if number == span.line else 0
            end = span.column_end - 1 if number == span.line and span.line_end <= span.line else len(line)
            lines[number - 1] = line[:start] + MASK.ljust(end - start, "*") + line[end:]
    return tuple(lines)


def _inline(found: re.Match[str]) -> str:
    key = found[1].split(":")[0].strip().strip("\"'")
    return found[0] if key in _SAFE else found[1] + "*" * len(found[2])


def masked(text: str, value: object) -> str:
    """Return `text` without `value`, however it was quoted in it."""
    shown = str(value)
    return text.replace(repr(shown), MASK).replace(shown, MASK) if shown else text
