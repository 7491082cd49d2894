"""The rules by topic; the order here is the order of the report."""

from balancer.control.doctor.finding import Rule
from balancer.control.doctor.rules import (
    clocks,
    configuration,
    designation,
    dns,
    machine,
    nodes,
    peers,
    permissions,
    sameness,
    tls,
    work,
)

TOPICS = (
    configuration.topic,
    nodes.topic,
    sameness.topic,
    clocks.topic,
    tls.topic,
    designation.topic,
    dns.topic,
    work.topic,
    machine.topic,
    permissions.topic,
    peers.topic,
)
RULES: tuple[Rule, ...] = tuple(rule for topic in TOPICS for rule in topic.rules)
