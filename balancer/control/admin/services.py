"""What the handlers of the admin API work with, and how they read what was sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from balancer.control.actions import NodeActions
from balancer.control.admin.access import Caller
from balancer.control.admin.problem import ProblemError
from balancer.control.designations import DesignationKeeper
from balancer.control.events import EventLog
from balancer.control.explain import Asked
from balancer.control.pauses import Pauses
from balancer.control.publisher import Publisher
from balancer.control.reload import Reader
from balancer.control.site import Site
from balancer.control.status import Status
from balancer.control.upgrade.upgrades import Upgrades
from balancer.durations import parse
from balancer.observe.series import Series

Document = dict[str, Any]

CODE_S = 300.0  # a code for the dashboard is good for so long
MAX_SECONDS = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers work with.

    `metrics` gives the exposition for an Accept field: body and content type; `login_code` a code for the dashboard.
    """

    site: Site
    status: Status
    actions: NodeActions
    pauses: Pauses
    upgrades: Upgrades
    designations: DesignationKeeper
    events: EventLog
    reader: Reader
    publisher: Publisher
    explain: Callable[[Asked], Document]
    metrics: Callable[[str], tuple[bytes, str]]
    series: Series
    login_code: Callable[[Caller], str]


def text(body: Mapping[str, Any], name: str) -> str:
    """Return a text of a body, "" when it is not there. Raises ProblemError."""
    value = body.get(name) or ""
    if not isinstance(value, str) or len(value) > 500:
        raise ProblemError(400, f"{name} has to be a text of at most 500 characters")
    return value


def seconds_of(body: Mapping[str, Any], name: str) -> float | None:
    """Return a span of a body (seconds, or `2h`), None when it is not there. Raises ProblemError."""
    value = body.get(name)
    if value is None:
        return None
    try:
        seconds = parse(value) if isinstance(value, str) else float(value)
    except (ValueError, TypeError, OverflowError) as exc:
        raise ProblemError(400, f"{name} is not a duration", why=str(exc)) from exc
    if not 0 < seconds <= MAX_SECONDS:
        raise ProblemError(400, f"{name} has to be more than 0 and at most a year")
    return seconds


def number(query: Mapping[str, str], name: str, default: int) -> int:
    """Return a number of a query. Raises ProblemError."""
    try:
        value = int(query.get(name, default))
    except ValueError as exc:
        raise ProblemError(400, f"{name} has to be a number") from exc
    if not 0 <= value <= 1 << 53:
        raise ProblemError(400, f"{name} is out of range")
    return value
