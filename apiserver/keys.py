"""Keys of a settings file that mean nothing, and which known ones were meant. Pure."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def unknown(keys: Iterable[str], known: Sequence[str], section: str = "") -> list[str]:
    """Return a fault for each key that is none of the known ones, with the one that was meant.

    What is known is listed once, and only when some key looks like none of it.
    """
    faults, is_listed = [], False
    for key in keys:
        near = next(iter(get_close_matches(key, known, n=1, cutoff=0.6)), "")
        hint = f"; did you mean '{near}'?" if near else ""
        if not near and not is_listed:
            hint, is_listed = f"; known keys: {', '.join(known)}", True
        faults.append(f"{section}.{key}: unknown key{hint}".removeprefix("."))
    return faults
