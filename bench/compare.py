"""The comparison: rounds in which every target does every row, and what they say together."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean, median, quantiles

from bench.equality import prove
from bench.rows import IDLE, TRAFFIC, Idle, Traffic
from bench.stage import Instance, Sample, Stage
from bench.targets import BASE, Target

_WARM_UP_S = 0.3
_SETTLE_S = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise at least one value."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass(slots=True)
class Results:
    """All samples by row and target, in the order of the rounds, so that the same place is the same round."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    idle_kib: dict[tuple[str, str], float] = field(default_factory=dict)
    rounds: int = 0

    def add(self, row: str, target: str, sample: Sample) -> None:
        """Keep a sample of the current round."""
        self.samples.setdefault((row, target), []).append(sample)

    def cpu_us(self, row: str, target: str) -> Spread | None:
        """Return CPU microseconds per unit of work; None when not measured."""
        found = self.samples.get((row, target))
        return Spread.of([sample.cpu_us for sample in found]) if found else None

    def ratio(self, row: str, target: str) -> Spread | None:
        """Return the cost beside HAProxy's of the same round; None when either is missing."""
        ours, base = self.samples.get((row, target)), self.samples.get((row, BASE))
        if not ours or not base:
            return None
        return Spread.of([one.cpu_us / other.cpu_us for one, other in zip(ours, base, strict=False)])

    def errors(self, row: str, target: str) -> int:
        """Return how many requests failed in all rounds; a figure with failures is worth nothing."""
        return sum(sample.errors for sample in self.samples.get((row, target), ()))

    def failed(self) -> list[tuple[str, str, int]]:
        """Return (row, target, errors) of all that failed."""
        return [(row, name, self.errors(row, name)) for row, name in self.samples if self.errors(row, name)]

    def mean(self, target: str) -> float | None:
        """Return the geometric mean of the ratios over all traffic rows; None unless all are there."""
        ratios = [self.ratio(row.name, target) for row in TRAFFIC]
        return geometric_mean([ratio.middle for ratio in ratios if ratio]) if all(ratios) else None

    def foreign(self) -> float:
        """Return the median share of the target's core that other programs took."""
        return median([sample.foreign for samples in self.samples.values() for sample in samples] or [0.0])


def compare(stage: Stage, targets: Sequence[Target], rows: Sequence[str], plan: "Plan", say: Say) -> Results:
    """Run the rounds of the traffic rows, then the idle rows, for all targets."""
    results = Results()
    traffic = [row for row in TRAFFIC if row.name in rows]
    instances = _start(stage, targets, traffic, say)
    for number in range(plan.rounds):
        if number and time.monotonic() > plan.deadline:
            say(f"time is up after {number} rounds")
            break
        for row in traffic:
            able = [target for target in targets if (target.name, row.work.kind == "websocket") in instances]
            able = [target for target in able if not (row.work.tls and target.without_tls)]
            for target in able if number % 2 == 0 else reversed(able):
                instance = instances[target.name, row.work.kind == "websocket"]
                if number == 0:
                    stage.load(instance, row.work, plan.warm_up_s)
                results.add(row.name, target.name, stage.sample(instance, row.work, plan.seconds))
        results.rounds = number + 1
        say(f"round {number + 1} of {plan.rounds} done")
    for idle in IDLE:
        if idle.name in rows:
            for target in targets:
                if not (idle.tls and target.without_tls):
                    results.idle_kib[idle.name, target.name] = _idle_kib(stage, target, idle, plan)
            say(f"{idle.title}: done")
    return results


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often. `deadline` is on the monotonic clock: no round begins after it."""

    seconds: float
    rounds: int
    deadline: float
    idle_share: float = 1.0  # of the connections of the idle rows

    @property
    def warm_up_s(self) -> float:
        """Seconds of load before the first sample of a row."""
        return min(_WARM_UP_S, self.seconds)


def _start(
    stage: Stage, targets: Sequence[Target], traffic: Sequence[Traffic], say: Say
) -> dict[tuple[str, bool], Instance]:
    instances = {}
    for websocket in (False, True):
        if not any((row.work.kind == "websocket") == websocket for row in traffic):
            continue
        nodes = stage.echo_nodes() if websocket else stage.nodes()
        for target in targets:
            instances[target.name, websocket] = instance = stage.keep(target, nodes)
            if not websocket:
                prove(instance, len(nodes))
        say(f"{len(targets)} targets started in front of {'WebSocket' if websocket else 'HTTP'} nodes")
    return instances


def _idle_kib(stage: Stage, target: Target, row: Idle, plan: Plan) -> float:
    """Memory per waiting connection of a fresh target that has already worked, so that its pools are filled."""
    count = max(10, int(row.count * plan.idle_share))
    with stage.started(target, stage.nodes()) as instance:
        stage.load(instance, TRAFFIC[0].work, plan.warm_up_s)
        with stage.idle(instance, 50, tls=row.tls):
            time.sleep(_SETTLE_S)
        before = instance.process.pss_kib()
        with stage.idle(instance, count, tls=row.tls):
            time.sleep(_SETTLE_S)
            instance.process.check_alive()
            return (instance.process.pss_kib() - before) / count
