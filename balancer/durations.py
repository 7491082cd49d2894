"""Spans of time as people write and read them."""

import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse(text: str) -> float:
    """Return seconds of `90s`, `5m`, `1h30m`. Raises ValueError with what to write instead."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration: write 500ms, 30s, 5m, 2h or 1h30m")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def spell(seconds: float) -> str:
    """Return a span in at most two units: `850ms`, `41s`, `2m10s`, `3h5m`, `12d`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    if seconds < 10 and seconds % 1 >= 0.05:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit, size, below in (("d", 86400, "h"), ("h", 3600, "m"), ("m", 60, "s")):
        if whole >= size:
            rest = whole % size // int(_UNITS_S[below])
            return f"{whole // size}{unit}" + (
                f"{rest}{below}" if rest and not (unit == "d" and whole >= 864000) else ""
            )
    return f"{whole}s"
