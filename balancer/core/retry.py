"""Whether a failed attempt may be repeated, and where. The only place that decides it.

The rule (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1, and what users of several API servers need):

* once a byte went downstream, never;
* when nothing was sent to the node (refused, TLS failed, a kept connection was already closed): any method;
* otherwise only an idempotent method: repeating a POST or PATCH could apply it twice;
* the request must be complete in our hands: every body byte taken from the client is still held;
* a kept connection that died before the first byte of an answer says nothing about the node: a fresh one to the same
  node, free of charge (at most once a node: a fresh connection is not a kept one);
* everything else goes to a node not tried yet, at most `retries` times, and within a budget unless nothing was sent.

An answer that is malformed or late is never repeated: the node has the request and may be acting on it.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from balancer.model import Retry

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
# A kept connection idle for longer may be closing at the other end: not for a POST. Half of the shortest keep-alive
# that is usual (1 s), because the node counts from when it sent, and on a busy machine the two differ by some 100 ms.
FRESH_IDLE_S = 0.5


class Failure(StrEnum):
    """How an attempt ended without a whole answer. The first three are the words of `retry.on`."""

    CONNECT = "connect"  # refused, unreachable, timed out while connecting, TLS failed
    RESET = "reset"  # closed or reset before the first byte of an answer
    TRUNCATED = "truncated"  # closed or reset inside the answer
    PROTOCOL = "protocol"  # the answer breaks HTTP
    TIMEOUT = "timeout"  # no answer in time


class RetryKind(StrEnum):
    """What to do now."""

    SAME_NODE_FRESH = "same-node-fresh"
    OTHER_NODE = "other-node"
    GIVE_UP = "give-up"


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """The facts about an attempt that just failed.

    sent: a byte of the request may have reached the node (was accepted by the kernel);
    downstream: a byte of an answer went to the client;
    body_held: every body byte taken from the client so far is still held, or there is none;
    reused: it ran on a kept connection that had carried an exchange before;
    retries: OTHER_NODE verdicts of this exchange so far;
    others: there is an available node that this exchange has not tried.
    """

    failure: Failure
    method: bytes
    sent: bool
    downstream: bool = False
    body_held: bool = True
    reused: bool = False
    retries: int = 0
    others: bool = True


@dataclass(frozen=True, slots=True)
class RetryVerdict:
    """`reason` is a clause for people. `costs_budget`: one has to be spent before acting on it, else decide again."""

    kind: RetryKind
    reason: str
    costs_budget: bool = False


def may_use_kept_connection(method: bytes, idle_s: float) -> bool:
    """Whether an exchange may go on a connection that has been idle for `idle_s`.

    A node may be closing it at this moment, and what is not idempotent could not be repeated then.
    """
    return idle_s < FRESH_IDLE_S or method in IDEMPOTENT


def decide(failed: FailedAttempt, policy: Retry, *, budget_left: bool) -> RetryVerdict:
    """Return what to do after `failed`. `budget_left`: nobody has found the budget used up."""
    refusal = _never(failed, policy)
    if refusal is not None:
        return RetryVerdict(RetryKind.GIVE_UP, refusal)
    if failed.reused and failed.failure is Failure.RESET:
        return RetryVerdict(
            RetryKind.SAME_NODE_FRESH, "the kept connection was closed by the node; a fresh one is tried"
        )
    if failed.retries >= policy.retries:
        return RetryVerdict(RetryKind.GIVE_UP, f"all {policy.retries} retries are used")
    if not failed.others:
        return RetryVerdict(RetryKind.GIVE_UP, "no other node is available")
    costs = failed.failure is not Failure.CONNECT
    if costs and not budget_left:
        return RetryVerdict(RetryKind.GIVE_UP, "the retry budget is used up")
    return RetryVerdict(RetryKind.OTHER_NODE, f"{_WHAT[failed.failure]}; {_why_safe(failed)}", costs)


def _never(failed: FailedAttempt, policy: Retry) -> str | None:
    """Why this attempt must not be repeated anywhere, or None."""
    if failed.downstream:
        return "part of the answer is with the client already"
    if failed.failure.value not in policy.on:
        return f"{_WHAT[failed.failure]}, which is not repeated"
    if not failed.body_held:
        return "part of the request body was passed on and is not held any more"
    if failed.sent and failed.method not in IDEMPOTENT:
        method = failed.method.decode("latin-1")
        return f"{method} was sent to the node; repeating it could apply it twice"
    return None


_WHAT = {
    Failure.CONNECT: "no connection to the node",
    Failure.RESET: "the node closed the connection before answering",
    Failure.TRUNCATED: "the node closed the connection inside its answer",
    Failure.PROTOCOL: "the node's answer breaks HTTP",
    Failure.TIMEOUT: "the node did not answer in time",
}


def _why_safe(failed: FailedAttempt) -> str:
    if not failed.sent:
        return "nothing was sent, so another node may take it"
    return f"{failed.method.decode('latin-1')} is idempotent and nothing of an answer is with the client"


@dataclass(slots=True)
class Budget:
    """How many retries the balancer may make: a share of its exchanges in a sliding window, and always `minimum`.

    Stops retries from multiplying the load when all nodes fail. Fed with running totals over all workers, so that an
    exchange without failure costs nothing here, and a worker that starts knows what the others spent.
    """

    ratio: float = 0.2
    window_s: float = 10.0
    minimum: int = 10
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)  # (when, exchanges, retries so far)

    def follow(self, policy: Retry) -> None:
        """Use what the configuration says now."""
        self.ratio, self.window_s, self.minimum = policy.budget_ratio, policy.budget_window_s, policy.budget_min

    def sample(self, now_s: float, accepted: int, spent: int) -> None:
        """Note the running totals; call it about twenty times a window."""
        self._samples.append((now_s, accepted, spent))
        self._forget(now_s)

    def allows(self, now_s: float, accepted: int, spent: int) -> bool:
        """Whether one more retry fits, after so many exchanges and retries so far."""
        self._forget(now_s)
        _, accepted_before, spent_before = self._samples[0] if self._samples else (0.0, 0, 0)
        return spent - spent_before < max(self.minimum, int(self.ratio * (accepted - accepted_before)))

    def _forget(self, now_s: float) -> None:
        """Keep one sample from before the window: its left end."""
        samples, start = self._samples, now_s - self.window_s
        while len(samples) > 1 and samples[1][0] <= start:
            samples.popleft()
