"""One word for a node and one for the cluster, out of the axes that the rules work with."""

from enum import StrEnum

from balancer.model import Admin, Health

STATES = ("checking", "healthy", "unhealthy", "mismatched", "draining", "drained", "removed")


class Verdict(StrEnum):
    """The cluster in one word."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    PAUSED = "paused"
    DOWN = "down"


def state(admin: Admin, health: Health) -> str:
    """Return a node's state: what people decided, and if they decided nothing what checks say."""
    return health.name.lower() if admin is Admin.ENABLED else admin.value


def is_serving(admin: Admin, health: Health) -> bool:
    """Return whether a node takes new exchanges, as far as it is under its capacity."""
    return admin is Admin.ENABLED and health is Health.HEALTHY


def verdict(*, serving: int, troubled: int, min_serving: int, paused: bool) -> Verdict:
    """Return the cluster's word. `troubled`: enabled nodes that do not serve; drained ones are nobody's trouble."""
    if paused:
        return Verdict.PAUSED
    if serving == 0:
        return Verdict.DOWN
    return Verdict.DEGRADED if troubled or serving < min_serving else Verdict.HEALTHY
