"""Our own growth: what more nodes, more waiting connections and more workers cost."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench.compare import Plan, Say, Spread
from bench.report import Table
from bench.rows import TRAFFIC
from bench.stage import Instance, Sample, Stage
from bench.targets import Target

_WORK = TRAFFIC[0].work
_WORKER = "balancer.worker"  # in the command line of a worker process


@dataclass(frozen=True, slots=True)
class Variant:
    """One size. Variants of a group alternate in each round and are compared with the group's first."""

    group: str
    title: str
    nodes: int = 2
    idle: int = 0
    workers: int = 1


GROUPS = (
    (Variant("nodes", "2 nodes"), Variant("nodes", "16 nodes", nodes=16), Variant("nodes", "64 nodes", nodes=64)),
    (
        Variant("idle", "no idle connections"),
        Variant("idle", "1 000 idle connections", idle=1000),
        Variant("idle", "5 000 idle connections", idle=5000),
    ),
    (Variant("workers", "1 worker"), Variant("workers", "2 workers on the same core", workers=2)),
)


@dataclass(slots=True)
class Grown:
    """Samples of a variant, one a round, and each worker's share of the work of all."""

    samples: list[Sample] = field(default_factory=list)
    busiest: list[float] = field(default_factory=list)


def growth(stage: Stage, target: Target, plan: Plan, say: Say) -> dict[Variant, Grown]:
    """Measure all groups with the small GET."""
    ports = stage.nodes(max(variant.nodes for group in GROUPS for variant in group))
    results: dict[Variant, Grown] = {}
    for group in GROUPS:
        with ExitStack() as stack:
            ready = {variant: stack.enter_context(_ready(stage, target, variant, ports)) for variant in group}
            for variant, instance in ready.items():
                stage.load(instance, _WORK, plan.warm_up_s)
                results[variant] = Grown()
            for number in range(plan.rounds):
                if number and time.monotonic() > plan.deadline:
                    break
                for variant in group if number % 2 == 0 else reversed(group):
                    _measure(stage, ready[variant], results[variant], plan)
        say(f"growth with {group[0].group}: done")
    return results


def table(results: dict[Variant, Grown]) -> Table:
    """Return the table of growth."""
    lines = [["our growth, 1 KiB GET", "CPU us per request", "more than the first", "busiest worker's share"]]
    for group in GROUPS:
        first = results[group[0]].samples
        for variant in group:
            grown = results[variant]
            if any(sample.errors for sample in grown.samples):
                lines.append([variant.title, "requests failed", "-", "-"])
                continue
            pairs = zip(grown.samples, first, strict=True)
            more = Spread.of([one.cpu_us - other.cpu_us for one, other in pairs])
            cost = Spread.of([sample.cpu_us for sample in grown.samples])
            share = f"{Spread.of(grown.busiest).middle:.2f}" if variant.workers > 1 and grown.busiest else ""
            told = "" if variant is group[0] else f"{more.middle:+.2f} ({more.low:+.2f} to {more.high:+.2f})"
            lines.append([variant.title, f"{cost.middle:.1f}", told, share])
    return lines


@contextmanager
def _ready(stage: Stage, target: Target, variant: Variant, ports: tuple[int, ...]) -> Iterator[Instance]:
    with stage.started(target, ports[: variant.nodes], workers=variant.workers) as instance:
        if not variant.idle:
            yield instance
            return
        with stage.idle(instance, variant.idle):
            yield instance


def _measure(stage: Stage, instance: Instance, grown: Grown, plan: Plan) -> None:
    before = instance.process.cpu_ns_by_pid(_WORKER)
    grown.samples.append(stage.sample(instance, _WORK, plan.seconds))
    after = instance.process.cpu_ns_by_pid(_WORKER)
    used = [after[pid] - before.get(pid, 0) for pid in after]
    if sum(used):
        grown.busiest.append(max(used) / sum(used))
