"""Clocks of the nodes beside ours, as far as whole seconds and the way there let us know."""

from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

from balancer.control.doctor.facts import Facts, NodeFacts, Reply
from balancer.control.doctor.finding import Found, Result, Severity, Topic, Unseen

topic = Topic("clocks")


def offset(replies: Iterable[Reply]) -> tuple[float, float] | None:
    """Return the bounds of a clock's lead over ours in seconds, None when no answer has a Date.

    A Date is cut to whole seconds and was written between question and answer (RFC 9110 section 6.6.1), so each
    answer gives an interval; the truth is in all of them.
    """
    low, high, dated = float("-inf"), float("inf"), False
    for reply in replies:
        try:
            written = parsedate_to_datetime(reply.first("date"))
        except (ValueError, IndexError):
            continue
        at = (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()
        low, high, dated = max(low, at - reply.ended_s), min(high, at + 1.0 - reply.began_s), True
    if not dated:
        return None
    return (low, high) if low <= high else (high, low)  # a clock that was set meanwhile


def _least(bounds: tuple[float, float]) -> float:
    """Return the smallest lead that the bounds allow, negative for a clock that is behind."""
    low, high = bounds
    return low if low > 0 else high if high < 0 else 0.0


@topic.rule(
    "clock-skew",
    Severity.ERROR,
    looks_at="The `Date` of each node's answers beside our clock, the round trip taken off.",
    risk="Tokens, logins, signatures and trash end too early or too late by the node; logs cannot be put in order.",
    fix="run NTP on all hosts: timedatectl set-ntp true",
)
def clock_skew(facts: Facts) -> Result:
    """Our clock is the measure, since it is the only one that sees all."""
    for node in facts.nodes:
        bounds = offset(_answered(node))
        if bounds is None:
            yield Unseen(f"clock of {node.name}", node.reply("health").fault or "its answers have no Date")
            continue
        lead = _least(bounds)
        if abs(lead) > facts.limits.skew_s:
            yield Found(node.name, f"its clock is {abs(lead):.1f} s {'ahead of' if lead > 0 else 'behind'} ours")


def _answered(node: NodeFacts) -> list[Reply]:
    return [reply for reply in node.replies.values() if not reply.fault]
