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
    """Samples of a variant, one a round, and the busiest worker's share of the work of all."""

    samples: list[Sample] = field(default_factory=list)
    busiest: list[float] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether requests failed: then the figures are worth nothing."""
        return any(sample.errors for sample in self.samples)


Results = dict[tuple[str, Variant], Grown]


def growth(stage: Stage, ours: Target, base: Target | None, plan: Plan, say: Say) -> Results:
    """Measure all groups with the small GET. `base` does the first two as well: so much is not ours."""
    ports = stage.nodes(max(variant.nodes for group in GROUPS for variant in group))
    results: Results = {}
    for group in GROUPS:
        pairs = [(ours, variant) for variant in group]
        if base is not None and all(variant.workers == 1 for variant in group):
            pairs += [(base, variant) for variant in group]
        with ExitStack() as stack:
            ready = [stack.enter_context(_ready(stage, target, variant, ports)) for target, variant in pairs]
            for (target, variant), instance in zip(pairs, ready, strict=True):
                stage.load(instance, _WORK, plan.warm_up_s)
                results[target.name, variant] = Grown()
            work = list(zip(pairs, ready, strict=True))
            for number in range(plan.rounds):
                if number and time.monotonic() > plan.deadline:
                    break
                for (target, variant), instance in work if number % 2 == 0 else reversed(work):
                    _measure(stage, instance, results[target.name, variant], plan)
        say(f"growth with {group[0].group}: done")
    return results


def table(results: Results, ours: str, base: str) -> Table:
    """Return the table of growth."""
    lines = [["growth, 1 KiB GET", f"{ours}, us", "more than the first", f"{base}, us", "more", "busiest worker"]]
    for group in GROUPS:
        for variant in group:
            grown = results[ours, variant]
            share = f"{Spread.of(grown.busiest).middle:.0%}" if variant.workers > 1 and grown.busiest else ""
            lines.append(
                [
                    variant.title,
                    *_cells(grown, results[ours, group[0]]),
                    *_cells(results.get((base, variant)), results.get((base, group[0]))),
                    share,
                ]
            )
    return lines


def _cells(grown: Grown | None, first: Grown | None) -> list[str]:
    """Return cost and difference to the first of the group, round by round."""
    if grown is None or first is None:
        return ["", ""]
    if grown.failed or first.failed:
        return ["requests failed", "-"]
    cost = Spread.of([sample.cpu_us for sample in grown.samples])
    if grown is first:
        return [f"{cost.middle:.1f}", ""]
    pairs = zip(grown.samples, first.samples, strict=True)
    more = Spread.of([one.cpu_us - other.cpu_us for one, other in pairs])
    return [f"{cost.middle:.1f}", f"{more.middle:+.2f} ({more.low:+.2f} to {more.high:+.2f})"]


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
