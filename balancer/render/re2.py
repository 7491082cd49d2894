"""Regular expressions for Go and RE2, which refuse a repetition of more than 1000."""

import re

_MOST = 1000
_REPEATED = re.compile(r"(?P<what>\[\^?\]?(?:\\.|[^\]\\])*\]|\\?[A-Za-z0-9.])\{(?P<low>\d+),(?P<high>\d+)\}")


def bounded(pattern: str) -> str:
    """Return an equal pattern in which a class or character is repeated at most 1000 times at once.

    `[a-z]{1,1024}` becomes `[a-z]{1,1000}[a-z]{0,24}`. What is not of that form stays, for the engine to refuse.
    """
    return _REPEATED.sub(_split, pattern)


def _split(found: "re.Match[str]") -> str:
    what, low, high = found["what"], int(found["low"]), int(found["high"])
    if high <= _MOST:
        return found[0]
    parts = []
    while high > 0:
        step = min(high, _MOST)
        parts.append(f"{what}{{{min(low, step)},{step}}}")
        low, high = max(0, low - step), high - step
    return "".join(parts)


def accept(pattern: str) -> str:
    """Return the pattern for ids without its anchors, which only Python writes with capital letters."""
    return bounded(pattern.removeprefix("\\A").removesuffix("\\Z"))
