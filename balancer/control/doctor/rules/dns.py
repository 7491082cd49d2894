"""The DNS side, by the probe of `arv-balance dns test`."""

from balancer.control.doctor.facts import Facts
from balancer.control.doctor.finding import Found, Result, Severity, Topic, unseen

topic = Topic("dns", lambda facts: facts.dns is not None)


@topic.rule(
    "dns",
    Severity.ERROR,
    looks_at="Every DNS target: server, key, clock, rights, zones, transfers, updates without a key, lagging "
    "secondaries. Nothing is written.",
    risk="Hosts get no name, keep an old one, or lose it without anybody noticing.",
    fix="arv-balance dns doctor: prints the server's configuration that mends it",
)
def dns(facts: Facts) -> Result:
    """What the probe says."""
    if facts.dns is None:
        return
    if facts.dns.fault:
        yield from unseen("dns", facts.dns.fault)
    for one in facts.dns.findings:
        severity = Severity.ERROR if one.level == "error" else Severity.WARNING
        yield Found(f"{one.target}: {one.subject}", one.text, one.hint, severity)
