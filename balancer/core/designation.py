"""Who is the designated node: ordered fail-over with a memory, and an epoch that only grows.

The decision is made once and remembered; it changes only for a reason, and each change has a new epoch, so that whoever
acts on an older one can be told apart (a fence). With several balancers the highest epoch that anybody decided is asked
first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

HOLD_DOWN_S = 10.0  # a node that flaps must not make the designation flap


@dataclass(frozen=True, slots=True)
class Policy:
    """How the designation moves. `failover`, `failback`: by itself, or by people only."""

    order: tuple[str, ...]
    automatic_failover: bool = True
    automatic_failback: bool = False
    hold_down_s: float = HOLD_DOWN_S


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a node can serve, and since when it could or could not (monotonic seconds).

    deliberate: it cannot because people said so (draining, drained, removed): no need to wait whether it comes back.
    """

    available: bool
    since_s: float
    deliberate: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """The remembered decision. `node` None: there was none yet. The first epoch is 1."""

    node: str | None = None
    epoch: int = 0


class Kind(StrEnum):
    """What a decision amounts to."""

    KEEP = "keep"
    MOVE = "move"
    WAIT = "wait"  # nobody can hold it; requests for it wait
    CATCH_UP = "catch-up"  # another balancer decided since: take its decision over before making one


@dataclass(frozen=True, slots=True)
class Decision:
    """`holder` is what holds from now on; with MOVE it has to be remembered before it is acted on.

    `again_in_s`: when the answer may change by time alone.
    """

    kind: Kind
    holder: Holder
    reason: str
    again_in_s: float | None = None


def decide(
    policy: Policy, holder: Holder, nodes: Mapping[str, Standing], now_s: float, highest_epoch: int = 0
) -> Decision:
    """Return who holds the designation now.

    Args:
        policy: order and rules.
        holder: the remembered decision.
        nodes: standing by name; a name of the order that is missing cannot serve.
        now_s: monotonic.
        highest_epoch: the highest epoch known to have been decided by anybody.
    """
    if highest_epoch > holder.epoch:
        return Decision(
            Kind.CATCH_UP, holder, f"epoch {highest_epoch} was decided elsewhere, epoch {holder.epoch} is known here"
        )
    first = next((name for name in policy.order if _can_serve(nodes, name)), None)
    if holder.node is None or holder.node not in policy.order:
        return _appoint_first(policy, holder, first)
    if _can_serve(nodes, holder.node):
        return _stay_or_fail_back(policy, holder, nodes, now_s)
    return _fail_over(policy, holder, nodes, now_s, first)


def appoint(holder: Holder, node: str, who: str, highest_epoch: int = 0) -> Decision:
    """Return the decision of a person; `who` stands in the reason. Appointing the holder again changes nothing."""
    if node == holder.node:
        return Decision(Kind.KEEP, holder, f"{node} holds it already")
    return _move(Holder(holder.node, max(holder.epoch, highest_epoch)), node, f"appointed by {who}")


def _can_serve(nodes: Mapping[str, Standing], name: str) -> bool:
    return name in nodes and nodes[name].available


def _move(holder: Holder, node: str, reason: str) -> Decision:
    return Decision(Kind.MOVE, Holder(node, holder.epoch + 1), reason)


def _appoint_first(policy: Policy, holder: Holder, first: str | None) -> Decision:
    why = f"{holder.node} is not in the order any more" if holder.node else "first decision"
    if first is not None:
        return _move(holder, first, f"{why}; {first} is the first of the order that can serve")
    if not policy.automatic_failover and policy.order:
        return _move(holder, policy.order[0], f"{why}; {policy.order[0]} is the first of the order, failover is manual")
    return Decision(Kind.WAIT, holder, f"{why}; no node of the order can serve")


def _stay_or_fail_back(policy: Policy, holder: Holder, nodes: Mapping[str, Standing], now_s: float) -> Decision:
    better = [name for name in policy.order[: policy.order.index(holder.node or "")] if _can_serve(nodes, name)]
    if not better:
        return Decision(Kind.KEEP, holder, f"{holder.node} can serve")
    if not policy.automatic_failback:
        return Decision(Kind.KEEP, holder, f"{holder.node} can serve; {better[0]} stands before it, failback is manual")
    waits = {name: policy.hold_down_s - (now_s - nodes[name].since_s) for name in better}
    steady = next((name for name in better if waits[name] <= 0), None)
    if steady is not None:
        return _move(holder, steady, f"{steady} stands before {holder.node} and is steady again")
    soonest = min(better, key=waits.__getitem__)
    return Decision(Kind.KEEP, holder, f"{soonest} is back, but not yet steady", waits[soonest])


def _fail_over(
    policy: Policy, holder: Holder, nodes: Mapping[str, Standing], now_s: float, first: str | None
) -> Decision:
    if not policy.automatic_failover:
        return Decision(Kind.WAIT, holder, f"{holder.node} cannot serve, failover is manual")
    standing = nodes.get(holder.node or "")
    wait_s = 0.0
    if standing is not None and not standing.deliberate:
        wait_s = policy.hold_down_s - (now_s - standing.since_s)
    if wait_s > 0:
        return Decision(Kind.WAIT, holder, f"{holder.node} cannot serve; it is given time to come back", wait_s)
    if first is None:
        return Decision(Kind.WAIT, holder, f"{holder.node} cannot serve, and no other node of the order can")
    return _move(holder, first, f"{holder.node} cannot serve; {first} is the first of the order that can")
