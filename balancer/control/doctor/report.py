"""Runs the rules over the facts; the result as JSON and as text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from balancer.control.doctor.facts import Facts
from balancer.control.doctor.finding import Found, Rule, Severity, Unseen
from balancer.control.doctor.rules import RULES

SCHEMA = "arv-balance/doctor/v1"
_SIGNS = {Severity.ERROR: ("✗", "bad"), Severity.WARNING: ("▲", "warn")}

Paint = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Finding:
    """A hazard that is there. `fix`: the next command to type, or the line to write."""

    rule: Rule
    severity: Severity
    subject: str
    evidence: str
    fix: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found, and what could not be looked at."""

    findings: tuple[Finding, ...]
    unseen: tuple[tuple[Rule, Unseen], ...]
    rules: tuple[Rule, ...]  # those that apply to this site

    def count(self, severity: Severity) -> int:
        """Return how many findings are of a severity."""
        return sum(finding.severity is severity for finding in self.findings)


def examine(facts: Facts, rules: Sequence[Rule] = RULES) -> Report:
    """Apply every rule."""
    findings, unlooked = [], []
    applied = tuple(rule for rule in rules if rule.applies(facts))
    for rule in applied:
        for result in rule.check(facts):
            match result:
                case Found(subject, evidence, fix, severity):
                    findings.append(Finding(rule, severity or rule.severity, subject, evidence, fix or rule.fix))
                case Unseen():
                    unlooked.append((rule, result))
    return Report(tuple(findings), tuple(unlooked), applied)


def document(report: Report) -> dict[str, object]:
    """Return the JSON form."""
    return {
        "schema": SCHEMA,
        "errors": report.count(Severity.ERROR),
        "warnings": report.count(Severity.WARNING),
        "findings": [
            {
                "rule": one.rule.name,
                "topic": one.rule.topic,
                "severity": one.severity.value,
                "subject": one.subject,
                "evidence": one.evidence,
                "risk": one.rule.risk,
                "fix": one.fix,
            }
            for one in report.findings
        ],
        "not_looked_at": [
            {"rule": rule.name, "topic": rule.topic, "subject": item.subject, "why": item.why}
            for rule, item in report.unseen
        ],
    }


def lines(report: Report, paint: Paint) -> Iterator[str]:
    """Yield the report for people: a line a topic, then each finding with what to do."""
    for topic in dict.fromkeys(rule.topic for rule in report.rules):
        findings = [one for one in report.findings if one.rule.topic == topic]
        unlooked = [item for rule, item in report.unseen if rule.topic == topic]
        if not findings and not unlooked:
            count = sum(rule.topic == topic for rule in report.rules)
            yield f"{topic:<15} {paint('good', '✓')} {count} rule{'s' * (count != 1)}, nothing found"
        for place, one in enumerate(findings):
            sign, style = _SIGNS[one.severity]
            yield f"{topic if not place else '':<15} {paint(style, sign)} {one.subject}: {one.evidence}"
            yield f"{'':<15}   {paint('dim', f'{one.rule.name}: {one.rule.risk}')}"
            yield f"{'':<15}   → {one.fix}"
        for place, item in enumerate(unlooked):
            head = topic if not findings and not place else ""
            yield f"{head:<15} {paint('dim', f'? {item.subject}: not looked at: {item.why}')}"


def summary(report: Report) -> str:
    """Return the last line."""
    errors, warnings = report.count(Severity.ERROR), report.count(Severity.WARNING)
    parts = [f"{errors} error{'s' * (errors != 1)}", f"{warnings} warning{'s' * (warnings != 1)}"]
    return ", ".join([*parts, *([f"{len(report.unseen)} not looked at"] if report.unseen else [])])
