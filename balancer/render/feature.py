"""What the capability matrix is made of: a feature, and how near each engine comes to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from balancer.config.schema import Config


class Grade(StrEnum):
    """How near an engine comes."""

    EXACT = "exact"
    APPROXIMATED = "approximated"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Cell:
    """One engine and one feature. `how`: how it is approximated, or what to do instead; empty when exact."""

    grade: Grade
    how: str = ""


EVERYWHERE = ("haproxy", "nginx", "envoy", "traefik", "caddy")
EXACT = Cell(Grade.EXACT)


def near(how: str) -> Cell:
    """An approximation."""
    return Cell(Grade.APPROXIMATED, how)


def no(instead: str) -> Cell:
    """What the engine cannot do, and what to do instead."""
    return Cell(Grade.IMPOSSIBLE, instead)


@dataclass(frozen=True, slots=True)
class Feature:
    """One line of the matrix.

    `used`: whether a configuration asks for it at all. `keys`: the keys of the file that it is about; a key that an
    engine's file does not show has to be in a feature that says so.
    """

    name: str
    title: str
    used: Callable[[Config], bool] = lambda _: True
    cells: Mapping[str, Cell] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    def cell(self, engine: str) -> Cell:
        """Return an engine's cell."""
        return self.cells.get(engine, EXACT)

    def is_about(self, path: str) -> bool:
        """Whether a key of the file, as `listen[].tls.cert`, is one of its keys or below one."""
        return any(path == key or path.startswith((f"{key}.", f"{key}[")) for key in self.keys)
