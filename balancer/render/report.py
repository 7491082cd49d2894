"""The fidelity report: of what a configuration uses, what the engine does alike, nearly alike, or not at all."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from balancer.config.schema import Config
from balancer.render.capabilities import FEATURES
from balancer.render.feature import Cell, Feature, Grade
from balancer.render.settings import SETTINGS


@dataclass(frozen=True, slots=True)
class Report:
    """One engine's answer for one configuration: a cell for every feature that it uses."""

    engine: str
    cells: tuple[tuple[Feature, Cell], ...]
    note: str = ""  # about the version that is rendered for

    @property
    def differing(self) -> tuple[tuple[Feature, Cell], ...]:
        """What is not exact."""
        return tuple(item for item in self.cells if item[1].grade is not Grade.EXACT)

    def summary(self) -> str:
        """Return one line of counts."""
        counts = Counter(cell.grade for _, cell in self.cells)
        return f"{self.engine}: " + ", ".join(f"{counts[grade]} {grade.value}" for grade in Grade)

    def comments(self) -> tuple[str, ...]:
        """Return the lines that stand at the head of a rendered file."""
        note = (self.note,) if self.note else ()
        if not self.differing:
            return (*note, "Everything that the configuration uses behaves as in arv-balance.")
        lines = [f"{cell.grade.value}: {feature.title}: {cell.how}" for feature, cell in self.differing]
        return (*note, "What differs from arv-balance:", *(f"  {line}" for line in lines))

    def text(self) -> list[str]:
        """Return the lines for a person."""
        return [
            *(f"{cell.grade.value:12}  {feature.title}: {cell.how}" for feature, cell in self.differing),
            *([self.note] if self.note else []),
            self.summary(),
        ]

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        features = [
            {"feature": feature.name, "title": feature.title, "fidelity": cell.grade.value, "how": cell.how}
            for feature, cell in self.cells
        ]
        return {"schema": "arv-balance/fidelity/v1", "engine": self.engine, "note": self.note, "features": features}


def report_of(engine: str, config: Config, note: str = "") -> Report:
    """Return the report for the features that this configuration really uses. `note`: about the engine's version."""
    used = (feature for feature in (*FEATURES, *SETTINGS) if feature.used(config))
    return Report(engine, tuple((feature, feature.cell(engine)) for feature in used), note)
