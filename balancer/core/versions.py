"""Nodes of different versions do not serve beside each other: which version is the accepted one, and who differs.

The accepted version is remembered. It moves only when every enabled node that answers runs another one, so a single
node that was upgraded by mistake takes nothing, while an upgrade of all of them needs no word to the balancer. What
cannot be read is unknown, and unknown is not different.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a node. `version` "": unknown. `looked_at`: check and version were read since the start."""

    version: str = ""
    enabled: bool = True
    answers: bool = False
    looked_at: bool = True


@dataclass(frozen=True, slots=True)
class Judgement:
    """`remember`: `accepted` is to be kept over restarts from now on. `reason` is set when `accepted` moved."""

    accepted: str
    differing: frozenset[str]
    remember: bool = False
    reason: str = ""


def judge(accepted: str, readings: Mapping[str, Reading], *, allow_mixed: bool = False) -> Judgement:
    """Return the accepted version and the nodes that run another one. `readings` in configured order."""
    voters = {
        name: reading.version
        for name, reading in readings.items()
        if reading.enabled and reading.answers and reading.version
    }
    settled = all(reading.looked_at for reading in readings.values() if reading.enabled)
    chosen, reason = _accepted(accepted, voters, settled=settled)
    remember = chosen != accepted and settled
    differing = frozenset(name for name, reading in readings.items() if chosen and reading.version not in {"", chosen})
    return Judgement(chosen, frozenset() if allow_mixed else differing, remember, reason if remember else "")


def _accepted(accepted: str, voters: Mapping[str, str], *, settled: bool) -> tuple[str, str]:
    if not voters:
        return accepted, ""
    counted = Counter(voters.values())  # keeps the configured order among equals
    version, count = counted.most_common(1)[0]
    if not accepted:
        return version, f"first reading: {count} of {len(voters)} nodes run it"
    if version != accepted and count == len(voters) and settled:
        return version, f"all {count} nodes that answer run it now"
    return accepted, ""
