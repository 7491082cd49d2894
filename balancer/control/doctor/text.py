"""Words that several rules use."""

from collections.abc import Iterable, Mapping


def groups(values: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return values with the nodes that have them, the value of most nodes first."""
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        found.setdefault(value, []).append(name)
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[1]))


def split(values: Mapping[str, str], what: str) -> tuple[str, str] | None:
    """Return the nodes that differ from most, and a sentence; None when all are equal."""
    found = groups(values)
    if len(found) < 2:
        return None
    (usual, many), *others = found
    odd = ", ".join(name for _, names in others for name in names)
    each = "; ".join(f"{', '.join(names)}: {value}" for value, names in others)
    return odd, f"{what} {each}; {', '.join(many)}: {usual}"


def listed(items: Iterable[str], most: int = 6) -> str:
    """Return items with commas, the rest of many as a number."""
    names = list(items)
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
