"""What a rule is and what it says: found, or not looked at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from balancer.control.doctor.facts import Facts


class Severity(StrEnum):
    """`error`: requests, data or secrets are at risk now. `warning`: they will be, or it costs."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Found:
    """A hazard. `fix` and `severity` stand in place of the rule's own."""

    subject: str  # what it is about: a node, a file, a setting
    evidence: str
    fix: str = ""
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be looked at, and why."""

    subject: str
    why: str


Result = Iterator[Found | Unseen]
Check = Callable[["Facts"], Result]


@dataclass(frozen=True, slots=True)
class Rule:
    """One hazard. `looks_at`, `risk` and `fix` are sentences for people; docs/doctor.md is made of them."""

    name: str
    topic: str
    severity: Severity
    looks_at: str
    risk: str
    fix: str
    check: Check
    applies: "Callable[[Facts], bool]"


class Topic:
    """The rules of one file. Use it as a decorator of each rule's check.

    `applies`: whether a site has anything of the kind; the report leaves the topic out where it has not.
    """

    def __init__(self, name: str, applies: "Callable[[Facts], bool]" = lambda _: True) -> None:
        self.name = name
        self.applies = applies
        self.rules: list[Rule] = []

    def rule(self, name: str, severity: Severity, *, looks_at: str, risk: str, fix: str) -> Callable[[Check], Check]:
        """Add a rule with the decorated check."""

        def add(check: Check) -> Check:
            self.rules.append(Rule(name, self.name, severity, looks_at, risk, fix, check, self.applies))
            return check

        return add


def unseen(subject: str, why: str) -> Iterator[Unseen]:
    """Yield that one thing was not looked at."""
    yield Unseen(subject, why)
