"""The list of rules, for `doctor --list` and docs/doctor.md."""

from collections.abc import Iterator, Sequence

from balancer.control.doctor.finding import Rule
from balancer.control.doctor.rules import RULES, TOPICS

_INTRO = """# What `arv-balance doctor` looks for

Generated from `balancer/control/doctor/rules`. Nothing is changed anywhere: nodes are asked by GET, name servers by
updates without content, files and kernel settings are read. A running balancer is asked for its status; without one
(or with `--offline`) the configuration alone is used. What could not be looked at is listed with the reason and is
not a finding.

The exit code is 0 when there is no error, 1 with at least one (or a warning with `--strict`), 3 when the
configuration cannot be used. `--json` prints a document with the schema `arv-balance/doctor/v1`.
"""


def listing(rules: Sequence[Rule] = RULES) -> Iterator[str]:
    """Yield one line a rule."""
    wide = max(len(rule.name) for rule in rules)
    for rule in rules:
        yield f"{rule.name:<{wide}}  {rule.severity.value:<7}  {rule.looks_at}"


def markdown() -> str:
    """Return docs/doctor.md."""
    parts = [_INTRO]
    for topic in TOPICS:
        parts.append(f"## {topic.name.capitalize().replace('Tls', 'TLS').replace('Dns', 'DNS')}\n")
        for rule in topic.rules:
            parts.append(f"### {rule.name}\n")
            parts.append(f"{rule.looks_at}\n")
            parts.append(f"* Severity: {rule.severity.value}\n* Risk: {rule.risk}\n* Fix: {_code(rule.fix)}\n")
    return "\n".join(parts)


def _code(text: str) -> str:
    return text if "`" in text else f"`{text}`"
