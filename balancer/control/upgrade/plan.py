"""From a plan and the nodes that there are to steps, and to what each step executes."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from balancer.config.errors import did_you_mean
from balancer.control.upgrade.machine import Do, Step
from balancer.errors import ConfigError

if TYPE_CHECKING:
    from balancer.config.upgradeplan import Command, Plan


@dataclass(frozen=True, slots=True)
class Target:
    """A node as commands know it."""

    name: str
    host: str
    url: str


@dataclass(frozen=True, slots=True)
class Order:
    """What to execute. `database`: where the DSN for the advisory lock is kept, as `{"file": "/path"}`."""

    arguments: tuple[str, ...]
    timeout_s: float
    database: Mapping[str, str] | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"arguments": list(self.arguments), "timeout_s": self.timeout_s, "database": self.database}


@dataclass(frozen=True, slots=True)
class Compiled:
    """Steps, and the orders by (do, node)."""

    steps: tuple[Step, ...]
    orders: Mapping[tuple[Do, str], Order]

    @property
    def digest(self) -> str:
        """Return the name of what would be executed, to tell whether a plan is the same as before."""
        orders = [[do.value, node, order.document()] for (do, node), order in self.orders.items()]
        steps = [[step.do.value, step.node, step.text] for step in self.steps]
        return hashlib.sha256(json.dumps([steps, orders]).encode()).hexdigest()


def compiled(plan: "Plan", targets: Sequence[Target]) -> Compiled:
    """Return the plan for these nodes, which are all that the balancer knows. Raises ConfigError."""
    chosen = _chosen(plan, targets)
    orders = {
        (do, target.name): _order(plan, command, do, target)
        for index, target in enumerate(chosen)
        for do, command in _commands(plan)
        if do is not Do.MIGRATE or index == 0
    }
    texts = {key: shlex.join(order.arguments) for key, order in orders.items()}
    make = _stop_all if plan.mode == "stop-all" else _rolling
    steps = tuple(
        Step(step.do, step.node, texts.get((step.do, step.node), "")) for step in make([t.name for t in chosen], texts)
    )
    return Compiled(steps, orders)


def _chosen(plan: "Plan", targets: Sequence[Target]) -> list[Target]:
    known = {target.name: target for target in targets}
    unknown = [name for name in (*plan.nodes, *plan.hosts) if name not in known]
    if unknown:
        meant = did_you_mean(unknown[0], known)
        raise ConfigError(
            f"the plan names {unknown[0]}, and nodes are {', '.join(known) or 'none'}{meant and f'; {meant}'}"
        )
    chosen = [known[name] for name in plan.nodes] or list(targets)
    if not chosen:
        raise ConfigError("there are no nodes to upgrade")
    return [Target(item.name, plan.hosts.get(item.name, item.host), item.url) for item in chosen]


def _commands(plan: "Plan") -> Iterator[tuple[Do, "Command"]]:
    for key, command in plan.commands():
        yield Do(key), command


def _order(plan: "Plan", command: "Command", do: Do, target: Target) -> Order:
    values = {"node": target.name, "host": target.host, "url": target.url}
    database = None
    if do is Do.MIGRATE and plan.migrate is not None and plan.migrate.database is not None:
        database = plan.migrate.database.model_dump(exclude_none=True)
    return Order(command.arguments(values), float(command.timeout or plan.timeout), database)


def _stop_all(names: Sequence[str], has: Mapping[tuple[Do, str], str]) -> Iterator[Step]:
    """Hold, empty, stop all; the first node comes up with the migrated database before the others are touched."""
    yield Step(Do.PAUSE)
    for do in (Do.DRAIN, Do.STOP):
        yield from (Step(do, name) for name in names if do is Do.DRAIN or (do, name) in has)
    for name in names:
        yield from (Step(do, name) for do in (Do.UPGRADE, Do.MIGRATE, Do.START) if (do, name) in has)
        yield Step(Do.READY, name)
    yield Step(Do.COMPARE)
    yield from (Step(Do.UNDRAIN, name) for name in names)
    yield Step(Do.RESUME)


def _rolling(names: Sequence[str], has: Mapping[tuple[Do, str], str]) -> Iterator[Step]:
    for name in names:
        yield Step(Do.DRAIN, name)
        yield from (Step(do, name) for do in (Do.STOP, Do.UPGRADE, Do.MIGRATE, Do.START) if (do, name) in has)
        yield Step(Do.READY, name)
        yield Step(Do.UNDRAIN, name)
    yield Step(Do.COMPARE)
